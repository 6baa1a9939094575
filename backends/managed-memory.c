/*
 * Managed memory: the VM's regions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A region is a RAMBlock whose memory belongs to the pager: the pager makes
 * the memfd, QEMU maps it and lets faults in the mapping go to the pager.
 * This file sets regions up, takes them away and finds them.
 *
 * QEMU keeps descriptors of all that makes up a region, so that it survives
 * any pager: a new one gets them back (managed-memory-conn.c).
 *
 * Invariants:
 *
 *  I1 A region is in the table from before its memory can be touched until
 *     after its RAMBlock was taken out of use, and before it is unmapped.
 *     The zap thread holds region_lock while it works, so it never zaps an
 *     address that belongs to somebody else.
 *  I2 Whatever is in the table is handed to the next pager.  A region enters
 *     it only if the pager that made it is still the current one.
 *  I3 Before the addresses of a region are unmapped the pager has confirmed
 *     that it let go of the region, or is gone, or has not answered in time and
 *     been hung up on.  The last may still be about to fill pages there.  That
 *     is harmless: the addresses are not registered any more, so that
 *     UFFDIO_COPY and UFFDIO_CONTINUE fail with ENOENT; and no other region can
 *     get them meanwhile, because it takes a pager to make one, and the next
 *     pager does not exist before this one is gone.
 *
 * Regions come and go under the BQL.  Look-ups go by RCU, from any thread.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "exec/memory.h"
#include "exec/ramlist.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

#define HUGE_POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define REGION_TIMEOUT_MS 30000
#define REMOVE_TIMEOUT_MS 5000

/* Regions in order of address */
typedef struct ManagedTable {
    struct rcu_head rcu;
    unsigned nr;
    ManagedRegion *regions[];
} ManagedTable;

bool managed_memory_in_use;

/* region_lock: writers of both; table also by RCU */
static QemuMutex region_lock;
static ManagedTable *table;
static ManagedRegion *by_id[MM_MAX_REGIONS];

static void __attribute__((constructor)) managed_memory_init_lock(void)
{
    qemu_mutex_init(&region_lock);
}

/* ---- look-up ---- */

ManagedRegion *managed_region_find(const void *host)
{
    ManagedTable *t = qatomic_rcu_read(&table);
    uintptr_t addr = (uintptr_t)host;
    unsigned low = 0, high = t ? t->nr : 0;

    while (low < high) {
        unsigned mid = (low + high) / 2;
        ManagedRegion *region = t->regions[mid];

        if (addr < (uintptr_t)region->hva) {
            high = mid;
        } else if (addr - (uintptr_t)region->hva >= region->size) {
            low = mid + 1;
        } else {
            return region;
        }
    }
    return NULL;
}

GPtrArray *managed_regions_snapshot(void)
{
    GPtrArray *array = g_ptr_array_new();
    unsigned i;

    QEMU_LOCK_GUARD(&region_lock);
    for (i = 0; table && i < table->nr; i++) {
        qatomic_inc(&table->regions[i]->refcount);
        g_ptr_array_add(array, table->regions[i]);
    }
    return array;
}

static void managed_region_free(ManagedRegion *region)
{
    int i;

    if (region->map) {
        munmap((void *)region->map, region->size / qemu_real_host_page_size() *
               sizeof(uint64_t));
    }
    if (region->dma) {
        munmap(region->dma, region->nr_chunks * sizeof(uint32_t));
    }
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        if (region->fds[i] >= 0) {
            close(region->fds[i]);
        }
    }
    g_free(region->ballooned);
    g_free(region->owner);
    g_free(region);
}

void managed_region_unref(ManagedRegion *region)
{
    int before = qatomic_fetch_dec(&region->refcount);

    assert(before > 0);
    if (before == 1) {
        call_rcu(region, managed_region_free, rcu);
    }
}

/* ---- the table ---- */

static void publish_table(void)
{
    ManagedTable *old = table;
    ManagedTable *new = g_malloc0(sizeof(*new) +
                                  MM_MAX_REGIONS * sizeof(new->regions[0]));
    unsigned i, pos;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (!by_id[i]) {
            continue;
        }
        for (pos = new->nr++;
             pos > 0 && new->regions[pos - 1]->hva > by_id[i]->hva; pos--) {
            new->regions[pos] = new->regions[pos - 1];
        }
        new->regions[pos] = by_id[i];
    }
    qatomic_rcu_set(&table, new);
    qatomic_set(&managed_memory_in_use, new->nr > 0);
    if (old) {
        g_free_rcu(old, rcu);
    }
}

/*
 * The table has a reference of its own.  False if the pager that made the
 * region is not the current one (I2).
 */
static bool table_insert(ManagedRegion *region, uint64_t epoch)
{
    QEMU_LOCK_GUARD(&region_lock);

    if (managed_conn_epoch() != epoch) {
        return false;
    }
    qatomic_inc(&region->refcount);
    by_id[region->id] = region;
    publish_table();
    trace_managed_memory_region_added(region->id, region->idstr, region->hva,
                                      region->size);
    return true;
}

/*
 * The caller has a reference.  Does nothing if a detach was faster: whoever
 * takes a region out drops the table's reference, and nobody else.
 */
static void table_remove(ManagedRegion *region)
{
    QEMU_LOCK_GUARD(&region_lock);

    if (by_id[region->id] != region) {
        return;
    }
    by_id[region->id] = NULL;
    publish_table();
    managed_region_unref(region);
    trace_managed_memory_region_removed(region->id);
}

/*
 * A reference to the region at an address, or NULL.  Under the lock, since
 * what is in the table by RCU may have had its last reference dropped.
 */
static ManagedRegion *table_get(const void *host)
{
    ManagedRegion *region;

    QEMU_LOCK_GUARD(&region_lock);
    region = managed_region_find(host);
    if (region) {
        qatomic_inc(&region->refcount);
    }
    return region;
}

static int table_free_id(void)
{
    int id;

    QEMU_LOCK_GUARD(&region_lock);
    for (id = 0; id < MM_MAX_REGIONS; id++) {
        if (!by_id[id]) {
            return id;
        }
    }
    return -1;
}

/* ---- zap ---- */

static bool range_fits(const MmRange *range)
{
    const ManagedRegion *region;
    uint64_t nr_pages;

    if (range->region >= MM_MAX_REGIONS) {
        return false;
    }
    region = by_id[range->region];
    if (!region) {
        /* Removed, and the pager does not know yet: nothing to lose. */
        return true;
    }
    nr_pages = region->size / qemu_real_host_page_size();
    return range->first_page <= nr_pages &&
           range->nr_pages <= nr_pages - range->first_page;
}

int managed_regions_zap(const MmRange *ranges, unsigned nr)
{
    size_t page = qemu_real_host_page_size();
    unsigned i;

    QEMU_LOCK_GUARD(&region_lock);
    for (i = 0; i < nr; i++) {
        if (!range_fits(&ranges[i])) {
            return -EINVAL;
        }
    }
    for (i = 0; i < nr; i++) {
        const ManagedRegion *region = by_id[ranges[i].region];

        if (region && madvise(region->hva + ranges[i].first_page * page,
                              ranges[i].nr_pages * page, MADV_DONTNEED)) {
            return -errno;
        }
    }
    return 0;
}

/* ---- removal ---- */

/*
 * The pager must have forgotten the region before its addresses are managed
 * memory again: it would fill pages there.  If it does not answer, it has to
 * go (I3).
 */
static void tell_removed(uint32_t id)
{
    MmMsgRegionRef ref = { .id = id };
    ManagedCall call = {
        .type = MM_MSG_REGION_REMOVE, .payload = &ref, .len = sizeof(ref),
        .want = MM_MSG_OK, .timeout_ms = REMOVE_TIMEOUT_MS,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);

    if (managed_conn_call(&call, reply, NULL) == -ETIMEDOUT) {
        managed_conn_abort();
    }
    mm_msg_clear(reply);
}

static void region_remove(ManagedRegion *region)
{
    table_remove(region);
    managed_conn_region_gone();
    tell_removed(region->id);
    managed_uffd_unregister(managed_conn_uffd(), region->hva, region->size);
    if (!managed_memory_used()) {
        managed_refuse_none();
    }
}

static void ram_block_removed(RAMBlockNotifier *n, void *host, size_t size,
                              size_t max_size)
{
    ManagedRegion *region = table_get(host);

    if (region) {
        region_remove(region);
        managed_region_unref(region);
    }
}

static RAMBlockNotifier ram_notifier = {
    .ram_block_removed = ram_block_removed,
};

/*
 * Under a single hold of the lock: an unplug that comes meanwhile finds the
 * region either as it was, or gone and its addresses free to be unmapped.
 */
void managed_regions_release(void)
{
    g_autoptr(GPtrArray) gone = g_ptr_array_new();
    unsigned i;

    WITH_QEMU_LOCK_GUARD(&region_lock) {
        for (i = 0; i < MM_MAX_REGIONS; i++) {
            if (by_id[i]) {
                managed_uffd_unregister(managed_conn_uffd(), by_id[i]->hva,
                                        by_id[i]->size);
                g_ptr_array_add(gone, by_id[i]);
                by_id[i] = NULL;
            }
        }
        publish_table();
    }
    for (i = 0; i < gone->len; i++) {
        managed_region_unref(gone->pdata[i]);   /* the table's */
    }
    managed_refuse_none();
}

/* ---- set-up ---- */

static bool map_counters(ManagedRegion *region, Error **errp)
{
    size_t len;
    void *map;

    region->nr_chunks = DIV_ROUND_UP(region->size, MM_DMA_CHUNK);
    len = region->nr_chunks * sizeof(uint32_t);
    if (!managed_check_memfd(region->fds[MM_REGION_FD_DMA], len,
                             "counter file", errp)) {
        return false;
    }
    map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED,
               region->fds[MM_REGION_FD_DMA], 0);
    if (map == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the DMA counters");
        return false;
    }
    region->dma = map;
    return true;
}

static bool map_page_map(ManagedRegion *region, Error **errp)
{
    size_t len = region->size / qemu_real_host_page_size() * sizeof(uint64_t);
    void *map;

    if (!managed_check_memfd(region->fds[MM_REGION_FD_MAP],
                             MM_MAP_HEADER_SIZE + len, "page map", errp)) {
        return false;
    }
    map = mmap(NULL, len, PROT_READ, MAP_SHARED,
               region->fds[MM_REGION_FD_MAP], MM_MAP_HEADER_SIZE);
    if (map == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the page map");
        return false;
    }
    /* large, and the same as in the pager */
    madvise(map, len, MADV_DONTDUMP);
    region->map = map;
    return true;
}

static bool check_size(uint64_t size, uint32_t page_size, Error **errp)
{
    if (page_size == MANAGED_HUGE_PAGE_SIZE && size % page_size) {
        error_setg(errp, "memory of huge pages must be a multiple of 2 MiB; "
                   "use size=%" PRIu64 "M",
                   ROUND_UP(size, page_size) / MiB);
        return false;
    }
    return true;
}

/* A guest that finds none waits, and with it whoever wants to know why. */
static void warn_if_pool_is_short(uint64_t wanted)
{
    g_autofree char *text = NULL;
    uint64_t unused;

    if (!g_file_get_contents(HUGE_POOL "free_hugepages", &text, NULL, NULL) ||
        qemu_strtou64(text, NULL, 10, &unused)) {
        return;     /* out of a sandboxed QEMU's sight */
    }
    unused *= MANAGED_HUGE_PAGE_SIZE;
    if (unused < wanted) {
        warn_report("the host has %" PRIu64 " MiB of free huge pages, and the "
                    "guest may use %" PRIu64 " MiB; more are made by writing "
                    "to " HUGE_POOL "nr_hugepages",
                    unused / MiB, wanted / MiB);
    }
}

static ManagedRegion *region_new(HostMemoryBackend *backend, uint64_t limit,
                                 uint32_t page_size, Error **errp)
{
    g_autofree char *name = host_memory_backend_get_name(backend);
    int i, id = table_free_id();
    ManagedRegion *region;

    if (id < 0) {
        error_setg(errp, "a VM cannot have more than %d managed memory "
                   "backends", MM_MAX_REGIONS);
        return NULL;
    }
    if (strlen(name) >= MM_IDSTR_LEN) {
        error_setg(errp, "the id of a managed memory backend cannot be "
                   "longer than %d characters", MM_IDSTR_LEN - 1);
        return NULL;
    }
    if (!check_size(backend->size, page_size, errp)) {
        return NULL;
    }
    region = g_new0(ManagedRegion, 1);
    region->refcount = 1;
    region->id = id;
    region->page_size = page_size;
    region->size = ROUND_UP(backend->size, page_size);
    region->limit = limit == MM_LIMIT_NONE ? limit : MIN(limit, region->size);
    if (page_size == MANAGED_HUGE_PAGE_SIZE) {
        warn_if_pool_is_short(MIN(limit, region->size));
    }
    region->owner = object_get_canonical_path(OBJECT(backend));
    pstrcpy(region->idstr, sizeof(region->idstr), name);
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        region->fds[i] = -1;
    }
    return region;
}

/*
 * An answer may still be on its way after -ETIMEDOUT.  A pager that has refused
 * or that is gone has nothing to forget.
 */
static bool pager_may_know(int ret, const MmMsg *reply)
{
    return ret == 0 || ret == -ETIMEDOUT ||
           (ret == -EREMOTEIO && reply->hdr.type != MM_MSG_ERROR);
}

/* Has the pager make the region's files. */
static bool region_request(ManagedRegion *region, uint64_t epoch, Error **errp)
{
    MmMsgRegion add = {
        .id = region->id,
        .page_size = region->page_size,
        .size = region->size,
        .limit = region->limit,
    };
    ManagedCall call = {
        .type = MM_MSG_REGION_ADD, .payload = &add, .len = sizeof(add),
        .want = MM_MSG_REGION_ADDED, .timeout_ms = REGION_TIMEOUT_MS,
        .epoch = epoch,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    int i, ret;

    pstrcpy(add.idstr, sizeof(add.idstr), region->idstr);
    ret = managed_conn_call(&call, reply, errp);
    region->asked = pager_may_know(ret, reply);
    for (i = 0; ret == 0 && i < MM_REGION_FD__MAX; i++) {
        region->fds[i] = mm_msg_take_fd(reply, i);
    }
    mm_msg_clear(reply);
    return ret == 0 &&
           managed_check_memfd(region->fds[MM_REGION_FD_RAM], region->size,
                               "memory file", errp) &&
           map_page_map(region, errp) && map_counters(region, errp);
}

static bool region_map(ManagedRegion *region, HostMemoryBackend *backend,
                       Error **errp)
{
    ERRP_GUARD();
    bool huge = region->page_size == MANAGED_HUGE_PAGE_SIZE;
    uint32_t flags = RAM_SHARED;
    int fd = qemu_dup(region->fds[MM_REGION_FD_RAM]);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot duplicate the memory file");
        return false;
    }
    if (huge) {
        /* what is swapped out needs no huge page: none is set aside for it */
        backend->reserve = false;
    }
    flags |= backend->reserve ? 0 : RAM_NORESERVE;
    memory_region_init_ram_from_fd(&backend->mr, OBJECT(backend),
                                   region->idstr, backend->size, flags, fd, 0,
                                   errp);
    if (*errp) {
        close(fd);
        return false;
    }
    region->hva = memory_region_get_ram_ptr(&backend->mr);
    /*
     * QEMU has just asked for huge pages.  A huge folio would cover pages
     * that nobody has filled; EINVAL means a kernel without them.
     */
    if (madvise(region->hva, region->size, MADV_NOHUGEPAGE) &&
        errno != EINVAL) {
        error_setg_errno(errp, errno, "cannot do without huge pages");
        return false;
    }
    if (huge && madvise(region->hva, region->page_size, MADV_DONTNEED)) {
        error_setg_errno(errp, errno, "this kernel cannot unmap huge pages of "
                         "hugetlb; use Linux 5.18 or later, or leave out "
                         "hugetlb=on");
        return false;
    }
    return managed_uffd_register(managed_conn_uffd(), region->hva,
                                 region->size, errp);
}

/*
 * From here on faults are served.  If the pager is lost before it answers,
 * its successor has got the region with the others.
 */
static bool region_start(ManagedRegion *region, uint64_t epoch, Error **errp)
{
    MmMsgRegionRef ref = {
        .id = region->id, .hva = (uintptr_t)region->hva,
    };
    ManagedCall call = {
        .type = MM_MSG_REGION_READY, .payload = &ref, .len = sizeof(ref),
        .want = MM_MSG_OK, .timeout_ms = REGION_TIMEOUT_MS, .epoch = epoch,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    Error *local_err = NULL;
    int ret;

    if (!table_insert(region, epoch)) {
        error_setg(errp, "the memory manager's pager was lost during set-up; "
                   "try again");
        return false;
    }
    ret = managed_conn_call(&call, reply, &local_err);
    mm_msg_clear(reply);
    if (ret == 0) {
        return true;
    }
    if ((ret == -ENOTCONN || ret == -ECONNRESET) &&
        managed_conn_wait(REGION_TIMEOUT_MS)) {
        error_free(local_err);
        return true;
    }
    error_propagate(errp, local_err);
    table_remove(region);
    managed_conn_region_gone();
    return false;
}

static void region_undo(ManagedRegion *region)
{
    if (region->asked) {
        tell_removed(region->id);
    }
    if (region->hva) {
        managed_uffd_unregister(managed_conn_uffd(), region->hva,
                                region->size);
    }
}

static bool region_set_up(HostMemoryBackend *backend, uint64_t limit,
                          uint32_t page_size, Error **errp)
{
    uint64_t epoch = managed_conn_epoch();
    ManagedRegion *region = region_new(backend, limit, page_size, errp);
    bool ok;

    if (!region) {
        return false;
    }
    ok = region_request(region, epoch, errp) &&
         region_map(region, backend, errp) &&
         region_start(region, epoch, errp);
    if (!ok) {
        region_undo(region);
    }
    managed_region_unref(region);
    return ok;
}

bool managed_memory_alloc(HostMemoryBackend *backend,
                          const ManagedConfig *config, uint32_t page_size,
                          Error **errp)
{
    static bool initialised;
    bool first = !managed_memory_used();

    if (!backend->size) {
        error_setg(errp, "can't create backend with size 0");
        return false;
    }
    if (first && !managed_refuse_first(errp)) {
        return false;
    }
    if (!initialised) {
        managed_dma_init();
        ram_block_notifier_add(&ram_notifier);
        initialised = true;
    }
    if (!managed_conn_open(config, errp) ||
        !region_set_up(backend, config->limit, page_size, errp)) {
        if (first) {
            managed_refuse_none();
        }
        return false;
    }
    return true;
}
