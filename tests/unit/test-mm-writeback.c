/*
 * Unit tests: several batches on their way out at the same time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The reclaim thread's part, called step by step, over a queue that completes
 * a store when the test says so: which batch's content a page ends up with, and
 * what becomes of the others while a tier does not answer.
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 1024
#define BATCH MM_TIER_IO_PAGES
/* More than what a tier is given for an answer. */
#define LONG_NS 2000000000ULL

typedef QSIMPLEQ_HEAD(, MmTierIO) IOList;

typedef struct HeldQueue {
    MmTierQueue base;
    MmTierQueue *former;        /* in the place of which it is */
    IOList held;
    IOList completed;
    unsigned nr_held;
} HeldQueue;

static MmVM *vm;
static MmReclaim *r;
static MmRegion *region;
static HeldQueue queue;

static void held_submit(MmTierQueue *q, MmTierIO *io)
{
    QSIMPLEQ_INSERT_TAIL(&queue.held, io, next);
    queue.nr_held++;
}

static unsigned held_reap(MmTierQueue *q, MmTierDone *done)
{
    unsigned nr = 0;
    MmTierIO *io;

    while ((io = QSIMPLEQ_FIRST(&queue.completed))) {
        QSIMPLEQ_REMOVE_HEAD(&queue.completed, next);
        done(io);
        nr++;
    }
    return nr;
}

static const MmQueueOps held_ops = {
    .alloc = mm_tier_file_alloc,
    .submit = held_submit,
    .reap = held_reap,
};

/* Complete the @nth store that is held. */
static void complete(unsigned nth, int err)
{
    MmTierIO *io = QSIMPLEQ_FIRST(&queue.held);
    ssize_t len;

    while (nth--) {
        io = QSIMPLEQ_NEXT(io, next);
    }
    QSIMPLEQ_REMOVE(&queue.held, io, MmTierIO, next);
    queue.nr_held--;
    len = io->nr_pages * MM_PAGE_SIZE;
    if (!err) {
        g_assert_cmpint(pwrite(vm->tiers[0]->fd, io->buf, len,
                               (io->place + 1) * MM_PAGE_SIZE), ==, len);
    }
    io->ret = -err;
    QSIMPLEQ_INSERT_TAIL(&queue.completed, io, next);
    mm_wake(r->io_fd);
}

/* As after a zap. */
static void make_candidates(uint64_t page, unsigned nr)
{
    for (; nr; page++, nr--) {
        vm_rig_move(region, page, MM_PAGE_CANDIDATE);
        mm_fifo_push(&r->fifo, (MmCandidate) {
            .region = region->id, .page = page, .nr_pages = 1,
        });
    }
}

/* As the fault thread does it, and then the guest. */
static void touch(uint64_t page, uint64_t content)
{
    uint64_t entry = mm_map_get(&region->map, page);
    uint64_t mapping = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_MAPPING),
                                   MM_TIER_NONE, 0);

    mm_map_move(&region->map, page, entry, mapping);
    vm_rig_move(region, page, MM_PAGE_RESIDENT);
    g_assert_cmpint(pwrite(region->ram_fd, &content, sizeof(content),
                           page * MM_PAGE_SIZE), ==, sizeof(content));
}

static void assert_swapped(uint64_t page, uint64_t content)
{
    uint64_t buffer[MM_PAGE_SIZE / sizeof(uint64_t)]
        QEMU_ALIGNED(MM_PAGE_SIZE);
    uint64_t entry = mm_map_get(&region->map, page);

    g_assert_cmpint(mm_entry_state(entry), ==, MM_PAGE_SWAPPED);
    g_assert_false(vm_rig_present(region, page));
    g_assert_cmpint(pread(vm->tiers[0]->fd, buffer, MM_PAGE_SIZE,
                          (mm_entry_place(entry) + 1) * MM_PAGE_SIZE), ==,
                    MM_PAGE_SIZE);
    g_assert_cmphex(buffer[0], ==, content);
    g_assert_cmphex(mm_page_checksum(&region->map, page, entry, buffer), ==,
                    region->map.checksums[page]);
}

static void assert_all_swapped(uint64_t page, uint64_t nr)
{
    for (; nr; page++, nr--) {
        assert_swapped(page, page + 1);
    }
}

static void test_any_order(void)
{
    unsigned i;

    make_candidates(0, MM_NR_BATCHES * BATCH);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        g_assert_cmpuint(mm_writeback(r), ==, 0);
        g_assert_cmpuint(queue.nr_held, ==, i + 1);
        g_assert_cmpuint(mm_writeback_leaving(r), ==, (i + 1) * BATCH);
    }
    g_assert_true(mm_writeback_busy(r));
    complete(2, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, BATCH);
    assert_all_swapped(2 * BATCH, BATCH);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_WRITEBACK);
    complete(2, 0);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback(r), ==, 2 * BATCH);
    for (i = 3; i < MM_NR_BATCHES; i++) {
        complete(0, 0);
        g_assert_cmpuint(mm_writeback(r), ==, BATCH);
    }
    g_assert_false(mm_writeback_busy(r));
    assert_all_swapped(0, MM_NR_BATCHES * BATCH);
    g_assert_false(r->refused);
}

static void test_touched(void)
{
    make_candidates(0, 2);
    mm_writeback(r);
    touch(1, 77);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, 1);
    assert_swapped(0, 1);
    g_assert_cmpint(vm_rig_state(region, 1), ==, MM_PAGE_RESIDENT);
    g_assert_cmpuint(vm_rig_used(vm), ==, 1);
}

/*
 * Taken back, and claimed again with other content, while the old content is
 * still being stored: whichever store ends first, the page is the newer one's.
 */
static void claimed_again(unsigned first)
{
    uint64_t ours = first == 0 ? 0 : 1;

    make_candidates(5, 1);
    mm_writeback(r);
    touch(5, 77);
    make_candidates(5, 1);
    mm_writeback(r);
    g_assert_cmpuint(queue.nr_held, ==, 2);
    complete(first, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, ours);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, !ours);
    assert_swapped(5, 77);
    g_assert_cmpuint(vm_rig_used(vm), ==, 1);
}

static void test_old_ends_first(void)
{
    claimed_again(0);
}

static void test_new_ends_first(void)
{
    claimed_again(1);
}

static void test_all_one_value(void)
{
    uint64_t word = 0x1122334455667788, content[MM_PAGE_SIZE / sizeof(word)];
    uint64_t entry;
    unsigned i;

    make_candidates(5, 1);
    mm_writeback(r);
    touch(5, 0);
    for (i = 0; i < ARRAY_SIZE(content); i++) {
        content[i] = word;
    }
    g_assert_cmpint(pwrite(region->ram_fd, content, sizeof(content),
                           5 * MM_PAGE_SIZE), ==, sizeof(content));
    make_candidates(5, 1);
    g_assert_cmpuint(mm_writeback(r), ==, 1);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, 0);
    entry = mm_map_get(&region->map, 5);
    g_assert_cmpuint(mm_entry_tier(entry), ==, MM_TIER_FILL);
    g_assert_cmphex((uint64_t)region->map.checksums[5] << 32 |
                    (uint32_t)mm_entry_place(entry), ==, word);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
}

static void test_error(void)
{
    make_candidates(0, 2 * BATCH);
    mm_writeback(r);
    mm_writeback(r);
    complete(0, EIO);
    g_assert_cmpuint(mm_writeback_reap(r), ==, 0);
    g_assert_true(r->refused);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_RESIDENT);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, BATCH);
    assert_all_swapped(BATCH, BATCH);
}

/* A tier that does not answer gets nothing more, and holds up nobody else. */
static void test_hangs(void)
{
    unsigned i;

    make_candidates(0, (MM_NR_BATCHES + 1) * BATCH);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        mm_writeback(r);
    }
    for (i = 0; i < MM_NR_BATCHES; i++) {
        r->batches[i].transfer.io.began_ns -= LONG_NS;
    }
    g_assert_cmpuint(mm_writeback_reap(r), ==, 0);
    g_assert_cmpuint(r->hanging, ==, MM_NR_BATCHES);
    g_assert_cmpuint(mm_writeback_leaving(r), ==, 0);
    g_assert_true(r->health[0].failing);
    g_assert_cmpuint(mm_writeback(r), ==, 0);
    g_assert_cmpuint(queue.nr_held, ==, MM_NR_BATCHES);
    g_assert_true(r->refused);
    g_assert_cmpint(vm_rig_state(region, MM_NR_BATCHES * BATCH), ==,
                    MM_PAGE_RESIDENT);
    for (i = 0; i < MM_NR_BATCHES; i++) {
        complete(0, 0);
    }
    g_assert_cmpuint(mm_writeback_reap(r), ==, MM_NR_BATCHES * BATCH);
    g_assert_cmpuint(r->hanging, ==, 0);
    g_assert_false(r->health[0].failing);
    assert_all_swapped(0, MM_NR_BATCHES * BATCH);
}

/* What leaves memory is not what a move has found in a tier before. */
static void test_move_forgets(void)
{
    MmBatch *moved = &r->move.batch;

    moved->busy = true;
    moved->region = region;
    moved->nr = 2;
    moved->p[0] = (MmPiece) { .page = 4, .entry = 44 };
    moved->p[1] = (MmPiece) { .page = 5, .entry = 55 };
    make_candidates(5, 1);
    mm_writeback(r);
    complete(0, 0);
    g_assert_cmpuint(mm_writeback_reap(r), ==, 1);
    g_assert_cmpuint(moved->p[0].entry, ==, 44);
    g_assert_cmpuint(moved->p[1].entry, ==, 0);
    moved->busy = false;
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "any-order", test_any_order },
    { "touched", test_touched },
    { "old-ends-first", test_old_ends_first },
    { "new-ends-first", test_new_ends_first },
    { "all-one-value", test_all_one_value },
    { "error", test_error },
    { "hangs", test_hangs },
    { "move-forgets", test_move_forgets },
};

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    region = vm_rig_add(vm, 0, NR_PAGES);
    vm_rig_populate(region, 0, NR_PAGES / 2);
    while (r->fifo.nr) {
        mm_fifo_pop(&r->fifo);
    }
    r->refused = false;
    r->health[0].failing = false;
    (*fn)();
    vm_rig_check(vm);
    g_assert_cmpuint(queue.nr_held, ==, 0);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    r = vm->reclaim;
    mm_queue_init(&queue.base, &held_ops, vm->tiers[0]);
    QSIMPLEQ_INIT(&queue.held);
    QSIMPLEQ_INIT(&queue.completed);
    queue.former = r->queues[0];
    r->queues[0] = &queue.base;
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/writeback/%s",
                                                tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
