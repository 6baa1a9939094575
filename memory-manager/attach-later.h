/*
 * qemu-memory-manager: QEMUs whose devices are about to become free
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_ATTACH_LATER_H
#define MEMORY_MANAGER_ATTACH_LATER_H

#include "vm.h"

/* Attaches a VM or refuses it, and closes the socket of @peer. */
typedef void MmAttachFn(const MmHelloPeer *peer);

/**
 * mm_attach_later: does a VM have to wait for the end of another one?
 *
 * Whoever starts a VM again at once does so when its QEMU has ended, some
 * milliseconds before its pager has.  If that has a device which the new VM is
 * to get, returns true, and calls @attach when it is gone, or after some
 * seconds.  @peer is copied.
 */
bool mm_attach_later(MmManager *mgr, const MmHelloPeer *peer,
                     MmAttachFn *attach);

#endif
