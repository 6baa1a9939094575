/*
 * Unit tests: content of swapped pages that QEMU asks for
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The fault thread's part, called step by step: what is fetched, what is told
 * of it, and that pages stay what they are.
 */
#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 4096
#define BUFFER 100
/* Nothing that any page has */
#define UNTOUCHED 0xeeeeeeeeeeeeeeeeULL
#define TIMEOUT_MS 10000
#define MANY (MM_RING_FETCHES + 4)

static MmVM *vm;
static MmRegion *region;
/* What happens once before the next page is read from memory */
static void (*before_read)(void);

/* In place of that of the C library */
ssize_t pread64(int fd, void *buf, size_t len, off64_t offset)
{
    void (*happens)(void) = before_read;

    before_read = NULL;
    if (happens) {
        happens();
    }
    return syscall(SYS_pread64, fd, buf, len, offset);
}

static MmRingSlot *slot(unsigned i)
{
    return &vm->ring->slots[i];
}

static uint64_t fetched(unsigned buffer)
{
    return *(uint64_t *)vm->ring->buffer[buffer];
}

static void post(unsigned i, uint64_t first, uint32_t nr, unsigned buffer)
{
    *slot(i) = (MmRingSlot) {
        .kind = MM_RING_FETCH, .buffer = buffer,
        .range = { .region = 0, .first_page = first, .nr_pages = nr },
        .pages = 0xffffffff,
    };
    qatomic_set(&slot(i)->state, MM_RING_POSTED);
    vm->fault->kicked = true;
}

/* As the fault thread does in one round, but for faults */
static void a_round(void)
{
    vm->fault->now_ns = g_get_monotonic_time() * 1000;
    mm_load_reap(vm->fault);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
}

static uint32_t wait_for(unsigned i)
{
    unsigned ms;

    for (ms = 0; qatomic_read(&slot(i)->state) != MM_RING_DONE; ms++) {
        g_assert_cmpuint(ms, <, TIMEOUT_MS);
        a_round();
        if (ms > 10) {
            g_usleep(1000);
        }
    }
    vm_rig_check(vm);
    return slot(i)->pages;
}

static uint32_t fetch(uint64_t first, uint32_t nr, unsigned buffer)
{
    post(0, first, nr, buffer);
    return wait_for(0);
}

static void swap_out(uint64_t page, unsigned nr)
{
    unsigned i;

    vm_rig_populate(region, page, nr);
    for (i = 0; i < nr; i++) {
        vm_rig_swap_out(vm, region, page + i, MM_PAGE_SWAPPED);
    }
}

/* Swapped out as words of @value */
static void fill(uint64_t page, uint64_t value)
{
    uint64_t entry;

    swap_out(page, 1);
    entry = mm_map_get(&region->map, page);
    mm_map_move(&region->map, page, entry,
                mm_entry_at(entry, MM_TIER_FILL, (uint32_t)value));
    region->map.checksums[page] = value >> 32;
    vm->tiers[0]->ops->free(vm->tiers[0], mm_entry_place(entry), 1);
}

static void test_content(void)
{
    unsigned i;

    swap_out(10, 32);
    g_assert_cmphex(fetch(10, 32, BUFFER), ==, 0xffffffff);
    for (i = 0; i < 32; i++) {
        g_assert_cmphex(fetched(BUFFER + i), ==, 10 + i + 1);
        g_assert_cmpint(vm_rig_state(region, 10 + i), ==, MM_PAGE_SWAPPED);
        g_assert_false(vm_rig_present(region, 10 + i));
    }
    g_assert_cmphex(fetched(BUFFER - 1), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 32), ==, UNTOUCHED);
}

static void test_scattered(void)
{
    fill(0, 0x1234567890);
    swap_out(2, 1);
    vm_rig_populate(region, 3, 1);
    swap_out(4, 2);
    vm_rig_populate(region, 6, 1);
    vm_rig_swap_out(vm, region, 6, MM_PAGE_DROPPING);
    g_assert_cmphex(fetch(0, 7, BUFFER), ==, 0x35);
    g_assert_cmphex(fetched(BUFFER), ==, 0x1234567890);
    g_assert_cmphex(fetched(BUFFER + 1), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 2), ==, 3);
    g_assert_cmphex(fetched(BUFFER + 3), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 4), ==, 5);
    g_assert_cmphex(fetched(BUFFER + 5), ==, 6);
    g_assert_cmphex(fetched(BUFFER + 6), ==, UNTOUCHED);
    mm_region_punch(region, 6, 1);
    vm_rig_move(region, 6, MM_PAGE_SWAPPED);
}

/* Others are not read, even if they could be with the same read. */
static void test_some(void)
{
    uint64_t before = vm->state->stats.pages_fetched;

    swap_out(0, 8);
    post(0, 0, 8, BUFFER);
    slot(0)->pages = 0x5a;
    g_assert_cmphex(wait_for(0), ==, 0x5a);
    g_assert_cmpuint(vm->state->stats.pages_fetched, ==, before + 4);
    g_assert_cmphex(fetched(BUFFER), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 1), ==, 2);
    g_assert_cmphex(fetched(BUFFER + 2), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 3), ==, 4);
    g_assert_cmphex(fetched(BUFFER + 4), ==, 5);
    g_assert_cmphex(fetched(BUFFER + 5), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 6), ==, 7);
    g_assert_cmphex(fetched(BUFFER + 7), ==, UNTOUCHED);
}

/* In memory, and unmapped: they stay so. */
static void test_idle(void)
{
    unsigned i;

    vm_rig_populate(region, 0, 4);
    for (i = 0; i < 4; i += 3) {
        vm_rig_swap_out(vm, region, i, MM_PAGE_CANDIDATE);
    }
    vm_rig_swap_out(vm, region, 2, MM_PAGE_WRITEBACK);
    g_assert_cmphex(fetch(0, 5, BUFFER), ==, 0x9);
    g_assert_cmphex(fetched(BUFFER), ==, 1);
    g_assert_cmphex(fetched(BUFFER + 1), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 2), ==, UNTOUCHED);
    g_assert_cmphex(fetched(BUFFER + 3), ==, 4);
    g_assert_cmphex(fetched(BUFFER + 4), ==, UNTOUCHED);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_CANDIDATE);
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_CANDIDATE);
    g_assert_false(vm_rig_present(region, 4));
}

static void touch(void)
{
    vm_rig_move(region, 0, MM_PAGE_MAPPING);
    vm_rig_move(region, 0, MM_PAGE_RESIDENT);
}

static void evict(void)
{
    touch();
    vm_rig_swap_out(vm, region, 0, MM_PAGE_SWAPPED);
}

static void begin_writeback(void)
{
    vm_rig_move(region, 0, MM_PAGE_WRITEBACK);
}

/* One that has left before it was read is a hole, which has its own content. */
static void test_idle_no_more(void)
{
    vm_rig_populate(region, 0, 1);
    vm_rig_swap_out(vm, region, 0, MM_PAGE_CANDIDATE);
    before_read = touch;
    g_assert_cmphex(fetch(0, 1, BUFFER), ==, 1);
    g_assert_cmphex(fetched(BUFFER), ==, 1);
    vm_rig_swap_out(vm, region, 0, MM_PAGE_CANDIDATE);
    before_read = begin_writeback;
    g_assert_cmphex(fetch(0, 1, BUFFER + 1), ==, 0);
    touch();
    vm_rig_swap_out(vm, region, 0, MM_PAGE_CANDIDATE);
    before_read = evict;
    g_assert_cmphex(fetch(0, 1, BUFFER + 2), ==, 0);
    g_assert_cmphex(fetch(0, 1, BUFFER + 3), ==, 1);
    g_assert_cmphex(fetched(BUFFER + 3), ==, 1);
}

/* As many at once as there may be, and more */
static void test_many(void)
{
    unsigned i, k;

    swap_out(0, MANY * 32);
    for (i = 0; i < MANY; i++) {
        post(i, i * 32, 32, BUFFER + i * 32);
    }
    for (i = 0; i < MANY; i++) {
        uint32_t done = wait_for(i);

        g_assert(done == 0xffffffff || (done == 0 && i >= MM_RING_FETCHES));
        for (k = 0; k < 32; k++) {
            g_assert_cmphex(fetched(BUFFER + i * 32 + k), ==,
                            done ? i * 32 + k + 1 : UNTOUCHED);
        }
    }
    g_assert_cmpuint(vm->fault->nr_free_loads, ==, MM_NR_LOADS);
}

/* The page leaves its place while that is read. */
static void test_changed(void)
{
    uint64_t entry;

    swap_out(0, 3);
    post(0, 0, 3, BUFFER);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
    entry = mm_map_get(&region->map, 1);
    mm_map_move(&region->map, 1, entry,
                mm_entry_at(mm_entry_with_state(entry, MM_PAGE_NEVER),
                            MM_TIER_NONE, 0));
    vm->tiers[0]->ops->free(vm->tiers[0], mm_entry_place(entry), 1);
    g_assert_cmphex(wait_for(0), ==, 5);
    g_assert_cmphex(fetched(BUFFER + 1), ==, UNTOUCHED);
}

static void test_wrong_content(void)
{
    uint64_t errors = vm->state->stats.checksum_errors;

    swap_out(0, 3);
    region->map.checksums[1]++;
    g_assert_cmphex(fetch(0, 3, BUFFER), ==, 5);
    g_assert_cmphex(fetched(BUFFER + 1), ==, UNTOUCHED);
    g_assert_cmpuint(vm->state->stats.checksum_errors, ==, errors + 1);
    /* one that has been replaced meanwhile is nobody's fault */
    post(0, 1, 1, BUFFER);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
    vm_rig_move(region, 1, MM_PAGE_FILLING);
    g_assert_cmphex(wait_for(0), ==, 0);
    g_assert_cmpuint(vm->state->stats.checksum_errors, ==, errors + 1);
    vm_rig_move(region, 1, MM_PAGE_SWAPPED);
}

/* What is read when it was given up goes nowhere. */
static void test_no_answer(void)
{
    swap_out(0, 1);
    post(0, 0, 1, BUFFER);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
    g_assert_true(mm_fetch_busy(vm->fault));
    /* others are not held up by it */
    post(1, 8, 1, BUFFER + 8);
    slot(1)->kind = MM_RING_LOOK;
    mm_ring_poll(vm->fault);
    g_assert_cmpuint(slot(1)->state, ==, MM_RING_DONE);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_TAKEN);
    vm->fault->now_ns += 1100000000ULL;
    mm_fetch_step(vm->fault);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    g_assert_cmphex(slot(0)->pages, ==, 0);
    g_assert_false(mm_fetch_busy(vm->fault));
    while (!QLIST_EMPTY(&vm->fault->busy_loads)) {
        mm_load_reap(vm->fault);
    }
    g_assert_cmphex(fetched(BUFFER), ==, UNTOUCHED);
    g_assert_cmphex(fetch(0, 1, BUFFER), ==, 1);
}

/* Those of a former pager are executed once, not for ever. */
static void test_left_behind(void)
{
    swap_out(0, 2);
    post(3, 0, 1, BUFFER);
    post(4, 1, 1, BUFFER + 1);
    qatomic_set(&slot(3)->state, MM_RING_TAKEN);
    mm_ring_resume(vm->fault);
    mm_ring_poll(vm->fault);
    mm_ring_poll(vm->fault);
    g_assert_cmphex(wait_for(3), ==, 1);
    g_assert_cmphex(wait_for(4), ==, 1);
    g_assert_cmphex(fetched(BUFFER + 1), ==, 2);
    g_assert_false(vm->fault->left_behind);
}

static void test_nonsense(void)
{
    swap_out(0, 64);
    g_assert_cmphex(fetch(0, 33, BUFFER), ==, 0);
    g_assert_cmphex(fetch(0, 0, BUFFER), ==, 0);
    g_assert_cmphex(fetch(NR_PAGES, 1, BUFFER), ==, 0);
    g_assert_cmphex(fetch(0, 2, MM_RING_BUFFER_PAGES - 1), ==, 0);
    g_assert_cmphex(fetch(0, 1, 0xffff), ==, 0);
    g_assert_cmphex(fetched(BUFFER), ==, UNTOUCHED);
    g_assert_cmphex(fetched(MM_RING_BUFFER_PAGES - 1), ==, UNTOUCHED);
}

/* Nothing of QEMU's is written to any more when it has its memory back. */
static void test_let_go(void)
{
    bool lets_go = true;

    swap_out(0, 1);
    post(0, 0, 1, BUFFER);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
    mm_fault_let_go(vm, &lets_go);
    g_assert_cmphex(wait_for(0), ==, 0);
    while (!QLIST_EMPTY(&vm->fault->busy_loads)) {
        mm_load_reap(vm->fault);
    }
    g_assert_cmphex(fetched(BUFFER), ==, UNTOUCHED);
    lets_go = false;
    mm_fault_let_go(vm, &lets_go);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "content", test_content },
    { "scattered", test_scattered },
    { "some", test_some },
    { "idle", test_idle },
    { "idle-no-more", test_idle_no_more },
    { "many", test_many },
    { "changed", test_changed },
    { "wrong-content", test_wrong_content },
    { "no-answer", test_no_answer },
    { "left-behind", test_left_behind },
    { "nonsense", test_nonsense },
    { "let-go", test_let_go },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;
    unsigned i;

    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    for (i = 0; i < MM_RING_BUFFER_PAGES; i++) {
        *(uint64_t *)vm->ring->buffer[i] = UNTOUCHED;
    }
    region = vm_rig_add(vm, 0, NR_PAGES);
    vm->tiers[0]->proven = true;
    (*fn)();
    g_assert_cmpint(vm->fault->ring_slot, ==, -1);
    g_assert_false(mm_fetch_busy(vm->fault));
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/fetch/%s", tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
