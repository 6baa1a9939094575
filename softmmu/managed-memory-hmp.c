/*
 * Managed memory: commands of the human monitor
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "migration/managed-ram.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-managed-memory.h"
#include "qapi/qmp/qdict.h"
#include "qemu/cutils.h"
#include "qemu/module.h"

static void print_size(Monitor *mon, const char *label, uint64_t size)
{
    g_autofree char *text = size_to_str(size);

    monitor_printf(mon, "  %s: %s\n", label, text);
}

static void print_region(Monitor *mon, const ManagedMemoryRegion *region)
{
    monitor_printf(mon, "region %" PRIu32 ": %s\n", region->id, region->name);
    print_size(mon, "size", region->size);
    print_size(mon, "page size", region->page_size);
    if (region->has_limit) {
        print_size(mon, "adds to the limit", region->limit);
    }
    print_size(mon, "held for DMA", region->dma_held);
}

static void print_usage(Monitor *mon, const ManagedMemoryUsage *usage)
{
    monitor_printf(mon, "usage:\n");
    if (usage->has_limit) {
        print_size(mon, "limit", usage->limit);
    } else {
        monitor_printf(mon, "  limit: none\n");
    }
    print_size(mon, "resident", usage->resident);
    print_size(mon, "zero", usage->zero);
    print_size(mon, "swapped", usage->swapped);
    print_size(mon, "never touched", usage->never);
    monitor_printf(mon, "  faults: %" PRIu64 " first touch, %" PRIu64
                   " minor, %" PRIu64 " zero, %" PRIu64 " swap-in, %" PRIu64
                   " waited\n", usage->faults_missing, usage->faults_minor,
                   usage->faults_zero, usage->faults_swapin,
                   usage->faults_wait);
    monitor_printf(mon, "  waiting: %" PRIu32 " threads, oldest %" PRIu64
                   " ms\n", usage->stalled_threads, usage->oldest_fault_ms);
}

void managed_ram_print_info(Monitor *mon, const MigrationInfo *info)
{
    const ManagedRamStats *sent = info->managed_ram;

    if (info->has_managed_ram) {
        monitor_printf(mon, "not in memory: %" PRIu64 " pages never touched, %"
                       PRIu64 " zero, %" PRIu64 " of one value, %" PRIu64
                       " on shared storage, %" PRIu64 " swapped otherwise, %"
                       PRIu64 " idle, sent with %" PRIu64 " kbytes\n",
                       sent->never, sent->zero, sent->filled, sent->shared,
                       sent->fetched, sent->idle, sent->bytes >> 10);
    }
}

static void hmp_info_managed_memory(Monitor *mon, const QDict *qdict)
{
    g_autoptr(ManagedMemoryInfo) info = qmp_query_managed_memory(&error_abort);
    ManagedMemoryRegionList *item;

    monitor_printf(mon, "managed memory: %s\n",
                   ManagedMemoryStatus_str(info->status));
    if (info->has_path) {
        monitor_printf(mon, "manager: %s\nuuid: %s\n", info->path, info->uuid);
        monitor_printf(mon, "pagers lost: %" PRIu32 ", last stall %" PRIu64
                       " ms\n", info->lost, info->stall_last_ms);
        monitor_printf(mon, "tiers: %s\n",
                       info->encrypted ? "encrypted" : "not encrypted");
    }
    for (item = info->regions; item; item = item->next) {
        print_region(mon, item->value);
    }
    if (info->has_usage) {
        print_usage(mon, info->usage);
    } else if (info->status == MANAGED_MEMORY_STATUS_CONNECTED) {
        monitor_printf(mon, "usage: the pager does not answer\n");
    }
}

static void hmp_managed_memory_limit(Monitor *mon, const QDict *qdict)
{
    int64_t limit = qdict_get_int(qdict, "limit");
    Error *err = NULL;

    qmp_managed_memory_set_limit(limit, &err);
    hmp_handle_error(mon, err);
}

static void register_commands(void)
{
    monitor_register_hmp("managed-memory", true, hmp_info_managed_memory);
    monitor_register_hmp("managed_memory_limit", false,
                         hmp_managed_memory_limit);
}

type_init(register_commands);
