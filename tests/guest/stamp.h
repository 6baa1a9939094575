/*
 * Stamped pages: page contents that prove where they come from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_STAMP_H
#define GUEST_STAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STAMP_PAGE_BYTES 4096
#define STAMP_TEXT_BYTES 96

/*
 * What a page holds.  A tag determines all 4096 bytes of the page, and no
 * tag is used for two writes within one run.
 *
 * @id: index of the page that the content was made for
 * @version: counts the writes; 0 means that nothing was written yet
 */
typedef struct PageTag {
    uint32_t id;
    uint32_t version;
} PageTag;

/**
 * stamp_setup: choose the contents of all pages of this run
 *
 * Call once, before any thread stamps or checks.
 *
 * @seed: runs with different seeds have different contents
 * @special: one page in @special is made all zero and another one filled
 *     with a single repeated word, so that managers that store such pages
 *     in another way are exercised; 0 for none
 */
void stamp_setup(uint64_t seed, unsigned special);

/**
 * stamp_write: fill @page with the content that belongs to @tag
 *
 * @page: STAMP_PAGE_BYTES bytes, 8-byte aligned
 * @tag: what to write; the version must not be 0
 */
void stamp_write(void *page, PageTag tag);

/**
 * stamp_check: compare every byte of @page with what @want says
 *
 * @page: STAMP_PAGE_BYTES bytes, 8-byte aligned
 * @want: tag that was written last; version 0 expects zeros
 *
 * Returns true if the page is exactly as written.
 */
bool stamp_check(const void *page, PageTag want);

/**
 * stamp_describe_page: say what @page looks like, for an error message
 *
 * The words tell the usual faults apart: a lost page is "zero", a page that
 * was brought back from an older copy has another version and a good sum,
 * and a torn or corrupted page has a bad sum.
 *
 * @page: STAMP_PAGE_BYTES bytes
 * @text: STAMP_TEXT_BYTES bytes for the answer
 */
void stamp_describe_page(const void *page, char *text);

/**
 * stamp_describe_tag: say what @tag expects, in the same form
 *
 * @tag: expected content
 * @text: STAMP_TEXT_BYTES bytes for the answer
 */
void stamp_describe_tag(PageTag tag, char *text);

#endif
