/*
 * Managed memory: requests to the pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Any thread but mm-conn may send a request and wait for its answer; several
 * may do so at once.  An answer bears the number of its request.  mm-conn
 * receives the answers and hands them over here.
 *
 * The lock is held while a request is sent, which the kernel limits
 * (SO_SNDTIMEO), and never while somebody waits for an answer.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "backends/managed-memory-internal.h"

/* A request that waits for its answer, on its caller's stack */
typedef struct Pending {
    uint64_t seq;
    MmMsg *reply;
    int result;                 /* 1: none yet, else 0 or -errno */
    QTAILQ_ENTRY(Pending) next;
} Pending;

static struct {
    QemuMutex lock;
    QemuCond finished;
    int sock;                   /* -1: there is no pager */
    uint64_t epoch;
    uint64_t last_seq;
    QTAILQ_HEAD(, Pending) pending;
} requests = {
    .sock = -1,
    .pending = QTAILQ_HEAD_INITIALIZER(requests.pending),
};

static void __attribute__((constructor)) managed_requests_init(void)
{
    qemu_mutex_init(&requests.lock);
    qemu_cond_init(&requests.finished);
}

void managed_requests_open(int sock, uint64_t epoch)
{
    QEMU_LOCK_GUARD(&requests.lock);

    requests.sock = sock;
    requests.epoch = epoch;
}

void managed_requests_close(void)
{
    Pending *pending;

    QEMU_LOCK_GUARD(&requests.lock);
    requests.sock = -1;
    QTAILQ_FOREACH(pending, &requests.pending, next) {
        if (pending->result > 0) {
            pending->result = -ECONNRESET;
        }
    }
    qemu_cond_broadcast(&requests.finished);
}

void managed_requests_finish(MmMsg *msg)
{
    Pending *pending;

    QEMU_LOCK_GUARD(&requests.lock);
    QTAILQ_FOREACH(pending, &requests.pending, next) {
        if (pending->seq == msg->hdr.seq && pending->result > 0) {
            memcpy(pending->reply, msg, sizeof(*msg));
            msg->nr_fds = 0;
            pending->result = 0;
            qemu_cond_broadcast(&requests.finished);
            return;
        }
    }
}

static int wait_locked(const Pending *pending, int timeout_ms)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + timeout_ms;

    while (pending->result > 0) {
        int64_t left = deadline - qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

        if (left <= 0) {
            return -ETIMEDOUT;
        }
        qemu_cond_timedwait(&requests.finished, &requests.lock, left);
    }
    return pending->result;
}

static int send_and_wait(const ManagedCall *call, MmMsg *reply)
{
    Pending pending = { .reply = reply, .result = 1 };
    int ret;

    QEMU_LOCK_GUARD(&requests.lock);
    if (requests.sock < 0 ||
        (call->epoch && call->epoch != requests.epoch)) {
        return -ENOTCONN;
    }
    pending.seq = ++requests.last_seq;
    QTAILQ_INSERT_TAIL(&requests.pending, &pending, next);
    ret = mm_msg_send(requests.sock, call->type, pending.seq, call->payload,
                      call->len, NULL, 0);
    if (ret == 0) {
        ret = wait_locked(&pending, call->timeout_ms);
    } else {
        ret = ret == -EAGAIN ? -ETIMEDOUT : -ECONNRESET;
    }
    QTAILQ_REMOVE(&requests.pending, &pending, next);
    return ret;
}

int managed_conn_call(const ManagedCall *call, MmMsg *reply, Error **errp)
{
    int ret = send_and_wait(call, reply);

    if (ret == 0 && reply->hdr.type == MM_MSG_ERROR) {
        error_setg(errp, "the memory manager's pager refuses: %s",
                   ((MmMsgError *)reply->payload)->text);
        return -EREMOTEIO;
    }
    if (ret == 0 && reply->hdr.type != call->want) {
        error_setg(errp, "the memory manager's pager answers %s with %s",
                   mm_msg_type_name(call->type),
                   mm_msg_type_name(reply->hdr.type));
        return -EREMOTEIO;
    }
    if (ret == -ENOTCONN) {
        error_setg(errp, "no pager serves this VM at the moment; is the "
                   "memory manager running?");
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "no answer to %s from the memory "
                         "manager's pager", mm_msg_type_name(call->type));
    }
    return ret;
}
