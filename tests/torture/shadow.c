/*
 * Torture tests: what the pages of a region must contain
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An entry holds the version that was written last and flags that say what
 * else the page may read as.  Versions are never used twice, not even after
 * a discard, so that content that comes back from the dead has the wrong one.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "managed-memory/shared.h"
#include "shadow.h"

#define SHADOW_VERSION      0x1fffffffu
#define SHADOW_ZERO         (1u << 31)  /* discarded since the version */
#define SHADOW_MAYBE_ZERO   (1u << 30)  /* perhaps discarded since */
#define SHADOW_DISCARDING   (1u << 29)  /* a discard is on its way */

Shadow *shadow_new(Verdict *verdict, uint64_t seed, const ShadowPlace *place)
{
    Shadow *s = g_new0(Shadow, 1);

    s->verdict = verdict;
    s->seed = seed;
    s->region = place->region;
    s->mem = place->mem;
    s->nr_pages = place->nr_pages;
    s->ram_fd = place->ram_fd;
    s->map_fd = place->map_fd;
    s->entries = g_new0(uint32_t, s->nr_pages);
    s->locks = g_new0(uint8_t, s->nr_pages);
    return s;
}

void shadow_free(Shadow *s)
{
    if (s) {
        g_free(s->entries);
        g_free(s->locks);
        g_free(s);
    }
}

bool shadow_trylock(Shadow *s, uint64_t page)
{
    return qatomic_xchg(&s->locks[page], 1) == 0;
}

void shadow_unlock(Shadow *s, uint64_t page)
{
    qatomic_store_release(&s->locks[page], 0);
}

unsigned shadow_trylock_run(Shadow *s, uint64_t first, unsigned max)
{
    unsigned nr = 0;

    while (nr < max && first + nr < s->nr_pages &&
           shadow_trylock(s, first + nr)) {
        nr++;
    }
    return nr;
}

void shadow_unlock_run(Shadow *s, uint64_t first, unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        shadow_unlock(s, first + i);
    }
}

bool shadow_writable(Shadow *s, uint64_t page)
{
    return !(s->entries[page] & SHADOW_DISCARDING);
}

static Stamp shadow_stamp(Shadow *s, uint64_t page, uint32_t version)
{
    return (Stamp) {
        .seed = s->seed,
        .page = (uint64_t)s->region << 40 | page,
        .version = version,
    };
}

/* In memory or not, and the pager's entry for it. */
char *shadow_describe(Shadow *s, uint64_t page)
{
    off_t at = page * STAMP_PAGE_SIZE;
    MmMapHeader hdr = {};
    uint64_t entry = 0;
    bool known;

    known = pread(s->map_fd, &hdr, sizeof(hdr), 0) == sizeof(hdr) &&
            pread(s->map_fd, &entry, sizeof(entry), hdr.entries_offset +
                  page * sizeof(entry)) == sizeof(entry);
    return g_strdup_printf("%s in memory now, map entry %s0x%016" PRIx64,
                           lseek(s->ram_fd, at, SEEK_DATA) == at ? "is" :
                           "not", known ? "" : "unreadable ", entry);
}

static void tell_difference(Shadow *s, uint64_t page, const void *buf,
                            const char *who)
{
    uint32_t entry = s->entries[page];
    g_autofree char *place = shadow_describe(s, page);
    g_autofree char *seen =
        stamp_describe(buf, shadow_stamp(s, page, entry & SHADOW_VERSION));

    verdict_fail(s->verdict, "%s: region %u page %" PRIu64 ": expected "
                 "version %u%s%s%s, found %s; %s", who, s->region, page,
                 entry & SHADOW_VERSION,
                 entry & SHADOW_ZERO ? " discarded" : "",
                 entry & SHADOW_MAYBE_ZERO ? " perhaps discarded" : "",
                 entry & SHADOW_DISCARDING ? " being discarded" : "",
                 seen, place);
}

bool shadow_check_buf(Shadow *s, uint64_t page, const void *buf,
                      const char *who)
{
    uint32_t entry = s->entries[page];

    if (entry & SHADOW_ZERO) {
        if (stamp_is_zero(buf)) {
            return true;
        }
    } else if (stamp_matches(buf, shadow_stamp(s, page,
                                               entry & SHADOW_VERSION))) {
        return true;
    } else if (entry & SHADOW_DISCARDING) {
        /* it may have been discarded while it was copied */
        if (stamp_matches_or_zero(buf, shadow_stamp(s, page, entry &
                                                    SHADOW_VERSION))) {
            return true;
        }
    } else if ((entry & SHADOW_MAYBE_ZERO) && stamp_is_zero(buf)) {
        return true;
    }
    tell_difference(s, page, buf, who);
    return false;
}

bool shadow_check(Shadow *s, uint64_t page, const char *who)
{
    uint8_t copy[STAMP_PAGE_SIZE];

    memcpy(copy, s->mem + page * STAMP_PAGE_SIZE, sizeof(copy));
    return shadow_check_buf(s, page, copy, who);
}

uint32_t shadow_prepare(Shadow *s, uint64_t page, void *buf)
{
    uint32_t version = (s->entries[page] & SHADOW_VERSION) + 1;

    g_assert(version < SHADOW_VERSION);
    stamp_fill(buf, shadow_stamp(s, page, version));
    return version;
}

void shadow_commit(Shadow *s, uint64_t page, uint32_t version)
{
    g_assert(shadow_writable(s, page));
    s->entries[page] = version;
}

void shadow_write(Shadow *s, uint64_t page)
{
    shadow_commit(s, page,
                  shadow_prepare(s, page, s->mem + page * STAMP_PAGE_SIZE));
}

void shadow_discard_begin(Shadow *s, uint64_t page)
{
    g_assert(shadow_writable(s, page));
    s->entries[page] |= SHADOW_DISCARDING;
}

void shadow_discard_end(Shadow *s, uint64_t page, ShadowDiscard how)
{
    uint32_t entry = s->entries[page] & ~SHADOW_DISCARDING;

    switch (how) {
    case SHADOW_DISCARDED:
        entry = (entry & SHADOW_VERSION) | SHADOW_ZERO;
        break;
    case SHADOW_NOT_DISCARDED:
        break;
    case SHADOW_MAYBE_DISCARDED:
        if (!(entry & SHADOW_ZERO)) {
            entry |= SHADOW_MAYBE_ZERO;
        }
        break;
    }
    s->entries[page] = entry;
}
