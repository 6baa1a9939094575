/*
 * Torture tests: QEMU dies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A process of its own plays QEMU and manager and is killed under load, with
 * faults pending.  Its pager, which becomes our child then, must be gone soon
 * afterwards, and with it every file and lock.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define GONE_MS 1000
#define SETUP_MS 30000

/* What the doomed process tells us. */
typedef struct Obituary {
    pid_t pager;
    char dir[256];              /* run directory */
} Obituary;

typedef struct Doomed {
    pid_t pid;
    int pidfd;
    int pager_pidfd;
    Obituary obituary;
} Doomed;

/* Never returns: loads the VM until it is killed. */
static void doomed_main(int out, uint64_t seed)
{
    const RigConfig config = {
        .stamped_mib = { 16 },
        .words_mib = 1,
        .limit_percent = 25,
        .stuck_ms = 600000,
    };
    Rig *rig = rig_new(&config, seed);
    Obituary obituary = { .pager = fake_manager_pid(rig->fm) };

    pstrcpy(obituary.dir, sizeof(obituary.dir), rig->fm->dir);
    if (!rig_ok(rig)) {
        g_printerr("%s\n", verdict_text(rig->verdict));
        _exit(1);
    }
    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 200);
    g_assert(write(out, &obituary, sizeof(obituary)) == sizeof(obituary));
    load_watch(rig->load, 600000);
    _exit(1);
}

static int open_pidfd(pid_t pid)
{
    int fd = syscall(SYS_pidfd_open, pid, 0);

    g_assert(fd >= 0);
    return fd;
}

static bool wait_exit(int pidfd, int timeout_ms)
{
    struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

    return TEMP_FAILURE_RETRY(poll(&pfd, 1, timeout_ms)) == 1;
}

static bool doomed_start(Doomed *d)
{
    uint64_t seed = torture_seed();
    struct pollfd pfd = { .events = POLLIN };
    int fds[2];
    bool ok;

    g_assert(pipe2(fds, O_CLOEXEC) == 0);
    d->pid = fork();
    g_assert(d->pid >= 0);
    if (!d->pid) {
        close(fds[0]);
        doomed_main(fds[1], seed);
    }
    close(fds[1]);
    d->pidfd = open_pidfd(d->pid);
    pfd.fd = fds[0];
    ok = poll(&pfd, 1, SETUP_MS) == 1 &&
         read(fds[0], &d->obituary, sizeof(d->obituary)) ==
         sizeof(d->obituary);
    close(fds[0]);
    if (!ok) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, NULL, 0);
        close(d->pidfd);
        g_test_message("the VM has not come up");
        g_test_fail();
        return false;
    }
    d->pager_pidfd = open_pidfd(d->obituary.pager);
    return true;
}

/* The locks of a process are gone with it, its directory is empty. */
static void check_leftovers(const Doomed *d)
{
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    g_autofree char *lock = g_strdup_printf("%s/vm.lock", d->obituary.dir);
    g_autofree char *sock = g_strdup_printf("%s/vm.sock", d->obituary.dir);
    g_autofree char *tier = g_strdup_printf("%s/tier", d->obituary.dir);
    int fd = open(lock, O_RDWR | O_NONBLOCK | O_CLOEXEC);

    g_assert(fd >= 0);
    if (fcntl(fd, F_OFD_SETLK, &fl)) {
        g_test_message("the lock is still held");
        g_test_fail();
    }
    close(fd);
    unlink(lock);
    unlink(sock);
    if (rmdir(tier) || rmdir(d->obituary.dir)) {
        g_test_message("files are left in %s", d->obituary.dir);
        g_test_fail();
    }
}

static void expect_gone(int pidfd, const char *who)
{
    int64_t before = torture_now_us();

    if (!wait_exit(pidfd, GONE_MS)) {
        g_test_message("%s is not gone within %d ms", who, GONE_MS);
        g_test_fail();
        wait_exit(pidfd, 10 * GONE_MS);
    }
    g_test_message("%s was gone after %" PRId64 " us", who,
                   torture_now_us() - before);
}

static void check_pager_status(pid_t pager)
{
    int status;

    if (waitpid(pager, &status, WNOHANG) != pager) {
        kill(pager, SIGKILL);
        waitpid(pager, NULL, 0);
    } else if (status) {
        g_autofree char *text = describe_status(status);

        g_test_message("the pager ended with %s", text);
        g_test_fail();
    }
}

/* @stop_pager: faults are certain to be pending when QEMU is killed. */
static void run_death(bool stop_pager)
{
    Doomed d = {};

    /* the pager becomes our child when QEMU is gone */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!doomed_start(&d)) {
        return;
    }
    if (stop_pager) {
        kill(d.obituary.pager, SIGSTOP);
        g_usleep(100000);
    }
    kill(d.pid, SIGKILL);
    if (stop_pager) {
        g_usleep(50000);
        kill(d.obituary.pager, SIGCONT);
    }
    expect_gone(d.pidfd, "QEMU");
    expect_gone(d.pager_pidfd, "the pager");
    waitpid(d.pid, NULL, 0);
    check_pager_status(d.obituary.pager);
    check_leftovers(&d);
    close(d.pidfd);
    close(d.pager_pidfd);
}

static void test_kill(void)
{
    unsigned i, n = torture_is_long() ? 100 : 4;

    for (i = 0; i < n && !g_test_failed(); i++) {
        run_death(false);
    }
}

static void test_faults_pending(void)
{
    unsigned i, n = torture_is_long() ? 100 : 4;

    for (i = 0; i < n && !g_test_failed(); i++) {
        run_death(true);
    }
}

void torture_add_death(void)
{
    g_test_add_func("/torture/qemu-death/kill", test_kill);
    g_test_add_func("/torture/qemu-death/faults-pending",
                    test_faults_pending);
}
