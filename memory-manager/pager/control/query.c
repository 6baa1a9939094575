/*
 * Managed memory pager: the VM's numbers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "../fault/fault.h"
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
    for (i = 0; i < vm->nr_tiers; i++) {
        unsigned number = vm->tiers[i]->number;
        MmTierUsage usage = {};

        vm->tiers[i]->ops->usage(vm->tiers[i], &usage);
        reply->tiers |= 1u << number;
        if (!vm->tiers[i]->ops->outside) {
            reply->compressed |= 1u << number;
        }
        if (qatomic_load_acquire(&vm->tiers[i]->proven)) {
            reply->proven |= 1u << number;
        }
        if (qatomic_read(&vm->tiers[i]->drain) == MM_DRAIN_DONE) {
            reply->drained |= 1u << number;
        }
        reply->tier_content[number] = usage.pages * MM_PAGE_SIZE;
        reply->tier_used[number] = usage.used;
        reply->tier_size[number] = usage.size;
    }
    g_mutex_lock(&vm->sample_lock);
    reply->sample = vm->sampled;
    reply->sample.age_ns = g_get_monotonic_time() * 1000 - vm->sampled_ns;
    g_mutex_unlock(&vm->sample_lock);
    mm_fault_waiting(vm, &reply->stalled_threads, &reply->oldest_fault_ns);
    reply->encrypted = vm->state->encrypted;
    reply->serving = qatomic_read(&vm->serving);
    copy_stats(&reply->stats, &vm->state->stats);
}
