/*
 * qemu-memory-manager: a process that is watched
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pidfd names one process for good: it becomes readable when that process
 * has ended, and a signal sent through it hits no other one. What has to
 * outlive the manager is PID plus start time, from which a restarted manager
 * makes a pidfd again.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/main-loop.h"
#include "process.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

struct MmProcess {
    pid_t pid;
    int pidfd;
    uint64_t start;
    MmProcessExitFn *fn;
    void *opaque;
};

/* Field 22 of /proc/PID/stat, counted after the command's closing bracket. */
static bool read_start(pid_t pid, uint64_t *start)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    g_auto(GStrv) fields = NULL;
    char *after;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return false;
    }
    after = strrchr(text, ')');
    if (!after || after[1] != ' ') {
        return false;
    }
    fields = g_strsplit(after + 2, " ", 21);
    return g_strv_length(fields) > 19 &&
           qemu_strtou64(fields[19], NULL, 10, start) == 0;
}

static char *describe_status(const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED && !info->si_status) {
        return g_strdup("ended");
    }
    if (info->si_code == CLD_EXITED) {
        return g_strdup_printf("exited with status %d", info->si_status);
    }
    return g_strdup_printf("killed by signal %d (%s)", info->si_status,
                           strsignal(info->si_status));
}

static void process_ended(void *opaque)
{
    MmProcess *proc = opaque;
    g_autofree char *how = NULL;
    siginfo_t info = {};
    int status = MM_STATUS_UNKNOWN;

    /* Only a child can be asked, and has to be. */
    if (waitid(P_PIDFD, proc->pidfd, &info, WEXITED | WNOHANG) == 0 &&
        info.si_pid) {
        how = describe_status(&info);
        status = info.si_code == CLD_EXITED ? info.si_status
                                            : MM_STATUS_KILLED;
    } else {
        how = g_strdup("ended");
    }
    qemu_set_fd_handler(proc->pidfd, NULL, NULL, NULL);
    proc->fn(proc->opaque, how, status);
}

static MmProcess *watch(int pidfd, pid_t pid, uint64_t start,
                        MmProcessExitFn *fn, void *opaque)
{
    MmProcess *proc = g_new(MmProcess, 1);

    *proc = (MmProcess) {
        .pid = pid,
        .pidfd = pidfd,
        .start = start,
        .fn = fn,
        .opaque = opaque,
    };
    qemu_set_cloexec(pidfd);
    qemu_set_fd_handler(pidfd, process_ended, NULL, proc);
    return proc;
}

MmProcess *mm_process_open(pid_t pid, uint64_t start,
                           MmProcessExitFn *fn, void *opaque, Error **errp)
{
    uint64_t found;
    int pidfd = syscall(__NR_pidfd_open, pid, 0);

    if (pidfd < 0) {
        error_setg_errno(errp, errno, "cannot watch process %d", (int)pid);
        return NULL;
    }
    /* Read after the pidfd is open: a process that ends now is noticed. */
    if (!read_start(pid, &found) || (start && found != start)) {
        error_setg(errp, "process %d has ended", (int)pid);
        close(pidfd);
        return NULL;
    }
    return watch(pidfd, pid, found, fn, opaque);
}

MmProcess *mm_process_open_peer(int sock, pid_t pid,
                                MmProcessExitFn *fn, void *opaque,
                                Error **errp)
{
    int pidfd;
    uint64_t start;
    socklen_t len = sizeof(pidfd);

    if (pid <= 0) {
        error_setg(errp, "the manager cannot see the process that connects: "
                   "it is in another PID namespace");
        return NULL;
    }
    /* Linux 6.5 gives the very process, older ones whoever has its PID now. */
    if (getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len)) {
        return mm_process_open(pid, 0, fn, opaque, errp);
    }
    if (!read_start(pid, &start)) {
        error_setg(errp, "process %d has ended", (int)pid);
        close(pidfd);
        return NULL;
    }
    return watch(pidfd, pid, start, fn, opaque);
}

void mm_process_close(MmProcess *proc)
{
    if (proc) {
        qemu_set_fd_handler(proc->pidfd, NULL, NULL, NULL);
        close(proc->pidfd);
        g_free(proc);
    }
}

bool mm_process_runs(const MmProcess *proc)
{
    struct pollfd pfd = { .fd = proc->pidfd, .events = POLLIN };

    return poll(&pfd, 1, 0) == 0;
}

pid_t mm_process_pid(const MmProcess *proc)
{
    return proc->pid;
}

uint64_t mm_process_start(const MmProcess *proc)
{
    return proc->start;
}

void mm_process_kill(MmProcess *proc)
{
    syscall(__NR_pidfd_send_signal, proc->pidfd, SIGKILL, NULL, 0);
}
