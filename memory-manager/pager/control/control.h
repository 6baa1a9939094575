/*
 * Managed memory pager: the control thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The main thread.  Reads the connection to QEMU, the control sockets of
 * managers, and passes on events.  Never touches pages.
 */
#ifndef MANAGED_MEMORY_CONTROL_H
#define MANAGED_MEMORY_CONTROL_H

#include "managed-memory/msg.h"
#include "../vm.h"

/* Managers that may be connected at once: the old one and its successor. */
#define MM_MAX_MANAGERS 4

/* A command whose answer comes when another thread is done. */
typedef enum MmLongKind {
    MM_LONG_NONE,
    MM_LONG_EVICT,
    MM_LONG_SWAP_IN,
    MM_LONG_DETACH,
} MmLongKind;

typedef struct MmControl {
    MmVM *vm;
    int managers[MM_MAX_MANAGERS];  /* sockets, -1: free */
    MmMsg *msg;                 /* the one being handled */

    bool events_left;           /* that QEMU has not taken */

    /* the long command in progress */
    MmLongKind long_kind;
    int long_sock;
    uint64_t long_seq;
    bool detach_sent;
} MmControl;

/** mm_control_run: serve until QEMU is gone; never returns. */
G_NORETURN void mm_control_run(MmVM *vm);

/** mm_session_handle: handle c->msg from QEMU; false: protocol error. */
bool mm_session_handle(MmControl *c);

/** mm_manager_handle: handle c->msg from a manager. */
void mm_manager_handle(MmControl *c, int sock);

/** mm_control_query: fill in the answer to QUERY. */
void mm_control_query(MmVM *vm, MmMsgQueryReply *reply);

/**
 * mm_control_set_limit: set the resident limit
 *
 * @bytes: or MM_LIMIT_NONE
 *
 * Reserves the space in the tiers that the limit may ask for.
 */
bool mm_control_set_limit(MmVM *vm, uint64_t bytes, Error **errp);

/**
 * mm_control_set_draining: which tiers take no more, and are emptied
 *
 * @tiers: bit per number
 *
 * Reserves the space for what they have in the others.
 */
bool mm_control_set_draining(MmVM *vm, uint32_t tiers, Error **errp);

/** mm_control_unit: most pages that come in at once, 0: one at a time. */
uint64_t mm_control_unit(const MmVM *vm);

/** mm_control_limit: the limit in bytes that follows from the regions. */
uint64_t mm_control_limit(const MmVM *vm);

/**
 * mm_control_region_comes: a region is pending from now on
 *
 * With the space and the limit that it needs; fails if there is no space.
 */
bool mm_control_region_comes(MmVM *vm, MmRegion *region, Error **errp);

/** mm_control_region_gone: a region is in no table any more. */
void mm_control_region_gone(MmVM *vm, const MmRegion *region);

/** mm_uffd_valid: is @fd a non-blocking userfaultfd? */
bool mm_uffd_valid(int fd);

/** mm_long_detached: QEMU has answered DETACHED. */
void mm_long_detached(MmControl *c, bool ok);

/** mm_long_progress: answer the long command if it is done. */
void mm_long_progress(MmControl *c);

/** mm_long_start: begin a long command; answers with an error if busy. */
void mm_long_start(MmControl *c, MmLongKind kind, int sock);

/** mm_manager_info: who this pager serves, for CONTROL_INFO. */
void mm_manager_info(MmVM *vm, MmMsgControlInfo *info);

#endif
