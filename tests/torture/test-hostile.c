/*
 * Torture tests: a QEMU that a guest has broken, and a garbling manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whatever QEMU says or does, the pager either answers and goes on or ends in
 * order, in bounded time: it never crashes, and never hangs.  What a manager
 * says must not even disturb the VM.
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "qemu/units.h"
#include "rig.h"
#include "rng.h"
#include "torture.h"

#define BOUNDED_MS 5000

static Rig *new_rig(void)
{
    const RigConfig config = {
        .stamped_mib = { 2 },
        .limit_percent = 50,
        .no_resume = true,
        .hostile = true,
    };

    return rig_new(&config, torture_seed());
}

/* Sends a datagram as it is, with up to MM_MSG_MAX_FDS + 1 descriptors. */
static void send_raw(int sock, const void *data, size_t len, int nr_fds)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE((MM_MSG_MAX_FDS + 1) * sizeof(int))];
    } control = {};
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int i;

    if (nr_fds) {
        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        control.align.cmsg_level = SOL_SOCKET;
        control.align.cmsg_type = SCM_RIGHTS;
        control.align.cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        for (i = 0; i < nr_fds; i++) {
            ((int *)CMSG_DATA(&control.align))[i] = null;
        }
    }
    sendmsg(sock, &mh, MSG_NOSIGNAL);
    close(null);
}

static void send_typed(int sock, uint32_t type, const void *payload,
                       size_t len, int nr_fds)
{
    g_autofree uint8_t *data = g_malloc0(sizeof(MmMsgHeader) + len);
    MmMsgHeader *hdr = (void *)data;

    hdr->type = type;
    hdr->len = len;
    hdr->seq = 99;
    if (len) {
        memcpy(hdr + 1, payload, len);
    }
    send_raw(sock, data, sizeof(*hdr) + len, nr_fds);
}

/* Answers, or has ended in order: anything else is a failure. */
static char *judge(Rig *rig)
{
    MmMsgQueryReply q;
    bool wanted;
    int status;

    if (fake_manager_query(rig->fm, &q)) {
        return NULL;
    }
    status = fake_manager_reap(rig->fm, BOUNDED_MS, &wanted);
    if (status == -1) {
        return g_strdup("neither answers nor ends");
    }
    return WIFSIGNALED(status) ? describe_status(status) : NULL;
}

typedef struct Attack {
    const char *name;
    void (*run)(Rig *rig);
} Attack;

static void run_attack(const Attack *attack)
{
    Rig *rig = new_rig();
    g_autofree char *text = NULL;
    g_autofree char *wrong = NULL;

    if (!rig_ok(rig)) {
        rig_finish(rig);
        return;
    }
    g_test_message("%s", attack->name);
    verdict_mute(rig->verdict, true);
    attack->run(rig);
    wrong = judge(rig);
    verdict_mute(rig->verdict, false);
    if (wrong) {
        verdict_fail(rig->verdict, "%s: %s", attack->name, wrong);
    }
    rig_finish(rig);
}

/* On the connection */

static void attack_short(Rig *rig)
{
    uint8_t data[sizeof(MmMsgHeader)] = { MM_MSG_QUERY };

    send_raw(rig->fq->sock, data, 1, 0);
}

static void attack_no_header(Rig *rig)
{
    uint8_t data[sizeof(MmMsgHeader)] = { MM_MSG_QUERY };

    send_raw(rig->fq->sock, data, sizeof(data) - 1, 0);
}

static void attack_empty(Rig *rig)
{
    send_raw(rig->fq->sock, "", 0, 0);
}

static void attack_empty_with_fd(Rig *rig)
{
    send_raw(rig->fq->sock, "", 0, 1);
}

static void attack_length(Rig *rig)
{
    MmMsgHeader hdr = { .type = MM_MSG_SET_LIMIT, .len = UINT32_MAX };

    send_raw(rig->fq->sock, &hdr, sizeof(hdr), 0);
}

static void attack_oversize(Rig *rig)
{
    g_autofree uint8_t *data = g_malloc0(2 * MM_MSG_MAX);

    send_raw(rig->fq->sock, data, 2 * MM_MSG_MAX, 0);
}

static void attack_too_many_fds(Rig *rig)
{
    send_typed(rig->fq->sock, MM_MSG_UFFD, NULL, 0, MM_MSG_MAX_FDS + 1);
}

static void attack_fds_with_query(Rig *rig)
{
    send_typed(rig->fq->sock, MM_MSG_QUERY, NULL, 0, 3);
}

static void attack_no_fd(Rig *rig)
{
    send_typed(rig->fq->sock, MM_MSG_UFFD, NULL, 0, 0);
}

static void attack_second_uffd(Rig *rig)
{
    send_typed(rig->fq->sock, MM_MSG_UFFD, NULL, 0, 1);
}

static void add_region(Rig *rig, const MmMsgRegion *region)
{
    send_typed(rig->fq->sock, MM_MSG_REGION_ADD, region, sizeof(*region), 0);
}

static void attack_region_sizes(Rig *rig)
{
    static const uint64_t sizes[] = {
        0, 1, 4095, 4097, UINT64_MAX, UINT64_MAX - 4095, 1ULL << 63,
        1ULL << 48, (16ULL << 40) + 4096,
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        MmMsgRegion region = {
            .id = 10 + i, .page_size = 4096, .size = sizes[i],
            .limit = 4096,
        };

        add_region(rig, &region);
    }
}

static void attack_region_page_sizes(Rig *rig)
{
    static const uint32_t sizes[] = { 0, 1, 512, 8192, 2 * MiB, UINT32_MAX };
    int i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        MmMsgRegion region = {
            .id = 10 + i, .page_size = sizes[i], .size = 1 * MiB,
        };

        add_region(rig, &region);
    }
}

static void attack_region_ids(Rig *rig)
{
    MmMsgRegion region = { .page_size = 4096, .size = 1 * MiB };

    add_region(rig, &region);           /* 0 is there already */
    region.id = MM_MAX_REGIONS;
    add_region(rig, &region);
    region.id = UINT32_MAX;
    add_region(rig, &region);
}

static void attack_region_name(Rig *rig)
{
    MmMsgRegion region = { .id = 9, .page_size = 4096, .size = 1 * MiB };

    memset(region.idstr, 'x', sizeof(region.idstr));
    add_region(rig, &region);
}

static void attack_region_limits(Rig *rig)
{
    static const uint64_t limits[] = { 0, 1, UINT64_MAX - 1, 1ULL << 63 };
    int i;

    for (i = 0; i < ARRAY_SIZE(limits); i++) {
        MmMsgRegion region = {
            .id = 10 + i, .page_size = 4096, .size = 1 * MiB,
            .limit = limits[i],
        };

        add_region(rig, &region);
    }
}

/* As many regions as fit, each as large as can be. */
static void attack_region_flood(Rig *rig)
{
    int i;

    for (i = 1; i < MM_MAX_REGIONS; i++) {
        MmMsgRegion region = {
            .id = i, .page_size = 4096, .size = 16ULL << 40,
            .limit = 16ULL << 40,
        };

        add_region(rig, &region);
    }
}

static void attack_ready(Rig *rig)
{
    static const MmMsgRegionRef refs[] = {
        { .id = 0, .hva = 4096 }, { .id = 5, .hva = 4096 },
        { .id = UINT32_MAX, .hva = 4096 },
    };

    send_typed(rig->fq->sock, MM_MSG_REGION_READY,
               &refs[rng_below(&rig->rng, 3)], sizeof(refs[0]), 0);
}

/* A region that lies where another one does, or at the end of the world. */
static void attack_ready_address(Rig *rig)
{
    uint64_t addresses[] = {
        0, 1, UINT64_MAX - 4095, (uintptr_t)rig->fq->regions[0]->mem,
        (uintptr_t)rig->fq->regions[0]->mem + 4096, 1ULL << 63,
    };
    MmMsgRegion region = {
        .id = 3, .page_size = 4096, .size = 1 * MiB, .limit = 1 * MiB,
    };
    MmMsgRegionRef ref = {
        .id = 3,
        .hva = addresses[rng_below(&rig->rng, ARRAY_SIZE(addresses))],
    };

    add_region(rig, &region);
    send_typed(rig->fq->sock, MM_MSG_REGION_READY, &ref, sizeof(ref), 0);
}

/* What is not there is gone: only an impossible number ends the connection. */
static void attack_remove(Rig *rig)
{
    MmMsgRegionRef ref = { .id = rng_next(&rig->rng) % 3 };

    send_typed(rig->fq->sock, MM_MSG_REGION_REMOVE, &ref, sizeof(ref), 0);
    send_typed(rig->fq->sock, MM_MSG_REGION_REMOVE, &ref, sizeof(ref), 0);
}

static void attack_unasked_answers(Rig *rig)
{
    static const MmMsgError error = { .err = 5 };

    send_typed(rig->fq->sock, MM_MSG_OK, NULL, 0, 0);
    send_typed(rig->fq->sock, MM_MSG_ERROR, &error, sizeof(error), 0);
}

/* Never reads an answer, asks all the same. */
static void attack_flood(Rig *rig)
{
    struct timeval timeout = { .tv_usec = 1000 };
    int i;

    setsockopt(rig->fq->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout,
               sizeof(timeout));
    for (i = 0; i < 3000; i++) {
        send_typed(rig->fq->sock, MM_MSG_QUERY, NULL, 0, 0);
    }
}

/* Any type, mostly with a payload of the right size, but of any content. */
static void attack_random(Rig *rig)
{
    static const size_t sizes[] = {
        0, sizeof(MmMsgRegion), sizeof(MmMsgRegionRef), sizeof(MmMsgAmount),
        sizeof(MmMsgError), sizeof(MmMsgHold), sizeof(MmMsgHello), 1000,
    };
    uint64_t payload[sizeof(MmMsgError) / 8 + 1];
    int n, i;

    for (n = 0; n < 10; n++) {
        for (i = 0; i < ARRAY_SIZE(payload); i++) {
            payload[i] = rng_chance(&rig->rng, 50) ? rng_next(&rig->rng)
                         : rng_below(&rig->rng, 8);
        }
        send_typed(rig->fq->sock, rng_below(&rig->rng, MM_MSG__MAX + 2),
                   payload,
                   sizes[rng_below(&rig->rng, ARRAY_SIZE(sizes))],
                   rng_chance(&rig->rng, 80) ? 0
                   : rng_below(&rig->rng, MM_MSG_MAX_FDS));
    }
}

/* On the zap channel */

static int zap_socket(Rig *rig)
{
    return rig->fq->fds[MM_HELLO_FD_ZAP];
}

/* Has the pager evict, so that it reads the channel. */
static void touch_all(Rig *rig)
{
    load_start(rig->load, &(LoadConfig) { .readers = 2 });
    g_usleep(50000);
    fake_qemu_release_faults(rig->fq);
    load_stop(rig->load);
}

static void attack_zap_garbage(Rig *rig)
{
    send_raw(zap_socket(rig), "garbage", 7, 2);
    touch_all(rig);
}

static void attack_zap_early(Rig *rig)
{
    int i;

    for (i = 0; i < 100; i++) {
        send_typed(zap_socket(rig), MM_MSG_ZAP_DONE, NULL, 0, 0);
    }
    touch_all(rig);
}

static void attack_zap_close(Rig *rig)
{
    shutdown(zap_socket(rig), SHUT_RDWR);
    touch_all(rig);
}

/* In shared memory */

static void attack_ring(Rig *rig)
{
    MmRing *ring = rig->fq->ring;
    uint64_t one = 1;
    int n, i;

    for (n = 0; n < 20; n++) {
        for (i = 0; i < MM_RING_SLOTS; i++) {
            ring->slots[i].range.region = rng_chance(&rig->rng, 50)
                ? 0 : rng_next(&rig->rng);
            ring->slots[i].range.nr_pages = rng_next(&rig->rng) >>
                                            rng_below(&rig->rng, 64);
            ring->slots[i].range.first_page = rng_next(&rig->rng) >>
                                              rng_below(&rig->rng, 64);
            ring->slots[i].kind = rng_below(&rig->rng, 3);
            ring->slots[i].buffer = rng_next(&rig->rng);
            qatomic_set(&ring->slots[i].state, rng_chance(&rig->rng, 90)
                        ? MM_RING_POSTED : rng_next(&rig->rng));
        }
        g_assert(write(rig->fq->fds[MM_HELLO_FD_KICK], &one, 8) == 8);
        g_usleep(500);
    }
}

/* The slots change under the pager's eyes. */
static void attack_ring_race(Rig *rig)
{
    int64_t end = torture_now_us() + 100000;
    MmRing *ring = rig->fq->ring;
    uint64_t one = 1;

    while (torture_now_us() < end) {
        MmRingSlot *slot = &ring->slots[rng_below(&rig->rng, 4)];

        slot->range.first_page = rng_below(&rig->rng, 600);
        slot->range.nr_pages = rng_below(&rig->rng, 600);
        slot->kind = rng_below(&rig->rng, 2);
        slot->buffer = rng_below(&rig->rng, 1100);
        qatomic_set(&slot->state, rng_below(&rig->rng, 4));
        if (rng_chance(&rig->rng, 10)) {
            g_assert(write(rig->fq->fds[MM_HELLO_FD_KICK], &one, 8) == 8);
        }
    }
}

static void attack_kick(Rig *rig)
{
    uint64_t most = UINT64_MAX - 1;

    /* as full as it gets; then reading it blocks */
    g_assert(write(rig->fq->fds[MM_HELLO_FD_KICK], &most, 8) == 8);
    fcntl(rig->fq->fds[MM_HELLO_FD_KICK], F_SETFL, 0);
    g_usleep(10000);
}

static void attack_uffd_blocking(Rig *rig)
{
    fcntl(rig->fq->uffd, F_SETFL, 0);
    touch_all(rig);
}

/* The memory vanishes while it is served. */
static void attack_unregister(Rig *rig)
{
    load_start(rig->load, &(LoadConfig) { .readers = 3, .writers = 3 });
    g_usleep(30000);
    fake_qemu_release_faults(rig->fq);
    g_usleep(30000);
    load_stop(rig->load);
}

static void attack_dma_counters(Rig *rig)
{
    uint32_t *dma = rig->fq->regions[0]->dma;
    int i;

    load_start(rig->load, &(LoadConfig) { .readers = 3, .writers = 3 });
    for (i = 0; i < 100; i++) {
        qatomic_set(dma, rng_next(&rig->rng));
        g_usleep(500);
    }
    qatomic_set(dma, 0);
    load_stop(rig->load);
}

#define ATTACK(name) { #name, attack_##name }
static const Attack attacks[] = {
    ATTACK(short), ATTACK(no_header), ATTACK(empty), ATTACK(empty_with_fd),
    ATTACK(length), ATTACK(oversize), ATTACK(too_many_fds),
    ATTACK(fds_with_query), ATTACK(no_fd), ATTACK(second_uffd),
    ATTACK(region_sizes), ATTACK(region_page_sizes), ATTACK(region_ids),
    ATTACK(region_name), ATTACK(region_limits), ATTACK(region_flood),
    ATTACK(ready), ATTACK(ready_address), ATTACK(remove),
    ATTACK(unasked_answers), ATTACK(flood),
    ATTACK(zap_garbage), ATTACK(zap_early), ATTACK(zap_close),
    ATTACK(ring), ATTACK(ring_race), ATTACK(kick), ATTACK(uffd_blocking),
    ATTACK(unregister), ATTACK(dma_counters),
};

static void test_attacks(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(attacks); i++) {
        run_attack(&attacks[i]);
    }
}

static void test_random(void)
{
    const Attack attack = ATTACK(random);
    unsigned i, n = torture_is_long() ? 2000 : 60;
    uint64_t rng = torture_seed();

    for (i = 0; i < n && !g_test_failed(); i++) {
        Rig *rig = new_rig();
        g_autofree char *wrong = NULL;

        rig->rng = rng_next(&rng);
        verdict_mute(rig->verdict, true);
        attack.run(rig);
        wrong = judge(rig);
        verdict_mute(rig->verdict, false);
        if (wrong) {
            verdict_fail(rig->verdict, "random messages: %s", wrong);
        }
        rig_finish(rig);
    }
}

/* On the control sockets: the VM must not notice */

static void garble_control(Rig *rig, int sock)
{
    uint64_t payload[sizeof(MmMsgStart) / 8 + 1];
    int i, n;

    for (n = 0; n < 10; n++) {
        for (i = 0; i < ARRAY_SIZE(payload); i++) {
            payload[i] = rng_next(&rig->rng);
        }
        send_typed(sock, rng_below(&rig->rng, 2) ? MM_MSG_START
                   : MM_MSG_START_TIER + rng_below(&rig->rng, 3), payload,
                   rng_below(&rig->rng, sizeof(payload)),
                   rng_below(&rig->rng, 3));
    }
    send_raw(sock, payload, rng_below(&rig->rng, sizeof(payload)), 1);
}

static void check_alive(Rig *rig, const char *what)
{
    MmMsgControlInfo *info;
    MmMsg msg;
    int fd = fake_manager_connect(rig->fm, 0);

    mm_msg_send(fd, MM_MSG_CONTROL_HELLO, 1, NULL, 0, NULL, 0);
    if (fd < 0 || mm_msg_recv(fd, &msg, BOUNDED_MS) != 1 ||
        msg.hdr.type != MM_MSG_CONTROL_INFO) {
        verdict_fail(rig->verdict, "%s: no manager gets through", what);
    } else {
        info = (void *)msg.payload;
        if (info->pager_pid != fake_manager_pid(rig->fm)) {
            verdict_fail(rig->verdict, "%s: wrong CONTROL_INFO", what);
        }
        mm_msg_clear(&msg);
    }
    close(fd);
}

static void test_control(void)
{
    const RigConfig config = { .stamped_mib = { 8 }, .limit_percent = 25 };
    Rig *rig = rig_new(&config, torture_seed());
    int idle[64];
    int i;

    load_start(rig->load, &(LoadConfig) { .writers = 2, .readers = 2 });
    if (rig_ok(rig)) {
        garble_control(rig, fake_manager_control(rig->fm));
        check_alive(rig, "garbage from the manager");
    }
    for (i = 0; i < 20 && rig_ok(rig); i++) {
        int fd = fake_manager_connect(rig->fm, 0);

        garble_control(rig, fd);
        close(fd);
    }
    check_alive(rig, "garbage from new managers");
    for (i = 0; i < ARRAY_SIZE(idle); i++) {
        idle[i] = fake_manager_connect(rig->fm, SOCK_NONBLOCK);
    }
    load_watch(rig->load, 100);
    for (i = 0; i < ARRAY_SIZE(idle); i++) {
        close(idle[i]);
    }
    load_watch(rig->load, 100);
    check_alive(rig, "idle managers");
    load_stop(rig->load);
    if (rig_ok(rig)) {
        load_sweep(rig->load);
    }
    rig_finish(rig);
}

void torture_add_hostile(void)
{
    g_test_add_func("/torture/hostile/attacks", test_attacks);
    g_test_add_func("/torture/hostile/random", test_random);
    g_test_add_func("/torture/hostile/control", test_control);
}
