/*
 * Unit tests: page map, states and their edges
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The table of edges is written down here a second time, from the diagram and
 * the list of owners in page-map.h: a change there has to be meant twice.
 * What the map says is compared with a naive shadow that has a struct per page
 * and counts by looking at every one.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/pager/page-map.h"
#include "mm-unit.h"

#define NR_PAGES 700
#define WALK_STEPS 200000
#define WALKERS 8
#define WALKER_STEPS 150000
/* Values of the state field, valid or not. */
#define STATE_VALUES 16

#define S(state) (1u << MM_PAGE_##state)

static const unsigned legal[STATE_VALUES] = {
    [MM_PAGE_NEVER] = S(FILLING),
    [MM_PAGE_SWAPPED] = S(FILLING) | S(NEVER) | S(LOST) | S(SWAPPED),
    [MM_PAGE_FILLING] = S(RESIDENT) | S(SWAPPED) | S(NEVER) | S(LOST),
    [MM_PAGE_RESIDENT] = S(RESIDENT) | S(CANDIDATE) | S(MAPPING) |
                         S(DISCARDING),
    [MM_PAGE_CANDIDATE] = S(CANDIDATE) | S(MAPPING) | S(WRITEBACK) |
                          S(DISCARDING),
    [MM_PAGE_MAPPING] = S(RESIDENT) | S(LOST),
    [MM_PAGE_WRITEBACK] = S(MAPPING) | S(DROPPING) | S(DISCARDING) |
                          S(RESIDENT) | S(LOST),
    [MM_PAGE_DROPPING] = S(SWAPPED) | S(RESIDENT) | S(LOST),
    [MM_PAGE_DISCARDING] = S(NEVER),
    [MM_PAGE_LOST] = S(NEVER),
};

/* States whose only owner is whoever has moved the page there. */
static const unsigned owned = S(FILLING) | S(MAPPING) | S(DROPPING) |
                              S(DISCARDING);

typedef struct TestMap {
    MmPageMap map;
    void *mem;
    uint64_t total_resident;
} TestMap;

static void test_map_init(TestMap *t)
{
    const MmIdentity id = { .version = MM_LAYOUT_VERSION, .uuid = { 1 } };
    const MmMsgRegion region = {
        .page_size = MM_PAGE_SIZE,
        .size = NR_PAGES * MM_PAGE_SIZE,
    };

    memset(t, 0, sizeof(*t));
    t->mem = g_malloc0(mm_map_size(NR_PAGES));
    mm_map_format(t->mem, &id, &region);
    g_assert_true(mm_map_open(&t->map, t->mem, mm_map_size(NR_PAGES), &id,
                              &region, &t->total_resident, &error_abort));
    t->map.count[MM_CLASS_NEVER] = NR_PAGES;
}

static void test_map_destroy(TestMap *t)
{
    g_free(t->mem);
}

/* What a page counts as, by the words of page-map.h. */
static MmPageClass naive_class(MmPageState state, unsigned tier)
{
    if (state == MM_PAGE_NEVER ||
        (state == MM_PAGE_SWAPPED && tier == MM_TIER_NONE)) {
        return MM_CLASS_NEVER;
    }
    if (state == MM_PAGE_LOST) {
        return MM_CLASS_LOST;
    }
    if (state == MM_PAGE_SWAPPED) {
        return tier == MM_TIER_FILL ? MM_CLASS_ZERO : MM_CLASS_SWAPPED;
    }
    return MM_CLASS_RESIDENT;
}

static void check_recount(TestMap *t)
{
    uint64_t count[MM_CLASS__MAX] = {};
    uint64_t page;
    int i;

    for (page = 0; page < NR_PAGES; page++) {
        uint64_t entry = mm_map_get(&t->map, page);

        count[naive_class(mm_entry_state(entry), mm_entry_tier(entry))]++;
    }
    for (i = 0; i < MM_CLASS__MAX; i++) {
        g_assert_cmpuint(t->map.count[i], ==, count[i]);
    }
    g_assert_cmpuint(t->total_resident, ==, count[MM_CLASS_RESIDENT]);
}

static void test_edges(void)
{
    unsigned from, to;

    for (from = 0; from < STATE_VALUES; from++) {
        for (to = 0; to < STATE_VALUES; to++) {
            if (mm_map_legal(from, to) != !!(legal[from] & (1u << to))) {
                g_error("mm_map_legal(%s, %s) is wrong",
                        mm_page_state_name(from), mm_page_state_name(to));
            }
        }
    }
}

static void test_names(void)
{
    GHashTable *seen = g_hash_table_new(g_str_hash, g_str_equal);
    unsigned state;

    for (state = 0; state < MM_PAGE__MAX; state++) {
        g_assert_true(g_hash_table_add(seen,
                                       (char *)mm_page_state_name(state)));
    }
    g_assert_cmpstr(mm_page_state_name(MM_PAGE__MAX), ==, "invalid");
    g_hash_table_destroy(seen);
}

static void test_legal_edges_move(void)
{
    unsigned from, to, tier;

    for (from = 0; from < MM_PAGE__MAX; from++) {
        for (to = 0; to < MM_PAGE__MAX; to++) {
            for (tier = 0; tier < STATE_VALUES && mm_map_legal(from, to);
                 tier++) {
                uint64_t old = mm_entry_at(from, tier, 77);
                uint64_t new = mm_entry_with_state(old, to);
                TestMap t;

                test_map_init(&t);
                t.map.entries[5] = old;
                t.map.count[MM_CLASS_NEVER]--;
                t.map.count[naive_class(from, tier)]++;
                t.total_resident = t.map.count[MM_CLASS_RESIDENT];
                check_recount(&t);
                mm_map_move(&t.map, 5, old, new);
                g_assert_cmphex(mm_map_get(&t.map, 5), ==, new);
                check_recount(&t);
                test_map_destroy(&t);
            }
        }
    }
}

static char *illegal_path(unsigned from, unsigned to)
{
    return g_strdup_printf("/mm/page-map/illegal-edges/subprocess/%s-%s",
                           mm_page_state_name(from), mm_page_state_name(to));
}

static void try_illegal_edge(const void *opaque)
{
    unsigned edge = GPOINTER_TO_UINT(opaque);
    unsigned from = edge / MM_PAGE__MAX, to = edge % MM_PAGE__MAX;
    TestMap t;

    expect_death();
    test_map_init(&t);
    t.map.entries[0] = from;
    mm_map_cas(&t.map, 0, from, to);
}

static void add_illegal_edges(void)
{
    unsigned from, to;

    for (from = 0; from < MM_PAGE__MAX; from++) {
        for (to = 0; to < MM_PAGE__MAX; to++) {
            g_autofree char *path = illegal_path(from, to);

            if (!(legal[from] & (1u << to))) {
                g_test_add_data_func(path, GUINT_TO_POINTER(
                                         from * MM_PAGE__MAX + to),
                                     try_illegal_edge);
            }
        }
    }
}

static void test_illegal_edges_assert(void)
{
    unsigned from, to;

    for (from = 0; from < MM_PAGE__MAX; from++) {
        for (to = 0; to < MM_PAGE__MAX; to++) {
            g_autofree char *path = illegal_path(from, to);

            if (!(legal[from] & (1u << to))) {
                assert_dies(path, "*mm_map_legal*");
            }
        }
    }
}

static void test_lost_swap_changes_nothing(void)
{
    TestMap t;

    test_map_init(&t);
    /* the age has changed meanwhile: not the entry that the caller saw */
    t.map.entries[3] = mm_entry_with_age(MM_PAGE_NEVER, 1);
    g_assert_false(mm_map_cas(&t.map, 3, MM_PAGE_NEVER, MM_PAGE_FILLING));
    g_assert_cmphex(mm_map_get(&t.map, 3), ==,
                    mm_entry_with_age(MM_PAGE_NEVER, 1));
    check_recount(&t);
    test_map_destroy(&t);
}

static void try_lost_move(void)
{
    TestMap t;

    expect_death();
    test_map_init(&t);
    t.map.entries[3] = MM_PAGE_FILLING;
    mm_map_move(&t.map, 3, MM_PAGE_NEVER, MM_PAGE_FILLING);
}

static void test_lost_move_asserts(void)
{
    assert_dies("/mm/page-map/lost-move/subprocess/try", "*moved*");
}

/* Every field at both ends, with all others at both ends. */
static void test_fields_are_apart(void)
{
    unsigned mask;

    for (mask = 0; mask < 32; mask++) {
        unsigned state = mask & 1 ? MM_PAGE_LOST : 0;
        unsigned age = mask & 2 ? MM_AGE_MAX : 0;
        unsigned tier = mask & 4 ? 0xf : 0;
        uint64_t place = mask & 8 ? MM_PLACE_MAX : 0;
        /* version and length have no setters of their own */
        uint64_t kept = mask & 16 ? 0x3ff000 : 0;
        uint64_t entry;

        entry = mm_entry_with_age(mm_entry_at(mm_entry_with_state(
                    kept, state), tier, place), age);
        g_assert_cmpuint(mm_entry_state(entry), ==, state);
        g_assert_cmpuint(mm_entry_age(entry), ==, age);
        g_assert_cmpuint(mm_entry_tier(entry), ==, tier);
        g_assert_cmpuint(mm_entry_place(entry), ==, place);
        g_assert_cmpuint(mm_entry_version(entry), ==, mask & 16 ? 0x3ff : 0);
        g_assert_cmphex(entry & 0x3ff000, ==, kept);
    }
}

static void test_version_wraps(void)
{
    const uint64_t fields[] = {
        0, mm_entry_at(MM_PAGE_LOST, 0xf, MM_PLACE_MAX),
    };
    unsigned i, f;

    for (f = 0; f < ARRAY_SIZE(fields); f++) {
        uint64_t entry = fields[f];

        for (i = 1; i <= 1024; i++) {
            entry = mm_entry_next_version(entry);
            g_assert_cmpuint(mm_entry_version(entry), ==, i % 1024);
            g_assert_cmphex(entry & ~(0x3ffULL << 12), ==, fields[f]);
        }
    }
}

/* The shadow of one page. */
typedef struct ShadowPage {
    MmPageState state;
    unsigned tier, age, version;
    uint64_t place;
} ShadowPage;

static MmPageState random_successor(GRand *rand, MmPageState from)
{
    MmPageState to;

    do {
        to = g_rand_int_range(rand, 0, MM_PAGE__MAX);
    } while (!(legal[from] & (1u << to)));
    return to;
}

/* What a caller of the map would do to the other fields on this edge. */
static uint64_t step_entry(GRand *rand, uint64_t entry, MmPageState to)
{
    uint64_t new = mm_entry_with_state(entry, to);

    if (to == MM_PAGE_DROPPING) {
        unsigned tier = g_rand_int_range(rand, MM_TIER_FILL, 10);

        new = mm_entry_at(mm_entry_next_version(new), tier,
                          ((uint64_t)g_rand_int(rand) << 4) % MM_PLACE_MAX);
    } else if (to != MM_PAGE_SWAPPED && to != MM_PAGE_FILLING) {
        new = mm_entry_at(new, MM_TIER_NONE, 0);
    }
    if (to == MM_PAGE_RESIDENT) {
        new = mm_entry_with_age(new, g_rand_int_range(rand, 0, 16));
    }
    return new;
}

static void step_shadow(ShadowPage *page, uint64_t new)
{
    page->state = new & 15;
    page->tier = new >> 4 & 15;
    page->age = new >> 8 & 15;
    page->version = new >> 12 & 1023;
    page->place = new >> 22;
}

static void check_shadow(TestMap *t, const ShadowPage *shadow, uint64_t page)
{
    uint64_t entry = mm_map_get(&t->map, page);

    g_assert_cmpuint(mm_entry_state(entry), ==, shadow[page].state);
    g_assert_cmpuint(mm_entry_tier(entry), ==, shadow[page].tier);
    g_assert_cmpuint(mm_entry_age(entry), ==, shadow[page].age);
    g_assert_cmpuint(mm_entry_version(entry), ==, shadow[page].version);
    g_assert_cmpuint(mm_entry_place(entry), ==, shadow[page].place);
    g_assert_cmpuint(mm_map_class(entry), ==,
                     naive_class(shadow[page].state, shadow[page].tier));
}

static void test_walk_matches_shadow(void)
{
    g_autofree ShadowPage *shadow = g_new0(ShadowPage, NR_PAGES);
    GRand *rand = g_rand_new_with_seed(g_test_rand_int());
    TestMap t;
    unsigned i;

    test_map_init(&t);
    for (i = 0; i < WALK_STEPS; i++) {
        uint64_t page = g_rand_int_range(rand, 0, NR_PAGES);
        uint64_t old = mm_map_get(&t.map, page);
        MmPageState to = random_successor(rand, shadow[page].state);
        uint64_t new = step_entry(rand, old, to);

        mm_map_move(&t.map, page, old, new);
        step_shadow(&shadow[page], new);
        check_shadow(&t, shadow, page);
        if (i % 5000 == 0) {
            check_recount(&t);
        }
    }
    for (i = 0; i < NR_PAGES; i++) {
        check_shadow(&t, shadow, i);
    }
    check_recount(&t);
    test_map_destroy(&t);
    g_rand_free(rand);
}

/* Several owners at once: each knows what it has done, and only that. */
typedef struct Walker {
    TestMap *t;
    GRand *rand;
    /* what the owner of a page in an owned state may write without atomics */
    int *owner;
    int64_t moved[MM_CLASS__MAX];
    unsigned self, won, lost;
} Walker;

static void tally(Walker *w, uint64_t old, uint64_t new)
{
    w->moved[naive_class(mm_entry_state(old), mm_entry_tier(old))]--;
    w->moved[naive_class(mm_entry_state(new), mm_entry_tier(new))]++;
    w->won++;
}

/* A page that has just become ours goes on, and nobody else interferes. */
static void leave_owned(Walker *w, uint64_t page, uint64_t entry)
{
    while (owned & (1u << mm_entry_state(entry))) {
        MmPageState to = random_successor(w->rand, mm_entry_state(entry));
        uint64_t new = step_entry(w->rand, entry, to);

        g_assert_cmpint(w->owner[page], ==, 0);
        w->owner[page] = w->self;
        if (w->won % 16 == 0) {
            g_thread_yield();
        }
        g_assert_cmpint(w->owner[page], ==, w->self);
        w->owner[page] = 0;
        mm_map_move(&w->t->map, page, entry, new);
        tally(w, entry, new);
        entry = new;
    }
}

static void *walker(void *opaque)
{
    Walker *w = opaque;
    unsigned i;

    for (i = 0; i < WALKER_STEPS; i++) {
        /* few pages, so that the walkers meet */
        uint64_t page = g_rand_int_range(w->rand, 0, 24);
        uint64_t old = mm_map_get(&w->t->map, page);
        MmPageState from = mm_entry_state(old);
        uint64_t new;

        if (owned & (1u << from)) {
            continue;
        }
        new = step_entry(w->rand, old, random_successor(w->rand, from));
        if (mm_map_cas(&w->t->map, page, old, new)) {
            tally(w, old, new);
            leave_owned(w, page, new);
        } else {
            w->lost++;
        }
    }
    return NULL;
}

static void test_many_owners(void)
{
    g_autofree int *owner = g_new0(int, NR_PAGES);
    Walker w[WALKERS] = {};
    GThread *thread[WALKERS];
    int64_t sum[MM_CLASS__MAX] = { [MM_CLASS_NEVER] = NR_PAGES };
    unsigned i, c, lost = 0;
    TestMap t;

    test_map_init(&t);
    for (i = 0; i < WALKERS; i++) {
        w[i].t = &t;
        w[i].owner = owner;
        w[i].self = i + 1;
        w[i].rand = g_rand_new_with_seed(g_test_rand_int());
        thread[i] = g_thread_new("walker", walker, &w[i]);
    }
    for (i = 0; i < WALKERS; i++) {
        g_thread_join(thread[i]);
        g_rand_free(w[i].rand);
        lost += w[i].lost;
        for (c = 0; c < MM_CLASS__MAX; c++) {
            sum[c] += w[i].moved[c];
        }
    }
    for (c = 0; c < MM_CLASS__MAX; c++) {
        g_assert_cmpint(t.map.count[c], ==, sum[c]);
    }
    check_recount(&t);
    g_test_message("%u swaps lost against another walker", lost);
    test_map_destroy(&t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/page-map/edges", test_edges);
    g_test_add_func("/mm/page-map/names", test_names);
    g_test_add_func("/mm/page-map/legal-edges-move", test_legal_edges_move);
    g_test_add_func("/mm/page-map/illegal-edges", test_illegal_edges_assert);
    add_illegal_edges();
    g_test_add_func("/mm/page-map/lost-swap", test_lost_swap_changes_nothing);
    g_test_add_func("/mm/page-map/lost-move", test_lost_move_asserts);
    g_test_add_func("/mm/page-map/lost-move/subprocess/try", try_lost_move);
    g_test_add_func("/mm/page-map/fields-are-apart", test_fields_are_apart);
    g_test_add_func("/mm/page-map/version-wraps", test_version_wraps);
    g_test_add_func("/mm/page-map/walk", test_walk_matches_shadow);
    g_test_add_func("/mm/page-map/many-owners", test_many_owners);
    return g_test_run();
}
