/*
 * Managed memory pager: what start.c and resume.c share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_START_INTERNAL_H
#define MANAGED_MEMORY_START_INTERNAL_H

#include "managed-memory/msg.h"
#include "vm.h"

/* The peers have their messages ready: nobody has to think. */
#define MM_START_TIMEOUT_MS 10000

typedef struct MmStarting {
    MmVM *vm;
    MmMsgStart start;
    /* in the order of filling */
    unsigned nr_tiers;
    MmMsgStartTier tier[MM_MAX_TIERS];
    int tier_dir[MM_MAX_TIERS];     /* of a new file, or the device; or -1 */
    int tier_claim[MM_MAX_TIERS];   /* of a new device, else -1 */
    int tier_fd[MM_MAX_TIERS];      /* resume: from QEMU, else -1 */
    MmMsg msg;
} MmStarting;

/** mm_start_map: map state and ring, whose descriptors are there. */
bool mm_start_map(MmVM *vm, Error **errp);

/** mm_resume: take over what a former pager had, from QEMU's messages. */
bool mm_resume(MmStarting *s, Error **errp);

#endif
