/*
 * Managed memory: content to and from where swapped pages are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that migrates takes along what is swapped out.  Neither here nor
 * there is it to get into memory for that, so it travels through the buffer
 * shared with the pager.
 *
 * What the pager does not do, for whatever reason, is left to the caller: it
 * reads or writes the guest's memory as ever, and waits for its faults.
 */
#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "backends/managed-memory-internal.h"

#define PAGE_SIZE_4K 4096

/* One request to the pager */
typedef struct Transfer {
    int slot;                   /* of the ring; -1: none */
    uint32_t pages;             /* of a fetch: bit per page that is wanted */
    uint8_t *host;              /* the first page, as QEMU has it mapped */
    unsigned buffer;            /* its page of the ring's buffer */
    unsigned nr;                /* pages */
} Transfer;

/* Stores that have not been waited for, the oldest first; the caller's */
static Transfer stores[MM_RING_STORES];
static unsigned first_store, nr_stores;

QEMU_BUILD_BUG_ON(MANAGED_MEMORY_STORE_PAGES != MM_RING_CONTENT_MAX);
/* Two are under way at a time. */
#define FETCH_TRANSFERS (MM_RING_FETCHES / 2)
QEMU_BUILD_BUG_ON(MANAGED_MEMORY_FETCH_PAGES !=
                  FETCH_TRANSFERS * MM_RING_CONTENT_MAX);

struct ManagedMemoryFetch {
    unsigned nr;                /* pages */
    unsigned buffer;            /* the first one's page of the ring's buffer */
    bool has_buffer;
    unsigned posted;
    Transfer t[FETCH_TRANSFERS];
};

static uint8_t *buffer_page(unsigned page)
{
    return managed_conn_ring()->buffer[page];
}

/* Which pages of which region are those at @host?  False: of none. */
static bool find_range(const uint8_t *host, bool huge, MmRange *range)
{
    ManagedRegion *region;

    RCU_READ_LOCK_GUARD();
    region = managed_region_find(host);
    if (!region || (!huge && region->page_size != PAGE_SIZE_4K)) {
        return false;
    }
    range->region = region->id;
    range->first_page = (host - region->hva) / PAGE_SIZE_4K;
    return true;
}

static void post(Transfer *t, MmRingKind kind)
{
    MmRingSlot request = {
        .kind = kind, .buffer = t->buffer, .pages = t->pages,
    };

    t->slot = -1;
    if (managed_conn_state() != MANAGED_CONN_CONNECTED ||
        !find_range(t->host, kind == MM_RING_FETCH, &request.range)) {
        return;
    }
    request.range.nr_pages = t->nr;
    t->slot = managed_ring_claim(MANAGED_RING_RESERVED);
    if (t->slot >= 0) {
        managed_ring_post(t->slot, &request);
        managed_conn_kick();
    }
}

/* Returns a bit for each page with which it has been done. */
static uint32_t wait_for(const Transfer *t)
{
    MmRingSlot request;

    if (t->slot < 0) {
        return 0;
    }
    managed_ring_wait(t->slot, managed_ring_deadline(), &request);
    return request.pages;
}

/* ---- fetch ---- */

/* Wanted pages of [@first, @end); false: none is. */
static bool post_fetch(const uint8_t *host, const unsigned long *pages,
                       unsigned first, unsigned end, unsigned buffer,
                       Transfer *t)
{
    unsigned i;

    *t = (Transfer) {
        .host = (uint8_t *)host + (size_t)first * PAGE_SIZE_4K,
        .buffer = buffer + first, .nr = end - first,
    };
    for (i = 0; i < t->nr; i++) {
        t->pages |= (uint32_t)test_bit(first + i, pages) << i;
    }
    if (!t->pages) {
        return false;
    }
    post(t, MM_RING_FETCH);
    return true;
}

/* What has been had of one request, from page @first on of all */
static void take_fetched(const Transfer *t, unsigned first,
                         unsigned long *pages, uint8_t *content)
{
    uint32_t done = wait_for(t);
    unsigned i;

    for (i = 0; i < t->nr; i++) {
        if (done & t->pages & (1u << i)) {
            memcpy(content + (size_t)(first + i) * PAGE_SIZE_4K,
                   buffer_page(t->buffer + i), PAGE_SIZE_4K);
        } else {
            clear_bit(first + i, pages);
        }
    }
}

ManagedMemoryFetch *managed_memory_fetch_begin(const void *host, unsigned nr,
                                               const unsigned long *pages)
{
    ManagedMemoryFetch *fetch = g_new0(ManagedMemoryFetch, 1);
    unsigned i;

    assert(nr <= MANAGED_MEMORY_FETCH_PAGES);
    fetch->nr = nr;
    fetch->has_buffer = managed_ring_buffer_get(nr, &fetch->buffer);
    for (i = 0; fetch->has_buffer && i < nr; i += MM_RING_CONTENT_MAX) {
        fetch->posted += post_fetch(host, pages, i,
                                    MIN(i + MM_RING_CONTENT_MAX, nr),
                                    fetch->buffer, &fetch->t[fetch->posted]);
    }
    return fetch;
}

void managed_memory_fetch_end(ManagedMemoryFetch *fetch, unsigned long *pages,
                              uint8_t *content)
{
    unsigned i;

    for (i = 0; i < fetch->posted; i++) {
        take_fetched(&fetch->t[i], fetch->t[i].buffer - fetch->buffer, pages,
                     content);
    }
    if (fetch->has_buffer) {
        managed_ring_buffer_put(fetch->buffer, fetch->nr);
    } else {
        bitmap_zero(pages, fetch->nr);
    }
    g_free(fetch);
}

/* ---- store ---- */

static void end_oldest(void)
{
    const Transfer *t = &stores[first_store];
    uint32_t done = wait_for(t);
    unsigned i;

    for (i = 0; i < t->nr; i++) {
        if (!(done & (1u << i))) {
            memcpy(t->host + (size_t)i * PAGE_SIZE_4K,
                   buffer_page(t->buffer + i), PAGE_SIZE_4K);
        }
    }
    managed_ring_buffer_put(t->buffer, t->nr);
    first_store = (first_store + 1) % MM_RING_STORES;
    nr_stores--;
}

bool managed_memory_store(void *host, unsigned nr, const uint8_t *content)
{
    Transfer t = { .host = host, .nr = nr };
    MmRange range;

    assert(nr <= MANAGED_MEMORY_STORE_PAGES);
    if (!managed_memory_used() || !find_range(host, false, &range)) {
        return false;
    }
    if (nr_stores == MM_RING_STORES) {
        end_oldest();
    }
    if (!managed_ring_buffer_get(nr, &t.buffer)) {
        return false;
    }
    memcpy(buffer_page(t.buffer), content, (size_t)nr * PAGE_SIZE_4K);
    post(&t, MM_RING_STORE);
    stores[(first_store + nr_stores) % MM_RING_STORES] = t;
    nr_stores++;
    return true;
}

void managed_memory_store_flush(void)
{
    while (nr_stores) {
        end_oldest();
    }
}
