/*
 * Managed memory qtests: the driver of a virtio device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "managed-memory-driver.h"

void mm_driver_negotiate(MmDriver *d, uint64_t features, int nr_queues)
{
    uint64_t offered;
    int i;

    qvirtio_start_device(d->dev);
    offered = qvirtio_get_features(d->dev);
    features |= 1ull << VIRTIO_F_VERSION_1;
    g_assert_cmphex(offered & features, ==, features);
    qvirtio_set_features(d->dev, features);
    for (i = 0; i < nr_queues; i++) {
        d->vq[i] = qvirtqueue_setup(d->dev, &d->qs->alloc, i);
    }
    qvirtio_set_driver_ok(d->dev);
}

MmDriver *mm_driver_start(MmHost *host, const char *device, uint64_t features,
                          int nr_queues)
{
    g_autofree char *backend = mm_backend(host, "mm0", MM_RAM_END / MM_MIB,
                                          "");
    QPCIAddress addr = { .devfn = QPCI_DEVFN(4, 0) };
    MmDriver *d = g_new0(MmDriver, 1);

    d->host = host;
    d->qs = qtest_pc_boot("-name vm -machine pc,memory-backend=mm0 "
                            "-m 32M,slots=2,maxmem=1G -nodefaults %s %s,"
                            "id=dev,addr=4.0", backend, device);
    mm_host_guard(host);
    d->qts = d->qs->qts;
    d->pci = virtio_pci_new(d->qs->pcibus, &addr);
    g_assert(d->pci);
    d->dev = &d->pci->vdev;
    qvirtio_pci_device_enable(d->pci);
    mm_driver_negotiate(d, features, nr_queues);
    return d;
}

void mm_driver_stop(MmDriver *d)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(d->vq) && d->vq[i]; i++) {
        qvirtqueue_cleanup(d->dev->bus, d->vq[i], &d->qs->alloc);
    }
    qvirtio_pci_device_disable(d->pci);
    qvirtio_pci_destructor(&d->pci->obj);
    g_free(d->pci);
    qtest_pc_shutdown(d->qs);
    mm_host_free(d->host);
    g_free(d);
}

void mm_driver_wait(MmDriver *d, int queue, uint32_t head)
{
    qvirtio_wait_used_elem(d->qts, d->dev, d->vq[queue], head, NULL,
                           MM_WAIT_MS * 1000);
}
