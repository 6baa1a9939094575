/*
 * Torture tests: the estimate of the working set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "torture.h"

#define INTERVAL_MS 400
#define SWAPPED_INTERVAL_MS 4000
/* Of 400 pages, five standard deviations. */
#define TOLERANCE 0.125

/* Regions of the rig: 0 has 12 MiB, 2 has 4 MiB. */
#define LARGE 0
#define SMALL 2

static Rig *new_rig(unsigned limit_percent, unsigned interval_ms)
{
    const RigConfig config = {
        .pager = { .sample_ms = interval_ms },
        .stamped_mib = { 12, 4 },
        .words_mib = 2,
        .limit_percent = limit_percent,
    };
    Rig *rig = rig_new(&config, torture_seed());

    rig_populate(rig);
    return rig;
}

static void touch(Rig *rig, int i)
{
    FakeRegion *region = rig->fq->regions[i];
    uint64_t at;

    for (at = 0; at < region->size; at += STAMP_PAGE_SIZE) {
        qatomic_read((const uint64_t *)(region->mem + at));
    }
}

/* One use of all that is used, in us. */
typedef struct Pass {
    int64_t begin, end;
} Pass;

static Pass use(Rig *rig, bool large, bool small)
{
    Pass pass = { .begin = torture_now_us() };

    if (large) {
        touch(rig, LARGE);
    }
    if (small) {
        touch(rig, SMALL);
    }
    pass.end = torture_now_us();
    return pass;
}

/* Only then is it known what the sample has to find: hosts may be busy. */
static bool has_all(const GArray *passes, int64_t begin, int64_t end)
{
    unsigned i;

    for (i = 0; i < passes->len; i++) {
        const Pass *pass = &g_array_index(passes, Pass, i);

        if (pass->begin >= begin && pass->end <= end) {
            return true;
        }
    }
    return false;
}

/* The next sample from now on during which some regions were used. */
static double next_share(Rig *rig, bool large, bool small)
{
    g_autoptr(GArray) passes = g_array_new(false, false, sizeof(Pass));
    int64_t first = torture_now_us(), begin, end;
    MmMsgQueryReply q = {};

    while (rig_ok(rig)) {
        Pass pass = use(rig, large, small);

        g_array_append_val(passes, pass);
        fake_manager_query(rig->fm, &q);
        end = torture_now_us() - (int64_t)(q.sample.age_ns / 1000);
        begin = end - (int64_t)(q.sample.interval_ns / 1000);
        if (q.sample.pages && begin > first && has_all(passes, begin, end)) {
            break;
        }
        if (torture_now_us() - first > 60 * 1000 * 1000) {
            verdict_fail(rig->verdict, "no sample within a minute");
        }
        g_usleep(20000);
    }
    return q.sample.pages ? (double)q.sample.touched / q.sample.pages : 0;
}

static void expect_share(Rig *rig, bool large, bool small, double expected)
{
    double share = next_share(rig, large, small);

    if (rig_ok(rig) && ABS(share - expected) > TOLERANCE) {
        verdict_fail(rig->verdict, "a sample found %.3f of the pages touched, "
                     "not %.3f", share, expected);
    }
}

/* All is in memory. */
static void test_resident(void)
{
    Rig *rig = new_rig(0, INTERVAL_MS);

    expect_share(rig, false, true, 4.0 / 18);
    expect_share(rig, false, false, 0);
    expect_share(rig, true, true, 16.0 / 18);
    expect_share(rig, false, true, 4.0 / 18);
    rig_check_all(rig);
    rig_finish(rig);
}

/* What is used comes and goes, so that it takes longer to use all of it. */
static void test_swapped(void)
{
    Rig *rig = new_rig(50, SWAPPED_INTERVAL_MS * torture_slowness());

    expect_share(rig, true, true, 16.0 / 18);
    expect_share(rig, false, true, 4.0 / 18);
    rig_check_all(rig);
    rig_finish(rig);
}

/* What an operator wants out goes out, sampled or not. */
static void test_evict(void)
{
    Rig *rig = new_rig(0, 1000 * INTERVAL_MS);
    const MmMsgAmount all = { .value = 1 * GiB };
    const FakeRequest rq = {
        .type = MM_MSG_EVICT, .payload = &all, .len = sizeof(all),
    };
    MmMsgQueryReply q = {};
    MmMsg reply;

    /* the first sample of all that there is has begun by then */
    load_watch(rig->load, 1500);
    if (rig_ok(rig) && fake_manager_request(rig->fm, &rq, &reply) == 0) {
        mm_msg_clear(&reply);
    }
    fake_manager_query(rig->fm, &q);
    if (rig_ok(rig) && q.resident >= 64 * KiB) {
        verdict_fail(rig->verdict, "EVICT has left %" PRIu64 " bytes in memory",
                     q.resident);
    }
    rig_check_all(rig);
    rig_finish(rig);
}

/* A QEMU that is stopped, with memory enough, is not short of memory. */
static void test_stopped(void)
{
    Rig *rig = new_rig(0, INTERVAL_MS);

    qatomic_set(&rig->fq->zap_paused, true);
    load_watch(rig->load, 3000);
    qatomic_set(&rig->fq->zap_paused, false);
    load_watch(rig->load, 2 * INTERVAL_MS);
    if (rig_ok(rig) && rig->fq->nr_events[MM_EVENT_PRESSURE]) {
        verdict_fail(rig->verdict, "a sample raises an event of pressure");
    }
    rig_check_all(rig);
    rig_finish(rig);
}

/* Samples are taken under load, and pagers die in the middle of them. */
static void test_load(void)
{
    Rig *rig = new_rig(25, INTERVAL_MS);
    int i;

    load_start(rig->load, &LOAD_MIXED);
    for (i = 0; i < 4; i++) {
        load_watch(rig->load, INTERVAL_MS * 2 + INTERVAL_MS / 2);
        rig_kill_pager(rig);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

void torture_add_sample(void)
{
    g_test_add_func("/torture/sample/resident", test_resident);
    g_test_add_func("/torture/sample/swapped", test_swapped);
    g_test_add_func("/torture/sample/evict", test_evict);
    g_test_add_func("/torture/sample/stopped", test_stopped);
    g_test_add_func("/torture/sample/load", test_load);
}
