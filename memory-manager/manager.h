/*
 * qemu-memory-manager: what there is one of
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only, as everything in the manager.
 */
#ifndef MEMORY_MANAGER_MANAGER_H
#define MEMORY_MANAGER_MANAGER_H

#include "qemu/queue.h"
#include "options.h"
#include "rundir.h"

typedef struct MmVM MmVM;

typedef struct MmManager {
    MmOptions opts;
    MmRunDir dir;
    QTAILQ_HEAD(, MmVM) vms;
} MmManager;

/**
 * mm_adopt_vms: find the VMs of a manager that ran before
 *
 * Call once, before QEMUs can connect.
 */
void mm_adopt_vms(MmManager *mgr);

/**
 * mm_qmp_init: give the QMP commands their manager
 */
void mm_qmp_init(MmManager *mgr);

/**
 * mm_qmp_stop: have no command wait for a pager any more
 *
 * Call once, when the main loop has ended.
 */
void mm_qmp_stop(void);

/**
 * mm_qmp_listen: serve QMP on a unix socket
 *
 * @path: of the socket
 */
bool mm_qmp_listen(const char *path, Error **errp);

#endif
