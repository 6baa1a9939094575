/*
 * Managed memory pager: the one VM that this process serves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The region table with its references, and what the threads tell each other.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include "qemu/bitops.h"
#include "qapi/error.h"
#include "region.h"
#include "vm.h"

MmRegion *mm_vm_region_get(MmVM *vm, uint32_t id)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&vm->regions_lock);
    MmRegion *region = id < MM_MAX_REGIONS ? vm->regions[id] : NULL;

    if (region) {
        qatomic_inc(&region->refs);
    }
    return region;
}

MmRegion *mm_vm_region_nth(MmVM *vm, unsigned nth)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&vm->regions_lock);
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i] && !nth--) {
            qatomic_inc(&vm->regions[i]->refs);
            return vm->regions[i];
        }
    }
    return NULL;
}

bool mm_vm_overlaps(MmVM *vm, uint64_t hva, uint64_t size)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&vm->regions_lock);
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = vm->regions[i];

        if (region && hva < region->hva + region->size &&
            region->hva < hva + size) {
            return true;
        }
    }
    return false;
}

void mm_region_put(MmVM *vm, MmRegion *region)
{
    if (qatomic_fetch_dec(&region->refs) == 1) {
        mm_region_free(vm, region);
    }
}

void mm_vm_publish_region(MmVM *vm, uint32_t id, MmRegion *region)
{
    g_mutex_lock(&vm->regions_lock);
    vm->regions[id] = region;
    g_mutex_unlock(&vm->regions_lock);
}

void mm_vm_resize(MmVM *vm, int64_t bytes)
{
    uint64_t size = qatomic_add_fetch(&vm->total_size, bytes);
    unsigned i;

    for (i = 0; i < vm->nr_tiers; i++) {
        if (vm->tiers[i]->ops->set_vm_size) {
            vm->tiers[i]->ops->set_vm_size(vm->tiers[i], size);
        }
    }
}

void mm_vm_add_tier(MmVM *vm, MmTier *tier)
{
    assert(vm->nr_tiers < MM_MAX_TIERS && !vm->by_number[tier->number]);
    tier->index = vm->nr_tiers;
    tier->key = vm->key;
    vm->tiers[vm->nr_tiers++] = tier;
    vm->by_number[tier->number] = tier;
}

bool mm_vm_set_key(MmVM *vm, const uint8_t *key, Error **errp)
{
    MmCipher *cipher = mm_cipher_new(key, 0, errp);
    unsigned i;

    if (!cipher) {
        return false;
    }
    mm_cipher_free(cipher);
    assert(!vm->key);
    vm->key = g_memdup2(key, MM_KEY_LEN);
    /* the host's swap is a disk, too; without the right to, it has to do */
    mlock(vm->key, MM_KEY_LEN);
    for (i = 0; i < vm->nr_tiers; i++) {
        qatomic_store_release(&vm->tiers[i]->key, vm->key);
    }
    vm->state->encrypted = 1;
    return true;
}

MmTier *mm_vm_tier(MmVM *vm, unsigned entry_tier)
{
    if (entry_tier < MM_TIER_FIRST ||
        entry_tier - MM_TIER_FIRST >= MM_MAX_TIERS) {
        return NULL;
    }
    return vm->by_number[entry_tier - MM_TIER_FIRST];
}

MmTier *mm_vm_last_tier(MmVM *vm)
{
    unsigned i;

    for (i = vm->nr_tiers; i > 0; i--) {
        if (!mm_tier_closed(vm->tiers[i - 1])) {
            return vm->tiers[i - 1];
        }
    }
    return NULL;
}

bool mm_region_reconciled(const MmRegion *region, uint64_t page)
{
    uint64_t chunk = page / MM_CHUNK_PAGES;

    return qatomic_load_acquire(&region->reconciled[BIT_WORD(chunk)]) &
           BIT_MASK(chunk);
}

void mm_vm_places_known(MmVM *vm)
{
    g_mutex_lock(&vm->places_lock);
    vm->places_known = true;
    g_cond_broadcast(&vm->places_cond);
    g_mutex_unlock(&vm->places_lock);
}

void mm_vm_wait_places(MmVM *vm)
{
    g_mutex_lock(&vm->places_lock);
    while (!vm->places_known) {
        g_cond_wait(&vm->places_cond, &vm->places_lock);
    }
    g_mutex_unlock(&vm->places_lock);
}

void mm_vm_start_queues(MmVM *vm, MmTierQueue **queues)
{
    unsigned i;

    for (i = 0; i < vm->nr_tiers; i++) {
        if (queues[i]->ops->start) {
            queues[i]->ops->start(queues[i]);
        }
    }
}

void mm_vm_event(MmVM *vm, MmEventKind kind, uint32_t region, uint64_t arg,
                 const char *fmt, ...)
{
    MmPendingEvent *slot = &vm->events[kind];
    va_list ap;

    g_mutex_lock(&vm->events_lock);
    /* the newest of a kind wins: events tell of a state */
    memset(slot, 0, sizeof(*slot));
    slot->pending = true;
    slot->seq = ++vm->events_seq;
    slot->event.kind = kind;
    slot->event.region = region;
    slot->event.arg = arg;
    va_start(ap, fmt);
    g_vsnprintf(slot->event.text, sizeof(slot->event.text), fmt, ap);
    va_end(ap);
    g_mutex_unlock(&vm->events_lock);
    mm_wake(vm->control_wake_fd);
}

bool mm_vm_io_failing(MmVM *vm, unsigned what, bool failing)
{
    if (failing) {
        qatomic_or(&vm->io_failing, what);
        return false;
    }
    return (qatomic_fetch_and(&vm->io_failing, ~what) & ~what) == 0;
}

void mm_vm_page_lost(MmVM *vm, const MmRegion *region, uint64_t page)
{
    uint64_t offset = page * MM_PAGE_SIZE;

    qatomic_add(&vm->state->stats.pages_lost, region->unit_pages);
    mm_vm_event(vm, MM_EVENT_PAGE_LOST, region->id, offset,
                "%s: the content of the page at offset 0x%" PRIx64 " is lost",
                region->idstr, offset);
}

bool mm_vm_take_event(MmVM *vm, MmMsgEvent *event, bool *again)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&vm->events_lock);
    MmPendingEvent *first = NULL;
    int i;

    for (i = 0; i < MM_EVENT__MAX; i++) {
        MmPendingEvent *slot = &vm->events[i];

        if (slot->pending && (!first || slot->seq < first->seq)) {
            first = slot;
        }
    }
    if (first) {
        first->pending = false;
        *again = first->again;
        *event = first->event;
    }
    return first;
}

void mm_vm_put_back_event(MmVM *vm, const MmMsgEvent *event)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&vm->events_lock);
    MmPendingEvent *slot = &vm->events[event->kind];

    if (!slot->pending) {
        slot->pending = true;
        slot->again = true;
        slot->seq = 0;
        slot->event = *event;
    }
}

void mm_wake(int eventfd)
{
    uint64_t one = 1;

    if (TEMP_FAILURE_RETRY(write(eventfd, &one, sizeof(one))) < 0) {
        /* the counter is full: the wake-up is pending already */
        assert(errno == EAGAIN);
    }
}

bool mm_unwake(int eventfd)
{
    uint64_t value;

    return TEMP_FAILURE_RETRY(read(eventfd, &value, sizeof(value))) > 0;
}
