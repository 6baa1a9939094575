/*
 * Unit tests: a tier on a file, with a queue and a client
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager has its tiers and queues until it ends, so there is no way to free
 * them; they are kept in a list, for the leak checker to see.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/loop.h>
#include "qapi/error.h"
#include "managed-memory/msg.h"
#include "memory-manager/pager/vm.h"
#include "tier-inject.h"
#include "tier-rig.h"

#define SLOT_BYTES (MM_TIER_IO_PAGES * MM_PAGE_SIZE)
#define ARENA_BYTES (RIG_DEPTH * SLOT_BYTES)
/* A transfer that takes longer does not come back. */
#define HANGS_MS 20000

const MmIdentity rig_identity = {
    .version = MM_LAYOUT_VERSION,
    .uuid = "tier's own uuid",
    .cookie = "tier's cookie..",
};

/* The halves differ, or it would be no key for XTS. */
const uint8_t rig_key[MM_KEY_LEN] = "tier's own key, of which each half has "
                                    "256 bits and is new";

static GPtrArray *kept;

void *rig_keep(void *what)
{
    if (!kept) {
        kept = g_ptr_array_new();
    }
    g_ptr_array_add(kept, what);
    return what;
}

int rig_open_file(const char *dir)
{
    int flags = O_TMPFILE | O_RDWR | O_CLOEXEC;
    int fd = open(dir, flags | O_DIRECT, 0600);

    if (fd < 0 && errno == EINVAL) {
        fd = open(dir, flags, 0600);
    }
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

int rig_open_device(const char *dir)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int file = rig_open_file(dir);
    struct loop_config config = {
        .fd = file,
        .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
    };
    int number, fd = -1, tries = 10;

    g_assert_cmpint(ftruncate(file, RIG_DEVICE_SIZE), ==, 0);
    /* others may be faster to take one that is free */
    while (fd < 0 && tries-- &&
           (number = ioctl(control, LOOP_CTL_GET_FREE)) >= 0) {
        g_autofree char *path = g_strdup_printf("/dev/loop%d", number);

        fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config)) {
            close(fd);
            fd = -1;
        }
    }
    close(file);
    if (control >= 0) {
        close(control);
    }
    return fd;
}

bool rig_compresses(RigQueue kind)
{
    return kind == RIG_LZ4 || kind == RIG_ZSTD;
}

static MmTierQueue *new_queue(TierRig *rig, RigQueue kind)
{
    Error *err = NULL;
    MmTierQueue *queue;

    switch (kind) {
    case RIG_URING:
        queue = mm_queue_uring_new(rig->tier, rig->fd, rig->arena,
                                   ARENA_BYTES, RIG_DEPTH, rig->wake_fd,
                                   &err);
        break;
    case RIG_THREADS:
        queue = mm_queue_threads_new(rig->tier, rig->fd, RIG_DEPTH,
                                     rig->wake_fd);
        break;
    default:
        queue = rig->tier->ops->queue_new(rig->tier, rig->arena, ARENA_BYTES,
                                          RIG_DEPTH, rig->wake_fd, &err);
        break;
    }
    if (!queue) {
        g_test_skip(error_get_pretty(err));
        error_free(err);
    }
    return queue;
}

static TierRig *rig_on(TierRig *rig, RigQueue kind, uint64_t size,
                       bool overcommit, bool is_new)
{
    const MmMsgStartTier start = {
        .overcommit = overcommit, .size = size, .name = "rig",
        .kind = kind == RIG_DEVICE ? MM_TIER_KIND_DEVICE : MM_TIER_KIND_FILE,
        .algorithm = kind == RIG_ZSTD ? MM_ALGORITHM_ZSTD : MM_ALGORITHM_LZ4,
    };
    int i;

    rig->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rig->arena = mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    g_assert_true(rig->arena != MAP_FAILED);
    if (rig_compresses(kind)) {
        if (is_new) {
            rig->fd = mm_seal_memfd("rig", mm_tier_compressed_fd_size());
        }
        rig->inner = mm_tier_compressed_open(rig->fd, &start, &rig_identity,
                                             is_new, &error_abort);
    } else {
        rig->inner = mm_tier_file_open(rig->fd, &start, &rig_identity,
                                       is_new, &error_abort);
    }
    rig_keep(rig->inner);
    mm_cipher_init(&error_abort);
    rig->inner->key = kind == RIG_ENCRYPTED ? rig_key : NULL;
    rig->tier = kind == RIG_INJECT ? rig_keep(tier_inject_new(rig->inner))
                                   : rig->inner;
    for (i = 0; i < RIG_DEPTH; i++) {
        rig->slot[i].io.buf = rig->arena + i * SLOT_BYTES;
        rig->slot[i].rig = rig;
    }
    rig->queue = new_queue(rig, kind);
    if (!rig->queue) {
        rig_free(rig);
        return NULL;
    }
    rig_keep(rig->queue);
    if (rig->queue->ops->start) {
        rig->queue->ops->start(rig->queue);
    }
    return rig;
}

TierRig *rig_new(const char *dir, RigQueue kind, uint64_t size,
                 bool overcommit)
{
    TierRig *rig = g_new0(TierRig, 1);

    rig->dir = dir;
    rig->fd = rig_compresses(kind) ? -1
              : kind == RIG_DEVICE ? rig_open_device(dir)
                                   : rig_open_file(dir);
    if (kind == RIG_DEVICE && rig->fd < 0) {
        g_test_skip("no loop device can be made here");
        g_free(rig);
        return NULL;
    }
    return rig_on(rig, kind, size, overcommit, true);
}

TierRig *rig_reopen_sized(const TierRig *former, RigQueue kind, uint64_t size)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", former->fd);
    TierRig *rig = g_new0(TierRig, 1);

    rig->dir = former->dir;
    rig->fd = open(path, O_CLOEXEC | (fcntl(former->fd, F_GETFL) &
                                      (O_ACCMODE | O_DIRECT)));
    g_assert_cmpint(rig->fd, >=, 0);
    return rig_on(rig, kind, size, true, false);
}

TierRig *rig_reopen(const TierRig *former, RigQueue kind)
{
    return rig_reopen_sized(former, kind, 0);
}

void rig_free(TierRig *rig)
{
    g_assert_cmpuint(rig->in_flight, ==, 0);
    close(rig->fd);
    /* threads that wait for work and the ring still have the others */
    rig_keep(rig);
}

static void io_done(MmTierIO *io)
{
    RigIO *slot = io->opaque;
    TierRig *rig = slot->rig;
    unsigned i;

    /* once, and in the queue that it was given to */
    g_assert_true(slot->busy);
    g_assert_true(io == &slot->io);
    g_assert_true(io->queue == rig->queue);
    slot->busy = false;
    rig->in_flight--;
    slot->order = ++rig->completed;
    rig->failed += io->ret < 0;
    g_assert_cmpint(io->ret, <=, 0);
    for (i = 0; slot->verify && io->ret == 0 && i < io->nr_pages; i++) {
        g_assert_true(rig_is(io->buf + i * MM_PAGE_SIZE, slot->number[i]));
    }
    slot->verify = false;
}

void rig_reap(TierRig *rig, unsigned nr)
{
    struct pollfd pfd = { .fd = rig->wake_fd, .events = POLLIN };
    unsigned reaped = 0;

    while (reaped < nr) {
        unsigned before = rig->completed;
        unsigned now;

        if (!rig->tier->ops->immediate) {
            int ms = mm_queues_wait_ms(&rig->queue, 1, HANGS_MS);

            g_assert_true(poll(&pfd, 1, ms) == 1 || ms < HANGS_MS);
            mm_unwake(rig->wake_fd);
        }
        now = mm_queue_reap(rig->queue, io_done);
        g_assert_cmpuint(now, ==, rig->completed - before);
        reaped += now;
    }
}

void rig_drain(TierRig *rig)
{
    while (rig->in_flight) {
        rig_reap(rig, 1);
    }
}

RigIO *rig_slot(TierRig *rig)
{
    for (;;) {
        int i;

        for (i = 0; i < RIG_DEPTH; i++) {
            if (!rig->slot[i].busy) {
                return &rig->slot[i];
            }
        }
        rig_reap(rig, 1);
    }
}

void rig_submit(RigIO *slot, bool store, uint64_t place, unsigned nr)
{
    TierRig *rig = slot->rig;

    g_assert_false(slot->busy);
    slot->busy = true;
    slot->io.store = store;
    slot->io.place = place;
    slot->io.nr_pages = nr;
    slot->io.opaque = slot;
    /* what no queue would leave there */
    slot->io.ret = 12345;
    rig->in_flight++;
    mm_queue_submit(rig->queue, &slot->io);
    mm_queue_flush(rig->queue);
}

int rig_transfer(TierRig *rig, bool store, uint64_t place, unsigned nr)
{
    RigIO *slot = &rig->slot[0];

    rig_drain(rig);
    rig_submit(slot, store, place, nr);
    rig_drain(rig);
    return slot->io.ret;
}

unsigned rig_alloc(TierRig *rig, unsigned nr, uint64_t *place)
{
    MmTierIO io = {
        .store = true, .buf = rig->arena,
        .nr_pages = MIN(nr, rig->tier->ops->max_pages),
    };
    int ret = rig->queue->ops->alloc(rig->queue, &io);

    *place = io.place;
    return ret < 0 ? 0 : io.nr_pages;
}

uint64_t rig_pages(const TierRig *rig)
{
    MmTierUsage usage;

    rig->tier->ops->usage(rig->tier, &usage);
    return usage.pages;
}

uint64_t rig_size(const TierRig *rig)
{
    MmTierUsage usage;

    rig->tier->ops->usage(rig->tier, &usage);
    return usage.size;
}

void rig_fill(uint8_t *page, uint64_t number)
{
    uint64_t *word = (uint64_t *)page;
    unsigned i;

    /* a quarter, four times: compresses as memory does */
    for (i = 0; i < MM_PAGE_SIZE / sizeof(*word); i++) {
        word[i] = (number + 1) * 0x9e3779b97f4a7c15 +
                  i % 128 * 0x100000001b3;
    }
}

bool rig_is(const uint8_t *page, uint64_t number)
{
    uint64_t want[MM_PAGE_SIZE / sizeof(uint64_t)];

    rig_fill((uint8_t *)want, number);
    return !memcmp(page, want, MM_PAGE_SIZE);
}
