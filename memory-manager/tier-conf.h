/*
 * qemu-memory-manager: what a tier is, by command line, file or QMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_TIER_CONF_H
#define MEMORY_MANAGER_TIER_CONF_H

#include "io-throttle.h"
#include "managed-memory/proto.h"
#include "qemu/option.h"
#include "write-account.h"

/* A tier. */
typedef struct MmTierConf {
    /* fixed once it is parsed */
    MmTierKind kind;
    char *name;
    char *path;                 /* absolute; NULL: compressed */
    MmAlgorithm algorithm;      /* of a compressed tier */
    bool overcommit;            /* reserve no space when a VM attaches */
    bool shared;                /* a file tier that other hosts see */
    uint8_t storage[MM_UUID_LEN]; /* which storage that is on, when open */

    uint64_t vm_size;           /* most bytes of one VM, 0: no limit */
    uint32_t vm_share;          /* the same as percent of its memory, or 0 */
    MmMsgIOLimits io;           /* of each VM; compressed: none */
    MmWriteAccount writes;      /* of all VMs; compressed: none */
    bool draining;              /* VMs that attach do not get it */
    int dirfd;                  /* of a file tier: -1 until mm_tier_open() */
    uint64_t device;            /* of dirfd: its storage may hang when asked */
} MmTierConf;

/* Parameters of a tier: --tier, [tier] in a file, managed-tier-add. */
extern QemuOptsList mm_tier_opts;

/** mm_tier_find: the tier with this name, or NULL. */
const MmTierConf *mm_tier_find(const MmTierConf *tiers, unsigned nr,
                               const char *name);

/** mm_tier_type: name of a kind of tier, as in --tier. */
const char *mm_tier_type(MmTierKind kind);

/** mm_tier_from_opts: fill in @tier; nothing is left of it on failure. */
bool mm_tier_from_opts(MmTierConf *tier, QemuOpts *o, Error **errp);

/** mm_tier_clear: free what it has, not itself. */
void mm_tier_clear(MmTierConf *tier);

/**
 * mm_tier_parse: parse the argument of one --tier
 *
 * @tiers: those that there are already; the new one is added
 * @nr: their number
 *
 * Prints and exits on errors and for "help".
 */
void mm_tier_parse(MmTierConf *tiers, unsigned *nr, const char *arg);

/** mm_tiers_check: do the tiers go together? */
bool mm_tiers_check(const MmTierConf *tiers, unsigned nr, Error **errp);

/** mm_tiers_warn: print what they do not promise. */
void mm_tiers_warn(const MmTierConf *tiers, unsigned nr);

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
