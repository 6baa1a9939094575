/*
 * Managed memory: content that stays where it is while its guest migrates
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Called by the migration section managed-ram.  Waits for the pager or the
 * manager; not for threads that page faults depend on.
 */
#ifndef SYSEMU_MANAGED_MEMORY_HANDOVER_H
#define SYSEMU_MANAGED_MEMORY_HANDOVER_H

#include "managed-memory/shared.h"

/**
 * managed_memory_shared_file: this VM's file on storage that other hosts see
 *
 * @file: filled in
 *
 * Returns false if it has none, or what is in it could not be read there.  Any
 * thread.
 */
bool managed_memory_shared_file(MmSharedFile *file);

/**
 * managed_memory_seed: that of the checksums of the memory at @host
 *
 * Returns false if this memory's content cannot be on shared storage.
 */
bool managed_memory_seed(const void *host, uint64_t *seed);

/** managed_memory_encrypted: what leaves memory is; any thread. */
bool managed_memory_encrypted(void);

/**
 * managed_memory_pin: where are pages in that file?
 *
 * @host: page-aligned address in managed memory
 * @nr: pages of 4 KiB, at most MM_RING_PLACES_MAX, within one RAMBlock
 * @places: @nr, filled in; what is not there, or not answered, is not known
 *
 * What is told stays there until managed_memory_unpin().
 */
void managed_memory_pin(const void *host, unsigned nr, MmPlace *places);

/** managed_memory_unpin: nobody reads it there any more. */
void managed_memory_unpin(void);

/**
 * managed_memory_lend: have this VM read a file of another host
 *
 * @file: as the other host describes it
 * @tier: filled in: the number of the tier that it is here
 *
 * Waits until the pager has it, some seconds at most.  May be called with the
 * BQL held, as the others.
 */
bool managed_memory_lend(const MmSharedFile *file, unsigned *tier,
                         Error **errp);

/**
 * managed_memory_adopt: pages are at these places
 *
 * @host: page-aligned address in managed memory
 * @nr: pages, as in managed_memory_pin(); what they had is forgotten
 * @seed: of the other host's checksums, from managed_memory_seed() there; no
 *        page of the RAMBlock may have content yet by another one
 * @places: of the pages; those that are not known are zero afterwards
 */
bool managed_memory_adopt(void *host, unsigned nr, uint64_t seed,
                          const MmPlace *places, Error **errp);

/**
 * managed_memory_wake_blocks: what is this guest likely to want when it wakes?
 *
 * @host: address in managed memory, of a block of MM_RING_WAKE_BLOCK pages
 * @nr: pages, at most MM_RING_WAKE_MAX, within one RAMBlock
 * @blocks: a bit per block, filled in
 *
 * Returns false if that is not known.
 */
bool managed_memory_wake_blocks(const void *host, unsigned nr, uint8_t *blocks);

/** managed_memory_set_wake_blocks: the same as a guest that arrives has had. */
void managed_memory_set_wake_blocks(const void *host, unsigned nr,
                                    const uint8_t *blocks);

/* What a guest that migrates needs at its destination, however it gets there */
typedef struct ManagedMemoryNeed {
    uint64_t bytes;             /* of content that has to find room */
    uint32_t shrinks;           /* compressed, it takes 1/shrinks of that */
} ManagedMemoryNeed;

/**
 * managed_memory_need: what this VM needs elsewhere, as things are
 *
 * @file: what is in it stays there, if present
 * @need: filled in; nothing if the pager does not say
 *
 * Any thread but those that page faults depend on.
 */
void managed_memory_need(const MmSharedFile *file, ManagedMemoryNeed *need);

/**
 * managed_memory_has_room: does that fit here?
 *
 * What is not known is no reason against it.  Returns false and sets @errp if
 * it is known not to.
 */
bool managed_memory_has_room(const ManagedMemoryNeed *need, Error **errp);

/**
 * managed_memory_release: the file is nobody's, and can be claimed
 *
 * @file: its epoch is what the claim has to say, too
 *
 * So nobody removes it, either.
 */
bool managed_memory_release(const MmSharedFile *file, Error **errp);

/**
 * managed_memory_claim: the file is this VM's, and so is its guest
 *
 * Fails if somebody else was first: this guest must not run then.
 */
bool managed_memory_claim(const MmSharedFile *file, Error **errp);

#endif
