/*
 * Torture tests: what the pages of a region must contain
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The shadow is kept in private memory, where no pager gets at it.  A thread
 * locks a page, accesses it, and unlocks it; a page that another thread holds
 * is left alone, so that no thread waits for another one's fault.
 */
#ifndef TORTURE_SHADOW_H
#define TORTURE_SHADOW_H

#include "stamps.h"
#include "verdict.h"

/* The pages that a shadow is for; all of it outlives the shadow. */
typedef struct ShadowPlace {
    uint32_t region;            /* id */
    uint64_t nr_pages;
    uint8_t *mem;               /* the guest's memory */
    int ram_fd;                 /* RAM and page map: to explain differences */
    int map_fd;
} ShadowPlace;

typedef struct Shadow {
    /* fixed after creation */
    Verdict *verdict;
    uint64_t seed;
    uint32_t region;            /* id */
    uint64_t nr_pages;
    uint8_t *mem;               /* the guest's memory */
    int ram_fd;
    int map_fd;
    /* a page's entry is protected by the page's lock */
    uint32_t *entries;          /* version and SHADOW_* flags */
    /* atomic */
    uint8_t *locks;
} Shadow;

/**
 * shadow_new: expect zeros everywhere
 *
 * @verdict: where differences are told
 * @seed: of the virtual machine
 */
Shadow *shadow_new(Verdict *verdict, uint64_t seed, const ShadowPlace *place);
void shadow_free(Shadow *s);

/** shadow_trylock: get @page for this thread; false if another has it. */
bool shadow_trylock(Shadow *s, uint64_t page);
void shadow_unlock(Shadow *s, uint64_t page);

/**
 * shadow_trylock_run: get consecutive pages
 *
 * Locks @first and as many of the following pages as are free, up to @max
 * ones, and returns their number.
 */
unsigned shadow_trylock_run(Shadow *s, uint64_t first, unsigned max);
void shadow_unlock_run(Shadow *s, uint64_t first, unsigned nr);

/** shadow_writable: false while a discard of @page is on its way. */
bool shadow_writable(Shadow *s, uint64_t page);

/**
 * shadow_check: read @page and compare
 *
 * The caller holds the page's lock.  @who names the caller in the verdict.
 */
bool shadow_check(Shadow *s, uint64_t page, const char *who);

/** shadow_check_buf: the same for a copy of the page, taken by other means. */
bool shadow_check_buf(Shadow *s, uint64_t page, const void *buf,
                      const char *who);

/** shadow_describe: where the page is now, for people; g_free() it. */
char *shadow_describe(Shadow *s, uint64_t page);

/** shadow_write: write the next version.  The caller holds the lock. */
void shadow_write(Shadow *s, uint64_t page);

/**
 * shadow_prepare, shadow_commit: write the next version by other means
 *
 * shadow_prepare() makes the next version in @buf and returns its number;
 * when the caller has brought it into the page, it calls shadow_commit().
 * The caller holds the lock from the one call to the other.
 */
uint32_t shadow_prepare(Shadow *s, uint64_t page, void *buf);
void shadow_commit(Shadow *s, uint64_t page, uint32_t version);

/* How a discard has ended. */
typedef enum ShadowDiscard {
    SHADOW_DISCARDED,           /* acknowledged: zero from now on */
    SHADOW_NOT_DISCARDED,       /* taken back unseen: the old content */
    SHADOW_MAYBE_DISCARDED,     /* taken back too late: one or the other */
} ShadowDiscard;

/**
 * shadow_discard_begin, shadow_discard_end: around a discard
 *
 * In between the page may read as its old content or as zero, and must not
 * be written.  The caller holds the lock for each call, and may leave it to
 * others in between.
 */
void shadow_discard_begin(Shadow *s, uint64_t page);
void shadow_discard_end(Shadow *s, uint64_t page, ShadowDiscard how);

#endif
