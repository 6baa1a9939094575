/*
 * Managed memory: counters of mappings for DMA
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An O_DIRECT read into guest memory pins the page.  If the pager evicts the
 * page meanwhile, the data ends up in a page that nobody will ever see.  So
 * QEMU counts what it has mapped for DMA, per chunk of 2 MiB, in memory shared
 * with the pager.  QEMU increments, fences, then uses; the pager zaps, fences,
 * then evicts only if the counter is zero.
 *
 * The counters must be exact: one that stays high keeps a chunk resident for
 * ever, one that drops early loses data.  But the length at unmap is not
 * always that of the mapping: dma-helpers.c cuts the tail off its iovec first,
 * others unmap what they have used.  Therefore every live mapping has a
 * record of what was counted for it, and unmap takes a record S such that
 *
 *   (*) S lies within every record that can be that of the mapping.
 *
 * Why this is safe.  Say that a record *covers* a mapping that lies within it.
 * Claim: live mappings and records can always be paired so that each mapping
 * is covered by its partner.  map() adds a pair.  Let unmap() end mapping M
 * with partner R.  R can be the record of M, so S lies within R.  If S is not
 * R, it was the partner of some mapping N; N lies within S, hence within R:
 * pair N with R.  So as long as a mapping lives, its chunks are counted, and
 * when none lives, no record is left.
 *
 * For unmap(ptr, len), candidates are the records that start at ptr and are not
 * shorter than len, or all that start at ptr if none is long enough (win_dump
 * passes nonsense as length); (*) holds for the smallest of them.  Some callers
 * move the pointer as well (virtio-crypto).  Then all records that contain the
 * range are candidates; if none of them lies within all others, nothing is
 * taken: safe, at the price of the chunk.
 *
 * Records are spread over shards by address; each has a spin lock, held for a
 * few instructions.  I/O threads that work on different requests rarely meet.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/error-report.h"
#include "qemu/host-utils.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

typedef struct DmaRecord {
    uintptr_t addr;
    uint64_t len;               /* bytes */
    QSLIST_ENTRY(DmaRecord) next;
} DmaRecord;

typedef struct DmaShard {
    QemuSpin lock;
    QSLIST_HEAD(, DmaRecord) live;
    QSLIST_HEAD(, DmaRecord) spare;     /* for reuse, freed never */
} QEMU_ALIGNED(64) DmaShard;

#define SHARD_BITS 8

static DmaShard shards[1 << SHARD_BITS];

static DmaShard *shard_of(uintptr_t addr)
{
    /* multiplicative hash; requests differ from the sector bits upwards */
    return &shards[((addr >> 9) * 0x9e3779b97f4a7c15ull) >> (64 - SHARD_BITS)];
}

void managed_dma_init(void)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(shards); i++) {
        qemu_spin_init(&shards[i].lock);
        QSLIST_INIT(&shards[i].live);
        QSLIST_INIT(&shards[i].spare);
    }
}

/* ---- records ---- */

static void record_insert(uintptr_t addr, uint64_t len)
{
    DmaShard *shard = shard_of(addr);
    DmaRecord *record;

    qemu_spin_lock(&shard->lock);
    record = QSLIST_FIRST(&shard->spare);
    if (record) {
        QSLIST_REMOVE_HEAD(&shard->spare, next);
    } else {
        record = g_new(DmaRecord, 1);
    }
    record->addr = addr;
    record->len = len;
    QSLIST_INSERT_HEAD(&shard->live, record, next);
    qemu_spin_unlock(&shard->lock);
}

/* Is @a a better match than @b for an unmap of @len bytes at their address? */
static bool better_match(const DmaRecord *a, const DmaRecord *b, uint64_t len)
{
    if (!b) {
        return true;
    }
    if ((a->len >= len) != (b->len >= len)) {
        return a->len >= len;
    }
    return a->len < b->len;
}

static bool record_take(uintptr_t addr, uint64_t len, DmaRecord *taken)
{
    DmaShard *shard = shard_of(addr);
    DmaRecord *record, *best = NULL;

    qemu_spin_lock(&shard->lock);
    QSLIST_FOREACH(record, &shard->live, next) {
        if (record->addr == addr && better_match(record, best, len)) {
            best = record;
        }
    }
    if (best) {
        *taken = *best;
        QSLIST_REMOVE(&shard->live, best, DmaRecord, next);
        QSLIST_INSERT_HEAD(&shard->spare, best, next);
    }
    qemu_spin_unlock(&shard->lock);
    return best != NULL;
}

static bool record_contains(const DmaRecord *record, uintptr_t addr,
                            uint64_t len)
{
    return addr >= record->addr && addr - record->addr <= record->len &&
           len <= record->len - (addr - record->addr);
}

/* Smallest record that contains a range; len 0 if there is none */
static DmaRecord smallest_containing(uintptr_t addr, uint64_t len)
{
    DmaRecord best = {};
    DmaRecord *record;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(shards); i++) {
        qemu_spin_lock(&shards[i].lock);
        QSLIST_FOREACH(record, &shards[i].live, next) {
            if (record_contains(record, addr, len) &&
                (best.len == 0 || record->len < best.len)) {
                best = *record;
            }
        }
        qemu_spin_unlock(&shards[i].lock);
    }
    return best;
}

/* Do all records that contain a range contain all of @best, too? */
static bool is_certain(const DmaRecord *best, uintptr_t addr, uint64_t len)
{
    const DmaRecord *record;
    bool certain = true;
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(shards); i++) {
        qemu_spin_lock(&shards[i].lock);
        QSLIST_FOREACH(record, &shards[i].live, next) {
            if (record_contains(record, addr, len) &&
                !record_contains(record, best->addr, best->len)) {
                certain = false;
            }
        }
        qemu_spin_unlock(&shards[i].lock);
    }
    return certain;
}

/* The caller has moved the pointer. */
static bool record_take_containing(uintptr_t addr, uint64_t len,
                                   DmaRecord *taken)
{
    DmaRecord best = smallest_containing(addr, len);

    if (best.len == 0 || !is_certain(&best, addr, len) ||
        !record_take(best.addr, best.len, taken)) {
        return false;
    }
    if (taken->len != best.len) {
        /* Somebody else was faster; what we got has not been checked. */
        record_insert(taken->addr, taken->len);
        return false;
    }
    return true;
}

/* ---- counters ---- */

static void count(ManagedRegion *region, uintptr_t addr, uint64_t len, int by)
{
    uint64_t offset = addr - (uintptr_t)region->hva;
    uint64_t last = MIN(offset + len, region->size) - 1;
    unsigned chunk;

    for (chunk = offset / MM_DMA_CHUNK; chunk <= last / MM_DMA_CHUNK;
         chunk++) {
        qatomic_add(&region->dma[chunk], by);
    }
}

void managed_memory_dma_map_slow(void *host, uint64_t len)
{
    ManagedRegion *region;

    RCU_READ_LOCK_GUARD();
    region = len ? managed_region_find(host) : NULL;
    if (!region) {
        return;
    }
    record_insert((uintptr_t)host, len);
    count(region, (uintptr_t)host, len, 1);
    /* The use comes after this; pairs with the pager's fence after a zap. */
    smp_mb();
}

void managed_memory_dma_unmap_slow(void *host, uint64_t len)
{
    ManagedRegion *region;
    DmaRecord record;

    RCU_READ_LOCK_GUARD();
    region = managed_region_find(host);
    if (!region) {
        return;
    }
    if (record_take((uintptr_t)host, len, &record) ||
        record_take_containing((uintptr_t)host, len, &record)) {
        count(region, record.addr, record.len, -1);
    } else {
        trace_managed_memory_dma_unmatched(host, len);
        warn_report_once("managed memory: somebody unmaps memory that was "
                         "not mapped for DMA; up to %d MiB may stay resident",
                         MM_DMA_CHUNK >> 20);
    }
}

uint64_t managed_dma_held(const ManagedRegion *region)
{
    uint64_t held = 0;
    unsigned i;

    for (i = 0; i < region->nr_chunks; i++) {
        if (qatomic_read(&region->dma[i])) {
            held += MIN(MM_DMA_CHUNK,
                        region->size - (uint64_t)i * MM_DMA_CHUNK);
        }
    }
    return held;
}
