/*
 * Managed memory pager: looking again before going to sleep
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "spin.h"

/* The shortest and the longest window. */
#define WINDOW_MIN_NS 20000ULL
#define WINDOW_MAX_NS 160000ULL
/* A look takes some microseconds; this is somebody else's time. */
#define PREEMPTED_NS 200000ULL
/* For how long spinning is put off then, at first and at most. */
#define PUT_OFF_MIN_NS 10000000ULL
#define PUT_OFF_MAX_NS 1000000000ULL

static void put_off(MmSpin *s, uint64_t now_ns)
{
    bool again = now_ns - s->not_before_ns < s->put_off_ns;

    s->put_off_ns = again ? MIN(2 * s->put_off_ns, PUT_OFF_MAX_NS)
                          : PUT_OFF_MIN_NS;
    s->not_before_ns = now_ns + s->put_off_ns;
}

static void look_for_others(MmSpin *s, uint64_t now_ns)
{
    if (s->looked_ns && now_ns - s->looked_ns > PREEMPTED_NS) {
        put_off(s, now_ns);
    }
}

static void adapt(MmSpin *s, uint64_t gap)
{
    if (gap > WINDOW_MAX_NS) {
        s->window_ns /= 2;
        if (s->window_ns < WINDOW_MIN_NS) {
            s->window_ns = 0;
        }
    } else if (gap > s->window_ns) {
        s->window_ns = MIN(MAX(2 * s->window_ns, WINDOW_MIN_NS),
                           WINDOW_MAX_NS);
    }
}

void mm_spin_event(MmSpin *s, uint64_t now_ns)
{
    look_for_others(s, now_ns);
    if (s->waiting) {
        adapt(s, now_ns - s->since_ns);
    }
    mm_spin_busy(s);
}

void mm_spin_busy(MmSpin *s)
{
    s->waiting = false;
    s->looked_ns = 0;
}

bool mm_spin_again(MmSpin *s, uint64_t now_ns)
{
    if (!s->waiting) {
        s->waiting = true;
        s->since_ns = now_ns;
    }
    look_for_others(s, now_ns);
    if (now_ns < s->not_before_ns || now_ns - s->since_ns >= s->window_ns) {
        s->looked_ns = 0;
        return false;
    }
    s->looked_ns = now_ns;
    return true;
}
