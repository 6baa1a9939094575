/*
 * Managed memory pager: content that QEMU has for pages out of memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What was swapped out where a guest comes from is to be swapped out where it
 * arrives, and not to push out there what the guest uses.  So QEMU puts content
 * into the ring's buffer, and it goes to a tier without having been in memory.
 * The reclaim thread finds it a place: ../reclaim/import.h.
 *
 *   take     SWAPPED -> NEVER -> FILLING.  QEMU is going to write to the page
 *            in any case, so what it had is not owed any more; and if we die,
 *            a wrong checksum cannot spoil it.
 *   store    by the reclaim thread.
 *   publish  the checksum first, then FILLING -> SWAPPED.  Without a place it
 *            is NEVER, and QEMU writes to it as to any page.
 *
 * Pages in memory are left alone.  A tier that does not answer holds nobody up
 * for ever: the request ends, and what becomes of the store is nobody's.  That
 * I/O limits put a store off is no such reason.
 */
#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/* How long the reclaim thread may take to begin. */
#define PATIENCE_NS 1000000000ULL
/* If it has taken longer: how long nobody else waits for that. */
#define REST_NS 1000000000ULL

QEMU_BUILD_BUG_ON(MM_RING_CONTENT_MAX > 32);    /* bits of done, cancelled */

static MmImport *import_at(const MmFault *f, unsigned i)
{
    return &mm_reclaim_imports(f->vm)[i];
}

static MmImport *idle_import(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_RING_STORES; i++) {
        if (mm_import_state(import_at(f, i)) == MM_IMPORT_IDLE) {
            return import_at(f, i);
        }
    }
    return NULL;
}

static void free_place(const MmFault *f, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));

    if (tier) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

/* Returns the FILLING entry, or 0 if the page is in memory, or on the way. */
static uint64_t take(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t entry = mm_map_get(&region->map, page);
    uint64_t never = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_NEVER),
                                 MM_TIER_NONE, 0);
    uint64_t filling = mm_entry_with_state(never, MM_PAGE_FILLING);

    if (mm_entry_state(entry) == MM_PAGE_SWAPPED) {
        if (!mm_map_cas(&region->map, page, entry, never)) {
            return 0;   /* moved to another place just now */
        }
        free_place(f, entry);
    } else if (mm_entry_state(entry) != MM_PAGE_NEVER) {
        return 0;
    }
    mm_map_move(&region->map, page, never, filling);
    return filling;
}

/* Up to @room pages; returns whether there is any. */
static bool take_all(MmFault *f, MmImport *import, uint64_t room)
{
    bool any = false;
    unsigned i;

    memset(import->entries, 0, sizeof(import->entries));
    for (i = 0; i < import->nr && room; i++) {
        import->entries[i] = take(f, import->region, import->page + i);
        if (import->entries[i]) {
            any = true;
            room--;
        }
    }
    return any;
}

bool mm_import_begin(MmFault *f, MmRegion *region, const MmRingSlot *request,
                     unsigned slot)
{
    uint64_t page = request->range.first_page;
    unsigned nr = request->range.nr_pages;
    MmImport *import = idle_import(f);

    if (!import || mm_region_is_huge(region) || nr > MM_RING_CONTENT_MAX ||
        request->buffer + nr > MM_RING_BUFFER_PAGES ||
        qatomic_read(&f->vm->reclaim_rests) ||
        f->now_ns < f->import_rest_ns) {
        return false;
    }
    mm_region_reconcile(f->vm, region, page, nr);
    import->region = region;
    import->page = page;
    import->nr = nr;
    import->content = f->vm->ring->buffer[request->buffer];
    import->slot = slot;
    import->given_up = false;
    import->cancelled = 0;
    import->since_ns = f->now_ns;
    if (!take_all(f, import, mm_fault_room(f, nr))) {
        return false;
    }
    mm_failpoint(MM_FP_FILLING);
    qatomic_inc(&region->refs);
    mm_import_move(import, MM_IMPORT_IDLE, MM_IMPORT_POSTED);
    mm_reclaim_wake(f->vm);
    return true;
}

static bool is_ours(const MmImport *import, unsigned i)
{
    return import->entries[i] && !(import->cancelled & (1u << i));
}

/* Out of FILLING: who waits for the page tries again. */
static void leave(MmFault *f, const MmImport *import, unsigned i, uint64_t to)
{
    uint64_t page = import->page + i;

    mm_map_move(&import->region->map, page, import->entries[i], to);
    mm_waiters_set_reason(&f->waiters,
                          import->region->hva + page * MM_PAGE_SIZE,
                          MM_WAIT_BUSY);
    qatomic_set(&f->retry, true);
}

static void publish(MmFault *f, MmImport *import, unsigned i)
{
    MmPageMap *map = &import->region->map;
    uint64_t swapped = mm_entry_with_state(import->stored[i], MM_PAGE_SWAPPED);

    map->checksums[import->page + i] = import->checksums[i];
    leave(f, import, i,
          mm_entry_with_age(swapped, qatomic_read(&f->vm->epoch)));
}

static void cancel(MmFault *f, MmImport *import, unsigned i, MmPageState state)
{
    leave(f, import, i, mm_entry_with_state(import->entries[i], state));
    import->cancelled |= 1u << i;
}

/* Nobody can say when it ends, so the pages are had without it. */
static void give_up(MmFault *f, MmImport *import)
{
    unsigned i;

    for (i = 0; i < import->nr; i++) {
        if (is_ours(import, i)) {
            cancel(f, import, i, MM_PAGE_NEVER);
        }
    }
    import->given_up = true;
    mm_ring_end(f, import->slot, 0);
    if (mm_import_move(import, MM_IMPORT_POSTED, MM_IMPORT_IDLE)) {
        f->import_rest_ns = f->now_ns + REST_NS;
        mm_region_put(f->vm, import->region);
    }
}

static void end(MmFault *f, MmImport *import)
{
    MmRegion *region = import->region;
    uint32_t done = 0;
    unsigned i;

    for (i = 0; i < import->nr; i++) {
        if (is_ours(import, i) && import->stored[i]) {
            publish(f, import, i);
            done |= 1u << i;
        } else if (is_ours(import, i)) {
            cancel(f, import, i, MM_PAGE_NEVER);
        } else if (import->stored[i]) {
            free_place(f, import->stored[i]);
        }
    }
    MM_STAT_ADD(f->vm, pages_stored, ctpop32(done));
    if (!import->given_up) {
        mm_ring_end(f, import->slot, done);
    }
    mm_import_move(import, MM_IMPORT_STORED, MM_IMPORT_IDLE);
    mm_region_put(f->vm, region);
}

static bool takes_too_long(const MmFault *f, const MmImport *import)
{
    return mm_import_state(import) == MM_IMPORT_TAKEN
           ? qatomic_read(&import->hangs)
           : f->now_ns - import->since_ns > PATIENCE_NS;
}

void mm_import_step(MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_RING_STORES; i++) {
        MmImport *import = import_at(f, i);

        switch (mm_import_state(import)) {
        case MM_IMPORT_STORED:
            end(f, import);
            break;
        case MM_IMPORT_POSTED:
        case MM_IMPORT_TAKEN:
            if (!import->given_up && takes_too_long(f, import)) {
                give_up(f, import);
            }
            break;
        default:
            break;
        }
    }
}

void mm_import_cancel(MmFault *f, MmRegion *region, uint64_t page, uint64_t nr,
                      MmPageState state)
{
    unsigned i, k;

    for (i = 0; i < MM_RING_STORES; i++) {
        MmImport *import = import_at(f, i);

        if (mm_import_state(import) == MM_IMPORT_IDLE ||
            import->region != region) {
            continue;
        }
        for (k = 0; k < import->nr; k++) {
            if (is_ours(import, k) && import->page + k - page < nr) {
                cancel(f, import, k, state);
            }
        }
    }
}

uint64_t mm_import_count(const MmFault *f)
{
    uint64_t pages = 0;
    unsigned i, k;

    for (i = 0; i < MM_RING_STORES; i++) {
        const MmImport *import = import_at(f, i);

        for (k = 0; mm_import_state(import) != MM_IMPORT_IDLE &&
                    k < import->nr; k++) {
            pages += is_ours(import, k);
        }
    }
    return pages;
}

bool mm_import_busy(const MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_RING_STORES; i++) {
        if (mm_import_state(import_at(f, i)) != MM_IMPORT_IDLE) {
            return true;
        }
    }
    return false;
}
