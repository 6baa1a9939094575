/*
 * A page that UFFDIO_COPY puts into a range while a punch of that range is
 * still running is removed again by the punch, although the copy reported
 * success.
 *
 * Design rules 4, 7 and 10: whoever punches owns the pages until the punch
 * has returned.  Publishing "swapped" (or "never populated") before the punch
 * is right for a crash, but nobody may fill the page on the strength of it
 * before the punch is over: what the guest then writes would vanish.
 *
 * The kernel makes two passes over a punched range, and only faults through
 * the page table wait for the second one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <unistd.h>
#include <sys/mman.h>

#define PAGES   ((size_t)16384)
#define TRIALS  20

typedef struct Puncher {
    int memfd;
    pthread_t thread;
    atomic_bool done;
} Puncher;

static void *puncher_thread(void *opaque)
{
    Puncher *p = opaque;

    punch(p->memfd, 0, PAGES);
    atomic_store(&p->done, true);
    return NULL;
}

/* Fill every page of the file without mapping it. */
static void populate(int memfd, const uint8_t *content)
{
    for (size_t i = 0; i < PAGES; i += 64) {
        SYS(pwrite(memfd, content, 64 * PAGE_BYTES, i * PAGE_BYTES));
    }
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    uint8_t *ram = map_shared(memfd, PAGES * PAGE_BYTES);
    uint8_t *content = page_alloc(64, 0x11);
    int uffd = uffd_open_missing_minor();
    int during = 0, undone = 0, undone_after = 0;

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    for (int trial = 0; trial < TRIALS; trial++) {
        Puncher p = { .memfd = memfd };
        bool early;

        populate(memfd, content);
        FACT_CHECK(!pthread_create(&p.thread, NULL, puncher_thread, &p),
                   "cannot create a thread");
        while (uffd_copy(uffd, ram, content, 1, 0, NULL) == -EEXIST) {
            continue;
        }
        early = !atomic_load(&p.done);
        pthread_join(p.thread, NULL);
        if (early) {
            during++;
            undone += !page_present(memfd, 0);
        } else {
            undone_after += !page_present(memfd, 0);
        }
    }
    fact_info("%d of %d copies were done during the punch; %d of them undone",
              during, TRIALS, undone);
    FACT_CHECK(!undone_after, "a page filled after a punch vanished");
    if (!during) {
        fact_skip("the two threads never met on this machine");
    }
    FACT_CHECK(undone, "a page filled during a punch stayed: the rule to own "
               "it until the punch returns may be stricter than needed");
    return FACT_HOLDS;
}
