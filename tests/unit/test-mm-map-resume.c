/*
 * Unit tests: page map, as a new pager finds it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The header comes back from QEMU and is hostile; the entries were left by a
 * pager that died at any instruction; the content comes from a disk that may
 * have mixed up its blocks.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/pager/page-map.h"

#define NR_PAGES 600
#define STATE_VALUES 16

static const MmIdentity id = {
    .version = MM_LAYOUT_VERSION,
    .uuid = "uuid of this vm",
    .cookie = "cookie of it...",
};

static const MmMsgRegion region = {
    .id = 3,
    .page_size = MM_PAGE_SIZE,
    .size = NR_PAGES * MM_PAGE_SIZE,
    .limit = 1234 * MM_PAGE_SIZE,
    .idstr = "mem0",
};

typedef struct TestMap {
    MmPageMap map;
    MmMapHeader *hdr;
    uint64_t total_resident;
} TestMap;

static void *new_map(const MmIdentity *id, const MmMsgRegion *region)
{
    void *mem = g_malloc0(mm_map_size(region->size / MM_PAGE_SIZE));

    mm_map_format(mem, id, region);
    return mem;
}

static void test_map_init(TestMap *t)
{
    memset(t, 0, sizeof(*t));
    t->hdr = new_map(&id, &region);
    g_assert_true(mm_map_open(&t->map, t->hdr, mm_map_size(NR_PAGES), &id,
                              &region, &t->total_resident, &error_abort));
}

static void test_size(void)
{
    uint64_t nr;

    /* header, and room for every entry and checksum, in whole pages */
    for (nr = 1; nr < 5000; nr++) {
        uint64_t size = mm_map_size(nr);

        g_assert_cmpuint(size % MM_PAGE_SIZE, ==, 0);
        g_assert_cmpuint(size, >=, MM_MAP_HEADER_SIZE + nr * 12);
        g_assert_cmpuint(size, <, MM_MAP_HEADER_SIZE + nr * 12 +
                         2 * MM_PAGE_SIZE);
    }
    /* the largest region: far from any overflow */
    g_assert_cmpuint(mm_map_size(1ULL << 32), ==,
                     MM_MAP_HEADER_SIZE + (12ULL << 32));
}

static void test_open_what_was_formatted(void)
{
    TestMap t;

    test_map_init(&t);
    g_assert_cmpuint(t.map.nr_pages, ==, NR_PAGES);
    g_assert_true((uint8_t *)t.map.entries ==
                  (uint8_t *)t.hdr + MM_MAP_HEADER_SIZE);
    g_assert_true((uint8_t *)(t.map.entries + NR_PAGES) <=
                  (uint8_t *)t.map.checksums);
    g_assert_true((uint8_t *)(t.map.checksums + NR_PAGES) <=
                  (uint8_t *)t.hdr + mm_map_size(NR_PAGES));
    g_assert_cmphex(t.hdr->id.magic, ==, MM_MAP_MAGIC);
    g_assert_cmpuint(t.hdr->limit, ==, region.limit);
    g_assert_cmpstr(t.hdr->idstr, ==, "mem0");
    g_free(t.hdr);
}

static bool opens(void *mem, uint64_t size, const MmIdentity *id,
                  const MmMsgRegion *region)
{
    uint64_t total = 0;
    Error *err = NULL;
    MmPageMap map = {};
    bool ok = mm_map_open(&map, mem, size, id, region, &total, &err);

    g_assert_true(ok == !err);
    error_free(err);
    return ok;
}

/* Which bytes of the header decide about its acceptance: all but these two. */
static bool is_payload(size_t byte)
{
    return (byte >= offsetof(MmMapHeader, limit) &&
            byte < offsetof(MmMapHeader, idstr) + MM_IDSTR_LEN) ||
           byte >= sizeof(MmMapHeader);
}

static void test_every_damaged_byte(void)
{
    uint8_t *mem = new_map(&id, &region);
    uint64_t size = mm_map_size(NR_PAGES);
    unsigned byte, bit;

    for (byte = 0; byte < MM_MAP_HEADER_SIZE; byte++) {
        for (bit = 0; bit < 8; bit++) {
            mem[byte] ^= 1u << bit;
            if (opens(mem, size, &id, &region) != is_payload(byte)) {
                g_error("bit %u of byte %u of the header", bit, byte);
            }
            mem[byte] ^= 1u << bit;
        }
    }
    g_assert_true(opens(mem, size, &id, &region));
    g_free(mem);
}

/* Values that a single flipped bit does not reach. */
static void test_absurd_fields(void)
{
    static const uint64_t absurd[] = {
        0, 1, MM_PAGE_SIZE - 1, NR_PAGES - 1, NR_PAGES + 1, INT32_MAX,
        UINT32_MAX, 1ULL << 32, INT64_MAX, UINT64_MAX - MM_PAGE_SIZE + 1,
        UINT64_MAX,
    };
    MmMapHeader *hdr = new_map(&id, &region);
    uint64_t *field[] = {
        &hdr->nr_pages, &hdr->entries_offset, &hdr->checksums_offset,
        &hdr->total_size,
    };
    int i, j;

    for (i = 0; i < ARRAY_SIZE(field); i++) {
        for (j = 0; j < ARRAY_SIZE(absurd); j++) {
            uint64_t good = *field[i];

            *field[i] = absurd[j];
            g_assert_cmpint(opens(hdr, mm_map_size(NR_PAGES), &id, &region),
                            ==, absurd[j] == good);
            *field[i] = good;
        }
    }
    g_free(hdr);
}

static void test_other_owner(void)
{
    void *mem = new_map(&id, &region);
    uint64_t size = mm_map_size(NR_PAGES);
    MmIdentity other = id;
    MmMsgRegion elsewhere = region;

    other.uuid[15] ^= 1;
    g_assert_false(opens(mem, size, &other, &region));
    other = id;
    other.cookie[0] ^= 1;
    g_assert_false(opens(mem, size, &other, &region));

    elsewhere.id++;
    g_assert_false(opens(mem, size, &id, &elsewhere));
    elsewhere = region;
    /* one page more still needs a memfd of the same size */
    elsewhere.size += MM_PAGE_SIZE;
    g_assert_cmpuint(mm_map_size(NR_PAGES + 1), ==, size);
    g_assert_false(opens(mem, size, &id, &elsewhere));
    g_assert_false(opens(mem, size - MM_PAGE_SIZE, &id, &region));
    g_assert_false(opens(mem, size + MM_PAGE_SIZE, &id, &region));
    g_free(mem);
}

/* What page-map.h promises for a page found in @state with @tier. */
static MmPageState expected_state(MmPageState state, unsigned tier,
                                  bool present)
{
    if (present) {
        return MM_PAGE_RESIDENT;
    }
    switch (state) {
    case MM_PAGE_NEVER:
    case MM_PAGE_SWAPPED:
    case MM_PAGE_LOST:
        return state;
    case MM_PAGE_FILLING:
        return tier == MM_TIER_NONE ? MM_PAGE_NEVER : MM_PAGE_SWAPPED;
    case MM_PAGE_DROPPING:
        return tier == MM_TIER_NONE ? MM_PAGE_LOST : MM_PAGE_SWAPPED;
    case MM_PAGE_DISCARDING:
        return MM_PAGE_NEVER;
    default:
        return MM_PAGE_LOST;
    }
}

static MmPageClass expected_class(MmPageState state, unsigned tier)
{
    if (state == MM_PAGE_LOST) {
        return MM_CLASS_LOST;
    }
    if (state == MM_PAGE_NEVER || tier == MM_TIER_NONE) {
        return MM_CLASS_NEVER;
    }
    return tier == MM_TIER_FILL ? MM_CLASS_ZERO : MM_CLASS_SWAPPED;
}

static void check_counts(const TestMap *t, bool present, MmPageClass class)
{
    int i;

    /* present pages were counted by the size of the memfd */
    for (i = 0; i < MM_CLASS__MAX; i++) {
        g_assert_cmpuint(t->map.count[i], ==, !present && i == class);
    }
    g_assert_cmpuint(t->total_resident, ==, 0);
}

static void check_reconcile(unsigned state, unsigned tier, bool present)
{
    const uint64_t place = 0x123456789, kept = 0x25abULL << 8;
    uint64_t old = mm_entry_at(kept | state, tier, place);
    MmPageState want = expected_state(state, tier, present);
    bool has_place = want == MM_PAGE_SWAPPED;
    uint64_t entry;
    TestMap t;

    test_map_init(&t);
    t.map.entries[7] = old;
    entry = mm_map_reconcile(&t.map, 7, present);
    g_assert_cmphex(mm_map_get(&t.map, 7), ==, entry);
    g_assert_cmpstr(mm_page_state_name(mm_entry_state(entry)), ==,
                    mm_page_state_name(want));
    g_assert_cmpuint(mm_entry_tier(entry), ==, has_place ? tier : 0);
    g_assert_cmpuint(mm_entry_place(entry), ==, has_place ? place : 0);
    /* the age of what has a place says when it was evicted */
    g_assert_cmphex(entry & 0x3fff00, ==,
                    present && tier ? kept & ~0xf00ULL : kept);
    check_counts(&t, present, expected_class(want, mm_entry_tier(entry)));

    /* a pager that dies now leaves what the next one finds as it is */
    g_assert_cmphex(mm_map_reconcile(&t.map, 7, present), ==, entry);
    g_free(t.hdr);
}

static void test_reconcile(void)
{
    unsigned state, tier;

    for (state = 0; state < STATE_VALUES; state++) {
        for (tier = 0; tier < 16; tier++) {
            check_reconcile(state, tier, false);
            check_reconcile(state, tier, true);
        }
    }
}

/* Written down once: the next pager may be of another build. */
static void test_checksum_format(void)
{
    uint8_t content[MM_PAGE_SIZE];
    uint64_t entry = mm_entry_next_version(0);
    uint32_t sum;
    TestMap t;
    unsigned i;

    for (i = 0; i < MM_PAGE_SIZE; i++) {
        content[i] = i * 7 + i / 256;
    }
    test_map_init(&t);
    sum = mm_page_checksum(&t.map, 42, entry, content);
    g_assert_cmphex(sum, ==, 0x224ff6a8);
    for (i = 0; i < MM_PAGE_SIZE * 8; i++) {
        content[i / 8] ^= 1 << i % 8;
        g_assert_cmphex(mm_page_checksum(&t.map, 42, entry, content), !=,
                        sum);
        content[i / 8] ^= 1 << i % 8;
    }
    g_free(t.hdr);
}

static uint32_t checksum_of(const MmIdentity *id, uint32_t region_id,
                            uint64_t page, uint64_t entry,
                            const void *content)
{
    MmMsgRegion r = region;
    uint64_t total = 0;
    MmPageMap map = {};
    void *mem;
    uint32_t sum;

    r.id = region_id;
    mem = new_map(id, &r);
    g_assert_true(mm_map_open(&map, mem, mm_map_size(NR_PAGES), id, &r,
                              &total, &error_abort));
    sum = mm_page_checksum(&map, page, entry, content);
    g_free(mem);
    return sum;
}

static void test_checksum_is_bound(void)
{
    uint8_t content[MM_PAGE_SIZE] = "content";
    uint64_t entry = mm_entry_at(MM_PAGE_SWAPPED, MM_TIER_FIRST, 9);
    uint32_t sum = checksum_of(&id, 3, 42, entry, content);
    MmIdentity other = id;
    unsigned i;

    for (i = 0; i < MM_UUID_LEN; i++) {
        other.uuid[i] ^= 0x10;
        g_assert_cmphex(checksum_of(&other, 3, 42, entry, content), !=, sum);
        other = id;
        other.cookie[i] ^= 0x10;
        g_assert_cmphex(checksum_of(&other, 3, 42, entry, content), !=, sum);
        other = id;
    }
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        g_assert_cmpint(checksum_of(&id, i, 42, entry, content) == sum, ==,
                        i == 3);
    }
    for (i = 0; i < NR_PAGES; i++) {
        g_assert_cmpint(checksum_of(&id, 3, i, entry, content) == sum, ==,
                        i == 42);
    }
    for (i = 1; i < 1024; i++) {
        entry = mm_entry_next_version(entry);
        g_assert_cmphex(checksum_of(&id, 3, 42, entry, content), !=, sum);
    }
    /* where the page lies and how it is doing may change */
    entry = mm_entry_with_age(mm_entry_at(MM_PAGE_FILLING, 5, 1), 7);
    g_assert_cmphex(checksum_of(&id, 3, 42, entry, content), ==, sum);
}

static void test_checksum_sees_content(void)
{
    uint8_t content[MM_PAGE_SIZE] = {};
    unsigned bit;
    uint32_t sum;
    TestMap t;

    test_map_init(&t);
    sum = mm_page_checksum(&t.map, 0, 0, content);
    for (bit = 0; bit < MM_PAGE_SIZE * 8; bit++) {
        content[bit / 8] ^= 1u << bit % 8;
        g_assert_cmphex(mm_page_checksum(&t.map, 0, 0, content), !=, sum);
        content[bit / 8] ^= 1u << bit % 8;
    }
    g_free(t.hdr);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/map-resume/size", test_size);
    g_test_add_func("/mm/map-resume/open", test_open_what_was_formatted);
    g_test_add_func("/mm/map-resume/damaged-byte", test_every_damaged_byte);
    g_test_add_func("/mm/map-resume/absurd-field", test_absurd_fields);
    g_test_add_func("/mm/map-resume/other-owner", test_other_owner);
    g_test_add_func("/mm/map-resume/reconcile", test_reconcile);
    g_test_add_func("/mm/map-resume/checksum-format", test_checksum_format);
    g_test_add_func("/mm/map-resume/checksum-bound", test_checksum_is_bound);
    g_test_add_func("/mm/map-resume/checksum-content",
                    test_checksum_sees_content);
    return g_test_run();
}
