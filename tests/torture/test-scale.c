/*
 * Torture tests: many threads, many VMs, much memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Passes if all of it works; the numbers are told for information.
 */
#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/units.h"
#include "qapi/error.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define NR_THREADS 64
#define NR_VMS 256
/* Of a region of which few pages are touched. */
#define LIMIT (64 * MiB)

/* Of the pager's private memory, in KiB; the guest's memory is not mapped. */
static unsigned long pager_rss_kib(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", pid);
    g_autofree char *text = NULL;
    unsigned long kib = 0;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    line = strstr(text, "RssAnon:");
    if (line) {
        sscanf(line, "RssAnon: %lu", &kib);
    }
    return kib;
}

static uint64_t fd_bytes(int fd)
{
    struct stat st;

    g_assert(fstat(fd, &st) == 0);
    return st.st_blocks * UINT64_C(512);
}

static void test_threads(void)
{
    const RigConfig config = {
        .stamped_mib = { 48 },
        .limit_percent = 30,
    };
    const LoadConfig load = {
        .writers = NR_THREADS / 2, .readers = NR_THREADS / 2,
    };
    Rig *rig = rig_new(&config, torture_seed());
    MmMsgQueryReply q = {};
    unsigned seconds = torture_seconds(3, 60);

    load_start(rig->load, &load);
    load_watch(rig->load, seconds * 1000);
    load_stop(rig->load);
    fake_manager_query(rig->fm, &q);
    g_test_message("%u threads: %" PRIu64 " faults, %" PRIu64 " evictions "
                   "per second", NR_THREADS,
                   (q.stats.fault_missing + q.stats.fault_minor +
                    q.stats.fault_zero + q.stats.fault_swapin) / seconds,
                   q.stats.pages_evicted / seconds);
    rig_check_all(rig);
    rig_finish(rig);
}

/* 256 VMs at once: each keeps some 20 descriptors with us. */
static bool raise_fd_limit(void)
{
    struct rlimit limit = { .rlim_cur = 16384, .rlim_max = 16384 };

    if (setrlimit(RLIMIT_NOFILE, &limit)) {
        g_test_skip("cannot open enough descriptors");
        return false;
    }
    return true;
}

static void test_attachments(void)
{
    const RigConfig config = { .stamped_mib = { 1 }, .limit_percent = 50 };
    Rig *rigs[NR_VMS] = {};
    unsigned long rss = 0;
    int64_t start, us;
    int i;

    if (!raise_fd_limit()) {
        return;
    }
    start = torture_now_us();
    for (i = 0; i < NR_VMS && (!i || rig_ok(rigs[i - 1])); i++) {
        rigs[i] = rig_new(&config, torture_seed());
    }
    us = torture_now_us() - start;
    for (i = 0; i < NR_VMS && rigs[i]; i++) {
        load_start(rigs[i]->load, &(LoadConfig) { .writers = 1,
                                                  .think_us = 10000 });
    }
    for (i = 0; i < NR_VMS && rigs[i]; i++) {
        load_watch(rigs[i]->load, 5);
        rss += pager_rss_kib(fake_manager_pid(rigs[i]->fm));
    }
    g_test_message("%d attachments: %" PRId64 " us each, %lu KiB of private "
                   "memory each", NR_VMS, us / NR_VMS, rss / NR_VMS);
    for (i = 0; i < NR_VMS && rigs[i]; i++) {
        load_stop(rigs[i]->load);
    }
    for (i = 0; i < NR_VMS && rigs[i]; i++) {
        rig_check_all(rigs[i]);
        rig_finish(rigs[i]);
    }
}

typedef struct Sparse {
    FakeRegion *region;
    uint64_t step;              /* pages from one used page to the next */
    bool check;                 /* look at them, instead of writing them */
} Sparse;

static void sparse_worker(Worker *w)
{
    const Sparse *sparse = w->opaque;
    Shadow *s = sparse->region->shadow;
    uint64_t page;

    for (page = 0; page < s->nr_pages && !worker_stopping(w);
         page += sparse->step) {
        worker_begin(w, s->region, page);
        if (sparse->check) {
            shadow_check(s, page, "after the kill");
        } else {
            shadow_write(s, page);
        }
        worker_end(w);
    }
}

static FakeRegion *add_big_region(Rig *rig, uint64_t size, uint64_t limit)
{
    FakeRegion *region = NULL;
    Error *err = NULL;

    if (rig_ok(rig)) {
        region = fake_qemu_add_region(rig->fq, size, limit, &err);
    }
    if (region) {
        fake_region_expect_stamps(rig->fq, region);
    } else if (err) {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
    }
    return region;
}

/* Returns how long it takes to read all again. */
static int64_t touch_and_kill(Rig *rig, FakeRegion *region, uint64_t step)
{
    Sparse sparse = { .region = region, .step = step / STAMP_PAGE_SIZE };
    int64_t start;

    load_run_fn(rig->load, "sparse writer", sparse_worker, &sparse);
    if (!rig_ok(rig) || !rig_kill_pager(rig)) {
        return 0;
    }
    sparse.check = true;
    start = torture_now_us();
    load_run_fn(rig->load, "sparse reader", sparse_worker, &sparse);
    return torture_now_us() - start;
}

/* Attach, touch, kill, look again: with the times that this takes. */
static void run_size(uint64_t size, uint64_t step, uint64_t limit)
{
    const RigConfig config = { .pager = { .overcommit = true } };
    Rig *rig = rig_new(&config, torture_seed());
    int64_t start = torture_now_us();
    FakeRegion *region = add_big_region(rig, size, limit);
    int64_t attach = torture_now_us() - start;
    int64_t again = region ? touch_and_kill(rig, region, step) : 0;

    if (rig_ok(rig)) {
        g_test_message("%" PRIu64 " MiB, a page every %" PRIu64 " KiB: "
                       "attach %" PRId64 " us, stall after a kill %" PRId64
                       " us, all read again %" PRId64 " us, pager %lu KiB, "
                       "page map %" PRIu64 " KiB", size / MiB, step / KiB,
                       attach, g_array_index(rig->fq->stalls_us, int64_t, 0),
                       again, pager_rss_kib(fake_manager_pid(rig->fm)),
                       fd_bytes(region->fds[MM_REGION_FD_MAP]) / KiB);
    }
    rig_finish(rig);
}

static void test_sizes(void)
{
    run_size(1 * GiB, 64 * KiB, LIMIT);
    run_size(4 * GiB, 256 * KiB, LIMIT);
    run_size(16 * GiB, 1 * MiB, LIMIT);
}

/* All of it is there, so that each page has to be looked at after a kill. */
static void test_dense(void)
{
    run_size(256 * MiB, 4 * KiB, MM_LIMIT_NONE);
    run_size(torture_seconds(1, 4) * GiB, 4 * KiB, MM_LIMIT_NONE);
}

static void test_sparse_tib(void)
{
    run_size(1 * TiB, 1 * GiB, LIMIT);
}

void torture_add_scale(void)
{
    g_test_add_func("/torture/scale/threads", test_threads);
    g_test_add_func("/torture/scale/attachments", test_attachments);
    g_test_add_func("/torture/scale/sizes", test_sizes);
    g_test_add_func("/torture/scale/dense", test_dense);
    g_test_add_func("/torture/scale/sparse-tib", test_sparse_tib);
}
