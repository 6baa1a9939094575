/*
 * Managed memory pager: page map, the state of every page of a region
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One 64-bit entry per page in a memfd that outlives the pager (MmMapHeader),
 * and a 32-bit checksum beside it.  An entry says where the page's content is:
 *
 *    bits  0-3   state      MmPageState
 *          4-7   tier       MM_TIER_NONE, MM_TIER_FILL or a real tier's number
 *          8-11  age        of a present page: 0 = cold, else how often it may
 *                           be aged before it is; of an evicted one: when that
 *                           was (MmVM.epoch)
 *         12-21  version    counts evictions, part of the checksum
 *         22-63  place      the tier's word for where it is, or the low half of
 *                           a fill value; of WRITEBACK, the batch's ticket; of
 *                           CANDIDATE, MM_PLACE_SAMPLED or nothing
 *
 * tier and place name the content's place outside memory, and are kept while a
 * page is on its way (FILLING, DROPPING), so that a new pager can tell where
 * it came from.
 *
 *            NEVER <------- DISCARDING <--+
 *              |                          | (discard, fault thread)
 *   (fault)    v       (fault)            |
 *   SWAPPED -> FILLING -------> RESIDENT -+-> CANDIDATE -> WRITEBACK
 *      ^                        ^      |           |           |
 *      |                        |      v           v           v
 *      |                        +-- MAPPING <------+-----------+ (touched)
 *      |                                                       |
 *      +---------------------- DROPPING <----------------------+ (written)
 *
 * Who may move a page out of a state:
 *
 *  NEVER       hole, reads as zero.               Fault thread.
 *  SWAPPED     hole, content at tier:place.       Fault thread; the reclaim
 *              thread may move it to another place.
 *  FILLING     content on its way in, or from
 *              QEMU to a tier.                    Fault thread, the owner.
 *  RESIDENT    present, perhaps mapped.           Either thread.
 *  CANDIDATE   present; zapped once the zap is acknowledged: then unmapped for
 *              as long as this state lasts.       Either thread.
 *  MAPPING     present, being mapped.             Fault thread, the owner.
 *  WRITEBACK   present, unmapped, being copied
 *              out.                               Reclaim thread, the owner;
 *              the fault thread may take the page back (MAPPING, DISCARDING).
 *  DROPPING    present and at tier:place, being
 *              punched; nobody may map it.  At no
 *              place: a huge page that is LOST.   Reclaim thread, the owner.
 *  DISCARDING  being punched for a discard.       Fault thread, the owner.
 *  LOST        content gone, never filled.        Fault thread.
 *
 * Invariants:
 *
 *  M1 Every change is one compare-and-swap along page_edges[].
 *  M2 Only the owner of FILLING or MAPPING makes a page mapped, so a page in
 *     any other state that was unmapped stays unmapped.
 *  M3 A place is in use exactly while an entry in SWAPPED, FILLING or DROPPING
 *     names it, or while a writeback, a move to it or a fault's read of it is
 *     in flight.
 *  M4 A pager that dies at any instruction leaves a map from which the content
 *     of every page is known: see mm_map_reconcile().
 */
#ifndef MANAGED_MEMORY_PAGE_MAP_H
#define MANAGED_MEMORY_PAGE_MAP_H

#include "qemu/atomic.h"
#include "managed-memory/shared.h"

#define MM_PAGE_SIZE 4096
/* A huge page: so many pages come and go together, see fault/huge-in.c. */
#define MM_HUGE_PAGES 512
#define MM_HUGE_PAGE_SIZE (MM_HUGE_PAGES * MM_PAGE_SIZE)

/* Values of an entry's tier field. */
enum {
    MM_TIER_NONE = 0,           /* never populated: zero */
    MM_TIER_FILL = 1,           /* zero or same-filled: no storage */
    MM_TIER_FIRST = 2,          /* tier number 0 */
};

/* What a page counts as; a page that is on its way in counts as resident. */
typedef enum MmPageClass {
    MM_CLASS_NEVER,
    MM_CLASS_ZERO,
    MM_CLASS_SWAPPED,
    MM_CLASS_RESIDENT,
    MM_CLASS_LOST,
    MM_CLASS__MAX
} MmPageClass;

#define MM_AGE_MAX 15
#define MM_PLACE_BITS 42
#define MM_PLACE_MAX ((1ULL << MM_PLACE_BITS) - 1)
/* Of a CANDIDATE: it is one for a sample, and stays in memory meanwhile. */
#define MM_PLACE_SAMPLED 1

typedef struct MmPageMap {
    /* fixed after mm_map_open() */
    MmMapHeader *hdr;
    uint64_t *entries;
    uint32_t *checksums;
    uint64_t nr_pages;
    uint64_t *total_resident;   /* of the VM, in pages; atomic */

    /* atomic; changed by the fault thread, mm_map_set_seed() */
    uint64_t checksum_seed;

    /* atomic: pages per class; exact once the region is reconciled */
    uint64_t count[MM_CLASS__MAX];
} MmPageMap;

static inline unsigned mm_entry_tier(uint64_t entry)
{
    return (entry >> 4) & 0xf;
}

static inline unsigned mm_entry_age(uint64_t entry)
{
    return (entry >> 8) & 0xf;
}

static inline unsigned mm_entry_version(uint64_t entry)
{
    return (entry >> 12) & 0x3ff;
}

static inline uint64_t mm_entry_place(uint64_t entry)
{
    return entry >> 22;
}

/** mm_entry_with_state: the same entry in another state. */
static inline uint64_t mm_entry_with_state(uint64_t entry, MmPageState state)
{
    return (entry & ~0xfULL) | state;
}

/** mm_entry_with_age: the same entry with another age, the low four bits. */
static inline uint64_t mm_entry_with_age(uint64_t entry, unsigned age)
{
    return (entry & ~0xf00ULL) | (uint64_t)(age & 0xf) << 8;
}

/** mm_entry_at: the same entry, its content at @tier and @place. */
static inline uint64_t mm_entry_at(uint64_t entry, unsigned tier,
                                   uint64_t place)
{
    return (entry & 0x3fff0fULL) | (uint64_t)tier << 4 | place << 22;
}

/** mm_entry_with_version: the same entry, of this eviction. */
static inline uint64_t mm_entry_with_version(uint64_t entry, unsigned version)
{
    return (entry & ~(0x3ffULL << 12)) | (uint64_t)(version & 0x3ff) << 12;
}

/** mm_entry_next_version: the same entry, one eviction later. */
static inline uint64_t mm_entry_next_version(uint64_t entry)
{
    uint64_t version = (mm_entry_version(entry) + 1) & 0x3ff;

    return (entry & ~(0x3ffULL << 12)) | version << 12;
}

/** mm_map_get: a page's entry; any thread. */
static inline uint64_t mm_map_get(const MmPageMap *map, uint64_t page)
{
    return qatomic_load_acquire(&map->entries[page]);
}

/** mm_map_size: bytes of the memfd for @nr_pages pages. */
uint64_t mm_map_size(uint64_t nr_pages);

/** mm_map_format: write the header of a new map into its zeroed memfd. */
void mm_map_format(void *mem, const MmIdentity *id, const MmMsgRegion *region);

/**
 * mm_map_open: use the map that lies at @mem
 *
 * @map: filled in
 * @mem: mapping of the whole memfd, stays mapped until the map is not used
 * @size: of the mapping in bytes
 * @id: whose map it has to be
 * @region: which region it has to describe
 * @total_resident: counter of the VM in pages, kept up to date
 * @errp: set on failure
 *
 * The header is hostile input: it is what came back from QEMU.
 */
bool mm_map_open(MmPageMap *map, void *mem, uint64_t size,
                 const MmIdentity *id, const MmMsgRegion *region,
                 uint64_t *total_resident, Error **errp);

/**
 * mm_map_cas: move a page from entry @old to entry @new
 *
 * Asserts that the edge is legal, keeps the counters.  Any thread that may
 * make the transition (see the top of this file).  Returns false if the entry
 * is not @old any more.
 */
bool mm_map_cas(MmPageMap *map, uint64_t page, uint64_t old, uint64_t new);

/**
 * mm_map_move: as mm_map_cas() for the owner of @old, who cannot lose
 *
 * Asserts that the swap succeeds.
 */
void mm_map_move(MmPageMap *map, uint64_t page, uint64_t old, uint64_t new);

/**
 * mm_map_reconcile: decide what a page is after the death of a pager
 *
 * @map: the page's map, nobody else uses the entry yet
 * @page: index
 * @present: whether the memfd has the page
 *
 * A present page wins over the map, a hole takes the map's word:
 *
 *   present                                      -> RESIDENT
 *   hole in NEVER, SWAPPED, LOST                 -> as it is
 *   hole in FILLING                              -> where it came from
 *   hole in DROPPING                             -> SWAPPED: written, punched
 *                                                   LOST, if it has no place
 *   hole in DISCARDING                           -> NEVER
 *   hole in RESIDENT, CANDIDATE, MAPPING, WRITEBACK -> LOST
 *
 * Counts the page, unless it is resident: those are counted by the size of
 * the memfd before anything is served.  Returns the entry.
 */
uint64_t mm_map_reconcile(MmPageMap *map, uint64_t page, bool present);

/**
 * mm_map_set_seed: have the checksums of another host's map be right here
 *
 * Fault thread.  Returns false if content is in memory, or in a tier by another
 * seed; all of the map has to be reconciled.
 */
bool mm_map_set_seed(MmPageMap *map, uint64_t seed);

/** mm_map_class: what an entry counts as. */
MmPageClass mm_map_class(uint64_t entry);

/** mm_map_legal: is there an edge between two states? */
bool mm_map_legal(MmPageState from, MmPageState to);

/** mm_page_state_name: for traces and errors, never NULL. */
const char *mm_page_state_name(MmPageState state);

/**
 * mm_page_checksum: checksum of a page's content
 *
 * Bound to the VM, region, page and version of @entry, so that a page that a
 * disk has misplaced or not written is not taken for the right one.  The low
 * half of XXH3: a fifth of the time of zlib's CRC-32, which would be a good
 * part of a fault on compressed memory.
 */
uint32_t mm_page_checksum(const MmPageMap *map, uint64_t page, uint64_t entry,
                          const void *content);

#endif
