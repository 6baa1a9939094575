/*
 * Managed memory: disk reads into memory that is swapped out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest that frees memory and reads a file into it does not want back what
 * was there.  The host kernel does not know that: as it copies what has been
 * read, it faults on page after page, and the pager fetches each one's old
 * content for nothing ("false reads").  So what goes to pages that are swapped
 * out is read into a buffer shared with the pager, which puts it in their place
 * without looking at what they had.
 *
 * The old content stays until the new one is complete: a read that fails leaves
 * swapped pages as they were.  What the pager has not taken, for whatever
 * reason, is copied by the kernel, which faults as it would have done before.
 *
 * Which pages are swapped out is read from the page map without a lock.  It may
 * have changed by the time that the read ends, to no harm: the pager replaces
 * only what is out of memory then.  While the request lasts its memory is
 * mapped for DMA, so nothing else of it is evicted.
 *
 * The second half waits for the pager, so it runs in the thread pool: the main
 * loop and I/O threads never wait for a page that a disk read fills.
 */
#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/thread.h"
#include "block/block_int.h"
#include "block/managed-memory.h"
#include "block/thread-pool.h"
#include "sysemu/replay.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

/* Pages of one read that go through the buffer; of a larger one, the first */
#define READ_MAX_PAGES 256

/* A piece of a read's memory */
typedef struct Segment {
    uint8_t *host;
    size_t len;                 /* bytes */
    MmRange range;              /* pages that are not in memory; 0: others */
    unsigned buffer;            /* of the former: the first one's page */
    int slot;                   /* of the request for them, or -1 */
    uint32_t overwritten;       /* what has come of that: bit per page */
} Segment;

typedef struct ManagedRead {
    GArray *segments;           /* of Segment, in order */
    unsigned nr_pages;          /* that are not in memory */
    unsigned buffer;            /* pages of the ring's buffer, as many */
    QEMUIOVector qiov;
} ManagedRead;

/* ---- what is not in memory ---- */

static MmPageState page_state(const ManagedRegion *region, uint64_t page)
{
    return mm_entry_state(qatomic_read(&region->map[page]));
}

static bool is_absent(const ManagedRegion *region, uint64_t page)
{
    MmPageState state = page_state(region, page);

    return state == MM_PAGE_SWAPPED || state == MM_PAGE_NEVER;
}

/*
 * The region and whole pages of [@host, @host + @len); NULL if there are none.
 * Pages that come and go in larger units are left to the kernel.
 */
static const ManagedRegion *whole_pages(const uint8_t *host, size_t len,
                                        uint64_t *first, uint64_t *end)
{
    const ManagedRegion *region = managed_region_find(host);
    size_t size = qemu_real_host_page_size();
    uint64_t offset;

    if (!region || region->page_size != size) {
        return NULL;
    }
    offset = host - region->hva;
    *first = DIV_ROUND_UP(offset, size);
    *end = MIN(offset + len, region->size) / size;
    return *first < *end ? region : NULL;
}

/* In an RCU critical section. */
static bool any_swapped(const uint8_t *host, size_t len)
{
    uint64_t page, end;
    const ManagedRegion *region = whole_pages(host, len, &page, &end);

    for (; region && page < end; page++) {
        if (page_state(region, page) == MM_PAGE_SWAPPED) {
            return true;
        }
    }
    return false;
}

/* Calls @fn for the parts of [offset, offset + bytes) until it returns true. */
static bool for_each_part(const QEMUIOVector *qiov, size_t offset, size_t bytes,
                          bool (*fn)(void *opaque, uint8_t *host, size_t len),
                          void *opaque)
{
    int i;

    for (i = 0; i < qiov->niov && bytes; i++) {
        const struct iovec *iov = &qiov->iov[i];
        size_t skip = MIN(offset, iov->iov_len);
        size_t len = MIN(iov->iov_len - skip, bytes);

        if (len && fn(opaque, (uint8_t *)iov->iov_base + skip, len)) {
            return true;
        }
        offset -= skip;
        bytes -= len;
    }
    return false;
}

static bool part_swapped(void *opaque, uint8_t *host, size_t len)
{
    return any_swapped(host, len);
}

/* ---- segments ---- */

static void add_memory(ManagedRead *r, uint8_t *host, size_t len)
{
    Segment segment = { .host = host, .len = len };

    if (len) {
        g_array_append_val(r->segments, segment);
    }
}

static void add_absent(ManagedRead *r, const ManagedRegion *region,
                       uint64_t page, uint32_t nr)
{
    size_t size = qemu_real_host_page_size();
    Segment segment = {
        .host = region->hva + page * size, .len = nr * size,
        .range = {
            .region = region->id, .first_page = page, .nr_pages = nr,
        },
        .buffer = r->nr_pages, .slot = -1,
    };

    r->nr_pages += nr;
    g_array_append_val(r->segments, segment);
}

/* End of a run of pages that are equally there, or not. */
static uint64_t run_end(const ManagedRead *r, const ManagedRegion *region,
                        uint64_t page, uint64_t end, bool absent)
{
    uint64_t next = page;

    if (absent) {
        end = MIN(end, page + MIN(MM_RING_CONTENT_MAX,
                                  READ_MAX_PAGES - r->nr_pages));
    }
    while (next < end && is_absent(region, next) == absent) {
        next++;
    }
    return next;
}

/* Splits a part of the read's memory.  In an RCU critical section. */
static bool add_part(void *opaque, uint8_t *host, size_t len)
{
    size_t size = qemu_real_host_page_size();
    uint8_t *last = host + len;
    ManagedRead *r = opaque;
    uint64_t page, next, end;
    const ManagedRegion *region = whole_pages(host, len, &page, &end);

    for (; region && page < end && r->nr_pages < READ_MAX_PAGES; page = next) {
        bool absent = is_absent(region, page);

        next = run_end(r, region, page, end, absent);
        if (absent && next > page) {
            add_memory(r, host, region->hva + page * size - host);
            add_absent(r, region, page, next - page);
            host = region->hva + next * size;
        }
    }
    add_memory(r, host, last - host);
    /* a request that is not aligned gets a head and a tail on top of that */
    return r->segments->len > IOV_MAX - 2;
}

static Segment *segment_at(const ManagedRead *r, unsigned i)
{
    return &g_array_index(r->segments, Segment, i);
}

/* ---- the read ---- */

static void read_free(ManagedRead *r)
{
    g_array_free(r->segments, true);
    g_free(r);
}

/* NULL if it is a read like any other. */
static ManagedRead *read_begin(const QEMUIOVector *qiov, size_t offset,
                               size_t bytes)
{
    ManagedRead *r;
    bool too_many;
    unsigned i;

    RCU_READ_LOCK_GUARD();
    if (!for_each_part(qiov, offset, bytes, part_swapped, NULL)) {
        return NULL;
    }
    r = g_new0(ManagedRead, 1);
    r->segments = g_array_new(false, false, sizeof(Segment));
    too_many = for_each_part(qiov, offset, bytes, add_part, r);
    if (too_many || !r->nr_pages ||
        !managed_ring_buffer_get(r->nr_pages, &r->buffer)) {
        read_free(r);
        return NULL;
    }
    qemu_iovec_init(&r->qiov, r->segments->len);
    for (i = 0; i < r->segments->len; i++) {
        Segment *segment = segment_at(r, i);

        segment->buffer += r->buffer;
        qemu_iovec_add(&r->qiov, segment->range.nr_pages
                       ? managed_conn_ring()->buffer[segment->buffer]
                       : segment->host, segment->len);
    }
    return r;
}

static void read_end(ManagedRead *r)
{
    managed_ring_buffer_put(r->buffer, r->nr_pages);
    qemu_iovec_destroy(&r->qiov);
    read_free(r);
}

static void post(Segment *segment)
{
    const MmRingSlot request = {
        .range = segment->range, .kind = MM_RING_OVERWRITE,
        .buffer = segment->buffer,
    };

    segment->slot = managed_ring_claim(MANAGED_RING_RESERVED);
    if (segment->slot >= 0) {
        managed_ring_post(segment->slot, &request);
    }
}

/*
 * The kernel copies [first, first + nr) of a segment's pages.  A page that
 * cannot be had fails as one that a device writes to, without a signal.
 */
static bool copy(const Segment *segment, unsigned first, unsigned nr)
{
    size_t size = qemu_real_host_page_size();
    uint8_t *to = segment->host + first * size;
    off_t from = offsetof(MmRing, buffer) + (segment->buffer + first) * size;
    size_t left = nr * size;

    while (left) {
        ssize_t len = TEMP_FAILURE_RETRY(pread(managed_conn_ring_fd(), to,
                                               left, from));

        if (len <= 0) {
            return false;
        }
        to += len;
        from += len;
        left -= len;
    }
    return true;
}

/* What the pager has overwritten has a bit in @overwritten. */
static bool copy_others(const Segment *segment, uint32_t overwritten)
{
    unsigned i, first = 0, nr = segment->range.nr_pages;
    bool ok = true;

    for (i = 0; i <= nr; i++) {
        if (i == nr || overwritten & (1u << i)) {
            ok = (i == first || copy(segment, first, i - first)) && ok;
            first = i + 1;
        }
    }
    return ok;
}

static void post_all(ManagedRead *r)
{
    unsigned i;

    for (i = 0; i < r->segments->len; i++) {
        if (segment_at(r, i)->range.nr_pages &&
            managed_conn_state() == MANAGED_CONN_CONNECTED) {
            post(segment_at(r, i));
        }
    }
    managed_conn_kick();
}

/* Returns how many pages have been overwritten. */
static unsigned wait_all(ManagedRead *r)
{
    int64_t deadline_ms = managed_ring_deadline();
    unsigned i, sum = 0;

    for (i = 0; i < r->segments->len; i++) {
        Segment *segment = segment_at(r, i);
        MmRingSlot request;

        if (segment->range.nr_pages && segment->slot >= 0) {
            managed_ring_wait(segment->slot, deadline_ms, &request);
            segment->overwritten = request.pages;
            sum += ctpop32(request.pages);
        }
    }
    return sum;
}

/*
 * Thread pool.  Returns 0 or -EFAULT.  Copying may wait for a page for as long
 * as its tier does not answer, so all slots are given back before.
 */
static int overwrite(void *opaque)
{
    ManagedRead *r = opaque;
    unsigned i, overwritten;
    bool ok = true;

    post_all(r);
    overwritten = wait_all(r);
    trace_managed_memory_read(r->nr_pages, r->nr_pages - overwritten);
    for (i = 0; i < r->segments->len; i++) {
        const Segment *segment = segment_at(r, i);

        if (segment->range.nr_pages) {
            ok &= copy_others(segment, segment->overwritten);
        }
    }
    return ok ? 0 : -EFAULT;
}

int coroutine_fn managed_memory_co_preadv(BdrvChild *child, int64_t offset,
                                          int64_t bytes, QEMUIOVector *qiov,
                                          size_t qiov_offset,
                                          BdrvRequestFlags flags)
{
    ManagedRead *r = NULL;
    int ret;

    /* what is swapped out is chance: a recorded run must not depend on it */
    if (managed_memory_used() && qiov && replay_mode == REPLAY_MODE_NONE) {
        r = read_begin(qiov, qiov_offset, bytes);
    }
    if (!r) {
        return bdrv_co_preadv_part(child, offset, bytes, qiov, qiov_offset,
                                   flags);
    }
    /* the buffer is not what the guest's memory has been registered as */
    ret = bdrv_co_preadv_part(child, offset, bytes, &r->qiov, 0,
                              flags & ~BDRV_REQ_REGISTERED_BUF);
    if (ret >= 0) {
        int failed = thread_pool_submit_co(
            aio_get_thread_pool(qemu_get_current_aio_context()), overwrite, r);

        ret = failed ?: ret;
    }
    read_end(r);
    return ret;
}
