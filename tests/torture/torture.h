/*
 * Torture tests: what all of them share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The environment tunes a run:
 *
 *  MM_PAGER, MM_TEST_PAGER   the binaries; default: as built
 *  MM_TORTURE_DIR            where run directories and tiers are made, on a
 *                            file system that can do O_DIRECT; default: the
 *                            temporary directory
 *  MM_LONG=1                 run for minutes instead of seconds
 *  MM_TORTURE_SECONDS        length of a run under load
 *  MM_TORTURE_TRIALS         kills per test
 *  MM_TORTURE_STOP=1         stop at the first failure, for a debugger
 */
#ifndef TORTURE_H
#define TORTURE_H

/** torture_now_us: monotonic time in microseconds. */
int64_t torture_now_us(void);

/** torture_dir: absolute path of the directory for all files. */
const char *torture_dir(void);

/** torture_pager: path of the pager that ships. */
const char *torture_pager(void);

/** torture_test_pager: path of the pager with test hooks. */
const char *torture_test_pager(void);

/** torture_is_long: is this a long run? */
bool torture_is_long(void);

/** torture_seconds: how long to run where it should be @normal or @long_run. */
unsigned torture_seconds(unsigned normal, unsigned long_run);

/** torture_trials: how often to kill, likewise. */
unsigned torture_trials(unsigned normal, unsigned long_run);

/** torture_slowness: by what to multiply time limits, for slow pagers. */
unsigned torture_slowness(void);

/** torture_seed: the seed of this test case; repeats with --seed. */
uint64_t torture_seed(void);

/**
 * torture_need_huge_pages: the host has pages of 2 MiB, @mib in all
 *
 * They are given back when the program ends.  A host that has no memory for
 * them cannot run these tests: that is a failure.
 */
void torture_need_huge_pages(unsigned mib);

/* Each file of test cases adds its own. */
void torture_add_steady(void);
void torture_add_kill(void);
void torture_add_failpoints(void);
void torture_add_mutations(void);
void torture_add_tier_errors(void);
void torture_add_pressure(void);
void torture_add_commands(void);
void torture_add_tiers(void);
void torture_add_sample(void);
void torture_add_huge(void);
void torture_add_hostile(void);
void torture_add_hostile_resume(void);
void torture_add_death(void);
void torture_add_jail(void);
void torture_add_scale(void);

#endif
