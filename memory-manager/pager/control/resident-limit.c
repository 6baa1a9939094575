/*
 * Managed memory pager: where the VM's resident limit comes from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The limit is derived anew from what is known, whenever a region comes or
 * goes, an operator speaks, or a pager takes over; nothing is added up on the
 * way, so nothing counts twice if a pager dies on it.
 *
 *  - While no region names a limit, the manager's default holds.
 *  - Otherwise the limits add up; regions that name none add their size.
 *  - An operator's limit stands, whatever it is.  Regions that come later and
 *    name a limit are on top of it, until the operator speaks again.  If one
 *    goes that was there when he spoke, what stays keeps its share of it.
 *
 * Control thread, or before there is one.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "control.h"

/* Places of pages that are on their way in or out, on top of the others. */
#define IN_FLIGHT_BYTES (4 * MiB)
#define IN_FLIGHT_UNITS 4
/*
 * How long to wait for a tier of a former pager, and between two looks.  The
 * manager waits for an answer twice as long.
 */
#define PROVEN_WAIT_MS 500
#define PROVEN_LOOK_MS 2

static bool names_limit(const MmRegion *region)
{
    return region->limit != MM_LIMIT_NONE;
}

static uint64_t share(const MmRegion *region)
{
    return names_limit(region) ? MIN(region->limit, region->size)
                               : region->size;
}

static MmRegion *nth_region(const MmVM *vm, unsigned id)
{
    return vm->pending[id] ?: vm->regions[id];
}

uint64_t mm_control_unit(const MmVM *vm)
{
    unsigned i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = nth_region(vm, i);

        if (region && mm_region_is_huge(region)) {
            return region->unit_pages;
        }
    }
    return 0;
}

/* What a guest needs to run. */
static uint64_t least(const MmVM *vm)
{
    return MAX(MM_LIMIT_UNITS * mm_control_unit(vm) * MM_PAGE_SIZE,
               (uint64_t)MM_LIMIT_MIN);
}

static uint64_t sum_of_limits(const MmVM *vm)
{
    uint64_t sum = 0;
    bool named = false;
    unsigned i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = nth_region(vm, i);

        if (region) {
            named |= names_limit(region);
            sum += share(region);
        }
    }
    return named ? sum : vm->state->default_limit;
}

static uint64_t operators_limit(const MmVM *vm)
{
    uint64_t limit = vm->state->operator_limit;
    unsigned i;

    for (i = 0; i < MM_MAX_REGIONS && limit != MM_LIMIT_NONE; i++) {
        MmRegion *region = nth_region(vm, i);

        if (region && region->map.hdr->on_top) {
            limit += MIN(share(region), MM_LIMIT_NONE - limit);
        }
    }
    return limit;
}

uint64_t mm_control_limit(const MmVM *vm)
{
    uint64_t limit = vm->state->limit_set ? operators_limit(vm)
                                          : sum_of_limits(vm);

    return MAX(limit, least(vm));
}

/* Right after a takeover it takes a moment until a tier can be written to. */
static void wait_until_proven(const MmTier *tier)
{
    int waited_ms;

    for (waited_ms = 0; waited_ms < PROVEN_WAIT_MS &&
                        !qatomic_load_acquire(&tier->proven);
         waited_ms += PROVEN_LOOK_MS) {
        poll(NULL, 0, PROVEN_LOOK_MS);
    }
}

/* Bytes of memory that lie in tiers now. */
static uint64_t content(const MmVM *vm)
{
    uint64_t pages = 0;
    unsigned i;

    for (i = 0; i < vm->nr_tiers; i++) {
        MmTierUsage usage = {};

        vm->tiers[i]->ops->usage(vm->tiers[i], &usage);
        pages += usage.pages;
    }
    return pages * MM_PAGE_SIZE;
}

/*
 * Space for all that the limit may push out, in the last tier: what is pushed
 * out may end up there, whatever the others take.  @at_least: bytes that are to
 * go there in any case.
 */
static bool reserve(MmVM *vm, uint64_t limit, uint64_t at_least, Error **errp)
{
    uint64_t size = qatomic_read(&vm->total_size);
    MmTier *last = mm_vm_last_tier(vm);
    uint64_t pushed_out = 0;
    MmLimit l = { .unit = mm_control_unit(vm) };

    if (limit < size) {
        /* reclaim goes on down to the low watermark */
        mm_limit_set(&l, limit / MM_PAGE_SIZE);
        pushed_out = size - l.low * MM_PAGE_SIZE;
    }
    pushed_out = MAX(pushed_out, at_least);
    if (!pushed_out || !last) {
        return true;
    }
    wait_until_proven(last);
    pushed_out += IN_FLIGHT_BYTES + IN_FLIGHT_UNITS * l.unit * MM_PAGE_SIZE;
    return last->ops->reserve(last, pushed_out, errp);
}

static bool apply(MmVM *vm, uint64_t bytes, Error **errp)
{
    if (!reserve(vm, bytes, 0, errp)) {
        return false;
    }
    qatomic_set(&vm->limit.unit, mm_control_unit(vm));
    qatomic_set(&vm->state->limit, bytes);
    if (!vm->limit_lifted) {
        mm_limit_set(&vm->limit, bytes == MM_LIMIT_NONE
                     ? UINT64_MAX : bytes / MM_PAGE_SIZE);
    }
    mm_reclaim_wake(vm);
    mm_fault_retry(vm);
    return true;
}

bool mm_control_set_draining(MmVM *vm, uint32_t tiers, Error **errp)
{
    unsigned was[MM_MAX_TIERS];
    unsigned i;

    for (i = 0; i < vm->nr_tiers; i++) {
        bool drain = tiers & 1u << vm->tiers[i]->number;

        was[i] = qatomic_xchg(&vm->tiers[i]->drain,
                              drain ? MM_DRAIN_GOING : MM_DRAIN_NO);
    }
    if (!mm_vm_last_tier(vm)) {
        error_setg(errp, "the VM would be left without a tier; give it "
                   "another one first");
    } else if (reserve(vm, vm->state->limit, tiers ? content(vm) : 0, errp)) {
        mm_reclaim_wake(vm);
        return true;
    }
    for (i = 0; i < vm->nr_tiers; i++) {
        qatomic_set(&vm->tiers[i]->drain, was[i] == MM_DRAIN_NO
                    ? MM_DRAIN_NO : MM_DRAIN_GOING);
    }
    return false;
}

static void set_operators(MmVM *vm, uint64_t bytes)
{
    unsigned i;

    vm->state->operator_limit = bytes;
    vm->state->limit_set = 1;
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = nth_region(vm, i);

        if (region) {
            region->map.hdr->on_top = 0;
        }
    }
}

bool mm_control_set_limit(MmVM *vm, uint64_t bytes, Error **errp)
{
    if (bytes < least(vm)) {
        g_autofree char *bytes_text = size_to_str(bytes);
        g_autofree char *least_text = size_to_str(least(vm));

        error_setg(errp, "a limit of %s is too low for a guest %sto run, it "
                   "must be at least %s", bytes_text,
                   mm_control_unit(vm) ? "with huge pages " : "",
                   least_text);
        return false;
    }
    if (!apply(vm, bytes, errp)) {
        return false;
    }
    set_operators(vm, bytes);
    return true;
}

bool mm_control_region_comes(MmVM *vm, MmRegion *region, Error **errp)
{
    mm_vm_resize(vm, region->size);
    region->map.hdr->on_top = vm->state->limit_set && names_limit(region);
    vm->pending[region->id] = region;
    if (apply(vm, mm_control_limit(vm), errp)) {
        return true;
    }
    vm->pending[region->id] = NULL;
    mm_vm_resize(vm, -(int64_t)region->size);
    return false;
}

/* The operator's limit was for this region as well. */
static void scale_operators(MmVM *vm, const MmRegion *gone)
{
    uint64_t size = gone->size;
    double limit = vm->state->operator_limit;
    unsigned i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = nth_region(vm, i);

        if (region && !region->map.hdr->on_top) {
            size += region->size;
        }
    }
    limit = limit * (size - gone->size) / size;
    vm->state->operator_limit = MAX((uint64_t)limit, least(vm));
}

void mm_control_region_gone(MmVM *vm, const MmRegion *region)
{
    mm_vm_resize(vm, -(int64_t)region->size);
    if (vm->state->limit_set && names_limit(region) &&
        !region->map.hdr->on_top &&
        vm->state->operator_limit != MM_LIMIT_NONE) {
        scale_operators(vm, region);
    }
    /* less memory needs no more space than before */
    apply(vm, mm_control_limit(vm), NULL);
}
