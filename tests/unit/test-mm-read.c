/*
 * Unit tests: QEMU's side of disk reads into memory that is swapped out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The disk, the pager and the thread pool are this file's.  What counts is that
 * the guest's memory ends up with what is on the disk whatever the pager does,
 * and that a read which has to wait holds up nobody else.
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "block/block_int.h"
#include "block/managed-memory.h"
#include "block/thread-pool.h"
#include "qemu/bitops.h"
#include "qemu/futex.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "sysemu/replay.h"
#include "backends/managed-memory-internal.h"

#define PAGE 4096
#define NR_PAGES 4096

bool managed_memory_in_use = true;

static uint64_t map[NR_PAGES];
static ManagedRegion region = {
    .size = NR_PAGES * PAGE, .page_size = PAGE, .map = map,
};
static MmRing *ring;
static int ring_fd, kick_fd;

/* atomic */
static bool pager_stopped;
static uint64_t refused = UINT64_MAX;   /* a page that the pager leaves alone */
static bool conn_lost;

static QEMUIOVector *disk_qiov;         /* of the last read */
static int disk_niov;
static int disk_ret;

/* ---- what managed-memory-read.c needs of others ---- */

ManagedRegion *managed_region_find(const void *host)
{
    uint64_t offset = (uintptr_t)host - (uintptr_t)region.hva;

    return offset < region.size ? &region : NULL;
}

ManagedConnState managed_conn_state(void)
{
    return qatomic_read(&conn_lost) ? MANAGED_CONN_LOST
                                    : MANAGED_CONN_CONNECTED;
}

bool managed_conn_if_lost(bool (*fn)(void *opaque), void *opaque)
{
    return qatomic_read(&conn_lost) && fn(opaque);
}

MmRing *managed_conn_ring(void)
{
    return ring;
}

int managed_conn_ring_fd(void)
{
    return ring_fd;
}

void managed_conn_kick(void)
{
    uint64_t one = 1;

    g_assert_cmpint(write(kick_fd, &one, sizeof(one)), ==, sizeof(one));
}

/* Page n of the disk has n everywhere. */
int coroutine_fn bdrv_co_preadv_part(BdrvChild *child, int64_t offset,
                                     int64_t bytes, QEMUIOVector *qiov,
                                     size_t qiov_offset,
                                     BdrvRequestFlags flags)
{
    g_autofree uint8_t *data = g_malloc(bytes);
    int64_t i;

    disk_qiov = qiov;
    disk_niov = qiov->niov;
    if (disk_ret < 0) {
        return disk_ret;
    }
    for (i = 0; i < bytes; i++) {
        data[i] = (offset + i) / PAGE;
    }
    qemu_iovec_from_buf(qiov, qiov_offset, data, bytes);
    return 0;
}

/* In its place: there is no event loop here, and no coroutine. */
static int coroutine_fn call_at_once(ThreadPoolFunc *func, void *arg)
{
    return func(arg);
}

#define thread_pool_submit_co(pool, func, arg) call_at_once(func, arg)

#include "backends/managed-memory-read.c"

/* ---- the pager ---- */

static uint32_t execute(const MmRingSlot *slot)
{
    uint32_t done = 0;
    unsigned i;

    if (slot->kind != MM_RING_OVERWRITE) {
        return 0;
    }
    for (i = 0; i < slot->range.nr_pages; i++) {
        uint64_t page = slot->range.first_page + i;

        if (page != qatomic_read(&refused)) {
            memcpy(region.hva + page * PAGE, ring->buffer[slot->buffer + i],
                   PAGE);
            done |= 1u << i;
        }
    }
    return done;
}

static void *pager_thread(void *opaque)
{
    for (;;) {
        uint64_t kicks;
        int i;

        g_assert_cmpint(read(kick_fd, &kicks, sizeof(kicks)), ==,
                        sizeof(kicks));
        for (i = 0; i < MM_RING_SLOTS && !qatomic_read(&pager_stopped); i++) {
            MmRingSlot *slot = &ring->slots[i];

            if (qatomic_cmpxchg(&slot->state, MM_RING_POSTED, MM_RING_TAKEN) ==
                MM_RING_POSTED) {
                slot->pages = execute(slot);
                qatomic_set(&slot->state, MM_RING_DONE);
                qemu_futex(&slot->state, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
            }
        }
    }
    return NULL;
}

/* ---- reads ---- */

static unsigned slots_in(MmRingState state, unsigned from, unsigned to)
{
    unsigned i, nr = 0;

    for (i = from; i < to; i++) {
        nr += qatomic_read(&ring->slots[i].state) == state;
    }
    return nr;
}

static void set_states(uint64_t page, uint64_t nr, MmPageState state)
{
    for (; nr; page++, nr--) {
        map[page] = state;
        memset(region.hva + page * PAGE, 0xee, PAGE);
    }
}

/* Every @step-th page from @first on, @nr of them */
static int read_pages(uint64_t first, unsigned step, unsigned nr)
{
    QEMUIOVector qiov;
    unsigned i;
    int ret;

    qemu_iovec_init(&qiov, nr);
    for (i = 0; i < nr; i++) {
        qemu_iovec_add(&qiov, region.hva + (first + i * step) * PAGE, PAGE);
    }
    ret = managed_memory_co_preadv(NULL, 0, qiov.size, &qiov, 0, 0);
    if (disk_qiov == &qiov) {
        disk_qiov = NULL;       /* done as ever */
    }
    qemu_iovec_destroy(&qiov);
    return ret;
}

static void assert_read(uint64_t first, unsigned step, unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        const uint8_t *at = region.hva + (first + i * step) * PAGE;

        g_assert_cmphex(at[0], ==, i & 0xff);
        g_assert_cmphex(at[PAGE - 1], ==, i & 0xff);
    }
    g_assert_cmpuint(slots_in(MM_RING_FREE, 0, MM_RING_SLOTS), ==,
                     MM_RING_SLOTS);
}

static void test_through_ring(void)
{
    set_states(0, 1024, MM_PAGE_SWAPPED);
    g_assert_cmpint(read_pages(0, 1, 100), ==, 0);
    g_assert_nonnull(disk_qiov);
    assert_read(0, 1, 100);
    g_assert_cmpint(read_pages(200, 3, 250), ==, 0);
    g_assert_nonnull(disk_qiov);
    assert_read(200, 3, 250);
    /* more than goes through the buffer */
    g_assert_cmpint(read_pages(0, 1, 1000), ==, 0);
    assert_read(0, 1, 1000);
}

/* Never populated pages go along; alone they are nothing to save. */
static void test_nothing_swapped(void)
{
    set_states(0, 64, MM_PAGE_NEVER);
    set_states(64, 64, MM_PAGE_RESIDENT);
    g_assert_cmpint(read_pages(0, 1, 128), ==, 0);
    g_assert_null(disk_qiov);
    assert_read(0, 1, 128);
    map[3] = MM_PAGE_SWAPPED;
    g_assert_cmpint(read_pages(0, 1, 128), ==, 0);
    g_assert_nonnull(disk_qiov);
    assert_read(0, 1, 128);
}

static void test_unaligned(void)
{
    QEMUIOVector qiov;

    set_states(0, 8, MM_PAGE_SWAPPED);
    qemu_iovec_init(&qiov, 3);
    qemu_iovec_add(&qiov, region.hva + 512, 1024);
    qemu_iovec_add(&qiov, region.hva + 2 * PAGE + 1024, 3 * PAGE);
    qemu_iovec_add(&qiov, region.hva + 7 * PAGE, PAGE);
    /* of a part of it */
    g_assert_cmpint(managed_memory_co_preadv(NULL, 0, 3 * PAGE, &qiov, 512, 0),
                    ==, 0);
    g_assert_cmphex(region.hva[512 + 511], ==, 0xee);
    g_assert_cmphex(region.hva[512 + 512], ==, 0);
    g_assert_cmphex(region.hva[512 + 1023], ==, 0);
    g_assert_cmphex(region.hva[512 + 1024], ==, 0xee);
    g_assert_cmphex(region.hva[2 * PAGE + 1023], ==, 0xee);
    g_assert_cmphex(region.hva[2 * PAGE + 1024], ==, 0);
    g_assert_cmphex(region.hva[2 * PAGE + 1024 + PAGE - 512], ==, 1);
    g_assert_cmphex(region.hva[2 * PAGE + 1024 + 3 * PAGE - 513], ==, 2);
    g_assert_cmphex(region.hva[2 * PAGE + 1024 + 3 * PAGE - 512], ==, 0xee);
    g_assert_cmphex(region.hva[7 * PAGE], ==, 0xee);
    qemu_iovec_destroy(&qiov);
}

static void test_pager_leaves_some(void)
{
    set_states(0, 64, MM_PAGE_SWAPPED);
    qatomic_set(&refused, 17);
    g_assert_cmpint(read_pages(0, 1, 64), ==, 0);
    assert_read(0, 1, 64);
    set_states(0, 64, MM_PAGE_SWAPPED);
    qatomic_set(&refused, 31);
    g_assert_cmpint(read_pages(0, 1, 64), ==, 0);
    assert_read(0, 1, 64);
    qatomic_set(&refused, UINT64_MAX);
}

static void test_no_pager(void)
{
    set_states(0, 64, MM_PAGE_SWAPPED);
    qatomic_set(&conn_lost, true);
    g_assert_cmpint(read_pages(0, 1, 64), ==, 0);
    assert_read(0, 1, 64);
    qatomic_set(&conn_lost, false);
}

/* It does not answer: taken back, and the slots of discards not touched. */
static void test_pager_stopped(void)
{
    set_states(0, 1024, MM_PAGE_SWAPPED);
    qatomic_set(&pager_stopped, true);
    g_assert_cmpint(read_pages(0, 2, 250), ==, 0);
    assert_read(0, 2, 250);
    qatomic_set(&pager_stopped, false);
    /* the next one does not wait for so long, and ends that */
    g_assert_cmpint(read_pages(0, 1, 1), ==, 0);
}

/* The buffer is free again, also after reads that fail. */
static void test_read_fails(void)
{
    unsigned i;

    set_states(0, 256, MM_PAGE_SWAPPED);
    disk_ret = -EIO;
    for (i = 0; i < 20; i++) {
        g_assert_cmpint(read_pages(0, 1, 256), ==, -EIO);
        g_assert_nonnull(disk_qiov);
        g_assert_cmphex(region.hva[i * PAGE], ==, 0xee);
    }
    disk_ret = 0;
    g_assert_cmpint(read_pages(0, 1, 256), ==, 0);
    g_assert_nonnull(disk_qiov);
    assert_read(0, 1, 256);
}

/* Pieces: one that is there, one that is not, and so on */
static void test_too_many_pieces(void)
{
    QEMUIOVector qiov;
    unsigned i;

    set_states(0, 2048, MM_PAGE_RESIDENT);
    for (i = 0; i < 400; i += 2) {
        map[i] = MM_PAGE_SWAPPED;
    }
    qemu_iovec_init(&qiov, 1000);
    qemu_iovec_add(&qiov, region.hva, 400 * PAGE);
    for (i = 0; i < 623; i++) {
        qemu_iovec_add(&qiov, region.hva + (401 + 2 * i) * PAGE, PAGE);
    }
    /* a head and a tail may come on top of 1023 */
    managed_memory_co_preadv(NULL, 0, qiov.size, &qiov, 0, 0);
    g_assert(disk_qiov == &qiov);
    managed_memory_co_preadv(NULL, 0, qiov.size - PAGE, &qiov, 0, 0);
    g_assert(disk_qiov != &qiov);
    g_assert_cmpint(disk_niov, ==, IOV_MAX - 2);
    qemu_iovec_destroy(&qiov);
}

static void test_replay(void)
{
    set_states(0, 64, MM_PAGE_SWAPPED);
    replay_mode = REPLAY_MODE_RECORD;
    g_assert_cmpint(read_pages(0, 1, 64), ==, 0);
    g_assert_null(disk_qiov);
    replay_mode = REPLAY_MODE_NONE;
}

/* ---- a page that cannot be had ---- */

static void *reader_thread(void *opaque)
{
    rcu_register_thread();
    g_assert_cmpint(read_pages(0, 2, 250), ==, 0);
    rcu_unregister_thread();
    return NULL;
}

static int missing_page(uint64_t page)
{
    struct uffdio_api api = { .api = UFFD_API };
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)region.hva + page * PAGE, .len = PAGE },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ioctl(fd, UFFDIO_API, &api), ==, 0);
    g_assert_cmpint(madvise(region.hva + page * PAGE, PAGE, MADV_REMOVE), ==,
                    0);
    g_assert_cmpint(ioctl(fd, UFFDIO_REGISTER, &reg), ==, 0);
    return fd;
}

static void serve(int fd, uint64_t page)
{
    struct uffdio_zeropage zero = {
        .range = { .start = (uintptr_t)region.hva + page * PAGE, .len = PAGE },
    };

    g_assert_cmpint(ioctl(fd, UFFDIO_ZEROPAGE, &zero), ==, 0);
}

/* A read that waits for it holds no slot, whatever its other pages are. */
static void test_hung_page(void)
{
    struct uffd_msg msg;
    GThread *reader;
    int fd;

    set_states(0, 1024, MM_PAGE_SWAPPED);
    fd = missing_page(0);
    qatomic_set(&refused, 0);
    reader = g_thread_new("reader", reader_thread, NULL);
    /* it faults, so it has begun to copy */
    g_assert_cmpint(read(fd, &msg, sizeof(msg)), ==, sizeof(msg));
    g_assert_cmpuint(slots_in(MM_RING_FREE, 0, MM_RING_SLOTS), ==,
                     MM_RING_SLOTS);
    managed_memory_discard_begin();
    managed_memory_discard_slow(region.hva + 3000 * PAGE, PAGE);
    managed_memory_discard_end();
    g_assert_true(managed_memory_discard_slow(region.hva + 3000 * PAGE, PAGE));
    g_assert_cmpuint(managed_discards_skipped(), ==, 0);
    serve(fd, 0);
    g_thread_join(reader);
    assert_read(0, 2, 250);
    qatomic_set(&refused, UINT64_MAX);
    close(fd);
}

/* Whatever reads post, some slots are left for discards. */
static void test_slots_for_discards(void)
{
    int64_t end = g_get_monotonic_time() + 900 * 1000;
    GThread *reader;
    unsigned posted = 0;

    set_states(0, 1024, MM_PAGE_SWAPPED);
    qatomic_set(&pager_stopped, true);
    reader = g_thread_new("reader", reader_thread, NULL);
    while (posted < MM_RING_SLOTS - MANAGED_RING_RESERVED &&
           g_get_monotonic_time() < end) {
        posted = slots_in(MM_RING_POSTED, MANAGED_RING_RESERVED, MM_RING_SLOTS);
    }
    g_assert_cmpuint(posted, ==, MM_RING_SLOTS - MANAGED_RING_RESERVED);
    g_assert_cmpuint(slots_in(MM_RING_FREE, 0, MANAGED_RING_RESERVED), ==,
                     MANAGED_RING_RESERVED);
    qatomic_set(&pager_stopped, false);
    managed_conn_kick();
    g_thread_join(reader);
    assert_read(0, 2, 250);
}

static void set_up(void)
{
    ring_fd = memfd_create("ring", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(ring_fd, sizeof(MmRing)), ==, 0);
    ring = mmap(NULL, sizeof(MmRing), PROT_READ | PROT_WRITE, MAP_SHARED,
                ring_fd, 0);
    region.hva = mmap(NULL, region.size, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    g_assert(ring != MAP_FAILED && region.hva != MAP_FAILED);
    kick_fd = eventfd(0, EFD_CLOEXEC);
    g_thread_unref(g_thread_new("pager", pager_thread, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    init_clocks(NULL);
    set_up();
    g_test_add_func("/mm/read/through-ring", test_through_ring);
    g_test_add_func("/mm/read/nothing-swapped", test_nothing_swapped);
    g_test_add_func("/mm/read/unaligned", test_unaligned);
    g_test_add_func("/mm/read/pager-leaves-some", test_pager_leaves_some);
    g_test_add_func("/mm/read/hung-page", test_hung_page);
    g_test_add_func("/mm/read/slots-for-discards", test_slots_for_discards);
    g_test_add_func("/mm/read/no-pager", test_no_pager);
    g_test_add_func("/mm/read/pager-stopped", test_pager_stopped);
    g_test_add_func("/mm/read/fails", test_read_fails);
    g_test_add_func("/mm/read/too-many-pieces", test_too_many_pieces);
    g_test_add_func("/mm/read/replay", test_replay);
    return g_test_run();
}
