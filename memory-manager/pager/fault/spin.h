/*
 * Managed memory pager: looking again before going to sleep
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * To be woken on another CPU costs a thread more than a fast disk takes to
 * read a page.  So whoever expects something soon does not sleep, but looks
 * again, for a time that follows what it sees, as the kernel's halt polling
 * does: longer while things come soon, not at all while they do not.
 *
 * Whoever spins takes a CPU from others, if there is none to spare.  That
 * shows as a gap between two looks: somebody else had the CPU.  Spinning is
 * then put off, for longer each time.
 *
 * No state is shared: each thread that spins has its own.
 */
#ifndef MANAGED_MEMORY_SPIN_H
#define MANAGED_MEMORY_SPIN_H

typedef struct MmSpin {
    uint64_t window_ns;         /* how long to look; 0: not at all */
    bool waiting;               /* nothing to do since then: */
    uint64_t since_ns;
    uint64_t looked_ns;         /* last look in vain, 0: none, or it sleeps */
    uint64_t not_before_ns;     /* put off until then */
    uint64_t put_off_ns;        /* for so long the last time */
} MmSpin;

/** mm_spin_event: something came; @now_ns: monotonic time, just after. */
void mm_spin_event(MmSpin *s, uint64_t now_ns);

/** mm_spin_busy: there is more to do; what that takes is no wait. */
void mm_spin_busy(MmSpin *s);

/** mm_spin_waits: has nothing come since the last look in vain? */
static inline bool mm_spin_waits(const MmSpin *s)
{
    return s->waiting;
}

/**
 * mm_spin_again: look again rather than sleep?
 *
 * @now_ns: just before the look
 */
bool mm_spin_again(MmSpin *s, uint64_t now_ns);

#endif
