/*
 * qemu-memory-manager: tiers that come and go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_TIERS_H
#define MEMORY_MANAGER_TIERS_H

#include "managed-memory/proto.h"
#include "manager.h"
#include "qemu/coroutine.h"

/** mm_tiers_init: whose tiers QMP's commands are about. */
void mm_tiers_init(MmManager *mgr);

/**
 * mm_qmp_ask_pager: send a request that is answered by OK, and wait for that
 *
 * @id: of the VM, which may be gone afterwards
 *
 * In qmp.c.  Returns false and sets @errp if it is not.
 */
bool coroutine_fn mm_qmp_ask_pager(const char *id, MmMsgType type,
                                   const void *payload, size_t len,
                                   Error **errp);

#endif
