/*
 * Memory for benchmarks: cheap to check, of a given compressibility
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A check of the arena reads the whole page, which on an emulated CPU takes
 * longer than a page fault.  Here an operation looks at two words of a page:
 * its number, and how often it was written.  The rest is looked at by a
 * verification that is not measured.
 */

#ifndef GUEST_FIELD_H
#define GUEST_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * field_create: replace the field by one with content
 *
 * Main thread only, while no phase runs.
 *
 * @pages: its size; 0 only drops the old one
 * @noise: percent of each page that cannot be compressed
 *
 * Returns false, with a reason reported, if there is not enough memory.
 */
bool field_create(size_t pages, unsigned noise);

/**
 * field_pages: its size in pages, 0 before field_create()
 */
size_t field_pages(void);

/**
 * field_try_lock: own a page that other threads may pick as well
 *
 * Any thread.  Returns false if another one has it.
 */
bool field_try_lock(size_t page);

/**
 * field_unlock: let others have it
 */
void field_unlock(size_t page);

/**
 * field_write_content: what every page has to begin with
 *
 * Like all functions below: only for the thread that owns @page, be it that no
 * other one picks it, be it by field_try_lock().
 */
void field_write_content(size_t page);

/**
 * field_access: look at a page, and count a write in it
 *
 * @write: whether to write
 *
 * Returns false if the page is not what it was left as.
 */
bool field_access(size_t page, bool write);

/**
 * field_verify: compare the whole page; a difference is reported
 */
bool field_verify(size_t page);

/**
 * field_report_bad: say that a page is wrong, and count it
 */
void field_report_bad(size_t page);

#endif
