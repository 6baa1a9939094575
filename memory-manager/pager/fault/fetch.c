/*
 * Managed memory pager: content of pages out of the guest's reach, for who asks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Migration sends what is swapped out, and must not bring it in for that: the
 * guest's working set would have to make room.  So QEMU asks for the content,
 * and gets it in pages of the ring's buffer.
 *
 * The pages stay what they are, and nobody is kept from them: a fault reads its
 * page for itself, and the reclaim thread may move it to another tier.  So what
 * has been read counts only if the page's entry is the same as before; then it
 * is the page's content at that moment.
 *
 * Pages that are about to be swapped out are in memory, but unmapped: to touch
 * one takes a fault, and has it stay.  They are read where they are.  A hole
 * reads as zeros, but only this thread fills pages: one that is in memory
 * before and after has been there all the time.
 *
 * A request goes on beside others, so that a tier that does not answer holds up
 * only who asks for what lies there, and that not for ever.  It leaves loads to
 * those who wait for a page.
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* Loads that are not used for it. */
#define LOADS_LEFT (MM_NR_LOADS / 2)
/* How long a tier may take to answer. */
#define PATIENCE_NS 1000000000ULL

QEMU_BUILD_BUG_ON(MM_RING_CONTENT_MAX > 32);    /* bits of done */

bool mm_fetch_begin(MmFault *f, MmRegion *region, const MmRingSlot *request,
                    unsigned slot)
{
    unsigned nr = request->range.nr_pages, i;

    if (nr > MM_RING_CONTENT_MAX ||
        request->buffer + nr > MM_RING_BUFFER_PAGES) {
        return false;
    }
    for (i = 0; i < MM_RING_FETCHES; i++) {
        if (!f->fetches[i].region) {
            mm_region_reconcile(f->vm, region, request->range.first_page, nr);
            qatomic_inc(&region->refs);
            f->fetches[i] = (MmFetch) {
                .region = region, .slot = slot, .request = *request,
                .progress_ns = f->now_ns,
            };
            return true;
        }
    }
    return false;
}

static void end(MmFault *f, MmFetch *fetch)
{
    MmRegion *region = fetch->region;
    MmLoad *load;

    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (load->fetch == fetch) {
            load->fetch = NULL;
        }
    }
    fetch->region = NULL;
    mm_ring_end(f, fetch->slot, fetch->done);
    mm_region_put(f->vm, region);
}

static bool wants(const MmFetch *fetch)
{
    return fetch->next < fetch->request.range.nr_pages;
}

static bool may_load(const MmFault *f)
{
    return f->nr_free_loads > LOADS_LEFT && !mm_load_put_off(f);
}

/* That its I/O limits put a tier off is no reason not to wait for it. */
static bool waits_for_limits(const MmFault *f, const MmFetch *fetch)
{
    const MmLoad *load;

    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (load->fetch == fetch && !load->io.began_ns) {
            return true;
        }
    }
    return false;
}

static bool is_over(const MmFault *f, const MmFetch *fetch)
{
    return (!wants(fetch) && !fetch->reading) ||
           (f->now_ns - fetch->progress_ns > PATIENCE_NS &&
            !waits_for_limits(f, fetch));
}

static uint8_t *buffer_of(const MmFault *f, const MmFetch *fetch, uint64_t page)
{
    return f->vm->ring->buffer[fetch->request.buffer + page -
                               fetch->request.range.first_page];
}

static void set_done(MmFault *f, MmFetch *fetch, uint64_t page)
{
    fetch->done |= 1u << (page - fetch->request.range.first_page);
    MM_STAT_ADD(f->vm, pages_fetched, 1);
}

/* Consecutive pages from the next one on that are wanted */
static unsigned wanted_run(const MmFetch *fetch)
{
    uint32_t wanted = fetch->request.pages >> fetch->next;

    return MIN(cto32(wanted), fetch->request.range.nr_pages - fetch->next);
}

static bool is_idle(const MmRegion *region, uint64_t page)
{
    return mm_entry_state(mm_map_get(&region->map,
                                     mm_region_unit(region, page))) ==
           MM_PAGE_CANDIDATE;
}

/* One that has been in memory before is still: who else punches it says so. */
static bool stays(const MmRegion *region, uint64_t unit)
{
    MmPageState state = mm_entry_state(mm_map_get(&region->map, unit));

    return state == MM_PAGE_CANDIDATE || state == MM_PAGE_RESIDENT;
}

static void fetch_idle(MmFault *f, MmFetch *fetch, uint64_t page)
{
    const MmRegion *region = fetch->region;

    if (pread(region->ram_fd, buffer_of(f, fetch, page), MM_PAGE_SIZE,
              page * MM_PAGE_SIZE) == MM_PAGE_SIZE &&
        stays(region, mm_region_unit(region, page))) {
        set_done(f, fetch, page);
    }
}

/* Begin with the next page, and what can be read with it; returns how many. */
static unsigned begin_next(MmFault *f, MmFetch *fetch)
{
    MmRegion *region = fetch->region;
    uint64_t page = fetch->request.range.first_page + fetch->next;
    uint64_t entry = mm_map_get(&region->map, page);
    uint64_t entries[MM_LOAD_PAGES];
    unsigned nr = wanted_run(fetch);

    if (nr && is_idle(region, page)) {
        fetch_idle(f, fetch, page);
        return 1;
    }
    if (!nr || mm_entry_state(entry) != MM_PAGE_SWAPPED) {
        return 1;
    }
    if (mm_entry_tier(entry) == MM_TIER_FILL) {
        mm_serve_fill(region, page, entry, buffer_of(f, fetch, page));
        if (mm_map_get(&region->map, page) == entry) {
            set_done(f, fetch, page);
        }
        return 1;
    }
    nr = mm_load_peek(f, region, page, nr, entries);
    if (nr) {
        fetch->reading++;
        mm_load_fetch(f, fetch, page, entries, nr);
    }
    return MAX(nr, 1);
}

static void begin_some(MmFault *f, MmFetch *fetch)
{
    do {
        while (wants(fetch) && may_load(f)) {
            fetch->next += begin_next(f, fetch);
        }
        mm_load_flush(f);
        fetch->progress_ns = f->now_ns;
    } while (mm_load_reap_immediate(f) && wants(fetch));
}

bool mm_fetch_step(MmFault *f)
{
    unsigned i, first = f->next_fetch;
    bool begun = false, more = false;

    for (i = 0; i < MM_RING_FETCHES; i++) {
        unsigned n = (first + i) % MM_RING_FETCHES;
        MmFetch *fetch = &f->fetches[n];

        if (fetch->region && wants(fetch) && may_load(f) && !begun) {
            begun = true;
            f->next_fetch = n + 1;
            begin_some(f, fetch);
        }
        if (fetch->region && is_over(f, fetch)) {
            end(f, fetch);
        }
        more |= fetch->region && wants(fetch) && may_load(f);
    }
    return more;
}

/*
 * As long as the entry is the same, the place has been the page's, and what is
 * wrong there is the tier's fault.
 */
static bool content_right(MmFault *f, const MmLoad *load, unsigned i)
{
    const MmPageMap *map = &load->region->map;
    uint64_t page = load->page + i;
    bool right = mm_page_checksum(map, page, load->entries[i],
                                  load->io.buf + i * MM_PAGE_SIZE) ==
                 map->checksums[page];

    if (mm_map_get(map, page) != load->entries[i]) {
        return false;
    }
    if (!right) {
        MM_STAT_ADD(f->vm, checksum_errors, 1);
    }
    return right;
}

void mm_fetch_loaded(MmFault *f, MmLoad *load)
{
    MmFetch *fetch = load->fetch;
    unsigned i;

    if (!fetch) {
        return;     /* it has been given up: the buffer is another's now */
    }
    fetch->reading--;
    fetch->progress_ns = f->now_ns;
    for (i = 0; load->io.ret >= 0 && i < load->io.nr_pages; i++) {
        if (content_right(f, load, i)) {
            memcpy(buffer_of(f, fetch, load->page + i),
                   load->io.buf + i * MM_PAGE_SIZE, MM_PAGE_SIZE);
            set_done(f, fetch, load->page + i);
        }
    }
}

bool mm_fetch_busy(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_RING_FETCHES; i++) {
        if (f->fetches[i].region) {
            return true;
        }
    }
    return false;
}

void mm_fetch_stop(MmFault *f, const MmRegion *region)
{
    unsigned i;

    for (i = 0; i < MM_RING_FETCHES; i++) {
        MmFetch *fetch = &f->fetches[i];

        if (fetch->region && (!region || fetch->region == region)) {
            end(f, fetch);
        }
    }
}
