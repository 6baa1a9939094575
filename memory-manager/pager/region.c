/*
 * Managed memory pager: a region's memfds and its attach scan
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest's memory is never mapped here, but for huge pages, to tell whether
 * they are there (huge-presence.h).  It is read with pread(), which does not
 * fill the hole that it reads, cannot end in SIGBUS, and leaves nothing for a
 * core dump, mlockall() or ptrace to fill holes through.
 *
 * What comes back from QEMU is hostile: a descriptor is used only after its
 * type, owner, mode, size and seals have been checked.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "managed-memory/msg.h"
#include "huge-presence.h"
#include "region.h"
#include "test-hooks.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
/* 16 TiB: keeps page counts and file offsets far from any overflow */
#define MAX_REGION_SIZE (16ULL << 40)

static bool check_msg(const MmMsgRegion *msg, Error **errp)
{
    if (msg->id >= MM_MAX_REGIONS) {
        error_setg(errp, "a VM can have %d managed regions, not more",
                   MM_MAX_REGIONS);
        return false;
    }
    if (msg->page_size != MM_PAGE_SIZE &&
        msg->page_size != MM_HUGE_PAGE_SIZE) {
        error_setg(errp, "pages of %u bytes are not supported, only of %d "
                   "and %d", msg->page_size, MM_PAGE_SIZE, MM_HUGE_PAGE_SIZE);
        return false;
    }
    if (!msg->size || msg->size % msg->page_size ||
        msg->size > MAX_REGION_SIZE) {
        error_setg(errp, "a region of %" PRIu64 " bytes is not possible: "
                   "it must be a multiple of %u and at most 16 TiB",
                   msg->size, msg->page_size);
        return false;
    }
    return true;
}

static uint64_t dma_bytes(uint64_t size)
{
    return ROUND_UP(DIV_ROUND_UP(size, MM_DMA_CHUNK) * sizeof(uint32_t),
                    MM_PAGE_SIZE);
}

static MmRegion *region_alloc(const MmMsgRegion *msg)
{
    MmRegion *region = g_new0(MmRegion, 1);

    region->id = msg->id;
    region->size = msg->size;
    region->nr_pages = msg->size / MM_PAGE_SIZE;
    region->unit_pages = msg->page_size / MM_PAGE_SIZE;
    region->limit = msg->limit;
    region->hva = msg->hva;
    memcpy(region->idstr, msg->idstr, sizeof(region->idstr));
    region->map_size = mm_map_size(region->nr_pages);
    region->dma_size = dma_bytes(msg->size);
    region->ram_fd = region->map_fd = region->dma_fd = -1;
    region->reconciled =
        bitmap_new(DIV_ROUND_UP(region->nr_pages, MM_CHUNK_PAGES));
    mm_dense_init(&region->dense, region->nr_pages);
    mm_wake_set_init(&region->wake_set, region->nr_pages);
    region->refs = 1;
    return region;
}

static bool map_memfds(MmRegion *region, Error **errp)
{
    void *mem = mmap(NULL, region->map_size, PROT_READ | PROT_WRITE,
                     MAP_SHARED, region->map_fd, 0);

    if (mem == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the page map");
        return false;
    }
    region->map_mem = mem;
    mem = mmap(NULL, region->dma_size, PROT_READ, MAP_SHARED,
               region->dma_fd, 0);
    if (mem == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the DMA counters");
        return false;
    }
    region->dma = mem;
    return true;
}

static int make_memfd(const char *what, uint64_t size, bool huge, Error **errp)
{
    int fd = huge ? mm_seal_huge_memfd(what, size) : mm_seal_memfd(what, size);

    if (fd < 0) {
        error_setg_errno(errp, -fd, "cannot create %s of %" PRIu64 " bytes",
                         what, size);
    }
    return fd;
}

/*
 * What QEMU may write to must not pass for a page map when it comes back:
 * mode 0600 is for what only we write.
 */
static bool close_to_others(MmRegion *region, Error **errp)
{
    if (fchmod(region->ram_fd, 0) < 0 || fchmod(region->dma_fd, 0) < 0) {
        error_setg_errno(errp, errno, "cannot set the mode of a memfd");
        return false;
    }
    return true;
}

static void set_all_reconciled(MmRegion *region)
{
    region->scan_next = DIV_ROUND_UP(region->nr_pages, MM_CHUNK_PAGES);
    bitmap_set(region->reconciled, 0, region->scan_next);
}

MmRegion *mm_region_new(MmVM *vm, const MmMsgRegion *msg, Error **errp)
{
    MmRegion *region;

    if (!check_msg(msg, errp)) {
        return NULL;
    }
    region = region_alloc(msg);
    region->ram_fd = make_memfd("managed-ram", msg->size,
                                mm_region_is_huge(region), errp);
    if (region->ram_fd >= 0) {
        region->map_fd = make_memfd("managed-map", region->map_size, false,
                                    errp);
    }
    if (region->map_fd >= 0) {
        region->dma_fd = make_memfd("managed-dma", region->dma_size, false,
                                    errp);
    }
    if (region->dma_fd < 0 || !close_to_others(region, errp) ||
        !map_memfds(region, errp) || !mm_presence_open(vm, region, errp)) {
        mm_region_free(vm, region);
        return NULL;
    }
    mm_map_format(region->map_mem, &vm->id, msg);
    if (!mm_map_open(&region->map, region->map_mem, region->map_size, &vm->id,
                     msg, &vm->total_resident, errp)) {
        mm_region_free(vm, region);
        return NULL;
    }
    /* an empty memfd and an empty map agree */
    region->map.count[MM_CLASS_NEVER] = region->nr_pages;
    set_all_reconciled(region);
    return region;
}

int mm_reopen(MmVM *vm, int fd, int flags)
{
    char path[16];
    int new_fd;

    snprintf(path, sizeof(path), "%d", fd);
    new_fd = TEMP_FAILURE_RETRY(openat(vm->proc_fd, path, flags | O_CLOEXEC));
    return new_fd < 0 ? -errno : new_fd;
}

/* Of which kind, says the file system that the kernel has it in. */
static bool is_memfd(int fd, unsigned page_size)
{
    struct statfs fs;

    if (fstatfs(fd, &fs) < 0) {
        return false;
    }
    return page_size == MM_PAGE_SIZE
           ? fs.f_type == TMPFS_MAGIC
           : fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize == page_size;
}

static bool check_memfd(int fd, uint64_t size, unsigned page_size, bool private,
                        const char *what, Error **errp)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
        !is_memfd(fd, page_size)) {
        error_setg(errp, "%s is not a memfd with pages of %u bytes", what,
                   page_size);
        return false;
    }
    if (st.st_size != size) {
        error_setg(errp, "%s has %" PRIu64 " bytes instead of %" PRIu64,
                   what, (uint64_t)st.st_size, size);
        return false;
    }
    if (seals < 0 || (seals & SEALS) != SEALS) {
        error_setg(errp, "%s is not sealed", what);
        return false;
    }
    if (private && (st.st_uid != geteuid() || (st.st_mode & 0777) != 0600)) {
        error_setg(errp, "%s was not made by the memory manager", what);
        return false;
    }
    return true;
}

bool mm_check_memfd(int fd, uint64_t size, bool private, const char *what,
                    Error **errp)
{
    return check_memfd(fd, size, MM_PAGE_SIZE, private, what, errp);
}

static bool resume_fds(MmVM *vm, MmRegion *region, const int *fds, Error **errp)
{
    if (!check_memfd(fds[MM_REGION_FD_RAM], region->size,
                     region->unit_pages * MM_PAGE_SIZE, false, "guest memory",
                     errp) ||
        !mm_check_memfd(fds[MM_REGION_FD_MAP], region->map_size, true,
                     "the page map", errp) ||
        !mm_check_memfd(fds[MM_REGION_FD_DMA], region->dma_size, false,
                     "the array of DMA counters", errp)) {
        return false;
    }
    region->ram_fd = dup(fds[MM_REGION_FD_RAM]);
    region->map_fd = mm_reopen(vm, fds[MM_REGION_FD_MAP], O_RDWR);
    region->dma_fd = dup(fds[MM_REGION_FD_DMA]);
    if (region->ram_fd < 0 || region->map_fd < 0 || region->dma_fd < 0) {
        error_setg(errp, "cannot reopen the memfds of region %u", region->id);
        return false;
    }
    return true;
}

MmRegion *mm_region_resume(MmVM *vm, const MmMsgRegion *msg, const int *fds,
                           Error **errp)
{
    MmRegion *region;
    struct stat st;

    if (!check_msg(msg, errp)) {
        return NULL;
    }
    region = region_alloc(msg);
    if (!resume_fds(vm, region, fds, errp) || !map_memfds(region, errp) ||
        !mm_presence_open(vm, region, errp) ||
        !mm_map_open(&region->map, region->map_mem, region->map_size, &vm->id,
                     msg, &vm->total_resident, errp)) {
        mm_region_free(vm, region);
        return NULL;
    }
    region->limit = region->map.hdr->limit;
    /*
     * Count what is resident before anything is served, or the limit would
     * not hold during the attach scan.  What the kernel has swapped counts.
     */
    if (fstat(region->ram_fd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at guest memory");
        mm_region_free(vm, region);
        return NULL;
    }
    region->map.count[MM_CLASS_RESIDENT] = st.st_blocks * 512 / MM_PAGE_SIZE;
    qatomic_add(&vm->total_resident, region->map.count[MM_CLASS_RESIDENT]);
    return region;
}

/*
 * Pages from *@page on whose entries may be other than 0, up to *@end: the map
 * of a large and mostly untouched region is itself mostly holes, and reading
 * them would fill them.
 */
static bool next_entries(const MmRegion *region, uint64_t *page, uint64_t *end)
{
    off_t start = MM_MAP_HEADER_SIZE;
    off_t data = lseek(region->map_fd, start + *page * sizeof(uint64_t),
                       SEEK_DATA);
    off_t hole;

    if (data < 0) {
        return false;
    }
    hole = lseek(region->map_fd, data, SEEK_HOLE);
    *page = MAX(data - start, 0) / sizeof(uint64_t);
    *end = MIN((hole - start) / sizeof(uint64_t), region->nr_pages);
    return *page < region->nr_pages;
}

/* Does the entry name a place in a tier? */
static bool names_place(uint64_t entry)
{
    switch (mm_entry_state(entry)) {
    case MM_PAGE_SWAPPED:
    case MM_PAGE_FILLING:
    case MM_PAGE_DROPPING:
        return mm_entry_tier(entry) >= MM_TIER_FIRST;
    default:
        return false;
    }
}

static bool claim_place(MmVM *vm, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(vm, mm_entry_tier(entry));

    return tier && tier->ops->claim(tier, mm_entry_place(entry));
}

static void free_place(MmVM *vm, uint64_t entry)
{
    MmTier *tier = mm_vm_tier(vm, mm_entry_tier(entry));

    tier->ops->free(tier, mm_entry_place(entry), 1);
}

void mm_region_claim_places(MmVM *vm, MmRegion *region)
{
    uint64_t page = 0, end;

    while (next_entries(region, &page, &end)) {
        for (; page < end; page++) {
            uint64_t entry = region->map.entries[page];

            if (names_place(entry) && !claim_place(vm, entry)) {
                /*
                 * The map cannot say so unless it has been damaged.  Unless
                 * the page is present, the scan finds it lost.
                 */
                entry = mm_entry_at(entry, MM_TIER_NONE, 0);
                region->map.entries[page] =
                    mm_entry_with_state(entry, MM_PAGE_RESIDENT);
            }
        }
    }
}

static void free_places(MmVM *vm, MmRegion *region)
{
    uint64_t chunks = DIV_ROUND_UP(region->nr_pages, MM_CHUNK_PAGES);
    bool counted = find_first_zero_bit(region->reconciled, chunks) == chunks;
    uint64_t left = region->map.count[MM_CLASS_SWAPPED];
    uint64_t page = 0, end;

    while ((left || !counted) && next_entries(region, &page, &end)) {
        for (; page < end; page++) {
            uint64_t entry = mm_map_get(&region->map, page);

            if (names_place(entry)) {
                free_place(vm, entry);
                left--;
            }
        }
    }
}

void mm_region_free(MmVM *vm, MmRegion *region)
{
    if (region->map.entries) {
        free_places(vm, region);
        qatomic_sub(&vm->total_resident, region->map.count[MM_CLASS_RESIDENT]);
    }
    if (region->map_mem) {
        munmap(region->map_mem, region->map_size);
    }
    if (region->dma) {
        munmap(region->dma, region->dma_size);
    }
    mm_presence_close(region);
    if (region->ram_fd >= 0) {
        close(region->ram_fd);
    }
    if (region->map_fd >= 0) {
        close(region->map_fd);
    }
    if (region->dma_fd >= 0) {
        close(region->dma_fd);
    }
    mm_dense_destroy(&region->dense);
    mm_wake_set_destroy(&region->wake_set);
    g_free(region->reconciled);
    g_free(region);
}

int mm_region_punch(const MmRegion *region, uint64_t page, uint64_t nr)
{
    int ret = TEMP_FAILURE_RETRY(
        fallocate(region->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  page * MM_PAGE_SIZE, nr * MM_PAGE_SIZE));

    return ret < 0 ? -errno : 0;
}

static uint64_t huge_present(const MmRegion *region, uint64_t page,
                             uint64_t nr)
{
    uint64_t unit = mm_region_unit(region, page);

    for (; unit < page + nr; unit += region->unit_pages) {
        if (mm_presence_test(region, unit)) {
            return MAX(unit, page);
        }
    }
    return page + nr;
}

uint64_t mm_region_present(const MmRegion *region, uint64_t page, uint64_t nr)
{
    off_t data;

    if (mm_region_is_huge(region)) {
        return huge_present(region, page, nr);
    }
    data = lseek(region->ram_fd, page * MM_PAGE_SIZE, SEEK_DATA);
    /* ENXIO: no data up to the end */
    if (data < 0 || data / MM_PAGE_SIZE > page + nr) {
        return page + nr;
    }
    return data / MM_PAGE_SIZE;
}

static void reconcile_page(MmVM *vm, MmRegion *region, uint64_t page,
                           bool present)
{
    uint64_t former = mm_map_get(&region->map, page);
    uint64_t entry = mm_map_reconcile(&region->map, page, present);

    if (present && names_place(former)) {
        free_place(vm, former);
    }
    if (mm_entry_state(entry) == MM_PAGE_LOST &&
        mm_entry_state(former) != MM_PAGE_LOST &&
        page == mm_region_unit(region, page)) {
        mm_vm_page_lost(vm, region, page);
    }
}

/* Nothing there, and nothing known of it: the rule, in a large region. */
static bool chunk_untouched(const MmRegion *region, uint64_t page,
                            uint64_t end)
{
    uint64_t entry = page, entries_end;

    return mm_region_present(region, page, end - page) == end &&
           (!next_entries(region, &entry, &entries_end) || entry >= end);
}

void mm_region_reconcile_chunk(MmVM *vm, MmRegion *region, uint64_t chunk)
{
    uint64_t page = chunk * MM_CHUNK_PAGES;
    uint64_t end = MIN(page + MM_CHUNK_PAGES, region->nr_pages);

    if (mm_region_reconciled(region, page)) {
        return;
    }
    if (chunk_untouched(region, page, end)) {
        qatomic_add(&region->map.count[MM_CLASS_NEVER], end - page);
        page = end;
    }
    if (mm_region_is_huge(region) && page < end) {
        bool present = mm_region_present(region, page, end - page) == page;

        for (; page < end; page++) {
            reconcile_page(vm, region, page, present);
        }
    }
    /*
     * Page by page where there are any: SEEK_HOLE would walk over all that is
     * present behind the chunk as well, and so for each chunk.
     */
    while (page < end) {
        uint64_t data = mm_region_present(region, page, end - page);

        for (; page < data; page++) {
            reconcile_page(vm, region, page, false);
        }
        if (page < end) {
            reconcile_page(vm, region, page++, true);
        }
    }
    /* release: whoever sees the bit sees the entries */
    smp_wmb();
    set_bit_atomic(chunk, region->reconciled);
    mm_failpoint(MM_FP_RECONCILE);
}

void mm_region_reconcile(MmVM *vm, MmRegion *region, uint64_t page, uint64_t nr)
{
    uint64_t chunk;

    for (chunk = page / MM_CHUNK_PAGES; chunk * MM_CHUNK_PAGES < page + nr;
         chunk++) {
        mm_region_reconcile_chunk(vm, region, chunk);
    }
}

bool mm_region_dma_held(const MmRegion *region, uint64_t page)
{
    if (mm_mutated(MM_MUT_NO_DMA_COUNT)) {
        return false;
    }
    return qatomic_read(&region->dma[page * MM_PAGE_SIZE / MM_DMA_CHUNK]);
}

void mm_region_info(const MmRegion *region, MmMsgRegionInfo *info)
{
    const uint64_t *count = region->map.count;
    uint64_t chunk;

    memset(info, 0, sizeof(*info));
    info->id = region->id;
    info->page_size = region->unit_pages * MM_PAGE_SIZE;
    info->size = region->size;
    info->resident = qatomic_read(&count[MM_CLASS_RESIDENT]) * MM_PAGE_SIZE;
    info->zero = qatomic_read(&count[MM_CLASS_ZERO]) * MM_PAGE_SIZE;
    info->swapped = qatomic_read(&count[MM_CLASS_SWAPPED]) * MM_PAGE_SIZE;
    info->never = qatomic_read(&count[MM_CLASS_NEVER]) * MM_PAGE_SIZE;
    for (chunk = 0; chunk < DIV_ROUND_UP(region->size, MM_DMA_CHUNK);
         chunk++) {
        if (qatomic_read(&region->dma[chunk])) {
            info->dma_held += MM_DMA_CHUNK;
        }
    }
    info->dma_held = MIN(info->dma_held, region->size);
    memcpy(info->idstr, region->idstr, sizeof(info->idstr));
}
