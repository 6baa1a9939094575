/*
 * Phases that work on memory alone
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_MEMORY_PHASES_H
#define GUEST_MEMORY_PHASES_H

#include <stdbool.h>
#include <stddef.h>

/*
 * All of these need an arena and run until their end; main thread only.  Those
 * that work on a number of pages return false if the host stopped them early.
 */

/**
 * memory_fill: stamp every page of the arena once, in order
 */
bool memory_fill(void);

/**
 * memory_verify: compare every page of the arena once, in order
 */
bool memory_verify(void);

/**
 * memory_sweep: compare the pages in order, again and again
 *
 * @seconds: when to stop; 0 for when the host sends "stop"
 */
void memory_sweep(unsigned seconds);

/**
 * memory_random: compare pages in random order, and rewrite half of them
 *
 * @seconds: when to stop; 0 for when the host sends "stop"
 */
void memory_random(unsigned seconds);

/**
 * memory_dirty: rewrite @pages different pages that lie scattered
 */
bool memory_dirty(size_t pages);

/**
 * memory_touched: pages that were written by these phases since the start
 */
size_t memory_touched(void);

/**
 * memory_checked: pages that these phases compared and found right
 */
size_t memory_checked(void);

#endif
