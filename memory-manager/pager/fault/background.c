/*
 * Managed memory pager: what the fault thread does besides
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * After a takeover, a look at every page; at the operator's request, bringing
 * in all that is swapped out.  Step by step, since faults go first.
 */
#include "qemu/osdep.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "fault-internal.h"

/* Pages that one step of swap-in starts to read. */
#define SWAP_IN_STEP 64

static bool scan_step(MmFault *f)
{
    for (; f->scan_region < MM_MAX_REGIONS; f->scan_region++) {
        MmRegion *region = f->vm->regions[f->scan_region];

        if (region &&
            region->scan_next * MM_CHUNK_PAGES < region->nr_pages) {
            mm_region_reconcile_chunk(f->vm, region, region->scan_next++);
            return true;
        }
    }
    qatomic_store_release(&f->vm->scan_done, true);
    qatomic_set(&f->vm->limit.blind, false);
    mm_reclaim_wake(f->vm);
    f->scanning = false;
    return false;
}

static void swap_in_end(MmFault *f)
{
    qatomic_store_release(&f->swapping_in, false);
    mm_wake(f->vm->control_wake_fd);
}

/*
 * Everything has been asked for: it is over when all reads of before have
 * ended, whether they have worked or not.
 */
static void swap_in_drain(MmFault *f)
{
    MmLoad *load;

    if (!f->swap_in_asked_ns) {
        f->swap_in_asked_ns = f->now_ns;
    }
    QLIST_FOREACH(load, &f->busy_loads, next) {
        if (load->since_ns <= f->swap_in_asked_ns) {
            return;
        }
    }
    if (!mm_huge_in_count(f, f->swap_in_asked_ns)) {
        swap_in_end(f);
    }
}

/* The kernel may have no huge page when nobody serves its fault any more. */
static bool is_wanted(const MmFault *f, const MmRegion *region, uint64_t entry)
{
    return mm_entry_state(entry) == MM_PAGE_SWAPPED ||
           (mm_entry_state(entry) == MM_PAGE_NEVER && f->swap_in_huge &&
            mm_region_is_huge(region));
}

/* Returns whether to go on with the next page at once. */
static bool swap_in_page(MmFault *f, MmRegion *region, uint64_t page)
{
    bool failed_before = f->swap_in_failed, failed;
    MmWaitReason reason;

    if (page != mm_region_unit(region, page) ||
        !is_wanted(f, region, mm_map_get(&region->map, page))) {
        return true;
    }
    f->tid = 0;
    f->node = MM_NODE_ANY;
    f->swap_in_failed = false;
    reason = mm_serve_page(f, region, page);
    failed = f->swap_in_failed;
    f->swap_in_failed |= failed_before;
    switch (reason) {
    case MM_WAIT_NONE:
    case MM_WAIT_LOAD:
        return true;
    case MM_WAIT_BUSY:
        /* its read has failed at once; else until a load is free */
        return failed;
    case MM_WAIT_LIMIT:
        /* reclaim rests: there is never going to be room */
        f->swap_in_full = true;
        swap_in_end(f);
        return false;
    default:
        f->swap_in_failed = true;
        return true;
    }
}

static bool swap_in_step(MmFault *f)
{
    unsigned i;

    if (f->swap_in_full) {
        swap_in_end(f);
        return false;
    }
    for (i = 0; i < SWAP_IN_STEP; i++) {
        MmRegion *region = f->swap_in_region < MM_MAX_REGIONS
                           ? f->vm->regions[f->swap_in_region] : NULL;

        if (f->swap_in_region == MM_MAX_REGIONS) {
            swap_in_drain(f);
            return false;
        }
        if (!region || f->swap_in_page >= region->nr_pages) {
            f->swap_in_page = 0;
            f->swap_in_region++;
        } else if (swap_in_page(f, region, f->swap_in_page)) {
            f->swap_in_page++;
        } else {
            return false;
        }
    }
    return true;
}

bool mm_background_step(MmFault *f)
{
    if (f->scanning) {
        return scan_step(f);
    }
    if (qatomic_read(&f->swapping_in)) {
        return swap_in_step(f);
    }
    return false;
}

void mm_fault_swap_in(MmVM *vm, void *detach)
{
    vm->fault->swap_in_region = 0;
    vm->fault->swap_in_page = 0;
    vm->fault->swap_in_asked_ns = 0;
    vm->fault->swap_in_failed = false;
    vm->fault->swap_in_full = false;
    vm->fault->swap_in_huge = *(bool *)detach;
    qatomic_set(&vm->fault->swapping_in, true);
}

void mm_fault_count_absent(MmVM *vm, void *opaque)
{
    MmFaultAbsent *absent = opaque;
    MmLoad *load;
    int i;

    memset(absent, 0, sizeof(*absent));
    absent->failed = vm->fault->swap_in_failed;
    absent->no_room = vm->fault->swap_in_full;
    QLIST_FOREACH(load, &vm->fault->busy_loads, next) {
        absent->elsewhere += load->unit || load->fetching ? 0
                             : load->io.nr_pages;
    }
    absent->elsewhere += mm_import_count(vm->fault);
    absent->elsewhere += mm_huge_in_count(vm->fault, UINT64_MAX);
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            const uint64_t *count = vm->regions[i]->map.count;

            absent->elsewhere += qatomic_read(&count[MM_CLASS_SWAPPED]) +
                                 qatomic_read(&count[MM_CLASS_ZERO]);
            absent->lost += qatomic_read(&count[MM_CLASS_LOST]);
            if (vm->fault->swap_in_huge && mm_region_is_huge(vm->regions[i])) {
                absent->elsewhere += qatomic_read(&count[MM_CLASS_NEVER]);
            }
        }
    }
}

bool mm_fault_swapped_in(MmVM *vm)
{
    return !qatomic_load_acquire(&vm->fault->swapping_in);
}
