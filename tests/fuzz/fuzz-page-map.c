/*
 * Fuzz target: a page map that comes back from QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: which page of the header's bytes to damage, how the map was left
 * (entries, checksums and which pages are present), and then steps along the
 * edges.  A damaged header is refused; what is accepted lies within the memfd,
 * and after the attach scan every page is in a state of which the content is
 * known, with counters that are right from then on.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/pager/page-map.h"
#include "fuzz.h"

#define NR_PAGES 24

static const MmIdentity id = {
    .version = MM_LAYOUT_VERSION, .uuid = "uuid", .cookie = "cookie",
};

static const MmMsgRegion region = {
    .id = 7, .page_size = MM_PAGE_SIZE, .size = NR_PAGES * MM_PAGE_SIZE,
    .limit = MM_LIMIT_NONE, .idstr = "fuzz",
};

/* Nothing of the header but these may change unnoticed. */
static bool same_but_payload(const MmMapHeader *a, const MmMapHeader *b)
{
    return !memcmp(a, b, offsetof(MmMapHeader, limit));
}

static void damage(FuzzInput *in, uint8_t *header)
{
    unsigned nr = fuzz_u8(in) % 8;

    while (nr--) {
        unsigned at = fuzz_u16(in);

        header[at % sizeof(MmMapHeader)] ^= fuzz_u8(in);
    }
}

static void leave_entries(FuzzInput *in, MmPageMap *map)
{
    uint64_t page;

    for (page = 0; page < NR_PAGES; page++) {
        map->entries[page] = fuzz_u64(in);
        fuzz_take(in, &map->checksums[page], sizeof(map->checksums[page]));
    }
}

static void check_counts(const MmPageMap *map, uint64_t resident)
{
    uint64_t count[MM_CLASS__MAX] = {};
    uint64_t page;
    int i;

    for (page = 0; page < NR_PAGES; page++) {
        count[mm_map_class(mm_map_get(map, page))]++;
    }
    for (i = 0; i < MM_CLASS__MAX; i++) {
        g_assert(map->count[i] == count[i]);
    }
    g_assert(resident == count[MM_CLASS_RESIDENT]);
}

static void check_reconciled(const MmPageMap *map, uint64_t page,
                             bool present)
{
    uint64_t entry = mm_map_get(map, page);

    switch (mm_entry_state(entry)) {
    case MM_PAGE_RESIDENT:
        g_assert(present && mm_entry_tier(entry) == MM_TIER_NONE);
        break;
    case MM_PAGE_NEVER:
    case MM_PAGE_LOST:
        g_assert(!present && mm_entry_tier(entry) == MM_TIER_NONE);
        break;
    default:
        g_assert(!present && mm_entry_state(entry) == MM_PAGE_SWAPPED);
        break;
    }
}

static void attach_scan(FuzzInput *in, MmPageMap *map, uint64_t *resident)
{
    uint64_t present = fuzz_u64(in), page;

    /* counted by the size of the memfd before anything is served */
    *resident = __builtin_popcountll(present & ((1ULL << NR_PAGES) - 1));
    map->count[MM_CLASS_RESIDENT] = *resident;
    for (page = 0; page < NR_PAGES; page++) {
        mm_map_reconcile(map, page, present >> page & 1);
        check_reconciled(map, page, present >> page & 1);
    }
    check_counts(map, *resident);
}

static void walk(FuzzInput *in, MmPageMap *map, uint64_t *resident)
{
    while (in->size) {
        uint64_t page = fuzz_u8(in) % NR_PAGES;
        uint64_t old = mm_map_get(map, page), new;
        MmPageState to = fuzz_u8(in) % MM_PAGE__MAX;

        if (!mm_map_legal(mm_entry_state(old), to)) {
            continue;
        }
        new = mm_entry_with_state(old, to);
        if (to == MM_PAGE_DROPPING) {
            new = mm_entry_at(mm_entry_next_version(new),
                              1 + fuzz_u8(in) % 9, fuzz_u16(in));
        } else if (to != MM_PAGE_FILLING && to != MM_PAGE_SWAPPED) {
            new = mm_entry_at(new, MM_TIER_NONE, 0);
        }
        mm_map_move(map, page, old, new);
        check_counts(map, *resident);
        g_assert(!mm_map_cas(map, page, old, new) || old == new);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { .data = data, .size = size };
    g_autofree uint8_t *mem = g_malloc0(mm_map_size(NR_PAGES));
    MmMapHeader right;
    uint64_t resident = 0;
    Error *err = NULL;
    MmPageMap map = {};

    mm_map_format(mem, &id, &region);
    right = *(MmMapHeader *)mem;
    damage(&in, mem);
    if (!mm_map_open(&map, mem, mm_map_size(NR_PAGES), &id, &region,
                     &resident, &err)) {
        g_assert(!same_but_payload((MmMapHeader *)mem, &right));
        error_free(err);
        return 0;
    }
    g_assert(same_but_payload((MmMapHeader *)mem, &right));
    leave_entries(&in, &map);
    attach_scan(&in, &map, &resident);
    walk(&in, &map, &resident);
    return 0;
}

/* Every state with and without a place, all present, none or every other. */
static void write_seeds(void)
{
    static const uint64_t present[] = { 0, UINT64_MAX, 0x5555555555555555 };
    struct QEMU_PACKED {
        uint8_t nr_damaged;
        struct QEMU_PACKED {
            uint64_t entry;
            uint32_t checksum;
        } page[NR_PAGES];
        uint64_t present;
        uint8_t steps[64];
    } seed = {};
    int i;

    for (i = 0; i < NR_PAGES; i++) {
        seed.page[i].entry = mm_entry_at(i % MM_PAGE__MAX,
                                         i / MM_PAGE__MAX, i);
    }
    for (i = 0; i < sizeof(seed.steps); i++) {
        seed.steps[i] = i * 7;
    }
    for (i = 0; i < ARRAY_SIZE(present); i++) {
        g_autofree char *name = g_strdup_printf("present-%d", i);

        seed.present = present[i];
        fuzz_seed(name, &seed, sizeof(seed));
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(*argc, *argv, write_seeds);
    return 0;
}
