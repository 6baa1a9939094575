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
 * that count is looked at now and then, and how often it is too high kept as
 * a moving average.
 *
 * Where the count cannot be read, the host counts as not crowded.
 *
 * No lock: one thread.
 */
#ifndef MANAGED_MEMORY_CROWD_H
#define MANAGED_MEMORY_CROWD_H

typedef struct MmCrowd {
    int loadavg_fd;             /* owned, or -1 */
    unsigned nr_cpus;
    unsigned calls;             /* until the next look */
    uint32_t share;             /* of looks that found too many, in 65536ths */
} MmCrowd;

/**
 * mm_crowd_init:
 *
 * @loadavg_fd: /proc/loadavg, or a file like it, which is owned from here on,
 *              or -1
 * @nr_cpus: processors that are online, at least 1
 */
void mm_crowd_init(MmCrowd *c, int loadavg_fd, unsigned nr_cpus);

/** mm_crowd_sample: the caller has nothing to do; looks at every 8th call. */
void mm_crowd_sample(MmCrowd *c);

/** mm_crowd_is: do more threads want to run than can, much of the time? */
bool mm_crowd_is(const MmCrowd *c);

#endif
