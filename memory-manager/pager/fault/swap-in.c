/*
 * Managed memory pager: pages that are swapped out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The faulting page and, if the fault goes on where others have been, the rest
 * of the stream's window: pages that are one value throughout at once, others
 * by reads, a few of them in each round.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "../test-hooks.h"
#include "fault-internal.h"

/*
 * What is begun at once of a window: whatever it is takes this thread's time,
 * while the faulting page's read may have ended, and others wait.
 */
#define CHUNKS_AT_ONCE 8
/* What is read around a page, aligned, if so much of the limit is free. */
#define AROUND_PAGES MM_DENSE_PAGES
#define ROOM_SHARE 4
#define IMMEDIATE_LOADS 32

/* A page that is one value throughout, kept in place and checksum; for room. */
static MmWaitReason fill(MmFault *f, MmRegion *region, uint64_t page,
                         uint64_t entry)
{
    uint64_t filling = mm_entry_with_state(entry, MM_PAGE_FILLING);
    MmPlaced placed;

    mm_serve_fill(region, page, entry, f->fill_page);
    mm_map_move(&region->map, page, entry, filling);
    mm_failpoint(MM_FP_FILLING);
    mm_nodes_prefer(f->vm->nodes, f->node);
    placed = mm_place_pages(f, region, page, &filling, f->fill_page, 1);
    if (!placed.nr) {
        mm_unfill(region, page, filling);
        return placed.reason;
    }
    return MM_WAIT_NONE;
}

static bool is_fill(uint64_t entry)
{
    return mm_entry_state(entry) == MM_PAGE_SWAPPED &&
           mm_entry_tier(entry) <= MM_TIER_FILL;
}

/* Bring in what is swapped of [first, first + nr); returns how many pages. */
static unsigned load_chunk(MmFault *f, MmRegion *region, uint64_t first,
                           unsigned nr)
{
    unsigned i, got, sum = 0;

    if (mm_wake_records(&f->wake) && !qatomic_read(&f->swapping_in)) {
        /* of a stream that it follows it faults on little */
        mm_wake_set_note(&region->wake_set, first);
    }
    for (i = 0; i < nr && first + i < region->nr_pages; i += got ?: 1) {
        uint64_t entry = mm_map_get(&region->map, first + i);

        if (is_fill(entry) && mm_region_reconciled(region, first + i)) {
            got = fill(f, region, first + i, entry) == MM_WAIT_NONE;
        } else {
            got = mm_load_start(f, region, first + i, nr - i);
        }
        sum += got;
    }
    return sum;
}

/*
 * Begin to bring in @steps pages from @page on, at most @room and as many as is
 * good at once; returns how many steps.  Some loads, and what the I/O limits
 * let begin, are left to those who wait.
 */
static unsigned load_window(MmFault *f, MmRegion *region, uint64_t page,
                            int64_t stride, unsigned steps, unsigned room)
{
    unsigned chunk = ABS(stride) == 1 ? MM_LOAD_PAGES : 1;
    unsigned done = 0, at_once = 0, chunks;

    for (chunks = 0; chunks < CHUNKS_AT_ONCE && done < steps && room &&
         at_once < IMMEDIATE_LOADS &&
         (!done || (f->nr_free_loads > MM_LOADS_KEPT && !mm_load_put_off(f)));
         chunks++) {
        unsigned nr = MIN(MIN(chunk, steps - done), room);
        uint64_t first = page + done * stride;

        if (first >= region->nr_pages) {
            break;      /* over one end or the other */
        }
        if (stride == -1) {
            nr = MIN(nr, first + 1);
            first -= nr - 1;
        }
        room -= load_chunk(f, region, first, nr);
        done += nr;
        /* the first pages are those that somebody waits for */
        at_once += mm_load_reap_immediate(f);
        if (!chunks) {
            mm_load_flush(f);
        }
    }
    mm_load_flush(f);
    return done;
}

/* In place of the one that has had its turn longest ago if all are in use. */
static MmRest *new_rest(MmFault *f)
{
    unsigned i;

    for (i = 0; i < MM_RESTS && f->rest[f->next_rest].steps; i++) {
        f->next_rest = (f->next_rest + 1) % MM_RESTS;
    }
    if (i == MM_RESTS) {
        f->next_rest = (f->next_rest + 1) % MM_RESTS;
    }
    return &f->rest[f->next_rest];
}

/* What is left of the stream's last window is out of date. */
static void keep_rest(MmFault *f, MmRegion *region, const MmStream *stream,
                      unsigned steps)
{
    unsigned index = stream - region->streams.stream, i;

    for (i = 0; i < MM_RESTS; i++) {
        MmRest *rest = &f->rest[i];

        if (rest->region == region->id && rest->stream == index &&
            !rest->block) {
            rest->steps = 0;
        }
    }
    if (steps) {
        *new_rest(f) = (MmRest) {
            .region = region->id, .stream = index, .page = stream->next,
            .stride = stream->stride, .steps = steps,
        };
    }
}

static bool is_block(const MmRest *rest, const MmRegion *region, uint64_t first)
{
    return rest->steps && rest->block && rest->region == region->id &&
           rest->page - first < AROUND_PAGES;
}

/* Once, though others fault in it, too, before it is read. */
static void keep_block(MmFault *f, MmRegion *region, uint64_t first,
                       bool dense)
{
    unsigned i;

    for (i = 0; i < MM_RESTS; i++) {
        if (is_block(&f->rest[i], region, first)) {
            f->rest[i].dense |= dense;
            return;
        }
    }
    *new_rest(f) = (MmRest) {
        .region = region->id, .page = first, .stride = 1,
        .steps = MIN(AROUND_PAGES, region->nr_pages - first),
        .block = true, .dense = dense,
    };
}

void mm_swap_in_forget_region(MmFault *f, uint32_t id)
{
    unsigned i;

    for (i = 0; i < MM_RESTS; i++) {
        if (f->rest[i].region == id) {
            f->rest[i].steps = 0;
        }
    }
}

/* Is there so much room that the guest must have been swapped out? */
static bool plenty(const MmFault *f)
{
    return mm_fault_plenty(f, qatomic_read(&f->vm->limit.limit) / ROOM_SHARE);
}

/*
 * No stream, but the guest wakes up, or turns to other data.  Neighbours were
 * evicted together, and reading them costs less than the faults that they would
 * take.
 */
static bool read_around(MmFault *f, MmRegion *region, MmStream *stream,
                        uint64_t page, bool dense)
{
    uint64_t first = QEMU_ALIGN_DOWN(page, AROUND_PAGES);

    if (stream->windows ||
        (!dense && (ABS(stream->stride) > 1 || !plenty(f)))) {
        return false;
    }
    load_window(f, region, page, 1, 1, 1);
    if (stream->stride == 1) {
        stream->window = AROUND_PAGES;
        mm_stream_filled(stream, first + AROUND_PAGES);
    }
    if (!f->retrying) {
        keep_block(f, region, first, dense);
    }
    return true;
}

/* The window, or what lies around; nothing of it is waited for. */
static void load_all(MmFault *f, MmRegion *region, MmStream *stream,
                     uint64_t page, unsigned room, bool dense)
{
    unsigned done;

    if (read_around(f, region, stream, page, dense)) {
        return;
    }
    done = load_window(f, region, page, stream->stride, stream->window, room);
    mm_stream_filled(stream, page + stream->stride * done);
    keep_rest(f, region, stream, stream->window - done);
}

/* The reserve is for pages that somebody waits for. */
static unsigned room_ahead(MmFault *f, unsigned steps)
{
    uint64_t resident = qatomic_read(&f->vm->total_resident);

    return resident < qatomic_read(&f->vm->limit.limit)
           ? mm_fault_room(f, steps) : 0;
}

static void read_rest(MmFault *f, MmRest *rest)
{
    MmRegion *region = f->vm->regions[rest->region];
    uint64_t page = rest->page;
    unsigned done;

    if (!region) {
        rest->steps = 0;
        return;
    }
    done = load_window(f, region, page, rest->stride, rest->steps,
                       room_ahead(f, rest->steps));
    if (!rest->block) {
        mm_stream_extend(&region->streams.stream[rest->stream], page,
                         page + rest->stride * done);
    }
    if (rest->dense && done && done == rest->steps) {
        mm_dense_read(&region->dense, page);
    }
    rest->page = page + rest->stride * done;
    rest->steps = done ? rest->steps - done : 0;
}

bool mm_swap_in_ahead(MmFault *f)
{
    unsigned i, left = 0;

    for (i = 0; i < MM_RESTS; i++) {
        left += f->rest[i].steps != 0;
    }
    if (!left || f->nr_free_loads <= MM_LOADS_KEPT || mm_load_put_off(f)) {
        return false;   /* it goes on when a read has ended, or begun */
    }
    do {
        f->next_rest = (f->next_rest + 1) % MM_RESTS;
    } while (!f->rest[f->next_rest].steps);
    read_rest(f, &f->rest[f->next_rest]);
    return left > 1 || f->rest[f->next_rest].steps;
}

unsigned mm_swap_in_some(MmFault *f, MmRegion *region, uint64_t page,
                         unsigned nr)
{
    int node = f->node;
    unsigned done;

    f->node = MM_NODE_ANY;
    done = load_window(f, region, page, 1, nr, room_ahead(f, nr));
    f->node = node;
    return done;
}

/* What was in use until now need not be any more. */
static void look_for_turn(MmFault *f, MmRegion *region)
{
    bool turning = mm_dense_turning(&region->dense);

    if (turning && !region->turning) {
        mm_reclaim_turned(f->vm);
    }
    region->turning = turning;
}

/*
 * A guest's fault, not a page that the operator wants back, counts once,
 * however often it has to be tried again.
 */
static void count_fault(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t never = qatomic_read(&region->map.count[MM_CLASS_NEVER]);

    if (f->tid && !f->retrying) {
        mm_dense_fault(&region->dense, page, region->nr_pages - never,
                       f->now_ns);
        look_for_turn(f, region);
        mm_replay_fault(f, region, page);
    }
}

MmWaitReason mm_serve_swapped(MmFault *f, MmRegion *region, uint64_t page,
                              uint64_t entry)
{
    MmStream *stream = mm_stream_fault(&region->streams, f->tid, page, 1);
    unsigned room = mm_fault_room(f, stream->window);
    MmWaitReason reason;

    count_fault(f, region, page);
    if (!is_fill(entry) && !mm_load_possible(f, entry)) {
        /* nor is anything around it: each read that ends has us try again */
        return mm_load_wait_reason(f, region, page);
    }
    if (!room) {
        return MM_WAIT_LIMIT;
    }
    if (is_fill(entry)) {
        reason = fill(f, region, page, entry);
        if (reason != MM_WAIT_NONE) {
            return reason;
        }
        MM_STAT_ADD(f->vm, fault_zero, 1);
        room--;
    }
    load_all(f, region, stream, page, room,
             f->tid && mm_dense_wants(&region->dense, page));
    if (is_fill(entry)) {
        return MM_WAIT_NONE;
    }
    switch (mm_entry_state(mm_map_get(&region->map, page))) {
    case MM_PAGE_SWAPPED:
        return mm_load_wait_reason(f, region, page);
    case MM_PAGE_FILLING:
        MM_STAT_ADD(f->vm, fault_swapin, 1);
        return MM_WAIT_LOAD;
    default:
        MM_STAT_ADD(f->vm, fault_swapin, 1);
        return MM_WAIT_NONE;
    }
}
