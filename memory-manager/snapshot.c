/*
 * qemu-memory-manager: what a pager has told about its VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A refresh asks all pagers at once: QUERY, then QUERY_REGION for one region
 * after the other, so that no pager's socket fills up. Answers are taken
 * whenever they come. Only the query that waits for them has a time limit,
 * and it does not wait for a pager that has exceeded it before: a pager that
 * hangs costs one query one second, not every query.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "io-throttle.h"
#include "latency.h"
#include "vm.h"
#include "working-set.h"

static struct {
    MmManager *mgr;
    Coroutine *co;              /* NULL: nobody waits */
    bool stopped;               /* nobody waits again */
} waiter;

void mm_snapshot_init(MmSnapshot *snap)
{
    *snap = (MmSnapshot) {
        .stale = true,
        .regions = g_array_new(false, false, sizeof(MmMsgRegionInfo)),
        .next_regions = g_array_new(false, false, sizeof(MmMsgRegionInfo)),
    };
}

void mm_snapshot_clear(MmSnapshot *snap)
{
    g_array_unref(snap->regions);
    g_array_unref(snap->next_regions);
}

static bool is_awaited(const MmSnapshot *snap, int64_t now)
{
    return snap->asked_ms && now - snap->asked_ms < MM_QUERY_TIMEOUT_MS;
}

static bool any_awaited(MmManager *mgr)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        if (is_awaited(&vm->snapshot, now)) {
            return true;
        }
    }
    return false;
}

static void wake_waiter(void)
{
    Coroutine *co = waiter.co;

    waiter.co = NULL;
    if (co) {
        aio_co_wake(co);
    }
}

void mm_snapshot_stop(void)
{
    waiter.stopped = true;
    wake_waiter();
}

static void waited_long_enough(void *opaque)
{
    wake_waiter();
}

static void end_refresh(MmVM *vm, bool complete)
{
    MmSnapshot *snap = &vm->snapshot;

    if (complete) {
        GArray *old = snap->regions;

        snap->vm = snap->next_vm;
        snap->regions = snap->next_regions;
        snap->next_regions = old;
        snap->taken_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
        snap->stale = false;
    }
    snap->asked_ms = 0;
    if (waiter.co && !any_awaited(waiter.mgr)) {
        wake_waiter();
    }
}

static void ask_region(MmVM *vm);

static void region_answered(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;
    GArray *regions = vm->snapshot.next_regions;

    if (!mm_reply_ok(msg, MM_MSG_REGION_INFO, NULL)) {
        /* one that was removed meanwhile is no error */
        end_refresh(vm, msg && msg->hdr.type == MM_MSG_ERROR);
        return;
    }
    g_array_append_vals(regions, msg->payload, 1);
    if (regions->len < vm->snapshot.next_vm.nr_regions) {
        ask_region(vm);
    } else {
        end_refresh(vm, true);
    }
}

static void ask_region(MmVM *vm)
{
    MmMsgRegionRef ref = { .id = vm->snapshot.next_regions->len };

    if (!vm->link || !mm_link_request(vm->link, MM_MSG_QUERY_REGION,
                                      &ref, sizeof(ref), region_answered, vm,
                                      NULL)) {
        end_refresh(vm, false);
    }
}

static void vm_answered(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;
    MmSnapshot *snap = &vm->snapshot;

    if (!mm_reply_ok(msg, MM_MSG_QUERY_REPLY, NULL)) {
        end_refresh(vm, false);
        return;
    }
    memcpy(&snap->next_vm, msg->payload, sizeof(snap->next_vm));
    snap->next_vm.nr_regions = MIN(snap->next_vm.nr_regions, MM_MAX_REGIONS);
    g_array_set_size(snap->next_regions, 0);
    if (snap->next_vm.nr_regions) {
        ask_region(vm);
    } else {
        end_refresh(vm, true);
    }
}

static void begin_refresh(MmVM *vm)
{
    vm->snapshot.stale = true;
    if (vm->snapshot.asked_ms) {
        return;
    }
    if (mm_vm_connect(vm, NULL) &&
        mm_link_request(vm->link, MM_MSG_QUERY, NULL, 0, vm_answered, vm,
                        NULL)) {
        vm->snapshot.asked_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    }
}

void coroutine_fn mm_snapshot_refresh(MmManager *mgr, const char *match)
{
    QEMUTimer *timer;
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        if (!match || mm_vm_matches(vm, match)) {
            begin_refresh(vm);
        }
    }
    if (waiter.stopped || !any_awaited(mgr)) {
        return;
    }
    timer = timer_new_ms(QEMU_CLOCK_REALTIME, waited_long_enough, NULL);
    timer_mod(timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                     MM_QUERY_TIMEOUT_MS);
    waiter.mgr = mgr;
    waiter.co = qemu_coroutine_self();
    qemu_coroutine_yield();
    timer_free(timer);
}

static ManagedVMTierList *describe_tiers(const MmRecord *rec,
                                         const MmMsgQueryReply *reply)
{
    ManagedVMTierList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < rec->nr_tiers; i++) {
        const MmMsgStartTier *conf = &rec->tiers[i].conf;
        ManagedVMTier *tier;

        if (!(reply->tiers & 1u << conf->number)) {
            continue;
        }
        tier = g_new0(ManagedVMTier, 1);
        tier->name = g_strdup(conf->name);
        tier->draining = conf->draining;
        tier->content = reply->tier_content[conf->number];
        tier->used = reply->tier_used[conf->number];
        tier->size = reply->tier_size[conf->number];
        tier->written = reply->stats.tier_written[conf->number];
        tier->throttling = mm_io_throttle_describe(&conf->io);
        tier->has_throttling = tier->throttling;
        QAPI_LIST_APPEND(tail, tier);
    }
    return list;
}

static ManagedVMRegionList *describe_regions(const GArray *regions)
{
    ManagedVMRegionList *list = NULL, **tail = &list;
    int i;

    for (i = 0; i < regions->len; i++) {
        const MmMsgRegionInfo *info = &g_array_index(regions,
                                                     MmMsgRegionInfo, i);
        ManagedVMRegion *region = g_new0(ManagedVMRegion, 1);

        region->id = info->id;
        region->name = g_strdup(info->idstr);
        region->size = info->size;
        region->page_size = info->page_size;
        region->resident = info->resident;
        region->zero = info->zero;
        region->swapped = info->swapped;
        region->never_populated = info->never;
        region->dma_held = info->dma_held;
        QAPI_LIST_APPEND(tail, region);
    }
    return list;
}

static ManagedVMFaults *describe_faults(const MmStats *stats)
{
    ManagedVMFaults *out = g_new0(ManagedVMFaults, 1);

    out->missing = stats->fault_missing;
    out->minor = stats->fault_minor;
    out->zero = stats->fault_zero;
    out->swap_in = stats->fault_swapin;
    out->waited = stats->fault_wait;
    out->refault = stats->refault;
    return out;
}

static ManagedVMPages *describe_pages(const MmStats *stats)
{
    ManagedVMPages *out = g_new0(ManagedVMPages, 1);

    out->populated = stats->pages_populated;
    out->read = stats->pages_read;
    out->written = stats->pages_written;
    out->zapped = stats->pages_zapped;
    out->evicted = stats->pages_evicted;
    out->evicted_zero = stats->pages_evicted_zero;
    out->moved = stats->pages_moved;
    out->discarded = stats->pages_discarded;
    out->overwritten = stats->pages_overwritten;
    out->fetched = stats->pages_fetched;
    out->stored = stats->pages_stored;
    out->adopted = stats->pages_adopted;
    out->lost = stats->pages_lost;
    out->throttled = stats->io_put_off;
    return out;
}

static ManagedVMErrors *describe_errors(const MmStats *stats)
{
    ManagedVMErrors *out = g_new0(ManagedVMErrors, 1);

    out->read = stats->read_errors;
    out->write = stats->write_errors;
    out->checksum = stats->checksum_errors;
    return out;
}

static ManagedVMLatency *describe_latency(const MmStats *stats)
{
    ManagedVMLatency *out = g_new0(ManagedVMLatency, 1);
    uint64List **tail = &out->histogram;
    int i;

    for (i = 0; i < MM_LATENCY_BUCKETS; i++) {
        QAPI_LIST_APPEND(tail, stats->latency[i]);
    }
    out->p50_us = mm_latency_percentile_us(stats->latency, 0.5);
    out->p99_us = mm_latency_percentile_us(stats->latency, 0.99);
    out->p999_us = mm_latency_percentile_us(stats->latency, 0.999);
    return out;
}

static ManagedVMWorkingSet *describe_working_set(const MmMsgSample *sample)
{
    ManagedVMWorkingSet *out;

    if (!sample->pages) {
        return NULL;
    }
    out = g_new0(ManagedVMWorkingSet, 1);
    mm_working_set(sample, &out->size, &out->error);
    out->pages = sample->pages;
    out->interval_ms = sample->interval_ns / 1000000;
    out->age_ms = sample->age_ns / 1000000;
    return out;
}

static void describe_sizes(const MmMsgQueryReply *reply, ManagedVMMemory *out)
{
    out->size = reply->size;
    out->has_limit = reply->limit != MM_LIMIT_NONE;
    out->limit = out->has_limit ? reply->limit : 0;
    out->has_hard_limit = reply->hard_limit != MM_LIMIT_NONE;
    out->hard_limit = out->has_hard_limit ? reply->hard_limit : 0;
    out->resident = reply->resident;
    out->zero = reply->zero;
    out->swapped = reply->swapped;
    out->never_populated = reply->never;
}

void mm_snapshot_describe(MmVM *vm, ManagedVMMemory *out)
{
    const MmSnapshot *snap = &vm->snapshot;
    const MmMsgQueryReply *reply = &snap->vm;

    out->stale = snap->stale;
    out->has_age_ms = snap->taken_ms;
    if (out->has_age_ms) {
        out->age_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) - snap->taken_ms;
        describe_sizes(reply, out);
    }
    out->serving = vm->state == MANAGEDVM_STATE_SERVING;
    out->encrypted = reply->encrypted;
    out->stalled_threads = reply->stalled_threads;
    out->oldest_fault_ms = reply->oldest_fault_ns / SCALE_MS;
    out->last_stall_ms = reply->stats.last_stall_ns / SCALE_MS;
    out->pager_starts = reply->stats.pager_starts;
    out->faults = describe_faults(&reply->stats);
    out->pages = describe_pages(&reply->stats);
    out->errors = describe_errors(&reply->stats);
    out->latency = describe_latency(&reply->stats);
    out->working_set = describe_working_set(&reply->sample);
    out->has_working_set = out->working_set;
    out->tiers = describe_tiers(&vm->rec, reply);
    out->regions = describe_regions(snap->regions);
}
