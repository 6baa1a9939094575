/*
 * With UFFD_FEATURE_THREAD_ID a fault message carries the id of the thread
 * that waits, as that thread's own pid namespace knows it, also when it
 * waits inside a system call.
 *
 * Design rule 14 and the query commands: the pager can tell which vCPU waits.
 * The id matches what QEMU reports as a vCPU's thread-id; a pager in another
 * pid namespace cannot look it up in its own /proc.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define PAGES   8

static int open_with_ids(uint8_t *ram)
{
    int uffd = uffd_open(UFFD_FEATURE_MISSING_SHMEM |
                         UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID);

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    return uffd;
}

static int next_thread_id(int uffd)
{
    struct uffd_msg msg;

    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS), "no fault");
    return msg.arg.pagefault.feat.ptid;
}

static void threads_of_one_process(void)
{
    uint8_t *ram = map_shared(memfd_new(PAGES * PAGE_BYTES),
                              PAGES * PAGE_BYTES);
    int uffd = open_with_ids(ram);

    for (int i = 0; i < 3; i++) {
        Toucher touch;
        int id;

        toucher_start(&touch, ram + i * PAGE_BYTES);
        id = next_thread_id(uffd);
        FACT_CHECK(id == atomic_load(&touch.tid),
                   "the fault of thread %d names %d", touch.tid, id);
        FACT_CHECK(id != getpid(), "the id is that of the process");
        FACT_CHECK(!uffd_copy(uffd, ram + i * PAGE_BYTES, page_alloc(1, 1), 1,
                              0, NULL), "UFFDIO_COPY failed");
        FACT_CHECK(toucher_returned(&touch, PATIENCE_MS), "still blocked");
    }
}

static void system_call_in_other_namespace(int sock)
{
    uint8_t *ram = map_shared(memfd_new(PAGES * PAGE_BYTES),
                              PAGES * PAGE_BYTES);
    int id = gettid(), fds[2];

    SYS(prctl(PR_SET_PDEATHSIG, SIGKILL));
    SYS(write(sock, &id, sizeof(id)));
    send_fd(sock, open_with_ids(ram));
    SYS(pipe(fds));
    send_token(fds[1]);
    SYS(read(fds[0], ram, 1));
    _exit(FACT_BROKEN);
}

int main(void)
{
    int sock[2], own_id, uffd, id;
    pid_t guest;

    threads_of_one_process();

    need_root("to make a pid namespace");
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    SYS(unshare(CLONE_NEWPID));
    guest = SYS(fork());
    if (guest == 0) {
        system_call_in_other_namespace(sock[1]);
    }
    FACT_CHECK(read(sock[0], &own_id, sizeof(own_id)) == sizeof(own_id),
               "the other process died");
    uffd = recv_fd(sock[0]);
    id = next_thread_id(uffd);
    child_kill(guest);
    FACT_CHECK(id == own_id, "thread %d of the other namespace faults as %d",
               own_id, id);
    FACT_CHECK(id != guest, "both namespaces have the same ids: this says "
               "nothing");
    return FACT_HOLDS;
}
