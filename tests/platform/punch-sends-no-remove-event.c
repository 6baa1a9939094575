/*
 * Punching a memfd sends no REMOVE event; madvise(MADV_DONTNEED) and
 * madvise(MADV_REMOVE) on the mapping do when the userfaultfd asked for
 * UFFD_FEATURE_EVENT_REMOVE, and then the caller sleeps until somebody reads
 * the event.  Without the feature nobody waits for anybody.
 *
 * Design rule 10: the fork does not ask for the feature.  A dead pager would
 * freeze QEMU's main loop in its next discard, and a zap would wait for the
 * pager.  Discards are reported over the protocol instead.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <unistd.h>
#include <sys/mman.h>

#define PAGES   16

typedef enum Discard {
    DISCARD_PUNCH,
    DISCARD_DONTNEED,
    DISCARD_REMOVE,
} Discard;

static const char *const discard_name[] = {
    [DISCARD_PUNCH] = "punching the memfd",
    [DISCARD_DONTNEED] = "MADV_DONTNEED",
    [DISCARD_REMOVE] = "MADV_REMOVE",
};

typedef struct Discarder {
    Discard how;
    int memfd;
    uint8_t *ram;
    pthread_t thread;
    atomic_bool done;
} Discarder;

static void *discarder_thread(void *opaque)
{
    Discarder *d = opaque;

    switch (d->how) {
    case DISCARD_PUNCH:
        punch(d->memfd, 1, 1);
        break;
    case DISCARD_DONTNEED:
        SYS(madvise(d->ram + PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED));
        break;
    case DISCARD_REMOVE:
        SYS(madvise(d->ram + PAGE_BYTES, PAGE_BYTES, MADV_REMOVE));
        break;
    }
    atomic_store(&d->done, true);
    return NULL;
}

static void expect(Discard how, uint64_t features, bool event)
{
    Discarder d = { .how = how };
    int uffd = uffd_open(features | UFFD_FEATURE_MISSING_SHMEM);
    struct uffd_msg msg;

    d.memfd = memfd_new(PAGES * PAGE_BYTES);
    d.ram = map_shared(d.memfd, PAGES * PAGE_BYTES);
    memset(d.ram, 1, PAGES * PAGE_BYTES);
    uffd_register(uffd, d.ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING);
    FACT_CHECK(!pthread_create(&d.thread, NULL, discarder_thread, &d),
               "cannot create a thread");
    if (event) {
        sleep_ms(BLOCKED_MS);
        FACT_CHECK(!atomic_load(&d.done), "%s did not wait for its event to "
                   "be read", discard_name[how]);
        FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS) &&
                   msg.event == UFFD_EVENT_REMOVE, "%s sent no REMOVE event",
                   discard_name[how]);
        pthread_join(d.thread, NULL);
    } else {
        for (int ms = 0; ms < PATIENCE_MS && !atomic_load(&d.done); ms++) {
            sleep_ms(1);
        }
        FACT_CHECK(atomic_load(&d.done), "%s waits for the pager",
                   discard_name[how]);
        pthread_join(d.thread, NULL);
        FACT_CHECK(!uffd_next(uffd, &msg, 50), "%s sent event 0x%x",
                   discard_name[how], msg.event);
    }
    close(uffd);
}

int main(void)
{
    expect(DISCARD_PUNCH, UFFD_FEATURE_EVENT_REMOVE, false);
    expect(DISCARD_DONTNEED, UFFD_FEATURE_EVENT_REMOVE, true);
    expect(DISCARD_REMOVE, UFFD_FEATURE_EVENT_REMOVE, true);
    expect(DISCARD_DONTNEED, 0, false);
    expect(DISCARD_REMOVE, 0, false);
    return FACT_HOLDS;
}
