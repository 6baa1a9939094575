/*
 * qemu-memory-manager: the control connection to a pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Requests carry a number that the answer repeats, so that answers may come
 * late and in any order. There are no time limits here: who waits sets his
 * own, and forgets the request. An answer that nobody waits for any more is
 * dropped.
 *
 * A callback may free the link, so its memory lives until the main loop is
 * back (a bottom half frees it); @sock is -1 from mm_link_free() on.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "block/aio.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "link.h"
#include "trace.h"

/* Messages handled before other work gets its turn. */
#define MESSAGES_PER_TURN 16
/* Turns for what a pager has left behind; a socket's buffer holds far less. */
#define MAX_DRAIN_TURNS 64

typedef struct Request {
    uint64_t seq;
    MmReplyFn *fn;
    void *opaque;
    QTAILQ_ENTRY(Request) next;
} Request;

struct MmLink {
    int sock;
    uint64_t last_seq;
    const MmLinkOps *ops;
    void *opaque;
    QTAILQ_HEAD(, Request) requests;
};

static Request *find_request(MmLink *link, uint64_t seq)
{
    Request *req;

    QTAILQ_FOREACH(req, &link->requests, next) {
        if (req->seq == seq) {
            return req;
        }
    }
    return NULL;
}

static void finish_request(MmLink *link, Request *req, const MmMsg *msg)
{
    MmReplyFn *fn = req->fn;
    void *opaque = req->opaque;

    QTAILQ_REMOVE(&link->requests, req, next);
    g_free(req);
    fn(opaque, msg);
}

static void handle_message(MmLink *link, const MmMsg *msg)
{
    Request *req = msg->hdr.seq ? find_request(link, msg->hdr.seq) : NULL;

    trace_mm_link_message(link, mm_msg_type_name(msg->hdr.type), msg->hdr.seq);
    if (req) {
        finish_request(link, req, msg);
    } else if (!msg->hdr.seq) {
        link->ops->unasked(link->opaque, msg);
    }
}

/* Returns 1 if there may be more, or what mm_msg_recv() has returned. */
static int handle_some(MmLink *link)
{
    g_autofree MmMsg *msg = g_new(MmMsg, 1);
    int ret = 1;
    int n;

    for (n = 0; n < MESSAGES_PER_TURN && link->sock >= 0 && ret > 0; n++) {
        ret = mm_msg_recv(link->sock, msg, -1);
        if (ret > 0) {
            handle_message(link, msg);
        }
        mm_msg_clear(msg);
    }
    return ret;
}

/*
 * The pager has gone, but another process may have got its end of the link and
 * go on sending: only what is in the queue by now is looked at.
 */
void mm_link_drain(MmLink *link)
{
    int turns;

    shutdown(link->sock, SHUT_RD);
    for (turns = 0; turns < MAX_DRAIN_TURNS && link->sock >= 0; turns++) {
        if (handle_some(link) <= 0) {
            break;
        }
    }
}

static void link_readable(void *opaque)
{
    MmLink *link = opaque;
    int ret = handle_some(link);

    if (link->sock >= 0 && ret <= 0 && ret != -EAGAIN) {
        trace_mm_link_closed(link, ret);
        link->ops->closed(link->opaque);
    }
}

MmLink *mm_link_new(int sock, const MmLinkOps *ops, void *opaque)
{
    MmLink *link = g_new0(MmLink, 1);

    link->sock = sock;
    link->ops = ops;
    link->opaque = opaque;
    QTAILQ_INIT(&link->requests);
    qemu_set_fd_handler(sock, link_readable, NULL, link);
    return link;
}

void mm_link_free(MmLink *link)
{
    Request *req;

    if (!link || link->sock < 0) {
        return;
    }
    qemu_set_fd_handler(link->sock, NULL, NULL, NULL);
    close(link->sock);
    link->sock = -1;
    while ((req = QTAILQ_FIRST(&link->requests))) {
        finish_request(link, req, NULL);
    }
    aio_bh_schedule_oneshot(qemu_get_aio_context(), g_free, link);
}

static uint64_t request(MmLink *link, MmMsgType type, const void *payload,
                        size_t len, int fd, MmReplyFn *fn, void *opaque,
                        Error **errp)
{
    Request *req;
    int ret = link->sock < 0 ? -ENOTCONN
              : mm_msg_send(link->sock, type, link->last_seq + 1,
                            payload, len, &fd, fd >= 0);

    if (ret) {
        error_setg_errno(errp, -ret, "cannot send to the pager");
        return 0;
    }
    req = g_new(Request, 1);
    *req = (Request) {
        .seq = ++link->last_seq,
        .fn = fn,
        .opaque = opaque,
    };
    QTAILQ_INSERT_TAIL(&link->requests, req, next);
    return req->seq;
}

uint64_t mm_link_request(MmLink *link, MmMsgType type,
                         const void *payload, size_t len,
                         MmReplyFn *fn, void *opaque, Error **errp)
{
    return request(link, type, payload, len, -1, fn, opaque, errp);
}

uint64_t mm_link_hello(MmLink *link, int log, MmReplyFn *fn, void *opaque,
                       Error **errp)
{
    return request(link, MM_MSG_CONTROL_HELLO, NULL, 0, log, fn, opaque,
                   errp);
}

void mm_link_forget(MmLink *link, uint64_t seq)
{
    Request *req = find_request(link, seq);

    if (req) {
        QTAILQ_REMOVE(&link->requests, req, next);
        g_free(req);
    }
}

bool mm_reply_ok(const MmMsg *msg, MmMsgType type, Error **errp)
{
    if (!msg) {
        error_setg(errp, "the pager has gone");
        return false;
    }
    if (msg->hdr.type == MM_MSG_ERROR) {
        const MmMsgError *err = (const void *)msg->payload;

        error_setg(errp, "the pager refuses: %s", err->text);
        return false;
    }
    if (msg->hdr.type != type) {
        error_setg(errp, "the pager answers %s where %s was expected",
                   mm_msg_type_name(msg->hdr.type), mm_msg_type_name(type));
        return false;
    }
    return true;
}
