/*
 * Unit tests: content that QEMU has for pages out of memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Both threads' parts, called step by step: which pages are stored, what is
 * told of them, and what becomes of content that is not wanted any more.
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 4096
#define BUFFER 100
#define TIMEOUT_MS 10000

static MmVM *vm;
static MmRegion *region;

static MmRingSlot *slot(unsigned i)
{
    return &vm->ring->slots[i];
}

static uint64_t *buffer(unsigned i)
{
    return (uint64_t *)vm->ring->buffer[i];
}

static void post(unsigned i, MmRingKind kind, uint64_t first, uint32_t nr,
                 unsigned buffer)
{
    *slot(i) = (MmRingSlot) {
        .kind = kind, .buffer = buffer,
        .range = { .region = 0, .first_page = first, .nr_pages = nr },
        .pages = 0xffffffff,
    };
    qatomic_set(&slot(i)->state, MM_RING_POSTED);
    vm->fault->kicked = true;
}

/* As the fault thread does in one round, but for faults */
static void fault_round(void)
{
    vm->fault->now_ns = g_get_monotonic_time() * 1000;
    mm_load_reap(vm->fault);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
    mm_import_step(vm->fault);
}

static uint32_t wait_for(unsigned i)
{
    unsigned ms;

    for (ms = 0; qatomic_read(&slot(i)->state) != MM_RING_DONE; ms++) {
        g_assert_cmpuint(ms, <, TIMEOUT_MS);
        fault_round();
        mm_writeback_reap(vm->reclaim);
        if (ms > 10) {
            g_usleep(1000);
        }
    }
    return slot(i)->pages;
}

static uint32_t store(uint64_t first, uint32_t nr, unsigned buffer)
{
    uint32_t done;

    post(0, MM_RING_STORE, first, nr, buffer);
    done = wait_for(0);
    vm_rig_check(vm);
    return done;
}

/* Until the store that is under way has come to its end. */
static void finish(void)
{
    while (mm_import_busy(vm->fault) || mm_writeback_busy(vm->reclaim)) {
        mm_writeback_reap(vm->reclaim);
        mm_import_step(vm->fault);
    }
    vm_rig_check(vm);
}

/* As a fault would find it, but for bringing it in */
static uint64_t content(uint64_t page)
{
    uint32_t done;

    *buffer(0) = 0;
    post(1, MM_RING_FETCH, page, 1, 0);
    done = wait_for(1);
    g_assert_cmphex(done, ==, 1);
    return *buffer(0);
}

static void assert_stored(uint64_t page, uint64_t word)
{
    g_assert_cmpint(vm_rig_state(region, page), ==, MM_PAGE_SWAPPED);
    g_assert_false(vm_rig_present(region, page));
    g_assert_cmphex(content(page), ==, word);
}

static void assert_never(uint64_t page)
{
    g_assert_cmpint(vm_rig_state(region, page), ==, MM_PAGE_NEVER);
    g_assert_false(vm_rig_present(region, page));
}

static void test_content(void)
{
    unsigned i;

    g_assert_cmphex(store(7, 32, BUFFER), ==, 0xffffffff);
    for (i = 0; i < 32; i++) {
        assert_stored(7 + i, BUFFER + i);
    }
    g_assert_cmpuint(vm_rig_used(vm), ==, 32);
    g_assert_cmpuint(vm->total_resident, ==, 0);
    g_assert_cmpint(vm_rig_state(region, 6), ==, MM_PAGE_NEVER);
    g_assert_cmpint(vm_rig_state(region, 39), ==, MM_PAGE_NEVER);
}

static void test_fill(void)
{
    unsigned i;

    memset(buffer(BUFFER), 0, MM_PAGE_SIZE);
    for (i = 0; i < MM_PAGE_SIZE / 8; i++) {
        buffer(BUFFER + 1)[i] = 0x1234567890;
    }
    g_assert_cmphex(store(0, 2, BUFFER), ==, 3);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    assert_stored(0, 0);
    assert_stored(1, 0x1234567890);
}

/* What was there goes; what is in memory stays. */
static void test_states(void)
{
    vm_rig_populate(region, 0, 4);
    vm_rig_swap_out(vm, region, 0, MM_PAGE_SWAPPED);
    vm_rig_swap_out(vm, region, 2, MM_PAGE_CANDIDATE);
    vm_rig_swap_out(vm, region, 3, MM_PAGE_DROPPING);
    g_assert_cmphex(store(0, 5, BUFFER), ==, 0x11);
    assert_stored(0, BUFFER);
    assert_stored(4, BUFFER + 4);
    g_assert_cmpint(vm_rig_state(region, 1), ==, MM_PAGE_RESIDENT);
    g_assert_cmpint(vm_rig_state(region, 2), ==, MM_PAGE_CANDIDATE);
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_DROPPING);
    mm_region_punch(region, 3, 1);
    vm_rig_move(region, 3, MM_PAGE_SWAPPED);
    /* another time, the newer content counts */
    g_assert_cmphex(store(0, 1, BUFFER + 9), ==, 1);
    assert_stored(0, BUFFER + 9);
}

/* What QEMU does to the buffer when it has been copied changes nothing. */
static void test_buffer_changes(void)
{
    post(0, MM_RING_STORE, 0, 1, BUFFER);
    fault_round();
    mm_writeback_reap(vm->reclaim);
    *buffer(BUFFER) = 4711;
    g_assert_cmphex(wait_for(0), ==, 1);
    assert_stored(0, BUFFER);
}

static void discard(uint64_t page, unsigned nr)
{
    post(2, MM_RING_DISCARD, page, nr, 0);
    while (qatomic_read(&slot(2)->state) != MM_RING_DONE) {
        mm_ring_poll(vm->fault);
    }
}

/* Before it has begun, and when it is stored already */
static void test_discarded(void)
{
    post(0, MM_RING_STORE, 0, 3, BUFFER);
    fault_round();
    discard(1, 1);
    assert_never(1);
    g_assert_cmphex(wait_for(0), ==, 5);
    assert_never(1);
    assert_stored(0, BUFFER);
    assert_stored(2, BUFFER + 2);

    post(0, MM_RING_STORE, 8, 2, BUFFER);
    fault_round();
    do {
        mm_writeback_reap(vm->reclaim);
    } while (mm_writeback_busy(vm->reclaim));
    discard(8, 2);
    g_assert_cmphex(wait_for(0), ==, 0);
    assert_never(8);
    assert_never(9);
    vm_rig_check(vm);
}

/* No tier takes it. */
static void test_refused(void)
{
    qatomic_set(&vm->tiers[0]->drain, MM_DRAIN_DONE);
    g_assert_cmphex(store(0, 2, BUFFER), ==, 0);
    assert_never(0);
    assert_never(1);
    qatomic_set(&vm->tiers[0]->drain, MM_DRAIN_NO);
    g_assert_cmphex(store(0, 2, BUFFER), ==, 3);
}

static void test_no_answer(void)
{
    post(0, MM_RING_STORE, 0, 2, BUFFER);
    fault_round();
    mm_writeback_reap(vm->reclaim);
    post(1, MM_RING_STORE, 2, 2, BUFFER + 2);
    fault_round();
    g_assert_cmpint(vm_rig_state(region, 1), ==, MM_PAGE_FILLING);
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_FILLING);
    /* one has not begun; of the other one the tier may be at work */
    vm->fault->now_ns += 1100000000ULL;
    mm_import_step(vm->fault);
    g_assert_cmphex(slot(1)->pages, ==, 0);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_TAKEN);
    mm_import_hangs(vm->reclaim, &vm->reclaim->batches[0]);
    mm_import_step(vm->fault);
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    g_assert_cmphex(slot(0)->pages, ==, 0);
    /* and others do not wait in vain */
    post(2, MM_RING_STORE, 8, 2, BUFFER + 4);
    mm_ring_poll(vm->fault);
    g_assert_cmpuint(slot(2)->state, ==, MM_RING_DONE);
    g_assert_cmphex(slot(2)->pages, ==, 0);
    assert_never(1);
    assert_never(3);
    /* the page is whoever's that comes next; the late end changes nothing */
    vm_rig_populate(region, 0, 1);
    finish();
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_RESIDENT);
    assert_never(1);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
}

/* While all is to be in memory nothing goes out, whenever it was asked for. */
static void test_reclaim_rests(void)
{
    post(0, MM_RING_STORE, 0, 1, BUFFER);
    fault_round();
    qatomic_set(&vm->reclaim_rests, true);
    g_assert_cmphex(wait_for(0), ==, 0);
    assert_never(0);
    g_assert_cmphex(store(0, 1, BUFFER), ==, 0);
    qatomic_set(&vm->reclaim_rests, false);
    g_assert_cmphex(store(0, 1, BUFFER), ==, 1);
}

/* It counts as resident on its way, so there must be room for it. */
static void test_limit(void)
{
    vm_rig_populate(region, 1024, 1022);
    mm_limit_set(&vm->limit, 1024);
    g_assert_cmphex(store(0, 5, BUFFER), ==, 3);
    assert_never(2);
    mm_limit_set(&vm->limit, UINT64_MAX);
}

static void test_many(void)
{
    unsigned i, nr = 0;

    for (i = 0; i < 16; i++) {
        post(i, MM_RING_STORE, i * 32, 32, BUFFER + i * 32);
    }
    for (i = 0; i < 16; i++) {
        uint32_t done = wait_for(i);

        g_assert(done == 0 || done == 0xffffffff);
        nr += done != 0;
        slot(i)->state = MM_RING_FREE;
    }
    vm_rig_check(vm);
    g_assert_cmpuint(nr, >=, MM_RING_STORES);
    g_assert_cmpuint(vm_rig_used(vm), ==, nr * 32);
}

static void test_nonsense(void)
{
    g_assert_cmphex(store(0, 33, BUFFER), ==, 0);
    g_assert_cmphex(store(0, 0, BUFFER), ==, 0);
    g_assert_cmphex(store(NR_PAGES - 1, 2, BUFFER), ==, 0);
    g_assert_cmphex(store(0, 2, MM_RING_BUFFER_PAGES - 1), ==, 0);
    g_assert_cmphex(store(0, 1, 0xffff), ==, 0);
    assert_never(0);
    assert_never(NR_PAGES - 1);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "content", test_content },
    { "fill", test_fill },
    { "states", test_states },
    { "buffer-changes", test_buffer_changes },
    { "discarded", test_discarded },
    { "refused", test_refused },
    { "no-answer", test_no_answer },
    { "reclaim-rests", test_reclaim_rests },
    { "limit", test_limit },
    { "many", test_many },
    { "nonsense", test_nonsense },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;
    unsigned i;

    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    for (i = 0; i < MM_RING_BUFFER_PAGES; i++) {
        memset(buffer(i), 0, MM_PAGE_SIZE);
        *buffer(i) = i;
        buffer(i)[1] = ~0ULL;
    }
    region = vm_rig_add(vm, 0, NR_PAGES);
    vm->tiers[0]->proven = true;
    vm->fault->import_rest_ns = 0;
    vm->reclaim->health[0].ready = true;
    (*fn)();
    g_assert_cmpint(vm->fault->ring_slot, ==, -1);
    g_assert_false(mm_import_busy(vm->fault));
    g_assert_cmpint(region->refs, ==, 1);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    g_assert_cmpuint(vm->total_resident, ==, 0);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/import/%s", tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
