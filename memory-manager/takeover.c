/*
 * qemu-memory-manager: replacing the pager of a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two pagers on one VM would destroy it, so the old one has to be proven
 * dead: its process has ended, which a pidfd tells, and nobody holds the lock
 * of the VM, which covers pagers that we do not know.
 *
 * A QEMU resumes because its connection has closed, so the old pager ends as a
 * rule within milliseconds. If it does not, it is asked for a sign of life:
 *
 *  it answers    it has a connection that is open: this RESUME is a mistake
 *                or a forgery, and is refused. (Or it still waits for its I/O
 *                to end: QEMU will try again.)
 *  it does not   it hangs, and is killed. That may take time (a process that
 *                waits for a dead disk cannot be killed): then the RESUME is
 *                refused, for QEMU to try again
 *
 * All of this is done by polling, since a lock cannot be waited for without
 * blocking. It is the same poll that notices a QEMU that has given up.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "attach.h"
#include "takeover.h"
#include "trace.h"

#define POLL_MS 10
/* How long the old pager may take to notice the end of its connection. */
#define PROOF_TIMEOUT_MS 1000
/* How long it may take to die when killed. */
#define KILL_TIMEOUT_MS 5000

struct MmTakeover {
    MmVM *vm;
    int sock;
    uint64_t seq;
    uint32_t version;
    int64_t began_ms;
    int64_t killed_ms;          /* 0: the old pager was not killed */
    bool answered;              /* the old pager has given a sign of life */
    QEMUTimer *timer;
};

/* Ends the takeover; the pager has its own descriptor of @sock by now. */
static void finish(MmTakeover *to)
{
    to->vm->takeover = NULL;
    if (to->sock >= 0) {
        close(to->sock);
    }
    timer_free(to->timer);
    g_free(to);
}

static void refuse(MmTakeover *to, int err, const char *text)
{
    trace_mm_takeover_refuse(to->vm->uuid_text, text);
    mm_condition_refused_vm(to->vm, text);
    mm_attach_refuse(to->sock, to->seq, err, text);
    to->sock = -1;
    finish(to);
}

static bool peer_has_gone(const MmTakeover *to)
{
    struct pollfd pfd = { .fd = to->sock, .events = POLLRDHUP };

    return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLRDHUP | POLLHUP));
}

static void poll_again(MmTakeover *to)
{
    timer_mod(to->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + POLL_MS);
}

/* The old pager is known and has not ended. */
static void wait_for_pager(MmTakeover *to, int64_t now)
{
    MmVM *vm = to->vm;

    if (to->killed_ms) {
        if (now - to->killed_ms > KILL_TIMEOUT_MS) {
            refuse(to, ETIMEDOUT, "the old pager cannot be killed: it waits "
                   "for I/O that does not end; try again");
            return;
        }
    } else if (now - to->began_ms > PROOF_TIMEOUT_MS) {
        if (to->answered) {
            refuse(to, EBUSY, "the VM has a pager, whose connection is open; "
                   "close that one to resume");
            return;
        }
        warn_report("VM %s: pager %d hangs; killing it", vm->label,
                    (int)mm_process_pid(vm->pager));
        to->killed_ms = now;
        mm_process_kill(vm->pager);
    }
    poll_again(to);
}

static void start_new_pager(MmTakeover *to)
{
    Error *err = NULL;

    if (mm_vm_start_pager(to->vm, to->sock, to->seq, to->version, true,
                          &err)) {
        trace_mm_takeover_done(to->vm->uuid_text,
                               qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                               to->began_ms);
        finish(to);
        return;
    }
    refuse(to, EAGAIN, error_get_pretty(err));
    error_free(err);
}

/* No process is known; the lock says whether there is none at all. */
static void wait_for_lock(MmTakeover *to, int64_t now)
{
    int lock = mm_lock_take(to->vm->lock_path);

    if (lock == -EAGAIN) {
        if (now - to->began_ms > PROOF_TIMEOUT_MS + KILL_TIMEOUT_MS) {
            refuse(to, EBUSY, "the VM's lock is held by a process that the "
                   "manager does not know; try again");
        } else {
            poll_again(to);
        }
        return;
    }
    if (lock >= 0) {
        close(lock);
    }
    if (now < to->vm->not_before_ms) {
        poll_again(to);
    } else {
        start_new_pager(to);
    }
}

static void takeover_step(void *opaque)
{
    MmTakeover *to = opaque;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (peer_has_gone(to)) {
        trace_mm_takeover_refuse(to->vm->uuid_text, "QEMU has gone");
        finish(to);
    } else if (to->vm->pager) {
        wait_for_pager(to, now);
    } else {
        wait_for_lock(to, now);
    }
}

static void alive_answered(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;

    if (mm_reply_ok(msg, MM_MSG_CONTROL_INFO, NULL)) {
        mm_vm_handle_info(vm, (const void *)msg->payload);
        if (vm->takeover) {
            vm->takeover->answered = true;
        }
    }
}

static void ask_sign_of_life(MmVM *vm)
{
    if (vm->pager && mm_vm_connect(vm, NULL)) {
        mm_link_hello(vm->link, -1, alive_answered, vm, NULL);
    }
}

void mm_takeover_begin(MmVM *vm, const MmHelloPeer *peer)
{
    MmTakeover *to = g_new(MmTakeover, 1);

    mm_takeover_abort(vm, "another connection resumes this VM");
    *to = (MmTakeover) {
        .vm = vm,
        .sock = peer->sock,
        .seq = peer->seq,
        .version = peer->version,
        .began_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME),
        .timer = timer_new_ms(QEMU_CLOCK_REALTIME, takeover_step, to),
    };
    vm->takeover = to;
    trace_mm_takeover_begin(vm->uuid_text, vm->pager != NULL);
    ask_sign_of_life(vm);
    takeover_step(to);
}

void mm_takeover_continue(MmVM *vm)
{
    if (vm->takeover) {
        takeover_step(vm->takeover);
    }
}

void mm_takeover_abort(MmVM *vm, const char *why)
{
    if (vm->takeover) {
        refuse(vm->takeover, ECANCELED, why);
    }
}
