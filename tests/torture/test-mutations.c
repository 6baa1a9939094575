/*
 * Torture tests: pagers with one protection switched off
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A torture test that never fails proves nothing.  For each protection there
 * is a run that must fail without it, within bounded time, and the same run
 * must pass with it.  A mutation that survives is a failure of this test.
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "tier-peek.h"
#include "torture.h"

/* A mutation that makes threads hang must be found in bounded time. */
#define MUTANT_STUCK_MS 3000
/* A mutant gets this long to fail, and a sane pager to do so by mistake. */
#define MUTANT_SECONDS 20
#define SANE_SECONDS 1
/* After that long, every reader is held by a damaged page. */
#define CORRUPTION_MS 1500

typedef struct Mutation {
    const char *name;
    void (*run)(Rig *rig, unsigned seconds);
    const char *failpoint;      /* holds the critical window open */
    unsigned tier_mib;          /* size of the tier; 0: enough */
    LoadConfig load;
} Mutation;

static void run_load(Rig *rig, unsigned seconds)
{
    load_watch(rig->load, seconds * 1000);
    load_stop(rig->load);
    rig_check_all(rig);
}

static void run_kills(Rig *rig, unsigned seconds)
{
    int64_t end = torture_now_us() + seconds * INT64_C(1000000);

    while (torture_now_us() < end &&
           load_watch(rig->load, 5 + rng_below(&rig->rng, 100))) {
        rig_kill_pager(rig);
    }
    load_stop(rig->load);
    rig_check_all(rig);
}

/*
 * Damages what lies in the tier.  With checksums no thread sees any of it:
 * whoever needs a damaged page is held.  The event is expected, so what is
 * left to fail is a page with wrong content.
 */
static void run_corruption(Rig *rig, unsigned seconds)
{
    TierDamage *damage;

    rig->fq->may_lose = true;
    load_stop(rig->load);
    rig_populate(rig);
    damage = tier_damage_new(rig->fq, rig->seed);
    if (!damage) {
        verdict_fail(rig->verdict, "nothing to damage in the tier");
    }
    load_start(rig->load, &(LoadConfig) { .readers = 4 });
    load_watch(rig->load, CORRUPTION_MS);
    tier_damage_free(damage);
    /* lets go of the threads that are held */
    load_abandon(rig->load);
}

static const Mutation mutations[] = {
    {
        .name = "no-wake", .run = run_kills,
        .load = { .writers = 6, .readers = 4 },
    }, {
        .name = "punch-first", .run = run_load,
        .load = { .writers = 6, .readers = 4 },
    }, {
        .name = "no-dma-count", .run = run_load,
        .load = { .dma = 1, .readers = 4 },
    }, {
        .name = "no-checksum", .run = run_corruption,
        .load = { .writers = 2 },
    }, {
        .name = "no-map-owner", .run = run_load,
        .load = { .words = 8, .writers = 4 },
    }, {
        /* almost full: a place that is free is taken at once */
        .name = "free-early", .run = run_load, .tier_mib = 14,
        .failpoint = "tier-load:delay=2:1",
        .load = { .writers = 6, .readers = 4 },
    },
};

static char *run_pager(const Mutation *m, bool mutant)
{
    RigConfig config = {
        .pager = {
            .binary = torture_test_pager(),
            .mutation = mutant ? m->name : NULL,
            .tier_size = m->tier_mib * MiB,
            .overcommit = m->tier_mib != 0,
        },
        .stamped_mib = { 20, 4 },
        .words_mib = m->load.words ? 1 : 0,
        .limit_percent = 25,
        .stuck_ms = mutant ? MUTANT_STUCK_MS : 0,
        .may_die = mutant,
    };
    Rig *rig = rig_new(&config, torture_seed());

    if (rig_ok(rig) && m->failpoint) {
        fake_manager_arm(rig->fm, m->failpoint);
        rig_kill_pager(rig);
    }
    if (rig_ok(rig)) {
        load_start(rig->load, &m->load);
        m->run(rig, mutant ? MUTANT_SECONDS : SANE_SECONDS);
    }
    return rig_free(rig);
}

static void test_mutation(gconstpointer opaque)
{
    const Mutation *m = opaque;
    g_autofree char *sane = run_pager(m, false);
    g_autofree char *mutant = run_pager(m, true);

    if (sane) {
        g_test_message("the pager fails without a mutation: %s", sane);
        g_test_fail();
    }
    if (!mutant) {
        g_test_message("mutation %s survives", m->name);
        g_test_fail();
    } else {
        g_test_message("%s: %s", m->name, mutant);
    }
}

void torture_add_mutations(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(mutations); i++) {
        g_autofree char *path =
            g_strdup_printf("/torture/mutations/%s", mutations[i].name);

        g_test_add_data_func(path, &mutations[i], test_mutation);
    }
}
