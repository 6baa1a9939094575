/*
 * qemu-memory-manager: files that change hands when a VM migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_HANDOVER_H
#define MEMORY_MANAGER_HANDOVER_H

#include "vm.h"

/**
 * mm_handover_settled: does the VM's content belong to this host?
 *
 * Not while it is in a file that another host has not let go of yet, or has
 * been let go of.
 */
bool mm_handover_settled(const MmVM *vm, Error **errp);

/**
 * mm_handover: carry out what a VM's QEMU wants done with such a file
 *
 * @vm: whose QEMU asks, which has been checked
 * @sock: where it waits for an answer; ours from now on
 * @seq: of the request
 * @request: not checked but for its size
 */
void mm_handover(MmVM *vm, int sock, uint64_t seq,
                 const MmMsgHandover *request);

#endif
