/*
 * Torture tests: page contents that prove where they come from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pure functions, for any thread.
 */
#ifndef TORTURE_STAMPS_H
#define TORTURE_STAMPS_H

#define STAMP_PAGE_SIZE 4096

/*
 * What a page was made for.  A stamp determines all bytes of the page.
 *
 * @seed: of the virtual machine; contents of two machines differ
 * @page: number of the page, unique within the virtual machine
 * @version: counts the writes to the page; 0 means never written, zeros
 */
typedef struct Stamp {
    uint64_t seed;
    uint64_t page;
    uint32_t version;
} Stamp;

/** stamp_fill: make @buf, one page, what @stamp says. */
void stamp_fill(void *buf, Stamp stamp);

/** stamp_matches: is every byte of @buf, one page, what @stamp says? */
bool stamp_matches(const void *buf, Stamp stamp);

/** stamp_matches_or_zero: as above, but any word may be zero instead. */
bool stamp_matches_or_zero(const void *buf, Stamp stamp);

/** stamp_is_zero: is @buf, one page, all zero? */
bool stamp_is_zero(const void *buf);

/**
 * stamp_describe: say what @buf, one page, looks like to people
 *
 * Tells lost (zero), old, torn and foreign pages apart.  The caller frees the
 * text with g_free().
 */
char *stamp_describe(const void *buf, Stamp expected);

#endif
