/*
 * Unit tests: the reclaim thread's part, step by step
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "reclaim-rig.h"

#define NR_PAGES 1024

ReclaimRig rig;

static void held_submit(MmTierQueue *q, MmTierIO *io)
{
    QSIMPLEQ_INSERT_TAIL(&rig.queue.held, io, next);
    rig.queue.nr_held++;
}

static unsigned held_reap(MmTierQueue *q, MmTierDone *done)
{
    unsigned nr = 0;
    MmTierIO *io;

    while ((io = QSIMPLEQ_FIRST(&rig.queue.completed))) {
        QSIMPLEQ_REMOVE_HEAD(&rig.queue.completed, next);
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

void reclaim_rig_complete(unsigned nth, int err)
{
    MmTierIO *io = QSIMPLEQ_FIRST(&rig.queue.held);
    ssize_t len;

    while (nth--) {
        io = QSIMPLEQ_NEXT(io, next);
    }
    QSIMPLEQ_REMOVE(&rig.queue.held, io, MmTierIO, next);
    rig.queue.nr_held--;
    len = io->nr_pages * MM_PAGE_SIZE;
    if (!err) {
        g_assert_cmpint(pwrite(rig.vm->tiers[0]->fd, io->buf, len,
                               (io->place + 1) * MM_PAGE_SIZE), ==, len);
    }
    io->ret = -err;
    QSIMPLEQ_INSERT_TAIL(&rig.queue.completed, io, next);
    mm_wake(rig.r->io_fd);
}

void reclaim_rig_candidates(uint64_t page, unsigned nr)
{
    for (; nr; page++, nr--) {
        vm_rig_move(rig.region, page, MM_PAGE_CANDIDATE);
        mm_fifo_push(&rig.r->fifo, (MmCandidate) {
            .region = rig.region->id, .page = page, .nr_pages = 1,
        });
    }
}

void reclaim_rig_swapped(uint64_t page, uint64_t content)
{
    uint64_t buffer[MM_PAGE_SIZE / sizeof(uint64_t)]
        QEMU_ALIGNED(MM_PAGE_SIZE);
    uint64_t entry = mm_map_get(&rig.region->map, page);

    g_assert_cmpint(mm_entry_state(entry), ==, MM_PAGE_SWAPPED);
    g_assert_false(vm_rig_present(rig.region, page));
    g_assert_cmpint(pread(rig.vm->tiers[0]->fd, buffer, MM_PAGE_SIZE,
                          (mm_entry_place(entry) + 1) * MM_PAGE_SIZE), ==,
                    MM_PAGE_SIZE);
    g_assert_cmphex(buffer[0], ==, content);
    g_assert_cmphex(mm_page_checksum(&rig.region->map, page, entry, buffer), ==,
                    rig.region->map.checksums[page]);
}

void reclaim_rig_all_swapped(uint64_t page, uint64_t nr)
{
    for (; nr; page++, nr--) {
        reclaim_rig_swapped(page, page + 1);
    }
}

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    rig.region = vm_rig_add(rig.vm, 0, NR_PAGES);
    vm_rig_populate(rig.region, 0, NR_PAGES / 2);
    while (rig.r->fifo.nr) {
        mm_fifo_pop(&rig.r->fifo);
    }
    rig.r->refused = false;
    rig.r->health[0].failing = false;
    (*fn)();
    vm_rig_check(rig.vm);
    g_assert_cmpuint(rig.queue.nr_held, ==, 0);
    vm_rig_remove(rig.vm, rig.region);
    g_assert_cmpuint(vm_rig_used(rig.vm), ==, 0);
}

int reclaim_rig_main(int argc, char **argv, const char *name,
                     const ReclaimTest *tests, unsigned nr)
{
    unsigned i;

    g_test_init(&argc, &argv, NULL);
    rig.vm = vm_rig_new(g_get_tmp_dir(), 0);
    rig.r = rig.vm->reclaim;
    mm_queue_init(&rig.queue.base, &held_ops, rig.vm->tiers[0]);
    QSIMPLEQ_INIT(&rig.queue.held);
    QSIMPLEQ_INIT(&rig.queue.completed);
    rig.queue.former = rig.r->queues[0];
    rig.r->queues[0] = &rig.queue.base;
    for (i = 0; i < nr; i++) {
        g_autofree char *path = g_strdup_printf("/mm/%s/%s", name,
                                                tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
