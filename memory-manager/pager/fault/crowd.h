/*
 * Managed memory pager: whether the host's processors are all wanted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whoever spins for the next fault while more threads want to run than there
 * are processors holds up one that has work, often the vCPU that it has just
 * served.  Neither shows in what the spinning thread sees of itself: it is
 * short, so nobody pushes it aside, and who is woken while it spins was not
 * there when it began.  The kernel counts who wants to run, of the whole host;
 * that count, in which the caller is one, is looked at now and then, and how
 * often it is too high kept as a moving average.
 *
 * The count knows nothing of sets of processors that some threads are bound to,
 * and the processors are counted once: where that misleads, a fault that comes
 * soon waits for a wake-up, or spinning takes time from others, until who spins
 * is pushed aside (spin.h).  Where there is no count, the host is not crowded.
 *
 * No lock: one thread.
 */
#ifndef MANAGED_MEMORY_CROWD_H
#define MANAGED_MEMORY_CROWD_H

typedef struct MmCrowd {
    int loadavg_fd;             /* or -1 */
    unsigned nr_cpus;
    uint64_t looked_ns;         /* last look; 0: none */
    uint32_t share;             /* of looks that found too many, in 65536ths */
} MmCrowd;

/**
 * mm_crowd_open_loadavg: the kernel's own file, or -1
 *
 * A container may have another's in its place, that a process of user space
 * answers for; whoever serves faults must not wait for that.
 */
int mm_crowd_open_loadavg(void);

/**
 * mm_crowd_init:
 *
 * @loadavg_fd: /proc/loadavg, or a file like it, which has to stay open, or -1
 * @nr_cpus: processors that are online, at least 1
 */
void mm_crowd_init(MmCrowd *c, int loadavg_fd, unsigned nr_cpus);

/**
 * mm_crowd_sample: the caller begins to wait
 *
 * @now_ns: monotonic time.  At most one look a millisecond.
 */
void mm_crowd_sample(MmCrowd *c, uint64_t now_ns);

/** mm_crowd_is: do more threads want to run than can, much of the time? */
bool mm_crowd_is(const MmCrowd *c);

#endif
