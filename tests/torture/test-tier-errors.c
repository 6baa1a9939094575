/*
 * Torture tests: tiers that fail for a while, and content that goes bad
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What cannot be read is never replaced by anything else: whoever needs it
 * waits, an event says so, and all goes on when the device is back.  What
 * cannot be written stays in memory.
 */
#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include "qemu/units.h"
#include "qapi/error.h"
#include "rig.h"
#include "rng.h"
#include "tier-peek.h"
#include "torture.h"

#define SIZE (16 * MiB)
#define LIMIT (4 * MiB)
#define EVENT_MS 10000
/* In half a second: some neighbours, too, ten times a second. */
#define READS_EACH 100
/* UFFD_FEATURE_POISON, which Debian 12's headers do not have */
#define FEATURE_POISON (1 << 14)

static Rig *new_rig_with(const PagerConfig *pager)
{
    RigConfig config = {
        .pager = *pager,
        .stamped_mib = { SIZE / MiB },
        .limit_percent = LIMIT * 100 / SIZE,
        .stuck_ms = 60000,
    };
    Rig *rig = rig_new(&config, torture_seed());

    rig_populate(rig);
    return rig;
}

static Rig *new_rig(const char *binary)
{
    return new_rig_with(&(PagerConfig) { .binary = binary });
}

static void expect_event(Rig *rig, MmEventKind kind, const char *what)
{
    if (rig_ok(rig) && !fake_qemu_wait_event(rig->fq, kind, 1, EVENT_MS)) {
        verdict_fail(rig->verdict, "no event: %s", what);
    }
}

/* Does the load make headway? */
static void expect_progress(Rig *rig, uint64_t accesses)
{
    int64_t end = torture_now_us() + EVENT_MS * 1000;
    uint64_t target = load_accesses(rig->load) + accesses;

    while (load_watch(rig->load, 10) && load_accesses(rig->load) < target) {
        if (torture_now_us() > end) {
            verdict_fail(rig->verdict, "service has not resumed");
        }
    }
}

/* Arms the next pager, and waits until it serves: it need not have a tier. */
static void arm(Rig *rig, const char *failpoint)
{
    if (rig_ok(rig)) {
        fake_manager_arm(rig->fm, failpoint);
        rig_kill_pager(rig);
    }
}

/* ... and until it has read what tells that its tiers are its own. */
static void arm_after_identities(Rig *rig, const char *failpoint)
{
    arm(rig, failpoint);
    if (rig_ok(rig) && !fake_manager_set_limit(rig->fm, LIMIT)) {
        verdict_fail(rig->verdict, "SET_LIMIT failed");
    }
}

static void finish(Rig *rig)
{
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

static void check_stalled(Rig *rig)
{
    MmMsgQueryReply q;

    if (!rig_ok(rig)) {
        return;
    }
    if (!fake_manager_query(rig->fm, &q) || !q.stalled_threads ||
        q.oldest_fault_ns < 100 * 1000000) {
        verdict_fail(rig->verdict, "QUERY shows no stalled threads");
    }
}

/* Reads fail until the device is back. */
static void test_read(void)
{
    Rig *rig = new_rig(torture_test_pager());

    arm(rig, "tier-load:err=5:2");
    load_start(rig->load, &(LoadConfig) { .readers = 4, .writers = 2 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be read");
    load_watch(rig->load, 500);
    check_stalled(rig);
    fake_manager_heal(rig->fm);
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be read again");
    expect_progress(rig, 1000);
    finish(rig);
}

static uint64_t read_errors(Rig *rig)
{
    MmMsgQueryReply q = {};

    if (rig_ok(rig) && !fake_manager_query(rig->fm, &q)) {
        verdict_fail(rig->verdict, "no answer to QUERY");
    }
    return q.stats.read_errors;
}

/* It ends, and says so, though nobody waits for what cannot be read. */
static void expect_no_swap_in(Rig *rig)
{
    const FakeRequest rq = { .type = MM_MSG_SWAP_IN };
    MmMsg reply;
    int ret;

    if (!rig_ok(rig)) {
        return;
    }
    if (!fake_manager_set_limit(rig->fm, MM_LIMIT_NONE)) {
        verdict_fail(rig->verdict, "SET_LIMIT failed");
    }
    ret = fake_manager_request(rig->fm, &rq, &reply);
    if (ret || reply.hdr.type != MM_MSG_ERROR) {
        verdict_fail(rig->verdict, "SWAP_IN of what cannot be read: %s",
                     ret ? strerror(-ret) : mm_msg_type_name(reply.hdr.type));
    }
    mm_msg_clear(&reply);
}

static Rig *new_compressed_rig(void)
{
    return new_rig_with(&(PagerConfig) {
        .binary = torture_test_pager(), .compressed_size = 64 * MiB,
    });
}

/* A tier whose reads end at once is no reason to hurry. */
static void check_pace(Rig *rig, unsigned waiters, unsigned least)
{
    uint64_t nr = read_errors(rig);

    load_watch(rig->load, 500);
    nr = read_errors(rig) - nr;
    if (rig_ok(rig) && (nr < least || nr > waiters * READS_EACH)) {
        verdict_fail(rig->verdict, "%" PRIu64 " reads in half a second", nr);
    }
}

static void test_read_compressed(void)
{
    Rig *rig = new_compressed_rig();

    arm_after_identities(rig, "tier-load:err=5:2");
    load_start(rig->load, &(LoadConfig) { .readers = 4, .writers = 2 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be read");
    load_watch(rig->load, 500);
    check_stalled(rig);
    check_pace(rig, 6, 2);
    expect_no_swap_in(rig);
    fake_manager_heal(rig->fm);
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be read again");
    expect_progress(rig, 1000);
    finish(rig);
}

/* Nobody heals it, but the next pager meets a device that works. */
static void test_read_kill(void)
{
    Rig *rig = new_rig(torture_test_pager());

    arm(rig, "tier-load:err=5:2");
    load_start(rig->load, &(LoadConfig) { .readers = 4, .writers = 2 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be read");
    load_watch(rig->load, 200);
    if (rig_ok(rig)) {
        rig_kill_pager(rig);
    }
    expect_progress(rig, 1000);
    finish(rig);
}

/* Pages that were never touched: no tier has them. */
static void touch_new_memory(Rig *rig, FakeRegion *region)
{
    unsigned i;

    for (i = 0; i < 8; i++) {
        region->mem[i * 8 * STAMP_PAGE_SIZE] = i;
    }
    for (i = 0; i < 8; i++) {
        if (region->mem[i * 8 * STAMP_PAGE_SIZE] != i) {
            verdict_fail(rig->verdict, "a new page is wrong");
        }
    }
}

/* The disk fails, or hangs, while a pager is taken over from. */
static void run_takeover(const PagerConfig *pager, const char *failpoint,
                         bool heal)
{
    Rig *rig = new_rig_with(pager);
    Error *err = NULL;
    FakeRegion *region = fake_qemu_add_region(rig->fq, 1 * MiB, MM_LIMIT_NONE,
                                              &err);

    /* the first load is that of the identity */
    arm(rig, failpoint);
    load_start(rig->load, &(LoadConfig) { .readers = 4, .writers = 2 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be taken over");
    if (rig_ok(rig) && region) {
        touch_new_memory(rig, region);
    }
    check_stalled(rig);
    if (heal) {
        load_watch(rig->load, 300);
        fake_manager_heal(rig->fm);
    }
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be used again");
    expect_progress(rig, 1000);
    if (!region || !fake_qemu_remove_region(rig->fq, region, &err)) {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
    }
    finish(rig);
}

static void test_takeover(void)
{
    run_takeover(&(PagerConfig) { .binary = torture_test_pager() },
                 "tier-load:err=5:1", true);
}

static void test_takeover_hung(void)
{
    run_takeover(&(PagerConfig) {
                     .binary = torture_test_pager(), .no_uring = true,
                 }, "tier-load:delay1=2500:1", false);
}

/* Each its own page, but they are neighbours. */
static void stream_worker(Worker *w)
{
    Shadow *s = w->fq->regions[0]->shadow;

    worker_begin(w, s->region, w->index);
    shadow_check(s, w->index, "stream");
    worker_end(w);
}

/*
 * Until it is known whether the disk answers, who waits for it waits.  Some of
 * the neighbours are compressed and answer at once: no reason to hurry either.
 */
static void test_takeover_pace(void)
{
    Rig *rig = new_compressed_rig();

    arm(rig, "tier-load:err=5:1");
    load_start_fn(rig->load, "stream", stream_worker, 32);
    check_pace(rig, 32, 0);
    fake_manager_heal(rig->fm);
    finish(rig);
}

/*
 * New memory needs room: other tiers than the disk can make some at once.  Some
 * has to go out for so many pages, but not all that does not compress.
 */
#define ROOM_PAGES (SIZE / STAMP_PAGE_SIZE * 3 / 16)

static void test_takeover_room(void)
{
    Rig *rig = new_compressed_rig();
    Error *err = NULL;
    FakeRegion *region = fake_qemu_add_region(rig->fq, SIZE, LIMIT / 4, &err);
    uint64_t page;

    arm(rig, "tier-load:err=5:1");
    for (page = 0; rig_ok(rig) && page < ROOM_PAGES; page++) {
        region->mem[page * STAMP_PAGE_SIZE] = 1;
    }
    if (rig->fq->nr_events[MM_EVENT_IO_ERROR]) {
        verdict_fail(rig->verdict, "new pages have waited: %s",
                     rig->fq->last_event.text);
    }
    fake_manager_heal(rig->fm);
    if (!region || !fake_qemu_remove_region(rig->fq, region, &err)) {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
    }
    finish(rig);
}

/* That it can be used again is told, also if nobody uses it. */
static void test_takeover_idle(void)
{
    Rig *rig = new_rig_with(&(PagerConfig) {
        .binary = torture_test_pager(), .no_uring = true,
    });

    if (rig_ok(rig)) {
        fake_manager_set_limit(rig->fm, 64 * MiB);
    }
    arm(rig, "tier-load:delay1=2500:1");
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be taken over");
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be used again");
    finish(rig);
}

/* Whose file it is nobody knows yet: it does not grow, either. */
static void test_takeover_reserve(void)
{
    Rig *rig = new_rig(torture_test_pager());
    Error *err = NULL;

    arm(rig, "tier-load:err=5:1");
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be taken over");
    if (rig_ok(rig) &&
        fake_qemu_add_region(rig->fq, 32 * MiB, 1 * MiB, &err)) {
        verdict_fail(rig->verdict, "space was reserved in it");
    }
    error_free(err);
    err = NULL;
    fake_manager_heal(rig->fm);
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be used again");
    if (rig_ok(rig)) {
        FakeRegion *region = fake_qemu_add_region(rig->fq, 32 * MiB, 1 * MiB,
                                                  &err);

        if (!region || !fake_qemu_remove_region(rig->fq, region, &err)) {
            verdict_fail(rig->verdict, "%s", error_get_pretty(err));
            error_free(err);
        }
    }
    finish(rig);
}

static void run_write_errors(const char *failpoint)
{
    Rig *rig = new_rig(torture_test_pager());

    arm(rig, failpoint);
    load_start(rig->load, &(LoadConfig) { .readers = 2, .writers = 4 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the tier cannot be written");
    load_watch(rig->load, 500);
    fake_manager_heal(rig->fm);
    expect_event(rig, MM_EVENT_IO_RECOVERED, "the tier can be written again");
    expect_progress(rig, 1000);
    finish(rig);
}

static void test_write_eio(void)
{
    run_write_errors("tier-store:err=5:1");
}

static void test_write_enospc(void)
{
    run_write_errors("tier-store:err=28:1");
}

/* A file system of our own, which can be full */

typedef struct SmallDisk {
    char *dir;
} SmallDisk;

static void disk_resize(const SmallDisk *disk, unsigned mib, bool remount)
{
    g_autofree char *options = g_strdup_printf("size=%uM", mib);

    if (mount("tmpfs", disk->dir, "tmpfs", remount ? MS_REMOUNT : 0,
              options)) {
        g_error("cannot mount a tmpfs: %s", strerror(errno));
    }
}

static SmallDisk disk_new(unsigned mib)
{
    SmallDisk disk = {
        .dir = g_strdup_printf("%s/disk-XXXXXX", torture_dir()),
    };

    g_assert(g_mkdtemp(disk.dir));
    disk_resize(&disk, mib, false);
    return disk;
}

static void disk_free(SmallDisk *disk)
{
    /* the namespace of a pager that is just gone may still have it */
    g_assert(umount2(disk->dir, MNT_DETACH) == 0);
    g_assert(g_rmdir(disk->dir) == 0);
    g_free(disk->dir);
}

/* False where tmpfs has no O_DIRECT, which is before Linux 6.6. */
static bool disk_usable(const SmallDisk *disk)
{
    int fd = open(disk->dir, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);

    if (fd < 0) {
        g_test_skip("tmpfs cannot do O_DIRECT on this kernel");
        return false;
    }
    close(fd);
    return true;
}

/* The disk fills up while the guest runs, then somebody makes room. */
static void run_disk_full(const SmallDisk *disk)
{
    const RigConfig config = {
        .pager = { .tier_dir = disk->dir, .overcommit = true },
        .stamped_mib = { 112 },
        .limit_percent = 10,
        .stuck_ms = 60000,
    };
    Rig *rig = rig_new(&config, torture_seed());

    load_start(rig->load, &(LoadConfig) { .writers = 6, .readers = 2 });
    if (rig_ok(rig) && !fake_qemu_wait_event(rig->fq, MM_EVENT_IO_ERROR, 1,
                                             60000)) {
        verdict_fail(rig->verdict, "no event on a full disk");
    }
    load_watch(rig->load, 1000);
    disk_resize(disk, 512, true);
    expect_event(rig, MM_EVENT_IO_RECOVERED, "there is room again");
    expect_progress(rig, 1000);
    finish(rig);
}

static void test_disk_full(void)
{
    SmallDisk disk = disk_new(48);

    if (disk_usable(&disk)) {
        run_disk_full(&disk);
    }
    disk_free(&disk);
}

/* Without overcommitting, the space is there or the region is refused. */
static void expect_refusal(Rig *rig)
{
    Error *err = NULL;

    if (fake_qemu_add_region(rig->fq, 64 * MiB, 8 * MiB, &err)) {
        verdict_fail(rig->verdict, "a region without space was accepted");
        return;
    }
    g_test_message("%s", error_get_pretty(err));
    error_free(err);
    err = NULL;
    if (!fake_qemu_add_region(rig->fq, 8 * MiB, 4 * MiB, &err)) {
        verdict_fail(rig->verdict, "%s", error_get_pretty(err));
        error_free(err);
    }
}

static void test_reserve(void)
{
    SmallDisk disk = disk_new(32);

    if (disk_usable(&disk)) {
        const RigConfig config = { .pager = { .tier_dir = disk.dir } };
        Rig *rig = rig_new(&config, torture_seed());

        if (rig_ok(rig)) {
            expect_refusal(rig);
        }
        rig_finish(rig);
    }
    disk_free(&disk);
}

static void test_tier_size(void)
{
    const RigConfig config = { .pager = { .tier_size = 16 * MiB } };
    Rig *rig = rig_new(&config, torture_seed());

    if (rig_ok(rig)) {
        expect_refusal(rig);
    }
    rig_finish(rig);
}

/* Content that goes bad */

/* Held while it is bad, served when the right content is back. */
static void test_repair(void)
{
    Rig *rig = new_rig(NULL);
    TierDamage *damage = rig_ok(rig) ? tier_damage_new(rig->fq, rig->seed)
                                     : NULL;

    rig->fq->may_lose = true;
    if (rig_ok(rig) && !damage) {
        verdict_fail(rig->verdict, "nothing to damage in the tier");
    }
    load_start(rig->load, &(LoadConfig) { .readers = 4 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the content is wrong");
    load_watch(rig->load, 500);
    check_stalled(rig);
    if (damage) {
        tier_damage_repair(damage);
        expect_progress(rig, 1000);
    }
    tier_damage_free(damage);
    finish(rig);
}

/* What a disk does that writes to the wrong place. */
static void test_misplaced(void)
{
    Rig *rig = new_rig(NULL);

    rig->fq->may_lose = true;
    if (rig_ok(rig) && !tier_damage_swap(rig->fq)) {
        verdict_fail(rig->verdict, "nothing to damage in the tier");
    }
    load_start(rig->load, &(LoadConfig) { .readers = 4 });
    expect_event(rig, MM_EVENT_IO_ERROR, "the content is another page's");
    load_watch(rig->load, 500);
    /* the threads are held: nobody swaps the pages back */
    load_abandon(rig->load);
    rig_finish(rig);
}

static __thread sigjmp_buf *on_sigbus;

static void sigbus_handler(int sig)
{
    if (!on_sigbus) {
        abort();
    }
    siglongjmp(*on_sigbus, 1);
}

/* Reads a page that may end in SIGBUS; ends with the first one that does. */
static void poisoned_reader(Worker *w)
{
    sigjmp_buf env;
    sigset_t set;
    uint64_t page;

    /* QEMU's threads are created with most signals blocked */
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    on_sigbus = &env;
    if (!sigsetjmp(env, 1)) {
        while (!worker_stopping(w)) {
            Shadow *s = worker_pick(w, &page);

            worker_begin(w, s->region, page);
            shadow_check(s, page, "reader");
            worker_end(w);
        }
        verdict_fail(w->fq->verdict, "no SIGBUS after giving up");
    }
    on_sigbus = NULL;
}

/* Linux 6.6 */
static bool have_poison(void)
{
    struct uffdio_api api = { .api = UFFD_API };
    int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    bool have = ioctl(uffd, UFFDIO_API, &api) == 0 &&
                (api.features & FEATURE_POISON);

    close(uffd);
    return have;
}

/* The operator gives the pages up: the guest is told, not lied to. */
static void give_up(Rig *rig)
{
    const FakeRequest rq = { .type = MM_MSG_GIVE_UP };
    const MmMsgAmount *amount;
    MmMsg reply;

    if (!rig_ok(rig)) {
        return;
    }
    if (fake_manager_request(rig->fm, &rq, &reply) ||
        reply.hdr.type != MM_MSG_AMOUNT) {
        verdict_fail(rig->verdict, "GIVE_UP failed");
        mm_msg_clear(&reply);
        return;
    }
    amount = (const void *)reply.payload;
    if (amount->value) {
        load_join(rig->load);
    } else {
        if (have_poison()) {
            verdict_fail(rig->verdict, "GIVE_UP has given nothing up");
        } else {
            g_test_skip("this kernel has no UFFDIO_POISON");
        }
        load_abandon(rig->load);
    }
    mm_msg_clear(&reply);
}

static void read_and_give_up(Rig *rig, const char *why)
{
    struct sigaction act = { .sa_handler = sigbus_handler }, old;

    sigaction(SIGBUS, &act, &old);
    rig->fq->may_lose = true;
    load_start_fn(rig->load, "poisoned", poisoned_reader, 1);
    expect_event(rig, MM_EVENT_IO_ERROR, why);
    load_watch(rig->load, 200);
    give_up(rig);
    load_stop(rig->load);
    sigaction(SIGBUS, &old, NULL);
}

static void test_give_up(void)
{
    Rig *rig = new_rig(NULL);
    TierDamage *damage = rig_ok(rig) ? tier_damage_new(rig->fq, rig->seed)
                                     : NULL;

    read_and_give_up(rig, "the content is wrong");
    tier_damage_free(damage);
    rig_finish(rig);
}

/* A read that does not come back need not be waited for. */
static void test_give_up_hung(void)
{
    const RigConfig config = {
        .pager = { .binary = torture_test_pager(), .no_uring = true },
        .stamped_mib = { 16 },
        .limit_percent = 25,
        .stuck_ms = 60000,
    };
    Rig *rig = rig_new(&config, torture_seed());

    rig_populate(rig);
    arm(rig, "tier-load:delay=30000:2");
    read_and_give_up(rig, "a read hangs");
    rig_finish(rig);
}

void torture_add_tier_errors(void)
{
    g_test_add_func("/torture/tier-errors/read", test_read);
    g_test_add_func("/torture/tier-errors/read-compressed",
                    test_read_compressed);
    g_test_add_func("/torture/tier-errors/read-kill", test_read_kill);
    g_test_add_func("/torture/tier-errors/takeover", test_takeover);
    g_test_add_func("/torture/tier-errors/takeover-hung", test_takeover_hung);
    g_test_add_func("/torture/tier-errors/takeover-pace", test_takeover_pace);
    g_test_add_func("/torture/tier-errors/takeover-room", test_takeover_room);
    g_test_add_func("/torture/tier-errors/takeover-idle", test_takeover_idle);
    g_test_add_func("/torture/tier-errors/takeover-reserve",
                    test_takeover_reserve);
    g_test_add_func("/torture/tier-errors/write-eio", test_write_eio);
    g_test_add_func("/torture/tier-errors/write-enospc", test_write_enospc);
    g_test_add_func("/torture/tier-errors/disk-full", test_disk_full);
    g_test_add_func("/torture/tier-errors/reserve", test_reserve);
    g_test_add_func("/torture/tier-errors/tier-size", test_tier_size);
    g_test_add_func("/torture/tier-errors/repair", test_repair);
    g_test_add_func("/torture/tier-errors/misplaced", test_misplaced);
    g_test_add_func("/torture/tier-errors/give-up", test_give_up);
    g_test_add_func("/torture/tier-errors/give-up-hung", test_give_up_hung);
}
