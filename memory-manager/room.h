/*
 * qemu-memory-manager: is there room for a guest that arrives?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_ROOM_H
#define MEMORY_MANAGER_ROOM_H

#include "vm.h"

/**
 * mm_room: how much content would a VM's tiers take, as things are?
 *
 * @sock: where its QEMU waits for an AMOUNT in bytes, or MM_LIMIT_NONE; ours
 *        from now on
 * @seq: of the request
 * @request: MM_HANDOVER_ROOM
 */
void mm_room(MmVM *vm, int sock, uint64_t seq, const MmMsgHandover *request);

#endif
