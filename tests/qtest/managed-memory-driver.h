/*
 * Managed memory qtests: the driver of a virtio device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A PC with managed memory and one virtio device, whose driver the test is.
 */
#ifndef TESTS_MANAGED_MEMORY_DRIVER_H
#define TESTS_MANAGED_MEMORY_DRIVER_H

#include "libqos/libqos-pc.h"
#include "libqos/virtio.h"
#include "libqos/virtio-pci.h"
#include "managed-memory-vm.h"

/* Guest memory that tests use; the drivers' queues lie below */
#define MM_BUFFERS (8 * MM_MIB)

typedef struct MmDriver {
    MmHost *host;
    QOSState *qs;
    QTestState *qts;
    QVirtioPCIDevice *pci;
    QVirtioDevice *dev;
    QVirtQueue *vq[4];
} MmDriver;

/**
 * mm_driver_start: start a VM and its device
 *
 * @host: freed by mm_driver_stop()
 * @device: arguments of QEMU that end with those of the device
 * @features: to negotiate, besides VIRTIO_F_VERSION_1
 * @nr_queues: 4 at most
 */
MmDriver *mm_driver_start(MmHost *host, const char *device, uint64_t features,
                          int nr_queues);

/** mm_driver_stop: end the VM, and check that the host is as before */
void mm_driver_stop(MmDriver *d);

/** mm_driver_negotiate: once more, after the device was reset */
void mm_driver_negotiate(MmDriver *d, uint64_t features, int nr_queues);

/** mm_driver_wait: wait until the device has used the request at @head */
void mm_driver_wait(MmDriver *d, int queue, uint32_t head);

#endif
