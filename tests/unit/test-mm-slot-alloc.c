/*
 * Unit tests: slot allocator against a naive shadow
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The shadow is an array of booleans that is searched one by one, next-fit.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "memory-manager/pager/tier/slot-alloc.h"
#include "mm-unit.h"

#define MAX_SLOTS 3000
#define MAX_RUN 32
#define RUNS 128                /* looked at by one search */
#define STEPS 60000
#define THREADS 4
#define THREAD_STEPS 40000

typedef struct Shadow {
    bool used[MAX_SLOTS];       /* not to be had */
    bool pinned[MAX_SLOTS];
    bool kept[MAX_SLOTS];       /* pinned, and free but for that */
    uint64_t nr_slots;
    uint64_t hint;
} Shadow;

static unsigned free_run(const Shadow *s, uint64_t from, unsigned max)
{
    unsigned nr = 0;

    while (nr < max && from + nr < s->nr_slots && !s->used[from + nr]) {
        nr++;
    }
    return nr;
}

/*
 * The first long enough, from the hint on, then from the start; or the longest
 * of those that are looked at.
 */
static unsigned shadow_alloc(Shadow *s, unsigned nr, uint64_t *first)
{
    uint64_t start[] = { s->hint, 0 };
    unsigned got = 0, i, left = RUNS;
    uint64_t slot, run;

    for (i = 0; i < 2; i++) {
        for (slot = start[i]; slot < s->nr_slots && got < nr && left;
             slot += run ?: 1) {
            run = free_run(s, slot, nr);
            if (run > got) {
                got = run;
                *first = slot;
            }
            left -= !!run;
        }
    }
    if (!got) {
        return 0;
    }
    memset(&s->used[*first], true, got);
    s->hint = *first + got < s->nr_slots ? *first + got : 0;
    return got;
}

static void check_count(MmSlotAlloc *slots, const Shadow *s)
{
    uint64_t used, total, naive = 0, i;

    for (i = 0; i < s->nr_slots; i++) {
        naive += s->used[i] && !s->kept[i];
    }
    mm_slots_count(slots, &used, &total);
    g_assert_cmpuint(used, ==, naive);
    g_assert_cmpuint(total, ==, s->nr_slots);
}

static unsigned both_alloc(MmSlotAlloc *slots, Shadow *s, unsigned nr)
{
    uint64_t first = UINT64_MAX, naive_first = UINT64_MAX;
    unsigned naive = shadow_alloc(s, nr, &naive_first);
    unsigned got = mm_slots_alloc(slots, nr, &first);

    g_assert_cmpuint(got, ==, naive);
    if (got) {
        g_assert_cmpuint(first, ==, naive_first);
    }
    return got;
}

static void both_claim(MmSlotAlloc *slots, Shadow *s, uint64_t slot)
{
    bool can = slot < s->nr_slots && (!s->used[slot] || s->kept[slot]);

    g_assert_cmpint(mm_slots_claim(slots, slot), ==, can);
    if (can) {
        s->used[slot] = true;
        s->kept[slot] = false;
    }
}

static void both_pin(MmSlotAlloc *slots, Shadow *s, uint64_t slot)
{
    bool can = slot < s->nr_slots && s->used[slot] && !s->kept[slot];

    g_assert_cmpint(mm_slots_pin(slots, slot), ==, can);
    if (can) {
        s->pinned[slot] = true;
    }
}

static void both_unpin(MmSlotAlloc *slots, Shadow *s)
{
    uint64_t i;

    mm_slots_unpin(slots);
    for (i = 0; i < s->nr_slots; i++) {
        s->used[i] &= !s->kept[i];
        s->kept[i] = s->pinned[i] = false;
    }
}

/* Give back some run of used slots, if there is one at @from. */
static void both_free(MmSlotAlloc *slots, Shadow *s, uint64_t from,
                      unsigned max)
{
    unsigned nr = 0;

    while (nr < max && from + nr < s->nr_slots && s->used[from + nr] &&
           !s->kept[from + nr]) {
        s->kept[from + nr] = s->pinned[from + nr];
        s->used[from + nr] = s->pinned[from + nr];
        nr++;
    }
    if (nr) {
        mm_slots_free(slots, from, nr);
    }
}

static void both_grow(MmSlotAlloc *slots, Shadow *s, uint64_t nr)
{
    mm_slots_grow(slots, nr);
    s->nr_slots = MAX(s->nr_slots, nr);
}

static void random_step(MmSlotAlloc *slots, Shadow *s)
{
    switch (g_test_rand_int_range(0, 20)) {
    case 0:
        if (s->nr_slots < MAX_SLOTS - 200 && g_test_rand_bit()) {
            both_grow(slots, s, s->nr_slots + g_test_rand_int_range(0, 200));
        }
        break;
    case 1:
        both_claim(slots, s, g_test_rand_int_range(0, MAX_SLOTS));
        break;
    case 2 ... 3:
        both_pin(slots, s, g_test_rand_int_range(0, MAX_SLOTS));
        break;
    case 4:
        if (g_test_rand_int_range(0, 200) == 0) {
            both_unpin(slots, s);
        }
        break;
    case 5 ... 11:
        both_alloc(slots, s, g_test_rand_int_range(1, MAX_RUN + 1));
        break;
    default:
        both_free(slots, s, g_test_rand_int_range(0, s->nr_slots + 1),
                  g_test_rand_int_range(1, 2 * MAX_RUN));
        break;
    }
}

static void test_random(void)
{
    g_autofree Shadow *s = g_new0(Shadow, 1);
    MmSlotAlloc slots;
    unsigned i;

    mm_slots_init(&slots);
    for (i = 0; i < STEPS; i++) {
        random_step(&slots, s);
        if (i % 64 == 0) {
            check_count(&slots, s);
        }
    }
    mm_slots_destroy(&slots);
}

static void test_empty(void)
{
    MmSlotAlloc slots;
    uint64_t first, used, total;

    mm_slots_init(&slots);
    g_assert_cmpuint(mm_slots_alloc(&slots, 1, &first), ==, 0);
    g_assert_false(mm_slots_claim(&slots, 0));
    mm_slots_count(&slots, &used, &total);
    g_assert_cmpuint(used, ==, 0);
    g_assert_cmpuint(total, ==, 0);
    mm_slots_destroy(&slots);
}

/* Of a former pager's nobody knows which were pinned. */
static void test_pin_all(void)
{
    MmSlotAlloc slots;
    uint64_t first, used, total;

    mm_slots_init(&slots);
    mm_slots_grow(&slots, 100);
    mm_slots_pin_all(&slots);
    g_assert_true(mm_slots_claim(&slots, 7));
    g_assert_false(mm_slots_claim(&slots, 7));
    g_assert_cmpuint(mm_slots_alloc(&slots, 1, &first), ==, 0);
    mm_slots_count(&slots, &used, &total);
    g_assert_cmpuint(used, ==, 1);
    mm_slots_free(&slots, 7, 1);
    g_assert_cmpuint(mm_slots_alloc(&slots, 1, &first), ==, 0);
    /* what comes later has not been told of */
    mm_slots_grow(&slots, 110);
    g_assert_cmpuint(mm_slots_alloc(&slots, 20, &first), ==, 10);
    g_assert_cmpuint(first, ==, 100);
    mm_slots_unpin(&slots);
    g_assert_cmpuint(mm_slots_alloc(&slots, 100, &first), ==, 100);
    g_assert_cmpuint(first, ==, 0);
    mm_slots_destroy(&slots);
}

/* As in a tier that has taken nothing yet */
static void test_pin_none(void)
{
    MmSlotAlloc slots;
    uint64_t first;

    mm_slots_init(&slots);
    mm_slots_pin_all(&slots);
    mm_slots_grow(&slots, 10);
    g_assert_cmpuint(mm_slots_alloc(&slots, 10, &first), ==, 10);
    mm_slots_unpin(&slots);
    mm_slots_free(&slots, first, 10);
    mm_slots_destroy(&slots);
}

/* What is evicted together lies together. */
static void test_next_fit(void)
{
    g_autofree Shadow *s = g_new0(Shadow, 1);
    MmSlotAlloc slots;
    uint64_t first;
    unsigned i;

    mm_slots_init(&slots);
    both_grow(&slots, s, 256);
    for (i = 0; i < 8; i++) {
        g_assert_cmpuint(mm_slots_alloc(&slots, 16, &first), ==, 16);
        g_assert_cmpuint(first, ==, i * 16);
    }
    /* what is free again behind us is not taken before the end is reached */
    mm_slots_free(&slots, 0, 128);
    g_assert_cmpuint(mm_slots_alloc(&slots, 16, &first), ==, 16);
    g_assert_cmpuint(first, ==, 128);
    mm_slots_destroy(&slots);
}

static void test_full(void)
{
    g_autofree Shadow *s = g_new0(Shadow, 1);
    MmSlotAlloc slots;
    uint64_t first;

    mm_slots_init(&slots);
    both_grow(&slots, s, 100);
    while (both_alloc(&slots, s, 7)) {
        check_count(&slots, s);
    }
    g_assert_cmpuint(mm_slots_alloc(&slots, 1, &first), ==, 0);
    /* the one slot that there is, wherever the hint points */
    both_free(&slots, s, 41, 1);
    g_assert_cmpuint(both_alloc(&slots, s, MAX_RUN), ==, 1);
    both_grow(&slots, s, 101);
    g_assert_cmpuint(both_alloc(&slots, s, MAX_RUN), ==, 1);
    check_count(&slots, s);
    mm_slots_destroy(&slots);
}

static void test_fragmented(void)
{
    g_autofree Shadow *s = g_new0(Shadow, 1);
    MmSlotAlloc slots;
    uint64_t i;

    mm_slots_init(&slots);
    both_grow(&slots, s, 512);
    for (i = 0; i < 512; i += 2) {
        both_claim(&slots, s, i);
    }
    /* no run of two anywhere, so singles are handed out, each once */
    for (i = 0; i < 256; i++) {
        g_assert_cmpuint(both_alloc(&slots, s, MAX_RUN), ==, 1);
    }
    g_assert_cmpuint(both_alloc(&slots, s, 1), ==, 0);
    mm_slots_destroy(&slots);
}

/* A search does not hold the lock for as long as a large file is. */
static void test_reach(void)
{
    const uint64_t nr = 4 * RUNS;
    MmSlotAlloc slots;
    uint64_t first, i;

    mm_slots_init(&slots);
    mm_slots_grow(&slots, nr + MAX_RUN);
    for (i = 0; i < nr; i += 2) {
        g_assert_true(mm_slots_claim(&slots, i));
    }
    /* beyond what is looked at there is a run: not found, and no failure */
    g_assert_cmpuint(mm_slots_alloc(&slots, MAX_RUN, &first), ==, 1);
    g_assert_cmpuint(first, ==, 1);
    /* found once the hint has come near it */
    for (i = 1; mm_slots_alloc(&slots, MAX_RUN, &first) == 1; i++) {
        g_assert_cmpuint(first, <, nr);
    }
    g_assert_cmpuint(i, >=, nr / 2 - RUNS);
    g_assert_cmpuint(i, <=, nr / 2 - RUNS + 1);
    g_assert_cmpuint(first, ==, nr - 1);
    mm_slots_destroy(&slots);
}

/* Nor for as long as one is that is full but for its end. */
static void test_reach_of_few(void)
{
    const uint64_t reach = 65536;
    MmSlotAlloc slots;
    uint64_t first, i;

    mm_slots_init(&slots);
    mm_slots_grow(&slots, reach + 100 + MAX_RUN);
    for (i = 1; i < reach + 100; i++) {
        g_assert_true(mm_slots_claim(&slots, i));
    }
    g_assert_cmpuint(mm_slots_alloc(&slots, MAX_RUN, &first), ==, 1);
    g_assert_cmpuint(first, ==, 0);
    g_assert_cmpuint(mm_slots_alloc(&slots, MAX_RUN, &first), ==, MAX_RUN);
    g_assert_cmpuint(first, ==, reach + 100);
    mm_slots_destroy(&slots);
}

/* Of many runs the longest is taken, though shorter ones come first. */
static void test_longest(void)
{
    MmSlotAlloc slots;
    uint64_t first, i;

    mm_slots_init(&slots);
    mm_slots_grow(&slots, 64 * 8);
    for (i = 0; i < 64 * 8; i++) {
        /* one free slot of eight; in one place six of them, side by side */
        if (i % 8 && (i < 40 * 8 || i > 40 * 8 + 5)) {
            g_assert_true(mm_slots_claim(&slots, i));
        }
    }
    g_assert_cmpuint(mm_slots_alloc(&slots, MAX_RUN, &first), ==, 6);
    g_assert_cmpuint(first, ==, 40 * 8);
    g_assert_cmpuint(mm_slots_alloc(&slots, MAX_RUN, &first), ==, 1);
    g_assert_cmpuint(first, ==, 41 * 8);
    mm_slots_destroy(&slots);
}

static void test_grow(void)
{
    g_autofree Shadow *s = g_new0(Shadow, 1);
    MmSlotAlloc slots;
    uint64_t i;

    mm_slots_init(&slots);
    for (i = 1; i <= 300; i++) {
        both_grow(&slots, s, i);
        g_assert_cmpuint(both_alloc(&slots, s, 1), ==, 1);
        g_assert_cmpuint(both_alloc(&slots, s, 1), ==, 0);
    }
    /* never fewer than before, and nothing in use is forgotten */
    mm_slots_grow(&slots, 10);
    check_count(&slots, s);
    mm_slots_destroy(&slots);
}

static void try_free_twice(void)
{
    MmSlotAlloc slots;
    uint64_t first;

    expect_death();
    mm_slots_init(&slots);
    mm_slots_grow(&slots, 64);
    mm_slots_alloc(&slots, 8, &first);
    mm_slots_free(&slots, first + 3, 1);
    mm_slots_free(&slots, first, 8);
}

static void try_free_outside(void)
{
    MmSlotAlloc slots;
    uint64_t first;

    expect_death();
    mm_slots_init(&slots);
    mm_slots_grow(&slots, 64);
    mm_slots_alloc(&slots, 32, &first);
    mm_slots_free(&slots, 60, 5);
}

static void test_misuse_asserts(void)
{
    assert_dies("/mm/slot-alloc/misuse/subprocess/free-twice",
                "*find_next_zero_bit*");
    assert_dies("/mm/slot-alloc/misuse/subprocess/free-outside",
                "*nr_slots*");
}

/* T1 of the tier's contract: nothing is handed out twice. */
typedef struct Sharer {
    MmSlotAlloc *slots;
    int *owner;                 /* per slot; atomic, 0: nobody's */
    GRand *rand;
    int self;
} Sharer;

typedef struct Held {
    uint64_t first;
    unsigned nr;
} Held;

static void take(Sharer *s, Held *held)
{
    unsigned want = g_rand_int_range(s->rand, 1, MAX_RUN + 1), i;

    held->nr = mm_slots_alloc(s->slots, want, &held->first);
    for (i = 0; i < held->nr; i++) {
        g_assert_cmpint(qatomic_xchg(&s->owner[held->first + i], s->self),
                        ==, 0);
    }
}

static void give_back(Sharer *s, Held *held)
{
    unsigned i;

    for (i = 0; i < held->nr; i++) {
        g_assert_cmpint(qatomic_xchg(&s->owner[held->first + i], 0), ==,
                        s->self);
    }
    mm_slots_free(s->slots, held->first, held->nr);
    held->nr = 0;
}

static void *sharer(void *opaque)
{
    Sharer *s = opaque;
    Held held[48] = {};
    unsigned i;

    for (i = 0; i < THREAD_STEPS; i++) {
        Held *h = &held[g_rand_int_range(s->rand, 0, ARRAY_SIZE(held))];

        if (h->nr) {
            give_back(s, h);
        } else {
            take(s, h);
        }
    }
    for (i = 0; i < ARRAY_SIZE(held); i++) {
        if (held[i].nr) {
            give_back(s, &held[i]);
        }
    }
    return NULL;
}

static void test_threads(void)
{
    g_autofree int *owner = g_new0(int, MAX_SLOTS);
    GThread *thread[THREADS];
    Sharer sharers[THREADS];
    MmSlotAlloc slots;
    uint64_t used, total;
    int i;

    mm_slots_init(&slots);
    for (i = 0; i < THREADS; i++) {
        sharers[i] = (Sharer) {
            .slots = &slots, .owner = owner, .self = i + 1,
            .rand = g_rand_new_with_seed(g_test_rand_int()),
        };
        thread[i] = g_thread_new("sharer", sharer, &sharers[i]);
    }
    /* as the control thread does when the limit shrinks */
    for (i = 0; i <= MAX_SLOTS; i += 100) {
        mm_slots_grow(&slots, i);
        g_usleep(500);
    }
    for (i = 0; i < THREADS; i++) {
        g_thread_join(thread[i]);
        g_rand_free(sharers[i].rand);
    }
    mm_slots_count(&slots, &used, &total);
    g_assert_cmpuint(used, ==, 0);
    g_assert_cmpuint(total, ==, MAX_SLOTS);
    mm_slots_destroy(&slots);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/slot-alloc/random", test_random);
    g_test_add_func("/mm/slot-alloc/empty", test_empty);
    g_test_add_func("/mm/slot-alloc/pin-all", test_pin_all);
    g_test_add_func("/mm/slot-alloc/pin-none", test_pin_none);
    g_test_add_func("/mm/slot-alloc/next-fit", test_next_fit);
    g_test_add_func("/mm/slot-alloc/full", test_full);
    g_test_add_func("/mm/slot-alloc/fragmented", test_fragmented);
    g_test_add_func("/mm/slot-alloc/reach", test_reach);
    g_test_add_func("/mm/slot-alloc/reach-of-few", test_reach_of_few);
    g_test_add_func("/mm/slot-alloc/longest", test_longest);
    g_test_add_func("/mm/slot-alloc/grow", test_grow);
    g_test_add_func("/mm/slot-alloc/misuse", test_misuse_asserts);
    g_test_add_func("/mm/slot-alloc/misuse/subprocess/free-twice",
                    try_free_twice);
    g_test_add_func("/mm/slot-alloc/misuse/subprocess/free-outside",
                    try_free_outside);
    g_test_add_func("/mm/slot-alloc/threads", test_threads);
    return g_test_run();
}
