/*
 * Managed memory: the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages of managed memory that are zero are not read, since that would populate
 * them, and are not sent either: ranges of them are.  The section is registered
 * before ram's, and takes from the migration bitmap what it sends itself.
 *
 * Which pages are zero only the pager knows (MM_RING_LOOK).  For each window of
 * pages, in the migration thread:
 *
 *  1 look: which are dirty and zero?
 *  2 claim those: clear their bits, and those of the log that they came from
 *  3 look again; what is zero now goes into the stream, all else is given back
 *    by marking it dirty
 *
 * R1 A page whose zeros are sent was zero after its dirty bits had been
 *    cleared: what is written to it since then sets them again, and is sent
 *    later.  To clear them after the look might lose what is written meanwhile.
 * R2 What has been claimed is sent or given back before the window ends.
 * R3 The pager's word is taken only from the second look; without a pager
 *    everything counts as content.
 *
 * Zeros may neither overtake older content of the same page nor be overtaken by
 * newer, so the section is not used where content does not travel in the order
 * of the stream (multifd, compress), or depends on what was sent (xbzrle).
 *
 * The destination is asked before anything is sent (managed_ram_negotiate()).
 * One that does not understand the section is sent what any QEMU sends.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "managed-memory/shared.h"
#include "migration/managed-ram.h"
#include "migration/managed-ram-wire.h"
#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration/ram.h"
#include "migration/register.h"
#include "qapi/error.h"
#include "sysemu/managed-memory.h"

/* The pong of a destination that understands the section: "MMR", version */
#define PONG_UNDERSTOOD (0x4d4d5200 | MANAGED_RAM_VERSION)
/* The first ping of migration_thread() */
#define FIRST_PING 1
#define ANSWER_RECHECK_US 1000
#define ANSWER_TIMEOUT_MS 30000
#define WINDOW_PAGES MM_RING_LOOK_MAX

typedef struct ManagedRamSource {
    /* atomic: written by the thread of the return path */
    bool understood;            /* the destination says so */
    bool answered;              /* it has answered the first ping */
    /* atomic: written by the migration thread */
    bool active;

    /* owned by the migration thread */
    ManagedRamBlock *blocks;
    unsigned nr_blocks;
    uint64_t round;             /* of the bitmap that is being gone through */
    unsigned block;             /* how far */
    uint64_t page;
    GByteArray *out;
} ManagedRamSource;

/* Main thread */
typedef struct ManagedRamTarget {
    ManagedRamBlock *blocks;
    unsigned nr_blocks;
} ManagedRamTarget;

/* Runs of pages of one kind */
typedef struct Runs {
    ManagedRamType type;
    unsigned nr;
    ManagedRamRun run[WINDOW_PAGES / 2];
} Runs;

static ManagedRamSource source;
static ManagedRamTarget target;

QEMU_BUILD_BUG_ON(WINDOW_PAGES / 2 > MANAGED_RAM_RUNS_MAX);

/* ---- whether the destination understands it ---- */

static bool enabled(void)
{
    return migrate_get_current()->
           enabled_capabilities[MIGRATION_CAPABILITY_MANAGED_RAM];
}

static bool wanted(void)
{
    return managed_memory_used() && enabled() && !migrate_use_multifd() &&
           !migrate_use_compression() && !migrate_use_xbzrle() &&
           TARGET_PAGE_SIZE == MANAGED_RAM_PAGE_SIZE;
}

bool managed_ram_wants_return_path(MigrationState *s)
{
    Object *ioc = OBJECT(qemu_file_get_ioc(s->to_dst_file));

    /* a command or a pipe might take the request for a part of the stream */
    return wanted() && (object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_SOCKET) ||
                        object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_TLS));
}

static bool waits_for_answer(MigrationState *s)
{
    return !qatomic_load_acquire(&source.answered) &&
           s->state == MIGRATION_STATUS_SETUP && !s->rp_state.error &&
           !qemu_file_get_error(s->to_dst_file);
}

static void give_up(MigrationState *s)
{
    Error *err = NULL;

    error_setg(&err, "the destination has not answered within %d s; if it is "
               "none that could, switch migration capability managed-ram off",
               ANSWER_TIMEOUT_MS / 1000);
    migrate_set_error(s, err);
    error_free(err);
    qemu_file_set_error(s->to_dst_file, -ETIMEDOUT);
}

void managed_ram_negotiate(MigrationState *s)
{
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ANSWER_TIMEOUT_MS;

    if (!managed_ram_wants_return_path(s)) {
        return;
    }
    qemu_fflush(s->to_dst_file);
    while (waits_for_answer(s)) {
        if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) >= end) {
            give_up(s);
        }
        g_usleep(ANSWER_RECHECK_US);
    }
    qatomic_set(&source.active, qatomic_read(&source.understood));
}

void managed_ram_close_return_path(MigrationState *s)
{
    if (s->rp_state.rp_thread_created && managed_memory_used()) {
        WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
            if (s->rp_state.from_dst_file) {
                qemu_file_shutdown(s->rp_state.from_dst_file);
            }
        }
        qemu_thread_join(&s->rp_state.rp_thread);
        s->rp_state.rp_thread_created = false;
    }
    /* nobody is left who could say anything */
    qatomic_set(&source.answered, false);
    qatomic_set(&source.understood, false);
}

void managed_ram_pong(uint32_t value)
{
    if (value == PONG_UNDERSTOOD) {
        qatomic_set(&source.understood, true);
    } else if (value == FIRST_PING) {
        qatomic_store_release(&source.answered, true);
    }
}

void managed_ram_ping(MigrationIncomingState *mis)
{
    if (enabled()) {
        migrate_send_rp_pong(mis, PONG_UNDERSTOOD);
    }
}

/* ---- source ---- */

static bool is_active(void *opaque)
{
    return qatomic_read(&source.active);
}

static void send_out(QEMUFile *f)
{
    qemu_put_buffer(f, source.out->data, source.out->len);
    g_byte_array_set_size(source.out, 0);
}

static void find_blocks(void)
{
    RAMBlock *rb;

    source.blocks = g_new0(ManagedRamBlock, MANAGED_RAM_BLOCKS_MAX);
    source.nr_blocks = 0;
    RCU_READ_LOCK_GUARD();
    RAMBLOCK_FOREACH_NOT_IGNORED(rb) {
        if (managed_memory_look(rb->host, 0, NULL) &&
            source.nr_blocks < MANAGED_RAM_BLOCKS_MAX) {
            ManagedRamBlock *block = &source.blocks[source.nr_blocks++];

            pstrcpy(block->name, sizeof(block->name), rb->idstr);
            block->size = rb->used_length;
        }
    }
}

static int save_setup(QEMUFile *f, void *opaque)
{
    find_blocks();
    source.out = g_byte_array_new();
    source.round = 0;
    source.block = 0;
    source.page = 0;
    managed_ram_put_hello(source.out, source.blocks, source.nr_blocks);
    managed_ram_put_end(source.out);
    send_out(f);
    return 0;
}

static void save_cleanup(void *opaque)
{
    g_clear_pointer(&source.blocks, g_free);
    if (source.out) {
        g_byte_array_free(source.out, true);
        source.out = NULL;
    }
    qatomic_set(&source.active, false);
}

static void add_page(Runs *runs, uint64_t page)
{
    ManagedRamRun *last = runs->nr ? &runs->run[runs->nr - 1] : NULL;

    if (last && last->first + last->nr == page) {
        last->nr++;
    } else {
        runs->run[runs->nr++] = (ManagedRamRun) { .first = page, .nr = 1 };
    }
}

/* Step 2: mark in @claimed what is dirty and @look takes for zero. */
static unsigned claim(RAMBlock *rb, uint64_t page, unsigned nr,
                      const uint8_t *look, unsigned long *claimed)
{
    unsigned i, first = 0, count = 0;

    bitmap_zero(claimed, nr);
    for (i = 0; i <= nr; i++) {
        if (i < nr && look[i] != MM_LOOK_CONTENT &&
            test_bit(page + i, rb->bmap)) {
            set_bit(i, claimed);
            count++;
            continue;
        }
        if (i > first) {
            qemu_guest_free_page_hint(rb->host +
                                      (page + first) * MANAGED_RAM_PAGE_SIZE,
                                      (i - first) * MANAGED_RAM_PAGE_SIZE);
        }
        first = i + 1;
    }
    return count;
}

/* Step 3 */
static void send_claimed(QEMUFile *f, RAMBlock *rb, uint64_t page, unsigned nr,
                         const uint8_t *look, const unsigned long *claimed)
{
    static Runs never, zero;
    unsigned i;

    never.type = MANAGED_RAM_NEVER;
    zero.type = MANAGED_RAM_ZERO;
    never.nr = zero.nr = 0;
    for (i = find_first_bit(claimed, nr); i < nr;
         i = find_next_bit(claimed, nr, i + 1)) {
        if (look[i] == MM_LOOK_NEVER) {
            add_page(&never, page + i);
        } else if (look[i] == MM_LOOK_ZERO) {
            add_page(&zero, page + i);
        } else {
            /* and not for TCG's translations: nothing has been written */
            cpu_physical_memory_set_dirty_range(
                rb->offset + (page + i) * MANAGED_RAM_PAGE_SIZE,
                MANAGED_RAM_PAGE_SIZE, 1 << DIRTY_MEMORY_MIGRATION);
        }
    }
    if (never.nr) {
        managed_ram_put_runs(source.out, never.type, source.block, never.run,
                             never.nr);
    }
    if (zero.nr) {
        managed_ram_put_runs(source.out, zero.type, source.block, zero.run,
                             zero.nr);
    }
    send_out(f);
}

static void send_window(QEMUFile *f, RAMBlock *rb, uint64_t page, unsigned nr)
{
    void *host = rb->host + page * MANAGED_RAM_PAGE_SIZE;
    DECLARE_BITMAP(claimed, WINDOW_PAGES);
    uint8_t look[WINDOW_PAGES];

    if (managed_memory_look(host, nr, look) &&
        claim(rb, page, nr, look, claimed)) {
        managed_memory_look(host, nr, look);
        send_claimed(f, rb, page, nr, look, claimed);
    }
}

/* Go on with the first window that has dirty pages; false: there is none. */
static bool step(QEMUFile *f)
{
    RCU_READ_LOCK_GUARD();
    while (source.block < source.nr_blocks) {
        const ManagedRamBlock *block = &source.blocks[source.block];
        RAMBlock *rb = qemu_ram_block_by_name(block->name);
        uint64_t end = rb && rb->bmap
                       ? MIN(block->size, rb->used_length) /
                         MANAGED_RAM_PAGE_SIZE : 0;
        uint64_t page = end ? find_next_bit(rb->bmap, end, source.page) : end;

        if (page < end) {
            unsigned nr = MIN(end - page, WINDOW_PAGES);

            send_window(f, rb, page, nr);
            source.page = page + nr;
            return true;
        }
        source.block++;
        source.page = 0;
    }
    return false;
}

static void new_round(void)
{
    source.round = ram_counters.dirty_sync_count;
    source.block = 0;
    source.page = 0;
}

/* Returns 1 if ram may go on, 0 if not all has been looked through yet. */
static int save_iterate(QEMUFile *f, void *opaque)
{
    bool more = true;

    if (source.round != ram_counters.dirty_sync_count) {
        new_round();
    }
    while (more && !qemu_file_rate_limit(f)) {
        more = step(f);
    }
    managed_ram_put_end(source.out);
    send_out(f);
    return !more;
}

/* The rest is little, the guest stands still: ram sends it as content. */
static int save_complete(QEMUFile *f, void *opaque)
{
    managed_ram_put_end(source.out);
    send_out(f);
    return 0;
}

/* ---- destination ---- */

static bool load_hello(const uint8_t *buf, uint32_t len, Error **errp)
{
    int nr, i;

    if (target.blocks) {
        error_setg(errp, "a second HELLO");
        return false;
    }
    target.blocks = g_new0(ManagedRamBlock, MANAGED_RAM_BLOCKS_MAX);
    nr = managed_ram_get_hello(buf, len, target.blocks, errp);
    RCU_READ_LOCK_GUARD();
    for (i = 0; i < nr; i++) {
        const ManagedRamBlock *block = &target.blocks[i];
        RAMBlock *rb = qemu_ram_block_by_name(block->name);

        if (!rb || ramblock_is_ignored(rb) || rb->used_length != block->size) {
            error_setg(errp, "block '%s' has 0x%" PRIx64 " bytes at the "
                       "source, 0x%" PRIx64 " here", block->name, block->size,
                       rb ? (uint64_t)rb->used_length : 0);
            return false;
        }
    }
    target.nr_blocks = MAX(nr, 0);
    return nr >= 0;
}

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
        return load_hello(buf, header.len, errp) ? 0 : -1;
    case MANAGED_RAM_NEVER:
    case MANAGED_RAM_ZERO:
        return load_zeros(buf, header.len, errp) ? 0 : -1;
    default:
        return 0;
    }
}

static int load_state(QEMUFile *f, void *opaque, int version_id)
{
    g_autofree uint8_t *buf = g_malloc(MANAGED_RAM_PAYLOAD_MAX);
    Error *err = NULL;
    int ret;

    do {
        ret = load_record(f, buf, &err);
    } while (ret == 0);
    if (ret < 0) {
        error_reportf_err(err, "managed memory cannot be loaded: ");
        return -EINVAL;
    }
    return 0;
}

static int load_cleanup(void *opaque)
{
    g_clear_pointer(&target.blocks, g_free);
    target.nr_blocks = 0;
    return 0;
}

static SaveVMHandlers handlers = {
    .save_setup = save_setup,
    .save_live_iterate = save_iterate,
    .save_live_complete_precopy = save_complete,
    .save_cleanup = save_cleanup,
    .is_active = is_active,
    .load_state = load_state,
    .load_cleanup = load_cleanup,
};

void managed_ram_init(void)
{
    register_savevm_live("managed-ram", 0, MANAGED_RAM_VERSION, &handlers,
                         NULL);
}
