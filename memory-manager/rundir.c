/*
 * qemu-memory-manager: the run directory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It holds what a restarted manager needs to find its VMs again, and the
 * sockets by which others find the manager:
 *
 *  manager.lock   OFD lock: one manager per run directory
 *  attach.sock    QEMU connects here
 *  qmp.sock       the manager's QMP
 *  UUID.vm        record of a VM (record.h)
 *  UUID.lock      pipe without data; the VM's pager holds an OFD lock on it
 *  UUID.sock      the VM's pager listens here for a restarted manager
 *
 * Whoever can write to the directory can pose as the manager, so it must be
 * ours alone. It is not readable by others: names of VMs are nobody's business.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "rundir.h"

#define MANAGER_LOCK_NAME "manager.lock"
#define RUN_DIR_MODE 0711
#define LOCK_TRIES 20
#define LOCK_RETRY_US 20000

/* A daemon's umask must not keep other users' QEMUs from their socket. */
static bool make_directory(const char *path, Error **errp)
{
    ERRP_GUARD();
    mode_t mask = umask(022);
    bool ok = g_mkdir_with_parents(path, RUN_DIR_MODE) == 0;

    if (!ok) {
        error_setg_errno(errp, errno, "cannot create the run directory %s",
                         path);
        error_append_hint(errp, "Choose another one with --run-dir DIR.\n");
    }
    umask(mask);
    return ok;
}

/*
 * Daemons once made it with the umask 027. Only what is certain to be theirs is
 * opened: any other directory has its mode for a reason.
 */
static bool repair_mode(const MmRunDir *dir, bool had_lock, Error **errp)
{
    struct stat st;

    if (stat(dir->path, &st)) {
        error_setg_errno(errp, errno, "cannot use the run directory %s",
                         dir->path);
        return false;
    }
    if (!had_lock || (st.st_mode & 07777) != (RUN_DIR_MODE & ~027)) {
        return true;
    }
    if (chmod(dir->path, RUN_DIR_MODE)) {
        error_setg_errno(errp, errno, "cannot give the run directory %s the "
                         "mode %04o", dir->path, RUN_DIR_MODE);
        return false;
    }
    info_report("the run directory %s has got the mode %04o, so that all users "
                "can reach the socket in it", dir->path, RUN_DIR_MODE);
    return true;
}

static bool check_private(const char *path, Error **errp)
{
    ERRP_GUARD();
    struct stat st;

    if (stat(path, &st)) {
        error_setg_errno(errp, errno, "cannot use the run directory %s", path);
        return false;
    }
    if (!S_ISDIR(st.st_mode)) {
        error_setg(errp, "the run directory %s is not a directory", path);
        return false;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 022)) {
        error_setg(errp, "the run directory %s belongs to user %d and has "
                   "mode %04o: others could replace the sockets in it",
                   path, (int)st.st_uid, st.st_mode & 07777);
        error_append_hint(errp, "Make it with mode 0711 and as user %d, or "
                          "choose another one with --run-dir DIR.\n",
                          (int)geteuid());
        return false;
    }
    return true;
}

/* A socket's path has to fit into struct sockaddr_un. */
static bool check_length(const char *path, Error **errp)
{
    ERRP_GUARD();
    size_t room = sizeof(((struct sockaddr_un *)0)->sun_path);
    size_t need = strlen(path) + 1 + UUID_FMT_LEN +
                  sizeof(MM_SUFFIX_SOCKET);

    if (need > room) {
        error_setg(errp, "the path of the run directory is %zu bytes too long "
                   "for the sockets in it: %s", need - room, path);
        error_append_hint(errp, "Choose a shorter one with --run-dir DIR.\n");
        return false;
    }
    return true;
}

/*
 * A manager that was killed while it made a process leaves the lock with that
 * one, which ends at once.
 */
static bool wait_for_lock(int fd)
{
    int tries;

    for (tries = 0; tries < LOCK_TRIES; tries++) {
        if (qemu_lock_fd(fd, 0, 0, true) == 0) {
            return true;
        }
        g_usleep(LOCK_RETRY_US);
    }
    return false;
}

static bool take_manager_lock(MmRunDir *dir, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *path = g_build_filename(dir->path, MANAGER_LOCK_NAME,
                                             NULL);

    dir->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (dir->lock_fd < 0) {
        error_setg_errno(errp, errno, "cannot open %s", path);
        return false;
    }
    if (!wait_for_lock(dir->lock_fd)) {
        error_setg(errp, "another qemu-memory-manager uses the run directory "
                   "%s", dir->path);
        error_append_hint(errp, "Stop it first (VMs go on without it), or "
                          "choose another one with --run-dir DIR.\n");
        close(dir->lock_fd);
        return false;
    }
    return true;
}

static bool has_lock(const char *path)
{
    g_autofree char *lock = g_build_filename(path, MANAGER_LOCK_NAME, NULL);

    return access(lock, F_OK) == 0;
}

bool mm_rundir_open(MmRunDir *dir, const char *path, Error **errp)
{
    bool had_lock;

    if (!check_length(path, errp) || !make_directory(path, errp) ||
        !check_private(path, errp)) {
        return false;
    }
    dir->path = g_strdup(path);
    had_lock = has_lock(path);
    return take_manager_lock(dir, errp) && repair_mode(dir, had_lock, errp);
}

char *mm_rundir_file(const MmRunDir *dir, const QemuUUID *uuid,
                     const char *suffix)
{
    g_autofree char *name = qemu_uuid_unparse_strdup(uuid);

    return g_strdup_printf("%s/%s%s", dir->path, name, suffix);
}

static bool fill_address(struct sockaddr_un *addr, const char *path)
{
    addr->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(addr->sun_path)) {
        return false;
    }
    pstrcpy(addr->sun_path, sizeof(addr->sun_path), path);
    return true;
}

int mm_listen(const char *path, int type, mode_t mode, Error **errp)
{
    struct sockaddr_un addr = {};
    int fd;

    if (!fill_address(&addr, path)) {
        error_setg(errp, "the path of a socket is too long: %s", path);
        return -1;
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot make a socket");
        return -1;
    }
    unlink(path);
    /* bind() makes the file with the mode of the socket, less the umask */
    if (fchmod(fd, mode) || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
        listen(fd, SOMAXCONN)) {
        error_setg_errno(errp, errno, "cannot listen on %s", path);
        close(fd);
        return -1;
    }
    return fd;
}

int mm_connect(const char *path)
{
    struct sockaddr_un addr = {};
    int fd;

    if (!fill_address(&addr, path)) {
        return -ENAMETOOLONG;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        int ret = -errno;

        close(fd);
        return ret;
    }
    return fd;
}
