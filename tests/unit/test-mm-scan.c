/*
 * Unit tests: which pages are chosen to be evicted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The reclaim thread's part, called step by step; QEMU is a thread that says
 * that it has zapped, or that it cannot.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "managed-memory/msg.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES (2 * MM_DMA_CHUNK / MM_PAGE_SIZE)
#define HALF (NR_PAGES / 2)

static MmVM *vm;
static MmReclaim *r;
static MmRegion *region;
static bool cannot_zap;         /* atomic */

static void *qemu_thread(void *opaque)
{
    int sock = GPOINTER_TO_INT(opaque);
    MmMsg *msg = g_new0(MmMsg, 1);

    while (mm_msg_recv(sock, msg, -1) == 1) {
        g_assert_cmpint(msg->hdr.type, ==, MM_MSG_ZAP);
        if (qatomic_read(&cannot_zap)) {
            mm_msg_send_error(sock, msg->hdr.seq, EAGAIN, "not now");
        } else {
            mm_msg_send(sock, MM_MSG_ZAP_DONE, msg->hdr.seq, NULL, 0, NULL, 0);
        }
        mm_msg_clear(msg);
    }
    g_free(msg);
    return NULL;
}

static void start_qemu(void)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                               pair), ==, 0);
    vm->zap_fd = pair[0];
    g_thread_unref(g_thread_new("qemu", qemu_thread,
                                GINT_TO_POINTER(pair[1])));
}

static void set_up(void)
{
    r = vm->reclaim;
    r->gathers = r->ages = (MmHand) {};
    r->to_age = r->seen = r->found = r->held = 0;
    while (r->fifo.nr) {
        mm_fifo_pop(&r->fifo);
    }
    r->turned = cannot_zap = false;
    region = vm_rig_add(vm, 0, NR_PAGES);
}

static void set_age(uint64_t page, uint64_t nr, unsigned age)
{
    vm_rig_populate(region, page, nr);
    for (; nr; page++, nr--) {
        uint64_t entry = mm_map_get(&region->map, page);

        mm_map_move(&region->map, page, entry, mm_entry_with_age(entry, age));
    }
}

/* How many of the pages are in @state; of those that are RESIDENT, this old. */
static unsigned count(uint64_t page, uint64_t nr, MmPageState state,
                      unsigned age)
{
    unsigned sum = 0;

    for (; nr; page++, nr--) {
        uint64_t entry = mm_map_get(&region->map, page);

        sum += mm_entry_state(entry) == state &&
               (state != MM_PAGE_RESIDENT || mm_entry_age(entry) == age);
    }
    return sum;
}

static void test_cold_ones_go(void)
{
    set_age(0, 40, 3);
    set_age(40, 60, 0);
    set_age(100, 20, MM_AGE_MAX);
    g_assert_cmpint(mm_scan_candidates(r, 50, false), ==, 50);
    g_assert_cmpuint(count(40, 60, MM_PAGE_CANDIDATE, 0), ==, 50);
    g_assert_cmpint(mm_scan_candidates(r, 50, false), ==, 10);
    g_assert_cmpuint(count(40, 60, MM_PAGE_CANDIDATE, 0), ==, 60);
    g_assert_cmpuint(count(0, NR_PAGES, MM_PAGE_CANDIDATE, 0), ==, 60);
    g_assert_cmpuint(r->fifo.nr, ==, 60);
    g_assert_cmpuint(r->fifo.pages, ==, 60);
}

/* For each page that is taken one gets older; the others stay as they are. */
static void test_one_ages_for_one(void)
{
    set_age(0, 200, 5);
    set_age(HALF, 100, 0);
    g_assert_cmpint(mm_scan_candidates(r, 50, false), ==, 50);
    g_assert_cmpuint(count(0, 200, MM_PAGE_RESIDENT, 5), ==, 200);
    /* with the next scan, which is when it is known how many went */
    g_assert_cmpint(mm_scan_candidates(r, 10, false), ==, 10);
    g_assert_cmpuint(count(0, 200, MM_PAGE_RESIDENT, 4), ==, 50);
    g_assert_cmpuint(count(0, 200, MM_PAGE_RESIDENT, 5), ==, 150);
}

/* None is cold: all get older by what makes some so, and no more. */
static void test_none_is_cold(void)
{
    set_age(0, 100, 7);
    set_age(100, 100, 9);
    g_assert_cmpint(mm_scan_candidates(r, 512, false), ==, 0);
    g_assert_cmpuint(count(0, 100, MM_PAGE_RESIDENT, 0), ==, 100);
    g_assert_cmpuint(count(100, 100, MM_PAGE_RESIDENT, 2), ==, 100);
    g_assert_cmpint(mm_scan_candidates(r, 100, false), >, 0);
    g_assert_cmpuint(count(100, 100, MM_PAGE_CANDIDATE, 0), ==, 0);
}

/* The guest turns to other data: what it has used is worth little now. */
static void test_turned(void)
{
    set_age(0, 100, 14);
    set_age(100, 100, 13);
    set_age(200, 100, 6);
    set_age(HALF, 100, 0);
    mm_reclaim_turned(vm);
    g_assert_cmpint(mm_scan_candidates(r, 20, false), ==, 20);
    g_assert_cmpuint(count(0, 100, MM_PAGE_RESIDENT, 2), ==, 100);
    g_assert_cmpuint(count(100, 100, MM_PAGE_RESIDENT, 1), ==, 100);
    g_assert_cmpuint(count(200, 100, MM_PAGE_RESIDENT, 0) +
                     count(200, 100, MM_PAGE_CANDIDATE, 0), ==, 100);
    /* once, not for ever */
    g_assert_cmpint(mm_scan_candidates(r, 1, false), ==, 1);
    g_assert_cmpuint(count(0, 100, MM_PAGE_RESIDENT, 2) +
                     count(0, 100, MM_PAGE_RESIDENT, 1), ==, 100);
}

static void test_force(void)
{
    set_age(0, 30, MM_AGE_MAX);
    g_assert_cmpint(mm_scan_candidates(r, 30, true), ==, 30);
    g_assert_cmpuint(count(0, 30, MM_PAGE_CANDIDATE, 0), ==, 30);
}

/* What QEMU says of the first chunk. */
static void map_for_dma(uint32_t count)
{
    g_assert_cmpint(pwrite(region->dma_fd, &count, sizeof(count), 0), ==,
                    sizeof(count));
}

static void test_held(void)
{
    set_age(0, 10, 0);
    set_age(HALF, 10, 0);
    map_for_dma(1);
    g_assert_cmpint(mm_scan_candidates(r, 512, true), ==, 10);
    g_assert_cmpuint(count(0, 10, MM_PAGE_RESIDENT, 0), ==, 10);
    g_assert_cmpuint(count(HALF, 10, MM_PAGE_CANDIDATE, 0), ==, 10);
    g_assert_cmpuint(r->held, ==, 10);
    map_for_dma(0);
}

/* They stay, since they may be mapped. */
static void test_not_zapped(void)
{
    set_age(0, 10, 0);
    qatomic_set(&cannot_zap, true);
    g_assert_cmpint(mm_scan_candidates(r, 10, false), ==, 0);
    g_assert_cmpuint(count(0, 10, MM_PAGE_RESIDENT, 0), ==, 10);
    g_assert_cmpuint(r->fifo.nr, ==, 0);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "cold-ones-go", test_cold_ones_go },
    { "one-ages-for-one", test_one_ages_for_one },
    { "none-is-cold", test_none_is_cold },
    { "turned", test_turned },
    { "force", test_force },
    { "held", test_held },
    { "not-zapped", test_not_zapped },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    set_up();
    (*fn)();
    vm_rig_check(vm);
    vm_rig_remove(vm, region);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    start_qemu();
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/scan/%s", tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
