/*
 * Managed memory: what the rest of QEMU calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Guest RAM whose page faults an external process serves: see
 * docs/devel/managed-memory.rst.  This header holds the hooks, which upstream
 * files call, and the entry points of the backends.  Every hook costs one
 * predictable branch as long as no managed memory exists.
 */
#ifndef SYSEMU_MANAGED_MEMORY_H
#define SYSEMU_MANAGED_MEMORY_H

#include "qemu/atomic.h"

typedef struct HostMemoryBackend HostMemoryBackend;

#define TYPE_MEMORY_BACKEND_MANAGED "memory-backend-managed"
#define TYPE_MANAGED_MEMORY "managed-memory"

/* True as long as the VM has managed memory */
extern bool managed_memory_in_use;

static inline bool managed_memory_used(void)
{
    return unlikely(qatomic_read(&managed_memory_in_use));
}

/**
 * managed_memory_alloc_memfd: hook of memory-backend-memfd
 *
 * @hugetlb: the backend asks for huge pages
 * @hugetlbsize: of this size in bytes, 0: of whatever size
 *
 * Returns false if the backend is to allocate its memory as ever, that is
 * unless there is an object of type managed-memory and the backend is shared.
 * Returns true if it has been served, or @errp has been set.  Under the BQL.
 */
bool managed_memory_alloc_memfd(HostMemoryBackend *backend, bool hugetlb,
                                uint64_t hugetlbsize, Error **errp);

/**
 * managed_memory_discard: hook of ram_block_discard_range()
 *
 * @host: page-aligned address in guest RAM
 * @length: in bytes, page-aligned, within one RAMBlock
 *
 * Has the pager drop the pages, so that they read as zeros, and waits for it;
 * between managed_memory_discard_begin() and managed_memory_discard_end()
 * without waiting.
 *
 * Returns false if the range is not managed memory and the caller must
 * discard it.  Any thread.
 */
bool managed_memory_discard_slow(void *host, size_t length);

/**
 * managed_memory_remap: hook of qemu_ram_remap()
 *
 * @host: page-aligned address in guest RAM
 * @length: in bytes, page-aligned, within one RAMBlock
 *
 * A page that the hardware has lost, or that was given up, is to be fresh
 * after a reset.  A new mapping would not be the pager's, so the poison is
 * dropped and the page discarded.  Returns false if the range is not managed
 * memory.  Any thread.
 */
bool managed_memory_remap_slow(void *host, size_t length);

static inline bool managed_memory_remap(void *host, size_t length)
{
    return managed_memory_used() && managed_memory_remap_slow(host, length);
}

static inline bool managed_memory_discard(void *host, size_t length)
{
    return managed_memory_used() && managed_memory_discard_slow(host, length);
}

/**
 * managed_memory_discard_begin: start a batch of voluntary discards
 *
 * Discards of this thread are posted without waiting until
 * managed_memory_discard_end(), and are skipped rather than waited for when
 * no pager answers.  The guest must not have been told of them before the
 * end.  Not nested.
 */
void managed_memory_discard_begin(void);

/** managed_memory_discard_end: wait for this thread's batch */
void managed_memory_discard_end(void);

/**
 * managed_memory_balloon: hook of balloon_inflate_page(), _deflate_page()
 *
 * @host: page of 4 KiB, aligned, in guest RAM
 * @inflate: whether it goes into the balloon, or out of it
 *
 * Returns true if it is part of a huge page of managed memory, which is
 * discarded as soon as all of it is in the balloon.  Under the BQL.
 */
bool managed_memory_balloon_slow(void *host, bool inflate);

static inline bool managed_memory_balloon(void *host, bool inflate)
{
    return managed_memory_used() && managed_memory_balloon_slow(host, inflate);
}

/**
 * managed_memory_balloon_reset: hook of virtio_balloon_device_reset()
 *
 * Nothing is in the balloon any more.  Under the BQL.
 */
void managed_memory_balloon_reset_slow(void);

static inline void managed_memory_balloon_reset(void)
{
    if (managed_memory_used()) {
        managed_memory_balloon_reset_slow();
    }
}

/**
 * managed_memory_dma_map: hook of address_space_map()
 *
 * @host: start of the mapping, or NULL
 * @len: in bytes
 *
 * Keeps the pager from evicting the pages until managed_memory_dma_unmap().
 * The caller may use them for DMA when this has returned.  Any thread.
 */
void managed_memory_dma_map_slow(void *host, uint64_t len);

static inline void managed_memory_dma_map(void *host, uint64_t len)
{
    if (managed_memory_used()) {
        managed_memory_dma_map_slow(host, len);
    }
}

/**
 * managed_memory_dma_unmap: hook of address_space_unmap()
 *
 * @host: as it was mapped
 * @len: as it was mapped, or less: callers shorten what they map
 */
void managed_memory_dma_unmap_slow(void *host, uint64_t len);

static inline void managed_memory_dma_unmap(void *host, uint64_t len)
{
    if (managed_memory_used()) {
        managed_memory_dma_unmap_slow(host, len);
    }
}

/**
 * managed_memory_look: where is the content of pages?
 *
 * @host: page-aligned address in guest RAM
 * @nr: pages of 4 KiB, at most MM_RING_LOOK_MAX, within one RAMBlock; 0 if
 *      it only matters whether they are managed memory
 * @answer: @nr bytes, filled in: MmLook
 *
 * Asks the pager, and waits for a bounded time; what it does not answer has
 * content.  Returns false if this is not managed memory.  Any thread but those
 * that page faults depend on.
 */
bool managed_memory_look_slow(const void *host, unsigned nr, uint8_t *answer);

static inline bool managed_memory_look(const void *host, unsigned nr,
                                       uint8_t *answer)
{
    return managed_memory_used() &&
           managed_memory_look_slow(host, nr, answer);
}

#define MANAGED_MEMORY_FETCH_PAGES 256
#define MANAGED_MEMORY_STORE_PAGES 32

typedef struct ManagedMemoryFetch ManagedMemoryFetch;

/**
 * managed_memory_fetch_begin: ask for content of pages that are swapped out
 *
 * @host: page-aligned address in managed memory
 * @nr: pages of 4 KiB, at most MANAGED_MEMORY_FETCH_PAGES, in one RAMBlock
 * @pages: bitmap of @nr: those that are wanted
 *
 * They stay swapped out.  Two may be under way at a time.  Any thread but those
 * that page faults depend on.  managed_memory_fetch_end() frees what is
 * returned.
 */
ManagedMemoryFetch *managed_memory_fetch_begin(const void *host, unsigned nr,
                                               const unsigned long *pages);

/**
 * managed_memory_fetch_end: get it
 *
 * @pages: bitmap as above; out: of those that were had
 * @content: as many pages as above, filled in for those that were had
 *
 * Of pages that are not swapped out, and of what the pager does not answer
 * within a bounded time, nothing is had.  What is had is the page's content at
 * some moment since the beginning.
 */
void managed_memory_fetch_end(ManagedMemoryFetch *fetch, unsigned long *pages,
                              uint8_t *content);

/**
 * managed_memory_store: give pages content without having it in memory
 *
 * @host: page-aligned address in guest RAM
 * @nr: pages of 4 KiB, at most MANAGED_MEMORY_STORE_PAGES, in one RAMBlock
 * @content: @nr pages, copied
 *
 * It has taken effect after managed_memory_store_flush().  Until then nobody
 * may use the pages, which may read as anything.  Pages that are in memory get
 * their content there.
 *
 * Returns false if that cannot be and the caller must copy: this is not managed
 * memory, say, or its pages are huge.  Any thread but those that page faults
 * depend on, one at a time.
 */
bool managed_memory_store(void *host, unsigned nr, const uint8_t *content);

/** managed_memory_store_flush: wait for all of it; may wait for page faults. */
void managed_memory_store_flush(void);

/**
 * managed_memory_allows_vhost_user: hook of net_init_vhost_user()
 *
 * Returns false and sets @errp if there is managed memory.  Under the BQL.
 */
bool managed_memory_allows_vhost_user(Error **errp);

/**
 * managed_memory_allows_device: hook of device_set_realized()
 *
 * @dev: about to be realized, all of its properties set
 *
 * Returns false and sets @errp if the device cannot work with managed memory.
 * Under the BQL.
 */
bool managed_memory_allows_device(Object *dev, Error **errp);

/**
 * managed_memory_allows_migration: hook of migrate_caps_check()
 *
 * @caps: array of bool indexed by MigrationCapability
 *
 * Returns false and sets @errp if a capability cannot work with managed
 * memory.  Under the BQL.
 */
bool managed_memory_allows_migration(const bool *caps, Error **errp);

/**
 * managed_memory_check_confined: hook of os_setup_post()
 *
 * QEMU has its final root and user now. Ends QEMU with a message if the memory
 * manager is out of its reach: the first pager to be lost would otherwise be
 * the last. Under the BQL.
 */
void managed_memory_check_confined(void);

/**
 * managed_memory_report_pinning: hook of ram_block_discard_disable()
 *
 * Somebody who pins guest memory has just been turned away with -EBUSY, which
 * he will report without a reason: gives it if it is managed memory.
 */
void managed_memory_report_pinning(void);

#endif
