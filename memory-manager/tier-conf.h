/*
 * qemu-memory-manager: the tiers of the command line
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_TIER_CONF_H
#define MEMORY_MANAGER_TIER_CONF_H

#include "managed-memory/proto.h"

/* A tier; fixed once it is parsed, but for @dirfd. */
typedef struct MmTierConf {
    MmTierKind kind;
    char *name;
    char *path;                 /* of a file tier, absolute; else NULL */
    uint64_t vm_size;           /* most bytes of one VM, 0: no limit */
    uint32_t vm_share;          /* the same as percent of its memory, or 0 */
    MmAlgorithm algorithm;      /* of a compressed tier */
    bool overcommit;            /* reserve no space when a VM attaches */
    int dirfd;                  /* of a file tier: -1 until mm_tier_open() */
} MmTierConf;

/**
 * mm_tier_parse: parse the argument of one --tier
 *
 * @tiers: those that there are already; the new one is added
 * @nr: their number
 *
 * Prints and exits on errors and for "help".
 */
void mm_tier_parse(MmTierConf *tiers, unsigned *nr, const char *arg);

/** mm_tiers_check: do the tiers go together?  Prints and exits if not. */
void mm_tiers_check(const MmTierConf *tiers, unsigned nr);

/**
 * mm_tier_open: create a tier's directory if needed, and see if it will do
 *
 * @tier: its dirfd is set
 *
 * Returns true on success.
 */
bool mm_tier_open(MmTierConf *tier, Error **errp);

/** mm_tier_describe: @tier, which is open, for a VM's record and pager. */
void mm_tier_describe(const MmTierConf *tier, MmMsgStartTier *out);

#endif
