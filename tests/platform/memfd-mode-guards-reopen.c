/*
 * A process that was handed a read-only reopen of a memfd gets a writable one
 * through /proc/self/fd when the memfd has its default mode; when it was made
 * 0600 by another user, every way to write it is refused.
 *
 * Design rule 3: QEMU, as nobody, gets the page map read-only, and could lie
 * to the next pager if it could write it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int reopen(int fd, int flags)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, flags | O_CLOEXEC);
}

static void nobody_side(int guarded, int unguarded)
{
    void *addr;

    become_nobody();
    FACT_CHECK(reopen(unguarded, O_RDWR) >= 0, "a memfd with its default mode "
               "cannot be opened again: the mode may not be what guards it");

    FACT_CHECK(reopen(guarded, O_RDWR) < 0 && errno == EACCES,
               "opened again for reading and writing");
    FACT_CHECK(reopen(guarded, O_WRONLY) < 0 && errno == EACCES,
               "opened again for writing");
    FACT_CHECK(fchmod(guarded, 0666) < 0 && errno == EPERM,
               "changed the mode");
    FACT_CHECK(write(guarded, "x", 1) < 0 && errno == EBADF, "wrote");
    FACT_CHECK(fallocate(guarded, FALLOC_FL_PUNCH_HOLE |
                         FALLOC_FL_KEEP_SIZE, 0, PAGE_BYTES) < 0 &&
               errno == EBADF, "punched");
    FACT_CHECK(ftruncate(guarded, 0) < 0, "truncated");
    FACT_CHECK(fcntl(guarded, F_ADD_SEALS, F_SEAL_WRITE) < 0 &&
               errno == EPERM, "sealed");

    FACT_CHECK(mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                    guarded, 0) == MAP_FAILED && errno == EACCES,
               "mapped writable");
    addr = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, guarded, 0);
    FACT_CHECK(addr != MAP_FAILED, "cannot be mapped for reading: %s",
               strerror(errno));
    FACT_CHECK(mprotect(addr, PAGE_BYTES, PROT_READ | PROT_WRITE) < 0 &&
               errno == EACCES, "made its mapping writable");
    FACT_CHECK(load_byte(addr) == 'm', "cannot be read");
    _exit(FACT_HOLDS);
}

int main(void)
{
    int guarded = memfd_new(PAGE_BYTES);
    int unguarded = memfd_new(PAGE_BYTES);
    int guarded_ro, unguarded_ro;
    pid_t nobody;

    need_root("to act as another user");
    SYS(fchmod(guarded, 0600));
    SYS(pwrite(guarded, "m", 1, 0));
    guarded_ro = SYS(reopen(guarded, O_RDONLY));
    unguarded_ro = SYS(reopen(unguarded, O_RDONLY));
    nobody = child_start();
    if (nobody == 0) {
        close(guarded);
        close(unguarded);
        nobody_side(guarded_ro, unguarded_ro);
    }
    child_expect_success(nobody);
    return FACT_HOLDS;
}
