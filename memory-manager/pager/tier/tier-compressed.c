/*
 * Managed memory pager: compressed tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pool of compressed pages in a memfd, which QEMU holds, so that it outlives
 * pagers as guest memory does.  It is never mapped, for the reasons that guest
 * memory is not (region.c): a page costs one pwrite() or pread(), and nothing
 * can end in SIGBUS or fill a hole.
 *
 * Layout: a page with the VM's identity, then segments.  Pages are appended to
 * the head segment in units of 64 bytes, with their length in front, whatever
 * their size: there are no size classes, and what is evicted together lies
 * together.  A segment whose last page has gone is used again, or punched.
 * What is free within segments that are in use is the pool's fragmentation.
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
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../page-map.h"
#include "../test-hooks.h"
#include "codec.h"
#include "tier.h"

#define UNIT 64
#define SEGMENT_SIZE (128 * KiB)
#define SEGMENT_UNITS (SEGMENT_SIZE / UNIT)
/* What takes more than this is not worth the work. */
#define PACKED_MAX (MM_PAGE_SIZE * 3 / 4)
/* Empty segments that are kept for the next pages. */
#define SPARE_SEGMENTS 8
/* Most that one VM can have. */
#define POOL_MAX (256 * GiB)
#define NO_SEGMENT UINT32_MAX

/* In front of a compressed page. */
typedef uint16_t PackedLen;

typedef enum SegmentState {
    SEGMENT_FREE,               /* occupies nothing */
    SEGMENT_HEAD,
    SEGMENT_USED,
    SEGMENT_EMPTY,              /* occupies memory, nothing lies in it */
    SEGMENT_PUNCHING,
    SEGMENT__MAX
} SegmentState;

#define TO(state) (1u << SEGMENT_##state)

static const uint8_t segment_edges[SEGMENT__MAX] = {
    [SEGMENT_FREE] = TO(HEAD) | TO(USED),   /* USED: claimed */
    [SEGMENT_HEAD] = TO(USED) | TO(EMPTY),
    [SEGMENT_USED] = TO(EMPTY),
    [SEGMENT_EMPTY] = TO(HEAD) | TO(PUNCHING),
    [SEGMENT_PUNCHING] = TO(FREE) | TO(EMPTY),
};

typedef struct Segment {
    uint16_t units;             /* in use */
    uint8_t state;              /* SegmentState */
} Segment;

typedef struct MmTierCompressed {
    MmTier base;

    /* fixed after open */
    unsigned algorithm;
    unsigned share;             /* percent of the VM's memory, 0: size counts */
    bool overcommit;
    uint32_t nr_segments;

    GMutex lock;
    /* protected by lock */
    Segment *segments;
    GArray *empty;              /* numbers of EMPTY ones */
    GArray *holes;              /* numbers of FREE ones below fresh */
    uint32_t fresh;             /* all from here on are FREE */
    uint32_t head;              /* or NO_SEGMENT */
    uint32_t head_units;        /* appended to it so far */
    uint32_t most;              /* segments that may occupy memory */
    uint32_t in_use;            /* that do */
    uint64_t pages;
    uint64_t units;
    bool swept;                 /* what a former pager has left is gone */
    unsigned long *claimed;     /* units; NULL once swept */
} MmTierCompressed;

typedef struct QueueCompressed {
    MmTierQueue base;
    MmCodec *codec;
    uint8_t packed[PACKED_MAX]; /* length and content of one page */
    uint64_t place;             /* of the packed page */
    QSIMPLEQ_HEAD(, MmTierIO) completed;
} QueueCompressed;

static MmTierCompressed *to_compressed(const MmTier *tier)
{
    return container_of(tier, MmTierCompressed, base);
}

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

static off_t unit_offset(uint64_t unit)
{
    return MM_PAGE_SIZE + unit * UNIT;
}

static void set_state(MmTierCompressed *c, uint32_t n, SegmentState state)
{
    assert(segment_edges[c->segments[n].state] & (1u << state));
    c->segments[n].state = state;
}

static int punch(MmTierCompressed *c, uint32_t n)
{
    return TEMP_FAILURE_RETRY(
        fallocate(c->base.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  unit_offset((uint64_t)n * SEGMENT_UNITS), SEGMENT_SIZE));
}

/*
 * After a takeover, once all that is in use has been claimed: whatever else
 * the former pager has written belongs to nobody.
 */
static void sweep(MmTierCompressed *c)
{
    off_t at = unit_offset(0);
    uint32_t n;

    c->swept = true;
    g_clear_pointer(&c->claimed, g_free);
    while ((at = lseek(c->base.fd, at, SEEK_DATA)) >= 0) {
        n = (at - MM_PAGE_SIZE) / SEGMENT_SIZE;
        if (c->segments[n].state == SEGMENT_FREE) {
            punch(c, n);
        }
        c->fresh = MAX(c->fresh, n + 1);
        at = unit_offset((n + 1ULL) * SEGMENT_UNITS);
    }
    for (n = 0; n < c->fresh; n++) {
        if (c->segments[n].state == SEGMENT_FREE) {
            g_array_append_val(c->holes, n);
        }
    }
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

/* A segment to append to, or NO_SEGMENT. */
static uint32_t take_segment(MmTierCompressed *c)
{
    uint32_t n;

    if (pop(c->empty, &n)) {
        return n;
    }
    if (c->in_use >= c->most) {
        return NO_SEGMENT;
    }
    if (!pop(c->holes, &n)) {
        if (c->fresh == c->nr_segments) {
            return NO_SEGMENT;
        }
        n = c->fresh++;
    }
    c->in_use++;
    return n;
}

static void close_head(MmTierCompressed *c)
{
    if (c->head == NO_SEGMENT) {
        return;
    }
    if (c->segments[c->head].units) {
        set_state(c, c->head, SEGMENT_USED);
    } else {
        set_state(c, c->head, SEGMENT_EMPTY);
        g_array_append_val(c->empty, c->head);
    }
    c->head = NO_SEGMENT;
}

/* Room for @nr_units in the head segment, a new one if need be. */
static bool make_room(MmTierCompressed *c, unsigned nr_units)
{
    if (!c->swept) {
        sweep(c);
    }
    if (c->head != NO_SEGMENT && c->head_units + nr_units <= SEGMENT_UNITS) {
        return true;
    }
    close_head(c);
    c->head = take_segment(c);
    if (c->head == NO_SEGMENT) {
        return false;
    }
    set_state(c, c->head, SEGMENT_HEAD);
    c->head_units = 0;
    return true;
}

static int compressed_alloc(MmTierQueue *queue, MmTierIO *io)
{
    QueueCompressed *q = container_of(queue, QueueCompressed, base);
    MmTierCompressed *c = to_compressed(queue->tier);
    PackedLen len;
    unsigned nr_units;

    len = mm_codec_pack(q->codec, io->buf, q->packed + sizeof(len),
                        sizeof(q->packed) - sizeof(len));
    if (!len) {
        return -E2BIG;
    }
    memcpy(q->packed, &len, sizeof(len));
    nr_units = DIV_ROUND_UP(len + sizeof(len), UNIT);

    g_mutex_lock(&c->lock);
    if (!make_room(c, nr_units)) {
        g_mutex_unlock(&c->lock);
        return -ENOSPC;
    }
    q->place = make_place((uint64_t)c->head * SEGMENT_UNITS + c->head_units,
                          nr_units);
    c->head_units += nr_units;
    c->segments[c->head].units += nr_units;
    c->units += nr_units;
    c->pages++;
    g_mutex_unlock(&c->lock);
    io->place = q->place;
    io->nr_pages = 1;
    return 0;
}

/* Out of use, and in excess of what is kept: give the memory back. */
static void punch_excess(MmTierCompressed *c)
{
    uint32_t n;
    int ret;

    if (c->empty->len <= SPARE_SEGMENTS || !pop(c->empty, &n)) {
        return;
    }
    set_state(c, n, SEGMENT_PUNCHING);
    g_mutex_unlock(&c->lock);
    ret = punch(c, n);
    g_mutex_lock(&c->lock);
    if (ret < 0) {
        set_state(c, n, SEGMENT_EMPTY);
        g_array_append_val(c->empty, n);
    } else {
        set_state(c, n, SEGMENT_FREE);
        g_array_append_val(c->holes, n);
        c->in_use--;
    }
}

static void compressed_free(MmTier *tier, uint64_t place, unsigned nr)
{
    MmTierCompressed *c = to_compressed(tier);
    uint32_t n = place_segment(place);
    unsigned nr_units = place_units(place);

    assert(nr == 1);
    g_mutex_lock(&c->lock);
    assert(c->segments[n].units >= nr_units);
    c->segments[n].units -= nr_units;
    c->units -= nr_units;
    c->pages--;
    if (!c->segments[n].units && c->segments[n].state == SEGMENT_USED) {
        set_state(c, n, SEGMENT_EMPTY);
        g_array_append_val(c->empty, n);
        punch_excess(c);
    }
    g_mutex_unlock(&c->lock);
}

/* Can it be, and does it overlap with nothing that was claimed before? */
static bool claim_units(MmTierCompressed *c, uint64_t unit, unsigned nr_units)
{
    if (unit / SEGMENT_UNITS >= c->nr_segments ||
        unit % SEGMENT_UNITS + nr_units > SEGMENT_UNITS ||
        nr_units * UNIT > PACKED_MAX) {
        return false;
    }
    if (!c->claimed) {
        /* mostly untouched, and so mostly not there */
        c->claimed = g_new0(unsigned long,
                            BITS_TO_LONGS((uint64_t)c->nr_segments *
                                          SEGMENT_UNITS));
    }
    if (find_next_bit(c->claimed, unit + nr_units, unit) < unit + nr_units) {
        return false;
    }
    bitmap_set(c->claimed, unit, nr_units);
    return true;
}

static bool compressed_claim(MmTier *tier, uint64_t place)
{
    MmTierCompressed *c = to_compressed(tier);
    unsigned nr_units = place_units(place);
    uint32_t n = place_segment(place);
    bool ok;

    g_mutex_lock(&c->lock);
    ok = claim_units(c, place_unit(place), nr_units);
    if (ok) {
        if (c->segments[n].state == SEGMENT_FREE) {
            set_state(c, n, SEGMENT_USED);
            c->in_use++;
            c->fresh = MAX(c->fresh, n + 1);
        }
        c->segments[n].units += nr_units;
        c->units += nr_units;
        c->pages++;
    }
    g_mutex_unlock(&c->lock);
    return ok;
}

static int load(QueueCompressed *q, MmTierIO *io)
{
    MmTierCompressed *c = to_compressed(q->base.tier);
    size_t size = place_units(io->place) * UNIT;
    ssize_t ret;
    PackedLen len;

    if (size > sizeof(q->packed)) {
        return -EBADMSG;
    }
    ret = TEMP_FAILURE_RETRY(pread(c->base.fd, q->packed, size,
                                   unit_offset(place_unit(io->place))));
    if (ret != size) {
        return ret < 0 ? -errno : -EIO;
    }
    memcpy(&len, q->packed, sizeof(len));
    return len <= size - sizeof(len) &&
           mm_codec_unpack(q->codec, q->packed + sizeof(len), len, io->buf)
           ? 0 : -EBADMSG;
}

static int store(QueueCompressed *q, MmTierIO *io)
{
    MmTierCompressed *c = to_compressed(q->base.tier);
    size_t size = place_units(io->place) * UNIT;
    ssize_t ret;

    assert(io->place == q->place);
    ret = TEMP_FAILURE_RETRY(pwrite(c->base.fd, q->packed, size,
                                    unit_offset(place_unit(io->place))));
    return ret == size ? 0 : ret < 0 ? -errno : -ENOMEM;
}

static void compressed_submit(MmTierQueue *queue, MmTierIO *io)
{
    QueueCompressed *q = container_of(queue, QueueCompressed, base);

    assert(io->nr_pages == 1);
    io->queue = queue;
    io->ret = mm_failpoint(io->store ? MM_FP_TIER_STORE : MM_FP_TIER_LOAD);
    if (!io->ret) {
        io->ret = io->store ? store(q, io) : load(q, io);
    }
    QSIMPLEQ_INSERT_TAIL(&q->completed, io, next);
}

static unsigned compressed_reap(MmTierQueue *queue, MmTierDone *done)
{
    QueueCompressed *q = container_of(queue, QueueCompressed, base);
    unsigned nr = 0;
    MmTierIO *io;

    while ((io = QSIMPLEQ_FIRST(&q->completed))) {
        QSIMPLEQ_REMOVE_HEAD(&q->completed, next);
        done(io);
        nr++;
    }
    return nr;
}

static const MmQueueOps queue_ops = {
    .alloc = compressed_alloc,
    .submit = compressed_submit,
    .reap = compressed_reap,
};

static MmTierQueue *compressed_queue_new(MmTier *tier, void *arena,
                                         size_t arena_size, unsigned depth,
                                         int wake_fd, Error **errp)
{
    QueueCompressed *q = g_new0(QueueCompressed, 1);

    q->base.ops = &queue_ops;
    q->base.tier = tier;
    q->codec = mm_codec_new(to_compressed(tier)->algorithm);
    QSIMPLEQ_INIT(&q->completed);
    return &q->base;
}

static bool compressed_reserve(MmTier *tier, uint64_t bytes, Error **errp)
{
    if (!to_compressed(tier)->overcommit) {
        error_setg(errp, "tier '%s' cannot promise room for what does not "
                   "compress; put a file tier behind it, or let the manager "
                   "overcommit it (overcommit=on)", tier->name);
        return false;
    }
    return true;
}

static void compressed_set_vm_size(MmTier *tier, uint64_t bytes)
{
    MmTierCompressed *c = to_compressed(tier);

    if (c->share) {
        g_mutex_lock(&c->lock);
        c->most = MIN(bytes * c->share / 100 / SEGMENT_SIZE,
                      c->nr_segments);
        g_mutex_unlock(&c->lock);
    }
}

/* All memory of the former pager's transfers ended with its system calls. */
static bool compressed_settled(MmTier *tier)
{
    return true;
}

static void compressed_usage(MmTier *tier, MmTierUsage *usage)
{
    MmTierCompressed *c = to_compressed(tier);

    g_mutex_lock(&c->lock);
    usage->pages = c->pages;
    usage->used = c->units * UNIT;
    usage->size = (uint64_t)c->in_use * SEGMENT_SIZE;
    g_mutex_unlock(&c->lock);
}

static const MmTierOps compressed_ops = {
    .type = "compressed",
    .max_pages = 1,
    .spills = true,
    .immediate = true,
    .hold = MM_HOLD_TIER_POOL,
    .reserve = compressed_reserve,
    .set_vm_size = compressed_set_vm_size,
    .free = compressed_free,
    .claim = compressed_claim,
    .settled = compressed_settled,
    .usage = compressed_usage,
    .queue_new = compressed_queue_new,
};

uint64_t mm_tier_compressed_fd_size(const MmMsgStartTier *start)
{
    uint64_t size = start->share || !start->size ? POOL_MAX
                                                 : MIN(start->size, POOL_MAX);

    return MM_PAGE_SIZE + MAX(size / SEGMENT_SIZE, 1) * SEGMENT_SIZE;
}

static bool identity_right(int fd, const MmIdentity *id, bool is_new)
{
    MmIdentity found = *id;

    found.magic = MM_TIER_MAGIC;
    if (is_new) {
        return pwrite(fd, &found, sizeof(found), 0) == sizeof(found);
    }
    return pread(fd, &found, sizeof(found), 0) == sizeof(found) &&
           found.magic == MM_TIER_MAGIC && found.version == id->version &&
           !memcmp(found.uuid, id->uuid, sizeof(id->uuid)) &&
           !memcmp(found.cookie, id->cookie, sizeof(id->cookie));
}

MmTier *mm_tier_compressed_open(int fd, unsigned number,
                                const MmMsgStartTier *start,
                                const MmIdentity *id, bool is_new,
                                Error **errp)
{
    MmTierCompressed *c;

    if (!identity_right(fd, id, is_new)) {
        error_setg(errp, "the pool of tier '%s' is not this VM's",
                   start->name);
        return NULL;
    }
    c = g_new0(MmTierCompressed, 1);
    c->base.ops = &compressed_ops;
    c->base.proven = true;
    c->base.number = number;
    pstrcpy(c->base.name, sizeof(c->base.name), start->name);
    c->base.fd = fd;
    c->algorithm = start->algorithm;
    c->share = start->share;
    c->overcommit = start->overcommit;
    c->nr_segments = (mm_tier_compressed_fd_size(start) - MM_PAGE_SIZE) /
                     SEGMENT_SIZE;
    c->most = start->share ? 0 : c->nr_segments;
    c->segments = g_new0(Segment, c->nr_segments);
    c->empty = g_array_new(false, false, sizeof(uint32_t));
    c->holes = g_array_new(false, false, sizeof(uint32_t));
    c->head = NO_SEGMENT;
    c->swept = is_new;
    g_mutex_init(&c->lock);
    return &c->base;
}
