/*
 * Managed memory pager: space of a compressed tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A log: content is appended to the head segment in units of 64 bytes,
 * whatever its size.  There are no size classes, and what is evicted together
 * lies together.  A segment whose last page has gone is used again, or
 * punched.  What is free within segments that are in use is the pool's
 * fragmentation.
 *
 * A pool that is nearly full is aged: if it is full of content, the segments
 * that were filled first are left, else those in which least is left.
 *
 * A place is the number of the first unit, and how many units follow it.
 *
 * Invariants:
 *
 *  P1 used units of a segment = those of the places in it that are in use.
 *  P2 Only the head segment is appended to, and only where nothing was written
 *     since it became the head: what has been published is never overwritten.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "pool.h"

#define UNIT 64
#define SEGMENT_UNITS (MM_POOL_SEGMENT_SIZE / UNIT)
/* Empty segments that are kept for the next pages. */
#define SPARE_SEGMENTS 8
#define NO_SEGMENT UINT32_MAX
/* A pool with so many segments in use is aged, by so much of it. */
#define AGEING_EIGHTHS 7
#define GAIN_EIGHTHS 1
/* With so much content in it, it is the content that has to go. */
#define FULL_EIGHTHS 6
/* With so much in it, a segment is left alone when it is only about space. */
#define DENSE_EIGHTHS 6
/* Of what is wanted, less than this part is not worth a sweep. */
#define WORTH_PART 2

typedef enum SegmentState {
    SEGMENT_FREE,               /* occupies nothing */
    SEGMENT_HEAD,
    SEGMENT_USED,
    SEGMENT_LEAVING,            /* as USED; its content is to be moved */
    SEGMENT_EMPTY,              /* occupies memory, nothing lies in it */
    SEGMENT_PUNCHING,
    SEGMENT__MAX
} SegmentState;

#define TO(state) (1u << SEGMENT_##state)

static const uint8_t segment_edges[SEGMENT__MAX] = {
    [SEGMENT_FREE] = TO(HEAD) | TO(USED),   /* USED: claimed */
    [SEGMENT_HEAD] = TO(USED) | TO(EMPTY),
    [SEGMENT_USED] = TO(EMPTY) | TO(LEAVING),
    [SEGMENT_LEAVING] = TO(EMPTY),
    [SEGMENT_EMPTY] = TO(HEAD) | TO(PUNCHING),
    [SEGMENT_PUNCHING] = TO(FREE) | TO(EMPTY),
};

typedef struct Segment {
    uint16_t units;             /* in use */
    uint8_t state;              /* SegmentState */
    uint32_t seq;               /* when it became head; 0: before a takeover */
} Segment;

struct MmPool {
    /* fixed after mm_pool_new() */
    int fd;
    off_t offset;               /* of the first unit */
    uint32_t nr_segments;

    GMutex lock;
    /* protected by lock */
    Segment *segments;
    GArray *empty;              /* numbers of EMPTY ones */
    GArray *holes;              /* numbers of FREE ones below fresh */
    uint32_t fresh;             /* all from here on are FREE */
    uint32_t head;              /* or NO_SEGMENT */
    uint32_t head_units;        /* appended to it so far */
    uint32_t last_seq;
    uint32_t leaving;           /* segments that are */
    uint32_t most;              /* segments that may occupy memory */
    uint32_t in_use;            /* that do */
    uint64_t pages;
    uint64_t units;
    /* what a former pager has left is gone; read by the reclaim thread only */
    bool swept;
    GPtrArray *claimed;         /* bitmap of units per segment, or NULL */
};

static uint64_t make_place(uint64_t unit, unsigned nr_units)
{
    return unit << 6 | (nr_units - 1);
}

static uint64_t place_unit(uint64_t place)
{
    return place >> 6;
}

static unsigned place_units(uint64_t place)
{
    return (place & 63) + 1;
}

static uint32_t place_segment(uint64_t place)
{
    return place_unit(place) / SEGMENT_UNITS;
}

static off_t unit_offset(const MmPool *pool, uint64_t unit)
{
    return pool->offset + unit * UNIT;
}

static void set_state(MmPool *pool, uint32_t n, SegmentState state)
{
    assert(segment_edges[pool->segments[n].state] & (1u << state));
    /* mm_pool_leaving() looks without the lock */
    qatomic_set(&pool->segments[n].state, state);
}

static int punch(MmPool *pool, uint32_t n)
{
    return TEMP_FAILURE_RETRY(
        fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  unit_offset(pool, (uint64_t)n * SEGMENT_UNITS),
                  MM_POOL_SEGMENT_SIZE));
}

/*
 * After a takeover, once all that is in use has been claimed: whatever else
 * the former pager has written belongs to nobody.  Only the calling thread
 * makes use of what is FREE, so that it stays so without the lock, which faults
 * must not wait for meanwhile.
 */
static void sweep(MmPool *pool)
{
    off_t at = unit_offset(pool, 0);
    uint32_t n;

    while ((at = lseek(pool->fd, at, SEEK_DATA)) >= 0) {
        bool is_free;

        n = (at - pool->offset) / MM_POOL_SEGMENT_SIZE;
        g_mutex_lock(&pool->lock);
        pool->fresh = MAX(pool->fresh, n + 1);
        is_free = pool->segments[n].state == SEGMENT_FREE;
        g_mutex_unlock(&pool->lock);
        if (is_free) {
            punch(pool, n);
        }
        at = unit_offset(pool, (n + 1ULL) * SEGMENT_UNITS);
    }
    g_mutex_lock(&pool->lock);
    pool->swept = true;
    g_clear_pointer(&pool->claimed, g_ptr_array_unref);
    /* with those that have been freed meanwhile: they are found here, too */
    g_array_set_size(pool->holes, 0);
    for (n = 0; n < pool->fresh; n++) {
        if (pool->segments[n].state == SEGMENT_FREE) {
            g_array_append_val(pool->holes, n);
        }
    }
    g_mutex_unlock(&pool->lock);
}

static bool pop(GArray *array, uint32_t *n)
{
    if (!array->len) {
        return false;
    }
    *n = g_array_index(array, uint32_t, array->len - 1);
    g_array_set_size(array, array->len - 1);
    return true;
}

/* Segments that new content cannot have: to move some needs room as well. */
static uint32_t kept_back(const MmPool *pool)
{
    return pool->most > SPARE_SEGMENTS ? MAX(pool->most / 64, 1) : 0;
}

/* A segment to append to, or NO_SEGMENT. */
static uint32_t take_segment(MmPool *pool, bool moving)
{
    uint32_t most = pool->most - (moving ? 0 : kept_back(pool));
    uint32_t n;

    if (pool->in_use - pool->empty->len >= most) {
        return NO_SEGMENT;
    }
    if (pop(pool->empty, &n)) {
        return n;
    }
    if (pool->in_use >= pool->most) {
        return NO_SEGMENT;
    }
    if (!pop(pool->holes, &n)) {
        if (pool->fresh == pool->nr_segments) {
            return NO_SEGMENT;
        }
        n = pool->fresh++;
    }
    pool->in_use++;
    return n;
}

static void close_head(MmPool *pool)
{
    if (pool->head == NO_SEGMENT) {
        return;
    }
    if (pool->segments[pool->head].units) {
        set_state(pool, pool->head, SEGMENT_USED);
    } else {
        set_state(pool, pool->head, SEGMENT_EMPTY);
        g_array_append_val(pool->empty, pool->head);
    }
    pool->head = NO_SEGMENT;
}

/* Room for @nr_units in the head segment, a new one if need be. */
static bool make_room(MmPool *pool, unsigned nr_units, bool moving)
{
    if (pool->head != NO_SEGMENT &&
        pool->head_units + nr_units <= SEGMENT_UNITS) {
        return true;
    }
    close_head(pool);
    pool->head = take_segment(pool, moving);
    if (pool->head == NO_SEGMENT) {
        return false;
    }
    set_state(pool, pool->head, SEGMENT_HEAD);
    pool->segments[pool->head].seq = ++pool->last_seq;
    pool->head_units = 0;
    return true;
}

bool mm_pool_alloc(MmPool *pool, size_t size, bool moving, uint64_t *place)
{
    unsigned nr_units = DIV_ROUND_UP(size, UNIT);

    if (!pool->swept) {
        sweep(pool);
    }
    g_mutex_lock(&pool->lock);
    if (!make_room(pool, nr_units, moving)) {
        g_mutex_unlock(&pool->lock);
        return false;
    }
    *place = make_place((uint64_t)pool->head * SEGMENT_UNITS +
                        pool->head_units, nr_units);
    pool->head_units += nr_units;
    pool->segments[pool->head].units += nr_units;
    pool->units += nr_units;
    pool->pages++;
    g_mutex_unlock(&pool->lock);
    return true;
}

/* Out of use, and in excess of what is kept: give the memory back. */
static void punch_excess(MmPool *pool)
{
    uint32_t n;
    int ret;

    if ((pool->empty->len <= SPARE_SEGMENTS && pool->in_use <= pool->most) ||
        !pop(pool->empty, &n)) {
        return;
    }
    set_state(pool, n, SEGMENT_PUNCHING);
    g_mutex_unlock(&pool->lock);
    ret = punch(pool, n);
    g_mutex_lock(&pool->lock);
    if (ret < 0) {
        set_state(pool, n, SEGMENT_EMPTY);
        g_array_append_val(pool->empty, n);
    } else {
        set_state(pool, n, SEGMENT_FREE);
        g_array_append_val(pool->holes, n);
        pool->in_use--;
    }
}

void mm_pool_free(MmPool *pool, uint64_t place)
{
    uint32_t n = place_segment(place);
    unsigned nr_units = place_units(place);

    g_mutex_lock(&pool->lock);
    assert(pool->segments[n].units >= nr_units);
    pool->segments[n].units -= nr_units;
    pool->units -= nr_units;
    pool->pages--;
    if (!pool->segments[n].units && (pool->segments[n].state == SEGMENT_USED ||
                                  pool->segments[n].state == SEGMENT_LEAVING)) {
        pool->leaving -= pool->segments[n].state == SEGMENT_LEAVING;
        set_state(pool, n, SEGMENT_EMPTY);
        g_array_append_val(pool->empty, n);
        punch_excess(pool);
    }
    g_mutex_unlock(&pool->lock);
}

/* What of a segment has been claimed; only of those that are, there is any. */
static unsigned long *claimed_units(MmPool *pool, uint32_t n)
{
    if (!pool->claimed) {
        pool->claimed = g_ptr_array_new_with_free_func(g_free);
    }
    if (pool->claimed->len <= n) {
        g_ptr_array_set_size(pool->claimed, n + 1);
    }
    if (!pool->claimed->pdata[n]) {
        pool->claimed->pdata[n] = bitmap_new(SEGMENT_UNITS);
    }
    return pool->claimed->pdata[n];
}

/* Can it be, and does it overlap with nothing that was claimed before? */
static bool claim_units(MmPool *pool, uint64_t unit, unsigned nr_units,
                        size_t max_size)
{
    unsigned long *claimed;

    if (unit / SEGMENT_UNITS >= pool->nr_segments ||
        unit % SEGMENT_UNITS + nr_units > SEGMENT_UNITS ||
        nr_units * UNIT > max_size) {
        return false;
    }
    claimed = claimed_units(pool, unit / SEGMENT_UNITS);
    unit %= SEGMENT_UNITS;
    if (find_next_bit(claimed, unit + nr_units, unit) < unit + nr_units) {
        return false;
    }
    bitmap_set(claimed, unit, nr_units);
    return true;
}

bool mm_pool_claim(MmPool *pool, uint64_t place, size_t max_size)
{
    unsigned nr_units = place_units(place);
    uint32_t n = place_segment(place);
    bool ok;

    g_mutex_lock(&pool->lock);
    ok = claim_units(pool, place_unit(place), nr_units, max_size);
    if (ok) {
        if (pool->segments[n].state == SEGMENT_FREE) {
            set_state(pool, n, SEGMENT_USED);
            pool->in_use++;
            pool->fresh = MAX(pool->fresh, n + 1);
        }
        pool->segments[n].units += nr_units;
        pool->units += nr_units;
        pool->pages++;
    }
    g_mutex_unlock(&pool->lock);
    return ok;
}

/* A segment that could be left. */
typedef struct Choice {
    uint32_t n;
    uint32_t rank;              /* the lowest are chosen */
    uint32_t units;
} Choice;

static int by_rank(const void *a, const void *b)
{
    const Choice *x = a, *y = b;

    return x->rank < y->rank ? -1 : x->rank > y->rank;
}

static GArray *list_choices(MmPool *pool, MmAgeing ageing)
{
    GArray *list = g_array_new(false, false, sizeof(Choice));
    uint32_t n;

    for (n = 0; n < pool->fresh; n++) {
        const Segment *s = &pool->segments[n];
        Choice choice = {
            .n = n, .units = s->units,
            .rank = ageing == MM_AGEING_DOWN ? s->seq : s->units,
        };

        /* from dense segments, moving gains less than it costs */
        if (s->state == SEGMENT_USED &&
            (ageing == MM_AGEING_DOWN ||
             s->units < SEGMENT_UNITS * DENSE_EIGHTHS / 8)) {
            g_array_append_val(list, choice);
        }
    }
    return list;
}

/*
 * How many of the list free @gain units, if as much as is worth a sweep; what
 * moves within the pool must fit into @room units until they are free.
 */
static unsigned how_many(const GArray *list, MmAgeing ageing, uint64_t gain,
                         uint64_t room)
{
    uint64_t gained = 0, moved = 0;
    bool limited = false;
    unsigned i;

    for (i = 0; i < list->len && gained < gain; i++) {
        uint32_t units = g_array_index(list, Choice, i).units;

        if (ageing == MM_AGEING_WITHIN) {
            moved += units;
            limited = moved > room;
            if (limited) {
                break;
            }
            units = SEGMENT_UNITS - units;
        } else {
            units = SEGMENT_UNITS;
        }
        gained += units;
    }
    /* little by little, if that is all that can be done */
    return limited || gained >= gain / WORTH_PART ? i : 0;
}

static bool mark_leaving(MmPool *pool, const GArray *list, unsigned nr)
{
    bool any = false;
    unsigned i;

    for (i = 0; i < nr; i++) {
        uint32_t n = g_array_index(list, Choice, i).n;

        if (pool->segments[n].state == SEGMENT_USED) {
            set_state(pool, n, SEGMENT_LEAVING);
            pool->leaving++;
            any = true;
        }
    }
    return any;
}

MmAgeing mm_pool_age(MmPool *pool, bool is_last)
{
    g_autoptr(GArray) list = NULL;
    MmAgeing ageing;
    uint64_t most, full, gain, room;
    bool any;

    g_mutex_lock(&pool->lock);
    most = (uint64_t)pool->most * SEGMENT_UNITS;
    full = (uint64_t)(pool->in_use - pool->empty->len) * SEGMENT_UNITS;
    if (!pool->swept || full * 8 <= most * AGEING_EIGHTHS) {
        g_mutex_unlock(&pool->lock);
        return MM_AGEING_NONE;
    }
    /* without any room, nothing can be moved within, either */
    ageing = !is_last && (pool->units * 8 > most * FULL_EIGHTHS ||
                          full >= most)
             ? MM_AGEING_DOWN : MM_AGEING_WITHIN;
    gain = MAX(most * GAIN_EIGHTHS / 8, full - most * AGEING_EIGHTHS / 8);
    room = most > full ? most - full : 0;
    list = list_choices(pool, ageing);
    g_mutex_unlock(&pool->lock);

    /* segments may empty meanwhile, nothing else */
    g_array_sort(list, by_rank);

    g_mutex_lock(&pool->lock);
    any = mark_leaving(pool, list, how_many(list, ageing, gain, room));
    g_mutex_unlock(&pool->lock);
    return any ? ageing : MM_AGEING_NONE;
}

bool mm_pool_leaving(MmPool *pool, uint64_t place)
{
    /* only the calling thread makes it so; that it may end does not matter */
    return qatomic_read(&pool->segments[place_segment(place)].state) ==
           SEGMENT_LEAVING;
}

MmPool *mm_pool_new(int fd, off_t offset, uint32_t nr_segments, uint32_t most,
                    bool is_new)
{
    MmPool *pool = g_new0(MmPool, 1);

    pool->fd = fd;
    pool->offset = offset;
    pool->nr_segments = nr_segments;
    pool->most = most;
    pool->segments = g_new0(Segment, nr_segments);
    pool->empty = g_array_new(false, false, sizeof(uint32_t));
    pool->holes = g_array_new(false, false, sizeof(uint32_t));
    pool->head = NO_SEGMENT;
    pool->swept = is_new;
    g_mutex_init(&pool->lock);
    return pool;
}

void mm_pool_set_most(MmPool *pool, uint64_t most)
{
    g_mutex_lock(&pool->lock);
    pool->most = MIN(most, pool->nr_segments);
    g_mutex_unlock(&pool->lock);
}

void mm_pool_usage(MmPool *pool, MmTierUsage *usage)
{
    g_mutex_lock(&pool->lock);
    usage->pages = pool->pages;
    usage->used = pool->units * UNIT;
    usage->size = (uint64_t)pool->in_use * MM_POOL_SEGMENT_SIZE;
    g_mutex_unlock(&pool->lock);
}

off_t mm_pool_offset(const MmPool *pool, uint64_t place)
{
    return unit_offset(pool, place_unit(place));
}

size_t mm_pool_size(uint64_t place)
{
    return place_units(place) * UNIT;
}
