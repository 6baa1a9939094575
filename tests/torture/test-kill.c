/*
 * Torture tests: the pager is killed, another one goes on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One VM lives through many pagers under full load.  Nothing that is lost
 * comes back by itself, so whatever a kill has done wrong is found by the next
 * access to the page, by one of the sweeps, or by the numbers at rest.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define MIN_KILL_MS 5
#define MAX_KILL_MS 200
#define SWEEP_EVERY 20          /* trials */

/* One kill in five hits the next pager while it attaches. */
static void kill_once_more(Rig *rig)
{
    if (rng_chance(&rig->rng, 20)) {
        g_usleep(rng_below(&rig->rng, 20000));
        fake_manager_kill(rig->fm);
    }
}

static bool run_trial(Rig *rig)
{
    unsigned n = rig->fq->resumes;

    if (!load_watch(rig->load, MIN_KILL_MS +
                    rng_below(&rig->rng, MAX_KILL_MS - MIN_KILL_MS))) {
        return false;
    }
    fake_manager_kill(rig->fm);
    kill_once_more(rig);
    while (!fake_qemu_wait_resumes(rig->fq, n + 1, 10)) {
        if (!load_watch(rig->load, 0)) {
            return false;
        }
    }
    return true;
}

static void run_kills(const RigConfig *config, const LoadConfig *load,
                      unsigned trials)
{
    Rig *rig = rig_new(config, torture_seed());
    unsigned i;

    if (rig_ok(rig)) {
        load_start(rig->load, load);
    }
    for (i = 1; i <= trials && rig_ok(rig) && run_trial(rig); i++) {
        if (i % SWEEP_EVERY == 0) {
            load_stop(rig->load);
            rig_check_all(rig);
            load_start(rig->load, load);
        }
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_print_stalls(rig, "kill");
    rig_discard_all(rig);
    rig_finish(rig);
}

static void test_mixed(void)
{
    const RigConfig config = {
        .stamped_mib = { 24, 5 },
        .words_mib = 2,
        .limit_percent = 25,
    };

    run_kills(&config, &LOAD_MIXED, torture_trials(150, 2250));
}

/* Small and tight: every page is on its way in or out all the time. */
static void test_thrash(void)
{
    const RigConfig config = {
        .stamped_mib = { 4, 1 },
        .limit_percent = 10,
    };
    const LoadConfig load = { .writers = 6, .readers = 3, .discards = 1 };

    run_kills(&config, &load, torture_trials(50, 750));
}

static void test_without_uring(void)
{
    const RigConfig config = {
        .pager = { .no_uring = true },
        .stamped_mib = { 16, 3 },
        .limit_percent = 25,
    };

    run_kills(&config, &LOAD_MIXED, torture_trials(20, 300));
}

static void test_compressed(void)
{
    const RigConfig config = {
        .pager = { .compressed_size = 1 * MiB },
        .stamped_mib = { 16, 3 },
        .limit_percent = 25,
    };

    run_kills(&config, &LOAD_MIXED, torture_trials(40, 600));
}

static void test_encrypted(void)
{
    const RigConfig config = {
        .stamped_mib = { 16, 3 },
        .limit_percent = 25,
        .encrypted = true,
    };

    run_kills(&config, &LOAD_MIXED, torture_trials(40, 600));
}

/* Stopped for a while, and not dead: all wait, nothing else happens. */
static void test_stop(void)
{
    const RigConfig config = {
        .stamped_mib = { 24, 5 },
        .words_mib = 2,
        .limit_percent = 25,
    };
    Rig *rig = rig_new(&config, torture_seed());
    unsigned i, n = torture_is_long() ? 100 : 4;

    load_start(rig->load, &LOAD_MIXED);
    for (i = 0; i < n && load_watch(rig->load, 100); i++) {
        pid_t pid = fake_manager_pid(rig->fm);

        kill(pid, SIGSTOP);
        load_watch(rig->load, rng_below(&rig->rng, 500));
        kill(pid, SIGCONT);
    }
    load_stop(rig->load);
    if (rig->fq->resumes) {
        verdict_fail(rig->verdict, "the pager was given up");
    }
    rig_check_all(rig);
    rig_finish(rig);
}

void torture_add_kill(void)
{
    g_test_add_func("/torture/kill/mixed", test_mixed);
    g_test_add_func("/torture/kill/thrash", test_thrash);
    g_test_add_func("/torture/kill/without-io-uring", test_without_uring);
    g_test_add_func("/torture/kill/compressed", test_compressed);
    g_test_add_func("/torture/kill/encrypted", test_encrypted);
    g_test_add_func("/torture/kill/stop", test_stop);
}
