/*
 * Managed memory pager: tiers of a former pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * After a takeover a tier may be used as soon as it is
 *
 *   proven    the identity in it is this VM's: a hostile QEMU may have handed
 *             back another's file.  The read goes through the tier's queue: a
 *             system call that waits for a disk would keep the process, if it
 *             is killed, and with it all that its successor needs.
 *   settled   no write of the former pager is under way any more.
 *
 * That takes as long as the medium does.  Until then the tier is left out, and
 * vCPUs wait only for what is in it.  (Without io_uring a thread of the queue
 * waits for the medium, and the next takeover for that.)
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "../fault/fault.h"
#include "../vm.h"
#include "reclaim-internal.h"

/* Between two looks; for how long those that are ready wait for the others. */
#define LOOK_MS 2
#define BRIEFLY_MS 50
/* When those that are not are late. */
#define LATE_MS 1000
/* Between two tries to read an identity; if it was another's. */
#define RETRY_NS 100000000ULL
#define RETRY_OTHERS_NS 10000000000ULL

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

static void identity_read(MmReclaim *r, MmTransfer *t)
{
    container_of(t, MmTierHealth, proof)->answered = true;
}

static void read_identity(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];

    health->proof.io = (MmTierIO) {
        .nr_pages = 1,
        .place = MM_PLACE_IDENTITY,
        .buf = r->identities + t * MM_PAGE_SIZE,
    };
    health->asked = true;
    health->answered = false;
    mm_reclaim_transfer(r, r->queues[t], &health->proof, identity_read);
    mm_queue_flush(r->queues[t]);
}

static void look_at_identity(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];
    MmTier *tier = r->vm->tiers[t];

    health->asked = false;
    health->error = -health->proof.io.ret;
    if (!health->error &&
        !tier->ops->is_own(tier, health->proof.io.buf)) {
        health->error = EBADMSG;
    }
    if (!health->error) {
        qatomic_store_release(&tier->proven, true);
        mm_fault_retry(r->vm);
        return;
    }
    health->retry_at_ns = clock_ns() + (health->error == EBADMSG
                                        ? RETRY_OTHERS_NS : RETRY_NS);
}

static void prove(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];

    if (!health->asked && clock_ns() >= health->retry_at_ns) {
        read_identity(r, t);
    }
    if (health->asked) {
        mm_reclaim_reap_tier(r, t);
        if (health->answered) {
            look_at_identity(r, t);
        }
    }
}

bool mm_tier_ready(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];
    MmTier *tier = r->vm->tiers[t];

    if (health->ready) {
        return true;
    }
    if (!tier->proven) {
        prove(r, t);
    }
    if (!tier->proven || !tier->ops->settled(tier)) {
        return false;
    }
    health->ready = true;
    if (health->late && mm_vm_io_failing(r->vm, MM_IO_START(t), false)) {
        mm_vm_event(r->vm, MM_EVENT_IO_RECOVERED, UINT32_MAX, 0,
                    "tier '%s' can be used again", tier->name);
    }
    return true;
}

static void say_late(MmReclaim *r, unsigned t)
{
    MmTierHealth *health = &r->health[t];
    MmTier *tier = r->vm->tiers[t];
    int why = tier->proven ? EINPROGRESS : health->error ?: ETIMEDOUT;

    if (health->late == why) {
        return;
    }
    health->late = why;
    mm_vm_io_failing(r->vm, MM_IO_START(t), true);
    if (why == EINPROGRESS) {
        mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, why,
                    "tier '%s' has not ended the writes of the former pager; "
                    "it is not written to", tier->name);
    } else {
        mm_vm_event(r->vm, MM_EVENT_IO_ERROR, UINT32_MAX, why,
                    "tier '%s' cannot be taken over: %s; vCPUs wait for what "
                    "is in it", tier->name,
                    why == EBADMSG ? "its file is not this VM's"
                    : why == ETIMEDOUT ? "it does not answer"
                    : strerror(why));
    }
}

bool mm_tiers_ready(MmReclaim *r)
{
    bool late = clock_ns() - r->began_ns > LATE_MS * 1000000ULL;
    bool all = true;
    unsigned t;

    for (t = 0; t < r->vm->nr_tiers; t++) {
        if (!mm_tier_ready(r, t)) {
            all = false;
            if (late) {
                say_late(r, t);
            }
        }
    }
    return all;
}

/* One that takes content. */
static bool any_ready(const MmReclaim *r)
{
    unsigned t;

    for (t = 0; t < r->vm->nr_tiers; t++) {
        if (r->health[t].ready && !mm_tier_closed(r->vm->tiers[t]) &&
            !qatomic_read(&r->vm->tiers[t]->spared)) {
            return true;
        }
    }
    return false;
}

void mm_tiers_wait(MmReclaim *r)
{
    struct pollfd pfd = { .fd = r->io_fd, .events = POLLIN };

    r->began_ns = clock_ns();
    while (!mm_tiers_ready(r) &&
           clock_ns() - r->began_ns <=
           (any_ready(r) ? BRIEFLY_MS : LATE_MS) * 1000000ULL) {
        /* a lock cannot be waited for with a time limit */
        poll(&pfd, 1, mm_reclaim_wait_ms(r, LOOK_MS));
        mm_unwake(r->io_fd);
    }
}
