/*
 * Migration of ordinary memory that the host's kernel swaps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To send a page one reads it.  If it is a hole a page is allocated for that,
 * and if it is swapped out it comes back, one by one, and what the guest works
 * on goes in its place.  So, with migration capability swap-aware-ram:
 *
 * - holes are sent as zero pages without having been read, and where they
 *   arrive they are left alone if they are holes there;
 * - swapped pages are asked for a window ahead, all at once, and when they have
 *   been sent they are swapped out again, before anything else has to be;
 * - pages that were in memory but not mapped are the first to go thereafter.
 *
 * The stream is that of any QEMU.
 *
 * R1 A look at a page counts as having read it.  So it comes after the page's
 *    dirty bits have been cleared, as reading does: what is written later sets
 *    them again.  A window is a part of one chunk of clear_bmap, whose log has
 *    been cleared when the window is looked at, and holes are forgotten before
 *    the bitmap is synchronized again.
 * R2 What is known ahead of that serves only for bringing pages in.
 * R3 Where zeros arrive one looks for each page: what was a hole a moment ago
 *    may have content by now, which comes beside the stream with multifd.
 *
 * Putting back is advice.  A page that the guest has written meanwhile is
 * swapped out with what it has now; one that others map (vhost-user) stays.
 * One that has not been sent yet after all is read a second time.
 *
 * Managed memory has a section of its own.  Left alone are huge pages, which
 * are not swapped, and memory whose pages cannot be told apart: files but
 * those of tmpfs, and memory that is shared without a file.
 */
#include "qemu/osdep.h"
#include "exec/cpu-common.h"
#include "exec/target_page.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "migration/migration.h"
#include "migration/ram-residency.h"
#include "migration/residency-probe.h"
#include "qapi/error.h"
#include "sysemu/managed-memory.h"
#include "trace.h"

/*
 * That are known of at a time: the one that is sent, the one after it, and
 * those that wait to be put back: 4 MiB, more than is on its way as a rule.
 * A guest with little in memory loses that much of it.
 */
#define NR_WINDOWS 6

/* Pages of a block that are looked at together */
typedef struct Window {
    RAMBlock *rb;               /* NULL: unused; may be gone after a part */
    unsigned long first;
    ResidencyRange range;
    uint64_t used;              /* when last: a number that grows */
    bool looked;                /* holes are known, by R1 */
    DECLARE_BITMAP(hole, RESIDENCY_PAGES);
    DECLARE_BITMAP(swapped, RESIDENCY_PAGES); /* were, and are asked for */
    DECLARE_BITMAP(unmapped, RESIDENCY_PAGES); /* were */
    DECLARE_BITMAP(read, RESIDENCY_PAGES);
} Window;

/* Migration thread, and the main thread when there is none */
static Window windows[NR_WINDOWS];
static Window *current;
static uint64_t ticks;
static int pagemap = -1;

static bool enabled(void)
{
    return migrate_get_current()->
           enabled_capabilities[MIGRATION_CAPABILITY_SWAP_AWARE_RAM];
}

bool ram_residency_check_caps(const bool *caps, Error **errp)
{
    static const struct {
        MigrationCapability cap;
        const char *why;
    } others[] = {
        { MIGRATION_CAPABILITY_POSTCOPY_RAM,
          "it has to allocate the zero pages that arrive" },
        { MIGRATION_CAPABILITY_COMPRESS,
          "its threads read pages in no order" },
        { MIGRATION_CAPABILITY_BACKGROUND_SNAPSHOT,
          "it has all memory populated first" },
        { MIGRATION_CAPABILITY_X_COLO,
          "it keeps a second copy of memory" },
    };
    unsigned i;

    for (i = 0; caps[MIGRATION_CAPABILITY_SWAP_AWARE_RAM] &&
                i < ARRAY_SIZE(others); i++) {
        if (caps[others[i].cap]) {
            error_setg(errp, "Capability swap-aware-ram does not go together "
                       "with %s: %s; switch one of them off",
                       MigrationCapability_str(others[i].cap), others[i].why);
            return false;
        }
    }
    return true;
}

/* Can the kernel be asked about its pages, and are they ours? */
static bool is_known(RAMBlock *rb)
{
    if (rb->page_size != TARGET_PAGE_SIZE ||
        qemu_real_host_page_size() != TARGET_PAGE_SIZE ||
        managed_memory_look(rb->host, 0, NULL)) {
        return false;
    }
    if (rb->fd < 0) {
        return !(rb->flags & (RAM_SHARED | RAM_PREALLOC));
    }
    return qemu_ram_is_shared(rb) && residency_is_known(rb->fd);
}

static void put_back(Window *w)
{
    DECLARE_BITMAP(out, RESIDENCY_PAGES);

    bitmap_and(out, w->swapped, w->read, RESIDENCY_PAGES);
    residency_advise(w->range.host, out, w->range.nr, MADV_PAGEOUT);
    /* to read one page may have mapped its neighbours as well */
    residency_advise(w->range.host, w->unmapped, w->range.nr, MADV_COLD);

    bitmap_andnot(w->swapped, w->swapped, out, RESIDENCY_PAGES);
    bitmap_zero(w->unmapped, RESIDENCY_PAGES);
    bitmap_zero(w->read, RESIDENCY_PAGES);
    w->looked = false;
}

/* That with @first, or that which was used least recently */
static Window *find_window(RAMBlock *rb, unsigned long first)
{
    Window *w = &windows[0];
    int i;

    for (i = 0; i < NR_WINDOWS; i++) {
        if (windows[i].rb == rb && windows[i].first == first) {
            return &windows[i];
        }
        if (windows[i].used < w->used) {
            w = &windows[i];
        }
    }
    return w;
}

/* The window with a page, which may be new */
static Window *get_window(RAMBlock *rb, unsigned long page)
{
    unsigned long nr = MIN(RESIDENCY_PAGES, 1UL << rb->clear_bmap_shift);
    unsigned long first = QEMU_ALIGN_DOWN(page, nr);
    Window *w = find_window(rb, first);

    if (w->rb != rb || w->first != first) {
        put_back(w);
        *w = (Window) {
            .rb = rb,
            .first = first,
            .range = {
                .host = rb->host + first * TARGET_PAGE_SIZE,
                .nr = MIN(nr, (rb->used_length >> TARGET_PAGE_BITS) - first),
                .fd = rb->fd,
                .offset = first * TARGET_PAGE_SIZE,
            },
        };
    }
    w->used = ++ticks;
    return w;
}

/* Ask for those that are swapped out and dirty, or just being sent */
static void bring_in(Window *w, const unsigned long *swapped,
                     unsigned long page)
{
    DECLARE_BITMAP(wanted, RESIDENCY_PAGES) = { 0 };
    unsigned long i;

    for (i = find_first_bit(swapped, w->range.nr); i < w->range.nr;
         i = find_next_bit(swapped, w->range.nr, i + 1)) {
        if (w->first + i == page || test_bit(w->first + i, w->rb->bmap)) {
            set_bit(i, wanted);
        }
    }
    residency_advise(w->range.host, wanted, w->range.nr, MADV_WILLNEED);
    bitmap_or(w->swapped, w->swapped, wanted, RESIDENCY_PAGES);
}

/* @page is being sent: all that is found counts */
static void look_now(Window *w, unsigned long page)
{
    Residency found;

    residency_look(&w->range, pagemap, &found);
    bring_in(w, found.swapped, page);
    bitmap_copy(w->hole, found.hole, RESIDENCY_PAGES);
    /* what has been asked for and has come is not mapped, either */
    bitmap_andnot(w->unmapped, found.unmapped, w->swapped, RESIDENCY_PAGES);
    trace_ram_residency_look(w->rb->idstr, w->first,
                             bitmap_count_one(found.hole, w->range.nr),
                             bitmap_count_one(w->swapped, w->range.nr),
                             bitmap_count_one(w->unmapped, w->range.nr));
}

/* By R2: the log of what comes next may not have been cleared yet. */
static void look_ahead(Window *w, unsigned long page)
{
    Residency found;

    residency_look(&w->range, pagemap, &found);
    bring_in(w, found.swapped, page);
}

static void enter(RAMBlock *rb, unsigned long page)
{
    unsigned long nr_pages = rb->used_length >> TARGET_PAGE_BITS;
    unsigned long next;

    current = get_window(rb, page);
    current->looked = true;
    if (!is_known(rb)) {
        return;
    }
    if (pagemap < 0) {
        pagemap = residency_open_pagemap();
    }
    look_now(current, page);
    next = find_next_bit(rb->bmap, nr_pages, current->first +
                                             current->range.nr);
    if (next < nr_pages) {
        look_ahead(get_window(rb, next), next);
    }
}

static bool is_current(RAMBlock *rb, unsigned long page)
{
    return current && current->looked && current->rb == rb &&
           page - current->first < current->range.nr;
}

bool ram_residency_skips(RAMBlock *rb, ram_addr_t offset)
{
    unsigned long page = offset >> TARGET_PAGE_BITS;

    if (!enabled()) {
        return false;
    }
    if (!is_current(rb, page)) {
        enter(rb, page);
    }
    if (test_bit(page - current->first, current->hole)) {
        return true;
    }
    set_bit(page - current->first, current->read);
    return false;
}

void ram_residency_put_back(void)
{
    int i;

    for (i = 0; i < NR_WINDOWS; i++) {
        put_back(&windows[i]);
    }
}

void ram_residency_cleanup(void)
{
    ram_residency_put_back();
    memset(windows, 0, sizeof(windows));
    current = NULL;
    if (pagemap >= 0) {
        close(pagemap);
        pagemap = -1;
    }
}

bool ram_residency_is_hole(void *host, uint64_t size)
{
    ram_addr_t offset;
    RAMBlock *rb;

    if (!enabled()) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_from_host(host, false, &offset);
    return rb && rb->fd >= 0 && residency_is_hole(rb->fd, offset, size) &&
           is_known(rb);
}
