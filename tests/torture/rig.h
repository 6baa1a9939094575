/*
 * Torture tests: a VM ready to be tortured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Manager, QEMU, pager, regions and load in one, since most tests want all of
 * them.  Main thread only.
 */
#ifndef TORTURE_RIG_H
#define TORTURE_RIG_H

#include "load.h"

typedef struct RigConfig {
    PagerConfig pager;
    unsigned stamped_mib[2];    /* two regions of stamped pages; 0: none */
    unsigned words_mib;         /* a region of counting words; 0: none */
    unsigned limit_percent;     /* of each region's size; 0: no limit */
    unsigned stuck_ms;          /* 0: the default */
    bool may_die;               /* the pager may kill itself */
    bool no_resume;             /* nor is there a next pager */
    bool hostile;               /* see FakeQemu */
    bool encrypted;             /* see FakeQemu */
    bool huge;                  /* pages of 2 MiB; limits of 16 MiB at least */
} RigConfig;

typedef struct Rig {
    uint64_t seed;
    uint64_t rng;
    uint64_t size;              /* bytes of all regions */
    Verdict *verdict;
    FakeManager *fm;
    FakeQemu *fq;
    Load *load;
} Rig;

/** rig_new: attach and add regions; failures are in the verdict. */
Rig *rig_new(const RigConfig *config, uint64_t seed);

/** rig_free: stop all; returns what has failed, or NULL; g_free() it. */
char *rig_free(Rig *rig);

/** rig_finish: rig_free(), and the test fails if anything has. */
void rig_finish(Rig *rig);

/** rig_ok: has nothing failed so far? */
bool rig_ok(Rig *rig);

/**
 * rig_check_numbers: do the pager's numbers add up?
 *
 * Nothing may run that uses memory.  Waits a while for the pager to come to
 * rest, and fails the run if the numbers then contradict each other, the
 * memfds or the limit.
 */
void rig_check_numbers(Rig *rig);

/** rig_discard_all: discard all regions; all must read as zero then. */
void rig_discard_all(Rig *rig);

/** rig_check_all: sweep and rig_check_numbers(). */
void rig_check_all(Rig *rig);

/** rig_populate: write every stamped page once. */
void rig_populate(Rig *rig);

/** rig_kill_pager: kill, and wait for the next one to serve. */
bool rig_kill_pager(Rig *rig);

/** rig_print_stalls: an information line on how long resumes took. */
void rig_print_stalls(Rig *rig, const char *what);

#endif
