/*
 * Torture tests: tiers that come and go while the guest runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

/* Numbers of the fake manager's tiers. */
#define FILE_TIER 0
#define COMPRESSED_TIER 1
#define ADDED_TIER 2

#define DRAIN_MS 30000
#define EVENT_MS 10000

static Rig *new_rig(uint64_t compressed)
{
    const RigConfig config = {
        .pager = {
            .binary = torture_test_pager(), .compressed_size = compressed,
        },
        .stamped_mib = { 16, 4 },
        .words_mib = 2,
        .limit_percent = 25,
        .encrypted = true,
    };
    Rig *rig = rig_new(&config, torture_seed());

    rig_populate(rig);
    return rig;
}

static bool request(Rig *rig, MmMsgType type, const void *payload, size_t len)
{
    const FakeRequest rq = { .type = type, .payload = payload, .len = len };
    bool ok = false;
    MmMsg reply;

    if (rig_ok(rig) && !fake_manager_request(rig->fm, &rq, &reply)) {
        ok = reply.hdr.type == MM_MSG_OK;
        mm_msg_clear(&reply);
    }
    return ok;
}

/* One tier or none, for this pager as for the next one. */
static bool set_draining(Rig *rig, unsigned number, bool draining)
{
    const MmMsgSetDraining set = { .tiers = draining ? 1u << number : 0 };

    if (!request(rig, MM_MSG_SET_DRAINING, &set, sizeof(set))) {
        return false;
    }
    fake_manager_tier(rig->fm, number)->draining = draining;
    return true;
}

static bool set_size(Rig *rig, unsigned number, uint64_t size)
{
    const MmMsgSetTier set = { .number = number, .size = size };

    return request(rig, MM_MSG_SET_TIER, &set, sizeof(set));
}

static void expect(Rig *rig, bool ok, const char *what)
{
    if (!ok) {
        verdict_fail(rig->verdict, "%s", what);
    }
}

static MmMsgQueryReply query(Rig *rig)
{
    MmMsgQueryReply q = {};

    while (rig_ok(rig) && !fake_manager_query(rig->fm, &q)) {
        g_usleep(1000);     /* between two pagers */
    }
    return q;
}

/* Bytes of the guest's memory that lie in a tier; the load goes on. */
static uint64_t content(Rig *rig, unsigned number)
{
    return query(rig).tier_content[number];
}

static void wait_for_content(Rig *rig, unsigned number)
{
    int64_t end = g_get_monotonic_time() + DRAIN_MS * 1000;

    while (rig_ok(rig) && !content(rig, number)) {
        g_usleep(5000);
        if (g_get_monotonic_time() > end) {
            verdict_fail(rig->verdict, "tier %u gets nothing", number);
        }
    }
}

static bool is_drained(Rig *rig, unsigned number)
{
    MmMsgQueryReply q = {};

    return fake_manager_query(rig->fm, &q) && (q.drained & 1u << number);
}

/* Up to @kills pagers die meanwhile. */
static void wait_until_drained(Rig *rig, unsigned number, unsigned kills)
{
    int64_t end = g_get_monotonic_time() + DRAIN_MS * 1000;

    while (rig_ok(rig) && !is_drained(rig, number)) {
        g_usleep(5000);
        if (kills) {
            kills--;
            load_watch(rig->load, rng_below(&rig->rng, 100));
            rig_kill_pager(rig);
        }
        if (g_get_monotonic_time() > end) {
            verdict_fail(rig->verdict, "tier %u is not emptied", number);
        }
    }
}

/* The middle of three: what is in it goes down, and comes back when it may. */
static void test_drain(void)
{
    Rig *rig = new_rig(8 * MiB);
    int i;

    load_start(rig->load, &LOAD_MIXED);
    for (i = 0; i < 3; i++) {
        wait_for_content(rig, COMPRESSED_TIER);
        expect(rig, set_draining(rig, COMPRESSED_TIER, true), "cannot drain");
        wait_until_drained(rig, COMPRESSED_TIER, 0);
        load_watch(rig->load, 200);
        expect(rig, content(rig, COMPRESSED_TIER) == 0,
               "a tier that is drained has got something");
        expect(rig, set_draining(rig, COMPRESSED_TIER, false),
               "cannot use a tier again");
    }
    wait_for_content(rig, COMPRESSED_TIER);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/*
 * Another disk takes the place of the first; pagers die on the way.  A guest
 * that is busy brings much in itself, one that is idle leaves it to the mover.
 */
static void replace_file(bool busy, unsigned kills)
{
    Rig *rig = new_rig(0);

    if (busy) {
        load_start(rig->load, &LOAD_MIXED);
        load_watch(rig->load, 200);
    }
    fake_manager_add_tier(rig->fm, ADDED_TIER, 0);
    rig_kill_pager(rig);
    expect(rig, set_draining(rig, FILE_TIER, true), "cannot drain");
    wait_until_drained(rig, FILE_TIER, kills);
    if (rig_ok(rig)) {
        fake_manager_remove_tier(rig->fm, FILE_TIER);
    }
    rig_kill_pager(rig);
    wait_for_content(rig, ADDED_TIER);
    expect(rig, !rig_ok(rig) || rig->fq->nr_holds == 1,
           "QEMU holds on to a tier that is gone");
    load_watch(rig->load, 200);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

static void test_replace(void)
{
    replace_file(true, 0);
}

static void test_replace_idle(void)
{
    replace_file(false, 0);
}

/* The mover is the only one to use the new tier when its first store fails. */
static void test_replace_error(void)
{
    Rig *rig = new_rig(0);

    fake_manager_add_tier(rig->fm, ADDED_TIER, 0);
    fake_manager_arm(rig->fm, "tier-store:err1=5:1");
    rig_kill_pager(rig);
    expect(rig, set_draining(rig, FILE_TIER, true), "cannot drain");
    wait_until_drained(rig, FILE_TIER, 0);
    rig_check_all(rig);
    rig_finish(rig);
}

/* What cannot be read stays, somebody is told, and it goes when it can. */
static void test_replace_unreadable(void)
{
    Rig *rig = new_rig(0);

    fake_manager_add_tier(rig->fm, ADDED_TIER, 0);
    /* the first load reads the identity */
    fake_manager_arm(rig->fm, "tier-load:err=5:2");
    rig_kill_pager(rig);
    expect(rig, set_draining(rig, FILE_TIER, true), "cannot drain");
    expect(rig, fake_qemu_wait_event(rig->fq, MM_EVENT_IO_ERROR, 1, EVENT_MS),
           "no event says what the drain waits for");
    expect(rig, !is_drained(rig, FILE_TIER), "unreadable pages are given up");
    fake_manager_heal(rig->fm);
    wait_until_drained(rig, FILE_TIER, 0);
    expect(rig, fake_qemu_wait_event(rig->fq, MM_EVENT_IO_RECOVERED, 1,
                                     EVENT_MS), "no event says that it works");
    rig_check_all(rig);
    rig_finish(rig);
}

/* A guest that does nothing gets its pool's memory back all the same. */
static void test_resize_idle(void)
{
    Rig *rig = new_rig(8 * MiB);
    int64_t end = g_get_monotonic_time() + DRAIN_MS * 1000;
    uint64_t half = query(rig).tier_size[COMPRESSED_TIER] / 2;

    expect(rig, half >= 256 * KiB, "the pool is not in use");
    load_watch(rig->load, 500);
    expect(rig, set_size(rig, COMPRESSED_TIER, half), "cannot resize");
    while (rig_ok(rig) && query(rig).tier_size[COMPRESSED_TIER] > half) {
        g_usleep(5000);
        if (g_get_monotonic_time() > end) {
            verdict_fail(rig->verdict, "the pool does not get smaller");
        }
    }
    rig_check_all(rig);
    rig_finish(rig);
}

static void test_replace_kill(void)
{
    replace_file(true, 30);
}

static void test_refused(void)
{
    Rig *rig = new_rig(0);

    expect(rig, !set_draining(rig, FILE_TIER, true),
           "the only tier of a VM could be drained");
    /* too small for what may be swapped out */
    fake_manager_add_tier(rig->fm, ADDED_TIER, 1 * MiB);
    rig_kill_pager(rig);
    expect(rig, !set_draining(rig, FILE_TIER, true),
           "a tier could be drained that the others cannot stand in for");
    expect(rig, !set_size(rig, FILE_TIER, 1 * MiB),
           "a file could be made smaller than it is");
    expect(rig, set_size(rig, FILE_TIER, 1 * GiB), "a file cannot be larger");
    expect(rig, !set_size(rig, MM_MAX_TIERS - 1, 1 * GiB),
           "a tier that the VM does not have could be made larger");
    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 300);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/*
 * A pager that has just taken over does not take the tiers for empty: without a
 * limit only what is in them now says how much room a drain needs.
 */
static void test_refused_at_once(void)
{
    Rig *rig = new_rig(0);

    fake_manager_add_tier(rig->fm, ADDED_TIER, 1 * MiB);
    expect(rig, fake_manager_set_limit(rig->fm, MM_LIMIT_NONE),
           "cannot lift the limit");
    expect(rig, content(rig, FILE_TIER) > 2 * MiB, "nothing is swapped out");
    fake_manager_arm(rig->fm, "claiming:delay1=300:1");
    rig_kill_pager(rig);
    expect(rig, !set_draining(rig, FILE_TIER, true),
           "a tier could be drained that the others cannot stand in for");
    expect(rig, content(rig, FILE_TIER) > 2 * MiB, "the content is gone");
    fake_manager_arm(rig->fm, "claiming:delay1=300:1");
    rig_kill_pager(rig);
    expect(rig, content(rig, FILE_TIER) > 2 * MiB,
           "a pager that has just taken over says that its tier is empty");
    rig_check_all(rig);
    rig_finish(rig);
}

/* A new tier that cannot be had does not cost the VM its pager. */
static void test_not_to_be_had(void)
{
    Rig *rig = new_rig(0);
    MmMsgQueryReply q = {};
    char *dir = rig->fm->tier_dir;

    fake_manager_add_tier(rig->fm, ADDED_TIER, 0);
    rig->fm->tier_dir = g_strdup("/proc");
    rig_kill_pager(rig);
    g_free(rig->fm->tier_dir);
    rig->fm->tier_dir = dir;
    fake_manager_query(rig->fm, &q);
    expect(rig, q.tiers == 1u << FILE_TIER, "the pager has other tiers");
    expect(rig, fake_qemu_wait_event(rig->fq, MM_EVENT_IO_ERROR, 1, EVENT_MS),
           "no event says that the tier is missing");
    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 200);
    rig_kill_pager(rig);
    fake_manager_query(rig->fm, &q);
    expect(rig, q.tiers == (1u << FILE_TIER | 1u << ADDED_TIER),
           "the next pager does not have the tier, either");
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

static uint64_t put_off(Rig *rig)
{
    return query(rig).stats.io_put_off;
}

/* For this pager as for the next one. */
static bool set_io_limits(Rig *rig, const MmMsgIOLimits *io)
{
    const MmMsgSetIOLimits set = { .number = FILE_TIER, .io = *io };

    fake_manager_tier(rig->fm, FILE_TIER)->io = *io;
    return request(rig, MM_MSG_SET_IO_LIMITS, &set, sizeof(set));
}

/* Slow is not broken: faults wait, and nothing else happens. */
static void test_throttled(void)
{
    const MmMsgIOLimits slow = { .bps = 8 * MiB, .iops = 200 };
    Rig *rig = new_rig(0);
    uint64_t before;
    int i;

    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 200);
    expect(rig, put_off(rig) == 0, "transfers wait without a limit");
    for (i = 0; i < 3; i++) {
        before = put_off(rig);
        expect(rig, set_io_limits(rig, &slow), "cannot set I/O limits");
        load_watch(rig->load, 1000);
        expect(rig, put_off(rig) > before, "no transfer waits for its turn");
        rig_kill_pager(rig);
        before = put_off(rig);
        load_watch(rig->load, 1000);
        expect(rig, put_off(rig) > before, "the next pager has no limits");
        expect(rig, set_io_limits(rig, &(MmMsgIOLimits) {}),
               "cannot lift I/O limits");
    }
    if (rig_ok(rig) && (rig->fq->nr_events[MM_EVENT_IO_ERROR] ||
                        rig->fq->nr_events[MM_EVENT_PRESSURE])) {
        verdict_fail(rig->verdict, "an event says that a limit is an error; "
                     "the last one is: %s", rig->fq->last_event.text);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

static bool set_spared(Rig *rig, uint32_t tiers)
{
    const MmMsgSetSpared set = { .tiers = tiers };

    return request(rig, MM_MSG_SET_SPARED, &set, sizeof(set));
}

static uint64_t written(Rig *rig, unsigned number)
{
    return query(rig).stats.tier_written[number];
}

/* What is under way when a tier is spared still gets there. */
static uint64_t written_at_last(Rig *rig, unsigned number)
{
    load_watch(rig->load, 500);
    return written(rig, number);
}

/* One of two is spared, then both: that is better than to stand still. */
static void test_spared(void)
{
    Rig *rig = new_rig(0);
    uint64_t first, second;

    fake_manager_add_tier(rig->fm, ADDED_TIER, 0);
    rig_kill_pager(rig);
    load_start(rig->load, &LOAD_MIXED);
    wait_for_content(rig, ADDED_TIER);
    expect(rig, set_spared(rig, 1u << ADDED_TIER), "cannot spare a tier");
    first = written_at_last(rig, ADDED_TIER);
    second = written(rig, FILE_TIER);
    load_watch(rig->load, 500);
    expect(rig, !rig_ok(rig) || written(rig, ADDED_TIER) == first,
           "a tier that is spared was written to");
    expect(rig, !rig_ok(rig) || written(rig, FILE_TIER) > second,
           "the other tier was not written to");
    expect(rig, set_spared(rig, 1u << ADDED_TIER | 1u << FILE_TIER),
           "cannot spare both");
    first = written(rig, ADDED_TIER);
    load_watch(rig->load, 500);
    expect(rig, !rig_ok(rig) || written(rig, ADDED_TIER) > first,
           "with both spared nothing is written");
    expect(rig, set_draining(rig, FILE_TIER, true), "cannot drain");
    wait_until_drained(rig, FILE_TIER, 0);
    expect(rig, set_spared(rig, 0), "cannot use both again");
    load_watch(rig->load, 200);
    expect(rig, !rig_ok(rig) || !rig->fq->nr_events[MM_EVENT_IO_ERROR],
           "an event says that a budget is an error");
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

void torture_add_tiers(void)
{
    g_test_add_func("/torture/tiers/drain", test_drain);
    g_test_add_func("/torture/tiers/replace", test_replace);
    g_test_add_func("/torture/tiers/replace-idle", test_replace_idle);
    g_test_add_func("/torture/tiers/replace-error", test_replace_error);
    g_test_add_func("/torture/tiers/replace-unreadable",
                    test_replace_unreadable);
    g_test_add_func("/torture/tiers/replace-kill", test_replace_kill);
    g_test_add_func("/torture/tiers/resize-idle", test_resize_idle);
    g_test_add_func("/torture/tiers/refused", test_refused);
    g_test_add_func("/torture/tiers/refused-at-once", test_refused_at_once);
    g_test_add_func("/torture/tiers/throttled", test_throttled);
    g_test_add_func("/torture/tiers/spared", test_spared);
    g_test_add_func("/torture/tiers/not-to-be-had", test_not_to_be_had);
}
