/*
 * Torture tests: QEMU's side of the ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rules of the ring are in managed-memory/shared.h.
 */
#ifndef TORTURE_RING_H
#define TORTURE_RING_H

#include "fake-qemu.h"

/* How a request has ended */
typedef struct RingEnd {
    ShadowDiscard discard;
    uint32_t done;              /* bit per page; 0 unless it was executed */
} RingEnd;

/**
 * ring_post: ask for something to be done
 *
 * @request: range, kind, buffer and, of FETCH, pages
 *
 * Does not wait.  Any thread.  Returns the slot, or -EBUSY if none is free or
 * there is nobody to execute it any more.
 */
int ring_post(FakeQemu *fq, const MmRingSlot *request);

/**
 * ring_wait: wait for the end of a request
 *
 * @slot: from ring_post(), the caller's until this returns
 * @patience_ms: after that long, take the request back: at once if no pager
 *     has begun, otherwise when the pager dies first; -1: never
 */
RingEnd ring_wait(FakeQemu *fq, int slot, int patience_ms);

/**
 * ring_settle: take back what is to be taken back; the pager is dead
 *
 * Between the proof of the old pager's death and the start of the next one.
 */
void ring_settle(FakeQemu *fq);

/** ring_end: end all requests, and begin no more; there is no pager. */
void ring_end(FakeQemu *fq);

/** ring_wake_all: have all waiters look again. */
void ring_wake_all(FakeQemu *fq);

/** ring_discard: discard pages and wait; true if it was acknowledged. */
bool ring_discard(FakeQemu *fq, uint32_t region, uint64_t first_page,
                  uint32_t nr_pages);

#endif
