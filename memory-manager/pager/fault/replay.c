/*
 * Managed memory pager: reading what a guest that wakes up is going to want
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * wake.h has when, and what is recorded.  Blocks are read in the order of their
 * addresses, which is about that of their places; faults go first, and keep
 * some reads to themselves.  It ends where more would push out what is there.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitops.h"
#include "fault-internal.h"

QEMU_BUILD_BUG_ON(MM_RING_WAKE_BLOCK != MM_WAKE_BLOCK_PAGES);

/* One in so many pages is looked at. */
#define LOOK_STEP 8
/* Pages that cannot be read, one after the other, until a replay ends. */
#define FAILURES (8 * MM_LOAD_PAGES)

static void count_out(const MmVM *vm, uint64_t *out)
{
    int i;

    *out = 0;
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            const uint64_t *count = vm->regions[i]->map.count;

            *out += qatomic_read(&count[MM_CLASS_SWAPPED]) +
                    qatomic_read(&count[MM_CLASS_ZERO]);
        }
    }
}

static void begin(MmFault *f)
{
    f->replay.on = true;
    f->replay.region = 0;
    f->replay.page = 0;
    f->replay.left = 0;
    f->replay.failures = 0;
}

/* What a replay has not come to may be wanted as well. */
static void keep_what_is_left(MmFault *f)
{
    uint32_t id = f->replay.region;
    uint64_t block = f->replay.page / MM_WAKE_BLOCK_PAGES;

    for (; id < MM_MAX_REGIONS; id++, block = 0) {
        if (f->vm->regions[id]) {
            mm_wake_set_keep(&f->vm->regions[id]->wake_set, block);
        }
    }
}

static void end(MmFault *f)
{
    f->replay.on = false;
    if (mm_wake_records(&f->wake)) {
        keep_what_is_left(f);
    }
}

/* Some of its pages tell. */
static bool is_in_memory(const MmRegion *region, uint64_t block)
{
    uint64_t page = block * MM_WAKE_BLOCK_PAGES;
    uint64_t last = MIN(page + MM_WAKE_BLOCK_PAGES, region->nr_pages);

    for (; page < last; page += LOOK_STEP) {
        if (mm_map_class(mm_map_get(&region->map, page)) ==
            MM_CLASS_RESIDENT) {
            return true;
        }
    }
    return false;
}

/* One that was left out and has never left memory shows no fault either. */
static void note_left_out(MmFault *f, MmRegion *region)
{
    MmWakeSet *set = &region->wake_set;
    uint64_t block = 0;

    while ((block = find_next_bit(set->recorded, set->nr_blocks, block)) <
           set->nr_blocks) {
        if (mm_wake_set_left_out(block, f->wake.times) &&
            is_in_memory(region, block)) {
            mm_wake_set_note(set, block * MM_WAKE_BLOCK_PAGES);
        }
        block++;
    }
}

static void record(MmFault *f)
{
    int i;

    if (f->replay.on) {
        keep_what_is_left(f);
    }
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (f->vm->regions[i]) {
            note_left_out(f, f->vm->regions[i]);
            mm_wake_set_record(&f->vm->regions[i]->wake_set);
        }
    }
}

static void forget(MmFault *f)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (f->vm->regions[i]) {
            mm_wake_set_forget(&f->vm->regions[i]->wake_set);
        }
    }
}

void mm_replay_look(MmFault *f)
{
    MmWakeState before;
    uint64_t out;

    if (!qatomic_load_acquire(&f->vm->scan_done)) {
        return;     /* it is not known yet what is where */
    }
    count_out(f->vm, &out);
    do {
        before = f->wake.state;
        switch (mm_wake_look(&f->wake, qatomic_read(&f->vm->total_resident),
                             out, f->now_ns)) {
        case MM_WAKE_FORGET:
            forget(f);
            break;
        case MM_WAKE_RECORD:
            record(f);
            break;
        default:
            break;
        }
    } while (f->wake.state != before);
}

void mm_replay_fault(MmFault *f, MmRegion *region, uint64_t page)
{
    if (mm_wake_fault(&f->wake, f->now_ns)) {
        begin(f);
    }
    if (mm_wake_records(&f->wake)) {
        mm_wake_set_note(&region->wake_set, page);
    }
}

void mm_fault_replay(MmVM *vm, void *opaque)
{
    uint64_t *count = opaque;
    int i;

    *count = 0;
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            *count += mm_wake_set_pages(&vm->regions[i]->wake_set);
        }
    }
    vm->fault->wake.times++;
    begin(vm->fault);
}

void mm_replay_forget_region(MmFault *f, uint32_t id)
{
    /* the next one with this number may be smaller */
    if (f->replay.region == id) {
        f->replay.page = 0;
        f->replay.left = 0;
    }
}

void mm_replay_failed(MmFault *f, bool failed)
{
    f->replay.failures = failed ? f->replay.failures + 1 : 0;
    if (f->replay.on && f->replay.failures >= FAILURES) {
        end(f);
    }
}

/* The request's blocks, or NULL if there cannot be such. */
static uint8_t *blocks_of(MmFault *f, const MmRegion *region,
                          const MmRingSlot *request)
{
    if (mm_region_is_huge(region) ||
        request->range.first_page % MM_RING_WAKE_BLOCK ||
        request->range.nr_pages > MM_RING_WAKE_MAX ||
        request->buffer >= MM_RING_BUFFER_PAGES) {
        return NULL;
    }
    return f->vm->ring->buffer[request->buffer];
}

void mm_replay_read(MmFault *f, const MmRegion *region,
                    const MmRingSlot *request, uint32_t *done)
{
    uint64_t first = request->range.first_page / MM_RING_WAKE_BLOCK;
    unsigned nr = DIV_ROUND_UP(request->range.nr_pages, MM_RING_WAKE_BLOCK), i;
    uint8_t *bits = blocks_of(f, region, request);

    if (!bits) {
        return;
    }
    memset(bits, 0, DIV_ROUND_UP(nr, 8));
    for (i = 0; i < nr; i++) {
        bits[i / 8] |= mm_wake_set_has(&region->wake_set, first + i) << i % 8;
    }
    *done = 1;
}

void mm_replay_write(MmFault *f, MmRegion *region, const MmRingSlot *request,
                     uint32_t *done)
{
    uint64_t first = request->range.first_page / MM_RING_WAKE_BLOCK;
    unsigned nr = DIV_ROUND_UP(request->range.nr_pages, MM_RING_WAKE_BLOCK), i;
    const uint8_t *bits = blocks_of(f, region, request);

    if (!bits) {
        return;
    }
    for (i = 0; i < nr; i++) {
        mm_wake_set_put(&region->wake_set, first + i,
                        bits[i / 8] & (1 << i % 8));
    }
    *done = 1;
}

/* The next block that is to be read; false if there is none any more. */
static bool next_block(MmFault *f)
{
    for (; f->replay.region < MM_MAX_REGIONS; f->replay.region++) {
        MmRegion *region = f->vm->regions[f->replay.region];
        uint64_t block;

        if (region) {
            block = mm_wake_set_next(&region->wake_set, f->replay.page /
                                     MM_WAKE_BLOCK_PAGES, f->wake.times);
            if (block < region->wake_set.nr_blocks) {
                f->replay.page = block * MM_WAKE_BLOCK_PAGES;
                f->replay.left = MM_WAKE_BLOCK_PAGES;
                return true;
            }
        }
        f->replay.page = 0;
    }
    return false;
}

/*
 * Where I/O limits put reads off, one is under way at a time: who waits for a
 * page comes after those that were put off before.  Returns how many pages have
 * been dealt with, 0: not now.
 */
static unsigned read_one(MmFault *f, MmRegion *region)
{
    unsigned done = 0, nr = 0;
    int node = f->node;

    if (!QLIST_EMPTY(&f->busy_loads)) {
        return 0;
    }
    f->node = MM_NODE_ANY;
    while (!nr && done < f->replay.left) {
        uint64_t page = f->replay.page + done;

        nr = mm_load_start(f, region, page, f->replay.left - done);
        if (!nr) {
            /* it may be one value throughout, which takes no read */
            mm_swap_in_some(f, region, page, 1);
        }
        done += MAX(nr, 1);
    }
    mm_load_flush(f);
    f->node = node;
    return done;
}

bool mm_replay_step(MmFault *f)
{
    MmRegion *region;
    unsigned done;

    if (!f->replay.on || f->nr_free_loads <= MM_LOADS_KEPT ||
        mm_load_put_off(f)) {
        return false;   /* it goes on when a read has ended, or begun */
    }
    if (!mm_fault_plenty(f, MM_WAKE_BLOCK_PAGES) ||
        (!f->replay.left && !next_block(f))) {
        end(f);
        return false;
    }
    region = f->vm->regions[f->replay.region];
    if (mm_wake_records(&f->wake)) {
        mm_wake_set_note(&region->wake_set, f->replay.page);
    }
    if (mm_load_limited(f)) {
        done = read_one(f, region);
        if (!done) {
            return false;
        }
    } else {
        done = mm_swap_in_some(f, region, f->replay.page, f->replay.left)
               ?: f->replay.left;
    }
    f->replay.page += done;
    f->replay.left -= done;
    return true;
}
