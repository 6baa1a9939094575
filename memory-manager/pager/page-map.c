/*
 * Managed memory pager: page map, the state of every page of a region
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * page-map.h has the states, the rules and the invariants.
 */
#include "qemu/osdep.h"
#include <xxhash.h>
#include "qapi/error.h"
#include "page-map.h"
#include "test-hooks.h"

static const char *const page_state_names[] = {
    [MM_PAGE_NEVER] = "never",
    [MM_PAGE_SWAPPED] = "swapped",
    [MM_PAGE_FILLING] = "filling",
    [MM_PAGE_RESIDENT] = "resident",
    [MM_PAGE_CANDIDATE] = "candidate",
    [MM_PAGE_MAPPING] = "mapping",
    [MM_PAGE_WRITEBACK] = "writeback",
    [MM_PAGE_DROPPING] = "dropping",
    [MM_PAGE_DISCARDING] = "discarding",
    [MM_PAGE_LOST] = "lost",
};
QEMU_BUILD_BUG_ON(ARRAY_SIZE(page_state_names) != MM_PAGE__MAX);

#define TO(state) (1u << MM_PAGE_##state)

static const uint16_t page_edges[MM_PAGE__MAX] = {
    [MM_PAGE_NEVER] = TO(FILLING),
    [MM_PAGE_SWAPPED] = TO(FILLING) | TO(NEVER) | TO(LOST) | TO(SWAPPED),
    [MM_PAGE_FILLING] = TO(RESIDENT) | TO(SWAPPED) | TO(NEVER) | TO(LOST),
    [MM_PAGE_RESIDENT] = TO(RESIDENT) | TO(CANDIDATE) | TO(MAPPING) |
                         TO(DISCARDING),
    [MM_PAGE_CANDIDATE] = TO(CANDIDATE) | TO(MAPPING) | TO(WRITEBACK) |
                          TO(DISCARDING),
    [MM_PAGE_MAPPING] = TO(RESIDENT) | TO(LOST),
    [MM_PAGE_WRITEBACK] = TO(MAPPING) | TO(DROPPING) | TO(DISCARDING) |
                          TO(RESIDENT) | TO(LOST),
    [MM_PAGE_DROPPING] = TO(SWAPPED) | TO(RESIDENT) | TO(LOST),
    [MM_PAGE_DISCARDING] = TO(NEVER),
    [MM_PAGE_LOST] = TO(NEVER),
};

bool mm_map_legal(MmPageState from, MmPageState to)
{
    return from < MM_PAGE__MAX && to < MM_PAGE__MAX &&
           (page_edges[from] & (1u << to));
}

const char *mm_page_state_name(MmPageState state)
{
    return state < MM_PAGE__MAX ? page_state_names[state] : "invalid";
}

static MmPageClass class_of_place(uint64_t entry)
{
    switch (mm_entry_tier(entry)) {
    case MM_TIER_NONE:
        return MM_CLASS_NEVER;
    case MM_TIER_FILL:
        return MM_CLASS_ZERO;
    default:
        return MM_CLASS_SWAPPED;
    }
}

MmPageClass mm_map_class(uint64_t entry)
{
    switch (mm_entry_state(entry)) {
    case MM_PAGE_NEVER:
        return MM_CLASS_NEVER;
    case MM_PAGE_SWAPPED:
        return class_of_place(entry);
    case MM_PAGE_LOST:
        return MM_CLASS_LOST;
    default:
        return MM_CLASS_RESIDENT;
    }
}

static void count_move(MmPageMap *map, MmPageClass from, MmPageClass to)
{
    if (from == to) {
        return;
    }
    qatomic_dec(&map->count[from]);
    qatomic_inc(&map->count[to]);
    if (from == MM_CLASS_RESIDENT) {
        qatomic_dec(map->total_resident);
    } else if (to == MM_CLASS_RESIDENT) {
        qatomic_inc(map->total_resident);
    }
}

bool mm_map_cas(MmPageMap *map, uint64_t page, uint64_t old, uint64_t new)
{
    assert(mm_map_legal(mm_entry_state(old), mm_entry_state(new)));
    if (qatomic_cmpxchg(&map->entries[page], old, new) != old) {
        return false;
    }
    count_move(map, mm_map_class(old), mm_map_class(new));
    return true;
}

void mm_map_move(MmPageMap *map, uint64_t page, uint64_t old, uint64_t new)
{
    bool moved = mm_map_cas(map, page, old, new);

    assert(moved);
}

uint64_t mm_map_reconcile(MmPageMap *map, uint64_t page, bool present)
{
    uint64_t entry = map->entries[page];
    MmPageState state = mm_entry_state(entry);

    if (present) {
        if (mm_entry_tier(entry) != MM_TIER_NONE) {
            entry = mm_entry_with_age(entry, 0);
        }
        entry = mm_entry_at(entry, MM_TIER_NONE, 0);
        entry = mm_entry_with_state(entry, MM_PAGE_RESIDENT);
    } else {
        switch (state) {
        case MM_PAGE_NEVER:
        case MM_PAGE_SWAPPED:
        case MM_PAGE_LOST:
            break;
        case MM_PAGE_FILLING:
            state = mm_entry_tier(entry) == MM_TIER_NONE ? MM_PAGE_NEVER
                                                         : MM_PAGE_SWAPPED;
            break;
        case MM_PAGE_DROPPING:
            state = mm_entry_tier(entry) == MM_TIER_NONE ? MM_PAGE_LOST
                                                         : MM_PAGE_SWAPPED;
            break;
        case MM_PAGE_DISCARDING:
            state = MM_PAGE_NEVER;
            break;
        default:
            state = MM_PAGE_LOST;
            break;
        }
        if (state == MM_PAGE_NEVER || state == MM_PAGE_LOST) {
            entry = mm_entry_at(entry, MM_TIER_NONE, 0);
        }
        entry = mm_entry_with_state(entry, state);
        qatomic_inc(&map->count[mm_map_class(entry)]);
    }
    qatomic_store_release(&map->entries[page], entry);
    return entry;
}

uint64_t mm_map_size(uint64_t nr_pages)
{
    return MM_MAP_HEADER_SIZE +
           ROUND_UP(nr_pages * sizeof(uint64_t), MM_PAGE_SIZE) +
           ROUND_UP(nr_pages * sizeof(uint32_t), MM_PAGE_SIZE);
}

static uint64_t checksum_seed(const MmIdentity *id, uint32_t region)
{
    return XXH64(id->uuid, sizeof(id->uuid),
                 XXH64(id->cookie, sizeof(id->cookie), region));
}

void mm_map_format(void *mem, const MmIdentity *id, const MmMsgRegion *region)
{
    MmMapHeader *hdr = mem;
    uint64_t nr_pages = region->size / MM_PAGE_SIZE;

    hdr->id = *id;
    hdr->id.magic = MM_MAP_MAGIC;
    hdr->region = region->id;
    hdr->page_size = region->page_size;
    hdr->nr_pages = nr_pages;
    hdr->entries_offset = MM_MAP_HEADER_SIZE;
    hdr->checksums_offset = MM_MAP_HEADER_SIZE +
        ROUND_UP(nr_pages * sizeof(uint64_t), MM_PAGE_SIZE);
    hdr->total_size = mm_map_size(nr_pages);
    hdr->limit = region->limit;
    hdr->seed = checksum_seed(id, region->id);
    memcpy(hdr->idstr, region->idstr, sizeof(hdr->idstr));
}

bool mm_map_open(MmPageMap *map, void *mem, uint64_t size,
                 const MmIdentity *id, const MmMsgRegion *region,
                 uint64_t *total_resident, Error **errp)
{
    uint64_t nr_pages = region->size / MM_PAGE_SIZE;
    g_autofree MmMapHeader *hdr = g_memdup2(mem, sizeof(*hdr));

    if (hdr->id.magic != MM_MAP_MAGIC ||
        hdr->id.version != MM_LAYOUT_VERSION ||
        memcmp(hdr->id.uuid, id->uuid, sizeof(id->uuid)) ||
        memcmp(hdr->id.cookie, id->cookie, sizeof(id->cookie))) {
        error_setg(errp, "page map of region %u is not this VM's",
                   region->id);
        return false;
    }
    if (hdr->region != region->id || hdr->page_size != region->page_size ||
        hdr->nr_pages != nr_pages || hdr->total_size != size ||
        mm_map_size(nr_pages) != size ||
        hdr->entries_offset != MM_MAP_HEADER_SIZE ||
        hdr->checksums_offset != size -
            ROUND_UP(nr_pages * sizeof(uint32_t), MM_PAGE_SIZE)) {
        error_setg(errp, "page map does not describe region %u of %" PRIu64
                   " bytes", region->id, region->size);
        return false;
    }
    map->hdr = mem;
    /* by what is computed: the header could change between two looks */
    map->entries = mem + MM_MAP_HEADER_SIZE;
    map->checksums = mem + size -
                     ROUND_UP(nr_pages * sizeof(uint32_t), MM_PAGE_SIZE);
    map->nr_pages = nr_pages;
    map->checksum_seed = hdr->seed;
    map->total_resident = total_resident;
    return true;
}

uint32_t mm_page_checksum(const MmPageMap *map, uint64_t page, uint64_t entry,
                          const void *content)
{
    uint64_t bound[3] = {
        qatomic_read(&map->checksum_seed), page, mm_entry_version(entry)
    };

    return XXH3_64bits_withSeed(content, MM_PAGE_SIZE,
                                XXH64(bound, sizeof(bound), 0));
}

bool mm_map_set_seed(MmPageMap *map, uint64_t seed)
{
    if (seed == map->checksum_seed) {
        return true;
    }
    if (qatomic_read(&map->count[MM_CLASS_NEVER]) +
        qatomic_read(&map->count[MM_CLASS_ZERO]) != map->nr_pages) {
        return false;
    }
    qatomic_set(&map->checksum_seed, seed);
    qatomic_set(&map->hdr->seed, seed);
    return true;
}
