/*
 * Torture tests: QEMU's side of the ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Waiters sleep without a time limit, unless they mean to give up: a wake-up
 * that a pager forgets is a bug to be found.  When a pager dies all of them
 * are woken here, since it may have died between DONE and the wake-up.
 */
#include "qemu/osdep.h"
#include <linux/futex.h>
#include <sys/syscall.h>
#include "qemu/lockable.h"
#include "ring.h"
#include "torture.h"

static void futex_wait(uint32_t *word, uint32_t seen, int64_t timeout_us)
{
    struct timespec ts = {
        .tv_sec = timeout_us / 1000000,
        .tv_nsec = timeout_us % 1000000 * 1000,
    };

    syscall(SYS_futex, word, FUTEX_WAIT, seen, timeout_us < 0 ? NULL : &ts,
            NULL, 0);
}

static void futex_wake_all(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void kick(FakeQemu *fq)
{
    uint64_t one = 1;

    g_assert(write(fq->fds[MM_HELLO_FD_KICK], &one, sizeof(one)) ==
             sizeof(one));
}

int ring_post(FakeQemu *fq, const MmRingSlot *request)
{
    MmRingSlot *slot;
    int i = 0;

    QEMU_LOCK_GUARD(&fq->ring_lock);
    if (fq->ring_ended) {
        return -EBUSY;
    }
    while (fq->slot_used[i]) {
        if (++i == MM_RING_SLOTS) {
            return -EBUSY;
        }
    }
    fq->slot_used[i] = 1;
    fq->slot_give_up[i] = false;
    slot = &fq->ring->slots[i];
    slot->range = request->range;
    slot->kind = request->kind;
    slot->buffer = request->buffer;
    slot->pages = request->pages;
    g_assert(qatomic_cmpxchg(&slot->state, MM_RING_FREE, MM_RING_POSTED) ==
             MM_RING_FREE);
    kick(fq);
    return i;
}

static void release_slot(FakeQemu *fq, int i)
{
    QEMU_LOCK_GUARD(&fq->ring_lock);
    fq->slot_used[i] = 0;
}

/* True if the request is over, one way or the other. */
static bool look(FakeQemu *fq, int i, bool impatient, RingEnd *how)
{
    MmRingSlot *slot = &fq->ring->slots[i];
    uint32_t *state = &slot->state;

    if (impatient &&
        qatomic_cmpxchg(state, MM_RING_POSTED, MM_RING_FREE) ==
        MM_RING_POSTED) {
        how->discard = SHADOW_NOT_DISCARDED;
        return true;
    }
    if (qatomic_load_acquire(state) == MM_RING_DONE) {
        how->discard = SHADOW_DISCARDED;
        how->done = slot->pages;
        qatomic_set(state, MM_RING_FREE);
        return true;
    }
    /* settled, or this run is being taken down */
    how->discard = SHADOW_MAYBE_DISCARDED;
    return qatomic_read(state) == MM_RING_FREE || verdict_failed(fq->verdict);
}

RingEnd ring_wait(FakeQemu *fq, int i, int patience_ms)
{
    int64_t end = torture_now_us() + patience_ms * 1000LL;
    uint32_t *state = &fq->ring->slots[i].state;
    bool impatient = false;
    RingEnd how = {};

    while (!look(fq, i, impatient, &how)) {
        uint32_t seen = qatomic_read(state);
        int64_t left = -1;

        if (patience_ms >= 0 && !impatient) {
            left = MAX(end - torture_now_us(), 0);
            impatient = left == 0;
        }
        if (impatient) {
            qatomic_set(&fq->slot_give_up[i], true);
            left = -1;
        }
        if (seen == MM_RING_TAKEN || (seen == MM_RING_POSTED && !impatient)) {
            futex_wait(state, seen, left);
        }
    }
    release_slot(fq, i);
    return how;
}

void ring_wake_all(FakeQemu *fq)
{
    int i;

    if (!fq->ring) {
        return;
    }
    for (i = 0; i < MM_RING_SLOTS; i++) {
        futex_wake_all(&fq->ring->slots[i].state);
    }
}

void ring_settle(FakeQemu *fq)
{
    int i;

    for (i = 0; i < MM_RING_SLOTS && fq->ring; i++) {
        if (qatomic_read(&fq->slot_give_up[i])) {
            qatomic_cmpxchg(&fq->ring->slots[i].state, MM_RING_TAKEN,
                            MM_RING_FREE);
        }
    }
    ring_wake_all(fq);
}

void ring_end(FakeQemu *fq)
{
    int i;

    WITH_QEMU_LOCK_GUARD(&fq->ring_lock) {
        fq->ring_ended = true;
        for (i = 0; i < MM_RING_SLOTS; i++) {
            uint32_t *state = &fq->ring->slots[i].state;

            qatomic_cmpxchg(state, MM_RING_POSTED, MM_RING_FREE);
            qatomic_cmpxchg(state, MM_RING_TAKEN, MM_RING_FREE);
        }
    }
    ring_wake_all(fq);
}

bool ring_discard(FakeQemu *fq, uint32_t region, uint64_t first_page,
                  uint32_t nr_pages)
{
    const MmRingSlot request = {
        .kind = MM_RING_DISCARD,
        .range = {
            .region = region, .first_page = first_page, .nr_pages = nr_pages,
        },
    };
    int slot = ring_post(fq, &request);

    return slot >= 0 && ring_wait(fq, slot, -1).discard == SHADOW_DISCARDED;
}
