/*
 * An open-file-description lock is held until the last copy of its descriptor
 * is gone: it survives the process that took it when a child inherited the
 * descriptor, and every other process sees it.  A classic POSIX lock is gone
 * with the process that took it.
 *
 * Design rule 2: the lock file of a VM is opened and locked by the manager
 * and inherited by the pager.  It outlives a restart of the manager, and
 * "the lock is free" proves that no pager of the VM is left.
 *
 * A dying process closes its descriptors one after the other, so its lock may
 * still be held for a moment after EOF was seen on one of its sockets: wait
 * for the lock, do not just try it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static char lock_path[256];

static int lock_whole_file(int fd, int command)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    return fcntl(fd, command, &lock);
}

/* Open the file anew, as another process would, and try the lock. */
static bool lock_is_free(void)
{
    int fd = SYS(open(lock_path, O_RDWR | O_CLOEXEC));
    bool taken = lock_whole_file(fd, F_OFD_SETLK) == 0;

    FACT_CHECK(taken || errno == EAGAIN || errno == EACCES, "F_OFD_SETLK: %s",
               strerror(errno));
    close(fd);
    return taken;
}

/* Wait for the rest of a process of which EOF was seen. */
static bool lock_comes_free(void)
{
    for (int ms = 0; ms < PATIENCE_MS; ms++) {
        if (lock_is_free()) {
            return true;
        }
        sleep_ms(1);
    }
    return false;
}

/* Outlives its parent, so it must not be tied to it. */
static void pager_side(int sock)
{
    SYS(prctl(PR_SET_PDEATHSIG, 0));
    send_token(sock);
    /* EOF when the test program goes away, an order to leave otherwise. */
    wait_token(sock);
    _exit(FACT_HOLDS);
}

/* Takes the lock, starts the pager, tells its pid, and is killed. */
static void manager_side(int sock, int pager_sock, int command)
{
    int fd = SYS(open(lock_path, O_RDWR | O_CLOEXEC));
    pid_t pager;

    SYS(lock_whole_file(fd, command));
    pager = SYS(fork());
    if (pager == 0) {
        close(sock);
        pager_side(pager_sock);
    }
    close(pager_sock);
    send_token(sock);
    pause();
}

typedef struct Observed {
    bool free_at_first;
    bool free_without_manager;
    bool free_without_pager;
} Observed;

static Observed observe(int command)
{
    int sock[2], pager_sock[2];
    Observed o;
    pid_t manager;

    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pager_sock));
    manager = child_start();
    if (manager == 0) {
        close(sock[0]);
        close(pager_sock[0]);
        manager_side(sock[1], pager_sock[1], command);
    }
    close(sock[1]);
    close(pager_sock[1]);
    FACT_CHECK(wait_token(sock[0]), "the manager died");
    FACT_CHECK(wait_token(pager_sock[0]), "the pager died");
    o.free_at_first = lock_is_free();
    child_kill(manager);
    o.free_without_manager = lock_is_free();
    send_token(pager_sock[0]);
    FACT_CHECK(!wait_token(pager_sock[0]), "the pager did not leave");
    o.free_without_pager = lock_comes_free();
    close(sock[0]);
    close(pager_sock[0]);
    return o;
}

int main(void)
{
    Observed ofd, posix;
    int fd;

    snprintf(lock_path, sizeof(lock_path), "%s/lock-XXXXXX", scratch_dir());
    fd = SYS(mkstemp(lock_path));
    close(fd);
    ofd = observe(F_OFD_SETLK);
    posix = observe(F_SETLK);
    unlink(lock_path);

    FACT_CHECK(!ofd.free_at_first, "another process could take the lock");
    FACT_CHECK(!ofd.free_without_manager,
               "the lock was gone with the process that took it, although "
               "its child holds the descriptor");
    FACT_CHECK(ofd.free_without_pager, "the lock stayed after the last "
               "process that held the descriptor");
    FACT_CHECK(!posix.free_at_first && posix.free_without_manager,
               "a POSIX lock behaves like an OFD lock: this test cannot tell "
               "them apart");
    return FACT_HOLDS;
}
