/*
 * Torture tests: nothing can be evicted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "dma.h"
#include "rig.h"
#include "torture.h"

#define EVENT_MS 10000
#define LIMIT_MIB 8
/* What a pager may let in beyond the hard limit, lest all stand still. */
#define SLACK (1 * MiB)
#define DEVICE_PAGES 64
#define DEVICE_MS 3000
#define STUCK_MS 10000

static Rig *new_rig(void)
{
    const RigConfig config = {
        .stamped_mib = { 4 * LIMIT_MIB },
        .limit_percent = 25,
        .stuck_ms = STUCK_MS,
    };

    return rig_new(&config, torture_seed());
}

static void query(Rig *rig, MmMsgQueryReply *q)
{
    int64_t before = torture_now_us();

    memset(q, 0, sizeof(*q));
    if (!fake_manager_query(rig->fm, q)) {
        verdict_fail(rig->verdict, "no answer to QUERY");
    } else if (torture_now_us() - before > 1000000) {
        verdict_fail(rig->verdict, "QUERY took more than a second");
    }
}

/* Over the limit by the reserve, not more, and then back. */
static void check_reserve(Rig *rig)
{
    MmMsgQueryReply q;

    query(rig, &q);
    if (!rig_ok(rig)) {
        return;
    }
    if (q.resident <= LIMIT_MIB * MiB) {
        verdict_fail(rig->verdict, "the reserve was not used");
    } else if (q.resident > q.hard_limit + SLACK) {
        verdict_fail(rig->verdict, "resident %" PRIu64 " over the hard limit "
                     "of %" PRIu64, q.resident, q.hard_limit);
    }
}

/* The guest maps all of its memory for DMA and uses it. */
static void test_dma_holds_all(void)
{
    Rig *rig = new_rig();
    FakeRegion *region = rig->fq->regions[0];

    if (rig_ok(rig)) {
        dma_hold_all(region, 1);
        load_start(rig->load, &(LoadConfig) { .writers = 4, .readers = 2 });
        if (!fake_qemu_wait_event(rig->fq, MM_EVENT_PRESSURE, 1, EVENT_MS)) {
            verdict_fail(rig->verdict, "no pressure event");
        }
        load_watch(rig->load, 500);
        check_reserve(rig);
        dma_hold_all(region, -1);
        if (rig_ok(rig) &&
            !fake_qemu_wait_event(rig->fq, MM_EVENT_PRESSURE_OVER, 1,
                                  EVENT_MS)) {
            verdict_fail(rig->verdict, "the pressure does not end");
        }
        load_watch(rig->load, 500);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

static bool is_present(const FakeRegion *region, uint64_t page)
{
    off_t at = page * STAMP_PAGE_SIZE;

    return lseek(region->fds[MM_REGION_FD_RAM], at, SEEK_DATA) == at;
}

/* A device that needs some more pages before it lets go of what it holds. */
static void device_worker(Worker *w)
{
    FakeRegion *region = w->fq->regions[0];
    unsigned missing = 0;
    uint64_t page;

    for (page = 0; missing < DEVICE_PAGES; page++) {
        g_assert(page < region->shadow->nr_pages);
        if (is_present(region, page) || !shadow_trylock(region->shadow, page)) {
            continue;
        }
        worker_begin(w, region->id, page);
        shadow_check(region->shadow, page, "device");
        worker_end(w);
        shadow_unlock(region->shadow, page);
        missing++;
    }
    dma_hold_all(region, -1);
}

/*
 * vCPUs use up limit and reserve while a device holds everything.  The device
 * must get what it needs all the same, or nobody would ever go on.
 */
static void test_dma_holder_faults(void)
{
    Rig *rig = new_rig();

    rig_populate(rig);
    if (rig_ok(rig)) {
        dma_hold_all(rig->fq->regions[0], 1);
        load_start(rig->load, &(LoadConfig) { .writers = 4, .readers = 2 });
        if (!fake_qemu_wait_event(rig->fq, MM_EVENT_PRESSURE, 1, EVENT_MS)) {
            verdict_fail(rig->verdict, "no pressure event");
        }
        load_watch(rig->load, 500);
        load_start_fn(rig->load, "device", device_worker, 1);
        load_watch(rig->load, DEVICE_MS);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* A QEMU that does not zap harms itself only, and is not lost for it. */
static void test_zap_stopped(void)
{
    Rig *rig = new_rig();
    MmMsgQueryReply q;

    if (rig_ok(rig)) {
        qatomic_set(&rig->fq->zap_paused, true);
        load_start(rig->load, &(LoadConfig) { .writers = 4, .readers = 2 });
        load_watch(rig->load, 2000);
        query(rig, &q);
        if (rig_ok(rig) && q.resident > q.hard_limit + SLACK) {
            verdict_fail(rig->verdict, "resident %" PRIu64 " over the hard "
                         "limit of %" PRIu64, q.resident, q.hard_limit);
        }
        qatomic_set(&rig->fq->zap_paused, false);
        load_watch(rig->load, 500);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* As above, and the pager is killed meanwhile. */
static void test_zap_stopped_kill(void)
{
    Rig *rig = new_rig();

    if (rig_ok(rig)) {
        qatomic_set(&rig->fq->zap_paused, true);
        load_start(rig->load, &(LoadConfig) { .writers = 4, .readers = 2 });
        load_watch(rig->load, 500);
        fake_manager_kill(rig->fm);
        load_watch(rig->load, 50);
        qatomic_set(&rig->fq->zap_paused, false);
        fake_qemu_wait_resumes(rig->fq, 1, EVENT_MS);
        load_watch(rig->load, 500);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* Limits that no guest could live with. */
static void test_absurd_limits(void)
{
    Rig *rig = new_rig();
    MmMsgQueryReply q;

    if (rig_ok(rig)) {
        if (fake_manager_set_limit(rig->fm, 0) ||
            fake_manager_set_limit(rig->fm, 1) ||
            fake_manager_set_limit(rig->fm, STAMP_PAGE_SIZE)) {
            verdict_fail(rig->verdict, "a limit of nothing was accepted");
        }
        query(rig, &q);
        if (rig_ok(rig) && q.limit != LIMIT_MIB * MiB) {
            verdict_fail(rig->verdict, "a refused limit has become %" PRIu64,
                         q.limit);
        }
    }
    rig_finish(rig);
}

void torture_add_pressure(void)
{
    g_test_add_func("/torture/pressure/dma-holds-all", test_dma_holds_all);
    g_test_add_func("/torture/pressure/dma-holder-faults",
                    test_dma_holder_faults);
    g_test_add_func("/torture/pressure/zap-stopped", test_zap_stopped);
    g_test_add_func("/torture/pressure/zap-stopped-kill",
                    test_zap_stopped_kill);
    g_test_add_func("/torture/pressure/absurd-limits", test_absurd_limits);
}
