/*
 * qemu-memory-manager: the control connection to a pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only. Nothing here waits: a pager may be stopped, blocked or
 * hostile.
 */
#ifndef MEMORY_MANAGER_LINK_H
#define MEMORY_MANAGER_LINK_H

#include "managed-memory/msg.h"

typedef struct MmLink MmLink;

typedef struct MmLinkOps {
    /** unasked: a message that answers no request has come */
    void (*unasked)(void *opaque, const MmMsg *msg);
    /** closed: the pager has closed the link, or broken the protocol */
    void (*closed)(void *opaque);
} MmLinkOps;

/**
 * MmReplyFn: a request is answered
 *
 * @msg: the answer, which may be an ERROR; NULL: there will be none, since
 *       the link is closed
 *
 * May free the link.
 */
typedef void MmReplyFn(void *opaque, const MmMsg *msg);

/**
 * mm_link_new: take over a control socket
 *
 * @sock: non-blocking; the link's from now on
 */
MmLink *mm_link_new(int sock, const MmLinkOps *ops, void *opaque);

/**
 * mm_link_drain: handle all that has come, for a pager that has ended
 *
 * May free the link.
 */
void mm_link_drain(MmLink *link);

/** mm_link_free: close; requests get NULL as their answer. NULL is allowed. */
void mm_link_free(MmLink *link);

/**
 * mm_link_request: send a request
 *
 * @fn: called once with @opaque, unless mm_link_forget() comes first
 *
 * Returns the request's number, or 0 if it could not be sent.
 */
uint64_t mm_link_request(MmLink *link, MmMsgType type,
                         const void *payload, size_t len,
                         MmReplyFn *fn, void *opaque, Error **errp);

/**
 * mm_link_hello: ask for CONTROL_INFO, as mm_link_request()
 *
 * @log: what the pager is to have as its standard error from now on; stays the
 *       caller's. -1: what it has.
 */
uint64_t mm_link_hello(MmLink *link, int log, MmReplyFn *fn, void *opaque,
                       Error **errp);

/** mm_link_forget: do not call a request's function any more. */
void mm_link_forget(MmLink *link, uint64_t seq);

/**
 * mm_reply_ok: is it the answer that was expected?
 *
 * @msg: as given to an MmReplyFn
 * @type: the answer that was expected
 *
 * Returns false and sets @errp if it is another one.
 */
bool mm_reply_ok(const MmMsg *msg, MmMsgType type, Error **errp);

#endif
