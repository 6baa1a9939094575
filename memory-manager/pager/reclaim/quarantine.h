/*
 * Managed memory pager: places that may still be written to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A store that has failed is not over on every medium: storage on a network
 * that was cut may carry it out when it is back, minutes later, and so destroy
 * what its place holds by then.  The same goes for what a killed pager had
 * under way.  Such places are withdrawn from use: they are in quarantine.
 *
 * How late a write can be nobody knows; but not all can be kept for good.  So
 * the quarantine has room for the last MM_QUARANTINE stores, and an older one's
 * places are free again; so are some when nothing else is left of what has been
 * reserved, since a guest that can go on is worth more.  A tier that fails is
 * tried with places that are in quarantine already, and more and more rarely
 * with others, in case only those are bad: an outage takes little more than
 * what was under way when it began.
 *
 * The lists are in the VM's state, which the next pager gets.
 *
 *  Q1 From before a store to a medium begins until it has succeeded, its places
 *     are in one of the lists.
 *  Q2 Places in quarantine are withdrawn from use, and in no page map.
 *
 * All functions are the reclaim thread's, unless it says otherwise.
 */
#ifndef MANAGED_MEMORY_QUARANTINE_H
#define MANAGED_MEMORY_QUARANTINE_H

#include "../vm.h"

/**
 * mm_quarantine_begin: a store begins
 *
 * @slot: of this store until mm_quarantine_end(), 0 to MM_STORING - 1
 * @tier: to which
 * @io: place and nr_pages are set
 */
void mm_quarantine_begin(MmVM *vm, unsigned slot, const MmTier *tier,
                         const MmTierIO *io);

/**
 * mm_quarantine_end: it has ended
 *
 * @never: if it has failed, it was refused, and never happens
 *
 * If it has failed, its places are in quarantine, or free; if not, they are
 * the caller's.
 */
void mm_quarantine_end(MmVM *vm, unsigned slot, MmTier *tier,
                       const MmTierIO *io, bool never);

/**
 * mm_quarantine_find: places that are in quarantine, instead of alloc()
 *
 * @nth: from where to look; any number
 *
 * For a store that finds out whether @tier can be written; what it has stored
 * is not to be used.  Sets place and nr_pages, to no more than that is.
 * Returns false if there are none of this tier.
 */
bool mm_quarantine_find(const MmVM *vm, const MmTier *tier, uint64_t nth,
                        MmTierIO *io);

/**
 * mm_quarantine_give_up: @tier is full otherwise: free some of its places
 *
 * The oldest ones.  Returns false if there are none.
 */
bool mm_quarantine_give_up(MmVM *vm, const MmTier *tier);

/**
 * mm_quarantine_resume: take the lists over from a former pager
 *
 * When all that is in the page maps has been claimed: if a list says otherwise,
 * the maps are right.  Before anything is allocated.  Fault thread.
 */
void mm_quarantine_resume(MmVM *vm);

#endif
