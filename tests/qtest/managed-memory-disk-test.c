/*
 * Managed memory qtests: disks that are read into guest memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test is the driver of a virtio-blk device. Guest memory must not be
 * evicted for exactly as long as the device has it mapped, and what is swapped
 * out is overwritten without being read first.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"
#include "managed-memory-driver.h"

#define CHUNK (2 * MM_MIB)
/* What QEMU waits for a pager before it gives up on it */
#define PATIENCE_US 1000000
#define MARGIN_US 300000

/* ---- requests ---- */

/* Where a read is to be put */
typedef struct Piece {
    uint64_t addr;
    uint32_t len;               /* bytes; 0: no more pieces */
} Piece;

/* Starts to read from the disk's start. */
static uint32_t begin_read_to(MmDriver *d, const Piece *piece,
                              uint64_t *request)
{
    struct virtio_blk_outhdr header = { .type = cpu_to_le32(VIRTIO_BLK_T_IN) };
    QVirtQueue *vq = d->vq[0];
    uint32_t head;

    *request = guest_alloc(&d->qs->alloc, MM_PAGE);
    qtest_memwrite(d->qts, *request, &header, sizeof(header));
    qtest_writeb(d->qts, *request + sizeof(header), 0xff);
    head = qvirtqueue_add(d->qts, vq, *request, sizeof(header), false, true);
    for (; piece->len; piece++) {
        qvirtqueue_add(d->qts, vq, piece->addr, piece->len, true, true);
    }
    qvirtqueue_add(d->qts, vq, *request + sizeof(header), 1, true, false);
    qvirtqueue_kick(d->qts, d->dev, vq, head);
    return head;
}

static uint32_t begin_read(MmDriver *d, uint64_t addr, uint32_t len,
                           uint64_t *request)
{
    const Piece pieces[] = { { addr, len }, {} };

    return begin_read_to(d, pieces, request);
}

/* Returns its status. */
static uint8_t end_read(MmDriver *d, uint32_t head, uint64_t request)
{
    uint8_t status;

    mm_driver_wait(d, 0, head);
    status = qtest_readb(d->qts, request + sizeof(struct virtio_blk_outhdr));
    guest_free(&d->qs->alloc, request);
    return status;
}

static void finish_read(MmDriver *d, uint32_t head, uint64_t request)
{
    g_assert_cmpint(end_read(d, head, request), ==, VIRTIO_BLK_S_OK);
}

/* ---- disks ---- */

/* The device gets to work when the main loop has noticed the kick. */
static void wait_dma_held(MmDriver *d, uint64_t held)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    while (mm_query_dma_held(d->qts) != held) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* A disk of zeros that takes its time */
#define LATENCY_US 2000000
#define SLOW_DISK "-blockdev driver=null-co,node-name=disk,read-zeroes=on," \
                  "size=67108864,latency-ns=" stringify(LATENCY_US) "000 " \
                  "-device virtio-blk-pci,drive=disk,indirect_desc=off"

/* A disk whose reads stop after disk_hold() until disk_release() */
#define HELD_DISK "-blockdev driver=raw,node-name=disk,file.driver=blkdebug," \
                  "file.image.driver=null-co,file.image.size=67108864 " \
                  "-device virtio-blk-pci,drive=disk,indirect_desc=off"

static void disk_hold(MmDriver *d)
{
    g_free(qtest_hmp(d->qts, "qemu-io disk \"break read_aio A\""));
}

static void disk_release(MmDriver *d)
{
    g_free(qtest_hmp(d->qts, "qemu-io disk \"resume A\""));
}

/* ---- pages that are swapped out ---- */

/* A disk with what mm_fill() puts to MM_BUFFERS, from 4 MiB of it on */
#define DISK_LEN (4 * MM_MIB)
#define DISK_SEED 3

/* @options: of blkdebug, or "" */
static MmDriver *start_with_file(MmHost *host, const char *options)
{
    g_autofree char *disk = mm_host_path(host, "disk");
    g_autofree uint8_t *data = mm_pattern(MM_BUFFERS, MM_BUFFERS + DISK_LEN,
                                          DISK_SEED);
    g_autofree char *device = g_strdup_printf(
        "-blockdev driver=raw,node-name=disk,file.driver=blkdebug,"
        "file.image.driver=file,file.image.filename=%s,"
        "file.image.cache.direct=on%s "
        "-device virtio-blk-pci,drive=disk,indirect_desc=off", disk, options);

    g_assert(g_file_set_contents(disk, (char *)data, DISK_LEN, NULL));
    return mm_driver_start(host, device, 0, 1);
}

/* Its content is at @addr, @len bytes of it. */
static void check_read(MmDriver *d, uint64_t addr, uint32_t len, uint64_t from)
{
    g_autofree uint8_t *should = mm_pattern(MM_BUFFERS, MM_BUFFERS + DISK_LEN,
                                            DISK_SEED);
    g_autofree uint8_t *is = g_malloc(len);

    qtest_bufread(d->qts, addr, is, len);
    mm_assert_same(is, should + from, len, addr);
}

static void swap_out(MmDriver *d, uint32_t seed, MmVmInfo *vm)
{
    mm_fill(d->qts, MM_BUFFERS, MM_RAM_END, seed);
    mm_host_evict_all(d->host, NULL, 0);
    g_assert(mm_host_vm(d->host, NULL, vm));
}

static void test_content(void)
{
    MmDriver *d = start_with_file(mm_host_new(NULL), "");
    MmVmInfo vm;
    int i;

    for (i = 0; i < 4; i++) {
        uint64_t request;
        uint32_t head;

        swap_out(d, i + 10, &vm);
        head = begin_read(d, MM_BUFFERS, DISK_LEN, &request);
        finish_read(d, head, request);
        g_assert_cmpint(mm_query_dma_held(d->qts), ==, 0);
        mm_host_evict_all(d->host, NULL, 0);
        mm_check(d->qts, MM_BUFFERS, MM_BUFFERS + DISK_LEN, DISK_SEED);
        mm_check(d->qts, MM_BUFFERS + DISK_LEN, MM_RAM_END, i + 10);
    }
    mm_driver_stop(d);
}

/* What a read overwrites as a whole is not read from a tier first. */
static void test_overwritten(void)
{
    MmDriver *d = start_with_file(mm_host_new(NULL), "");
    uint64_t addr = MM_BUFFERS + MM_PAGE;
    uint32_t len = MM_MIB / 2;
    MmVmInfo before, after;
    uint64_t request;
    uint32_t head;

    swap_out(d, 1, &before);
    head = begin_read(d, addr, len, &request);
    finish_read(d, head, request);
    g_assert(mm_host_vm(d->host, NULL, &after));
    g_assert_cmpint(after.overwritten - before.overwritten, ==, len / MM_PAGE);
    check_read(d, addr, len, 0);
    mm_check(d->qts, MM_BUFFERS + MM_MIB, MM_RAM_END, 1);

    /* the same when it is not swapped out any more, but nothing to overwrite */
    g_assert(mm_host_vm(d->host, NULL, &before));
    head = begin_read(d, addr, len, &request);
    finish_read(d, head, request);
    g_assert(mm_host_vm(d->host, NULL, &after));
    g_assert_cmpint(after.overwritten, ==, before.overwritten);
    check_read(d, addr, len, 0);
    mm_host_evict_all(d->host, NULL, 0);
    check_read(d, addr, len, 0);
    mm_driver_stop(d);
}

/* Pages here and there, some in memory, and one that is read into twice */
static void test_scattered(void)
{
    MmDriver *d = start_with_file(mm_host_new(NULL), "");
    const Piece pieces[] = {
        { MM_BUFFERS + 7 * MM_PAGE, 3 * MM_PAGE },
        { MM_BUFFERS + 512, 1024 },
        { MM_BUFFERS + 2 * MM_MIB, 40 * MM_PAGE },
        { MM_BUFFERS + 3 * MM_PAGE, MM_PAGE },
        { MM_BUFFERS + 5 * MM_MIB + 1024, 2 * MM_PAGE },
        { MM_BUFFERS + 3 * MM_PAGE, MM_PAGE },
        {},
    };
    uint64_t from = 0, request;
    const Piece *piece;
    uint32_t head;
    MmVmInfo vm;

    swap_out(d, 1, &vm);
    /* in memory again */
    mm_check(d->qts, MM_BUFFERS + 8 * MM_PAGE, MM_BUFFERS + 9 * MM_PAGE, 1);
    head = begin_read_to(d, pieces, &request);
    finish_read(d, head, request);
    for (piece = pieces; piece->len; piece++) {
        if (piece != &pieces[3]) {
            check_read(d, piece->addr, piece->len, from);
        }
        from += piece->len;
    }
    mm_check(d->qts, MM_BUFFERS + 4 * MM_PAGE, MM_BUFFERS + 7 * MM_PAGE, 1);
    mm_check(d->qts, MM_BUFFERS + 10 * MM_PAGE, MM_BUFFERS + 2 * MM_MIB, 1);
    mm_driver_stop(d);
}

/* A read that fails changes nothing of what is swapped out. */
static void test_error(void)
{
    MmDriver *d = start_with_file(mm_host_new(NULL),
                                  ",file.inject-error.0.event=read_aio"
                                  ",file.inject-error.0.sector=100");
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    swap_out(d, 1, &vm);
    head = begin_read(d, MM_BUFFERS, MM_MIB, &request);
    g_assert_cmpint(end_read(d, head, request), ==, VIRTIO_BLK_S_IOERR);
    mm_check(d->qts, MM_BUFFERS, MM_RAM_END, 1);
    /* what does not come near that place works, in the same buffer */
    head = begin_read(d, MM_BUFFERS + MM_MIB, 4 * MM_PAGE, &request);
    finish_read(d, head, request);
    check_read(d, MM_BUFFERS + MM_MIB, 4 * MM_PAGE, 0);
    mm_driver_stop(d);
}

/* A VM with a slow disk that is just being read into what is swapped out */
static MmDriver *start_reading(MmVmInfo *vm, uint32_t *head, uint64_t *request)
{
    MmDriver *d = mm_driver_start(mm_host_new(NULL), SLOW_DISK, 0, 1);

    swap_out(d, 1, vm);
    *head = begin_read(d, MM_BUFFERS, MM_MIB, request);
    wait_dma_held(d, 2 * CHUNK);
    return d;
}

/* The disk has answered, and there is no pager: the guest waits, QEMU not. */
static void test_no_pager(void)
{
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;
    MmDriver *d = start_reading(&vm, &head, &request);

    mm_host_kill(d->host);
    kill(vm.pager_pid, SIGKILL);
    qtest_qmp_eventwait(d->qts, "MANAGED_MEMORY_LOST");
    g_usleep(LATENCY_US + MARGIN_US);
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 2 * CHUNK);
    mm_host_start(d->host);
    qtest_qmp_eventwait(d->qts, "MANAGED_MEMORY_RECOVERED");
    finish_read(d, head, request);
    mm_check_zero(d->qts, MM_BUFFERS, MM_BUFFERS + MM_MIB);
    mm_check(d->qts, MM_BUFFERS + MM_MIB, MM_RAM_END, 1);
    mm_driver_stop(d);
}

/* The same when it is there, and does not answer until QEMU has given up */
static void test_pager_stopped(void)
{
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;
    MmDriver *d = start_reading(&vm, &head, &request);

    mm_stop_process(vm.pager_pid);
    g_usleep(LATENCY_US + PATIENCE_US + MARGIN_US);
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 2 * CHUNK);
    kill(vm.pager_pid, SIGCONT);
    finish_read(d, head, request);
    mm_check_zero(d->qts, MM_BUFFERS, MM_BUFFERS + MM_MIB);
    mm_fill(d->qts, MM_BUFFERS, MM_RAM_END, 2);
    /* given up means never done */
    mm_host_evict_all(d->host, NULL, 0);
    mm_check(d->qts, MM_BUFFERS, MM_RAM_END, 2);
    mm_driver_stop(d);
}

/* When the disk answers the memory is QEMU's own. */
static void test_detached(void)
{
    MmDriver *d = start_with_file(mm_host_new(NULL), "");
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    swap_out(d, 1, &vm);
    disk_hold(d);
    head = begin_read(d, MM_BUFFERS, MM_MIB, &request);
    wait_dma_held(d, 2 * CHUNK);
    g_assert_null(mm_host_operation(d->host, NULL, "detach"));
    disk_release(d);
    finish_read(d, head, request);
    check_read(d, MM_BUFFERS, MM_MIB, 0);
    mm_check(d->qts, MM_BUFFERS + MM_MIB, MM_RAM_END, 1);
    mm_driver_stop(d);
}

/* ---- what is in flight stays ---- */

/* What a device has mapped stays, and nothing else does. */
static void test_in_flight(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *d = mm_driver_start(host, HELD_DISK, 0, 1);
    uint64_t addr = MM_BUFFERS + CHUNK / 2;
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    mm_fill(d->qts, MM_BUFFERS, MM_RAM_END, 1);
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 0);
    disk_hold(d);
    head = begin_read(d, addr, CHUNK, &request);
    /* two chunks of the buffer, and the one of the request */
    wait_dma_held(d, 3 * CHUNK);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 3 * CHUNK);
    g_assert_null(mm_host_operation(host, NULL, "evict"));
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 3 * CHUNK);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.resident, >=, 2 * CHUNK);
    g_assert_cmpint(vm.resident, <=, 3 * CHUNK);
    disk_release(d);
    finish_read(d, head, request);

    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 0);
    mm_host_evict_all(host, NULL, 0);
    mm_check(d->qts, MM_BUFFERS, MM_RAM_END, 1);
    mm_driver_stop(d);
}

static void test_reset(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *d = mm_driver_start(host, SLOW_DISK, 0, 1);
    uint64_t request;

    begin_read(d, MM_BUFFERS, 8 * CHUNK, &request);
    wait_dma_held(d, 9 * CHUNK);
    qobject_unref(mm_qmp(d->qts, "{'execute': 'system_reset'}"));
    qtest_qmp_eventwait(d->qts, "RESET");
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 0);
    guest_free(&d->qs->alloc, request);

    /* the same when the driver resets the device */
    qvirtio_pci_device_enable(d->pci);
    mm_driver_negotiate(d, 0, 1);
    begin_read(d, MM_BUFFERS, 8 * CHUNK, &request);
    wait_dma_held(d, 9 * CHUNK);
    qvirtio_reset(d->dev);
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 0);
    mm_host_evict_all(host, NULL, 0);
    mm_driver_stop(d);
}

/* The counters are QEMU's: a pager's death does not change them. */
static void test_pager_killed(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *d = mm_driver_start(host, HELD_DISK, 0, 1);
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(d->qts, MM_BUFFERS, MM_RAM_END, 1);
    disk_hold(d);
    head = begin_read(d, MM_BUFFERS, CHUNK, &request);
    wait_dma_held(d, 2 * CHUNK);
    kill(vm.pager_pid, SIGKILL);
    qtest_qmp_eventwait(d->qts, "MANAGED_MEMORY_RECOVERED");
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 2 * CHUNK);
    g_assert_cmpint(mm_query_dma_held(d->qts), ==, 2 * CHUNK);
    disk_release(d);
    finish_read(d, head, request);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 0);
    mm_host_evict_all(host, NULL, 0);
    mm_check(d->qts, MM_BUFFERS, MM_RAM_END, 1);
    mm_driver_stop(d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/disk/content", test_content);
    qtest_add_func("managed-memory/disk/overwritten", test_overwritten);
    qtest_add_func("managed-memory/disk/scattered", test_scattered);
    qtest_add_func("managed-memory/disk/error", test_error);
    qtest_add_func("managed-memory/disk/no-pager", test_no_pager);
    qtest_add_func("managed-memory/disk/pager-stopped", test_pager_stopped);
    qtest_add_func("managed-memory/disk/detached", test_detached);
    qtest_add_func("managed-memory/disk/in-flight", test_in_flight);
    qtest_add_func("managed-memory/disk/reset", test_reset);
    qtest_add_func("managed-memory/disk/pager-killed", test_pager_killed);
    return g_test_run();
}
