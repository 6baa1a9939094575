/*
 * qemu-memory-manager: starting a pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What needs privilege is done here, before the pager's program runs and
 * jails itself: the child stands still until the manager has moved it into
 * the VM's cgroups, so that not a page of it is charged elsewhere. Failing to
 * do so is not worth a VM: it is reported, and the pager starts all the same.
 * Those cgroups are the VM's, whose owner may freeze them: before the child can
 * get there, it has let go of every descriptor that is not its own.
 *
 * The child of a threaded process may call async-signal-safe functions only.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "managed-memory/msg.h"
#include "cgroup.h"
#include "shared-file.h"
#include "spawn.h"
#include "tier-device.h"
#include "trace.h"

/* A guest stalls while its pager is killed: let the kernel find others. */
#define PAGER_OOM_SCORE_ADJ "-900"

#define CHILD_CONTROL_FD 3
#define CHILD_GO_FD 4
#define EXIT_CANNOT_EXEC 127
/* Above all that the child needs: a place to put descriptors aside. */
#define ASIDE_FD 16

/* What the child has, with numbers of its own in the end. */
typedef struct ChildFds {
    int null;
    int log;
    int control;
    int go;
} ChildFds;

static G_NORETURN void child_fail(const char *program)
{
    struct iovec iov[] = {
        { (void *)"cannot run the pager's program ", 31 },
        { (void *)program, strlen(program) },
        { (void *)"\n", 1 },
    };
    ssize_t written = writev(STDERR_FILENO, iov, ARRAY_SIZE(iov));

    /* The manager sees the exit status, whether stderr took this or not. */
    (void)written;
    _exit(EXIT_CANNOT_EXEC);
}

/*
 * The child's descriptors are standard input to error, control and go, and no
 * others. Returns whether that has worked.
 */
static bool keep_own_fds(const ChildFds *fds)
{
    const struct {
        int fd;
        int number;
    } own[] = {
        { fds->null, STDIN_FILENO }, { fds->null, STDOUT_FILENO },
        { fds->log, STDERR_FILENO },
        { fds->control, CHILD_CONTROL_FD }, { fds->go, CHILD_GO_FD },
    };
    int aside[ARRAY_SIZE(own)];
    int i;

    for (i = 0; i < ARRAY_SIZE(own); i++) {
        aside[i] = fcntl(own[i].fd, F_DUPFD_CLOEXEC, ASIDE_FD);
    }
    for (i = 0; i < ARRAY_SIZE(own); i++) {
        if (aside[i] < 0 || dup2(aside[i], own[i].number) < 0) {
            return false;
        }
    }
    return syscall(__NR_close_range, CHILD_GO_FD + 1, ~0U, 0) == 0;
}

static G_NORETURN void run_child(const char *program, const ChildFds *fds)
{
    char *const argv[] = {
        (char *)program, (char *)"--control",
        (char *)stringify(CHILD_CONTROL_FD), NULL
    };
    sigset_t none;
    char byte;

    signal(SIGPIPE, SIG_IGN);
    if (!keep_own_fds(fds)) {
        child_fail(program);
    }
    /* EOF: the manager has died, and nobody will send START */
    if (TEMP_FAILURE_RETRY(write(CHILD_GO_FD, "", 1)) != 1 ||
        TEMP_FAILURE_RETRY(read(CHILD_GO_FD, &byte, 1)) != 1) {
        _exit(0);
    }
    close(CHILD_GO_FD);
    /* A signal from the manager's terminal must not reach the pagers. */
    setsid();
    signal(SIGPIPE, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(program, argv);
    child_fail(program);
}

static void set_oom_score(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/oom_score_adj",
                                            (int)pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t len = strlen(PAGER_OOM_SCORE_ADJ);

    /* Needs CAP_SYS_RESOURCE; without it the pager is as any process. */
    if (fd < 0 || write(fd, PAGER_OOM_SCORE_ADJ, len) != len) {
        trace_mm_spawn_no_oom_score(pid, errno);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void prepare_child(const MmOptions *opts, pid_t pid, pid_t qemu_pid,
                          int go)
{
    Error *err = NULL;
    char byte;

    /* once it has nothing of ours any more; EOF: it has failed, and says why */
    if (TEMP_FAILURE_RETRY(read(go, &byte, 1)) != 1) {
        return;
    }
    set_oom_score(pid);
    if (opts->pager_in_vm_cgroup && !mm_cgroup_join(pid, qemu_pid, &err)) {
        warn_reportf_err(err, "pager %d is not charged to its VM, process %d: ",
                         (int)pid, (int)qemu_pid);
    }
    if (write(go, "", 1) != 1) {
        error_report("cannot release pager %d: %s", (int)pid, strerror(errno));
    }
}

static pid_t fork_pager(const MmOptions *opts, const ChildFds *fds,
                        Error **errp)
{
    pid_t pid = fork();

    if (pid == 0) {
        run_child(opts->pager_path, fds);
    }
    if (pid < 0) {
        error_setg_errno(errp, errno, "cannot make a process for the pager");
    }
    return pid;
}

pid_t mm_spawn_pager(const MmOptions *opts, pid_t qemu_pid, int log,
                     int *control, Error **errp)
{
    ChildFds child = { .log = log };
    int sockets[2];
    int go[2] = { -1, -1 };
    pid_t pid = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets)) {
        error_setg_errno(errp, errno, "cannot make a control socket");
        return -1;
    }
    child.control = sockets[1];
    child.null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (child.null >= 0 &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, go) == 0) {
        child.go = go[1];
        pid = fork_pager(opts, &child, errp);
        close(go[1]);
    } else {
        error_setg_errno(errp, errno, "cannot start the pager");
    }
    if (pid > 0) {
        prepare_child(opts, pid, qemu_pid, go[0]);
        g_unix_set_fd_nonblocking(sockets[0], true, NULL);
        *control = sockets[0];
        sockets[0] = -1;
    }
    close(sockets[1]);
    if (sockets[0] >= 0) {
        close(sockets[0]);
    }
    if (child.null >= 0) {
        close(child.null);
    }
    if (go[0] >= 0) {
        close(go[0]);
    }
    return pid;
}

/*
 * If QEMU has claimed it already, which only the pager finds out, the device
 * itself is enough, and if that cannot be opened, what QEMU has may do; a VM
 * that runs can do without a new tier altogether.
 */
static bool send_device(int control, const MmRecord *rec, unsigned i,
                        bool resume, Error **errp)
{
    const MmRecordTier *tier = &rec->tiers[i];
    int fds[MM_TIER_DEVICE_FD__MAX];
    Error *err = NULL;
    unsigned k, nr;
    int ret;

    nr = mm_device_open(tier, rec->name, !resume, fds, &err);
    if (!nr && !resume) {
        error_propagate(errp, err);
        return false;
    }
    if (err) {
        warn_reportf_err(err, "pager of %s: ",
                         rec->name[0] ? rec->name : "a VM without a name");
    }
    ret = mm_msg_send(control, MM_MSG_START_TIER, 0, &tier->conf,
                      sizeof(tier->conf), fds, nr);
    for (k = 0; k < nr; k++) {
        close(fds[k]);
    }
    if (ret) {
        error_setg_errno(errp, -ret, "the pager does not take its tiers");
    }
    return !ret;
}

/* A file that is lent is in the folder of one of our own tiers. */
static const MmTierConf *find_folder(const MmOptions *opts,
                                     const MmMsgStartTier *conf)
{
    unsigned i;

    for (i = 0; conf->lent && i < opts->nr_tiers; i++) {
        if (opts->tiers[i].shared &&
            !memcmp(opts->tiers[i].storage, conf->storage, MM_UUID_LEN)) {
            return &opts->tiers[i];
        }
    }
    return mm_tier_find(opts->tiers, opts->nr_tiers, conf->name);
}

static bool send_folder(int control, const MmOptions *opts,
                        const MmMsgStartTier *conf, Error **errp)
{
    /* what is not new has its file with QEMU */
    const MmTierConf *tier = conf->is_new ? find_folder(opts, conf) : NULL;
    int dirfd = tier ? tier->dirfd : -1;
    MmMsgStartTier named = *conf;
    int ret;

    /* what QEMU tells other hosts, which is when the file is not released */
    if (conf->shared && !conf->lent) {
        mm_shared_our_name(conf->file_id, named.file);
    }
    ret = mm_msg_send(control, MM_MSG_START_TIER, 0, &named, sizeof(named),
                      &dirfd, dirfd >= 0);
    if (ret) {
        error_setg_errno(errp, -ret, "the pager does not take its tiers");
    }
    return !ret;
}

static bool send_tiers(int control, const MmOptions *opts, const MmRecord *rec,
                       bool resume, Error **errp)
{
    bool ok = true;
    uint32_t i;

    for (i = 0; i < rec->nr_tiers && ok; i++) {
        const MmMsgStartTier *conf = &rec->tiers[i].conf;

        ok = conf->kind == MM_TIER_KIND_DEVICE
            ? send_device(control, rec, i, resume, errp)
            : send_folder(control, opts, conf, errp);
    }
    return ok;
}

bool mm_spawn_send_start(int control, const MmOptions *opts,
                         const MmRecord *rec, const MmMsgStart *start,
                         const MmStartFds *fds, Error **errp)
{
    /* For kernel-mode faults; where it is missing, QEMU asks the kernel. */
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int all[MM_START_FD__MAX] = {
        [MM_START_FD_CONNECTION] = fds->connection,
        [MM_START_FD_LISTEN] = fds->listen,
        [MM_START_FD_LOCK] = fds->lock,
        [MM_START_FD_UFFD_DEV] = dev,
    };
    bool ok = send_tiers(control, opts, rec, start->resume, errp);
    int ret;

    if (ok) {
        ret = mm_msg_send(control, MM_MSG_START, 0, start, sizeof(*start), all,
                          dev >= 0 ? MM_START_FD__MAX : MM_START_FD_UFFD_DEV);
        if (ret) {
            error_setg_errno(errp, -ret,
                             "cannot hand the VM over to its pager");
            ok = false;
        }
    }
    if (dev >= 0) {
        close(dev);
    }
    return ok;
}
