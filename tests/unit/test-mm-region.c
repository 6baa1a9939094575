/*
 * Unit tests: a region's memfds, and taking them up again
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What comes back from QEMU at a resume may be anything: whatever is not
 * exactly what the pager made is refused, and nothing is left behind.
 */
#include "qemu/osdep.h"
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "managed-memory/msg.h"
#include "memory-manager/pager/control/control.h"
#include "memory-manager/pager/region.h"
#include "mm-unit.h"
#include "vm-rig.h"

/* whole huge pages, for those that ask for them */
#define NR_PAGES 2048
#define SIZE (NR_PAGES * (uint64_t)MM_PAGE_SIZE)

static MmVM *vm;

static MmMsgRegion new_msg(void)
{
    return (MmMsgRegion) {
        .id = 5, .page_size = MM_PAGE_SIZE, .size = SIZE,
        .limit = MM_LIMIT_NONE, .idstr = "test",
    };
}

static void assert_refused(const MmMsgRegion *msg)
{
    unsigned before = count_fds();
    Error *err = NULL;

    g_assert_null(mm_region_new(vm, msg, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert_cmpuint(count_fds(), ==, before);
}

static void test_absurd_requests(void)
{
    static const uint64_t sizes[] = {
        0, 1, MM_PAGE_SIZE - 1, MM_PAGE_SIZE + 1, (16ULL << 40) + MM_PAGE_SIZE,
        1ULL << 63, UINT64_MAX - MM_PAGE_SIZE + 1, UINT64_MAX,
    };
    static const uint32_t page_sizes[] = { 0, 1, 4095, 8192, 4 << 20, 1 << 30 };
    static const uint32_t ids[] = { MM_MAX_REGIONS, INT32_MAX, UINT32_MAX };
    MmMsgRegion msg;
    int i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        msg = new_msg();
        msg.size = sizes[i];
        assert_refused(&msg);
    }
    for (i = 0; i < ARRAY_SIZE(page_sizes); i++) {
        msg = new_msg();
        msg.page_size = page_sizes[i];
        assert_refused(&msg);
    }
    for (i = 0; i < ARRAY_SIZE(ids); i++) {
        msg = new_msg();
        msg.id = ids[i];
        assert_refused(&msg);
    }
}

static void test_new_region(void)
{
    unsigned before = count_fds();
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);
    int fds[] = { region->ram_fd, region->map_fd, region->dma_fd };
    MmMsgRegionInfo info;
    int i;

    for (i = 0; i < ARRAY_SIZE(fds); i++) {
        struct stat st;

        g_assert_cmpint(fstat(fds[i], &st), ==, 0);
        /* the page map alone has the mode that it is known by later */
        g_assert_cmpuint(st.st_mode & 07777, ==, i == 1 ? 0600 : 0);
        g_assert_cmpint(fcntl(fds[i], F_GET_SEALS), ==,
                        F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    }
    mm_region_info(region, &info);
    g_assert_cmpuint(info.size, ==, SIZE);
    g_assert_cmpuint(info.never, ==, SIZE);
    g_assert_cmpuint(info.resident + info.zero + info.swapped, ==, 0);
    g_assert_cmpstr(info.idstr, ==, "rig");
    vm_rig_check(vm);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(count_fds(), ==, before);
}

/* Presence is told in runs, and never beyond what was asked for. */
static void test_presence(void)
{
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);
    uint64_t page, nr;

    vm_rig_populate(region, 10, 5);
    vm_rig_populate(region, NR_PAGES - 1, 1);
    for (page = 0; page < 20; page++) {
        uint64_t next = page < 10 ? 10 : page < 15 ? page : NR_PAGES - 1;

        for (nr = 1; nr < 20; nr++) {
            g_assert_cmpuint(mm_region_present(region, page, nr), ==,
                             MIN(next, page + nr));
        }
    }
    g_assert_cmpint(mm_region_punch(region, 11, 2), ==, 0);
    g_assert_cmpuint(mm_region_present(region, 11, 10), ==, 13);
    g_assert_cmpuint(mm_region_present(region, NR_PAGES - 1, 1), ==,
                     NR_PAGES - 1);
    vm_rig_remove(vm, region);
}

static void test_dma_counters(void)
{
    const uint64_t nr = NR_PAGES - 48;
    MmRegion *region = vm_rig_add(vm, 5, nr);
    uint64_t pages = MM_DMA_CHUNK / MM_PAGE_SIZE, page;
    MmMsgRegionInfo info;
    uint32_t one = 1, none = 0;

    /* as QEMU does it, through its own mapping */
    g_assert_cmpint(pwrite(region->dma_fd, &one, sizeof(one), sizeof(one)),
                    ==, sizeof(one));
    for (page = 0; page < nr; page++) {
        g_assert_cmpint(mm_region_dma_held(region, page), ==,
                        page >= pages && page < 2 * pages);
    }
    mm_region_info(region, &info);
    g_assert_cmpuint(info.dma_held, ==, MM_DMA_CHUNK);
    /* the last chunk is not all there */
    g_assert_cmpint(pwrite(region->dma_fd, &one, sizeof(one),
                           (nr / pages) * sizeof(one)), ==, sizeof(one));
    g_assert_true(mm_region_dma_held(region, nr - 1));
    mm_region_info(region, &info);
    g_assert_cmpuint(info.dma_held, <=, info.size);
    g_assert_cmpint(pwrite(region->dma_fd, &none, sizeof(none),
                           sizeof(one)), ==, sizeof(none));
    g_assert_false(mm_region_dma_held(region, pages));
    vm_rig_remove(vm, region);
}

/* The descriptors as QEMU has them, after a pager that had the region. */
static void kept_fds(MmRegion *region, int *fds)
{
    fds[MM_REGION_FD_RAM] = dup(region->ram_fd);
    fds[MM_REGION_FD_MAP] = mm_reopen(vm, region->map_fd, O_RDONLY);
    fds[MM_REGION_FD_DMA] = dup(region->dma_fd);
    g_assert_cmpint(fds[MM_REGION_FD_MAP], >=, 0);
}

static void close_fds(int *fds)
{
    int i;

    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        close(fds[i]);
    }
}

static void assert_no_resume(const MmMsgRegion *msg, const int *fds)
{
    unsigned before = count_fds();
    Error *err = NULL;

    g_assert_null(mm_region_resume(vm, msg, fds, &err));
    g_assert_nonnull(err);
    error_free(err);
    g_assert_cmpuint(count_fds(), ==, before);
    g_assert_cmpuint(vm->total_resident, ==, 0);
}

static int plain_memfd(uint64_t size, int seals, mode_t mode)
{
    int fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    g_assert_cmpint(fchmod(fd, mode), ==, 0);
    g_assert_cmpint(fcntl(fd, F_ADD_SEALS, seals), ==, 0);
    return fd;
}

/* Everything that is no sealed memfd of @size bytes. */
static void make_impostors(uint64_t size, int *fd, unsigned nr)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    int pair[2];

    g_assert_cmpuint(nr, ==, 13);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    close(pair[1]);
    fd[0] = pair[0];
    fd[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
    fd[2] = open("/dev/zero", O_RDWR | O_CLOEXEC);
    fd[3] = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    fd[4] = eventfd(0, EFD_CLOEXEC);
    fd[5] = open(g_get_tmp_dir(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    g_assert_cmpint(ftruncate(fd[5], size), ==, 0);
    fd[6] = mm_seal_memfd("fake", size + MM_PAGE_SIZE);
    fd[7] = mm_seal_memfd("fake", size - MM_PAGE_SIZE);
    fd[8] = plain_memfd(size, 0, 0600);
    fd[9] = plain_memfd(size, seals & ~F_SEAL_SHRINK, 0600);
    fd[10] = plain_memfd(size, seals & ~F_SEAL_GROW, 0600);
    fd[11] = -1;
    fd[12] = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING |
                          MFD_HUGETLB);
    if (ftruncate(fd[12], size) == 0) {
        g_assert_cmpint(fcntl(fd[12], F_ADD_SEALS, seals), ==, 0);
    }
}

static void assert_not_new(const MmMsgRegion *msg, const char *why)
{
    Error *err = NULL;

    g_assert_null(mm_region_new(vm, msg, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), why));
    error_free(err);
}

/* Of huge pages none is taken before it is needed: the host may have none. */
static void test_huge(void)
{
    const int probe_uffd = vm->probe_uffd;
    MmMsgRegion msg = {
        .id = 5, .page_size = MM_HUGE_PAGE_SIZE, .size = 4 * MM_HUGE_PAGE_SIZE,
        .limit = MM_LIMIT_NONE, .idstr = "huge",
    };
    MmMsgRegionInfo info;
    MmRegion *region = mm_region_new(vm, &msg, &error_abort);

    g_assert_true(mm_region_is_huge(region));
    g_assert_cmpuint(mm_region_unit(region, 1023), ==, 512);
    mm_region_info(region, &info);
    g_assert_cmpuint(info.page_size, ==, MM_HUGE_PAGE_SIZE);
    g_assert_cmpuint(info.never, ==, msg.size);
    g_assert_cmpuint(mm_region_present(region, 0, 2048), ==, 2048);
    g_assert_cmpuint(mm_region_present(region, 700, 5), ==, 705);
    mm_region_free(vm, region);

    msg.size += MM_PAGE_SIZE;
    assert_not_new(&msg, "must be a multiple of 2097152");
    msg.size = MM_HUGE_PAGE_SIZE;
    vm->probe_uffd = -1;
    assert_not_new(&msg, "leave out hugetlb=on");
    vm->probe_uffd = probe_uffd;
    msg.page_size = 1 << 30;
    assert_not_new(&msg, "pages of 1073741824 bytes");
}

static void test_impostors(void)
{
    MmMsgRegion msg = new_msg();
    int fds[MM_REGION_FD__MAX], impostor[13], i, k;
    uint64_t size[MM_REGION_FD__MAX];
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);

    kept_fds(region, fds);
    size[MM_REGION_FD_RAM] = SIZE;
    size[MM_REGION_FD_MAP] = region->map_size;
    size[MM_REGION_FD_DMA] = region->dma_size;
    vm_rig_remove(vm, region);
    for (i = 0; i < MM_REGION_FD__MAX; i++) {
        int right = fds[i];

        make_impostors(size[i], impostor, ARRAY_SIZE(impostor));
        for (k = 0; k < ARRAY_SIZE(impostor); k++) {
            fds[i] = impostor[k];
            assert_no_resume(&msg, fds);
            close(impostor[k]);
        }
        fds[i] = right;
    }
    close_fds(fds);
}

/* The page map decides what is whose: only our own, closed to others. */
static void test_forged_page_map(void)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    MmMsgRegion msg = new_msg();
    int fds[MM_REGION_FD__MAX];
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);
    uint64_t size = region->map_size;
    int right, forged;

    kept_fds(region, fds);
    right = fds[MM_REGION_FD_MAP];
    forged = fds[MM_REGION_FD_MAP] = plain_memfd(size, seals, 0600);
    /* right in every respect but what is in it */
    assert_no_resume(&msg, fds);
    g_assert_cmpint(pwrite(forged, region->map_mem, size, 0), ==, size);
    vm_rig_remove(vm, region);
    /* others may write it, or have made it */
    g_assert_cmpint(fchmod(forged, 0622), ==, 0);
    assert_no_resume(&msg, fds);
    g_assert_cmpint(fchmod(forged, 0600), ==, 0);
    if (geteuid() == 0) {
        g_assert_cmpint(fchown(forged, 65534, 65534), ==, 0);
        assert_no_resume(&msg, fds);
    }
    close(forged);

    fds[MM_REGION_FD_MAP] = right;
    msg.id = 6;
    assert_no_resume(&msg, fds);
    close_fds(fds);
}

static void scan(MmRegion *region)
{
    uint64_t chunk;

    mm_region_claim_places(vm, region);
    for (chunk = 0; chunk * MM_CHUNK_PAGES < region->nr_pages; chunk++) {
        mm_region_reconcile_chunk(vm, region, chunk);
        mm_region_reconcile_chunk(vm, region, chunk);
    }
}

/* A page in each state that a pager can die in, with and without its page. */
static void leave_states(MmRegion *region)
{
    vm_rig_populate(region, 600, 40);
    vm_rig_swap_out(vm, region, 600, MM_PAGE_SWAPPED);
    vm_rig_swap_out(vm, region, 601, MM_PAGE_DROPPING);
    vm_rig_swap_out(vm, region, 602, MM_PAGE_DROPPING);
    mm_region_punch(region, 602, 1);
    vm_rig_swap_out(vm, region, 603, MM_PAGE_SWAPPED);
    vm_rig_move(region, 603, MM_PAGE_FILLING);
    vm_rig_swap_out(vm, region, 604, MM_PAGE_WRITEBACK);
    vm_rig_swap_out(vm, region, 605, MM_PAGE_CANDIDATE);
    vm_rig_move(region, 606, MM_PAGE_MAPPING);
    vm_rig_move(region, 607, MM_PAGE_DISCARDING);
    vm_rig_move(region, 608, MM_PAGE_DISCARDING);
    mm_region_punch(region, 608, 1);
    /* vanished, behind everybody's back */
    mm_region_punch(region, 609, 1);
    /* filled with zeroes, not marked yet */
    vm_rig_move(region, 700, MM_PAGE_FILLING);
}

static const struct {
    uint64_t page;
    MmPageState state;
} resumed[] = {
    { 0, MM_PAGE_NEVER },
    { 600, MM_PAGE_SWAPPED },
    { 601, MM_PAGE_RESIDENT },
    { 602, MM_PAGE_SWAPPED },
    { 603, MM_PAGE_SWAPPED },
    { 604, MM_PAGE_RESIDENT },
    { 605, MM_PAGE_RESIDENT },
    { 606, MM_PAGE_RESIDENT },
    { 607, MM_PAGE_RESIDENT },
    { 608, MM_PAGE_NEVER },
    { 609, MM_PAGE_LOST },
    { 639, MM_PAGE_RESIDENT },
    { 640, MM_PAGE_NEVER },
    { 700, MM_PAGE_NEVER },
    { NR_PAGES - 1, MM_PAGE_NEVER },
};

/* The places of a pager that is gone are nobody's until they are claimed. */
static void forget_places(MmRegion *region)
{
    MmTier *tier = vm->tiers[0];
    uint64_t page;

    for (page = 0; page < region->nr_pages; page++) {
        uint64_t entry = mm_map_get(&region->map, page);

        if (mm_entry_tier(entry) >= MM_TIER_FIRST) {
            tier->ops->free(tier, mm_entry_place(entry), 1);
        }
    }
    region->map.count[MM_CLASS_SWAPPED] = 0;
}

static MmRegion *resume(MmRegion *region)
{
    MmMsgRegion msg = new_msg();
    int fds[MM_REGION_FD__MAX];
    MmRegion *next;

    kept_fds(region, fds);
    forget_places(region);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm->total_resident, ==, 0);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    next = mm_region_resume(vm, &msg, fds, &error_abort);
    close_fds(fds);
    qatomic_add(&vm->total_size, next->size);
    mm_vm_publish_region(vm, next->id, next);
    return next;
}

static void test_resume(void)
{
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);
    uint64_t content[MM_PAGE_SIZE / sizeof(uint64_t)];
    MmMsgEvent event;
    bool again;
    int i;

    leave_states(region);
    region = resume(region);
    /* the limit has to hold before the scan has come anywhere */
    g_assert_cmpuint(vm->total_resident, ==, 35);
    g_assert_false(mm_region_reconciled(region, 600));
    scan(region);
    for (i = 0; i < ARRAY_SIZE(resumed); i++) {
        g_assert_cmpstr(
            mm_page_state_name(vm_rig_state(region, resumed[i].page)), ==,
            mm_page_state_name(resumed[i].state));
    }
    vm_rig_check(vm);
    g_assert_cmpuint(vm_rig_used(vm), ==, 3);
    g_assert_true(mm_vm_take_event(vm, &event, &again));
    g_assert_cmpuint(event.kind, ==, MM_EVENT_PAGE_LOST);
    g_assert_cmpuint(event.arg, ==, 609 * MM_PAGE_SIZE);
    g_assert_cmpuint(vm->state->stats.pages_lost, ==, 1);
    /* a second pager dies as well, and changes nothing */
    region = resume(region);
    scan(region);
    for (i = 0; i < ARRAY_SIZE(resumed); i++) {
        g_assert_cmpint(vm_rig_state(region, resumed[i].page), ==,
                        resumed[i].state);
    }
    vm_rig_check(vm);
    g_assert_cmpint(pread(region->ram_fd, content, sizeof(content),
                          620 * MM_PAGE_SIZE), ==, sizeof(content));
    g_assert_cmpuint(content[0], ==, 621);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    mm_vm_take_event(vm, &event, &again);
}

/* A map that names a place twice, or one that cannot be, has lost a page. */
static void test_impossible_places(void)
{
    MmRegion *region = vm_rig_add(vm, 5, NR_PAGES);
    uint64_t entry;
    MmMsgEvent event;
    bool again;

    vm->state->stats.pages_lost = 0;
    vm_rig_populate(region, 0, 4);
    vm_rig_swap_out(vm, region, 0, MM_PAGE_SWAPPED);
    entry = mm_map_get(&region->map, 0);
    mm_region_punch(region, 0, 4);
    forget_places(region);
    region->map.entries[1] = entry;
    region->map.entries[2] = mm_entry_at(entry, MM_TIER_FIRST, MM_PLACE_MAX);
    region->map.entries[3] = mm_entry_at(entry, MM_TIER_FIRST + 1, 7);
    memset(region->map.count, 0, sizeof(region->map.count));
    bitmap_zero(region->reconciled,
                DIV_ROUND_UP(region->nr_pages, MM_CHUNK_PAGES));
    vm->total_resident = 0;
    scan(region);
    g_assert_cmpint(vm_rig_state(region, 0), ==, MM_PAGE_SWAPPED);
    g_assert_cmpint(vm_rig_state(region, 1), ==, MM_PAGE_LOST);
    g_assert_cmpint(vm_rig_state(region, 2), ==, MM_PAGE_LOST);
    g_assert_cmpint(vm_rig_state(region, 3), ==, MM_PAGE_LOST);
    g_assert_cmpuint(vm->state->stats.pages_lost, ==, 3);
    vm_rig_check(vm);
    g_assert_cmpuint(vm_rig_used(vm), ==, 1);
    vm_rig_remove(vm, region);
    g_assert_cmpuint(vm_rig_used(vm), ==, 0);
    mm_vm_take_event(vm, &event, &again);
}

static void post_event(MmEventKind kind, uint64_t arg)
{
    mm_vm_event(vm, kind, 0, arg, "event");
}

static void assert_event(MmEventKind kind, uint64_t arg)
{
    MmMsgEvent event;
    bool again;

    g_assert_true(mm_vm_take_event(vm, &event, &again));
    g_assert_cmpuint(event.kind, ==, kind);
    g_assert_cmpuint(event.arg, ==, arg);
}

/* Whoever hears of a state hears the last one last. */
static void test_events(void)
{
    MmMsgEvent event;
    bool again;

    g_assert_false(mm_vm_take_event(vm, &event, &again));
    post_event(MM_EVENT_IO_ERROR, 1);
    post_event(MM_EVENT_IO_RECOVERED, 2);
    post_event(MM_EVENT_PRESSURE_OVER, 3);
    post_event(MM_EVENT_PRESSURE, 4);
    post_event(MM_EVENT_IO_ERROR, 5);
    assert_event(MM_EVENT_IO_RECOVERED, 2);
    assert_event(MM_EVENT_PRESSURE_OVER, 3);
    assert_event(MM_EVENT_PRESSURE, 4);
    assert_event(MM_EVENT_IO_ERROR, 5);
    g_assert_false(mm_vm_take_event(vm, &event, &again));
    /* one that could not be sent comes first, but not after a newer one */
    post_event(MM_EVENT_IO_ERROR, 6);
    g_assert_true(mm_vm_take_event(vm, &event, &again));
    post_event(MM_EVENT_IO_RECOVERED, 7);
    g_assert_false(again);
    mm_vm_put_back_event(vm, &event);
    g_assert_true(mm_vm_take_event(vm, &event, &again));
    g_assert_true(again);
    mm_vm_put_back_event(vm, &event);
    assert_event(MM_EVENT_IO_ERROR, 6);
    assert_event(MM_EVENT_IO_RECOVERED, 7);
    post_event(MM_EVENT_IO_ERROR, 8);
    mm_vm_put_back_event(vm, &event);
    assert_event(MM_EVENT_IO_ERROR, 8);
    g_assert_false(mm_vm_take_event(vm, &event, &again));
}

/* While anything at a tier fails, nothing has recovered. */
static void test_io_failing(void)
{
    mm_vm_io_failing(vm, MM_IO_READ, true);
    mm_vm_io_failing(vm, MM_IO_WRITE(0), true);
    g_assert_false(mm_vm_io_failing(vm, MM_IO_READ, false));
    g_assert_true(mm_vm_io_failing(vm, MM_IO_WRITE(0), false));
}

#define MIB (1ULL << 20)
#define NO_LIMIT MM_LIMIT_NONE

/* A region comes; returns the VM's limit then. */
static uint64_t plug(uint32_t id, uint64_t size, uint64_t limit)
{
    const MmMsgRegion msg = {
        .id = id, .page_size = MM_PAGE_SIZE, .size = size, .limit = limit,
        .idstr = "plugged",
    };

    g_assert_true(mm_control_region_comes(vm, mm_region_new(vm, &msg,
                                                            &error_abort),
                                          &error_abort));
    g_assert_cmpuint(vm->state->limit, ==, mm_control_limit(vm));
    return vm->state->limit;
}

static uint64_t unplug(uint32_t id)
{
    MmRegion *region = vm->pending[id];

    vm->pending[id] = NULL;
    mm_control_region_gone(vm, region);
    mm_region_free(vm, region);
    g_assert_cmpuint(vm->state->limit, ==, mm_control_limit(vm));
    return vm->state->limit;
}

static void start_limits(uint64_t manager)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->pending[i]) {
            unplug(i);
        }
    }
    g_assert_cmpuint(vm->total_size, ==, 0);
    vm->state->limit_set = 0;
    vm->state->limit = vm->state->default_limit = manager;
}

static void operator_says(uint64_t limit)
{
    g_assert_true(mm_control_set_limit(vm, limit, &error_abort));
    g_assert_cmpuint(mm_control_limit(vm), ==, limit);
}

/* Without an operator: what the regions say, or the manager's default. */
static void test_limit_of_regions(void)
{
    start_limits(NO_LIMIT);
    g_assert_cmpuint(plug(0, 400 * MIB, NO_LIMIT), ==, NO_LIMIT);
    g_assert_cmpuint(plug(1, 100 * MIB, NO_LIMIT), ==, NO_LIMIT);
    g_assert_cmpuint(unplug(1), ==, NO_LIMIT);
    g_assert_cmpuint(plug(1, 200 * MIB, 100 * MIB), ==, 500 * MIB);
    g_assert_cmpuint(plug(2, 300 * MIB, NO_LIMIT), ==, 800 * MIB);
    g_assert_cmpuint(unplug(0), ==, 400 * MIB);
    g_assert_cmpuint(unplug(1), ==, NO_LIMIT);
    start_limits(50 * MIB);
    g_assert_cmpuint(plug(0, 400 * MIB, NO_LIMIT), ==, 50 * MIB);
    /* a sum that happens to be the default is a sum all the same */
    start_limits(32 * MIB);
    g_assert_cmpuint(plug(0, 128 * MIB, 32 * MIB), ==, 32 * MIB);
    g_assert_cmpuint(plug(1, 128 * MIB, 32 * MIB), ==, 64 * MIB);
    g_assert_cmpuint(unplug(1), ==, 32 * MIB);
    g_assert_cmpuint(plug(1, 64 * MIB, NO_LIMIT), ==, 96 * MIB);
    /* no limit is so low that no guest can live with it */
    start_limits(NO_LIMIT);
    g_assert_cmpuint(plug(0, MIB, 4096), ==, MM_LIMIT_MIN);
    start_limits(NO_LIMIT);
}

/* An operator's word stands, but for regions that name a limit later. */
static void test_limit_of_operator(void)
{
    int i;

    start_limits(NO_LIMIT);
    plug(0, 400 * MIB, NO_LIMIT);
    operator_says(100 * MIB);
    g_assert_cmpuint(plug(1, 400 * MIB, NO_LIMIT), ==, 100 * MIB);
    g_assert_cmpuint(unplug(1), ==, 100 * MIB);
    for (i = 0; i < 5; i++) {
        g_assert_cmpuint(plug(1, 64 * MIB, 64 * MIB), ==, 164 * MIB);
        g_assert_cmpuint(unplug(1), ==, 100 * MIB);
    }
    /* he speaks of what there is; what stays keeps its share of it */
    g_assert_cmpuint(plug(1, 400 * MIB, 100 * MIB), ==, 200 * MIB);
    operator_says(100 * MIB);
    g_assert_cmpuint(unplug(1), ==, 50 * MIB);
    /* no limit is a word as well */
    operator_says(NO_LIMIT);
    g_assert_cmpuint(plug(1, 64 * MIB, 8 * MIB), ==, NO_LIMIT);
    g_assert_cmpuint(plug(2, 400 * MIB, NO_LIMIT), ==, NO_LIMIT);
    g_assert_cmpuint(unplug(1), ==, NO_LIMIT);
    operator_says(NO_LIMIT - 100 * MIB);
    g_assert_cmpuint(plug(1, 400 * MIB, 200 * MIB), ==, NO_LIMIT);
    start_limits(NO_LIMIT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    vm = vm_rig_new(g_get_tmp_dir(), 0);
    g_test_add_func("/mm/region/absurd-requests", test_absurd_requests);
    g_test_add_func("/mm/region/new", test_new_region);
    g_test_add_func("/mm/region/presence", test_presence);
    g_test_add_func("/mm/region/dma-counters", test_dma_counters);
    g_test_add_func("/mm/region/huge", test_huge);
    g_test_add_func("/mm/region/impostors", test_impostors);
    g_test_add_func("/mm/region/forged-page-map", test_forged_page_map);
    g_test_add_func("/mm/region/resume", test_resume);
    g_test_add_func("/mm/region/impossible-places", test_impossible_places);
    g_test_add_func("/mm/vm/events", test_events);
    g_test_add_func("/mm/vm/io-failing", test_io_failing);
    g_test_add_func("/mm/vm/limit-of-regions", test_limit_of_regions);
    g_test_add_func("/mm/vm/limit-of-operator", test_limit_of_operator);
    return g_test_run();
}
