/*
 * Unit tests: what only a compressed tier does
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The contract of all tiers is tested by test-mm-tier.c.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "managed-memory/msg.h"
#include "tier-rig.h"

#define MIB (1024 * 1024)
#define SEGMENT (128 * 1024)

typedef enum Content {
    CONTENT_TEXT,               /* a third of its size or less */
    CONTENT_NOISE,
} Content;

static void fill(TierRig *rig, Content content, uint32_t seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    int i;

    for (i = 0; i < MM_PAGE_SIZE; i++) {
        rig->arena[i] = content == CONTENT_TEXT
                        ? "memory manager"[i * (1 + seed % 7) % 14] + i / 1024
                        : g_rand_int(rand);
    }
}

static int alloc(TierRig *rig, uint64_t *place)
{
    MmTierIO io = { .store = true, .nr_pages = 1, .buf = rig->arena };
    int ret = rig->queue->ops->alloc(rig->queue, &io);

    *place = io.place;
    return ret;
}

static uint64_t store(TierRig *rig, uint32_t seed)
{
    uint64_t place;

    fill(rig, CONTENT_TEXT, seed);
    g_assert_cmpint(alloc(rig, &place), ==, 0);
    g_assert_cmpint(rig_transfer(rig, true, place, 1), ==, 0);
    return place;
}

static void free_place(TierRig *rig, uint64_t place)
{
    rig->tier->ops->free(rig->tier, place, 1);
}

static uint64_t memory_of(const TierRig *rig)
{
    struct stat st;

    g_assert_cmpint(fstat(rig->fd, &st), ==, 0);
    return st.st_blocks * 512;
}

/* What does not get smaller is another tier's, whether there is room or not. */
static void test_noise_is_refused(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), MIB, true);
    uint64_t place;

    fill(rig, CONTENT_NOISE, 5);
    g_assert_cmpint(alloc(rig, &place), ==, -E2BIG);
    g_assert_cmpuint(rig_pages(rig), ==, 0);
    store(rig, 1);
    g_assert_cmpint(alloc(rig, &place), ==, 0);
    free_place(rig, place);
    fill(rig, CONTENT_NOISE, 6);
    g_assert_cmpint(alloc(rig, &place), ==, -E2BIG);
    g_assert_cmpuint(rig_pages(rig), ==, 1);
    rig_free(rig);
}

/* It holds more than its size in pages, and never more memory than that. */
static void test_size(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), MIB, true);
    uint64_t place, used;
    MmTierUsage usage;
    unsigned nr = 0;

    fill(rig, CONTENT_TEXT, 3);
    while (alloc(rig, &place) == 0) {
        g_assert_cmpint(rig_transfer(rig, true, place, 1), ==, 0);
        nr++;
    }
    g_assert_cmpint(alloc(rig, &place), ==, -ENOSPC);
    g_assert_cmpuint(nr, >, 3 * MIB / MM_PAGE_SIZE);
    rig->tier->ops->usage(rig->tier, &usage);
    g_assert_cmpuint(usage.pages, ==, nr);
    g_assert_cmpuint(usage.size, ==, MIB);
    used = usage.used;
    g_assert_cmpuint(used, <=, MIB);
    /* no more is lost than the rest of each segment */
    g_assert_cmpuint(used, >=, MIB - MIB / SEGMENT * MM_PAGE_SIZE);
    g_assert_cmpuint(memory_of(rig), <=, MIB + MM_PAGE_SIZE);
    rig_free(rig);
}

static void test_share(const void *opaque)
{
    const MmMsgStartTier start = { .share = 25, .name = "share" };
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 0, true);
    int fd = mm_seal_memfd("share", mm_tier_compressed_fd_size());
    uint64_t place;

    rig->tier = rig_keep(mm_tier_compressed_open(fd, &start, &rig_identity,
                                                 true, &error_abort));
    rig->queue = rig_keep(rig->tier->ops->queue_new(rig->tier, rig->arena, 0,
                                                    1, -1, &error_abort));
    fill(rig, CONTENT_TEXT, 1);
    /* of nothing */
    g_assert_cmpint(alloc(rig, &place), ==, -ENOSPC);
    rig->tier->ops->set_vm_size(rig->tier, 4 * MIB);
    while (alloc(rig, &place) == 0) {
        continue;
    }
    g_assert_cmpuint(rig_size(rig), ==, MIB);
    rig->tier->ops->set_vm_size(rig->tier, 8 * MIB);
    g_assert_cmpint(alloc(rig, &place), ==, 0);
    /* less than it has: it takes nothing until some has gone */
    rig->tier->ops->set_vm_size(rig->tier, 2 * MIB);
    while (alloc(rig, &place) == 0) {
        continue;
    }
    g_assert_cmpuint(rig_size(rig), ==, MIB + SEGMENT);
    close(fd);
    rig_free(rig);
}

/* Memory in which nothing lies is given back, but for a few segments. */
static void test_memory_is_given_back(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 16 * MIB, true);
    g_autoptr(GArray) places = g_array_new(false, false, sizeof(uint64_t));
    unsigned i;

    while (rig_size(rig) < 8 * MIB) {
        uint64_t place = store(rig, places->len);

        g_array_append_val(places, place);
    }
    g_assert_cmpuint(memory_of(rig), >, 7 * MIB);
    for (i = 0; i < places->len; i++) {
        free_place(rig, g_array_index(places, uint64_t, i));
    }
    g_assert_cmpuint(rig_pages(rig), ==, 0);
    g_assert_cmpuint(rig_size(rig), <=, 10 * SEGMENT);
    g_assert_cmpuint(memory_of(rig), <=, 10 * SEGMENT + MM_PAGE_SIZE);
    /* and used again */
    for (i = 0; i < places->len; i++) {
        store(rig, i);
    }
    g_assert_cmpuint(rig_size(rig), <=, 9 * MIB);
    rig_free(rig);
}

/* What a killed pager has stored for nobody is given back by the next one. */
static void test_leftovers(const void *opaque)
{
    RigQueue kind = GPOINTER_TO_INT(opaque);
    TierRig *rig = rig_new(NULL, kind, 0, true), *next;
    uint64_t first = store(rig, 7), place;
    unsigned i;

    for (i = 0; memory_of(rig) < MIB; i++) {
        store(rig, i);
    }
    next = rig_reopen(rig, kind);
    g_assert_true(next->tier->ops->claim(next->tier, first));
    g_assert_false(next->tier->ops->claim(next->tier, first));
    place = store(next, 8);
    g_assert_cmpuint(memory_of(next), <=, 2 * SEGMENT + MM_PAGE_SIZE);
    g_assert_cmpint(rig_transfer(next, false, first, 1), ==, 0);
    fill(rig, CONTENT_TEXT, 7);
    g_assert_cmpmem(next->arena, MM_PAGE_SIZE, rig->arena, MM_PAGE_SIZE);
    free_place(next, first);
    free_place(next, place);
    g_assert_cmpuint(rig_pages(next), ==, 0);
    rig_free(next);
    rig_free(rig);
}

static GArray *fill_up(TierRig *rig)
{
    GArray *places = g_array_new(false, false, sizeof(uint64_t));
    uint64_t place;

    fill(rig, CONTENT_TEXT, 3);
    while (alloc(rig, &place) == 0) {
        g_array_append_val(places, place);
    }
    return places;
}

static MmAgeing age(TierRig *rig, bool is_last)
{
    return rig->tier->ops->age(rig->tier, is_last);
}

static bool leaving(TierRig *rig, GArray *places, unsigned i)
{
    return rig->tier->ops->leaving(rig->tier,
                                   g_array_index(places, uint64_t, i));
}

/* Of a pool that is full of content the oldest leaves, and no more. */
static void test_oldest_leaves(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 8 * MIB, true);
    g_autoptr(GArray) places = NULL;
    g_autoptr(GArray) younger = NULL;
    uint64_t first = store(rig, 1);
    unsigned i, nr;

    g_assert_cmpint(age(rig, false), ==, MM_AGEING_NONE);
    places = fill_up(rig);
    /* without a next tier there is no place to go to */
    g_assert_cmpint(age(rig, true), ==, MM_AGEING_NONE);
    g_assert_cmpint(age(rig, false), ==, MM_AGEING_DOWN);
    for (nr = 0; leaving(rig, places, nr); nr++) {
        continue;
    }
    for (i = nr; i < places->len; i++) {
        g_assert_false(leaving(rig, places, i));
    }
    g_assert_cmpuint(nr, >, places->len / 10);
    g_assert_cmpuint(nr, <, places->len / 6);
    /* those that have not left are not forgotten */
    g_assert_cmpint(age(rig, false), ==, MM_AGEING_DOWN);
    free_place(rig, first);
    for (i = 0; i < nr; i++) {
        free_place(rig, g_array_index(places, uint64_t, i));
    }
    g_assert_false(leaving(rig, places, 0));
    g_assert_cmpint(age(rig, false), ==, MM_AGEING_NONE);
    /* full again: the next oldest, though its segments lie behind new ones */
    younger = fill_up(rig);
    g_assert_cmpint(age(rig, false), ==, MM_AGEING_DOWN);
    g_assert_true(leaving(rig, places, nr));
    g_assert_false(leaving(rig, younger, 0));
    rig_free(rig);
}

/* Of one that is full of gaps the sparsest leaves, whatever its age. */
static void test_sparsest_leaves(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 8 * MIB, true);
    g_autoptr(GArray) places = fill_up(rig);
    g_autofree bool *freed = g_new0(bool, places->len);
    unsigned i, kept = 0, nr = 0;

    /* of the first half one in two, of the last one three in four */
    for (i = 0; i < places->len; i++) {
        freed[i] = i < places->len / 2 ? i % 2 : i % 4;
        if (freed[i]) {
            free_place(rig, g_array_index(places, uint64_t, i));
        }
    }
    g_assert_cmpint(age(rig, false), ==, MM_AGEING_WITHIN);
    for (i = 0; i < places->len; i++) {
        if (!freed[i] && leaving(rig, places, i)) {
            g_assert_cmpuint(i, >, places->len * 4 / 10);
            nr++;
        }
        kept += !freed[i];
    }
    g_assert_cmpuint(nr, >, 0);
    g_assert_cmpuint(nr, <, kept / 2);
    for (i = 0; i < places->len; i++) {
        if (!freed[i] && leaving(rig, places, i)) {
            free_place(rig, g_array_index(places, uint64_t, i));
        }
    }
    rig_free(rig);
}

/* Freed before anything is stored: still, no segment is there twice. */
static void test_freed_before_first_store(const void *opaque)
{
    RigQueue kind = GPOINTER_TO_INT(opaque);
    TierRig *rig = rig_new(NULL, kind, 8 * MIB, true), *next;
    g_autoptr(GArray) places = fill_up(rig);
    g_autoptr(GArray) again = NULL;
    unsigned i;

    next = rig_reopen_sized(rig, kind, 8 * MIB);
    for (i = 0; i < places->len; i++) {
        g_assert_true(next->tier->ops->claim(next->tier,
                                             g_array_index(places, uint64_t,
                                                           i)));
    }
    for (i = 0; i < places->len; i++) {
        free_place(next, g_array_index(places, uint64_t, i));
    }
    again = fill_up(next);
    g_assert_cmpuint(again->len, ==, places->len);
    g_assert_cmpuint(rig_size(next), <=, 8 * MIB);
    rig_free(next);
    rig_free(rig);
}

/* To move content within a full pool there is room that others cannot have. */
static void test_room_to_move(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 8 * MIB, true);
    g_autoptr(GArray) places = fill_up(rig);
    MmTierIO io = {
        .store = true, .moving = true, .nr_pages = 1, .buf = rig->arena,
    };

    g_assert_cmpint(rig->queue->ops->alloc(rig->queue, &io), ==, 0);
    g_assert_cmpuint(places->len, >, 0);
    rig_free(rig);
}

/* One segment with gaps is not worth a sweep over all memory. */
static void test_little_is_left_alone(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), 8 * MIB, true);
    g_autoptr(GArray) places = fill_up(rig);
    unsigned i;

    for (i = 0; i < places->len / 64; i += 2) {
        free_place(rig, g_array_index(places, uint64_t, i));
    }
    g_assert_cmpint(age(rig, true), ==, MM_AGEING_NONE);
    g_assert_false(leaving(rig, places, 1));
    rig_free(rig);
}

/* Whatever lies there, nothing beyond a page is written. */
static void test_damage(const void *opaque)
{
    TierRig *rig = rig_new(NULL, GPOINTER_TO_INT(opaque), MIB, true);
    uint8_t guard[MM_PAGE_SIZE];
    uint64_t place = store(rig, 9);
    unsigned wrong = 0;
    uint32_t i;

    memset(guard, 0xa5, sizeof(guard));
    for (i = 0; i < 20000; i++) {
        uint32_t noise = g_test_rand_int();
        off_t at = MM_PAGE_SIZE + (place >> 6) * 64 +
                   g_test_rand_int_range(0, 64);

        g_assert_cmpint(pwrite(rig->fd, &noise, 1 + i % 4, at), >, 0);
        memcpy(rig->arena + MM_PAGE_SIZE, guard, sizeof(guard));
        wrong += rig_transfer(rig, false, place, 1) < 0;
        g_assert_cmpmem(rig->arena + MM_PAGE_SIZE, MM_PAGE_SIZE, guard,
                        MM_PAGE_SIZE);
    }
    g_assert_cmpuint(wrong, >, 0);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        GTestDataFunc fn;
    } tests[] = {
        { "noise-is-refused", test_noise_is_refused },
        { "size", test_size },
        { "share", test_share },
        { "memory-is-given-back", test_memory_is_given_back },
        { "leftovers", test_leftovers },
        { "oldest-leaves", test_oldest_leaves },
        { "sparsest-leaves", test_sparsest_leaves },
        { "freed-before-first-store", test_freed_before_first_store },
        { "room-to-move", test_room_to_move },
        { "little-is-left-alone", test_little_is_left_alone },
        { "damage", test_damage },
    };
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *lz4 = g_strdup_printf("/mm/compressed/lz4/%s",
                                               tests[i].name);
        g_autofree char *zstd = g_strdup_printf("/mm/compressed/zstd/%s",
                                                tests[i].name);

        g_test_add_data_func(lz4, GINT_TO_POINTER(RIG_LZ4), tests[i].fn);
        g_test_add_data_func(zstd, GINT_TO_POINTER(RIG_ZSTD), tests[i].fn);
    }
    return g_test_run();
}
