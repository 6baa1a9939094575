/*
 * UFFDIO_COPY charges the page to the memory cgroup of the process that owns
 * the memory, not to that of the caller; over the limit it fails with ENOMEM
 * and the kernel kills the owner (the caller may see only that: ESRCH).
 *
 * Design rules 6 and 9: guest memory filled by the pager is accounted to the
 * VM, and the cgroup limit can only be a backstop beyond the pager's own
 * limit, since hitting it costs the VM its life.
 *
 * Works on cgroup v1 and v2.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define MIB             ((size_t)1 << 20)
#define RAM_BYTES       (64 * MIB)
#define CHARGED_BYTES   (16 * MIB)
#define HEADROOM_BYTES  (4 * MIB)
/* The kernel charges in batches of up to 64 pages per CPU. */
#define SLACK_BYTES     (2 * MIB)

typedef struct CgroupKind {
    const char *root;
    const char *usage_file;
    const char *limit_file;
    const char *noswap_file;        /* writing "0" keeps swap out of it */
} CgroupKind;

static const CgroupKind cgroup_v1 = {
    .root = "/sys/fs/cgroup/memory",
    .usage_file = "memory.usage_in_bytes",
    .limit_file = "memory.limit_in_bytes",
    .noswap_file = "memory.swappiness",
};

static const CgroupKind cgroup_v2 = {
    .root = "/sys/fs/cgroup",
    .usage_file = "memory.current",
    .limit_file = "memory.max",
    .noswap_file = "memory.swap.max",
};

static const CgroupKind *kind;
static char group[128];
static bool controller_added;

static bool file_write(const char *dir, const char *name, const char *text)
{
    char path[256];
    bool ok;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    ok = fd >= 0 && write(fd, text, strlen(text)) > 0;
    close(fd);
    return ok;
}

static bool file_exists(const char *dir, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static size_t group_usage(void)
{
    char path[256];
    size_t usage;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", group, kind->usage_file);
    f = fopen(path, "r");
    FACT_CHECK(f && fscanf(f, "%zu", &usage) == 1, "cannot read %s", path);
    fclose(f);
    return usage;
}

static void group_remove(void)
{
    for (int ms = 0; rmdir(group) && errno == EBUSY && ms < 1000; ms++) {
        sleep_ms(1);
    }
    if (controller_added) {
        file_write(kind->root, "cgroup.subtree_control", "-memory");
    }
}

static void group_create(void)
{
    bool v1 = file_exists(cgroup_v1.root, cgroup_v1.usage_file);

    kind = v1 ? &cgroup_v1 : &cgroup_v2;
    snprintf(group, sizeof(group), "%s/fact-%d", kind->root, getpid());
    if (mkdir(group, 0755)) {
        fact_skip("cannot make a memory cgroup in %s: %s", kind->root,
                  strerror(errno));
    }
    if (!v1 && !file_exists(group, kind->limit_file)) {
        controller_added = file_write(kind->root, "cgroup.subtree_control",
                                      "+memory");
    }
    if (!file_exists(group, kind->limit_file)) {
        group_remove();
        fact_skip("no memory controller in %s", kind->root);
    }
    if (file_exists(group, kind->noswap_file)) {
        file_write(group, kind->noswap_file, "0");
    }
}

/* Owns the memory, in its own cgroup, and does nothing. */
static void owner_side(int sock)
{
    char pid[32];
    uint8_t *ram;
    int memfd, uffd;

    snprintf(pid, sizeof(pid), "%d", getpid());
    if (!file_write(group, "cgroup.procs", pid)) {
        fact_skip("cannot enter the cgroup: %s", strerror(errno));
    }
    memfd = memfd_new(RAM_BYTES);
    ram = map_shared(memfd, RAM_BYTES);
    uffd = uffd_open_missing_minor();
    uffd_register(uffd, ram, RAM_BYTES, UFFDIO_REGISTER_MODE_MISSING |
                                        UFFDIO_REGISTER_MODE_MINOR);
    send_fd(sock, uffd);
    SYS(write(sock, &ram, sizeof(ram)));
    pause();
}

/* Fill [@from, @to) page by page; stops early and returns -errno on error. */
static int fill(int uffd, uint8_t *ram, size_t from, size_t to)
{
    const uint8_t *content = page_alloc(1, 1);
    int err = 0;

    for (size_t at = from; at < to && !err; at += PAGE_BYTES) {
        err = uffd_copy(uffd, ram + at, content, 1, 0, NULL);
    }
    return err;
}

typedef struct Findings {
    size_t charged;
    int fill_error;
    int limit_error;
    bool killed;
} Findings;

/* Only collects, so that the cgroup is removed before any verdict. */
static Findings collect(pid_t owner, int uffd, uint8_t *ram)
{
    Findings f = { 0 };
    size_t before = group_usage();
    char limit[32];
    int status;

    f.fill_error = fill(uffd, ram, 0, CHARGED_BYTES);
    f.charged = group_usage() - before;
    snprintf(limit, sizeof(limit), "%zu", group_usage() + HEADROOM_BYTES);
    if (!file_write(group, kind->limit_file, limit)) {
        f.limit_error = errno;
    }
    if (!f.fill_error && !f.limit_error) {
        f.fill_error = fill(uffd, ram, CHARGED_BYTES, RAM_BYTES);
    }
    for (int ms = 0; ms < 1000 && !f.killed; ms++) {
        f.killed = waitpid(owner, &status, WNOHANG) == owner;
        sleep_ms(1);
    }
    if (!f.killed) {
        child_kill(owner);
    }
    return f;
}

int main(void)
{
    Findings f;
    int sock[2], uffd;
    uint8_t *ram;
    pid_t owner;

    need_root("to make a memory cgroup");
    group_create();
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    owner = child_start();
    if (owner == 0) {
        owner_side(sock[1]);
    }
    uffd = recv_fd(sock[0]);
    SYS(read(sock[0], &ram, sizeof(ram)));
    f = collect(owner, uffd, ram);
    group_remove();

    fact_info("cgroup %s: %zu KiB charged to the owner for %zu KiB copied; "
              "at the limit: %s, owner %s",
              kind == &cgroup_v1 ? "v1" : "v2", f.charged / 1024,
              CHARGED_BYTES / 1024, strerror(-f.fill_error),
              f.killed ? "killed" : "alive");
    FACT_CHECK(f.charged + SLACK_BYTES >= CHARGED_BYTES,
               "the copies were not charged to the owner of the memory");
    FACT_CHECK(!f.limit_error, "cannot set the limit: %s",
               strerror(f.limit_error));
    FACT_CHECK(f.fill_error == -ENOMEM || f.fill_error == -ESRCH,
               "a copy beyond the owner's limit gave: %s",
               strerror(-f.fill_error));
    FACT_CHECK(f.killed, "the owner survived its limit: the backstop may be "
               "set tighter than the design says");
    return FACT_HOLDS;
}
