/*
 * Managed memory pager: the resident limit and its watermarks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Reclaim works ahead of need, as kswapd does, so that faults seldom wait:
 *
 *   limit + reserve   nothing is filled above it, unless DMA holds all
 *   limit             fills wait while there is something to evict
 *   limit - slack     "high": reclaim starts
 *   limit - 2 slack   "low": reclaim stops
 *
 * Slack and reserve have room for what comes at once, so that whoever wants
 * that much and cannot have it finds reclaim at work.
 *
 * The reserve is drawn on only while there is nothing to evict (all is mapped
 * for DMA, or the tiers are full): a guest that would stand still for ever is
 * worth a pressure event and a little memory.  So is, without an event, one
 * whose new pager has not looked at all pages yet.
 *
 * While it is DMA that holds the pages, the device may itself wait for one
 * more before it lets go, so there is no last page: beyond the reserve, pages
 * come one at a time and ever more slowly.  As much again as the reserve takes
 * a second, each further such step twice as long as the one before.
 */
#ifndef MANAGED_MEMORY_LIMIT_H
#define MANAGED_MEMORY_LIMIT_H

#include "managed-memory/proto.h"

#define MM_LIMIT_MIN_PAGES (MM_LIMIT_MIN / 4096)
/* The least limit of a guest whose pages come and go in units. */
#define MM_LIMIT_UNITS 8

/*
 * All in pages; UINT64_MAX: no limit.  Each is written by the control thread
 * and read by all, atomic.
 */
typedef struct MmLimit {
    uint64_t limit;
    uint64_t high;
    uint64_t low;
    uint64_t reserve;           /* pages beyond the limit */
    uint64_t unit;              /* most that comes at once; 0: one page */
    /* not all pages are known yet, so reclaim may find none; fault thread */
    bool blind;
    /* reclaim finds nothing to evict; reclaim thread */
    bool stuck;
    /* ... and it is DMA that holds the pages */
    bool held;
} MmLimit;

/**
 * mm_limit_set: set the limit in pages and the watermarks that follow
 *
 * @l: unit is set; the limit is at least MM_LIMIT_UNITS of it
 */
void mm_limit_set(MmLimit *l, uint64_t pages);

/**
 * mm_limit_room: how many of @want pages may be filled now
 *
 * @l: limit
 * @resident: pages resident or being filled
 * @want: at least 1; a unit, if that is what is wanted
 *
 * Returns 0..@want; 0: the fault waits for reclaim.  Of less than a unit there
 * is none: with what is left nobody who wants one could go on.
 */
uint64_t mm_limit_room(const MmLimit *l, uint64_t resident, uint64_t want);

/**
 * mm_limit_pause_ns: how far apart pages beyond the reserve are filled
 *
 * @l: limit
 * @resident: pages resident or being filled, at least limit + reserve
 *
 * Returns nanoseconds, UINT64_MAX: none may be filled.
 */
uint64_t mm_limit_pause_ns(const MmLimit *l, uint64_t resident);

/** mm_limit_above_high: does reclaim have to start? */
bool mm_limit_above_high(const MmLimit *l, uint64_t resident);

/** mm_limit_above_low: may reclaim not stop yet? */
bool mm_limit_above_low(const MmLimit *l, uint64_t resident);

#endif
