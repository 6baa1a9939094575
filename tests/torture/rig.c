/*
 * Torture tests: a VM ready to be tortured
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "ring.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define DEFAULT_STUCK_MS 20000
#define REST_MS 10000
#define POPULATE_WORKERS 4

static void add_region(Rig *rig, const RigConfig *config, unsigned mib,
                       bool words)
{
    uint64_t size = mib * MiB;
    uint64_t limit = MM_LIMIT_NONE;
    FakeRegion *region;
    Error *err = NULL;

    if (!mib || !rig_ok(rig)) {
        return;
    }
    if (config->limit_percent) {
        limit = ROUND_UP(size * config->limit_percent / 100, STAMP_PAGE_SIZE);
    }
    region = fake_qemu_add_region(rig->fq, size, limit, &err);
    if (!region) {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
        return;
    }
    rig->size += size;
    if (words) {
        fake_region_expect_words(region);
    } else {
        fake_region_expect_stamps(rig->fq, region);
    }
}

Rig *rig_new(const RigConfig *config, uint64_t seed)
{
    Rig *rig = g_new0(Rig, 1);
    Error *err = NULL;

    rig->seed = rig->rng = seed;
    rig->verdict = verdict_new();
    rig->fm = fake_manager_new(&config->pager);
    rig->fq = fake_qemu_new(rig->fm, rig->verdict, seed);
    rig->fq->may_die = config->may_die;
    rig->fq->auto_resume = !config->no_resume;
    rig->fq->hostile = config->hostile;
    rig->fq->encrypted = config->encrypted;
    if (config->huge) {
        rig->fq->page_size = 2 * MiB;
        torture_need_huge_pages(config->stamped_mib[0] +
                                config->stamped_mib[1] + config->words_mib);
    }
    rig->load = load_new(rig->fq, seed, config->stuck_ms ?: DEFAULT_STUCK_MS);
    if (!fake_qemu_attach(rig->fq, &err)) {
        verdict_fail(rig->verdict, "attach: %s", error_get_pretty(err));
        error_free(err);
        return rig;
    }
    add_region(rig, config, config->stamped_mib[0], false);
    add_region(rig, config, config->words_mib, true);
    add_region(rig, config, config->stamped_mib[1], false);
    return rig;
}

char *rig_free(Rig *rig)
{
    char *text;

    load_stop(rig->load);
    fake_qemu_stop(rig->fq);
    load_free(rig->load);
    fake_qemu_free(rig->fq);
    if (!fake_manager_free(rig->fm)) {
        verdict_fail(rig->verdict, "files were left behind");
    }
    text = g_strdup(verdict_text(rig->verdict));
    verdict_free(rig->verdict);
    g_free(rig);
    return text;
}

void rig_finish(Rig *rig)
{
    uint64_t seed = rig->seed;
    g_autofree char *text = rig_free(rig);

    if (text) {
        g_test_message("seed 0x%" PRIx64 ": %s", seed, text);
        g_test_fail();
    }
}

bool rig_ok(Rig *rig)
{
    return !verdict_failed(rig->verdict);
}

/* What the kernel says is there. */
static uint64_t memfd_bytes(Rig *rig)
{
    uint64_t sum = 0;
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        FakeRegion *region = rig->fq->regions[i];
        struct stat st;

        if (region) {
            g_assert(fstat(region->fds[MM_REGION_FD_RAM], &st) == 0);
            sum += st.st_blocks * UINT64_C(512);
        }
    }
    return sum;
}

/* Returns what is wrong, or NULL. */
static char *judge_numbers(Rig *rig, const MmMsgQueryReply *q)
{
    uint64_t sum = q->resident + q->zero + q->swapped + q->never;
    uint64_t present = memfd_bytes(rig);
    uint64_t used = 0;
    int i;

    for (i = 0; i < MM_MAX_TIERS; i++) {
        used += q->tier_content[i];
    }
    if (sum != q->size || q->size != rig->size) {
        return g_strdup_printf("resident %" PRIu64 " + zero %" PRIu64
                               " + swapped %" PRIu64 " + never %" PRIu64
                               " = %" PRIu64 " of size %" PRIu64 " (%" PRIu64
                               " attached)", q->resident, q->zero, q->swapped,
                               q->never, sum, q->size, rig->size);
    }
    if (q->resident != present) {
        return g_strdup_printf("resident %" PRIu64 ", but the memfds have %"
                               PRIu64 " bytes", q->resident, present);
    }
    if (used != q->swapped) {
        return g_strdup_printf("swapped %" PRIu64 ", but %" PRIu64
                               " bytes of the tiers are in use", q->swapped,
                               used);
    }
    if (q->resident > q->limit) {
        return g_strdup_printf("resident %" PRIu64 " over the limit of %"
                               PRIu64, q->resident, q->limit);
    }
    if (q->stalled_threads || q->oldest_fault_ns) {
        return g_strdup_printf("%u threads wait, the first since %" PRIu64
                               " ns", q->stalled_threads, q->oldest_fault_ns);
    }
    return NULL;
}

void rig_check_numbers(Rig *rig)
{
    int64_t end = torture_now_us() + REST_MS * 1000;
    g_autofree char *text = NULL;
    MmMsgQueryReply q;

    if (!rig_ok(rig)) {
        return;
    }
    do {
        g_clear_pointer(&text, g_free);
        if (!fake_manager_query(rig->fm, &q)) {
            verdict_fail(rig->verdict, "no answer to QUERY");
            return;
        }
        text = judge_numbers(rig, &q);
        if (!text) {
            return;
        }
        g_usleep(10000);
    } while (torture_now_us() < end);
    verdict_fail(rig->verdict, "at rest: %s", text);
}

static void discard_region(Worker *w, FakeRegion *region)
{
    uint64_t page, nr_pages = region->size / STAMP_PAGE_SIZE;

    for (page = 0; page < nr_pages && region->shadow; page++) {
        shadow_discard_begin(region->shadow, page);
    }
    worker_begin(w, region->id, 0);
    if (!ring_discard(w->fq, region->id, 0, nr_pages)) {
        verdict_fail(w->fq->verdict, "discard of a whole region failed");
        return;
    }
    worker_end(w);
    for (page = 0; page < nr_pages; page++) {
        if (region->shadow) {
            shadow_discard_end(region->shadow, page, SHADOW_DISCARDED);
        } else if (region->words) {
            memset(region->words + page * WORD_LANES, 0,
                   WORD_LANES * sizeof(uint64_t));
        }
    }
}

static void discard_all_worker(Worker *w)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS && !worker_stopping(w); i++) {
        if (w->fq->regions[i]) {
            discard_region(w, w->fq->regions[i]);
        }
    }
}

void rig_discard_all(Rig *rig)
{
    MmMsgQueryReply q;

    if (rig_ok(rig)) {
        load_run_fn(rig->load, "discard all", discard_all_worker, NULL);
    }
    if (rig_ok(rig) && fake_manager_query(rig->fm, &q) &&
        q.never != rig->size) {
        verdict_fail(rig->verdict, "%" PRIu64 " of %" PRIu64 " bytes never "
                     "populated after a discard of all", q.never, rig->size);
    }
    rig_check_all(rig);
}

void rig_check_all(Rig *rig)
{
    if (rig_ok(rig) && load_sweep(rig->load)) {
        rig_check_numbers(rig);
    }
}

static void populate_region(Worker *w, FakeRegion *region)
{
    Shadow *s = region->shadow;
    uint64_t page;

    for (page = w->index; page < s->nr_pages && !worker_stopping(w);
         page += POPULATE_WORKERS) {
        worker_begin(w, region->id, page);
        shadow_write(s, page);
        worker_end(w);
    }
}

static void populate_worker(Worker *w)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        FakeRegion *region = w->fq->regions[i];

        if (region && region->shadow) {
            populate_region(w, region);
        }
    }
}

void rig_populate(Rig *rig)
{
    if (rig_ok(rig)) {
        load_start_fn(rig->load, "populate", populate_worker,
                      POPULATE_WORKERS);
        load_join(rig->load);
    }
}

bool rig_kill_pager(Rig *rig)
{
    unsigned n = rig->fq->resumes;

    fake_manager_kill(rig->fm);
    if (!fake_qemu_wait_resumes(rig->fq, n + 1, 60000)) {
        verdict_fail(rig->verdict, "no resume within a minute");
        return false;
    }
    return true;
}

static int compare_int64(gconstpointer a, gconstpointer b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

void rig_print_stalls(Rig *rig, const char *what)
{
    GArray *stalls = rig->fq->stalls_us;

    if (!stalls->len) {
        return;
    }
    g_array_sort(stalls, compare_int64);
    g_test_message("%s: %u resumes, connection lost to served: median %" PRId64
                   " us, p99 %" PRId64 " us, max %" PRId64 " us", what,
                   stalls->len, g_array_index(stalls, int64_t, stalls->len / 2),
                   g_array_index(stalls, int64_t, stalls->len * 99 / 100),
                   g_array_index(stalls, int64_t, stalls->len - 1));
}
