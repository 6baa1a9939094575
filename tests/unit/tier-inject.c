/*
 * Unit tests: a tier that misbehaves on demand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A transfer is passed on as one of our own, so that what comes back from the
 * tier below can be changed, or held back, before the caller sees it.
 */
#include "qemu/osdep.h"
#include "tier-inject.h"
#include "memory-manager/pager/page-map.h"
#include "memory-manager/pager/vm.h"

typedef struct TierInject {
    MmTier base;
    MmTier *inner;
    InjectKind kind;
    unsigned nth;               /* operations left until the spoilt one */
    int err;
    bool hit;
} TierInject;

typedef struct InjectQueue InjectQueue;

/* What is passed on for a transfer of the caller's. */
typedef struct InjectIO {
    MmTierIO io;
    MmTierIO *orig;
    InjectQueue *queue;
    InjectKind kind;
    QSIMPLEQ_ENTRY(InjectIO) next;
} InjectIO;

struct InjectQueue {
    MmTierQueue base;
    MmTierQueue *inner;
    TierInject *inject;
    int wake_fd;
    unsigned in_flight;         /* in the tier below */
    MmTierDone *done;           /* while reaping */
    unsigned reaped;
    QSIMPLEQ_HEAD(, InjectIO) held; /* complete, but not told yet */
};

const char *inject_name(InjectKind kind)
{
    static const char *const names[INJECT__MAX] = {
        "nothing", "fail", "short", "full", "delay", "flip", "lose",
    };

    return names[kind];
}

static TierInject *to_inject(const MmTier *tier)
{
    return container_of(tier, TierInject, base);
}

void tier_inject_arm(MmTier *tier, InjectKind kind, unsigned nth, int err)
{
    TierInject *inject = to_inject(tier);

    inject->kind = kind;
    inject->nth = nth;
    inject->err = err;
    inject->hit = false;
}

bool tier_inject_hit(const MmTier *tier)
{
    return to_inject(tier)->hit;
}

/* Is this operation the one?  @alloc: what kind of operation it is. */
static InjectKind take_turn(TierInject *inject, bool alloc)
{
    if (alloc != (inject->kind == INJECT_FULL) || !inject->nth ||
        --inject->nth) {
        return INJECT_NOTHING;
    }
    inject->hit = inject->kind != INJECT_NOTHING;
    return inject->kind;
}

static void finish(InjectIO *i, int ret)
{
    i->orig->ret = ret;
    i->orig->queue = &i->queue->base;
    i->queue->reaped++;
    i->queue->done(i->orig);
    g_free(i);
}

static void hold(InjectIO *i, int ret)
{
    i->io.ret = ret;
    QSIMPLEQ_INSERT_TAIL(&i->queue->held, i, next);
    mm_wake(i->queue->wake_fd);
}

static void flip(InjectIO *i)
{
    i->orig->buf[i->orig->nr_pages * MM_PAGE_SIZE / 2 + 5] ^= 0x10;
}

static void inner_done(MmTierIO *io)
{
    InjectIO *i = io->opaque;

    i->queue->in_flight--;
    switch (i->kind) {
    case INJECT_SHORT:
        finish(i, io->ret ?: -i->queue->inject->err);
        break;
    case INJECT_FLIP:
        /* of a store, undo what we did to the caller's buffer */
        flip(i);
        finish(i, io->ret);
        break;
    case INJECT_DELAY:
        hold(i, io->ret);
        break;
    default:
        finish(i, io->ret);
        break;
    }
}

static void pass_on(InjectIO *i, unsigned nr_pages)
{
    i->io = (MmTierIO) {
        .store = i->orig->store, .nr_pages = nr_pages,
        .place = i->orig->place, .buf = i->orig->buf, .opaque = i,
    };
    i->queue->in_flight++;
    mm_queue_submit(i->queue->inner, &i->io);
}

static void inject_submit(MmTierQueue *queue, MmTierIO *io)
{
    InjectQueue *q = container_of(queue, InjectQueue, base);
    InjectIO *i = g_new0(InjectIO, 1);

    i->orig = io;
    i->queue = q;
    i->kind = take_turn(q->inject, false);
    switch (i->kind) {
    case INJECT_FAIL:
        hold(i, -q->inject->err);
        break;
    case INJECT_LOSE:
        hold(i, 0);
        break;
    case INJECT_SHORT:
        if (io->nr_pages < 2) {
            hold(i, -q->inject->err);
        } else {
            pass_on(i, io->nr_pages / 2);
        }
        break;
    case INJECT_FLIP:
        if (io->store) {
            flip(i);
        }
        pass_on(i, io->nr_pages);
        break;
    default:
        pass_on(i, io->nr_pages);
        break;
    }
}

static void inject_flush(MmTierQueue *queue)
{
    mm_queue_flush(container_of(queue, InjectQueue, base)->inner);
}

static unsigned inject_reap(MmTierQueue *queue, MmTierDone *done)
{
    InjectQueue *q = container_of(queue, InjectQueue, base);
    InjectIO *i;

    q->done = done;
    q->reaped = 0;
    mm_queue_reap(q->inner, inner_done);
    while (!q->in_flight && (i = QSIMPLEQ_FIRST(&q->held))) {
        QSIMPLEQ_REMOVE_HEAD(&q->held, next);
        finish(i, i->io.ret);
    }
    return q->reaped;
}

static int inject_alloc(MmTierQueue *queue, MmTierIO *io)
{
    InjectQueue *q = container_of(queue, InjectQueue, base);

    if (take_turn(q->inject, true) == INJECT_FULL) {
        return -ENOSPC;
    }
    return q->inner->ops->alloc(q->inner, io);
}

static void inject_start(MmTierQueue *queue)
{
    InjectQueue *q = container_of(queue, InjectQueue, base);

    if (q->inner->ops->start) {
        q->inner->ops->start(q->inner);
    }
}

static const MmQueueOps queue_ops = {
    .start = inject_start,
    .alloc = inject_alloc,
    .submit = inject_submit,
    .flush = inject_flush,
    .reap = inject_reap,
};

static MmTierQueue *inject_queue_new(MmTier *tier, void *arena,
                                     size_t arena_size, unsigned depth,
                                     int wake_fd, Error **errp)
{
    TierInject *inject = to_inject(tier);
    InjectQueue *q = g_new0(InjectQueue, 1);

    mm_queue_init(&q->base, &queue_ops, tier);
    q->inject = inject;
    q->wake_fd = wake_fd;
    QSIMPLEQ_INIT(&q->held);
    q->inner = inject->inner->ops->queue_new(inject->inner, arena, arena_size,
                                             depth, wake_fd, errp);
    if (!q->inner) {
        g_free(q);
        return NULL;
    }
    return &q->base;
}

static bool inject_reserve(MmTier *tier, uint64_t bytes, Error **errp)
{
    MmTier *inner = to_inject(tier)->inner;

    return inner->ops->reserve(inner, bytes, errp);
}

static void inject_free(MmTier *tier, uint64_t place, unsigned nr)
{
    MmTier *inner = to_inject(tier)->inner;

    inner->ops->free(inner, place, nr);
}

static bool inject_claim(MmTier *tier, uint64_t place)
{
    MmTier *inner = to_inject(tier)->inner;

    return inner->ops->claim(inner, place);
}

static bool inject_settled(MmTier *tier)
{
    MmTier *inner = to_inject(tier)->inner;

    return inner->ops->settled(inner);
}

static void inject_usage(MmTier *tier, MmTierUsage *usage)
{
    MmTier *inner = to_inject(tier)->inner;

    inner->ops->usage(inner, usage);
}

static const MmTierOps inject_ops = {
    .type = "inject",
    .max_pages = MM_TIER_IO_PAGES,
    .outside = true,
    .reserve = inject_reserve,
    .free = inject_free,
    .claim = inject_claim,
    .settled = inject_settled,
    .usage = inject_usage,
    .queue_new = inject_queue_new,
};

MmTier *tier_inject_new(MmTier *inner)
{
    TierInject *inject = g_new0(TierInject, 1);

    inject->base.ops = &inject_ops;
    inject->base.number = inner->number;
    inject->base.proven = true;
    mm_throttle_init(&inject->base.throttle);
    memcpy(inject->base.name, inner->name, sizeof(inject->base.name));
    inject->inner = inner;
    return &inject->base;
}
