/*
 * Managed memory pager: the control thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * EOF on QEMU's connection ends the process: there is nothing to save, since
 * all that a successor needs lies in memfds and files that QEMU holds.  So
 * does the end of the zap channel alone, without which nothing can be evicted:
 * QEMU then has the manager start a successor.  The
 * userfaultfd is closed first and explicitly, so that a QEMU that is being
 * killed never waits for a transfer of ours that hangs.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/socket.h>
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../reclaim/reclaim.h"
#include "../test-hooks.h"
#include "control.h"

/* A peer that does not read its answers must not stop the others'. */
#define SEND_TIMEOUT_S 2
/* When to offer events again to a QEMU that does not read. */
#define EVENTS_AGAIN_MS 1000

/* connection, listener, wake-up, managers */
#define NR_POLLFDS (3 + MM_MAX_MANAGERS)

static G_NORETURN void leave(MmVM *vm)
{
    bool used = vm->uffd >= 0;

    if (used) {
        /* the other threads still use the number: let it mean nothing else */
        dup3(vm->control_wake_fd, vm->uffd, O_CLOEXEC);
    }
    mm_test_done();
    _exit(used ? 0 : MM_PAGER_EXIT_UNUSED);
}

static void add_manager(MmControl *c, int sock)
{
    struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    int i;

    for (i = 0; i < MM_MAX_MANAGERS; i++) {
        if (c->managers[i] < 0) {
            setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &timeout,
                       sizeof(timeout));
            c->managers[i] = sock;
            return;
        }
    }
    close(sock);
}

static void accept_manager(MmControl *c)
{
    int sock = accept4(c->vm->listen, NULL, NULL, SOCK_CLOEXEC);

    if (sock >= 0) {
        add_manager(c, sock);
    }
}

static void read_manager(MmControl *c, int i)
{
    int sock = c->managers[i];

    if (mm_msg_recv(sock, c->msg, -1) == 1) {
        mm_manager_handle(c, sock);
        mm_msg_clear(c->msg);
        return;
    }
    mm_msg_clear(c->msg);
    if (c->long_sock == sock) {
        c->long_sock = -1;      /* nobody waits for the answer any more */
    }
    close(sock);
    c->managers[i] = -1;
}

static void read_connection(MmControl *c)
{
    bool ok = mm_msg_recv(c->vm->connection, c->msg, -1) == 1 &&
              mm_session_handle(c);

    mm_msg_clear(c->msg);
    if (!ok) {
        leave(c->vm);
    }
}

static void event_to_managers(MmControl *c, const MmMsgEvent *event)
{
    int i;

    for (i = 0; i < MM_MAX_MANAGERS; i++) {
        if (c->managers[i] >= 0) {
            mm_msg_try_send(c->managers[i], MM_MSG_EVENT, event,
                            sizeof(*event));
        }
    }
}

/* Nobody is waited for: QEMU's commands come over the same socket. */
static void send_events(MmControl *c)
{
    MmMsgEvent event;
    bool again;

    c->events_left = false;
    while (!c->events_left && mm_vm_take_event(c->vm, &event, &again)) {
        if (!again) {
            /* QEMU's monitor may be stuck behind the very vCPU that waits */
            event_to_managers(c, &event);
        }
        if (mm_msg_try_send(c->vm->connection, MM_MSG_EVENT, &event,
                            sizeof(event)) < 0) {
            mm_vm_put_back_event(c->vm, &event);
            c->events_left = true;
        }
    }
}

static void announce(MmControl *c)
{
    MmMsgControlInfo info;

    mm_manager_info(c->vm, &info);
    mm_msg_send(c->vm->control, MM_MSG_CONTROL_INFO, 0, &info, sizeof(info),
                NULL, 0);
}

void mm_control_run(MmVM *vm)
{
    struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    MmControl *c = g_new0(MmControl, 1);
    int i;

    c->vm = vm;
    c->msg = g_new(MmMsg, 1);
    c->long_sock = -1;
    for (i = 0; i < MM_MAX_MANAGERS; i++) {
        c->managers[i] = -1;
    }
    setsockopt(vm->connection, SOL_SOCKET, SO_SNDTIMEO, &timeout,
               sizeof(timeout));
    add_manager(c, vm->control);
    announce(c);
    /* before that, a question would be answered as if the tiers were empty */
    mm_vm_wait_places(vm);
    for (;;) {
        struct pollfd pfd[NR_POLLFDS] = {
            { .fd = vm->connection, .events = POLLIN },
            { .fd = vm->listen, .events = POLLIN },
            { .fd = vm->control_wake_fd, .events = POLLIN },
        };

        for (i = 0; i < MM_MAX_MANAGERS; i++) {
            pfd[3 + i].fd = c->managers[i];
            pfd[3 + i].events = POLLIN;
        }
        if (TEMP_FAILURE_RETRY(poll(pfd, NR_POLLFDS, c->events_left
                                    ? EVENTS_AGAIN_MS : -1)) < 0) {
            leave(vm);
        }
        if (pfd[0].revents) {
            read_connection(c);
        }
        if (pfd[2].revents) {
            mm_unwake(vm->control_wake_fd);
            if (qatomic_read(&vm->zap_lost)) {
                leave(vm);      /* a successor gets a new channel */
            }
            mm_long_progress(c);
        }
        if (pfd[2].revents || c->events_left) {
            send_events(c);
        }
        for (i = 0; i < MM_MAX_MANAGERS; i++) {
            if (pfd[3 + i].revents) {
                read_manager(c, i);
            }
        }
        if (pfd[1].revents) {
            accept_manager(c);
        }
    }
}
