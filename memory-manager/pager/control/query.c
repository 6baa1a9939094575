/*
 * Managed memory pager: the VM's numbers and its resident limit
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "control.h"

static uint64_t limit_bytes(uint64_t pages)
{
    return pages == UINT64_MAX ? MM_LIMIT_NONE : pages * MM_PAGE_SIZE;
}

static void add_region(MmMsgQueryReply *reply, const MmRegion *region)
{
    MmMsgRegionInfo info;

    mm_region_info(region, &info);
    reply->size += info.size;
    reply->resident += info.resident;
    reply->zero += info.zero;
    reply->swapped += info.swapped;
    reply->never += info.never;
    reply->nr_regions++;
}

/* Each by itself: the other threads go on counting. */
static void copy_stats(MmStats *to, const MmStats *from)
{
    uint64_t *dest = (uint64_t *)to;
    const uint64_t *src = (const uint64_t *)from;
    size_t i;

    for (i = 0; i < sizeof(*to) / sizeof(*dest); i++) {
        dest[i] = qatomic_read(&src[i]);
    }
}

void mm_control_query(MmVM *vm, MmMsgQueryReply *reply)
{
    uint64_t limit = qatomic_read(&vm->limit.limit);
    MmRegion *region;
    unsigned i;

    memset(reply, 0, sizeof(*reply));
    reply->limit = vm->state->limit;
    reply->hard_limit = limit == UINT64_MAX ? MM_LIMIT_NONE
        : limit_bytes(limit + qatomic_read(&vm->limit.reserve));
    for (i = 0; (region = mm_vm_region_nth(vm, i)); i++) {
        add_region(reply, region);
        mm_region_put(vm, region);
    }
    reply->nr_tiers = vm->nr_tiers;
    for (i = 0; i < vm->nr_tiers; i++) {
        vm->tiers[i]->ops->usage(vm->tiers[i], &reply->tier_used[i],
                                 &reply->tier_size[i]);
    }
    mm_fault_waiting(vm, &reply->stalled_threads, &reply->oldest_fault_ns);
    reply->serving = qatomic_read(&vm->serving);
    copy_stats(&reply->stats, &vm->state->stats);
}

/* Places of pages that are on their way in or out, on top of the others. */
#define IN_FLIGHT_BYTES (4 * MiB)

/* Space for all that the limit may push out, in the first tier. */
static bool reserve(MmVM *vm, uint64_t limit, Error **errp)
{
    uint64_t size = qatomic_read(&vm->total_size);
    MmLimit l;

    if (limit >= size || !vm->nr_tiers) {
        return true;
    }
    /* reclaim goes on down to the low watermark */
    mm_limit_set(&l, limit / MM_PAGE_SIZE);
    return vm->tiers[0]->ops->reserve(vm->tiers[0],
                                      size - l.low * MM_PAGE_SIZE +
                                      IN_FLIGHT_BYTES, errp);
}

bool mm_control_apply_limit(MmVM *vm, uint64_t bytes, Error **errp)
{
    if (!reserve(vm, bytes, errp)) {
        return false;
    }
    qatomic_set(&vm->state->limit, bytes);
    if (!vm->limit_lifted) {
        mm_limit_set(&vm->limit, bytes == MM_LIMIT_NONE
                     ? UINT64_MAX : bytes / MM_PAGE_SIZE);
    }
    mm_reclaim_wake(vm);
    mm_fault_retry(vm);
    return true;
}

bool mm_control_set_limit(MmVM *vm, uint64_t bytes, Error **errp)
{
    uint64_t floor = MM_LIMIT_MIN;

    if (bytes < floor) {
        g_autofree char *bytes_text = size_to_str(bytes);
        g_autofree char *floor_text = size_to_str(floor);

        error_setg(errp, "a limit of %s is too low for a guest to run, it "
                   "must be at least %s", bytes_text, floor_text);
        return false;
    }
    if (!mm_control_apply_limit(vm, bytes, errp)) {
        return false;
    }
    vm->state->limit_set = 1;
    return true;
}

static uint64_t share(const MmRegion *region)
{
    return region->limit == MM_LIMIT_NONE ? region->size
                                          : MIN(region->limit, region->size);
}

/* @limit of @size bytes, without those of @region. */
static uint64_t scaled(uint64_t limit, uint64_t size, const MmRegion *region)
{
    return (double)limit * (size - region->size) / size;
}

uint64_t mm_control_region_limit(MmVM *vm, const MmRegion *region, bool comes)
{
    uint64_t limit = vm->state->limit;
    uint64_t size = qatomic_read(&vm->total_size);
    uint64_t min = MM_LIMIT_MIN;
    bool names_one = region->limit != MM_LIMIT_NONE;
    bool summed = limit != MM_LIMIT_NONE && !vm->state->limit_set &&
                  limit != vm->state->default_limit;
    uint64_t left;

    if (vm->state->limit_set && !names_one) {
        return limit;       /* the operator's word stands */
    }
    if (!comes) {
        if (limit == MM_LIMIT_NONE || (!summed && !vm->state->limit_set)) {
            return limit;
        }
        left = limit - MIN(limit, share(region));
        /* an operator's may be any: what stays keeps its share of it */
        return MAX(summed ? left : MAX(left, scaled(limit, size, region)),
                   min);
    }
    if (!names_one && !summed) {
        return vm->state->default_limit;
    }
    if (limit == MM_LIMIT_NONE || (!summed && !vm->state->limit_set)) {
        /* the first region that names one: the others add their size */
        limit = size;
    }
    return MAX(MIN(limit, MM_LIMIT_NONE - share(region)) + share(region), min);
}
