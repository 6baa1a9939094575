/*
 * Torture tests: damaging what lies in a tier, and repairing it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What QEMU holds is an O_PATH descriptor, good for nothing but keeping the
 * file alive; root can open it for writing all the same.
 */
#include "qemu/osdep.h"
#include "qemu/lockable.h"
#include "qemu/memalign.h"
#include "rng.h"
#include "tier-peek.h"

typedef struct FlippedBit {
    uint64_t page;              /* of the file */
    unsigned byte;
    uint8_t mask;
} FlippedBit;

struct TierDamage {
    int fd;
    uint8_t *buf;               /* two pages, aligned */
    GArray *bits;               /* FlippedBit */
    GByteArray *damaged;        /* the pages with their flipped bits */
};

static int open_tier_file(FakeQemu *fq)
{
    char path[64];
    int held = -1;
    int i, fd;

    WITH_QEMU_LOCK_GUARD(&fq->lock) {
        for (i = 0; i < fq->nr_holds; i++) {
            if (fq->holds[i].what.kind == MM_HOLD_TIER_FILE) {
                held = fq->holds[i].fd;
            }
        }
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
    fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        verdict_fail(fq->verdict, "cannot open the tier's file: %s",
                     strerror(errno));
    }
    return fd;
}

static uint64_t file_pages(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? st.st_size / STAMP_PAGE_SIZE : 0;
}

static void read_at(int fd, uint64_t page, void *buf)
{
    g_assert(pread(fd, buf, STAMP_PAGE_SIZE, page * STAMP_PAGE_SIZE) ==
             STAMP_PAGE_SIZE);
}

static void write_at(int fd, uint64_t page, const void *buf)
{
    g_assert(pwrite(fd, buf, STAMP_PAGE_SIZE, page * STAMP_PAGE_SIZE) ==
             STAMP_PAGE_SIZE);
}

static void flip(TierDamage *d, uint64_t page, uint64_t *rng)
{
    FlippedBit bit = {
        .page = page,
        .byte = rng_below(rng, STAMP_PAGE_SIZE),
        .mask = 1 << rng_below(rng, 8),
    };

    d->buf[bit.byte] ^= bit.mask;
    write_at(d->fd, page, d->buf);
    g_array_append_val(d->bits, bit);
    g_byte_array_append(d->damaged, d->buf, STAMP_PAGE_SIZE);
}

TierDamage *tier_damage_new(FakeQemu *fq, uint64_t seed)
{
    TierDamage *d = g_new0(TierDamage, 1);
    uint64_t page, nr_pages;

    d->fd = open_tier_file(fq);
    d->buf = qemu_memalign(STAMP_PAGE_SIZE, STAMP_PAGE_SIZE);
    d->bits = g_array_new(false, false, sizeof(FlippedBit));
    d->damaged = g_byte_array_new();
    nr_pages = file_pages(d->fd);
    for (page = 1; page < nr_pages; page++) {
        read_at(d->fd, page, d->buf);
        if (!stamp_is_zero(d->buf)) {
            flip(d, page, &seed);
        }
    }
    if (!d->bits->len) {
        tier_damage_free(d);
        return NULL;
    }
    return d;
}

unsigned tier_damage_swap(FakeQemu *fq)
{
    uint8_t *buf = qemu_memalign(STAMP_PAGE_SIZE, 2 * STAMP_PAGE_SIZE);
    int fd = open_tier_file(fq);
    uint64_t page, nr_pages = file_pages(fd);
    unsigned swapped = 0;

    for (page = 1; page + 1 < nr_pages; page += 2) {
        read_at(fd, page, buf);
        read_at(fd, page + 1, buf + STAMP_PAGE_SIZE);
        if (memcmp(buf, buf + STAMP_PAGE_SIZE, STAMP_PAGE_SIZE)) {
            write_at(fd, page + 1, buf);
            write_at(fd, page, buf + STAMP_PAGE_SIZE);
            swapped += 2;
        }
    }
    close(fd);
    qemu_vfree(buf);
    return swapped;
}

void tier_damage_repair(TierDamage *d)
{
    int i;

    for (i = 0; i < d->bits->len; i++) {
        FlippedBit *bit = &g_array_index(d->bits, FlippedBit, i);

        read_at(d->fd, bit->page, d->buf);
        if (!memcmp(d->buf, d->damaged->data + (size_t)i * STAMP_PAGE_SIZE,
                    STAMP_PAGE_SIZE)) {
            d->buf[bit->byte] ^= bit->mask;
            write_at(d->fd, bit->page, d->buf);
        }
    }
}

void tier_damage_free(TierDamage *d)
{
    if (d) {
        if (d->fd >= 0) {
            close(d->fd);
        }
        qemu_vfree(d->buf);
        g_array_free(d->bits, true);
        g_byte_array_free(d->damaged, true);
        g_free(d);
    }
}
