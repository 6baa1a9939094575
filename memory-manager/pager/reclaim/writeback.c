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
 *   SWAPPED  and whoever has faulted meanwhile is woken, to fault again.
 *
 * Until `publish' the fault thread may take any page back, at once and without
 * waiting for the write.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/cutils.h"
#include "../fault/fault.h"
#include "../region.h"
#include "../test-hooks.h"
#include "../uffd.h"
#include "reclaim-internal.h"

#define BATCH_PAGES MM_TIER_IO_PAGES
/* A store that takes longer is taken for a tier that hangs. */
#define STORE_HANGS_MS 1000
/* Between two tries to write guest memory. */
#define RESTORE_REST_MS 50

typedef struct Batch {
    MmRegion *region;           /* with a reference */
    unsigned nr;
    struct {
        uint64_t page;
        uint64_t entry;         /* the one in the map: WRITEBACK, DROPPING */
        uint64_t stored;        /* entry with the place, 0: not stored */
        uint8_t *buf;           /* content */
    } p[BATCH_PAGES];
} Batch;

/* Take pages from the fifo's head, as long as they are of one region. */
static void collect(MmReclaim *r, Batch *b)
{
    while (r->fifo_nr && b->nr < BATCH_PAGES) {
        MmCandidate *c = &r->fifo[r->fifo_head];
        uint64_t entry;

        if (b->region && b->region->id != c->region) {
            return;
        }
        if (!b->region) {
            b->region = mm_vm_region_get(r->vm, c->region);
        }
        r->fifo_head = (r->fifo_head + 1) % MM_FIFO_PAGES;
        r->fifo_nr--;
        if (!b->region || c->page >= b->region->nr_pages) {
            continue;   /* removed since, perhaps replaced */
        }
        entry = mm_map_get(&b->region->map, c->page);
        if (mm_entry_state(entry) == MM_PAGE_CANDIDATE) {
            uint64_t claimed = mm_entry_with_state(entry, MM_PAGE_WRITEBACK);

            if (mm_map_cas(&b->region->map, c->page, entry, claimed)) {
                b->p[b->nr].page = c->page;
                b->p[b->nr].entry = claimed;
                b->p[b->nr].buf = r->arena + b->nr * MM_PAGE_SIZE;
                b->p[b->nr++].stored = 0;
            }
        }
    }
}

/*
 * Out of the batch, and in @state unless it has been touched: returns whether.
 */
static bool drop_from_batch(Batch *b, unsigned i, MmPageState state)
{
    bool ours = mm_map_cas(&b->region->map, b->p[i].page, b->p[i].entry,
                           mm_entry_with_state(b->p[i].entry, state));

    b->nr--;
    memmove(&b->p[i], &b->p[i + 1], (b->nr - i) * sizeof(b->p[0]));
    return ours;
}

static void leave_dma(MmReclaim *r, Batch *b)
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

static unsigned run_length(const Batch *b, unsigned i)
{
    unsigned nr = 1;

    while (i + nr < b->nr && b->p[i + nr].page == b->p[i].page + nr &&
           b->p[i + nr].buf == b->p[i].buf + nr * MM_PAGE_SIZE) {
        nr++;
    }
    return nr;
}

static bool read_pages(const Batch *b, unsigned i, unsigned nr)
{
    ssize_t len = nr * MM_PAGE_SIZE;

    return TEMP_FAILURE_RETRY(pread(b->region->ram_fd, b->p[i].buf, len,
                                    b->p[i].page * MM_PAGE_SIZE)) == len;
}

static void lose(MmReclaim *r, Batch *b, unsigned i)
{
    uint64_t page = b->p[i].page;

    if (drop_from_batch(b, i, MM_PAGE_LOST)) {
        mm_vm_page_lost(r->vm, b->region, page);
    }
}

/* A hole reads as zeroes as well, but no page that we hold may be one. */
static void lose_holes(MmReclaim *r, Batch *b)
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

static void copy_out(MmReclaim *r, Batch *b)
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

/* One 64-bit value throughout: it fits into place and checksum. */
static bool store_as_fill(MmPageMap *map, Batch *b, unsigned i)
{
    uint64_t *word = (uint64_t *)b->p[i].buf;

    if (memcmp(word, word + 1, MM_PAGE_SIZE - sizeof(*word))) {
        return false;
    }
    map->checksums[b->p[i].page] = *word >> 32;
    b->p[i].stored = mm_entry_at(mm_entry_next_version(b->p[i].entry),
                                 MM_TIER_FILL, (uint32_t)*word);
    return true;
}

static void store_event(MmReclaim *r, MmTier *tier, int err)
{
    if (err && !r->write_failing) {
        mm_vm_io_failing(r->vm, MM_IO_WRITE, true);
        mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, err,
                    "tier '%s' cannot be written: %s; pages stay in memory",
                    tier->name, strerror(err));
    } else if (!err && r->write_failing &&
               mm_vm_io_failing(r->vm, MM_IO_WRITE, false)) {
        mm_vm_event(r->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                    "tier '%s' can be written again", tier->name);
    }
    r->write_failing = err;
}

static void io_done(MmTierIO *io)
{
    *(bool *)io->opaque = true;
}

static int store_and_wait(MmReclaim *r, MmTierQueue *queue, MmTierIO *io)
{
    struct pollfd pfd = { .fd = r->io_fd, .events = POLLIN };
    bool done = false;

    io->store = true;
    io->opaque = &done;
    queue->ops->submit(queue, io);
    while (!done) {
        if (poll(&pfd, 1, STORE_HANGS_MS) == 0) {
            store_event(r, queue->tier, ETIMEDOUT);
            qatomic_set(&r->vm->limit.held, false);
            qatomic_set(&r->vm->limit.stuck, true);
            mm_fault_retry(r->vm);
        }
        mm_unwake(r->io_fd);
        queue->ops->reap(queue, io_done);
    }
    return io->ret;
}

/*
 * Store pages [i, i + nr) of the batch, which lie together in the buffer, at
 * consecutive places.  Returns how many were stored, or -errno.
 */
static int store_run(MmReclaim *r, Batch *b, unsigned i, unsigned nr)
{
    MmTierQueue *queue = r->queues[0];
    MmTier *tier = queue->tier;
    MmPageMap *map = &b->region->map;
    MmTierIO io = { .buf = b->p[i].buf };
    int ret;
    unsigned k;

    io.nr_pages = tier->ops->alloc(tier, nr, &io.place);
    if (!io.nr_pages) {
        return -ENOSPC;
    }
    for (k = 0; k < io.nr_pages; k++) {
        uint64_t entry = mm_entry_next_version(b->p[i + k].entry);

        map->checksums[b->p[i + k].page] =
            mm_page_checksum(map, b->p[i + k].page, entry, b->p[i + k].buf);
        b->p[i + k].stored = mm_entry_at(entry, MM_TIER_FIRST + tier->number,
                                         io.place + k);
    }
    ret = store_and_wait(r, queue, &io);
    if (ret < 0) {
        for (k = 0; k < io.nr_pages; k++) {
            b->p[i + k].stored = 0;
        }
        tier->ops->free(tier, io.place, io.nr_pages);
        MM_STAT_ADD(r->vm, write_errors, 1);
        return ret;
    }
    MM_STAT_ADD(r->vm, pages_written, io.nr_pages);
    return io.nr_pages;
}

static void store(MmReclaim *r, Batch *b)
{
    unsigned i = 0;
    int ret = 0;

    mm_failpoint(MM_FP_WRITEBACK);
    while (i < b->nr) {
        unsigned nr = 0;

        while (i + nr < b->nr &&
               b->p[i + nr].buf == b->p[i].buf + nr * MM_PAGE_SIZE &&
               !store_as_fill(&b->region->map, b, i + nr)) {
            nr++;
        }
        if (nr) {
            ret = store_run(r, b, i, nr);
            if (ret < 0) {
                store_event(r, r->queues[0]->tier, -ret);
                i += nr;
            } else {
                store_event(r, r->queues[0]->tier, 0);
                i += ret;
            }
        } else {
            i++;
        }
    }
    mm_failpoint(MM_FP_STORED);
}

static void free_place(MmReclaim *r, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(r->vm, mm_entry_tier(entry));

    if (tier) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

/* What is stored and still untouched becomes DROPPING; the rest leaves. */
static void publish(MmReclaim *r, Batch *b)
{
    unsigned i = 0;

    while (i < b->nr) {
        uint64_t dropping = mm_entry_with_state(b->p[i].stored,
                                                MM_PAGE_DROPPING);

        if (!b->p[i].stored) {
            drop_from_batch(b, i, MM_PAGE_RESIDENT);
        } else if (mm_map_cas(&b->region->map, b->p[i].page, b->p[i].entry,
                              dropping)) {
            b->p[i++].entry = dropping;
        } else {
            free_place(r, b->p[i].stored);
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
static void restore(MmReclaim *r, Batch *b, unsigned i)
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
    mm_map_move(&b->region->map, b->p[i].page, entry,
                mm_entry_with_state(resident, MM_PAGE_RESIDENT));
    free_place(r, entry);
}

static unsigned punched(MmReclaim *r, Batch *b, unsigned i, unsigned nr)
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
    mm_uffd_wake(r->vm->uffd, b->region->hva + first * MM_PAGE_SIZE,
                 nr * MM_PAGE_SIZE);
    return gone;
}

static void punch_all(const Batch *b)
{
    unsigned i, nr;

    for (i = 0; i < b->nr; i += nr) {
        nr = run_length(b, i);
        /* a failure shows when the hole is verified */
        mm_region_punch(b->region, b->p[i].page, nr);
    }
}

unsigned mm_writeback(MmReclaim *r)
{
    Batch b = {};
    unsigned evicted = 0;
    unsigned i, nr;

    collect(r, &b);
    if (b.nr) {
        leave_dma(r, &b);
        copy_out(r, &b);
        lose_holes(r, &b);
        if (mm_mutated(MM_MUT_PUNCH_FIRST)) {
            punch_all(&b);
        }
        store(r, &b);
        publish(r, &b);
        punch_all(&b);
        mm_failpoint(MM_FP_PUNCHED);
        for (i = 0; i < b.nr; i += nr) {
            nr = run_length(&b, i);
            evicted += punched(r, &b, i, nr);
        }
        MM_STAT_ADD(r->vm, pages_evicted, evicted);
        mm_fault_retry(r->vm);
    }
    if (b.region) {
        mm_region_put(r->vm, b.region);
    }
    return evicted;
}
