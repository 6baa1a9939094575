/*
 * Torture tests: the pager dies, dawdles or fails at chosen points
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As SQLite does with its I/O errors: one run counts how often each failpoint
 * is hit, others interfere at the n-th hit.  The list comes from the pager
 * itself, so a new failpoint is tested without a word here, and one that no
 * run ever hits is a failure.
 *
 * One VM lives through all of it.  Each pager is armed when the one before
 * has been killed, so that attaching is within reach too.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define COUNT_MS 1500
/* How long a pager may live until it comes to its failpoint. */
#define HIT_MS 4000
#define DELAY_MS 5

static const RigConfig failpoint_config = {
    .pager = { .overcommit = true, .compressed_size = 384 * KiB },
    .stamped_mib = { 12, 2 },
    .words_mib = 1,
    .limit_percent = 20,
    .may_die = true,
};

static const RigConfig huge_config = {
    .pager = { .overcommit = true, .compressed_size = 1 * MiB },
    .stamped_mib = { 40, 8 },
    .words_mib = 2,
    .limit_percent = 35,
    .may_die = true,
    .huge = true,
};

/* All that a pager can be asked to do. */
static const LoadConfig failpoint_load = {
    .writers = 3, .readers = 2, .kernel = 1, .dma = 1, .discards = 1,
    .words = 2, .hotplug = 1,
};

static Rig *new_rig(const RigConfig *base)
{
    RigConfig config = *base;

    config.pager.binary = torture_test_pager();
    return rig_new(&config, torture_seed());
}

/* The pager's own list; NULL-terminated. */
static char **list_failpoints(void)
{
    char *argv[] = { (char *)torture_test_pager(),
                     (char *)"--list-failpoints", NULL };
    char *out = NULL;
    char **names;
    int status;

    if (!g_spawn_sync(NULL, argv, NULL, 0, NULL, NULL, &out, NULL, &status,
                      NULL) || status) {
        g_error("%s --list-failpoints failed", argv[0]);
    }
    g_strchomp(out);
    names = g_strsplit(out, "\n", -1);
    g_free(out);
    return names;
}

static GHashTable *parse_counts(int fd)
{
    GHashTable *counts = g_hash_table_new_full(g_str_hash, g_str_equal,
                                               g_free, NULL);
    g_autofree char *text = g_malloc0(64 * KiB);
    g_auto(GStrv) lines = NULL;
    unsigned hits;
    char name[64];
    int i;

    g_assert(pread(fd, text, 64 * KiB - 1, 0) >= 0);
    lines = g_strsplit(text, "\n", -1);
    for (i = 0; lines[i]; i++) {
        if (sscanf(lines[i], "%63s %u", name, &hits) == 2) {
            g_hash_table_insert(counts, g_strdup(name),
                                GUINT_TO_POINTER(hits));
        }
    }
    return counts;
}

/* How often does a pager that resumes hit each failpoint? */
static GHashTable *count_hits(const RigConfig *config)
{
    int fd = memfd_create("counts", MFD_CLOEXEC);
    GHashTable *counts;
    Rig *rig = new_rig(config);

    if (rig_ok(rig)) {
        load_start(rig->load, &failpoint_load);
        load_watch(rig->load, 300);
        rig->fm->count_fd = fd;
        rig_kill_pager(rig);
        load_watch(rig->load, COUNT_MS);
        load_stop(rig->load);
    }
    rig_finish(rig);
    counts = parse_counts(fd);
    close(fd);
    return counts;
}

/* The next pager gets @failpoint; false if the run has failed. */
static bool next_pager(Rig *rig, const char *failpoint)
{
    fake_manager_arm(rig->fm, failpoint);
    return rig_kill_pager(rig);
}

/*
 * Attaching may be what kills it, so there is no waiting for the armed pager:
 * two resumes after the kill, a pager without failpoints serves.
 */
static void die_at(Rig *rig, const char *name, unsigned n)
{
    g_autofree char *failpoint = g_strdup_printf("%s:kill:%u", name, n);
    int64_t end = torture_now_us() + HIT_MS * 1000;
    unsigned starts = rig->fm->nr_starts;

    fake_manager_arm(rig->fm, failpoint);
    fake_manager_kill(rig->fm);
    while (rig->fm->nr_starts < starts + 2 && load_watch(rig->load, 1)) {
        if (torture_now_us() > end) {
            g_test_message("%s was not hit %u times", name, n);
            break;
        }
    }
    while (!rig->fq->serving) {
        if (!load_watch(rig->load, 1)) {
            return;
        }
    }
}

static void check_point(Rig *rig, const char *name, unsigned hits)
{
    unsigned samples = torture_is_long() ? 20 : 1;
    unsigned i;

    die_at(rig, name, 1);
    for (i = 0; i < samples && rig_ok(rig) && hits > 1; i++) {
        /* half of what was counted is certain to be reached again */
        die_at(rig, name, 1 + rng_below(&rig->rng, (hits + 1) / 2));
    }
    load_stop(rig->load);
    rig_check_all(rig);
    if (!rig_ok(rig)) {
        g_test_message("failpoint %s, hit %u times when counted", name, hits);
    }
    load_start(rig->load, &failpoint_load);
}

static void test_kill(gconstpointer config)
{
    g_auto(GStrv) names = list_failpoints();
    GHashTable *counts = count_hits(config);
    Rig *rig = new_rig(config);
    int i;

    if (rig_ok(rig)) {
        load_start(rig->load, &failpoint_load);
        load_watch(rig->load, 300);
    }
    for (i = 0; names[i] && rig_ok(rig); i++) {
        unsigned hits = GPOINTER_TO_UINT(g_hash_table_lookup(counts,
                                                             names[i]));

        if (!hits) {
            verdict_fail(rig->verdict, "failpoint %s is never hit", names[i]);
            break;
        }
        check_point(rig, names[i], hits);
    }
    g_hash_table_destroy(counts);
    rig_finish(rig);
}

/* Every window between two steps, held open for a while. */
static void test_delay(gconstpointer config)
{
    g_auto(GStrv) names = list_failpoints();
    Rig *rig = new_rig(config);
    unsigned ms = torture_is_long() ? 5000 : 250;
    int i;

    if (rig_ok(rig)) {
        load_start(rig->load, &failpoint_load);
        load_watch(rig->load, 300);
    }
    for (i = 0; names[i] && rig_ok(rig); i++) {
        g_autofree char *failpoint = g_strdup_printf("%s:delay=%d:1",
                                                     names[i], DELAY_MS);

        if (next_pager(rig, failpoint)) {
            load_watch(rig->load, ms);
        }
        if (!rig_ok(rig)) {
            g_test_message("delay at %s", names[i]);
        }
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* Single errors of the tier: tried again or given up, never in silence. */
static void test_tier_errors(gconstpointer config)
{
    static const char *const errors[] = {
        "tier-load:err1=5:1", "tier-load:err1=5:20", "tier-store:err1=5:1",
        "tier-store:err1=28:7", "tier-store:err1=5:30",
        "tier-load:err1=5:10,tier-store:err1=28:10",
    };
    Rig *rig = new_rig(config);
    int i;

    if (rig_ok(rig)) {
        load_start(rig->load, &failpoint_load);
        load_watch(rig->load, 300);
    }
    for (i = 0; i < ARRAY_SIZE(errors) && rig_ok(rig); i++) {
        if (!next_pager(rig, errors[i]) || !load_watch(rig->load, 400)) {
            g_test_message("failpoints %s", errors[i]);
        }
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_discard_all(rig);
    rig_finish(rig);
}

void torture_add_failpoints(void)
{
    g_test_add_data_func("/torture/failpoints/kill", &failpoint_config,
                         test_kill);
    g_test_add_data_func("/torture/failpoints/delay", &failpoint_config,
                         test_delay);
    g_test_add_data_func("/torture/failpoints/tier-errors", &failpoint_config,
                         test_tier_errors);
    g_test_add_data_func("/torture/failpoints/huge/kill", &huge_config,
                         test_kill);
    g_test_add_data_func("/torture/failpoints/huge/delay", &huge_config,
                         test_delay);
    g_test_add_data_func("/torture/failpoints/huge/tier-errors", &huge_config,
                         test_tier_errors);
}
