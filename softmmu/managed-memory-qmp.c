/*
 * Managed memory: QMP commands and events
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Commands run in the main thread and wait for the pager for a bounded time.
 * Events are sent by the thread that receives them from the pager, so that
 * they get out while the main thread waits for a page.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-managed-memory.h"
#include "qapi/qapi-events-managed-memory.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "backends/managed-memory-internal.h"

#define QUERY_TIMEOUT_MS 1000
#define SET_LIMIT_TIMEOUT_MS 5000

/* ---- events ---- */

void managed_event_lost(const char *path)
{
    qapi_event_send_managed_memory_lost(path);
}

void managed_event_recovered(const char *path, uint64_t stall_ms)
{
    qapi_event_send_managed_memory_recovered(path, stall_ms);
}

void managed_event_detached(void)
{
    qapi_event_send_managed_memory_detached();
}

void managed_event_from_pager(const MmMsgEvent *event)
{
    switch (event->kind) {
    case MM_EVENT_IO_ERROR:
        qapi_event_send_managed_memory_io_error(true, event->arg, event->text);
        break;
    case MM_EVENT_IO_RECOVERED:
        qapi_event_send_managed_memory_io_error(false, 0, event->text);
        break;
    case MM_EVENT_PRESSURE:
        qapi_event_send_managed_memory_pressure(true, event->arg, event->text);
        break;
    case MM_EVENT_PRESSURE_OVER:
        qapi_event_send_managed_memory_pressure(false, 0, event->text);
        break;
    case MM_EVENT_PAGE_LOST:
        qapi_event_send_managed_memory_page_lost(event->region, event->arg,
                                                 event->text);
        break;
    default:
        error_report("managed memory: unknown event %u from the pager: %s",
                     event->kind, event->text);
        break;
    }
}

/* ---- query ---- */

static ManagedMemoryStatus status_of(ManagedConnState state)
{
    switch (state) {
    case MANAGED_CONN_NONE:
        return MANAGED_MEMORY_STATUS_NONE;
    case MANAGED_CONN_CONNECTED:
        return MANAGED_MEMORY_STATUS_CONNECTED;
    case MANAGED_CONN_LOST:
    case MANAGED_CONN_RESUMING:
        return MANAGED_MEMORY_STATUS_LOST;
    case MANAGED_CONN_DETACHED:
        return MANAGED_MEMORY_STATUS_DETACHED;
    }
    g_assert_not_reached();
}

static ManagedMemoryRegion *describe_region(const ManagedRegion *region)
{
    ManagedMemoryRegion *info = g_new0(ManagedMemoryRegion, 1);

    info->id = region->id;
    info->name = g_strdup(region->idstr);
    info->backend = g_strdup(region->owner);
    info->size = region->size;
    info->page_size = region->page_size;
    info->has_limit = region->limit != MM_LIMIT_NONE;
    info->limit = info->has_limit ? region->limit : 0;
    info->dma_held = managed_dma_held(region);
    return info;
}

static ManagedMemoryRegionList *describe_regions(void)
{
    g_autoptr(GPtrArray) regions = managed_regions_snapshot();
    ManagedMemoryRegionList *list = NULL, **tail = &list;
    unsigned i;

    for (i = 0; i < regions->len; i++) {
        QAPI_LIST_APPEND(tail, describe_region(regions->pdata[i]));
        managed_region_unref(regions->pdata[i]);
    }
    return list;
}

static ManagedMemoryUsage *describe_usage(const MmMsgQueryReply *reply)
{
    ManagedMemoryUsage *usage = g_new0(ManagedMemoryUsage, 1);
    const MmStats *stats = &reply->stats;

    usage->size = reply->size;
    usage->has_limit = reply->limit != MM_LIMIT_NONE;
    usage->limit = usage->has_limit ? reply->limit : 0;
    usage->has_hard_limit = reply->hard_limit != MM_LIMIT_NONE;
    usage->hard_limit = usage->has_hard_limit ? reply->hard_limit : 0;
    usage->resident = reply->resident;
    usage->zero = reply->zero;
    usage->swapped = reply->swapped;
    usage->never = reply->never;
    usage->faults_missing = stats->fault_missing;
    usage->faults_minor = stats->fault_minor;
    usage->faults_zero = stats->fault_zero;
    usage->faults_swapin = stats->fault_swapin;
    usage->faults_wait = stats->fault_wait;
    usage->stalled_threads = reply->stalled_threads;
    usage->oldest_fault_ms = reply->oldest_fault_ns / SCALE_MS;
    usage->read_errors = stats->read_errors;
    usage->write_errors = stats->write_errors;
    usage->pages_lost = stats->pages_lost;
    usage->pager_starts = stats->pager_starts;
    return usage;
}

static ManagedMemoryUsage *query_usage(void)
{
    static const ManagedCall call = {
        .type = MM_MSG_QUERY, .want = MM_MSG_QUERY_REPLY,
        .timeout_ms = QUERY_TIMEOUT_MS,
    };
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    ManagedMemoryUsage *usage = NULL;

    if (managed_conn_call(&call, reply, NULL) == 0) {
        usage = describe_usage((const MmMsgQueryReply *)reply->payload);
    }
    mm_msg_clear(reply);
    return usage;
}

ManagedMemoryInfo *qmp_query_managed_memory(Error **errp)
{
    ManagedMemoryInfo *info = g_new0(ManagedMemoryInfo, 1);
    ManagedConnInfo conn;

    managed_conn_info(&conn);
    info->status = status_of(conn.state);
    info->encrypted = conn.encrypted;
    info->lost = conn.lost;
    info->stall_last_ms = conn.stall_last_ms;
    info->stall_total_ms = conn.stall_total_ms;
    info->discards_skipped = managed_discards_skipped();
    info->regions = describe_regions();
    if (conn.path) {
        QemuUUID uuid;

        memcpy(uuid.data, conn.uuid, sizeof(uuid.data));
        info->has_path = true;
        info->path = conn.path;
        info->has_uuid = true;
        info->uuid = qemu_uuid_unparse_strdup(&uuid);
        info->usage = query_usage();
        info->has_usage = info->usage != NULL;
    }
    return info;
}

/* ---- limit ---- */

void qmp_managed_memory_set_limit(uint64_t limit, Error **errp)
{
    MmMsgAmount amount = { .value = limit ?: MM_LIMIT_NONE };
    ManagedCall call = {
        .type = MM_MSG_SET_LIMIT, .payload = &amount, .len = sizeof(amount),
        .want = MM_MSG_OK, .timeout_ms = SET_LIMIT_TIMEOUT_MS,
    };
    g_autofree MmMsg *reply = NULL;

    if (!managed_memory_used()) {
        error_setg(errp, "this VM has no managed memory");
        return;
    }
    reply = g_new0(MmMsg, 1);
    managed_conn_call(&call, reply, errp);
    mm_msg_clear(reply);
}
