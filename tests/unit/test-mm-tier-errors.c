/*
 * Unit tests: a medium that fails, fills up or lies
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * As SQLite does with its I/O errors: the N-th operation of a fixed workload
 * is spoilt, for N from 1 until the workload ends without reaching it.  The
 * client does with its pages what the pager does: a checksum bound to page and
 * version, another try after an error, and content that is never taken for
 * right unless its checksum says so.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "tier-inject.h"
#include "tier-rig.h"

#define NR_PAGES 60
#define TRIES 3
/* thousands of transfers one by one, so nothing that has to turn or erase */
#define MEDIUM_DIR "/dev/shm"

typedef struct Page {
    uint64_t entry;             /* place and version, as in a page map */
    uint32_t checksum;
    bool stored;
} Page;

typedef struct Medium {
    TierRig *rig;
    MmPageMap map;              /* for the checksum alone */
    Page page[NR_PAGES];
    unsigned full;              /* times that no place was to be had */
    unsigned errors;            /* failed transfers */
    unsigned wrong;             /* pages with a wrong checksum */
} Medium;

static uint8_t *buffer(Medium *m, unsigned i)
{
    return m->rig->arena + i * MM_PAGE_SIZE;
}

static uint64_t content_number(unsigned page, uint64_t entry)
{
    return page * 10000 + mm_entry_version(entry);
}

/* Evict pages [first, first + nr): to new places, with a new version. */
static void store_pages(Medium *m, unsigned first, unsigned nr)
{
    MmTier *tier = m->rig->tier;
    uint64_t place;
    unsigned i, got = rig_alloc(m->rig, nr, &place);

    if (!got) {
        m->full++;
        return;
    }
    for (i = 0; i < got; i++) {
        Page *p = &m->page[first + i];

        p->entry = mm_entry_next_version(p->entry);
        rig_fill(buffer(m, i), content_number(first + i, p->entry));
        p->checksum = mm_page_checksum(&m->map, first + i, p->entry,
                                       buffer(m, i));
    }
    if (rig_transfer(m->rig, true, place, got)) {
        m->errors++;
        tier->ops->free(tier, place, got);
        return;
    }
    for (i = 0; i < got; i++) {
        Page *p = &m->page[first + i];

        p->entry = mm_entry_at(p->entry, MM_TIER_FIRST, place + i);
        p->stored = true;
    }
}

/* How many pages from @first on lie one behind the other? */
static unsigned run_length(Medium *m, unsigned first)
{
    unsigned nr = 1;

    while (first + nr < NR_PAGES && nr < 8 && m->page[first + nr].stored &&
           mm_entry_place(m->page[first + nr].entry) ==
           mm_entry_place(m->page[first].entry) + nr) {
        nr++;
    }
    return nr;
}

/* A page is taken for right only by its checksum, and then it is right. */
static bool take_page(Medium *m, unsigned page, const uint8_t *content)
{
    Page *p = &m->page[page];
    MmTier *tier = m->rig->tier;

    if (mm_page_checksum(&m->map, page, p->entry, content) != p->checksum) {
        m->wrong++;
        return false;
    }
    g_assert_true(rig_is(content, content_number(page, p->entry)));
    tier->ops->free(tier, mm_entry_place(p->entry), 1);
    p->stored = false;
    return true;
}

static void load_pages(Medium *m, unsigned first)
{
    unsigned nr = run_length(m, first), i;

    /* what an earlier load has left there must not pass for content */
    memset(m->rig->arena, 0xee, nr * MM_PAGE_SIZE);
    if (rig_transfer(m->rig, false, mm_entry_place(m->page[first].entry),
                     nr)) {
        m->errors++;
        return;
    }
    for (i = 0; i < nr; i++) {
        take_page(m, first + i, buffer(m, i));
    }
}

static void store_all(Medium *m)
{
    unsigned i, nr, tries;

    for (tries = 0; tries < TRIES; tries++) {
        for (i = 0; i < NR_PAGES; i++) {
            for (nr = 0; nr < 1 + i % 16 && i + nr < NR_PAGES &&
                         !m->page[i + nr].stored; nr++) {
                continue;
            }
            if (nr) {
                store_pages(m, i, nr);
            }
        }
    }
}

static unsigned load_all(Medium *m)
{
    unsigned i, tries, left = 0;

    for (tries = 0; tries < TRIES; tries++) {
        for (i = 0; i < NR_PAGES; i++) {
            if (m->page[i].stored) {
                load_pages(m, i);
            }
        }
    }
    for (i = 0; i < NR_PAGES; i++) {
        left += m->page[i].stored;
    }
    return left;
}

/* Returns whether the workload was long enough to be spoilt. */
static bool run_workload(Medium *m, InjectKind kind, unsigned nth)
{
    unsigned left = 0;
    int round;

    m->full = m->errors = m->wrong = 0;
    tier_inject_arm(m->rig->tier, kind, nth, EIO);
    for (round = 0; round < 2; round++) {
        store_all(m);
        left += load_all(m);
    }
    switch (kind) {
    case INJECT_FULL:
    case INJECT_FAIL:
    case INJECT_SHORT:
        /* told, and then made good */
        g_assert_cmpuint(m->full + m->errors, ==,
                         tier_inject_hit(m->rig->tier));
        g_assert_cmpuint(m->wrong, ==, 0);
        g_assert_cmpuint(left, ==, 0);
        break;
    case INJECT_DELAY:
        g_assert_cmpuint(m->full + m->errors + m->wrong + left, ==, 0);
        break;
    default:
        /* a lie, found out; at most one transfer's worth */
        g_assert_cmpuint(m->full + m->errors, ==, 0);
        g_assert_cmpint(m->wrong > 0, ==, tier_inject_hit(m->rig->tier));
        g_assert_cmpuint(left, <=, MM_TIER_IO_PAGES);
        break;
    }
    return tier_inject_hit(m->rig->tier);
}

static void forget_pages(Medium *m)
{
    MmTier *tier = m->rig->tier;
    unsigned i;

    for (i = 0; i < NR_PAGES; i++) {
        if (m->page[i].stored) {
            tier->ops->free(tier, mm_entry_place(m->page[i].entry), 1);
            m->page[i].stored = false;
        }
    }
    g_assert_cmpuint(rig_pages(m->rig), ==, 0);
}

static void test_nth_operation(const void *opaque)
{
    InjectKind kind = GPOINTER_TO_UINT(opaque);
    Medium m = { .map.checksum_seed = 0x1234567890abcdef };
    unsigned nth;

    m.rig = rig_new(MEDIUM_DIR, RIG_INJECT, 0, true);
    if (!m.rig) {
        return;
    }
    for (nth = 1; run_workload(&m, kind, nth); nth++) {
        forget_pages(&m);
    }
    g_test_message("%s: %u operations", inject_name(kind), nth - 1);
    g_assert_cmpuint(nth, >, 10);
    rig_free(m.rig);
}

/* Content that was right once, or elsewhere, is not right now and here. */
static void test_misplaced_content(void)
{
    Medium m = { .map.checksum_seed = 1 };

    m.rig = rig_new(MEDIUM_DIR, RIG_INJECT, 0, true);
    if (!m.rig) {
        return;
    }
    store_pages(&m, 0, 1);
    store_pages(&m, 1, 1);
    g_assert_cmpint(rig_transfer(m.rig, false, 0, 2), ==, 0);
    g_assert_false(take_page(&m, 0, buffer(&m, 1)));
    g_assert_false(take_page(&m, 1, buffer(&m, 0)));
    g_assert_true(take_page(&m, 1, buffer(&m, 1)));
    /* the page is stored anew, but the medium keeps what it had */
    tier_inject_arm(m.rig->tier, INJECT_LOSE, 1, 0);
    m.rig->tier->ops->free(m.rig->tier, 0, 1);
    store_pages(&m, 0, 1);
    load_pages(&m, 0);
    g_assert_cmpuint(m.wrong, ==, 3);
    g_assert_true(m.page[0].stored);
    rig_free(m.rig);
}

/* Delayed transfers neither hold up the others nor come back twice. */
static void test_delayed_among_others(void)
{
    TierRig *rig = rig_new(MEDIUM_DIR, RIG_INJECT, 0, true);
    RigIO *slot[RIG_DEPTH];
    unsigned i, nth;

    if (!rig) {
        return;
    }
    for (nth = 1; nth <= RIG_DEPTH; nth++) {
        tier_inject_arm(rig->tier, INJECT_DELAY, nth, 0);
        for (i = 0; i < RIG_DEPTH; i++) {
            slot[i] = rig_slot(rig);
            rig_submit(slot[i], true, i * 4, 4);
        }
        rig_drain(rig);
        g_assert_true(tier_inject_hit(rig->tier));
        g_assert_cmpuint(slot[nth - 1]->order, ==, nth * RIG_DEPTH);
    }
    g_assert_cmpuint(rig->failed, ==, 0);
    g_assert_cmpuint(rig->completed, ==, RIG_DEPTH * RIG_DEPTH);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    InjectKind kind;

    g_test_init(&argc, &argv, NULL);
    for (kind = INJECT_FAIL; kind < INJECT__MAX; kind++) {
        g_autofree char *path = g_strdup_printf("/mm/tier-errors/nth/%s",
                                                inject_name(kind));

        g_test_add_data_func(path, GUINT_TO_POINTER(kind),
                             test_nth_operation);
    }
    g_test_add_func("/mm/tier-errors/misplaced", test_misplaced_content);
    g_test_add_func("/mm/tier-errors/delayed", test_delayed_among_others);
    return g_test_run();
}
