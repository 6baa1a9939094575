/*
 * Unit tests: pages that are overwritten through the ring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The fault thread's part, called step by step, on memory that is mapped and
 * registered as QEMU's is: which pages are overwritten, what is told of them,
 * and that the others keep what they have.
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 1024

static MmVM *vm;
static MmRegion *region;

static MmRingSlot *slot(unsigned i)
{
    return &vm->ring->slots[i];
}

static uint64_t new_content(unsigned buffer)
{
    return 0xbeef0000 + buffer;
}

static void post(unsigned i, uint64_t first, uint32_t nr, unsigned buffer)
{
    *slot(i) = (MmRingSlot) {
        .kind = MM_RING_OVERWRITE, .buffer = buffer,
        .range = { .region = 0, .first_page = first, .nr_pages = nr },
        .pages = 0xffffffff,
    };
    qatomic_set(&slot(i)->state, MM_RING_POSTED);
    vm->fault->kicked = true;
}

/* Returns what the pager says. */
static uint32_t overwrite(uint64_t first, uint32_t nr, unsigned buffer)
{
    unsigned rounds = 0;

    post(0, first, nr, buffer);
    while (mm_ring_poll(vm->fault)) {
        g_assert_cmpuint(++rounds, <, 100);
    }
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    vm_rig_check(vm);
    return slot(0)->pages;
}

static uint64_t content(uint64_t page)
{
    uint64_t word;

    g_assert_true(vm_rig_present(region, page));
    g_assert_cmpint(pread(region->ram_fd, &word, sizeof(word),
                          page * MM_PAGE_SIZE), ==, sizeof(word));
    return word;
}

static void assert_new(uint64_t page, unsigned buffer)
{
    g_assert_cmpint(vm_rig_state(region, page), ==, MM_PAGE_RESIDENT);
    g_assert_cmphex(content(page), ==, new_content(buffer));
}

static void assert_old(uint64_t page)
{
    g_assert_cmphex(content(page), ==, page + 1);
}

static int new_uffd(void)
{
    struct uffdio_api api = {
        .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM,
    };
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ioctl(fd, UFFDIO_API, &api), ==, 0);
    return fd;
}

static void set_up(void)
{
    struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
    unsigned i;
    void *mem;

    memset(vm->ring->slots, 0, sizeof(vm->ring->slots));
    for (i = 0; i < MM_RING_BUFFER_PAGES; i++) {
        *(uint64_t *)vm->ring->buffer[i] = new_content(i);
    }
    mm_limit_set(&vm->limit, UINT64_MAX);
    region = vm_rig_add(vm, 0, NR_PAGES);
    mem = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED,
               region->ram_fd, 0);
    g_assert(mem != MAP_FAILED);
    region->hva = reg.range.start = (uintptr_t)mem;
    reg.range.len = region->size;
    g_assert_cmpint(ioctl(vm->uffd, UFFDIO_REGISTER, &reg), ==, 0);
}

static void tear_down(void)
{
    g_assert_cmpint(vm->fault->ring_slot, ==, -1);
    munmap((void *)(uintptr_t)region->hva, region->size);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    g_assert_cmpuint(vm->total_resident, ==, 0);
}

static void swap_out(uint64_t page, uint64_t nr)
{
    vm_rig_populate(region, page, nr);
    for (; nr; page++, nr--) {
        vm_rig_swap_out(vm, region, page, MM_PAGE_SWAPPED);
    }
}

static void test_absent(void)
{
    uint64_t before = vm->state->stats.pages_overwritten;
    unsigned i;

    swap_out(40, 10);
    g_assert_cmpuint(vm_rig_used(vm), ==, 10);
    g_assert_cmphex(overwrite(30, 32, 992), ==, 0xffffffff);
    for (i = 0; i < 32; i++) {
        assert_new(30 + i, 992 + i);
    }
    /* what they had is forgotten */
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    g_assert_cmpint(vm_rig_state(region, 29), ==, MM_PAGE_NEVER);
    g_assert_cmpint(vm_rig_state(region, 62), ==, MM_PAGE_NEVER);
    g_assert_cmpuint(vm->state->stats.pages_overwritten, ==, before + 32);
}

/* A page in every state that has content in memory, or on its way there */
static void test_others_are_left_alone(void)
{
    vm_rig_populate(region, 1, 7);
    swap_out(0, 1);
    vm_rig_swap_out(vm, region, 2, MM_PAGE_CANDIDATE);
    vm_rig_swap_out(vm, region, 3, MM_PAGE_WRITEBACK);
    vm_rig_swap_out(vm, region, 4, MM_PAGE_DROPPING);
    vm_rig_swap_out(vm, region, 5, MM_PAGE_SWAPPED);
    vm_rig_move(region, 5, MM_PAGE_FILLING);
    vm_rig_move(region, 6, MM_PAGE_MAPPING);
    vm_rig_move(region, 6, MM_PAGE_LOST);
    vm_rig_swap_out(vm, region, 7, MM_PAGE_SWAPPED);
    g_assert_cmphex(overwrite(0, 9, 100), ==, 0x181);
    assert_new(0, 100);
    assert_old(1);
    assert_old(2);
    assert_old(3);
    assert_old(4);
    g_assert_cmpint(vm_rig_state(region, 2), ==, MM_PAGE_CANDIDATE);
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_WRITEBACK);
    g_assert_cmpint(vm_rig_state(region, 4), ==, MM_PAGE_DROPPING);
    g_assert_cmpint(vm_rig_state(region, 5), ==, MM_PAGE_FILLING);
    g_assert_false(vm_rig_present(region, 5));
    g_assert_cmpint(vm_rig_state(region, 6), ==, MM_PAGE_LOST);
    assert_new(7, 107);
    assert_new(8, 108);
    vm_rig_move(region, 5, MM_PAGE_SWAPPED);
    mm_region_punch(region, 4, 1);
    vm_rig_move(region, 4, MM_PAGE_SWAPPED);
}

/* Somebody has put something there that the map does not know of. */
static void test_present_wins(void)
{
    uint64_t word = 4711;

    swap_out(0, 4);
    g_assert_cmpint(pwrite(region->ram_fd, &word, sizeof(word),
                           2 * MM_PAGE_SIZE), ==, sizeof(word));
    g_assert_cmphex(overwrite(0, 4, 0), ==, 0xb);
    assert_new(1, 1);
    g_assert_cmphex(content(2), ==, word);
    g_assert_cmpint(vm_rig_state(region, 2), ==, MM_PAGE_RESIDENT);
    assert_new(3, 3);
}

/* Only what the limit has room for; nobody waits. */
static void test_limit(void)
{
    uint64_t page = 32;

    swap_out(0, 32);
    mm_limit_set(&vm->limit, 600);
    while (mm_limit_room(&vm->limit, vm->total_resident, 32) > 5) {
        vm_rig_populate(region, page++, 1);
    }
    g_assert_cmphex(overwrite(0, 32, 0), ==, 0x1f);
    g_assert_cmphex(overwrite(5, 20, 5), ==, 0);
    g_assert_cmpint(vm_rig_state(region, 5), ==, MM_PAGE_SWAPPED);
    g_assert_false(vm_rig_present(region, 5));
}

static void test_nonsense(void)
{
    swap_out(0, 40);
    g_assert_cmphex(overwrite(0, 33, 0), ==, 0);
    g_assert_cmphex(overwrite(0, 0, 0), ==, 0);
    g_assert_cmphex(overwrite(0, 2, MM_RING_BUFFER_PAGES - 1), ==, 0);
    g_assert_cmphex(overwrite(0, 1, 0xffff), ==, 0);
    g_assert_cmphex(overwrite(NR_PAGES - 1, 2, 0), ==, 0);
    g_assert_cmphex(overwrite(UINT64_MAX, 2, 0), ==, 0);
    g_assert_cmpuint(vm_rig_used(vm), ==, 40);
    /* a kind that nobody knows */
    post(0, 0, 1, 0);
    slot(0)->kind = 0xffff;
    g_assert_true(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    g_assert_cmphex(slot(0)->pages, ==, 0);
    g_assert_cmpuint(vm_rig_used(vm), ==, 40);
    g_assert_cmphex(overwrite(0, 1, MM_RING_BUFFER_PAGES - 1), ==, 1);
    assert_new(0, MM_RING_BUFFER_PAGES - 1);
}

/* What a former pager has done is not done again, nor said to be. */
static void test_resume(void)
{
    swap_out(0, 3);
    vm_rig_move(region, 1, MM_PAGE_FILLING);
    vm_rig_move(region, 1, MM_PAGE_SWAPPED);
    g_assert_cmphex(overwrite(1, 1, 500), ==, 1);
    post(0, 0, 3, 10);
    qatomic_set(&slot(0)->state, MM_RING_TAKEN);
    mm_ring_resume(vm->fault);
    while (mm_ring_poll(vm->fault)) {
        continue;
    }
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_DONE);
    g_assert_cmphex(slot(0)->pages, ==, 5);
    assert_new(0, 10);
    assert_new(1, 500);
    assert_new(2, 12);
}

/* QEMU may have its memory any moment: hands off. */
static void test_let_go(void)
{
    bool lets_go = true;

    swap_out(0, 1);
    post(0, 0, 1, 0);
    mm_fault_let_go(vm, &lets_go);
    g_assert_false(mm_ring_poll(vm->fault));
    g_assert_cmpuint(slot(0)->state, ==, MM_RING_POSTED);
    g_assert_false(vm_rig_present(region, 0));
    lets_go = false;
    mm_fault_let_go(vm, &lets_go);
    g_assert_cmphex(overwrite(0, 1, 0), ==, 1);
}

/* Its memory is not there any more: the page keeps what it had. */
static void test_unmapped(void)
{
    swap_out(0, 4);
    munmap((void *)(uintptr_t)region->hva, MM_PAGE_SIZE);
    g_assert_cmphex(overwrite(0, 1, 0), ==, 0);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_SWAPPED);
    g_assert_cmpuint(vm_rig_used(vm), ==, 4);
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "absent", test_absent },
    { "others-are-left-alone", test_others_are_left_alone },
    { "present-wins", test_present_wins },
    { "limit", test_limit },
    { "nonsense", test_nonsense },
    { "resume", test_resume },
    { "let-go", test_let_go },
    { "unmapped", test_unmapped },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    set_up();
    (*fn)();
    tear_down();
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    vm->uffd = new_uffd();
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/overwrite/%s",
                                                tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
