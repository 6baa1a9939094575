/*
 * A file made with O_TMPFILE lives as long as any process holds a descriptor
 * of it, an O_PATH one included; through /proc/self/fd its owner can open it
 * again for reading and writing, somebody else cannot, and with O_EXCL nobody
 * can give it a name.
 *
 * Architecture: a tier file is unnamed and mode 0600; QEMU (as nobody) keeps
 * an O_PATH descriptor of it, so that it lives exactly as long as the VM.  A
 * new pager opens it again from there; QEMU itself cannot read or write it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <grp.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* Not root, whom file modes do not stop, and not nobody. */
#define PAGER_UID   65533

static const char secret[] = "swapped out";

static void become_pager(void)
{
    SYS(setgroups(0, NULL));
    SYS(setresgid(PAGER_UID, PAGER_UID, PAGER_UID));
    SYS(setresuid(PAGER_UID, PAGER_UID, PAGER_UID));
}

static int reopen(int fd, int flags)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

/* Makes the file, hands over an O_PATH descriptor of it, and dies. */
static void creator_side(int sock)
{
    int fd = scratch_file(O_EXCL);

    SYS(fchown(fd, PAGER_UID, PAGER_UID));
    SYS(pwrite(fd, secret, sizeof(secret), 0));
    send_fd(sock, SYS(reopen(fd, O_PATH)));
    _exit(FACT_HOLDS);
}

static void nobody_side(int fd)
{
    char byte;

    become_nobody();
    FACT_CHECK(reopen(fd, O_RDWR) < 0 && errno == EACCES,
               "nobody opened the file for writing");
    FACT_CHECK(reopen(fd, O_RDONLY) < 0 && errno == EACCES,
               "nobody opened the file for reading");
    FACT_CHECK(pread(fd, &byte, 1, 0) < 0 && errno == EBADF,
               "an O_PATH descriptor can be read");
    _exit(FACT_HOLDS);
}

static void next_pager_side(int fd)
{
    char buf[sizeof(secret)] = "";
    int file;

    become_pager();
    file = reopen(fd, O_RDWR);
    FACT_CHECK(file >= 0, "the owner cannot open the file again: %s",
               strerror(errno));
    SYS(pread(file, buf, sizeof(buf), 0));
    FACT_CHECK(!memcmp(buf, secret, sizeof(secret)), "the content is gone");
    FACT_CHECK(pwrite(file, secret, sizeof(secret), 4096) > 0,
               "the owner cannot write: %s", strerror(errno));
    _exit(FACT_HOLDS);
}

static void root_cannot_name_it(int fd)
{
    char path[64], name[256];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    snprintf(name, sizeof(name), "%s/fact-%d", scratch_dir(), getpid());
    if (linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0) {
        unlink(name);
        fact_fail("a file made with O_EXCL got a name");
    }
}

static void run_child(void (*side)(int), int fd)
{
    pid_t pid = child_start();

    if (pid == 0) {
        side(fd);
    }
    child_expect_success(pid);
}

int main(void)
{
    struct stat st;
    int sock[2], fd;

    need_root("to act as two other users");
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    run_child(creator_side, sock[1]);
    fd = recv_fd(sock[0]);

    SYS(fstat(fd, &st));
    FACT_CHECK(st.st_nlink == 0, "the file has a name");
    FACT_CHECK((st.st_mode & 07777) == 0600, "the file has mode %o",
               st.st_mode & 07777);
    run_child(nobody_side, fd);
    run_child(next_pager_side, fd);
    root_cannot_name_it(fd);
    return FACT_HOLDS;
}
