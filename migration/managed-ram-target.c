/*
 * Managed memory: what becomes of pages that arrive with a migration
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Zero pages are discarded, content of swapped pages goes where swapped pages
 * are: neither takes memory here.  Memory that is not managed is written to.
 *
 * The stream is hostile until it has been checked.  Records take effect in the
 * order in which they come, and all of them before the section's part ends.
 */
#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "block/aio.h"
#include "exec/ramblock.h"
#include "exec/ram_addr.h"
#include "migration/managed-ram-internal.h"
#include "migration/misc.h"
#include "migration/multifd.h"
#include "migration/ram.h"
#include "qapi/error.h"
#include "sysemu/managed-memory.h"
#include "sysemu/managed-memory-handover.h"

/* How long records may keep the main loop waiting */
#define YIELD_MS 10

/* Main thread */
static ManagedRamHello target;

static void write_zeros(RAMBlock *rb, uint64_t start, uint64_t end)
{
    for (; start < end; start += MANAGED_RAM_PAGE_SIZE) {
        ram_handle_compressed(rb->host + start, 0, MANAGED_RAM_PAGE_SIZE);
    }
}

/*
 * What there is may be firmware, or what an earlier round has brought.  Memory
 * that is not managed is left as it is allocated, as ram does with zero pages.
 */
static int make_zero(RAMBlock *rb, uint64_t start, uint64_t end)
{
    uint64_t first = QEMU_ALIGN_UP(start, rb->page_size);
    uint64_t last = QEMU_ALIGN_DOWN(end, rb->page_size);

    if (first >= last || !managed_memory_look(rb->host, 0, NULL)) {
        write_zeros(rb, start, end);
        return 0;
    }
    write_zeros(rb, start, first);
    write_zeros(rb, last, end);
    return ram_discard_range(rb->idstr, first, last - first);
}

static bool load_zeros(const uint8_t *buf, uint32_t len, Error **errp)
{
    g_autofree ManagedRamRun *runs = g_new(ManagedRamRun, MANAGED_RAM_RUNS_MAX);
    uint32_t block;
    RAMBlock *rb;
    int i, nr;

    /* what comes now is newer */
    managed_memory_store_flush();
    nr = managed_ram_get_runs(buf, len, target.blocks, target.nr_blocks,
                              &block, runs, errp);
    if (nr < 0) {
        return false;
    }
    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_by_name(target.blocks[block].name);
    for (i = 0; rb && i < nr; i++) {
        uint64_t start = runs[i].first * MANAGED_RAM_PAGE_SIZE;
        int ret = make_zero(rb, start,
                            start + runs[i].nr * MANAGED_RAM_PAGE_SIZE);

        if (ret < 0) {
            error_setg_errno(errp, -ret, "block '%s': cannot discard pages "
                             "0x%" PRIx64 " +0x%" PRIx64, rb->idstr,
                             runs[i].first, runs[i].nr);
            return false;
        }
    }
    return true;
}

/* To where swapped pages are, in managed memory. */
static void put_content(uint32_t block, const ManagedRamRun *run,
                        const uint8_t *content)
{
    RAMBlock *rb;

    RCU_READ_LOCK_GUARD();
    rb = qemu_ram_block_by_name(target.blocks[block].name);
    if (rb) {
        uint8_t *host = rb->host + run->first * MANAGED_RAM_PAGE_SIZE;

        if (!managed_memory_store(host, run->nr, content)) {
            memcpy(host, content, run->nr * MANAGED_RAM_PAGE_SIZE);
        }
    }
}

static bool load_data(const uint8_t *buf, uint32_t len, Error **errp)
{
    const uint8_t *content;
    ManagedRamRun run;
    uint32_t block;

    content = managed_ram_get_data(buf, len, target.blocks, target.nr_blocks,
                                   &block, &run, errp);
    if (!content) {
        return false;
    }
    put_content(block, &run, content);
    return true;
}

static bool load_fill(const uint8_t *buf, uint32_t len, Error **errp)
{
    g_autofree uint8_t *content = NULL;
    const uint8_t *value;
    ManagedRamRun run;
    uint32_t block, i;

    value = managed_ram_get_fill(buf, len, target.blocks, target.nr_blocks,
                                 &block, &run, errp);
    if (!value) {
        return false;
    }
    len = run.nr * MANAGED_RAM_PAGE_SIZE;
    content = g_malloc(len);
    for (i = 0; i < len; i += MANAGED_RAM_VALUE_LEN) {
        memcpy(content + i, value, MANAGED_RAM_VALUE_LEN);
    }
    put_content(block, &run, content);
    return true;
}

/* To where they are already. */
static bool load_places(const uint8_t *buf, uint32_t len, Error **errp)
{
    g_autofree MmPlace *places = g_new(MmPlace, MANAGED_RAM_PLACES_MAX);
    ManagedRamRun run;
    uint32_t block;
    uint8_t *host;
    uint64_t i;

    managed_memory_store_flush();
    if (!managed_ram_get_places(buf, len, target.blocks, target.nr_blocks,
                                &block, &run, places, errp)) {
        return false;
    }
    if (!target.file.present) {
        error_setg(errp, "places, but the HELLO has named no file");
        return false;
    }
    for (i = 0; i < run.nr; i++) {
        places[i].tier = target.tier;
    }
    host = managed_ram_host(&target.blocks[block]);
    return !host ||
           managed_memory_adopt(host + run.first * MANAGED_RAM_PAGE_SIZE,
                                run.nr, target.blocks[block].seed, places,
                                errp);
}

/* Returns 1 after END, 0 if more follows, or -1. */
static int load_record(QEMUFile *f, uint8_t *buf, Error **errp)
{
    ManagedRamHeader header;

    qemu_get_buffer(f, buf, MANAGED_RAM_HEADER_LEN);
    if (qemu_file_get_error(f)) {
        error_setg(errp, "the stream ends within the section");
        return -1;
    }
    if (!managed_ram_get_header(buf, &header, errp)) {
        return -1;
    }
    qemu_get_buffer(f, buf, header.len);
    if (qemu_file_get_error(f)) {
        error_setg(errp, "the stream ends within record %u", header.type);
        return -1;
    }
    switch (header.type) {
    case MANAGED_RAM_END:
        return 1;
    case MANAGED_RAM_HELLO:
        return managed_ram_hear_hello(&target, buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_ROOM:
        return managed_ram_hear_room(&target, buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_ENCRYPTED:
        return managed_ram_hear_encrypted(errp) ? 0 : -1;
    case MANAGED_RAM_WAKE:
        return managed_ram_hear_wake(&target, buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_NEVER:
    case MANAGED_RAM_ZERO:
        return load_zeros(buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_DATA:
        return load_data(buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_FILL:
        return load_fill(buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_PLACES:
        return load_places(buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_SYNC:
        managed_memory_store_flush();
        multifd_recv_sync_main();
        return 0;
    default:
        return 0;
    }
}

/* The monitor works in this thread, too. */
static void let_others_run(int64_t *since_ms)
{
    int64_t now_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now_ms - *since_ms >= YIELD_MS && qemu_in_coroutine()) {
        *since_ms = now_ms;
        aio_co_schedule(qemu_get_current_aio_context(),
                        qemu_coroutine_self());
        qemu_coroutine_yield();
    }
}

int managed_ram_load_state(QEMUFile *f, void *opaque, int version_id)
{
    g_autofree uint8_t *buf = g_malloc(MANAGED_RAM_PAYLOAD_MAX);
    int64_t since_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    Error *err = NULL;
    int ret;

    do {
        let_others_run(&since_ms);
        ret = load_record(f, buf, &err);
    } while (ret == 0);
    /* what ram brings after it is newer, and the guest may run then */
    managed_memory_store_flush();
    if (ret < 0) {
        managed_ram_refuse(error_get_pretty(err));
        error_reportf_err(err, "managed memory cannot be loaded: ");
        return -EINVAL;
    }
    return 0;
}

int managed_ram_load_cleanup(void *opaque)
{
    managed_ram_forget(&target);
    return 0;
}
