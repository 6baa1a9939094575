/*
 * Zap, copy by pread, publish, punch, WAKE: done against threads that write
 * all the time, this loses no update, provided that UFFDIO_CONTINUE is only
 * done by somebody who owns the page.
 *
 * Design rule 4: eviction without write-protection.  Nobody can write
 * between the copy and the punch, since only the pager can map the page
 * again.  The second half breaks exactly that: it maps a page after a mere
 * look at its state, so that a page already published gets mapped and
 * written, and shows that the writers notice.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "mini-pager.h"

#include <stdlib.h>

#define PAGES           512
#define WRITERS         2
#define WITH_RULE_MS    6000
#define MUTATION_MS     15000
#define EVICTIONS_MIN   1000

typedef struct Writer {
    MiniPager *pager;
    pthread_t thread;
    unsigned int seed;
    size_t offset;              /* of this writer's word within each page */
    uint64_t shadow[PAGES];     /* what this writer wrote last */
} Writer;

static atomic_bool writers_stop, loss_seen;

static _Atomic uint64_t *writer_word(Writer *w, size_t page)
{
    return (_Atomic uint64_t *)(w->pager->ram + page * PAGE_BYTES + w->offset);
}

static bool writer_check(Writer *w, size_t page)
{
    uint64_t have = atomic_load(writer_word(w, page));

    if (have == w->shadow[page]) {
        return true;
    }
    fact_info("page %zu holds version %llu of %llu", page,
              (unsigned long long)have, (unsigned long long)w->shadow[page]);
    atomic_store(&loss_seen, true);
    return false;
}

static void *writer_thread(void *opaque)
{
    Writer *w = opaque;

    while (!atomic_load(&writers_stop) && !atomic_load(&loss_seen)) {
        size_t page = rand_r(&w->seed) % PAGES;

        if (writer_check(w, page)) {
            atomic_store(writer_word(w, page), ++w->shadow[page]);
        }
    }
    return NULL;
}

static void writers_start(Writer *writers, MiniPager *p)
{
    atomic_store(&writers_stop, false);
    atomic_store(&loss_seen, false);
    for (int i = 0; i < WRITERS; i++) {
        writers[i].pager = p;
        writers[i].seed = i + 7;
        writers[i].offset = i * 2048;
        FACT_CHECK(!pthread_create(&writers[i].thread, NULL, writer_thread,
                                   &writers[i]), "cannot create a thread");
    }
}

static void writers_join(Writer *writers)
{
    atomic_store(&writers_stop, true);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
    }
    for (size_t k = 0; k < WRITERS * PAGES && !loss_seen; k++) {
        writer_check(&writers[k / PAGES], k % PAGES);
    }
}

/* Evict at random under the writers; was an update lost within @ms? */
static bool torture(MiniPager *p, int ms)
{
    Writer *writers = calloc(WRITERS, sizeof(*writers));
    int64_t end = now_ns() + ms * (int64_t)1000000;
    unsigned int seed = 1;

    FACT_CHECK(writers, "out of memory");
    mini_pager_start(p, PAGES);
    writers_start(writers, p);
    while (now_ns() < end && !atomic_load(&loss_seen)) {
        mini_pager_evict(p, rand_r(&seed) % PAGES);
    }
    writers_join(writers);
    mini_pager_stop(p);
    free(writers);
    fact_info("%lu evicted, %lu touched in time, %lu filled, %lu mapped, "
              "%lu faults with a stale flag", p->evicted, p->touched_again,
              p->filled, p->mapped, p->stale_flags);
    return loss_seen;
}

int main(void)
{
    static MiniPager with_rule;
    static MiniPager mutation = { .map_without_owning = true };

    FACT_CHECK(!torture(&with_rule, WITH_RULE_MS), "an update was lost");
    FACT_CHECK(with_rule.evicted >= EVICTIONS_MIN && with_rule.touched_again,
               "too few evictions to say anything");
    FACT_CHECK(torture(&mutation, MUTATION_MS),
               "mapping pages without owning them lost nothing: either the "
               "rule is not needed, or this test does not see losses");
    return FACT_HOLDS;
}
