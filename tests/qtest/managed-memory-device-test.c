/*
 * Managed memory qtests: devices that use guest memory, or give it back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The test is the driver of virtio devices. Those that read and write guest
 * memory must keep it from being evicted for exactly as long as they have it
 * mapped; those that give memory back must have the pager forget it, and must
 * not wait for ever for a pager that does not answer.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "libqos/libqos-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "qapi/qmp/qlist.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_mem.h"
#include "managed-memory-vm.h"

#define TIMEOUT_US (MM_WAIT_MS * 1000)
#define CHUNK (2 * MM_MIB)

/* Guest memory that tests use; the drivers' queues lie below */
#define BUFFERS (8 * MM_MIB)

/* ---- a machine with one virtio device ---- */

typedef struct Rig {
    MmHost *host;
    QOSState *qs;
    QTestState *qts;
    QVirtioPCIDevice *pci;
    QVirtioDevice *dev;
    QVirtQueue *vq[4];
} Rig;

static void start_driver(Rig *rig, uint64_t features, int nr_queues)
{
    uint64_t offered;
    int i;

    qvirtio_start_device(rig->dev);
    offered = qvirtio_get_features(rig->dev);
    features |= 1ull << VIRTIO_F_VERSION_1;
    g_assert_cmphex(offered & features, ==, features);
    qvirtio_set_features(rig->dev, features);
    for (i = 0; i < nr_queues; i++) {
        rig->vq[i] = qvirtqueue_setup(rig->dev, &rig->qs->alloc, i);
    }
    qvirtio_set_driver_ok(rig->dev);
}

static Rig *start(MmHost *host, const char *device, uint64_t features,
                  int nr_queues)
{
    g_autofree char *backend = mm_backend(host, "mm0", MM_RAM_END / MM_MIB,
                                          "");
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    Rig *rig = g_new0(Rig, 1);

    rig->host = host;
    rig->qs = qtest_pc_boot("-name vm -machine pc,memory-backend=mm0 "
                            "-m 32M,slots=2,maxmem=1G -nodefaults %s %s,"
                            "id=dev,addr=4.0", backend, device);
    mm_host_guard(host);
    rig->qts = rig->qs->qts;
    rig->pci = virtio_pci_new(rig->qs->pcibus, &addr);
    g_assert(rig->pci);
    rig->dev = &rig->pci->vdev;
    qvirtio_pci_device_enable(rig->pci);
    start_driver(rig, features, nr_queues);
    return rig;
}

static void stop(Rig *rig)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(rig->vq) && rig->vq[i]; i++) {
        qvirtqueue_cleanup(rig->dev->bus, rig->vq[i], &rig->qs->alloc);
    }
    qvirtio_pci_device_disable(rig->pci);
    qvirtio_pci_destructor(&rig->pci->obj);
    g_free(rig->pci);
    qtest_pc_shutdown(rig->qs);
    mm_host_free(rig->host);
    g_free(rig);
}

static void wait_done(Rig *rig, int queue, uint32_t head)
{
    qvirtio_wait_used_elem(rig->qts, rig->dev, rig->vq[queue], head, NULL,
                           TIMEOUT_US);
}

/* ---- block device ---- */

/* Starts to read @len bytes from the disk's start to @addr. */
static uint32_t begin_read(Rig *rig, uint64_t addr, uint32_t len,
                           uint64_t *request)
{
    struct virtio_blk_outhdr header = { .type = cpu_to_le32(VIRTIO_BLK_T_IN) };
    QVirtQueue *vq = rig->vq[0];
    uint32_t head;

    *request = guest_alloc(&rig->qs->alloc, MM_PAGE);
    qtest_memwrite(rig->qts, *request, &header, sizeof(header));
    qtest_writeb(rig->qts, *request + sizeof(header), 0xff);
    head = qvirtqueue_add(rig->qts, vq, *request, sizeof(header), false, true);
    qvirtqueue_add(rig->qts, vq, addr, len, true, true);
    qvirtqueue_add(rig->qts, vq, *request + sizeof(header), 1, true, false);
    qvirtqueue_kick(rig->qts, rig->dev, vq, head);
    return head;
}

static void finish_read(Rig *rig, uint32_t head, uint64_t request)
{
    wait_done(rig, 0, head);
    g_assert_cmpint(qtest_readb(rig->qts,
                                request + sizeof(struct virtio_blk_outhdr)),
                    ==, VIRTIO_BLK_S_OK);
    guest_free(&rig->qs->alloc, request);
}

static void test_blk_content(void)
{
    const uint64_t len = 4 * MM_MIB;
    MmHost *host = mm_host_new(NULL);
    g_autofree char *disk = mm_host_path(host, "disk");
    g_autofree char *device = g_strdup_printf(
        "-blockdev driver=file,node-name=disk,filename=%s,cache.direct=on "
        "-device virtio-blk-pci,drive=disk,indirect_desc=off", disk);
    g_autofree uint8_t *data = mm_pattern(BUFFERS, BUFFERS + len, 3);
    Rig *rig;
    int i;

    g_assert(g_file_set_contents(disk, (char *)data, len, NULL));
    rig = start(host, device, 0, 1);
    for (i = 0; i < 4; i++) {
        uint64_t request;
        uint32_t head;

        /* into pages that are swapped out */
        mm_fill(rig->qts, BUFFERS, MM_RAM_END, i + 10);
        mm_host_evict_all(host, NULL, 0);
        head = begin_read(rig, BUFFERS, len, &request);
        finish_read(rig, head, request);
        g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
        mm_host_evict_all(host, NULL, 0);
        mm_check(rig->qts, BUFFERS, BUFFERS + len, 3);
        mm_check(rig->qts, BUFFERS + len, MM_RAM_END, i + 10);
    }
    stop(rig);
}

/* The device gets to work when the main loop has noticed the kick. */
static void wait_dma_held(Rig *rig, uint64_t held)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_US;

    while (mm_query_dma_held(rig->qts) != held) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

#define SLOW_DISK "-blockdev driver=null-co,node-name=disk," \
                  "size=67108864,latency-ns=2000000000 " \
                  "-device virtio-blk-pci,drive=disk,indirect_desc=off"

/* A disk whose reads stop after disk_hold() until disk_release() */
#define HELD_DISK "-blockdev driver=raw,node-name=disk,file.driver=blkdebug," \
                  "file.image.driver=null-co,file.image.size=67108864 " \
                  "-device virtio-blk-pci,drive=disk,indirect_desc=off"

static void disk_hold(Rig *rig)
{
    g_free(qtest_hmp(rig->qts, "qemu-io disk \"break read_aio A\""));
}

static void disk_release(Rig *rig)
{
    g_free(qtest_hmp(rig->qts, "qemu-io disk \"resume A\""));
}

/* What a device has mapped stays, and nothing else does. */
static void test_blk_in_flight(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, HELD_DISK, 0, 1);
    uint64_t addr = BUFFERS + CHUNK / 2;
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    disk_hold(rig);
    head = begin_read(rig, addr, CHUNK, &request);
    /* two chunks of the buffer, and the one of the request */
    wait_dma_held(rig, 3 * CHUNK);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 3 * CHUNK);
    g_assert_null(mm_host_operation(host, NULL, "evict"));
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 3 * CHUNK);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.resident, >=, 2 * CHUNK);
    g_assert_cmpint(vm.resident, <=, 3 * CHUNK);
    disk_release(rig);
    finish_read(rig, head, request);

    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 1);
    stop(rig);
}

static void test_blk_reset(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, SLOW_DISK, 0, 1);
    uint64_t request;

    begin_read(rig, BUFFERS, 8 * CHUNK, &request);
    wait_dma_held(rig, 9 * CHUNK);
    qobject_unref(mm_qmp(rig->qts, "{'execute': 'system_reset'}"));
    qtest_qmp_eventwait(rig->qts, "RESET");
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    guest_free(&rig->qs->alloc, request);

    /* the same when the driver resets the device */
    qvirtio_pci_device_enable(rig->pci);
    start_driver(rig, 0, 1);
    begin_read(rig, BUFFERS, 8 * CHUNK, &request);
    wait_dma_held(rig, 9 * CHUNK);
    qvirtio_reset(rig->dev);
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    mm_host_evict_all(host, NULL, 0);
    stop(rig);
}

/* The counters are QEMU's: a pager's death does not change them. */
static void test_blk_pager_killed(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, HELD_DISK, 0, 1);
    uint64_t request;
    uint32_t head;
    MmVmInfo vm;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    disk_hold(rig);
    head = begin_read(rig, BUFFERS, CHUNK, &request);
    wait_dma_held(rig, 2 * CHUNK);
    kill(vm.pager_pid, SIGKILL);
    qtest_qmp_eventwait(rig->qts, "MANAGED_MEMORY_RECOVERED");
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 2 * CHUNK);
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 2 * CHUNK);
    disk_release(rig);
    finish_read(rig, head, request);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.dma_held, ==, 0);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 1);
    stop(rig);
}

/* ---- balloon ---- */

#define BALLOON "-device virtio-balloon-pci"
#define REPORTING "-device virtio-balloon-pci,free-page-reporting=on"
#define INFLATE 0
#define REPORTING_QUEUE 3
#define NR_PFNS 256

/* Inflates by the pages from @addr on, NR_PFNS of them. */
static void inflate(Rig *rig, uint64_t addr)
{
    uint64_t array = guest_alloc(&rig->qs->alloc, MM_PAGE);
    uint32_t pfns[NR_PFNS];
    uint32_t head;
    int i;

    for (i = 0; i < NR_PFNS; i++) {
        pfns[i] = cpu_to_le32(addr / MM_PAGE + i);
    }
    qtest_memwrite(rig->qts, array, pfns, sizeof(pfns));
    head = qvirtqueue_add(rig->qts, rig->vq[INFLATE], array, sizeof(pfns),
                          false, false);
    qvirtqueue_kick(rig->qts, rig->dev, rig->vq[INFLATE], head);
    wait_done(rig, INFLATE, head);
    guest_free(&rig->qs->alloc, array);
}

static void assert_zero(QTestState *qts, uint64_t start, uint64_t end)
{
    g_autofree uint8_t *is = g_malloc(end - start);
    g_autofree uint8_t *zero = g_malloc0(end - start);

    qtest_bufread(qts, start, is, end - start);
    mm_assert_same(is, zero, end - start, start);
}

static uint64_t skipped(QTestState *qts)
{
    QDict *info = mm_query(qts);
    uint64_t bytes = qdict_get_int(info, "discards-skipped");

    qobject_unref(info);
    return bytes;
}

static void test_balloon(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, BALLOON, 0, 2);
    MmVmInfo before, after;

    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, NULL, &before));
    inflate(rig, BUFFERS);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.discarded, ==, before.discarded + NR_PFNS);
    g_assert_cmpint(after.never, ==, before.never + NR_PFNS * MM_PAGE);

    /* the same for pages that are swapped out: their places are freed */
    mm_host_evict_all(host, NULL, 0);
    g_assert(mm_host_vm(host, NULL, &before));
    inflate(rig, BUFFERS + MM_MIB);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.swapped, <, before.swapped);
    g_assert_cmpint(skipped(rig->qts), ==, 0);
    assert_zero(rig->qts, BUFFERS, BUFFERS + 2 * MM_MIB);
    mm_check(rig->qts, BUFFERS + 2 * MM_MIB, MM_RAM_END, 1);

    /* what is given back can be used again */
    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 2);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 2);
    stop(rig);
}

/* Discards are voluntary: a pager that does not answer is not waited for. */
static void test_balloon_pager_stopped(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, BALLOON, 0, 2);
    int64_t begin;
    MmVmInfo vm;
    int i;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    mm_stop_process(vm.pager_pid);
    begin = g_get_monotonic_time();
    for (i = 0; i < 4; i++) {
        inflate(rig, BUFFERS + i * MM_MIB);
    }
    /* the first one waits for a second, the others know better */
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 4 * G_USEC_PER_SEC);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 1);
    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 2);

    /* given up means never done: new content must not be lost */
    kill(vm.pager_pid, SIGCONT);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 2);
    inflate(rig, BUFFERS);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    assert_zero(rig->qts, BUFFERS, BUFFERS + MM_MIB);
    stop(rig);
}

static void test_balloon_no_pager(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, BALLOON, 0, 2);
    int64_t begin;
    MmVmInfo vm;
    int i;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    mm_host_kill(host);
    kill(vm.pager_pid, SIGKILL);
    qtest_qmp_eventwait(rig->qts, "MANAGED_MEMORY_LOST");
    begin = g_get_monotonic_time();
    for (i = 0; i < 4; i++) {
        inflate(rig, BUFFERS + i * MM_MIB);
    }
    g_assert_cmpint(g_get_monotonic_time() - begin, <, G_USEC_PER_SEC);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    mm_host_start(host);
    qtest_qmp_eventwait(rig->qts, "MANAGED_MEMORY_RECOVERED");
    mm_check(rig->qts, BUFFERS, MM_RAM_END, 1);
    inflate(rig, BUFFERS);
    assert_zero(rig->qts, BUFFERS, BUFFERS + MM_MIB);
    stop(rig);
}

static void test_reporting(void)
{
    MmHost *host = mm_host_new(NULL);
    Rig *rig = start(host, REPORTING, 1ull << VIRTIO_BALLOON_F_REPORTING, 4);
    QVirtQueue *vq = rig->vq[REPORTING_QUEUE];
    MmVmInfo before, after;
    uint32_t head;

    mm_fill(rig->qts, BUFFERS, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, NULL, &before));
    head = qvirtqueue_add(rig->qts, vq, BUFFERS, 2 * MM_MIB, true, true);
    qvirtqueue_add(rig->qts, vq, BUFFERS + 4 * MM_MIB, MM_MIB, true, false);
    qvirtqueue_kick(rig->qts, rig->dev, vq, head);
    wait_done(rig, REPORTING_QUEUE, head);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.never, ==, before.never + 3 * MM_MIB);
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    assert_zero(rig->qts, BUFFERS, BUFFERS + 2 * MM_MIB);
    mm_check(rig->qts, BUFFERS + 2 * MM_MIB, BUFFERS + 4 * MM_MIB, 1);
    assert_zero(rig->qts, BUFFERS + 4 * MM_MIB, BUFFERS + 5 * MM_MIB);
    mm_check(rig->qts, BUFFERS + 5 * MM_MIB, MM_RAM_END, 1);
    stop(rig);
}

/* ---- virtio-mem ---- */

#define VMEM_SIZE (64 * MM_MIB)
#define VMEM_FEATURES (1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

static uint64_t vmem_config(Rig *rig, size_t offset)
{
    return qvirtio_config_readq(rig->dev, offset);
}

static void vmem_resize(Rig *rig, uint64_t size)
{
    qobject_unref(mm_qmp(rig->qts, "{'execute': 'qom-set', 'arguments': {"
                         "'path': '/machine/peripheral/dev', "
                         "'property': 'requested-size', "
                         "'value': %" PRIu64 "}}", size));
}

static void vmem_request(Rig *rig, int type, uint64_t addr, uint16_t nr)
{
    struct virtio_mem_req req = {
        .type = cpu_to_le16(type),
        /* plug and unplug look the same */
        .u.plug.addr = cpu_to_le64(addr),
        .u.plug.nb_blocks = cpu_to_le16(nr),
    };
    uint64_t page = guest_alloc(&rig->qs->alloc, MM_PAGE);
    uint32_t head;

    qtest_memwrite(rig->qts, page, &req, sizeof(req));
    head = qvirtqueue_add(rig->qts, rig->vq[0], page, sizeof(req), false,
                          true);
    qvirtqueue_add(rig->qts, rig->vq[0], page + 1024,
                   sizeof(struct virtio_mem_resp), true, false);
    qvirtqueue_kick(rig->qts, rig->dev, rig->vq[0], head);
    wait_done(rig, 0, head);
    g_assert_cmpint(qtest_readw(rig->qts, page + 1024), ==,
                    VIRTIO_MEM_RESP_ACK);
    guest_free(&rig->qs->alloc, page);
}

static void test_virtio_mem(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *backend = mm_backend(host, "vmem", VMEM_SIZE / MM_MIB,
                                          "");
    g_autofree char *device = g_strdup_printf(
        "%s -device virtio-mem-pci,memdev=vmem,block-size=2M,"
        "requested-size=0", backend);
    Rig *rig = start(host, device, VMEM_FEATURES, 1);
    uint64_t addr = vmem_config(rig, offsetof(struct virtio_mem_config, addr));
    uint64_t half = addr + VMEM_SIZE / 4;
    uint64_t end = addr + VMEM_SIZE / 2;
    MmVmInfo before, after;

    g_assert_cmpint(vmem_config(rig, offsetof(struct virtio_mem_config,
                                              block_size)), ==, 2 * MM_MIB);
    vmem_resize(rig, VMEM_SIZE / 2);
    vmem_request(rig, VIRTIO_MEM_REQ_PLUG, addr, VMEM_SIZE / 2 / (2 * MM_MIB));
    mm_fill(rig->qts, addr, end, 1);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, addr, half, 1);

    vmem_resize(rig, VMEM_SIZE / 4);
    g_assert(mm_host_vm(host, NULL, &before));
    vmem_request(rig, VIRTIO_MEM_REQ_UNPLUG, half,
                 VMEM_SIZE / 4 / (2 * MM_MIB));
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.never, ==, before.never + VMEM_SIZE / 4);
    mm_check(rig->qts, addr, half, 1);

    vmem_resize(rig, VMEM_SIZE / 2);
    vmem_request(rig, VIRTIO_MEM_REQ_PLUG, half,
                 VMEM_SIZE / 4 / (2 * MM_MIB));
    assert_zero(rig->qts, half, end);
    mm_fill(rig->qts, addr, end, 2);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, addr, end, 2);

    /* a reset takes all of it away */
    qobject_unref(mm_qmp(rig->qts, "{'execute': 'system_reset'}"));
    qtest_qmp_eventwait(rig->qts, "RESET");
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.never, >=, VMEM_SIZE);
    stop(rig);
}

/* It has to be done: without a pager, the next one does it. */
static void test_virtio_mem_loss(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *backend = mm_backend(host, "vmem", VMEM_SIZE / MM_MIB,
                                          "");
    g_autofree char *device = g_strdup_printf(
        "%s -device virtio-mem-pci,memdev=vmem,block-size=2M,"
        "requested-size=32M", backend);
    Rig *rig = start(host, device, VMEM_FEATURES, 1);
    uint64_t addr = vmem_config(rig, offsetof(struct virtio_mem_config, addr));
    MmVmInfo vm;
    int i;

    for (i = 0; i < 4; i++) {
        vmem_resize(rig, 32 * MM_MIB);
        vmem_request(rig, VIRTIO_MEM_REQ_PLUG, addr, 16);
        assert_zero(rig->qts, addr, addr + 8 * MM_MIB);
        mm_fill(rig->qts, addr, addr + 8 * MM_MIB, i);
        mm_host_evict_all(host, NULL, 0);
        g_assert(mm_host_vm(host, NULL, &vm));
        vmem_resize(rig, 0);
        kill(vm.pager_pid, SIGKILL);
        vmem_request(rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0);
        mm_wait_status(rig->qts, "connected");
    }
    g_assert_cmpint(skipped(rig->qts), ==, 0);
    stop(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/blk/content", test_blk_content);
    qtest_add_func("managed-memory/blk/in-flight", test_blk_in_flight);
    qtest_add_func("managed-memory/blk/reset", test_blk_reset);
    qtest_add_func("managed-memory/blk/pager-killed", test_blk_pager_killed);
    qtest_add_func("managed-memory/balloon/inflate", test_balloon);
    qtest_add_func("managed-memory/balloon/pager-stopped",
                   test_balloon_pager_stopped);
    qtest_add_func("managed-memory/balloon/no-pager", test_balloon_no_pager);
    qtest_add_func("managed-memory/balloon/reporting", test_reporting);
    qtest_add_func("managed-memory/virtio-mem/plug", test_virtio_mem);
    qtest_add_func("managed-memory/virtio-mem/loss", test_virtio_mem_loss);
    return g_test_run();
}
