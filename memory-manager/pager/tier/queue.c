/*
 * Managed memory pager: what all queues of tiers have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Transfers that the tier's I/O limits do not let begin are put off, in the
 * order in which they were submitted, until reap() finds that they may.
 *
 * Content is encrypted where it lies, for as long as the transfer takes: those
 * who store it still need it, and memory for copies would be memory that the
 * host does not have.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "../page-map.h"
#include "tier.h"

#define NS_PER_MS 1000000

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

void mm_queue_init(MmTierQueue *queue, const MmQueueOps *ops, MmTier *tier)
{
    queue->ops = ops;
    queue->tier = tier;
    QSIMPLEQ_INIT(&queue->put_off);
}

static void encrypt(MmTierQueue *queue, MmTierIO *io)
{
    const MmTier *tier = queue->tier;
    const uint8_t *key = qatomic_load_acquire(&tier->key);

    /* what is lent is as the other host has written it, without a key */
    io->encrypted = key && tier->ops->outside && !tier->lent &&
                    io->place != MM_PLACE_IDENTITY;
    if (io->encrypted && !queue->cipher) {
        /* mm_vm_set_key() has seen that it can be made */
        queue->cipher = mm_cipher_new(key, tier->number, &error_abort);
    }
    if (io->encrypted && io->store) {
        mm_cipher_encrypt(queue->cipher, io->place, io->buf, io->nr_pages);
    }
}

static void transfer_done(MmTierIO *io)
{
    MmTierQueue *queue = io->queue;

    if (io->encrypted) {
        mm_cipher_decrypt(queue->cipher, io->place, io->buf, io->nr_pages);
    }
    queue->done(io);
}

static bool try_begin(MmTierQueue *queue, MmTierIO *io, uint64_t now_ns)
{
    if (mm_throttle_take(&queue->tier->throttle, io->nr_pages * MM_PAGE_SIZE,
                         now_ns)) {
        return false;
    }
    io->began_ns = now_ns;
    encrypt(queue, io);
    queue->ops->submit(queue, io);
    return true;
}

bool mm_queue_submit(MmTierQueue *queue, MmTierIO *io)
{
    io->queue = queue;
    io->began_ns = 0;
    if (QSIMPLEQ_EMPTY(&queue->put_off) && try_begin(queue, io, clock_ns())) {
        return true;
    }
    QSIMPLEQ_INSERT_TAIL(&queue->put_off, io, next);
    return false;
}

static void begin_put_off(MmTierQueue *queue)
{
    uint64_t now_ns = clock_ns();
    MmTierIO *io, *next;

    QSIMPLEQ_FOREACH_SAFE(io, &queue->put_off, next, next) {
        /* the list is not its place any more when it has begun */
        QSIMPLEQ_REMOVE_HEAD(&queue->put_off, next);
        if (!try_begin(queue, io, now_ns)) {
            QSIMPLEQ_INSERT_HEAD(&queue->put_off, io, next);
            return;
        }
    }
}

unsigned mm_queue_reap(MmTierQueue *queue, MmTierDone *done)
{
    if (!QSIMPLEQ_EMPTY(&queue->put_off)) {
        begin_put_off(queue);
    }
    queue->done = done;
    return queue->ops->reap(queue, transfer_done);
}

void mm_queue_flush(MmTierQueue *queue)
{
    if (queue->ops->flush) {
        queue->ops->flush(queue);
    }
}

uint64_t mm_queue_wait_ns(MmTierQueue *queue)
{
    return QSIMPLEQ_EMPTY(&queue->put_off) ? 0
           : MAX(mm_throttle_wait(&queue->tier->throttle, clock_ns()), 1);
}

int mm_queues_wait_ms(MmTierQueue *const *queues, unsigned nr, int most)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        uint64_t ns = mm_queue_wait_ns(queues[i]);
        uint64_t ms = MIN(ns / NS_PER_MS + 1, INT_MAX);

        if (ns && (most < 0 || ms < most)) {
            most = ms;
        }
    }
    return most;
}
