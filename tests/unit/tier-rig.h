/*
 * Unit tests: a tier on a file, with a queue and a client
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The client stores pages of content that is a function of a number, and
 * knows which number belongs to which place.
 */
#ifndef TIER_RIG_H
#define TIER_RIG_H

#include "memory-manager/pager/page-map.h"
#include "memory-manager/pager/tier/tier.h"

#define RIG_DEPTH 16

/* What the transfers go through. */
typedef enum RigQueue {
    RIG_URING,
    RIG_THREADS,
    RIG_INJECT,                 /* tier-inject.h over what the tier chooses */
    RIG_LZ4,                    /* a compressed tier */
    RIG_ZSTD,
    RIG_ENCRYPTED,              /* with rig_key, over what the tier chooses */
    RIG_DEVICE,                 /* a loop device, over what the tier chooses */
    RIG_QUEUE__MAX
} RigQueue;

typedef struct RigIO {
    MmTierIO io;
    struct TierRig *rig;
    bool busy;
    unsigned order;             /* as which of the rig's it completed */
    /* of a load: what each page must contain, if it succeeds */
    bool verify;
    uint64_t number[MM_TIER_IO_PAGES];
} RigIO;

typedef struct TierRig {
    const char *dir;
    int fd;                     /* the tier's own */
    int wake_fd;
    MmTier *inner;
    MmTier *tier;               /* inner, or the one over it */
    MmTierQueue *queue;
    uint8_t *arena;             /* RIG_DEPTH transfers of full size */
    RigIO slot[RIG_DEPTH];
    unsigned in_flight;
    unsigned completed;
    unsigned failed;
} TierRig;

/** rig_identity: of the VM that all rigs belong to. */
extern const MmIdentity rig_identity;

/** rig_key: the same VM's, for tiers that encrypt. */
extern const uint8_t rig_key[MM_KEY_LEN];

/** rig_keep: what lives as long as the process; returns @what. */
void *rig_keep(void *what);

/** rig_compresses: is it a compressed tier? */
bool rig_compresses(RigQueue kind);

/**
 * rig_open_device: a loop device of RIG_DEVICE_SIZE bytes over a file in @dir
 *
 * It is gone when the last descriptor of it is.  Returns -1 where there can be
 * none.
 */
#define RIG_DEVICE_SIZE (32 * 1024 * 1024)
int rig_open_device(const char *dir);

/** rig_open_file: an unnamed file in @dir, with O_DIRECT where it can be. */
int rig_open_file(const char *dir);

/**
 * rig_new: a new tier on a new file
 *
 * @dir: where
 * @size: most bytes, 0: no limit
 *
 * Returns NULL, with the test marked as skipped, where the host has no such
 * queue.
 */
TierRig *rig_new(const char *dir, RigQueue kind, uint64_t size,
                 bool overcommit);

/** rig_reopen: the tier as the next pager takes it up. */
TierRig *rig_reopen(const TierRig *former, RigQueue kind);

/** rig_reopen_sized: the same, limited to @size bytes. */
TierRig *rig_reopen_sized(const TierRig *former, RigQueue kind, uint64_t size);

/** rig_free: close the file; nothing may be in flight. */
void rig_free(TierRig *rig);

/**
 * rig_alloc: places for @nr pages of what lies in rig->arena
 *
 * Returns how many, from *@place on; 0: full.
 */
unsigned rig_alloc(TierRig *rig, unsigned nr, uint64_t *place);

/** rig_pages: how many the tier has; rig_size: bytes of its storage. */
uint64_t rig_pages(const TierRig *rig);
uint64_t rig_size(const TierRig *rig);

/** rig_slot: a slot that is not in use; reaps if there is none. */
RigIO *rig_slot(TierRig *rig);

/** rig_submit: start a transfer of a free slot's buffer. */
void rig_submit(RigIO *slot, bool store, uint64_t place, unsigned nr);

/** rig_reap: wait for @nr completions at least, with a time limit. */
void rig_reap(TierRig *rig, unsigned nr);

/** rig_drain: wait until nothing is in flight. */
void rig_drain(TierRig *rig);

/** rig_transfer: one transfer of rig->arena from start to end; its ret. */
int rig_transfer(TierRig *rig, bool store, uint64_t place, unsigned nr);

/** rig_fill: make a page's content that belongs to @number. */
void rig_fill(uint8_t *page, uint64_t number);

/** rig_is: is this the content that belongs to @number? */
bool rig_is(const uint8_t *page, uint64_t number);

#endif
