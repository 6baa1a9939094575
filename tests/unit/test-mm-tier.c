/*
 * Unit tests: the contract of a tier
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The conformance suite for tier.h, rules T1 to T8, run over every tier and
 * every queue, with and without encryption, in the temporary directory and on a
 * tmpfs.  The tier that misbehaves on demand (tier-inject.h) keeps to the
 * contract as long as nothing is demanded.
 */
#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/wait.h>
#include "qapi/error.h"
#include "tier-rig.h"

#define MIB (1024 * 1024)
#define STEPS 4000
#define THREADS 4
#define THREAD_STEPS 3000

typedef struct Case {
    RigQueue queue;
    const char *dir;
} Case;

/* Which places are in use, and what they hold. */
typedef struct Client {
    TierRig *rig;
    GArray *places;             /* Place, in no order */
    GHashTable *in_use;         /* place to itself */
    uint64_t next_number;
} Client;

typedef struct Place {
    uint64_t place;
    uint64_t number;
} Place;

static void client_init(Client *c, TierRig *rig)
{
    c->rig = rig;
    c->places = g_array_new(false, false, sizeof(Place));
    c->in_use = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                      NULL);
    c->next_number = 1;
}

static void client_destroy(Client *c)
{
    g_array_unref(c->places);
    g_hash_table_destroy(c->in_use);
}

/* T1: what is handed out is nobody's. */
static void client_add(Client *c, uint64_t place, uint64_t number)
{
    uint64_t *key = g_memdup2(&place, sizeof(place));
    Place p = { .place = place, .number = number };

    g_assert_true(g_hash_table_add(c->in_use, key));
    g_array_append_val(c->places, p);
}

static void client_check_usage(Client *c)
{
    MmTierUsage usage;

    c->rig->tier->ops->usage(c->rig->tier, &usage);
    g_assert_cmpuint(usage.pages, ==, c->places->len);
    g_assert_cmpuint(usage.used, <=, usage.pages * MM_PAGE_SIZE);
    g_assert_cmpuint(usage.size, >=, usage.used);
}

static unsigned client_store(Client *c, unsigned want)
{
    MmTierQueue *queue = c->rig->queue;
    RigIO *slot = rig_slot(c->rig);
    unsigned i;

    want = MIN(want, c->rig->tier->ops->max_pages);
    for (i = 0; i < want; i++) {
        rig_fill(slot->io.buf + i * MM_PAGE_SIZE, c->next_number + i);
    }
    slot->io.store = true;
    slot->io.nr_pages = want;
    if (queue->ops->alloc(queue, &slot->io) < 0) {
        return 0;
    }
    g_assert_cmpuint(slot->io.nr_pages, >, 0);
    g_assert_cmpuint(slot->io.nr_pages, <=, want);
    for (i = 0; i < slot->io.nr_pages; i++) {
        client_add(c, slot->io.place + i, c->next_number++);
    }
    want = slot->io.nr_pages;
    rig_submit(slot, true, slot->io.place, want);
    return want;
}

static uint64_t number_at(Client *c, uint64_t place)
{
    guint i;

    for (i = 0; i < c->places->len; i++) {
        Place *p = &g_array_index(c->places, Place, i);

        if (p->place == place) {
            return p->number;
        }
    }
    return 0;
}

/* Load what lies at some place and, as far as we hold it, behind it. */
static void client_load(Client *c, guint index, unsigned want)
{
    RigIO *slot = rig_slot(c->rig);
    uint64_t first = g_array_index(c->places, Place, index).place;
    unsigned nr;

    want = MIN(want, c->rig->tier->ops->max_pages);
    for (nr = 0; nr < want; nr++) {
        slot->number[nr] = number_at(c, first + nr);
        if (!slot->number[nr]) {
            break;
        }
    }
    slot->verify = true;
    rig_submit(slot, false, first, nr);
}

static void client_free(Client *c, guint index)
{
    uint64_t place = g_array_index(c->places, Place, index).place;

    g_assert_true(g_hash_table_remove(c->in_use, &place));
    g_array_remove_index_fast(c->places, index);
    c->rig->tier->ops->free(c->rig->tier, place, 1);
}

static void client_step(Client *c)
{
    unsigned nr = g_test_rand_int_range(1, MM_TIER_IO_PAGES + 1);
    guint len = c->places->len;
    guint index = len ? g_test_rand_int_range(0, len) : 0;

    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        if (len < 600) {
            g_assert_cmpuint(client_store(c, nr), >, 0);
        }
        break;
    case 1:
        if (len) {
            /* the pager orders its transfers of one place itself */
            rig_drain(c->rig);
            client_load(c, index, nr);
        }
        break;
    default:
        for (; len && nr > MM_TIER_IO_PAGES / 2; nr--, len--) {
            rig_drain(c->rig);
            client_free(c, g_test_rand_int_range(0, len));
        }
        break;
    }
}

static void client_check_all(Client *c)
{
    guint i;

    rig_drain(c->rig);
    for (i = 0; i < c->places->len; i++) {
        client_load(c, i, 1 + i % MM_TIER_IO_PAGES);
    }
    rig_drain(c->rig);
    g_assert_cmpuint(c->rig->failed, ==, 0);
}

static void test_places_are_handed_out_once(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 4 * MIB, true);
    uint64_t place;
    unsigned nr, i, k;
    Client c;

    if (!rig) {
        return;
    }
    client_init(&c, rig);
    for (i = 0; c.places->len < 4 * MIB / MM_PAGE_SIZE; i++) {
        nr = rig_alloc(rig, i % MM_TIER_IO_PAGES + 1,
                                   &place);
        g_assert_cmpuint(nr, >=, 1);
        g_assert_cmpuint(nr, <=, i % MM_TIER_IO_PAGES + 1);
        for (k = 0; k < nr; k++) {
            g_assert_cmpuint(place + k, <=, MM_PLACE_MAX);
            client_add(&c, place + k, 1);
        }
        client_check_usage(&c);
    }
    g_assert_cmpuint(rig_alloc(rig, 1, &place), ==, 0);
    /* one is free again, and that one it is */
    client_free(&c, 333);
    g_assert_cmpuint(rig_alloc(rig, 32, &place), ==, 1);
    client_add(&c, place, 1);
    g_assert_cmpuint(rig_alloc(rig, 32, &place), ==, 0);
    client_check_usage(&c);
    client_destroy(&c);
    rig_free(rig);
}

static void test_loads_read_what_was_stored(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 0, true);
    Client c;
    int i;

    if (!rig) {
        return;
    }
    client_init(&c, rig);
    for (i = 0; i < STEPS; i++) {
        client_step(&c);
    }
    client_check_usage(&c);
    client_check_all(&c);
    client_destroy(&c);
    rig_free(rig);
}

/* A store that has ended is there, whoever looks and from where. */
static void test_next_process_reads_it(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 0, true);
    uint64_t place, size_before;
    Client c;
    guint i;

    if (!rig) {
        return;
    }
    client_init(&c, rig);
    for (i = 0; i < 500; i++) {
        client_step(&c);
    }
    while (c.places->len < 100) {
        client_store(&c, 7);
    }
    rig_drain(rig);
    size_before = rig_size(rig);
    c.rig = rig_reopen(rig, how->queue);
    rig_free(rig);
    rig = c.rig;
    g_assert_cmpuint(rig_pages(rig), ==, 0);
    if (!rig_compresses(how->queue) && how->queue != RIG_DEVICE) {
        g_assert_cmpuint(rig_size(rig), ==, size_before);
    }
    for (i = 0; i < c.places->len; i++) {
        place = g_array_index(c.places, Place, i).place;
        g_assert_true(rig->tier->ops->claim(rig->tier, place));
        g_assert_false(rig->tier->ops->claim(rig->tier, place));
    }
    g_assert_false(rig->tier->ops->claim(rig->tier, MM_PLACE_MAX));
    client_check_usage(&c);
    client_check_all(&c);
    /* what was not claimed may be taken, nothing else */
    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(client_store(&c, 32), >, 0);
    }
    client_check_all(&c);
    client_destroy(&c);
    rig_free(rig);
}

/* T3: the medium ends before the transfer does. */
static void test_short_transfer_fails(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 0, true);
    uint64_t place;
    unsigned nr;
    struct stat st;

    if (!rig) {
        return;
    }
    g_assert_cmpuint(rig_alloc(rig, 32, &place), ==, 32);
    rig_fill(rig->arena, 1);
    g_assert_cmpint(rig_transfer(rig, true, place, 32), ==, 0);
    fstat(rig->fd, &st);
    for (nr = 1; nr <= 32; nr++) {
        int ret;

        /* nothing there, or half, or all but a piece of the last page */
        g_assert_cmpint(ftruncate(rig->fd, (place + 1) * MM_PAGE_SIZE), ==,
                        0);
        g_assert_cmpint(rig_transfer(rig, false, place, nr), <, 0);
        g_assert_cmpint(ftruncate(rig->fd, (place + 1 + nr / 2) *
                                  MM_PAGE_SIZE), ==, 0);
        g_assert_cmpint(rig_transfer(rig, false, place, nr), <, 0);
        g_assert_cmpint(ftruncate(rig->fd, (place + 1 + nr) * MM_PAGE_SIZE -
                                  512), ==, 0);
        ret = rig_transfer(rig, false, place, nr);
        g_assert_cmpint(ret, <, 0);
    }
    /* and goes on when the medium is back */
    g_assert_cmpint(ftruncate(rig->fd, st.st_size), ==, 0);
    g_assert_cmpint(rig_transfer(rig, true, place, 32), ==, 0);
    g_assert_cmpint(rig_transfer(rig, false, place, 32), ==, 0);
    g_assert_true(rig_is(rig->arena, 0) == false);
    rig_free(rig);
}

/* T4: what has been promised is there, page by page. */
static void test_reserve(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 8 * MIB, false);
    uint64_t place;
    Error *err = NULL;
    unsigned i, nr;

    if (!rig) {
        return;
    }
    g_assert_true(rig->tier->ops->reserve(rig->tier, 3 * MIB, &error_abort));
    g_assert_true(rig->tier->ops->reserve(rig->tier, 5 * MIB - 1,
                                          &error_abort));
    /* less than before takes nothing away */
    g_assert_true(rig->tier->ops->reserve(rig->tier, MIB, &error_abort));
    g_assert_cmpuint(rig_pages(rig), ==, 0);
    g_assert_cmpuint(rig_size(rig), ==, 5 * MIB);
    g_assert_false(rig->tier->ops->reserve(rig->tier, 8 * MIB + 1, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "8 MiB"));
    error_free(err);
    for (i = 0; i < 5 * MIB / MM_PAGE_SIZE; i += nr) {
        nr = rig_alloc(rig, 32, &place);
        g_assert_cmpuint(nr, >, 0);
        g_assert_cmpint(rig_transfer(rig, true, place, nr), ==, 0);
    }
    rig_free(rig);
}

/* A pager that works with the file until it is killed. */
static pid_t fork_pager(const TierRig *rig, RigQueue queue)
{
    int ready[2];
    pid_t pid;
    char c;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0) {
        TierRig *mine = rig_reopen(rig, queue);

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        g_assert_true(mine->tier->ops->settled(mine->tier));
        g_assert_cmpint(write(ready[1], "", 1), ==, 1);
        for (;;) {
            rig_submit(rig_slot(mine), true, 0, MM_TIER_IO_PAGES);
        }
    }
    close(ready[1]);
    g_assert_cmpint(read(ready[0], &c, 1), ==, 1);
    close(ready[0]);
    return pid;
}

/* T5: while writes of a former pager may land, wait. */
static void test_settled(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 0, true), *next;
    int64_t end = g_get_monotonic_time() + 20 * G_USEC_PER_SEC;
    pid_t pid;

    if (!rig) {
        return;
    }
    pid = fork_pager(rig, how->queue);
    next = rig_reopen(rig, how->queue);
    g_assert_false(next->tier->ops->settled(next->tier));
    g_assert_false(next->tier->ops->settled(next->tier));
    kill(pid, SIGKILL);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    while (!next->tier->ops->settled(next->tier)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    g_assert_true(next->tier->ops->settled(next->tier));
    rig_free(next);
    rig_free(rig);
}

/* T6: what tells whose it is can be read before anything else is. */
static void test_identity(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 0, true), *next;
    MmIdentity *found;

    if (!rig) {
        return;
    }
    g_assert_true(rig->tier->proven);
    next = rig_reopen(rig, how->queue);
    g_assert_false(next->inner->proven);
    g_assert_cmpint(rig_transfer(next, false, MM_PLACE_IDENTITY, 1), ==, 0);
    g_assert_true(next->inner->ops->is_own(next->inner, next->arena));
    found = (void *)next->arena;
    found->cookie[3]++;
    g_assert_false(next->inner->ops->is_own(next->inner, next->arena));
    rig_free(next);
    rig_free(rig);
}

typedef struct Sharer {
    TierRig *rig;
    GRand *rand;
    int *owner;                 /* per place; atomic */
    int self;
} Sharer;

static void *sharer(void *opaque)
{
    Sharer *s = opaque;
    uint64_t held[64] = {};
    unsigned nr[64] = {}, i, k;

    for (i = 0; i < THREAD_STEPS; i++) {
        unsigned h = g_rand_int_range(s->rand, 0, ARRAY_SIZE(held));

        if (!nr[h]) {
            nr[h] = rig_alloc(s->rig, 1 + h % MM_TIER_IO_PAGES, &held[h]);
            for (k = 0; k < nr[h]; k++) {
                g_assert_cmpint(qatomic_xchg(&s->owner[held[h] + k],
                                             s->self), ==, 0);
            }
            continue;
        }
        for (k = 0; k < nr[h]; k++) {
            g_assert_cmpint(qatomic_xchg(&s->owner[held[h] + k], 0), ==,
                            s->self);
        }
        s->rig->tier->ops->free(s->rig->tier, held[h], nr[h]);
        nr[h] = 0;
    }
    return NULL;
}

static void test_any_thread_allocates(const void *opaque)
{
    const Case *how = opaque;
    TierRig *rig = rig_new(how->dir, how->queue, 16 * MIB, true);
    g_autofree int *owner = g_new0(int, 16 * MIB / MM_PAGE_SIZE);
    Sharer s[THREADS];
    GThread *thread[THREADS];
    int i;

    if (!rig) {
        return;
    }
    for (i = 0; i < THREADS; i++) {
        s[i] = (Sharer) {
            .rig = rig, .owner = owner, .self = i + 1,
            .rand = g_rand_new_with_seed(g_test_rand_int()),
        };
        thread[i] = g_thread_new("sharer", sharer, &s[i]);
    }
    for (i = 0; i < THREADS; i++) {
        g_thread_join(thread[i]);
        g_rand_free(s[i].rand);
    }
    rig_free(rig);
}

/* T7: in the order in which they were submitted, and not faster. */
static void test_io_limits(const void *opaque)
{
    const MmMsgIOLimits limits = { .iops = 100, .iops_burst = 1 };
    const Case *c = opaque;
    TierRig *rig = rig_new(c->dir, c->queue, 0, true);
    int64_t began;
    uint64_t place;
    unsigned i;

    g_assert_cmpuint(rig_alloc(rig, RIG_DEPTH, &place), ==, RIG_DEPTH);
    g_assert_cmpint(rig_transfer(rig, true, place, RIG_DEPTH), ==, 0);
    mm_throttle_set(&rig->tier->throttle, &limits);
    began = g_get_monotonic_time();
    for (i = 0; i < RIG_DEPTH; i++) {
        rig_submit(&rig->slot[i], false, place + i, 1);
    }
    g_assert_cmpuint(mm_queue_wait_ns(rig->queue), >, 0);
    rig_drain(rig);
    g_assert_cmpint(g_get_monotonic_time() - began, >=,
                    (RIG_DEPTH - 2) * 10000);
    for (i = 0; i < RIG_DEPTH; i++) {
        g_assert_cmpint(rig->slot[i].io.ret, ==, 0);
        g_assert_cmpuint(rig->slot[i].io.began_ns, >, 0);
        g_assert_true(i == 0 || rig->slot[i].io.began_ns >=
                      rig->slot[i - 1].io.began_ns);
    }
    g_assert_cmpuint(mm_queue_wait_ns(rig->queue), ==, 0);
    rig_free(rig);
}

/* Limits that are lifted let go what they have put off. */
static void test_io_limits_lifted(const void *opaque)
{
    const MmMsgIOLimits limits = { .bps = 1, .bps_burst = 1 };
    const Case *c = opaque;
    TierRig *rig = rig_new(c->dir, c->queue, 0, true);
    uint64_t place;
    unsigned i;

    g_assert_cmpuint(rig_alloc(rig, RIG_DEPTH, &place), ==, RIG_DEPTH);
    g_assert_cmpint(rig_transfer(rig, true, place, RIG_DEPTH), ==, 0);
    mm_throttle_set(&rig->tier->throttle, &limits);
    for (i = 0; i < RIG_DEPTH; i++) {
        rig_submit(&rig->slot[i], false, place + i, 1);
    }
    g_assert_cmpint(mm_queues_wait_ms(&rig->queue, 1, -1), >, 1000000);
    mm_throttle_set(&rig->tier->throttle, &(MmMsgIOLimits) {});
    g_assert_cmpint(mm_queues_wait_ms(&rig->queue, 1, -1), ==, 1);
    rig_drain(rig);
    rig_free(rig);
}

static const struct {
    const char *name;
    GTestDataFunc fn;
    bool slots;                 /* of a tier with a slot of its own per page */
    bool file;                  /* of a tier whose medium can be cut short */
} conformance[] = {
    { "handed-out-once", test_places_are_handed_out_once, true },
    { "reads-what-was-stored", test_loads_read_what_was_stored },
    { "next-process", test_next_process_reads_it },
    { "short-transfer", test_short_transfer_fails, true, true },
    { "reserve", test_reserve, true },
    { "settled", test_settled, true },
    { "identity", test_identity, true },
    { "io-limits", test_io_limits, true },
    { "io-limits-lifted", test_io_limits_lifted, true },
    { "any-thread-allocates", test_any_thread_allocates, true },
};

static const Case cases[] = {
    { RIG_URING, NULL }, { RIG_THREADS, NULL }, { RIG_INJECT, NULL },
    { RIG_URING, "/dev/shm" }, { RIG_THREADS, "/dev/shm" },
    { RIG_INJECT, "/dev/shm" }, { RIG_LZ4, NULL }, { RIG_ZSTD, NULL },
    { RIG_ENCRYPTED, NULL }, { RIG_DEVICE, NULL },
};

static void add_conformance(void)
{
    static const char *const queues[] = {
        "uring", "threads", "inject", "lz4", "zstd", "encrypted",
        "device",
    };
    static Case made[ARRAY_SIZE(cases)];
    int i, k;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        made[i].queue = cases[i].queue;
        made[i].dir = cases[i].dir ?: g_get_tmp_dir();
        for (k = 0; k < ARRAY_SIZE(conformance); k++) {
            const char *where = "";
            g_autofree char *path = NULL;

            if (cases[i].dir) {
                where = "-tmpfs";
            }
            if ((conformance[k].slots && rig_compresses(made[i].queue)) ||
                (conformance[k].file && made[i].queue == RIG_DEVICE)) {
                continue;
            }
            path = g_strdup_printf("/mm/tier/%s%s/%s", queues[made[i].queue],
                                   where, conformance[k].name);
            g_test_add_data_func(path, &made[i], conformance[k].fn);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_conformance();
    return g_test_run();
}
