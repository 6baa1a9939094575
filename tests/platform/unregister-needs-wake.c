/*
 * A fault that begins while its memory is unregistered from a userfaultfd may
 * wait for ever: UFFDIO_UNREGISTER wakes who waits before it shuts out those
 * who come.  UFFDIO_WAKE after it releases them.
 *
 * QEMU wakes a range that it has unregistered (detach, unplug), and the pager
 * wakes an address that it cannot fill because nothing is registered there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGES       64
#define ROUNDS      3000
/* Enough of them to know that it was not this program that was late. */
#define STRANDED    5
#define STRANDED_MS 50

typedef struct Reader {
    pthread_t thread;
    const uint8_t *mem;
    atomic_int round;       /* to be read now */
    atomic_int finished;    /* round that has been read */
} Reader;

static void *reader_fn(void *opaque)
{
    Reader *r = opaque;
    int page;

    for (;;) {
        while (atomic_load(&r->round) == atomic_load(&r->finished)) {
            sched_yield();
        }
        for (page = 0; page < PAGES; page++) {
            load_byte(r->mem + page * PAGE_BYTES);
        }
        atomic_store(&r->finished, atomic_load(&r->round));
    }
    return NULL;
}

static bool finished(Reader *r, int round, int timeout_ms)
{
    int64_t end = now_ns() + timeout_ms * 1000000LL;

    while (atomic_load(&r->finished) != round) {
        if (now_ns() > end) {
            return false;
        }
        sched_yield();
    }
    return true;
}

/* Somewhere between nothing and all of the reader's pages. */
static void wait_up_to_us(int us)
{
    int64_t end = now_ns() + rand() % (us * 1000);

    while (now_ns() < end) {
        continue;
    }
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    uint8_t *mem = map_shared(memfd, PAGES * PAGE_BYTES);
    struct uffdio_range range = {
        .start = (uintptr_t)mem, .len = PAGES * PAGE_BYTES,
    };
    int uffd = uffd_open_missing_minor();
    Reader r = { .mem = mem };
    int stranded = 0;
    int round;

    SYS(-pthread_create(&r.thread, NULL, reader_fn, &r));
    for (round = 1; round <= ROUNDS && stranded < STRANDED; round++) {
        punch(memfd, 0, PAGES);
        uffd_register(uffd, mem, PAGES * PAGE_BYTES,
                      UFFDIO_REGISTER_MODE_MISSING |
                      UFFDIO_REGISTER_MODE_MINOR);
        atomic_store(&r.round, round);
        wait_up_to_us(20);
        SYS(ioctl(uffd, UFFDIO_UNREGISTER, &range));
        if (!finished(&r, round, STRANDED_MS)) {
            stranded++;
            uffd_wake(uffd, mem, PAGES);
            FACT_CHECK(finished(&r, round, PATIENCE_MS),
                       "UFFDIO_WAKE does not release a fault that "
                       "UFFDIO_UNREGISTER has left behind");
        }
    }
    fact_info("%d of %d unregistrations left a fault behind, and WAKE "
              "released it", stranded, round - 1);
    return FACT_HOLDS;
}
