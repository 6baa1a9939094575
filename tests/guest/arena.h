/*
 * The memory that the workload works on, and what it ought to contain
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_ARENA_H
#define GUEST_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stamp.h"

/**
 * arena_create: replace the arena by an untouched one
 *
 * Main thread only, while no phase runs.
 *
 * @pages: size of the new arena; 0 only drops the old one
 *
 * Returns false, with a reason reported, if there is not enough memory.
 */
bool arena_create(size_t pages);

/**
 * arena_pages: size of the arena in pages, 0 before the first fill
 */
size_t arena_pages(void);

/**
 * arena_stamp: give @page a content that it never had
 *
 * Like all functions below: only for the thread that owns @page.
 */
void arena_stamp(size_t page);

/**
 * arena_check: compare @page with what was written to it last
 *
 * Reports "BAD page=.. have=.. want=.." and counts if it differs.
 */
bool arena_check(size_t page);

/**
 * arena_address: where @page is
 *
 * Whoever changes the memory owes a matching arena_set_tag().
 */
void *arena_address(size_t page);

/**
 * arena_tag: what @page ought to contain
 */
PageTag arena_tag(size_t page);

/**
 * arena_set_tag: @page was overwritten with the content of @tag
 */
void arena_set_tag(size_t page, PageTag tag);

/**
 * arena_damage: change one bit of @page behind the checker's back
 *
 * So that a test can see that a wrong page is found.
 */
void arena_damage(size_t page);

/**
 * arena_count_bad: a mismatch was found somewhere else
 */
void arena_count_bad(void);

/**
 * arena_bad_pages: mismatches found since the start
 *
 * May be called by any thread.
 */
uint64_t arena_bad_pages(void);

#endif
