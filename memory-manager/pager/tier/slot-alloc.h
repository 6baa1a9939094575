/*
 * Managed memory pager: allocator of slots in a tier's file
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A bitmap, next-fit, so that what is evicted together lies together.  It
 * lives in the pager's own memory: a new pager rebuilds it from the page maps.
 * Any thread may call; a lock is held for the bitmap search only.
 *
 * A slot that is pinned is not handed out again when it is freed, but kept as
 * it is, until all are unpinned.
 */
#ifndef MANAGED_MEMORY_SLOT_ALLOC_H
#define MANAGED_MEMORY_SLOT_ALLOC_H

typedef struct MmSlotAlloc {
    GMutex lock;
    /* protected by lock */
    unsigned long *used;        /* bit set: slot in use */
    uint64_t nr_slots;
    uint64_t nr_used;
    uint64_t hint;              /* where the next search starts */
    unsigned long *pinned;      /* or NULL: none is */
    unsigned long *kept;        /* pinned and free: has its bit in used, too */
    uint64_t nr_kept;
    uint64_t nr_withdrawn;      /* have their bits in used, too */
} MmSlotAlloc;

/** mm_slots_init: no slots yet. */
void mm_slots_init(MmSlotAlloc *slots);

/** mm_slots_destroy: free the bitmap. */
void mm_slots_destroy(MmSlotAlloc *slots);

/** mm_slots_grow: there are @nr_slots slots now; never fewer than before. */
void mm_slots_grow(MmSlotAlloc *slots, uint64_t nr_slots);

/**
 * mm_slots_alloc: take up to @nr consecutive slots
 *
 * Returns how many were taken, from *@first on: @nr if there is a run of that
 * length among those looked at, else the longest of them; 0 if all slots are
 * in use.
 */
unsigned mm_slots_alloc(MmSlotAlloc *slots, unsigned nr, uint64_t *first);

/** mm_slots_free: give @nr slots back; asserts that they are in use. */
void mm_slots_free(MmSlotAlloc *slots, uint64_t first, unsigned nr);

/**
 * mm_slots_withdraw: @nr slots in use are not to be handed out, nor counted
 *
 * Nothing is in them.
 */
void mm_slots_withdraw(MmSlotAlloc *slots, uint64_t first, unsigned nr);

/** mm_slots_readmit: slots that were withdrawn are free. */
void mm_slots_readmit(MmSlotAlloc *slots, uint64_t first, unsigned nr);

/** mm_slots_claim: take this slot; false if out of range or in use. */
bool mm_slots_claim(MmSlotAlloc *slots, uint64_t slot);

/** mm_slots_pin: keep @slot even if it is freed; false if it is not in use. */
bool mm_slots_pin(MmSlotAlloc *slots, uint64_t slot);

/**
 * mm_slots_pin_all: keep all that there are, in use or not
 *
 * Before any is claimed: what a former pager has pinned is not known.
 */
void mm_slots_pin_all(MmSlotAlloc *slots);

/** mm_slots_unpin: what was kept is free. */
void mm_slots_unpin(MmSlotAlloc *slots);

/** mm_slots_count: slots in use, but for those withdrawn, and slots in all. */
void mm_slots_count(MmSlotAlloc *slots, uint64_t *used, uint64_t *total);

#endif
