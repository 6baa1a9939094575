/*
 * Unit tests: faults that wait
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Against a naive shadow: a hash table by thread.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "memory-manager/pager/fault/waiters.h"

#define PAGE 4096
#define STEPS 100000

typedef struct Shadow {
    GHashTable *by_key;         /* thread and page to MmWaiter */
    GArray *left;               /* uint64_t: times of those removed */
} Shadow;

static void shadow_init(Shadow *s)
{
    s->by_key = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    s->left = g_array_new(false, false, sizeof(uint64_t));
}

static void shadow_destroy(Shadow *s)
{
    g_hash_table_destroy(s->by_key);
    g_array_unref(s->left);
}

static gpointer key(uint64_t addr, uint32_t tid)
{
    return (gpointer)(uintptr_t)(addr ^ (uint64_t)tid << 40);
}

static void shadow_add(Shadow *s, uint64_t addr, uint32_t tid,
                       uint64_t since_ns, MmWaitReason reason)
{
    MmWaiter *old = g_hash_table_lookup(s->by_key, key(addr, tid));
    MmWaiter *new;

    if (!old && g_hash_table_size(s->by_key) == MM_MAX_WAITERS) {
        return;
    }
    new = g_new(MmWaiter, 1);
    *new = (MmWaiter) {
        .addr = addr, .tid = tid, .reason = reason,
        .since_ns = old ? old->since_ns : since_ns,
    };
    g_hash_table_replace(s->by_key, key(addr, tid), new);
}

static gboolean in_range(gpointer key, gpointer value, gpointer opaque)
{
    const MmWaiter *w = value;
    const uint64_t *range = opaque;

    return w->addr >= range[0] && w->addr < range[0] + range[1];
}

static void note_left(void *opaque, uint64_t since_ns)
{
    Shadow *s = opaque;

    g_array_append_val(s->left, since_ns);
}

static int compare_u64(gconstpointer a, gconstpointer b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Remove from both; the times that are handed out have to be the same. */
static void both_remove(MmWaiters *w, Shadow *s, uint64_t addr, uint64_t len)
{
    GArray *want = g_array_new(false, false, sizeof(uint64_t));
    uint64_t range[] = { addr, len };
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, s->by_key);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        if (in_range(NULL, value, range)) {
            g_array_append_val(want, ((MmWaiter *)value)->since_ns);
        }
    }
    g_hash_table_foreach_remove(s->by_key, in_range, range);
    g_array_set_size(s->left, 0);
    mm_waiters_remove(w, addr, len, note_left, s);
    g_array_sort(want, compare_u64);
    g_array_sort(s->left, compare_u64);
    g_assert_cmpmem(want->data, want->len * 8, s->left->data,
                    s->left->len * 8);
    g_array_unref(want);
}

static bool shadow_set_reason(Shadow *s, uint64_t addr, MmWaitReason reason)
{
    GHashTableIter iter;
    gpointer value;
    bool found = false;

    g_hash_table_iter_init(&iter, s->by_key);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        MmWaiter *waiter = value;

        if (waiter->addr == addr) {
            waiter->reason = reason;
            found = true;
        }
    }
    return found;
}

static void check_same(MmWaiters *w, Shadow *s)
{
    g_autoptr(GHashTable) tids = g_hash_table_new(NULL, NULL);
    uint64_t oldest = 0, naive_oldest = 0;
    uint32_t threads;
    unsigned i;

    g_assert_cmpuint(w->nr, ==, g_hash_table_size(s->by_key));
    for (i = 0; i < w->nr; i++) {
        MmWaiter *a = &w->waiter[i];
        MmWaiter *b = g_hash_table_lookup(s->by_key, key(a->addr, a->tid));

        g_assert_nonnull(b);
        g_hash_table_add(tids, GUINT_TO_POINTER(a->tid));
        g_assert_cmphex(a->addr, ==, b->addr);
        g_assert_cmpuint(a->since_ns, ==, b->since_ns);
        g_assert_cmpint(a->reason, ==, b->reason);
        if (!naive_oldest || b->since_ns < naive_oldest) {
            naive_oldest = b->since_ns;
        }
    }
    mm_waiters_count(w, &threads, &oldest);
    g_assert_cmpuint(threads, ==, g_hash_table_size(tids));
    g_assert_cmpuint(oldest, ==, naive_oldest);
}

static void random_step(MmWaiters *w, Shadow *s, uint64_t now)
{
    uint64_t addr = (1 + g_test_rand_int_range(0, 200)) * PAGE;
    MmWaitReason reason = g_test_rand_int_range(MM_WAIT_LOAD,
                                                MM_WAIT_LOST + 1);

    switch (g_test_rand_int_range(0, 8)) {
    case 0:
        both_remove(w, s, addr, PAGE);
        break;
    case 1:
        both_remove(w, s, addr, g_test_rand_int_range(0, 20) * PAGE);
        break;
    case 2:
        g_assert_cmpint(mm_waiters_set_reason(w, addr, reason), ==,
                        shadow_set_reason(s, addr, reason));
        break;
    default: {
        uint32_t tid = g_test_rand_int_range(1, 4);

        mm_waiters_add(w, addr, tid, now, reason);
        shadow_add(s, addr, tid, now, reason);
        break;
    }
    }
}

static void test_random(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    Shadow s;
    unsigned i;

    mm_waiters_init(w);
    shadow_init(&s);
    for (i = 0; i < STEPS; i++) {
        random_step(w, &s, 1000 + i);
        if (i % 16 == 0) {
            check_same(w, &s);
        }
    }
    g_assert_false(w->overflow);
    both_remove(w, &s, 0, UINT64_MAX);
    check_same(w, &s);
    shadow_destroy(&s);
}

static void test_nobody(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    uint64_t oldest = 1;
    uint32_t threads = 1;

    mm_waiters_init(w);
    mm_waiters_count(w, &threads, &oldest);
    g_assert_cmpuint(threads, ==, 0);
    g_assert_cmpuint(oldest, ==, 0);
    g_assert_false(mm_waiters_set_reason(w, PAGE, MM_WAIT_LOAD));
}

/* Told again of the same fault, a thread has still waited since the first. */
static void test_same_thread_again(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    uint64_t oldest;
    uint32_t threads;

    mm_waiters_init(w);
    mm_waiters_add(w, 5 * PAGE, 7, 100, MM_WAIT_LIMIT);
    mm_waiters_add(w, 5 * PAGE, 7, 200, MM_WAIT_LOAD);
    mm_waiters_count(w, &threads, &oldest);
    g_assert_cmpuint(threads, ==, 1);
    g_assert_cmpuint(oldest, ==, 100);
    g_assert_cmpint(w->waiter[0].reason, ==, MM_WAIT_LOAD);

    /* another page: perhaps another thread of the same number */
    mm_waiters_add(w, 6 * PAGE, 7, 300, MM_WAIT_DROP);
    mm_waiters_count(w, &threads, &oldest);
    g_assert_cmpuint(threads, ==, 1);
    g_assert_cmpuint(oldest, ==, 100);
    g_assert_true(mm_waiters_set_reason(w, 5 * PAGE, MM_WAIT_LOAD));

    /* two threads at one page are two */
    mm_waiters_add(w, 6 * PAGE, 8, 250, MM_WAIT_DROP);
    mm_waiters_count(w, &threads, &oldest);
    g_assert_cmpuint(threads, ==, 2);
    g_assert_cmpuint(oldest, ==, 100);
}

static void test_overflow(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    Shadow s;
    uint32_t tid;

    mm_waiters_init(w);
    shadow_init(&s);
    for (tid = 1; tid <= MM_MAX_WAITERS; tid++) {
        mm_waiters_add(w, tid * PAGE, tid, tid, MM_WAIT_LOAD);
        shadow_add(&s, tid * PAGE, tid, tid, MM_WAIT_LOAD);
    }
    g_assert_false(w->overflow);
    /* those that are there may go on changing */
    mm_waiters_add(w, 3 * PAGE, 3, 9, MM_WAIT_LIMIT);
    shadow_add(&s, 3 * PAGE, 3, 9, MM_WAIT_LIMIT);
    g_assert_false(w->overflow);
    check_same(w, &s);
    mm_waiters_add(w, PAGE, tid, tid, MM_WAIT_LOAD);
    g_assert_true(w->overflow);
    check_same(w, &s);
    /* the fault thread takes the flag back, not the table */
    both_remove(w, &s, 0, 100 * PAGE);
    g_assert_true(w->overflow);
    mm_waiters_add(w, PAGE, tid, tid, MM_WAIT_LOAD);
    shadow_add(&s, PAGE, tid, tid, MM_WAIT_LOAD);
    check_same(w, &s);
    shadow_destroy(&s);
}

static void test_range_ends(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    const uint64_t top = UINT64_MAX - PAGE + 1;
    Shadow s;
    int i;

    mm_waiters_init(w);
    shadow_init(&s);
    for (i = 1; i <= 5; i++) {
        mm_waiters_add(w, i * PAGE, i, i, MM_WAIT_LOAD);
        shadow_add(&s, i * PAGE, i, i, MM_WAIT_LOAD);
    }
    mm_waiters_add(w, top, 6, 6, MM_WAIT_LOAD);
    shadow_add(&s, top, 6, 6, MM_WAIT_LOAD);
    both_remove(w, &s, 2 * PAGE, 0);
    g_assert_cmpuint(s.left->len, ==, 0);
    both_remove(w, &s, 2 * PAGE, 3 * PAGE);
    g_assert_cmpuint(s.left->len, ==, 3);
    check_same(w, &s);
    mm_waiters_remove(w, top, PAGE, note_left, &s);
    g_assert_cmpuint(w->nr, ==, 2);
    shadow_destroy(&s);
}

/* The control thread counts while the fault thread changes the table. */
typedef struct Counter {
    MmWaiters *w;
    bool stop;                  /* atomic */
    unsigned counts;
} Counter;

static void *count_thread(void *opaque)
{
    Counter *c = opaque;

    while (!qatomic_read(&c->stop)) {
        uint64_t oldest;
        uint32_t threads;

        mm_waiters_count(c->w, &threads, &oldest);
        /* four threads come and go; their times are all from 1 on */
        g_assert_cmpuint(threads, <=, 4);
        g_assert_cmpint(threads > 0, ==, oldest > 0);
        c->counts++;
    }
    return NULL;
}

static void ignore(void *opaque, uint64_t since_ns)
{
}

static void test_counted_meanwhile(void)
{
    g_autofree MmWaiters *w = g_new(MmWaiters, 1);
    Counter c = { .w = w };
    GThread *thread;
    unsigned i;

    mm_waiters_init(w);
    thread = g_thread_new("counter", count_thread, &c);
    for (i = 0; i < 100000; i++) {
        mm_waiters_add(w, (i % 9 + 1) * PAGE, i % 4, i + 1, MM_WAIT_LOAD);
        mm_waiters_remove(w, (i % 5 + 1) * PAGE, PAGE, ignore, NULL);
    }
    qatomic_set(&c.stop, true);
    g_thread_join(thread);
    g_test_message("counted %u times", c.counts);
}

/* An operator may give a page up while it is tried once more. */
static void test_failed(void)
{
    g_autofree MmWaiters *w = g_new0(MmWaiters, 1);

    mm_waiters_init(w);
    mm_waiters_add(w, PAGE, 7, 1, MM_WAIT_LOAD);
    mm_waiters_add(w, 2 * PAGE, 8, 1, MM_WAIT_LOAD);
    g_assert_false(mm_waiters_failed(w, PAGE));
    mm_waiters_set_reason(w, PAGE, MM_WAIT_ERROR);
    g_assert_true(mm_waiters_failed(w, PAGE));
    g_assert_false(mm_waiters_failed(w, 2 * PAGE));
    mm_waiters_set_reason(w, PAGE, MM_WAIT_LOAD);
    mm_waiters_add(w, PAGE, 7, 2, MM_WAIT_LOAD);
    g_assert_true(mm_waiters_failed(w, PAGE));
    mm_waiters_remove(w, PAGE, PAGE, ignore, NULL);
    g_assert_false(mm_waiters_failed(w, PAGE));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/waiters/random", test_random);
    g_test_add_func("/mm/waiters/nobody", test_nobody);
    g_test_add_func("/mm/waiters/same-thread", test_same_thread_again);
    g_test_add_func("/mm/waiters/overflow", test_overflow);
    g_test_add_func("/mm/waiters/range-ends", test_range_ends);
    g_test_add_func("/mm/waiters/failed", test_failed);
    g_test_add_func("/mm/waiters/counted-meanwhile", test_counted_meanwhile);
    return g_test_run();
}
