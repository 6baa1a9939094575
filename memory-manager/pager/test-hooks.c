/*
 * Managed memory pager: points where the tests interfere
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * In qemu-memory-pager-test only.  From the environment:
 *
 *  MM_FAILPOINT=NAME:ACTION:NTH[,...]  at the NTH hit of NAME, counted from 1:
 *      kill       the process dies by SIGKILL
 *      err=N      an I/O fails with errno N, from this hit on
 *      err1=N     only this one
 *      delay=MS   wait, from this hit on
 *      delay1=MS  only this time
 *  MM_MUTATION=NAME[,...]              switch these protections off
 *  MM_FAILPOINT_COUNT_FD=FD            at exit write "NAME HITS" lines there
 *  MM_FAILPOINT_HEAL_FD=FD             an eventfd: once it is set, errors end
 *  MM_JAIL_PROBE=open|socket|execve|ptrace|register|close|dup3
 *      try this inside the jail
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include "qemu/atomic.h"
#include "qemu/cutils.h"
#include "huge-presence.h"
#include "test-hooks.h"

typedef enum Action { NONE, KILL, ERR, ERR_ONCE, DELAY, DELAY_ONCE } Action;

static const char *const mutation_names[] = {
    [MM_MUT_NO_WAKE] = "no-wake",
    [MM_MUT_PUNCH_FIRST] = "punch-first",
    [MM_MUT_NO_DMA_COUNT] = "no-dma-count",
    [MM_MUT_NO_CHECKSUM] = "no-checksum",
    [MM_MUT_NO_MAP_OWNER] = "no-map-owner",
    [MM_MUT_FREE_EARLY] = "free-early",
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(mutation_names) != MM_MUT__MAX);

static const char *const failpoint_names[] = {
    [MM_FP_ATTACH] = "attach",
    [MM_FP_CLAIMING] = "claiming",
    [MM_FP_RECONCILE] = "reconcile",
    [MM_FP_FAULT_READ] = "fault-read",
    [MM_FP_FILLING] = "filling",
    [MM_FP_PLACED] = "placed",
    [MM_FP_MAPPING] = "mapping",
    [MM_FP_MAPPED] = "mapped",
    [MM_FP_CANDIDATE] = "candidate",
    [MM_FP_ZAPPED] = "zapped",
    [MM_FP_WRITEBACK] = "writeback",
    [MM_FP_STORED] = "stored",
    [MM_FP_DROPPING] = "dropping",
    [MM_FP_PUNCHED] = "punched",
    [MM_FP_SWAPPED] = "swapped",
    [MM_FP_MOVING] = "moving",
    [MM_FP_MOVED] = "moved",
    [MM_FP_RING_TAKEN] = "ring-taken",
    [MM_FP_DISCARDING] = "discarding",
    [MM_FP_DISCARD_PUNCHED] = "discard-punched",
    [MM_FP_RING_DONE] = "ring-done",
    [MM_FP_REGION_ADD] = "region-add",
    [MM_FP_TIER_LOAD] = "tier-load",
    [MM_FP_TIER_STORE] = "tier-store",
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(failpoint_names) != MM_FP__MAX);

static struct {
    Action action;
    int arg;
    uint64_t nth;
    uint64_t hits;
} points[MM_FP__MAX];
static bool mutated[MM_MUT__MAX];
static int count_fd = -1;
static int heal_fd = -1;
static const char *jail_probe;

static int find_name(const char *const *names, int nr, const char *name)
{
    int i;

    for (i = 0; i < nr; i++) {
        if (!strcmp(names[i], name)) {
            return i;
        }
    }
    fprintf(stderr, "test hooks: '%s' is not known\n", name);
    exit(EXIT_FAILURE);
}

static void parse_failpoint(const char *spec)
{
    g_auto(GStrv) part = g_strsplit(spec, ":", 3);
    const char *arg;
    int i;

    if (g_strv_length(part) != 3) {
        fprintf(stderr, "test hooks: '%s' is not NAME:ACTION:NTH\n", spec);
        exit(EXIT_FAILURE);
    }
    i = find_name(failpoint_names, MM_FP__MAX, part[0]);
    points[i].nth = g_ascii_strtoull(part[2], NULL, 10);
    if (!strcmp(part[1], "kill")) {
        points[i].action = KILL;
    } else if (strstart(part[1], "err=", &arg)) {
        points[i].action = ERR;
    } else if (strstart(part[1], "err1=", &arg)) {
        points[i].action = ERR_ONCE;
    } else if (strstart(part[1], "delay=", &arg)) {
        points[i].action = DELAY;
    } else if (strstart(part[1], "delay1=", &arg)) {
        points[i].action = DELAY_ONCE;
    } else {
        fprintf(stderr, "test hooks: action '%s' is not known\n", part[1]);
        exit(EXIT_FAILURE);
    }
    if (points[i].action != KILL) {
        points[i].arg = atoi(arg);
    }
}

static int env_fd(const char *name)
{
    const char *value = getenv(name);

    return value ? atoi(value) : -1;
}

void mm_test_init(int argc, char **argv)
{
    g_auto(GStrv) fps = g_strsplit(getenv("MM_FAILPOINT") ?: "", ",", -1);
    g_auto(GStrv) muts = g_strsplit(getenv("MM_MUTATION") ?: "", ",", -1);
    int i;

    if (argc == 2 && !strcmp(argv[1], "--list-failpoints")) {
        for (i = 0; i < MM_FP__MAX; i++) {
            puts(failpoint_names[i]);
        }
        exit(EXIT_SUCCESS);
    }
    for (i = 0; fps[i]; i++) {
        parse_failpoint(fps[i]);
    }
    for (i = 0; muts[i]; i++) {
        mutated[find_name(mutation_names, MM_MUT__MAX, muts[i])] = true;
    }
    count_fd = env_fd("MM_FAILPOINT_COUNT_FD");
    heal_fd = env_fd("MM_FAILPOINT_HEAL_FD");
    jail_probe = getenv("MM_JAIL_PROBE");
}

void mm_test_done(void)
{
    int i;

    for (i = 0; count_fd >= 0 && i < MM_FP__MAX; i++) {
        char line[64];
        int len = snprintf(line, sizeof(line), "%s %" PRIu64 "\n",
                           failpoint_names[i], qatomic_read(&points[i].hits));

        if (write(count_fd, line, len) != len) {
            abort();
        }
    }
}

void mm_test_jail_probe(void)
{
    char *const args[] = { (char *)"true", NULL };
    long ret = 0;

    if (!jail_probe) {
        return;
    }
    if (!strcmp(jail_probe, "open")) {
        ret = open("/etc/passwd", O_RDONLY);
    } else if (!strcmp(jail_probe, "socket")) {
        ret = socket(AF_INET, SOCK_STREAM, 0);
    } else if (!strcmp(jail_probe, "execve")) {
        ret = execve("/bin/true", args, NULL);
    } else if (!strcmp(jail_probe, "ptrace")) {
        ret = ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
    } else if (!strcmp(jail_probe, "register")) {
        ret = ioctl(STDERR_FILENO, UFFDIO_REGISTER, NULL);
    } else if (!strcmp(jail_probe, "close")) {
        ret = close(MM_PRESENCE_UFFD_MIN);
    } else if (!strcmp(jail_probe, "dup3")) {
        ret = dup3(STDERR_FILENO, MM_PRESENCE_UFFD_MIN, O_CLOEXEC);
    }
    /* still here: the jail has a hole, whatever the call returned */
    _exit(ret < 0 ? 101 : 102);
}

bool mm_mutated(MmMutation mutation)
{
    return mutated[mutation];
}

static bool healed(void)
{
    struct pollfd pfd = { .fd = heal_fd, .events = POLLIN };

    return heal_fd >= 0 && poll(&pfd, 1, 0) == 1;
}

int mm_failpoint(MmFailpoint point)
{
    uint64_t hit = qatomic_fetch_inc(&points[point].hits) + 1;
    uint64_t nth = points[point].nth;

    if (points[point].action == NONE || hit < nth) {
        return 0;
    }
    switch (points[point].action) {
    case KILL:
        if (hit == nth) {
            raise(SIGKILL);
        }
        return 0;
    case DELAY:
    case DELAY_ONCE:
        if (points[point].action == DELAY || hit == nth) {
            /* poll(), since the jail knows no other way to wait */
            poll(NULL, 0, points[point].arg);
        }
        return 0;
    case ERR_ONCE:
        return hit == nth ? -points[point].arg : 0;
    default:
        return healed() ? 0 : -points[point].arg;
    }
}
