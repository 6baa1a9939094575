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
 * Layout: a page with the VM's identity, then the pool (pool.c), in which each
 * page's length lies in front of it.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../page-map.h"
#include "../test-hooks.h"
#include "codec.h"
#include "pool.h"
#include "tier.h"

/* What takes more than this is not worth the work. */
#define PACKED_MAX (MM_PAGE_SIZE * 3 / 4)
/* Most that one VM can have. */
#define POOL_MAX (256 * GiB)

/* In front of a compressed page. */
typedef uint16_t PackedLen;

typedef struct MmTierCompressed {
    MmTier base;

    /* fixed after open */
    unsigned algorithm;
    bool overcommit;
    MmPool *pool;               /* has its own lock */

    /* atomic */
    unsigned share;             /* percent of the VM's memory, 0: size counts */
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

static int compressed_alloc(MmTierQueue *queue, MmTierIO *io)
{
    QueueCompressed *q = container_of(queue, QueueCompressed, base);
    PackedLen len = mm_codec_pack(q->codec, io->buf, q->packed + sizeof(len),
                                  sizeof(q->packed) - sizeof(len));

    if (!len) {
        return -E2BIG;
    }
    memcpy(q->packed, &len, sizeof(len));
    if (!mm_pool_alloc(to_compressed(queue->tier)->pool, len + sizeof(len),
                       io->moving, &q->place)) {
        return -ENOSPC;
    }
    io->place = q->place;
    io->nr_pages = 1;
    return 0;
}

static void compressed_free(MmTier *tier, uint64_t place, unsigned nr)
{
    assert(nr == 1);
    mm_pool_free(to_compressed(tier)->pool, place);
}

static bool compressed_claim(MmTier *tier, uint64_t place)
{
    return mm_pool_claim(to_compressed(tier)->pool, place, PACKED_MAX);
}

static MmAgeing compressed_age(MmTier *tier, bool is_last)
{
    return mm_pool_age(to_compressed(tier)->pool, is_last);
}

static bool compressed_leaving(MmTier *tier, uint64_t place)
{
    return mm_pool_leaving(to_compressed(tier)->pool, place);
}

static int load(QueueCompressed *q, MmTierIO *io)
{
    MmTierCompressed *c = to_compressed(q->base.tier);
    size_t size = mm_pool_size(io->place);
    ssize_t ret;
    PackedLen len;

    if (size > sizeof(q->packed)) {
        return -EBADMSG;
    }
    ret = TEMP_FAILURE_RETRY(pread(c->base.fd, q->packed, size,
                                   mm_pool_offset(c->pool, io->place)));
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
    size_t size = mm_pool_size(io->place);
    ssize_t ret;

    assert(io->place == q->place);
    ret = TEMP_FAILURE_RETRY(pwrite(c->base.fd, q->packed, size,
                                    mm_pool_offset(c->pool, io->place)));
    return ret == size ? 0 : ret < 0 ? -errno : -ENOMEM;
}

static void compressed_submit(MmTierQueue *queue, MmTierIO *io)
{
    QueueCompressed *q = container_of(queue, QueueCompressed, base);

    assert(io->nr_pages == 1);
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

    mm_queue_init(&q->base, &queue_ops, tier);
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
    unsigned share = qatomic_read(&c->share);

    if (share) {
        mm_pool_set_most(c->pool, bytes * share / 100 / MM_POOL_SEGMENT_SIZE);
    }
}

/* What is in it beyond that ages, and leaves. */
static bool compressed_resize(MmTier *tier, uint64_t size, unsigned share,
                              uint64_t vm_size, Error **errp)
{
    MmTierCompressed *c = to_compressed(tier);

    qatomic_set(&c->share, share);
    if (share) {
        compressed_set_vm_size(tier, vm_size);
    } else {
        mm_pool_set_most(c->pool, size ? MAX(size / MM_POOL_SEGMENT_SIZE, 1)
                                       : UINT64_MAX);
    }
    return true;
}

/* All memory of the former pager's transfers ended with its system calls. */
static bool compressed_settled(MmTier *tier)
{
    return true;
}

static void compressed_usage(MmTier *tier, MmTierUsage *usage)
{
    mm_pool_usage(to_compressed(tier)->pool, usage);
}

static const MmTierOps compressed_ops = {
    .type = "compressed",
    .max_pages = 1,
    .spills = true,
    .immediate = true,
    .hold = MM_HOLD_TIER_POOL,
    .reserve = compressed_reserve,
    .set_vm_size = compressed_set_vm_size,
    .resize = compressed_resize,
    .free = compressed_free,
    .claim = compressed_claim,
    .settled = compressed_settled,
    .age = compressed_age,
    .leaving = compressed_leaving,
    .usage = compressed_usage,
    .queue_new = compressed_queue_new,
};

uint64_t mm_tier_compressed_fd_size(void)
{
    return MM_PAGE_SIZE + POOL_MAX;
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

MmTier *mm_tier_compressed_open(int fd,
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
    c->base.number = start->number;
    pstrcpy(c->base.name, sizeof(c->base.name), start->name);
    mm_throttle_init(&c->base.throttle);
    c->base.fd = fd;
    c->base.hold_fd = -1;
    c->algorithm = start->algorithm;
    c->overcommit = start->overcommit;
    c->pool = mm_pool_new(fd, MM_PAGE_SIZE, POOL_MAX / MM_POOL_SEGMENT_SIZE,
                          0, is_new);
    compressed_resize(&c->base, start->size, start->share, 0, NULL);
    return &c->base;
}
