/*
 * A process that dumps core does not fault on its registered memory: the dump
 * goes over missing and zapped pages without a message to the pager, without
 * waiting for it, and without filling a hole.
 *
 * Design rules 2 and 6: a QEMU that crashes must not hang on a pager that is
 * dead or has let go of it, and must not change what a page map says.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define PAGES   64
#define ZAPPED  1
#define PRESENT 2

/* Page 0 is mapped, page 1 zapped, the others are holes. */
static void qemu_side(int memfd, int sock, const char *core_dir)
{
    struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
    uint8_t *ram = map_shared(memfd, PAGES * PAGE_BYTES);
    int uffd = uffd_open_missing_minor();

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    FACT_CHECK(!uffd_copy(uffd, ram, page_alloc(PRESENT, 1), PRESENT, 0,
                          NULL), "UFFDIO_COPY failed");
    SYS(madvise(ram + ZAPPED * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED));
    send_fd(sock, uffd);
    setrlimit(RLIMIT_CORE, &unlimited);
    SYS(chdir(core_dir));
    abort();
}

/* The pager's part: not to serve anything, and to see what comes. */
static int wait_for_end(pid_t qemu, int uffd, bool *faulted)
{
    struct uffd_msg msg;
    int status;

    for (int ms = 0; ms < PATIENCE_MS; ms++) {
        *faulted |= uffd_next(uffd, &msg, 1);
        if (waitpid(qemu, &status, WNOHANG) == qemu) {
            return status;
        }
    }
    fact_fail("the dump waits for the pager");
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES), sock[2], uffd, status;
    char core_dir[256];
    bool faulted = false;
    pid_t qemu;

    /* Skip here, rather than in the child, where there is none. */
    close(uffd_open_missing_minor());
    scratch_folder(core_dir, sizeof(core_dir));
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    qemu = child_start();
    if (qemu == 0) {
        qemu_side(memfd, sock[1], core_dir);
    }
    uffd = recv_fd(sock[0]);
    status = wait_for_end(qemu, uffd, &faulted);
    scratch_folder_remove(core_dir);

    FACT_CHECK(!faulted, "the dump raised a fault");
    FACT_CHECK(allocated_pages(memfd) == PRESENT,
               "the dump changed the memory from %d to %zu pages", PRESENT,
               allocated_pages(memfd));
    FACT_CHECK(WIFSIGNALED(status), "the process did not abort");
    if (!WCOREDUMP(status)) {
        fact_skip("this machine makes no core dumps");
    }
    return FACT_HOLDS;
}
