/*
 * Torture tests: guests whose memory is made of huge pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The workers access the same pages of 4 KiB as ever, so 512 of them come and
 * go together under their hands.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define TICK_MS 20
#define MIN_KILL_MS 20
#define MAX_KILL_MS 300
#define SWEEP_EVERY 10          /* trials */

static RigConfig config_of(const PagerConfig *pager)
{
    return (RigConfig) {
        .pager = *pager,
        .stamped_mib = { 64, 12 },
        .words_mib = 4,
        .limit_percent = 35,
        .huge = true,
    };
}

static void change_limit(Rig *rig)
{
    uint64_t limit = rig->size * (20 + rng_below(&rig->rng, 60)) / 100;

    limit = MAX(ROUND_UP(limit, STAMP_PAGE_SIZE), 16 * MiB);
    if (!fake_manager_set_limit(rig->fm, limit)) {
        verdict_fail(rig->verdict, "SET_LIMIT failed");
    }
}

static void check_stats(Rig *rig)
{
    MmMsgQueryReply q;

    if (!rig_ok(rig) || !fake_manager_query(rig->fm, &q)) {
        return;
    }
    g_test_message("%" PRIu64 " accesses; faults: %" PRIu64 " missing, %" PRIu64
                   " minor, %" PRIu64 " from tiers; populated %" PRIu64
                   ", read %" PRIu64 ", evicted %" PRIu64 ", of these zero %"
                   PRIu64 "; moved %" PRIu64 "; discarded %" PRIu64,
                   load_accesses(rig->load), q.stats.fault_missing,
                   q.stats.fault_minor, q.stats.fault_swapin,
                   q.stats.pages_populated, q.stats.pages_read,
                   q.stats.pages_evicted, q.stats.pages_evicted_zero,
                   q.stats.pages_moved, q.stats.pages_discarded);
    if (q.stats.pages_evicted < 20 * 512) {
        verdict_fail(rig->verdict, "only %" PRIu64 " pages were evicted: this "
                     "run proves little", q.stats.pages_evicted);
    }
    if (q.stats.pages_evicted % 512 || q.stats.pages_populated % 512) {
        verdict_fail(rig->verdict, "a part of a huge page was moved");
    }
}

static void run_steady(const PagerConfig *pager)
{
    const RigConfig config = config_of(pager);
    Rig *rig = rig_new(&config, torture_seed());
    int64_t end = torture_now_us() + torture_seconds(5, 120) * 1000000LL;
    unsigned tick;

    load_start(rig->load, &LOAD_MIXED);
    for (tick = 1; torture_now_us() < end && load_watch(rig->load, TICK_MS);
         tick++) {
        if (tick % 20 == 0) {
            change_limit(rig);
        }
    }
    load_stop(rig->load);
    rig_check_all(rig);
    check_stats(rig);
    rig_discard_all(rig);
    rig_finish(rig);
}

static void test_steady(void)
{
    run_steady(&(PagerConfig) {});
}

static void test_compressed(void)
{
    run_steady(&(PagerConfig) { .compressed_size = 8 * MiB });
}

static void test_without_uring(void)
{
    run_steady(&(PagerConfig) { .no_uring = true });
}

static bool kill_once(Rig *rig)
{
    unsigned n = rig->fq->resumes;

    if (!load_watch(rig->load, MIN_KILL_MS +
                    rng_below(&rig->rng, MAX_KILL_MS - MIN_KILL_MS))) {
        return false;
    }
    fake_manager_kill(rig->fm);
    while (!fake_qemu_wait_resumes(rig->fq, n + 1, 10)) {
        if (!load_watch(rig->load, 0)) {
            return false;
        }
    }
    return true;
}

static void test_kill(void)
{
    const PagerConfig pager = { .compressed_size = 8 * MiB };
    const RigConfig config = config_of(&pager);
    Rig *rig = rig_new(&config, torture_seed());
    unsigned trials = torture_trials(40, 600);
    unsigned i;

    load_start(rig->load, &LOAD_MIXED);
    for (i = 1; i <= trials && rig_ok(rig) && kill_once(rig); i++) {
        if (i % SWEEP_EVERY == 0) {
            load_stop(rig->load);
            rig_check_all(rig);
            load_start(rig->load, &LOAD_MIXED);
        }
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_print_stalls(rig, "kill");
    rig_discard_all(rig);
    rig_finish(rig);
}

static uint64_t bytes_there(Rig *rig)
{
    uint64_t sum = 0;
    unsigned i;

    for (i = 0; i < rig->fq->nr_regions; i++) {
        struct stat st;

        g_assert(fstat(rig->fq->regions[i]->fds[MM_REGION_FD_RAM], &st) == 0);
        sum += st.st_blocks * UINT64_C(512);
    }
    return sum;
}

/* Everything comes in and stays, also what nobody has touched. */
static void test_detach(void)
{
    const PagerConfig pager = {};
    const RigConfig config = config_of(&pager);
    const FakeRequest rq = { .type = MM_MSG_DETACH };
    Rig *rig = rig_new(&config, torture_seed());
    MmMsg reply;

    load_start(rig->load, &(LoadConfig) { .writers = 3, .readers = 2 });
    load_watch(rig->load, 200);
    if (rig_ok(rig)) {
        if (fake_manager_request(rig->fm, &rq, &reply) ||
            reply.hdr.type != MM_MSG_OK ||
            !fake_qemu_wait_detached(rig->fq, 10000)) {
            verdict_fail(rig->verdict, "not detached");
        }
        mm_msg_clear(&reply);
    }
    if (rig_ok(rig) && bytes_there(rig) != rig->size) {
        verdict_fail(rig->verdict, "%" PRIu64 " of %" PRIu64 " bytes are there",
                     bytes_there(rig), rig->size);
    }
    load_watch(rig->load, 300);
    load_stop(rig->load);
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

void torture_add_huge(void)
{
    g_test_add_func("/torture/huge/steady", test_steady);
    g_test_add_func("/torture/huge/compressed", test_compressed);
    g_test_add_func("/torture/huge/without-io-uring", test_without_uring);
    g_test_add_func("/torture/huge/kill", test_kill);
    g_test_add_func("/torture/huge/detach", test_detach);
}
