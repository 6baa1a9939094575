/*
 * Managed memory qtests: devices that give memory back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * They must have the pager forget it, and must not wait for ever for a pager
 * that does not answer.
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/qmp/qlist.h"
#include "standard-headers/linux/virtio_balloon.h"
#include "standard-headers/linux/virtio_mem.h"
#include "managed-memory-driver.h"

/* ---- balloon ---- */

#define BALLOON "-device virtio-balloon-pci"
#define REPORTING "-device virtio-balloon-pci,free-page-reporting=on"
#define INFLATE 0
#define REPORTING_QUEUE 3
#define NR_PFNS 256

/* Inflates by the pages from @addr on, NR_PFNS of them. */
static void inflate(MmDriver *rig, uint64_t addr)
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
    mm_driver_wait(rig, INFLATE, head);
    guest_free(&rig->qs->alloc, array);
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
    MmDriver *rig = mm_driver_start(host, BALLOON, 0, 2);
    MmVmInfo before, after;

    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, NULL, &before));
    inflate(rig, MM_BUFFERS);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.discarded, ==, before.discarded + NR_PFNS);
    g_assert_cmpint(after.never, ==, before.never + NR_PFNS * MM_PAGE);

    /* the same for pages that are swapped out: their places are freed */
    mm_host_evict_all(host, NULL, 0);
    g_assert(mm_host_vm(host, NULL, &before));
    inflate(rig, MM_BUFFERS + MM_MIB);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.swapped, <, before.swapped);
    g_assert_cmpint(skipped(rig->qts), ==, 0);
    mm_check_zero(rig->qts, MM_BUFFERS, MM_BUFFERS + 2 * MM_MIB);
    mm_check(rig->qts, MM_BUFFERS + 2 * MM_MIB, MM_RAM_END, 1);

    /* what is given back can be used again */
    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 2);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, MM_BUFFERS, MM_RAM_END, 2);
    mm_driver_stop(rig);
}

/* Discards are voluntary: a pager that does not answer is not waited for. */
static void test_balloon_pager_stopped(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *rig = mm_driver_start(host, BALLOON, 0, 2);
    int64_t begin;
    MmVmInfo vm;
    int i;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    mm_stop_process(vm.pager_pid);
    begin = g_get_monotonic_time();
    for (i = 0; i < 4; i++) {
        inflate(rig, MM_BUFFERS + i * MM_MIB);
    }
    /* the first one waits for a second, the others know better */
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 4 * G_USEC_PER_SEC);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    mm_check(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 2);

    /* given up means never done: new content must not be lost */
    kill(vm.pager_pid, SIGCONT);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, MM_BUFFERS, MM_RAM_END, 2);
    inflate(rig, MM_BUFFERS);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    mm_check_zero(rig->qts, MM_BUFFERS, MM_BUFFERS + MM_MIB);
    mm_driver_stop(rig);
}

static void test_balloon_no_pager(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *rig = mm_driver_start(host, BALLOON, 0, 2);
    int64_t begin;
    MmVmInfo vm;
    int i;

    g_assert(mm_host_vm(host, NULL, &vm));
    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    mm_host_kill(host);
    kill(vm.pager_pid, SIGKILL);
    qtest_qmp_eventwait(rig->qts, "MANAGED_MEMORY_LOST");
    begin = g_get_monotonic_time();
    for (i = 0; i < 4; i++) {
        inflate(rig, MM_BUFFERS + i * MM_MIB);
    }
    g_assert_cmpint(g_get_monotonic_time() - begin, <, G_USEC_PER_SEC);
    g_assert_cmpint(skipped(rig->qts), ==, 4 * NR_PFNS * MM_PAGE);
    mm_host_start(host);
    qtest_qmp_eventwait(rig->qts, "MANAGED_MEMORY_RECOVERED");
    mm_check(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    inflate(rig, MM_BUFFERS);
    mm_check_zero(rig->qts, MM_BUFFERS, MM_BUFFERS + MM_MIB);
    mm_driver_stop(rig);
}

static void test_reporting(void)
{
    MmHost *host = mm_host_new(NULL);
    MmDriver *rig = mm_driver_start(host, REPORTING,
                                    1ull << VIRTIO_BALLOON_F_REPORTING, 4);
    QVirtQueue *vq = rig->vq[REPORTING_QUEUE];
    MmVmInfo before, after;
    uint32_t head;

    mm_fill(rig->qts, MM_BUFFERS, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, NULL, &before));
    head = qvirtqueue_add(rig->qts, vq, MM_BUFFERS, 2 * MM_MIB, true, true);
    qvirtqueue_add(rig->qts, vq, MM_BUFFERS + 4 * MM_MIB, MM_MIB, true, false);
    qvirtqueue_kick(rig->qts, rig->dev, vq, head);
    mm_driver_wait(rig, REPORTING_QUEUE, head);
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.never, ==, before.never + 3 * MM_MIB);
    g_assert_cmpint(mm_query_dma_held(rig->qts), ==, 0);
    mm_check_zero(rig->qts, MM_BUFFERS, MM_BUFFERS + 2 * MM_MIB);
    mm_check(rig->qts, MM_BUFFERS + 2 * MM_MIB, MM_BUFFERS + 4 * MM_MIB, 1);
    mm_check_zero(rig->qts, MM_BUFFERS + 4 * MM_MIB, MM_BUFFERS + 5 * MM_MIB);
    mm_check(rig->qts, MM_BUFFERS + 5 * MM_MIB, MM_RAM_END, 1);
    mm_driver_stop(rig);
}

/* ---- virtio-mem ---- */

#define VMEM_SIZE (64 * MM_MIB)
#define VMEM_FEATURES (1ull << VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE)

static uint64_t vmem_config(MmDriver *rig, size_t offset)
{
    return qvirtio_config_readq(rig->dev, offset);
}

static void vmem_resize(MmDriver *rig, uint64_t size)
{
    qobject_unref(mm_qmp(rig->qts, "{'execute': 'qom-set', 'arguments': {"
                         "'path': '/machine/peripheral/dev', "
                         "'property': 'requested-size', "
                         "'value': %" PRIu64 "}}", size));
}

static void vmem_request(MmDriver *rig, int type, uint64_t addr, uint16_t nr)
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
    mm_driver_wait(rig, 0, head);
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
    MmDriver *rig = mm_driver_start(host, device, VMEM_FEATURES, 1);
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
    mm_check_zero(rig->qts, half, end);
    mm_fill(rig->qts, addr, end, 2);
    mm_host_evict_all(host, NULL, 0);
    mm_check(rig->qts, addr, end, 2);

    /* a reset takes all of it away */
    qobject_unref(mm_qmp(rig->qts, "{'execute': 'system_reset'}"));
    qtest_qmp_eventwait(rig->qts, "RESET");
    g_assert(mm_host_vm(host, NULL, &after));
    g_assert_cmpint(after.never, >=, VMEM_SIZE);
    mm_driver_stop(rig);
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
    MmDriver *rig = mm_driver_start(host, device, VMEM_FEATURES, 1);
    uint64_t addr = vmem_config(rig, offsetof(struct virtio_mem_config, addr));
    MmVmInfo vm;
    int i;

    for (i = 0; i < 4; i++) {
        vmem_resize(rig, 32 * MM_MIB);
        vmem_request(rig, VIRTIO_MEM_REQ_PLUG, addr, 16);
        mm_check_zero(rig->qts, addr, addr + 8 * MM_MIB);
        mm_fill(rig->qts, addr, addr + 8 * MM_MIB, i);
        mm_host_evict_all(host, NULL, 0);
        g_assert(mm_host_vm(host, NULL, &vm));
        vmem_resize(rig, 0);
        kill(vm.pager_pid, SIGKILL);
        vmem_request(rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0);
        mm_wait_status(rig->qts, "connected");
    }
    g_assert_cmpint(skipped(rig->qts), ==, 0);
    mm_driver_stop(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/balloon/inflate", test_balloon);
    qtest_add_func("managed-memory/balloon/pager-stopped",
                   test_balloon_pager_stopped);
    qtest_add_func("managed-memory/balloon/no-pager", test_balloon_no_pager);
    qtest_add_func("managed-memory/balloon/reporting", test_reporting);
    qtest_add_func("managed-memory/virtio-mem/plug", test_virtio_mem);
    qtest_add_func("managed-memory/virtio-mem/loss", test_virtio_mem_loss);
    return g_test_run();
}
