/*
 * Managed memory pager: resolving a fault on one page
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the page map says decides, not the fault's MINOR flag: the fault may be
 * older than the state.  A page is mapped only while this thread owns it
 * (FILLING, MAPPING): the reclaim thread would otherwise punch a page that has
 * just been mapped, and with it the guest's next write.
 *
 * Nothing here waits.  What cannot be done now names a reason and is tried
 * again when that reason may have gone.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/host-utils.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "../test-hooks.h"
#include "../uffd.h"
#include "fault-internal.h"

/*
 * Clock passes that a page survives which came back after being zapped.  Fewer
 * would have what is used often looked at more often, and leave less time to
 * what is used seldom; when the guest turns to other data most are taken away.
 */
#define REFAULT_AGE 14
/* ... which came back soon after it was evicted; how many epochs that is. */
#define RETURN_AGE 2
#define RETURN_EPOCHS 2
/* ... which came in while the guest turned to other data. */
#define TURN_AGE 8

static uint64_t page_addr(const MmRegion *region, uint64_t page)
{
    return region->hva + page * MM_PAGE_SIZE;
}

uint64_t mm_fault_room(MmFault *f, uint64_t want)
{
    MmVM *vm = f->vm;
    uint64_t resident = qatomic_read(&vm->total_resident);
    uint64_t room = mm_limit_room(&vm->limit, resident, want);

    if (room < want) {
        mm_reclaim_wake(vm);
    }
    /* in turn: nobody knows who it is that the others wait for */
    if (!room && f->retrying && mm_fault_beyond_at(f) <= f->now_ns) {
        f->beyond_ns = f->now_ns;
        room = 1;
    }
    return room;
}

bool mm_fault_plenty(const MmFault *f, uint64_t nr)
{
    return !mm_limit_above_low(&f->vm->limit,
                               qatomic_read(&f->vm->total_resident) + nr);
}

uint64_t mm_fault_beyond_at(const MmFault *f)
{
    uint64_t pause = mm_limit_pause_ns(&f->vm->limit,
                                       qatomic_read(&f->vm->total_resident));

    return pause == UINT64_MAX ? pause : f->beyond_ns + pause;
}

void mm_fault_latency(void *fault, uint64_t since_ns)
{
    MmFault *f = fault;
    uint64_t ns = g_get_monotonic_time() * 1000 - since_ns;
    unsigned bucket = MIN(63 - clz64(ns | 1), MM_LATENCY_BUCKETS - 1);

    MM_STAT_ADD(f->vm, latency[bucket], 1);
}

void mm_fault_served(MmFault *f, MmRegion *region, uint64_t page,
                     uint64_t nr)
{
    MmVM *vm = f->vm;

    mm_waiters_remove(&f->waiters, page_addr(region, page),
                      nr * MM_PAGE_SIZE, mm_fault_latency, f);
    if (mm_limit_above_high(&vm->limit, qatomic_read(&vm->total_resident))) {
        mm_reclaim_wake(vm);
    }
}

void mm_serve_fill(const MmRegion *region, uint64_t page, uint64_t entry,
                   void *buf)
{
    uint64_t value = (uint64_t)region->map.checksums[page] << 32 |
                     (uint32_t)mm_entry_place(entry);
    uint64_t *word = buf;
    unsigned i;

    for (i = 0; i < MM_PAGE_SIZE / sizeof(value); i++) {
        word[i] = value;
    }
}

void mm_unfill(MmRegion *region, uint64_t page, uint64_t entry)
{
    MmPageState state = mm_entry_tier(entry) == MM_TIER_NONE
                        ? MM_PAGE_NEVER : MM_PAGE_SWAPPED;

    mm_map_move(&region->map, page, entry, mm_entry_with_state(entry, state));
}

/*
 * A page that comes back after less than about half as many evictions as there
 * are pages belongs to what should have stayed.  What a guest turns to is going
 * to be used more than what it has turned away from, whatever that was worth.
 * Any other page may be a scan's: it goes first, and does not push out what is
 * in use.
 */
static unsigned age_on_return(const MmFault *f, const MmRegion *region,
                              uint64_t entry)
{
    unsigned epochs = (qatomic_read(&f->vm->epoch) - mm_entry_age(entry)) &
                      MM_AGE_MAX;

    if (mm_entry_tier(entry) == MM_TIER_NONE) {
        return 0;
    }
    return mm_dense_turning(&region->dense) ? TURN_AGE
           : epochs <= RETURN_EPOCHS ? RETURN_AGE : 0;
}

static void filled(MmFault *f, MmRegion *region, uint64_t page,
                   uint64_t entry)
{
    MmTier *tier = mm_vm_tier(f->vm, mm_entry_tier(entry));
    uint64_t resident;

    mm_failpoint(MM_FP_PLACED);
    resident = mm_entry_with_state(entry, MM_PAGE_RESIDENT);
    resident = mm_entry_at(resident, MM_TIER_NONE, 0);
    resident = mm_entry_with_age(resident, age_on_return(f, region, entry));
    mm_map_move(&region->map, page, entry, resident);
    if (tier && !mm_mutated(MM_MUT_FREE_EARLY)) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

/*
 * Nothing is registered there any more.  Whoever waits for it all the same
 * (UFFDIO_UNREGISTER may leave somebody behind) has to look again.
 */
static void fault_anew(MmFault *f, uint64_t addr, uint64_t len)
{
    mm_uffd_wake(f->vm->uffd, addr, len);
    mm_waiters_remove(&f->waiters, addr, len, mm_fault_latency, f);
}

/*
 * Copy content to where there is none.  The kernel says that a huge page exists
 * when it has none left, too.
 */
static MmUffdResult copy_in(MmFault *f, const MmRegion *region, uint64_t page,
                            const void *src, unsigned nr, uint64_t *done)
{
    MmUffdResult res = mm_uffd_copy(f->vm->uffd, page_addr(region, page), src,
                                    nr * MM_PAGE_SIZE, done);

    if (res == MM_UFFD_EXISTS && mm_region_is_huge(region) &&
        mm_region_present(region, page, 1) != page) {
        return MM_UFFD_NO_MEMORY;
    }
    return res;
}

/* A huge page's first page goes last: with it others may have the rest. */
static unsigned filled_some(MmFault *f, MmRegion *region, uint64_t page,
                            const uint64_t *entries, uint64_t bytes)
{
    unsigned nr = bytes / MM_PAGE_SIZE, i;

    for (i = nr; i--; ) {
        filled(f, region, page + i, entries[i]);
    }
    return nr;
}

MmPlaced mm_place_pages(MmFault *f, MmRegion *region, uint64_t page,
                        const uint64_t *entries, const void *src, unsigned nr)
{
    uint64_t least = region->unit_pages * MM_PAGE_SIZE;
    MmPlaced placed = { .reason = MM_WAIT_NONE };

    assert(mm_region_is_huge(region) || nr <= 32);
    while (placed.nr < nr) {
        uint64_t addr = page_addr(region, page + placed.nr);
        uint64_t done;
        MmUffdResult res;

        res = copy_in(f, region, page + placed.nr,
                      src + placed.nr * MM_PAGE_SIZE, nr - placed.nr, &done);
        if (res == MM_UFFD_EXISTS) {
            /* a present page wins: somebody holds newer content than ours */
            placed.others |= 1u << (placed.nr + done / MM_PAGE_SIZE);
            addr += done;
            mm_uffd_wake(f->vm->uffd, addr, least);
            done += least;
        }
        placed.nr += filled_some(f, region, page + placed.nr,
                                 &entries[placed.nr], done);
        if (done && qatomic_read(&f->vm->not_had) == least) {
            qatomic_set(&f->vm->not_had, 0);
        }
        if (res == MM_UFFD_NO_MEMORY) {
            placed.reason = MM_WAIT_LIMIT;
            /* a swap-in that goes on would only keep it from getting better */
            f->swap_in_full = true;
            qatomic_set(&f->vm->not_had, least);
            mm_reclaim_urge(f->vm);
            break;
        }
        if (res == MM_UFFD_BUSY) {
            placed.reason = MM_WAIT_BUSY;
            break;
        }
        if (res == MM_UFFD_GONE && nr - placed.nr > region->unit_pages) {
            /* the mapping may end somewhere in the range: try one page */
            nr = placed.nr + 1;
            continue;
        }
        if (res == MM_UFFD_GONE) {
            fault_anew(f, addr, least);
            break;
        }
        if (res == MM_UFFD_HOLE || res == MM_UFFD_BAD) {
            placed.reason = MM_WAIT_LOST;
            break;
        }
    }
    mm_fault_served(f, region, page, placed.nr);
    return placed;
}

void mm_not_placed(MmFault *f, MmRegion *region, uint64_t page,
                   const uint64_t *entries, unsigned nr, const MmPlaced *placed)
{
    unsigned i;

    for (i = placed->nr; i < nr; i++) {
        mm_unfill(region, page + i, entries[i]);
        mm_waiters_set_reason(&f->waiters, page_addr(region, page + i),
                              placed->reason);
    }
}

static uint64_t lost_entry(uint64_t entry)
{
    return mm_entry_at(mm_entry_with_state(entry, MM_PAGE_LOST),
                       MM_TIER_NONE, 0);
}

bool mm_can_give_up(const MmFault *f, const MmRegion *region, uint64_t page)
{
    uint64_t addr = page_addr(region, page);

    switch (mm_entry_state(mm_map_get(&region->map, page))) {
    case MM_PAGE_SWAPPED:
        return mm_waiters_failed(&f->waiters, addr) ||
               (mm_region_is_huge(region) && mm_huge_in_all_hang(f));
    case MM_PAGE_FILLING:
        /* one more try may be under way just now */
        return mm_waiters_failed(&f->waiters, addr) ||
               mm_load_hangs(f, region, page);
    case MM_PAGE_LOST:
        return true;
    default:
        return false;
    }
}

void mm_give_up(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t entry;
    MmTier *tier;

    do {
        entry = mm_map_get(&region->map, page);
        if (mm_entry_state(entry) == MM_PAGE_FILLING) {
            /* its place is free when the read has ended */
            mm_load_cancel(f, region, page, 1, MM_PAGE_LOST);
            mm_vm_page_lost(f->vm, region, page);
        }
        if (mm_entry_state(entry) != MM_PAGE_SWAPPED) {
            return;
        }
        if (mm_region_is_huge(region)) {
            mm_huge_in_give_up(f, region, page);
            return;
        }
        /* fails if it is moved to another place just now */
    } while (!mm_map_cas(&region->map, page, entry, lost_entry(entry)));
    mm_vm_page_lost(f->vm, region, page);
    tier = mm_vm_tier(f->vm, mm_entry_tier(entry));
    if (tier) {
        tier->ops->free(tier, mm_entry_place(entry), 1);
    }
}

/* A present page: map it, and note that the guest wants it. */
static MmWaitReason serve_present(MmFault *f, MmRegion *region, uint64_t page,
                                  uint64_t entry)
{
    MmPageState state = mm_entry_state(entry);
    /* without the ticket of a batch that it may be in */
    uint64_t mapping = mm_entry_at(mm_entry_with_state(entry, MM_PAGE_MAPPING),
                                   MM_TIER_NONE, 0);
    unsigned age = mm_entry_age(entry);
    uint64_t addr = page_addr(region, page);
    uint64_t len = region->unit_pages * MM_PAGE_SIZE;
    MmUffdResult res;

    if (!mm_mutated(MM_MUT_NO_MAP_OWNER) &&
        !mm_map_cas(&region->map, page, entry, mapping)) {
        /* the reclaim thread has moved on: look again */
        return mm_serve_page(f, region, page);
    }
    mm_failpoint(MM_FP_MAPPING);
    res = mm_uffd_continue(f->vm->uffd, addr, len);
    if (mm_mutated(MM_MUT_NO_MAP_OWNER)) {
        return MM_WAIT_NONE;
    }
    mm_failpoint(MM_FP_MAPPED);
    if (res == MM_UFFD_BAD || res == MM_UFFD_HOLE) {
        mm_map_move(&region->map, page, mapping, lost_entry(mapping));
        mm_vm_page_lost(f->vm, region, page);
        mm_huge_in_lose(f, region, page);
        return MM_WAIT_LOST;
    }
    if (state != MM_PAGE_RESIDENT) {
        age = MIN(age + REFAULT_AGE, MM_AGE_MAX);
        MM_STAT_ADD(f->vm, refault, 1);
    }
    mm_map_move(&region->map, page, mapping,
                mm_entry_with_age(
                    mm_entry_with_state(mapping, MM_PAGE_RESIDENT), age));
    if (res == MM_UFFD_NO_MEMORY) {
        mm_reclaim_urge(f->vm);
        return MM_WAIT_LIMIT;
    }
    if (res == MM_UFFD_BUSY) {
        return MM_WAIT_BUSY;
    }
    if (res == MM_UFFD_EXISTS || res == MM_UFFD_GONE) {
        /* mapped already, or unregistered: it has to look again */
        mm_uffd_wake(f->vm->uffd, addr, len);
    }
    MM_STAT_ADD(f->vm, fault_minor, 1);
    mm_fault_served(f, region, page, region->unit_pages);
    return MM_WAIT_NONE;
}

MmWaitReason mm_serve_page(MmFault *f, MmRegion *region, uint64_t page)
{
    uint64_t entry = mm_map_get(&region->map, page);

    switch (mm_entry_state(entry)) {
    case MM_PAGE_NEVER:
        return mm_region_is_huge(region) ? mm_huge_in_never(f, region, page)
                                         : mm_serve_never(f, region, page);
    case MM_PAGE_SWAPPED:
        return mm_region_is_huge(region)
               ? mm_huge_in_swapped(f, region, page)
               : mm_serve_swapped(f, region, page, entry);
    case MM_PAGE_FILLING:
        return MM_WAIT_LOAD;
    case MM_PAGE_RESIDENT:
    case MM_PAGE_CANDIDATE:
    case MM_PAGE_WRITEBACK:
        return serve_present(f, region, page, entry);
    case MM_PAGE_DROPPING:
        /* the reclaim thread has it tried again when it is punched */
        return MM_WAIT_DROP;
    case MM_PAGE_LOST:
        return MM_WAIT_LOST;
    default:
        /* MAPPING and DISCARDING do not outlast one call in this thread */
        g_assert_not_reached();
    }
}
