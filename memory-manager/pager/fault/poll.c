/*
 * Managed memory pager: what the fault thread stays awake for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "poll.h"

void mm_poll_init(MmPoll *p, MmCrowd crowd)
{
    *p = (MmPoll) { .now = &p->faults, .crowd = crowd };
}

void mm_poll_event(MmPoll *p, uint64_t now_ns)
{
    mm_spin_event(p->now, now_ns);
}

void mm_poll_busy(MmPoll *p)
{
    mm_spin_busy(p->now);
}

/* The one that ends has seen nothing that it could learn from. */
static void set_now(MmPoll *p, MmSpin *spin)
{
    if (spin != p->now) {
        mm_spin_busy(p->now);
        p->now = spin;
    }
}

bool mm_poll_again(MmPoll *p, bool reads, uint64_t now_ns)
{
    set_now(p, reads ? &p->reads : &p->faults);
    if (!reads) {
        if (!mm_spin_waits(p->now)) {
            mm_crowd_sample(&p->crowd, now_ns);
        }
        if (mm_crowd_is(&p->crowd)) {
            /* nor does a wait that is slept through say how long to look */
            mm_spin_busy(p->now);
            return false;
        }
    }
    return mm_spin_again(p->now, now_ns);
}
