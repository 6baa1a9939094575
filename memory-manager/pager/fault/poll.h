/*
 * Managed memory pager: what the fault thread stays awake for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two kinds of waits, each with a window of its own (spin.h).  Who waits for a
 * read leaves a processor free meanwhile, and is served a wake-up earlier if
 * its end is awaited.  Who has been served, or read ahead for, uses one: the
 * next fault is awaited only where the host has processors to spare (crowd.h).
 *
 * With KVM's asynchronous page faults a vCPU may go on during a read; awaiting
 * that may then take a processor which is wanted, for a window at most.
 *
 * No lock: one thread.
 */
#ifndef MANAGED_MEMORY_POLL_H
#define MANAGED_MEMORY_POLL_H

#include "crowd.h"
#include "spin.h"

typedef struct MmPoll {
    MmSpin reads;               /* somebody waits for a read under way */
    MmSpin faults;              /* nobody does */
    MmSpin *now;                /* of these two, whose time it is */
    MmCrowd crowd;
} MmPoll;

/** mm_poll_init: @crowd has been, too. */
void mm_poll_init(MmPoll *p, MmCrowd crowd);

/** mm_poll_event: something came; @now_ns: monotonic time, just after. */
void mm_poll_event(MmPoll *p, uint64_t now_ns);

/** mm_poll_busy: there is more to do; what that takes is no wait. */
void mm_poll_busy(MmPoll *p);

/**
 * mm_poll_again: look again rather than sleep?
 *
 * @reads: somebody waits for a read that is under way
 * @now_ns: just before the look
 */
bool mm_poll_again(MmPoll *p, bool reads, uint64_t now_ns);

#endif
