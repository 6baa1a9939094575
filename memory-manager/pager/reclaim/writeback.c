/*
 * Managed memory pager: moving candidates out of memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * For a batch of pages of one region, in this order:
 *
 *   claim    CANDIDATE -> WRITEBACK.  The pages are zapped and acknowledged.
 *   DMA      a page in a chunk that is mapped for DMA stays: a device may
 *            write to it past the page tables.  QEMU counts, fences, then
 *            uses; we zap, fence, then look.  Whoever maps it for DMA after we
 *            have looked must fault, which takes the page back.
 *   copy     pread() into the batch's buffer.
 *   store    zero and same-filled pages become a value, others go to a tier.
 *   publish  WRITEBACK -> DROPPING, with the place.  Fails if the page has
 *            been touched meanwhile: the copy is worthless then.
 *   punch    the memory is free.
 *   SWAPPED  and whoever has faulted meanwhile is served again.
 *
 * Until `publish' the fault thread may take any page back, at once and without
 * waiting for the write.
 *
 * Several batches are stored at the same time, so that the medium is busy while
 * the next one is copied.  A page that was taken back may be claimed again
 * while its old content is still being stored: each batch has a ticket, which
 * is part of the entry, so that `publish' cannot take one claim for the other.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/cutils.h"
#include "../fault/fault.h"
#include "../region.h"
#include "../test-hooks.h"
#include "reclaim-internal.h"

/* Between two tries to write guest memory. */
#define RESTORE_REST_MS 50
/* How long to wait for a medium before looking round. */
#define LOOK_MS 100

/* A huge page waits for its turn: one after the other. */
static bool unit_is_first(const MmReclaim *r)
{
    const MmCandidate *c = mm_fifo_first(&r->fifo);

    return c && c->nr_pages > 1;
}

static void collect_unit(MmReclaim *r)
{
    MmCandidate c = mm_fifo_pop(&r->fifo);
    MmRegion *region = mm_vm_region_get(r->vm, c.region);

    if (!region) {
        return;
    }
    if (region->unit_pages == c.nr_pages && c.page < region->nr_pages) {
        r->ticket = (r->ticket + 1) & MM_PLACE_MAX;
        mm_huge_out_begin(r, region, c.page);
    } else {
        mm_region_put(r->vm, region);   /* replaced since */
    }
}

/* Take pages from the fifo's head, as long as they are of one region. */
static void collect(MmReclaim *r, MmBatch *b)
{
    r->ticket = (r->ticket + 1) & MM_PLACE_MAX;
    while (r->fifo.nr && b->nr < MM_TIER_IO_PAGES && !unit_is_first(r)) {
        const MmCandidate *c = mm_fifo_first(&r->fifo);
        uint64_t entry;

        if (b->region && b->region->id != c->region) {
            return;
        }
        if (!b->region) {
            b->region = mm_vm_region_get(r->vm, c->region);
        }
        mm_fifo_pop(&r->fifo);
        if (!b->region || c->page >= b->region->nr_pages ||
            mm_region_is_huge(b->region)) {
            continue;   /* removed since, perhaps replaced */
        }
        entry = mm_map_get(&b->region->map, c->page);
        if (mm_entry_state(entry) == MM_PAGE_CANDIDATE &&
            mm_entry_place(entry) != MM_PLACE_SAMPLED) {
            uint64_t claimed = mm_entry_with_state(entry, MM_PAGE_WRITEBACK);

            claimed = mm_entry_at(claimed, MM_TIER_NONE, r->ticket);
            if (mm_map_cas(&b->region->map, c->page, entry, claimed)) {
                b->p[b->nr] = (MmPiece) {
                    .page = c->page, .entry = claimed,
                    .base = mm_entry_next_version(claimed),
                    .buf = b->buf + b->nr * MM_PAGE_SIZE,
                };
                b->nr++;
            }
        }
    }
}

/*
 * Out of the batch, and in @state unless it has been touched: returns whether.
 */
static bool drop_from_batch(MmBatch *b, unsigned i, MmPageState state)
{
    uint64_t entry = mm_entry_at(b->p[i].entry, MM_TIER_NONE, 0);
    bool ours = mm_map_cas(&b->region->map, b->p[i].page, b->p[i].entry,
                           mm_entry_with_state(entry, state));

    b->nr--;
    memmove(&b->p[i], &b->p[i + 1], (b->nr - i) * sizeof(b->p[0]));
    return ours;
}

static void leave_dma(MmReclaim *r, MmBatch *b)
{
    unsigned i = 0;

    /* the zaps are done: pairs with QEMU's fence after counting */
    smp_mb();
    while (i < b->nr) {
        if (mm_region_dma_held(b->region, b->p[i].page)) {
            drop_from_batch(b, i, MM_PAGE_RESIDENT);
            MM_STAT_ADD(r->vm, evict_abort_dma, 1);
            r->held++;
        } else {
            i++;
        }
    }
}

static unsigned run_length(const MmBatch *b, unsigned i)
{
    unsigned nr = 1;

    while (i + nr < b->nr && b->p[i + nr].page == b->p[i].page + nr &&
           b->p[i + nr].buf == b->p[i].buf + nr * MM_PAGE_SIZE) {
        nr++;
    }
    return nr;
}

static bool read_pages(const MmBatch *b, unsigned i, unsigned nr)
{
    ssize_t len = nr * MM_PAGE_SIZE;

    return TEMP_FAILURE_RETRY(pread(b->region->ram_fd, b->p[i].buf, len,
                                    b->p[i].page * MM_PAGE_SIZE)) == len;
}

static void lose(MmReclaim *r, MmBatch *b, unsigned i)
{
    uint64_t page = b->p[i].page;

    if (drop_from_batch(b, i, MM_PAGE_LOST)) {
        mm_vm_page_lost(r->vm, b->region, page);
    }
}

/* A hole reads as zeroes as well, but no page that we hold may be one. */
static void lose_holes(MmReclaim *r, MmBatch *b)
{
    unsigned i = 0;

    while (i < b->nr) {
        if (buffer_is_zero(b->p[i].buf, MM_PAGE_SIZE) &&
            mm_region_present(b->region, b->p[i].page, 1) != b->p[i].page) {
            lose(r, b, i);
        } else {
            i++;
        }
    }
}

static void copy_out(MmReclaim *r, MmBatch *b)
{
    unsigned i = 0;

    while (i < b->nr) {
        unsigned nr = run_length(b, i);

        if (read_pages(b, i, nr)) {
            i += nr;
        } else if (nr > 1 && read_pages(b, i, 1)) {
            i++;
        } else if (errno == EIO || errno == EHWPOISON) {
            lose(r, b, i);
        } else {
            /* the kernel has swapped it, say, and has no memory for it now */
            drop_from_batch(b, i, MM_PAGE_RESIDENT);
        }
    }
}

void mm_writeback_free(MmReclaim *r, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(r->vm, mm_entry_tier(entry));

    if (tier) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

/*
 * The checksum goes first: who sees the place sees it, too.  It is another
 * claim's if this one is not in force any more.
 */
static bool publish_piece(MmReclaim *r, MmBatch *b, MmPiece *p)
{
    MmPageMap *map = &b->region->map;
    uint64_t dropping = mm_entry_with_state(p->stored, MM_PAGE_DROPPING);

    dropping = mm_entry_with_age(dropping, r->vm->epoch);
    if (mm_map_get(map, p->page) != p->entry) {
        return false;
    }
    map->checksums[p->page] = mm_store_checksum(map, p);
    if (!mm_map_cas(map, p->page, p->entry, dropping)) {
        return false;
    }
    p->entry = dropping;
    mm_move_forget(r, b->region, p->page);
    return true;
}

/* What is stored and still untouched becomes DROPPING; the rest leaves. */
static void publish(MmReclaim *r, MmBatch *b)
{
    unsigned i = 0;

    while (i < b->nr) {
        if (!b->p[i].stored) {
            r->refused = true;
            drop_from_batch(b, i, MM_PAGE_RESIDENT);
        } else if (publish_piece(r, b, &b->p[i])) {
            i++;
        } else {
            mm_writeback_free(r, b->p[i].stored);
            MM_STAT_ADD(r->vm, evict_abort_touched, 1);
            drop_from_batch(b, i, MM_PAGE_RESIDENT);
        }
    }
    mm_failpoint(MM_FP_DROPPING);
}

/*
 * The kernel kept a page that it should have punched.  If it belonged to a
 * pinned huge folio it has been zeroed, so write back what we know.
 */
static void restore(MmReclaim *r, MmBatch *b, unsigned i)
{
    uint64_t entry = b->p[i].entry;
    uint64_t resident = mm_entry_at(entry, MM_TIER_NONE, 0);
    bool told = false;

    /* until then nobody may have the page: whoever wants it waits */
    while (TEMP_FAILURE_RETRY(pwrite(b->region->ram_fd, b->p[i].buf,
                                     MM_PAGE_SIZE,
                                     b->p[i].page * MM_PAGE_SIZE))
           != MM_PAGE_SIZE) {
        if (!told) {
            told = true;
            mm_vm_event(r->vm, MM_EVENT_IO_ERROR, b->region->id, errno,
                        "guest memory can be neither freed nor written: %s; "
                        "the page at offset 0x%" PRIx64 " of %s waits",
                        strerror(errno), b->p[i].page * MM_PAGE_SIZE,
                        b->region->idstr);
        }
        poll(NULL, 0, RESTORE_REST_MS);
    }
    resident = mm_entry_with_age(resident, 0);
    mm_map_move(&b->region->map, b->p[i].page, entry,
                mm_entry_with_state(resident, MM_PAGE_RESIDENT));
    mm_writeback_free(r, entry);
}

static unsigned punched(MmReclaim *r, MmBatch *b, unsigned i, unsigned nr)
{
    uint64_t first = b->p[i].page;
    bool all_gone = mm_region_present(b->region, first, nr) == first + nr;
    unsigned gone = 0;
    unsigned k;

    for (k = 0; k < nr; k++) {
        uint64_t entry = b->p[i + k].entry;

        if (!all_gone &&
            mm_region_present(b->region, first + k, 1) == first + k) {
            restore(r, b, i + k);
            continue;
        }
        mm_map_move(&b->region->map, first + k, entry,
                    mm_entry_with_state(entry, MM_PAGE_SWAPPED));
        MM_STAT_ADD(r->vm, pages_evicted_zero,
                    mm_entry_tier(entry) == MM_TIER_FILL);
        gone++;
    }
    mm_failpoint(MM_FP_SWAPPED);
    return gone;
}

static void punch_all(const MmBatch *b)
{
    unsigned i, nr;

    for (i = 0; i < b->nr; i += nr) {
        nr = run_length(b, i);
        /* a failure shows when the hole is verified */
        mm_region_punch(b->region, b->p[i].page, nr);
    }
}

static void end_batch(MmReclaim *r, MmBatch *b)
{
    b->busy = false;
    if (b->region) {
        mm_region_put(r->vm, b->region);
    }
}

void mm_writeback_count(MmReclaim *r, unsigned evicted)
{
    MM_STAT_ADD(r->vm, pages_evicted, evicted);
    r->in_epoch += evicted;
    if (r->in_epoch > qatomic_read(&r->vm->total_resident) / 4) {
        r->in_epoch = 0;
        qatomic_set(&r->vm->epoch, r->vm->epoch + 1);
    }
}

/* Everything that has a place in time leaves memory; returns how much. */
static unsigned finish_batch(MmReclaim *r, MmBatch *b)
{
    unsigned evicted = 0;
    unsigned i, nr;

    mm_failpoint(MM_FP_STORED);
    if (b->import) {
        mm_import_stored(r, b);
        end_batch(r, b);
        return 0;
    }
    if (b->of_unit) {
        evicted = mm_huge_out_stored(r, b);
        end_batch(r, b);
        return evicted;
    }
    publish(r, b);
    punch_all(b);
    mm_failpoint(MM_FP_PUNCHED);
    for (i = 0; i < b->nr; i += nr) {
        nr = run_length(b, i);
        evicted += punched(r, b, i, nr);
    }
    mm_writeback_count(r, evicted);
    mm_fault_retry(r->vm);
    end_batch(r, b);
    return evicted;
}

static void begin_part(MmReclaim *r, MmBatch *b)
{
    b->busy = true;
    b->of_unit = true;
    mm_huge_out_part(r, b);
    mm_store_begin(b, 0);
}

static void begin_import(MmReclaim *r, MmBatch *b)
{
    if (mm_import_take(r, b)) {
        b->busy = true;
        b->of_unit = false;
        b->region = NULL;
        mm_store_begin(b, 0);
    }
}

static void begin_batch(MmReclaim *r, MmBatch *b)
{
    unsigned i;

    b->busy = true;
    b->of_unit = false;
    b->region = NULL;
    b->nr = 0;
    collect(r, b);
    if (!b->nr) {
        end_batch(r, b);
        return;
    }
    leave_dma(r, b);
    copy_out(r, b);
    lose_holes(r, b);
    if (mm_mutated(MM_MUT_PUNCH_FIRST)) {
        punch_all(b);
    }
    mm_failpoint(MM_FP_WRITEBACK);
    for (i = 0; i < b->nr; i++) {
        mm_store_is_fill(&b->p[i]);
    }
    mm_store_begin(b, 0);
}

static MmBatch *idle_batch(MmReclaim *r)
{
    unsigned nr = r->hanging ? ARRAY_SIZE(r->batches) : MM_NR_BATCHES;
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (!r->batches[i].busy) {
            return &r->batches[i];
        }
    }
    return NULL;
}

bool mm_writeback_idle(MmReclaim *r)
{
    return idle_batch(r) != NULL;
}

static unsigned step_all(MmReclaim *r)
{
    unsigned i, evicted = 0;

    for (i = 0; i < ARRAY_SIZE(r->batches); i++) {
        MmBatch *b = &r->batches[i];

        if (b->busy && mm_store_step(r, b)) {
            evicted += finish_batch(r, b);
        }
    }
    return evicted;
}

unsigned mm_writeback_reap(MmReclaim *r)
{
    unsigned evicted;

    mm_reclaim_reap(r);
    evicted = step_all(r);
    /* to its end, whatever else is wanted */
    while (mm_huge_out_wants(r) && idle_batch(r)) {
        begin_part(r, idle_batch(r));
        evicted += step_all(r);
    }
    while (mm_import_wants(r)) {
        begin_import(r, idle_batch(r));
        evicted += step_all(r);
    }
    return evicted;
}

/* While one is on its way out, another huge page is not in the others' way. */
static void pass_units(MmReclaim *r)
{
    unsigned left = r->unit.region ? r->fifo.nr : 0;

    for (; left && unit_is_first(r); left--) {
        mm_fifo_push(&r->fifo, mm_fifo_pop(&r->fifo));
    }
}

/* Returns whether something has begun, or has turned out to be none. */
static bool begin_next(MmReclaim *r)
{
    MmBatch *b = idle_batch(r);

    pass_units(r);
    if (!b || !r->fifo.nr || (unit_is_first(r) && r->unit.region)) {
        return false;
    }
    if (unit_is_first(r)) {
        collect_unit(r);
    } else {
        begin_batch(r, b);
    }
    return true;
}

unsigned mm_writeback(MmReclaim *r)
{
    struct pollfd pfd = { .fd = r->io_fd, .events = POLLIN };
    unsigned evicted = mm_writeback_reap(r);

    if (evicted) {
        return evicted;
    }
    if (begin_next(r)) {
        return mm_writeback_reap(r);
    }
    poll(&pfd, 1, mm_reclaim_wait_ms(r, LOOK_MS));
    mm_unwake(r->io_fd);
    evicted = mm_writeback_reap(r);
    /* held up altogether: that is as good as a refusal */
    r->refused |= r->hanging && (!idle_batch(r) || r->unit.region) &&
                  !mm_writeback_leaving(r);
    return evicted;
}

unsigned mm_writeback_leaving(const MmReclaim *r)
{
    unsigned i, nr = 0;
    bool hangs = false;

    for (i = 0; i < ARRAY_SIZE(r->batches); i++) {
        const MmBatch *b = &r->batches[i];

        nr += b->busy && !b->of_unit && !b->import && !b->hangs ? b->nr : 0;
        hangs |= b->busy && b->of_unit && b->hangs;
    }
    return nr + (r->unit.region && !hangs ? MM_HUGE_PAGES : 0);
}

bool mm_writeback_busy(const MmReclaim *r)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(r->batches); i++) {
        if (r->batches[i].busy) {
            return true;
        }
    }
    return r->unit.region != NULL;
}
