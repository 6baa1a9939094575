/*
 * Unit tests: a pager's VM without threads, jail or QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/eventfd.h>
#include "qapi/error.h"
#include "memory-manager/pager/huge-presence.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

static const MmMsgStartTier shared = {
    .overcommit = 1, .shared = 1, .name = "rig",
    .file_id = { 1, 2, 3 }, .file_key = { 4, 5, 6 },
};

static void open_tier(MmVM *vm, const char *dir, const MmMsgStartTier *start)
{
    int flags = O_TMPFILE | O_RDWR | O_CLOEXEC;
    int fd = open(dir, flags | O_DIRECT, 0600);

    if (fd < 0 && errno == EINVAL) {
        fd = open(dir, flags, 0600);
    }
    g_assert_cmpint(fd, >=, 0);
    mm_vm_add_tier(vm, mm_tier_file_open(fd, start, &vm->id, true,
                                         &error_abort));
}

static void open_lent_tier(MmVM *vm, const MmVM *source)
{
    uint8_t page[MM_PAGE_SIZE] QEMU_ALIGNED(MM_PAGE_SIZE);
    MmMsgStartTier start = shared;
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d",
                                            source->tiers[0]->fd);
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    MmTier *tier;

    start.number = 1;
    start.lent = 1;
    tier = mm_tier_file_open(fd, &start, &vm->id, true, &error_abort);
    g_assert_false(tier->proven);
    g_assert_cmpint(pread(fd, page, sizeof(page), 0), ==, sizeof(page));
    tier->proven = tier->ops->is_own(tier, page);
    g_assert_true(tier->proven);
    mm_vm_add_tier(vm, tier);
}

static MmVM *new_vm(const char *dir, const MmMsgStartTier *start,
                    const MmVM *lender)
{
    MmVM *vm = g_new0(MmVM, 1);

    vm->id.version = MM_LAYOUT_VERSION;
    memcpy(vm->id.uuid, "uuid of the rig", MM_UUID_LEN);
    vm->connection = vm->control = vm->listen = vm->uffd = vm->zap_fd = -1;
    vm->probe_uffd = mm_presence_uffd_new(-1);
    vm->control_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    vm->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    vm->state = g_malloc0(MM_STATE_SIZE);
    vm->ring = g_malloc0(sizeof(MmRing));
    vm->state->limit = vm->state->default_limit = MM_LIMIT_NONE;
    mm_limit_set(&vm->limit, UINT64_MAX);
    g_mutex_init(&vm->regions_lock);
    g_mutex_init(&vm->events_lock);
    if (lender) {
        open_lent_tier(vm, lender);
    }
    open_tier(vm, dir, start);
    vm->fault = mm_fault_new(vm, &error_abort);
    vm->reclaim = mm_reclaim_new(vm, &error_abort);
    mm_vm_start_queues(vm, vm->fault->queues);
    mm_vm_start_queues(vm, vm->reclaim->queues);
    return vm;
}

MmVM *vm_rig_new(const char *dir, uint64_t tier_size)
{
    const MmMsgStartTier start = {
        .overcommit = 1, .size = tier_size, .name = "rig",
    };

    return new_vm(dir, &start, NULL);
}

MmVM *vm_rig_new_shared(const char *dir)
{
    MmVM *vm = new_vm(dir, &shared, NULL);

    vm->state->shared.present = 1;
    return vm;
}

MmVM *vm_rig_new_lent(const char *dir, const MmVM *source)
{
    const MmMsgStartTier start = { .overcommit = 1, .name = "rig" };

    return new_vm(dir, &start, source);
}

MmRegion *vm_rig_add(MmVM *vm, uint32_t id, uint64_t nr_pages)
{
    const MmMsgRegion msg = {
        .id = id, .page_size = MM_PAGE_SIZE, .size = nr_pages * MM_PAGE_SIZE,
        .limit = MM_LIMIT_NONE, .idstr = "rig",
    };
    MmRegion *region = mm_region_new(vm, &msg, &error_abort);

    region->hva = (id + 1ULL) << 44;
    qatomic_add(&vm->total_size, region->size);
    mm_vm_publish_region(vm, id, region);
    return region;
}

void vm_rig_remove(MmVM *vm, MmRegion *region)
{
    mm_vm_publish_region(vm, region->id, NULL);
    qatomic_sub(&vm->total_size, region->size);
    mm_region_put(vm, region);
}

MmPageState vm_rig_state(const MmRegion *region, uint64_t page)
{
    return mm_entry_state(mm_map_get(&region->map, page));
}

bool vm_rig_present(const MmRegion *region, uint64_t page)
{
    return mm_region_present(region, page, 1) == page;
}

void vm_rig_move(MmRegion *region, uint64_t page, MmPageState state)
{
    uint64_t entry = mm_map_get(&region->map, page);

    mm_map_move(&region->map, page, entry, mm_entry_with_state(entry, state));
}

void vm_rig_populate(MmRegion *region, uint64_t page, uint64_t nr)
{
    uint64_t content[MM_PAGE_SIZE / sizeof(uint64_t)] = {};

    for (; nr; page++, nr--) {
        content[0] = page + 1;
        vm_rig_move(region, page, MM_PAGE_FILLING);
        g_assert_cmpint(pwrite(region->ram_fd, content, sizeof(content),
                               page * MM_PAGE_SIZE), ==, sizeof(content));
        vm_rig_move(region, page, MM_PAGE_RESIDENT);
    }
}

static uint64_t store_page(MmVM *vm, MmRegion *region, uint64_t page)
{
    /* O_DIRECT wants it aligned */
    uint8_t buffer[MM_PAGE_SIZE] QEMU_ALIGNED(MM_PAGE_SIZE);
    uint64_t entry = mm_entry_next_version(mm_map_get(&region->map, page));
    MmTierIO io = { .store = true, .nr_pages = 1, .buf = buffer };
    MmTier *tier = mm_vm_last_tier(vm);
    MmTierQueue *queue = vm->reclaim->queues[tier->index];

    g_assert_cmpint(pread(region->ram_fd, buffer, MM_PAGE_SIZE,
                          page * MM_PAGE_SIZE), ==, MM_PAGE_SIZE);
    g_assert_cmpint(queue->ops->alloc(queue, &io), ==, 0);
    g_assert_cmpint(pwrite(tier->fd, buffer, MM_PAGE_SIZE,
                           (io.place + 1) * MM_PAGE_SIZE), ==, MM_PAGE_SIZE);
    region->map.checksums[page] = mm_page_checksum(&region->map, page, entry,
                                                   buffer);
    return mm_entry_at(entry, MM_TIER_FIRST + tier->number, io.place);
}

void vm_rig_swap_out(MmVM *vm, MmRegion *region, uint64_t page,
                     MmPageState stop)
{
    uint64_t stored;

    vm_rig_move(region, page, MM_PAGE_CANDIDATE);
    if (stop == MM_PAGE_CANDIDATE) {
        return;
    }
    vm_rig_move(region, page, MM_PAGE_WRITEBACK);
    if (stop == MM_PAGE_WRITEBACK) {
        return;
    }
    stored = store_page(vm, region, page);
    mm_map_move(&region->map, page, mm_map_get(&region->map, page),
                mm_entry_with_state(stored, MM_PAGE_DROPPING));
    if (stop == MM_PAGE_DROPPING) {
        return;
    }
    g_assert_cmpint(mm_region_punch(region, page, 1), ==, 0);
    vm_rig_move(region, page, MM_PAGE_SWAPPED);
}

uint64_t vm_rig_used(MmVM *vm)
{
    MmTierUsage usage;

    vm->tiers[0]->ops->usage(vm->tiers[0], &usage);
    return usage.pages;
}

void vm_rig_check(MmVM *vm)
{
    uint64_t resident = 0, places = 0, page;
    int i, class;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = vm->regions[i];
        uint64_t count[MM_CLASS__MAX] = {};

        for (page = 0; region && page < region->nr_pages; page++) {
            uint64_t entry = mm_map_get(&region->map, page);

            count[mm_map_class(entry)]++;
            places += mm_entry_tier(entry) >= MM_TIER_FIRST;
        }
        for (class = 0; region && class < MM_CLASS__MAX; class++) {
            g_assert_cmpuint(region->map.count[class], ==, count[class]);
        }
        resident += count[MM_CLASS_RESIDENT];
    }
    g_assert_cmpuint(vm->total_resident, ==, resident);
    g_assert_cmpuint(vm_rig_used(vm), ==, places);
}
