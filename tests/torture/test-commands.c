/*
 * Torture tests: the manager's commands under load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

static Rig *new_rig(void)
{
    const RigConfig config = {
        .stamped_mib = { 16, 4 },
        .words_mib = 2,
        .limit_percent = 50,
    };
    Rig *rig = rig_new(&config, torture_seed());

    rig_populate(rig);
    return rig;
}

/* Returns the amount that the answer names, 0 for OK; fails on an error. */
static uint64_t command(Rig *rig, MmMsgType type, const uint64_t *value)
{
    const MmMsgAmount amount = { .value = value ? *value : 0 };
    const FakeRequest rq = {
        .type = type,
        .payload = value ? &amount : NULL,
        .len = value ? sizeof(amount) : 0,
    };
    uint64_t result = 0;
    MmMsg reply;
    int ret;

    if (!rig_ok(rig)) {
        return 0;
    }
    ret = fake_manager_request(rig->fm, &rq, &reply);
    if (ret) {
        verdict_fail(rig->verdict, "%s: %s", mm_msg_type_name(type),
                     strerror(-ret));
    } else if (reply.hdr.type == MM_MSG_AMOUNT) {
        result = ((const MmMsgAmount *)reply.payload)->value;
    } else if (reply.hdr.type != MM_MSG_OK) {
        verdict_fail(rig->verdict, "%s answered by %s: %s",
                     mm_msg_type_name(type),
                     mm_msg_type_name(reply.hdr.type),
                     reply.hdr.type == MM_MSG_ERROR
                     ? ((const MmMsgError *)reply.payload)->text : "");
    }
    mm_msg_clear(&reply);
    return result;
}

static void expect(Rig *rig, bool ok, const char *what)
{
    if (!ok) {
        verdict_fail(rig->verdict, "%s", what);
    }
}

static void test_evict(void)
{
    Rig *rig = new_rig();
    const uint64_t nothing = 0, want = 2 * MiB, all = 1 * GiB;
    MmMsgQueryReply before = {}, after = {};
    int i;

    rig_check_numbers(rig);
    for (i = 0; i < 200; i++) {
        command(rig, MM_MSG_EVICT, &nothing);
    }
    fake_manager_query(rig->fm, &before);
    expect(rig, command(rig, MM_MSG_EVICT, &want) >= want,
           "EVICT did less than it was asked for");
    fake_manager_query(rig->fm, &after);
    expect(rig, after.resident + want <= before.resident,
           "EVICT has freed nothing");
    load_start(rig->load, &LOAD_MIXED);
    command(rig, MM_MSG_EVICT, &all);
    load_stop(rig->load);
    rig_check_all(rig);
    command(rig, MM_MSG_EVICT, &all);
    fake_manager_query(rig->fm, &after);
    expect(rig, after.resident < 64 * KiB,
           "EVICT of all has left much in memory");
    rig_check_all(rig);
    rig_finish(rig);
}

/* A page that is gone, though nobody has moved it, is not one of zeroes. */
static void test_hole(void)
{
    Rig *rig = new_rig();
    FakeRegion *region = rig->fq->regions[0];
    const uint64_t all = 1 * GiB;
    MmMsgQueryReply q = {};
    int page;

    expect(rig, fake_manager_set_limit(rig->fm, MM_LIMIT_NONE),
           "SET_LIMIT failed");
    command(rig, MM_MSG_SWAP_IN, NULL);
    rig->fq->may_lose = true;
    for (page = 0; rig_ok(rig) && page < 10; page++) {
        g_assert(fallocate(region->fds[MM_REGION_FD_RAM],
                           FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           page * STAMP_PAGE_SIZE, STAMP_PAGE_SIZE) == 0);
    }
    command(rig, MM_MSG_EVICT, &all);
    fake_manager_query(rig->fm, &q);
    expect(rig, q.stats.pages_lost == 10, "holes were taken for zero pages");
    rig_finish(rig);
}

/* All comes in, under load, and stays in. */
static void swap_in(Rig *rig)
{
    MmMsgQueryReply q = {};

    expect(rig, fake_manager_set_limit(rig->fm, MM_LIMIT_NONE),
           "SET_LIMIT failed");
    load_start(rig->load, &LOAD_MIXED);
    command(rig, MM_MSG_SWAP_IN, NULL);
    load_stop(rig->load);
    fake_manager_query(rig->fm, &q);
    expect(rig, !rig_ok(rig) || q.swapped + q.zero == 0,
           "SWAP_IN has left something out");
}

static void test_swap_in(void)
{
    Rig *rig = new_rig();

    swap_in(rig);
    rig_check_all(rig);
    /* and out again */
    expect(rig, fake_manager_set_limit(rig->fm, 4 * MiB), "SET_LIMIT failed");
    load_start(rig->load, &(LoadConfig) { .writers = 3, .readers = 2,
                                          .discards = 1, .words = 2 });
    load_watch(rig->load, 300);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/*
 * A long command by a second manager, so that the first one may do something
 * meanwhile: it has begun, and takes longer than that.  Returns the socket.
 */
static int start_command(Rig *rig, MmMsgType type)
{
    int fd = rig_ok(rig) ? fake_manager_connect(rig->fm, 0) : -1;
    MmMsg msg;

    if (fd < 0 || mm_msg_send(fd, MM_MSG_CONTROL_HELLO, 2, NULL, 0, NULL, 0) ||
        mm_msg_recv(fd, &msg, 5000) != 1 ||
        mm_msg_send(fd, type, 1, NULL, 0, NULL, 0)) {
        verdict_fail(rig->verdict, "cannot send a command");
        return -1;
    }
    mm_msg_clear(&msg);
    g_usleep(5000);
    return fd;
}

/* Whether the answer is OK; none in time is a failure. */
static bool finish_command(Rig *rig, int fd)
{
    MmMsg msg;
    bool ok = false;

    if (fd < 0) {
        return false;
    }
    do {
        if (mm_msg_recv(fd, &msg, 20000) != 1) {
            verdict_fail(rig->verdict, "a command was not answered");
            break;
        }
        ok = msg.hdr.type == MM_MSG_OK;
        mm_msg_clear(&msg);
    } while (msg.hdr.seq != 1);
    close(fd);
    return ok;
}

/*
 * The limit is lowered while all comes in: the command fails, since nothing
 * goes out meanwhile, and the guest goes on.
 */
static void test_swap_in_no_room(void)
{
    Rig *rig = new_rig();
    int fd;

    expect(rig, fake_manager_set_limit(rig->fm, MM_LIMIT_NONE),
           "SET_LIMIT failed");
    load_start(rig->load, &LOAD_MIXED);
    fd = start_command(rig, MM_MSG_SWAP_IN);
    expect(rig, fake_manager_set_limit(rig->fm, 4 * MiB), "SET_LIMIT failed");
    expect(rig, !finish_command(rig, fd),
           "SWAP_IN of more than the limit has worked");
    load_watch(rig->load, 500);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* A limit that is set during a detach is for a pager that goes on. */
static void test_detach_limit(void)
{
    Rig *rig = new_rig();
    int fd;

    load_start(rig->load, &(LoadConfig) { .writers = 3, .readers = 2,
                                          .kernel = 1, .dma = 1, .words = 2 });
    load_watch(rig->load, 200);
    fd = start_command(rig, MM_MSG_DETACH);
    expect(rig, fake_manager_set_limit(rig->fm, 4 * MiB), "SET_LIMIT failed");
    expect(rig, finish_command(rig, fd), "DETACH failed");
    expect(rig, fake_qemu_wait_detached(rig->fq, 10000), "not detached");
    load_watch(rig->load, 300);
    load_stop(rig->load);
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

/* Without a zap channel nothing could be evicted: a successor gets a new one */
static void test_zap_lost(void)
{
    Rig *rig = new_rig();

    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 100);
    if (rig_ok(rig)) {
        qatomic_set(&rig->fq->may_leave, true);
        shutdown(rig->fq->fds[MM_HELLO_FD_ZAP], SHUT_RDWR);
        expect(rig, fake_qemu_wait_resumes(rig->fq, 1, 20000),
               "no successor for a pager without a zap channel");
    }
    load_watch(rig->load, 500);
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

/* The VM goes on without a pager. */
static void test_detach(void)
{
    Rig *rig = new_rig();

    load_start(rig->load, &LOAD_MIXED);
    load_watch(rig->load, 200);
    command(rig, MM_MSG_DETACH, NULL);
    expect(rig, fake_qemu_wait_detached(rig->fq, 10000), "not detached");
    load_watch(rig->load, 300);
    load_stop(rig->load);
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

/* The pager dies while it brings everything in. */
static void test_detach_kill(void)
{
    Rig *rig = new_rig();
    unsigned i;

    load_start(rig->load, &LOAD_MIXED);
    for (i = 0; i < 10 && rig_ok(rig); i++) {
        int control = fake_manager_control(rig->fm);

        /* nobody waits for the answer */
        mm_msg_send(control, i % 2 ? MM_MSG_DETACH : MM_MSG_SWAP_IN, 1, NULL,
                    0, NULL, 0);
        load_watch(rig->load, rng_below(&rig->rng, 20));
        rig_kill_pager(rig);
        if (fake_qemu_wait_detached(rig->fq, 0)) {
            break;
        }
    }
    load_stop(rig->load);
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

/* A manager that has been restarted finds its pager by the socket. */
static void test_new_manager(void)
{
    Rig *rig = new_rig();
    int fd = rig_ok(rig) ? fake_manager_connect(rig->fm, 0) : -1;
    const MmMsgControlInfo *info;
    MmMsg msg;

    expect(rig, fd >= 0, "cannot connect to the pager");
    if (rig_ok(rig)) {
        /* the old one is gone */
        shutdown(fake_manager_control(rig->fm), SHUT_RDWR);
        mm_msg_send(fd, MM_MSG_CONTROL_HELLO, 7, NULL, 0, NULL, 0);
        expect(rig, mm_msg_recv(fd, &msg, 5000) == 1 &&
               msg.hdr.type == MM_MSG_CONTROL_INFO && msg.hdr.seq == 7,
               "no CONTROL_INFO");
        info = (const void *)msg.payload;
        expect(rig, info->serving && !memcmp(info->uuid, rig->fm->uuid,
                                             MM_UUID_LEN) &&
               info->pager_pid == fake_manager_pid(rig->fm),
               "CONTROL_INFO is wrong");
        mm_msg_clear(&msg);
        close(fd);
    }
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

/* Regions come and go while others are used, and pagers die. */
static void test_hotplug(void)
{
    Rig *rig = new_rig();
    LoadConfig load = LOAD_MIXED;
    unsigned i, n = torture_is_long() ? 200 : 10;

    load.hotplug = 1;
    load_start(rig->load, &load);
    load_watch(rig->load, 500);
    for (i = 0; i < n && load_watch(rig->load, rng_below(&rig->rng, 100));
         i++) {
        rig_kill_pager(rig);
    }
    load_stop(rig->load);
    rig_check_all(rig);
    rig_finish(rig);
}

void torture_add_commands(void)
{
    g_test_add_func("/torture/commands/evict", test_evict);
    g_test_add_func("/torture/commands/hole", test_hole);
    g_test_add_func("/torture/commands/swap-in", test_swap_in);
    g_test_add_func("/torture/commands/swap-in-no-room", test_swap_in_no_room);
    g_test_add_func("/torture/commands/detach", test_detach);
    g_test_add_func("/torture/commands/detach-limit", test_detach_limit);
    g_test_add_func("/torture/commands/zap-lost", test_zap_lost);
    g_test_add_func("/torture/commands/detach-kill", test_detach_kill);
    g_test_add_func("/torture/commands/new-manager", test_new_manager);
    g_test_add_func("/torture/commands/hotplug", test_hotplug);
}
