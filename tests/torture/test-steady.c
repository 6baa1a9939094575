/*
 * Torture tests: constant eviction
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define TICK_MS 20
/* What may be over the hard limit: fills that were under way already. */
#define RESERVE (4 * MiB)
/* How long a pager may take to come down to a new limit. */
#define SETTLE_MS 3000

typedef struct LimitWalk {
    uint64_t limit;             /* bytes or MM_LIMIT_NONE */
    int64_t since_us;
} LimitWalk;

static void change_limit(Rig *rig, LimitWalk *walk)
{
    walk->limit = rng_chance(&rig->rng, 10) ? MM_LIMIT_NONE :
        ROUND_UP(rig->size * (20 + rng_below(&rig->rng, 70)) / 100,
                 STAMP_PAGE_SIZE);
    walk->since_us = torture_now_us();
    if (!fake_manager_set_limit(rig->fm, walk->limit)) {
        verdict_fail(rig->verdict, "SET_LIMIT failed");
    }
}

static void check_limit(Rig *rig, const LimitWalk *walk)
{
    MmMsgQueryReply q;

    if (!fake_manager_query(rig->fm, &q)) {
        verdict_fail(rig->verdict, "no answer to QUERY");
        return;
    }
    if (q.hard_limit != MM_LIMIT_NONE && q.resident > q.hard_limit + RESERVE &&
        torture_now_us() - walk->since_us > SETTLE_MS * 1000) {
        verdict_fail(rig->verdict, "resident %" PRIu64 " over the hard limit "
                     "of %" PRIu64 ", limit %" PRIu64, q.resident,
                     q.hard_limit, q.limit);
    }
    if (walk->limit && q.limit != walk->limit) {
        verdict_fail(rig->verdict, "limit is %" PRIu64 ", was set to %" PRIu64,
                     q.limit, walk->limit);
    }
}

static void run_load(Rig *rig, unsigned seconds, bool change_limits)
{
    int64_t end = torture_now_us() + seconds * INT64_C(1000000);
    LimitWalk walk = { .since_us = torture_now_us() };
    unsigned tick;

    for (tick = 1; torture_now_us() < end; tick++) {
        if (!load_watch(rig->load, TICK_MS)) {
            return;
        }
        check_limit(rig, &walk);
        if (change_limits && tick % 20 == 0) {
            change_limit(rig, &walk);
        }
    }
}

/* Has room for some of what compresses. */
#define SMALL_POOL (1 * MiB)

static void print_stats(Rig *rig)
{
    MmMsgQueryReply q;

    if (rig_ok(rig) && fake_manager_query(rig->fm, &q)) {
        g_test_message("%" PRIu64 " accesses; faults: %" PRIu64 " missing, %"
                       PRIu64 " minor, %" PRIu64 " zero, %" PRIu64
                       " from tiers; populated %" PRIu64 ", read %" PRIu64
                       ", evicted %" PRIu64 ", of these zero %" PRIu64
                       "; moved %" PRIu64 "; discarded %" PRIu64
                       ", overwritten %" PRIu64 ", fetched %" PRIu64
                       ", stored %" PRIu64,
                       load_accesses(rig->load), q.stats.fault_missing,
                       q.stats.fault_minor, q.stats.fault_zero,
                       q.stats.fault_swapin, q.stats.pages_populated,
                       q.stats.pages_read, q.stats.pages_evicted,
                       q.stats.pages_evicted_zero, q.stats.pages_moved,
                       q.stats.pages_discarded, q.stats.pages_overwritten,
                       q.stats.pages_fetched, q.stats.pages_stored);
        if (q.stats.pages_evicted < 1000) {
            verdict_fail(rig->verdict, "only %" PRIu64 " pages were evicted: "
                         "this run proves little", q.stats.pages_evicted);
        }
        if (rig->fq->page_size == STAMP_PAGE_SIZE &&
            (!q.stats.pages_overwritten || !q.stats.pages_fetched ||
             !q.stats.pages_stored)) {
            verdict_fail(rig->verdict, "the ring was not used in every way");
        }
        if (rig->fm->config.compressed_size == SMALL_POOL &&
            !q.stats.pages_moved) {
            verdict_fail(rig->verdict, "no page was moved to the next tier");
        }
    }
}

static void run_steady(unsigned seconds, bool change_limits,
                       const PagerConfig *pager)
{
    const RigConfig config = {
        .pager = *pager,
        .stamped_mib = { 48, 12 },
        .words_mib = 4,
        .limit_percent = 25,
    };
    Rig *rig = rig_new(&config, torture_seed());

    if (rig_ok(rig)) {
        load_start(rig->load, &LOAD_MIXED);
        run_load(rig, seconds, change_limits);
        load_stop(rig->load);
        rig_check_all(rig);
        print_stats(rig);
        rig_discard_all(rig);
    }
    rig_finish(rig);
}

static void test_limit_holds(void)
{
    run_steady(torture_seconds(5, 120), false, &(PagerConfig) {});
}

static void test_limit_changes(void)
{
    run_steady(torture_seconds(5, 120), true, &(PagerConfig) {});
}

static void test_without_uring(void)
{
    run_steady(torture_seconds(3, 60), true,
               &(PagerConfig) { .no_uring = true });
}

/* With room for some of what compresses: the rest goes on to the file. */
static void test_compressed(void)
{
    run_steady(torture_seconds(4, 60), true,
               &(PagerConfig) { .compressed_size = SMALL_POOL });
    run_steady(torture_seconds(3, 60), true,
               &(PagerConfig) { .compressed_size = 64 * MiB,
                                .algorithm = MM_ALGORITHM_ZSTD });
}

void torture_add_steady(void)
{
    g_test_add_func("/torture/steady/limit-holds", test_limit_holds);
    g_test_add_func("/torture/steady/limit-changes", test_limit_changes);
    g_test_add_func("/torture/steady/without-io-uring", test_without_uring);
    g_test_add_func("/torture/steady/compressed", test_compressed);
}
