/*
 * Torture tests: QEMU's side of the discard ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rules of the ring are in managed-memory/shared.h.
 */
#ifndef TORTURE_DISCARD_H
#define TORTURE_DISCARD_H

#include "fake-qemu.h"

/**
 * discard_post: ask for pages to be discarded
 *
 * Does not wait.  Any thread.  Returns the slot, or -EBUSY if none is free or
 * there is nobody to discard any more.
 */
int discard_post(FakeQemu *fq, uint32_t region, uint64_t first_page,
                 uint32_t nr_pages);

/**
 * discard_wait: wait for the end of a discard
 *
 * @slot: from discard_post(), the caller's until this returns
 * @patience_ms: after that long, take the discard back: at once if no pager
 *     has begun, otherwise when the pager dies first; -1: never
 */
ShadowDiscard discard_wait(FakeQemu *fq, int slot, int patience_ms);

/**
 * discard_settle: take back what is to be taken back; the pager is dead
 *
 * Between the proof of the old pager's death and the start of the next one.
 */
void discard_settle(FakeQemu *fq);

/** discard_end: end all discards, and begin no more; there is no pager. */
void discard_end(FakeQemu *fq);

/** discard_wake_all: have all waiters look again. */
void discard_wake_all(FakeQemu *fq);

/** discard_sync: discard pages and wait; true if it was acknowledged. */
bool discard_sync(FakeQemu *fq, uint32_t region, uint64_t first_page,
                  uint32_t nr_pages);

#endif
