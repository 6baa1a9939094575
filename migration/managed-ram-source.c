/*
 * Managed memory: what a migration sends of pages out of memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that are zero are not read, since that would populate them, and are
 * not sent either: ranges of them are.  The content of swapped pages is fetched
 * from where it is, and they stay there: the guest's working set need not make
 * room.
 *
 * What a page is only the pager knows (MM_RING_LOOK).  For each window of
 * pages, in the migration thread:
 *
 *  1 look: which are dirty and out of memory?
 *  2 claim those: clear their bits, and those of the log that they came from
 *  3 look again, and fetch what is swapped out; what is out of memory now goes
 *    into the stream, all else is given back by marking it dirty
 *
 * R1 What is sent of a page was so after its dirty bits had been cleared: what
 *    is written to it since then sets them again, and is sent later.  To clear
 *    them after the look might lose what is written meanwhile.
 * R2 What has been claimed is sent or given back before the window ends.
 * R3 The pager's word is taken only from the second look; without a pager
 *    everything counts as content in memory.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/rcu.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "managed-memory/shared.h"
#include "migration/managed-ram-internal.h"
#include "migration/managed-ram-wire.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/multifd.h"
#include "migration/ram.h"
#include "sysemu/managed-memory.h"

#define WINDOW_PAGES MM_RING_LOOK_MAX
/* Most swapped pages of one window: what is read at once, and then sent */
#define FETCH_PAGES MANAGED_MEMORY_FETCH_PAGES

typedef struct ManagedRamSource {
    ManagedRamBlock *blocks;
    unsigned nr_blocks;
    uint64_t round;             /* of the bitmap that is being gone through */
    unsigned block;             /* how far */
    uint64_t page;
    bool any;                   /* something of this part has been sent */
    GByteArray *out;
    uint8_t *content;           /* of FETCH_PAGES pages */

    /* atomic; kept until the next migration */
    ManagedRamStats sent;
} ManagedRamSource;

/* Dirty pages of a block that are looked at together */
typedef struct Window {
    RAMBlock *rb;
    uint64_t page;              /* the first one */
    unsigned nr;                /* up to WINDOW_PAGES */
    uint8_t look[WINDOW_PAGES];
    DECLARE_BITMAP(claimed, WINDOW_PAGES);
} Window;

/* Runs of pages of one kind */
typedef struct Runs {
    unsigned nr;
    ManagedRamRun run[WINDOW_PAGES / 2];
} Runs;

/* Migration thread */
static ManagedRamSource source;

QEMU_BUILD_BUG_ON(WINDOW_PAGES / 2 > MANAGED_RAM_RUNS_MAX);

ManagedRamStats managed_ram_sent(void)
{
    return (ManagedRamStats) {
        .never = qatomic_read(&source.sent.never),
        .zero = qatomic_read(&source.sent.zero),
        .fetched = qatomic_read(&source.sent.fetched),
        .bytes = qatomic_read(&source.sent.bytes),
    };
}

/* Migration thread only */
static void count(uint64_t *counter, uint64_t nr)
{
    qatomic_set(counter, *counter + nr);
}

static void send_out(QEMUFile *f)
{
    qemu_put_buffer(f, source.out->data, source.out->len);
    ram_counters.transferred += source.out->len;
    count(&source.sent.bytes, source.out->len);
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

int managed_ram_save_setup(QEMUFile *f, void *opaque)
{
    find_blocks();
    source.out = g_byte_array_new();
    source.content = g_malloc(FETCH_PAGES * MANAGED_RAM_PAGE_SIZE);
    source.round = 0;
    source.block = 0;
    source.page = 0;
    qatomic_set(&source.sent.never, 0);
    qatomic_set(&source.sent.zero, 0);
    qatomic_set(&source.sent.fetched, 0);
    qatomic_set(&source.sent.bytes, 0);
    managed_ram_put_hello(source.out, source.blocks, source.nr_blocks);
    managed_ram_put_end(source.out);
    send_out(f);
    return 0;
}

void managed_ram_save_cleanup(void *opaque)
{
    g_clear_pointer(&source.blocks, g_free);
    g_clear_pointer(&source.content, g_free);
    if (source.out) {
        g_byte_array_free(source.out, true);
        source.out = NULL;
    }
}

static void *host_of(const Window *w, unsigned i)
{
    return w->rb->host + (w->page + i) * MANAGED_RAM_PAGE_SIZE;
}

static bool look(Window *w)
{
    return managed_memory_look(host_of(w, 0), w->nr, w->look);
}

/* Is it dirty, and out of memory as far as is known? */
static bool is_candidate(const Window *w, unsigned i)
{
    return w->look[i] != MM_LOOK_CONTENT && test_bit(w->page + i, w->rb->bmap);
}

/* No more than can be fetched at once. */
static void shorten(Window *w)
{
    unsigned i, swapped = 0;

    for (i = 0; i < w->nr && swapped < FETCH_PAGES; i++) {
        swapped += is_candidate(w, i) && w->look[i] == MM_LOOK_SWAPPED;
    }
    w->nr = i;
}

/* Step 2 */
static bool claim(Window *w)
{
    unsigned i, first = 0;
    bool any = false;

    bitmap_zero(w->claimed, w->nr);
    for (i = 0; i <= w->nr; i++) {
        if (i < w->nr && is_candidate(w, i)) {
            set_bit(i, w->claimed);
            any = true;
            continue;
        }
        if (i > first) {
            qemu_guest_free_page_hint(host_of(w, first),
                                      (i - first) * MANAGED_RAM_PAGE_SIZE);
        }
        first = i + 1;
    }
    return any;
}

static void give_back(const Window *w, unsigned i)
{
    /* and not for TCG's translations: nothing has been written */
    cpu_physical_memory_set_dirty_range(
        w->rb->offset + (w->page + i) * MANAGED_RAM_PAGE_SIZE,
        MANAGED_RAM_PAGE_SIZE, 1 << DIRTY_MEMORY_MIGRATION);
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

/* Those claimed pages that read as zeros for this reason */
static void send_zeros(const Window *w, MmLook kind, ManagedRamType type)
{
    static Runs runs;
    unsigned i;

    runs.nr = 0;
    for (i = find_first_bit(w->claimed, w->nr); i < w->nr;
         i = find_next_bit(w->claimed, w->nr, i + 1)) {
        if (w->look[i] == kind) {
            add_page(&runs, w->page + i);
            ram_counters.duplicate++;
            count(kind == MM_LOOK_NEVER ? &source.sent.never
                                        : &source.sent.zero, 1);
        }
    }
    if (runs.nr) {
        managed_ram_put_runs(source.out, type, source.block, runs.run, runs.nr);
    }
}

/* What has been fetched of @nr pages from @first on */
static void send_content(const Window *w, unsigned first, unsigned nr,
                         const unsigned long *had)
{
    unsigned i, end;

    for (i = find_first_bit(had, nr); i < nr; i = find_next_bit(had, nr, end)) {
        ManagedRamRun run = { .first = w->page + first + i };

        end = find_next_zero_bit(had, MIN(i + MANAGED_RAM_DATA_MAX, nr), i);
        run.nr = end - i;
        managed_ram_put_data(source.out, source.block, &run,
                             source.content + i * MANAGED_RAM_PAGE_SIZE);
        ram_counters.normal += run.nr;
        count(&source.sent.fetched, run.nr);
    }
}

/* Claimed pages of [@first, @first + @nr) that are swapped out */
static void fetch(Window *w, unsigned first, unsigned nr)
{
    DECLARE_BITMAP(pages, FETCH_PAGES);
    unsigned i;

    bitmap_zero(pages, nr);
    for (i = 0; i < nr; i++) {
        if (test_bit(first + i, w->claimed) &&
            w->look[first + i] == MM_LOOK_SWAPPED) {
            set_bit(i, pages);
        }
    }
    if (bitmap_empty(pages, nr)) {
        return;
    }
    managed_memory_fetch(host_of(w, first), nr, pages, source.content);
    send_content(w, first, nr, pages);
    for (i = 0; i < nr; i++) {
        if (w->look[first + i] == MM_LOOK_SWAPPED && !test_bit(i, pages)) {
            w->look[first + i] = MM_LOOK_CONTENT;
        }
    }
}

/* Step 3 */
static void send_claimed(Window *w)
{
    unsigned i;

    send_zeros(w, MM_LOOK_NEVER, MANAGED_RAM_NEVER);
    send_zeros(w, MM_LOOK_ZERO, MANAGED_RAM_ZERO);
    for (i = 0; i < w->nr; i += FETCH_PAGES) {
        fetch(w, i, MIN(w->nr - i, FETCH_PAGES));
    }
    for (i = find_first_bit(w->claimed, w->nr); i < w->nr;
         i = find_next_bit(w->claimed, w->nr, i + 1)) {
        if (w->look[i] == MM_LOOK_CONTENT) {
            give_back(w, i);
        }
    }
}

static void send_window(QEMUFile *f, Window *w)
{
    if (!look(w)) {
        return;
    }
    shorten(w);
    if (claim(w)) {
        look(w);
        send_claimed(w);
        source.any |= source.out->len != 0;
        send_out(f);
    }
}

/* Go on with the first window that has dirty pages; false: there is none. */
static bool step(QEMUFile *f)
{
    static Window w;

    RCU_READ_LOCK_GUARD();
    while (source.block < source.nr_blocks) {
        const ManagedRamBlock *block = &source.blocks[source.block];
        RAMBlock *rb = qemu_ram_block_by_name(block->name);
        uint64_t end = rb && rb->bmap
                       ? MIN(block->size, rb->used_length) /
                         MANAGED_RAM_PAGE_SIZE : 0;
        uint64_t page = end ? find_next_bit(rb->bmap, end, source.page) : end;

        if (page < end) {
            w.rb = rb;
            w.page = page;
            w.nr = MIN(end - page, WINDOW_PAGES);
            send_window(f, &w);
            source.page = page + w.nr;
            return true;
        }
        source.block++;
        source.page = 0;
    }
    return false;
}

/* What ram sends next through channels of its own must not come first. */
static int end_part(QEMUFile *f)
{
    bool sync = source.any && migrate_use_multifd();

    if (sync) {
        managed_ram_put_sync(source.out);
    }
    managed_ram_put_end(source.out);
    send_out(f);
    if (!sync) {
        return 0;
    }
    /* the channels wait there until the stream has told of it */
    qemu_fflush(f);
    return multifd_send_sync_main(f);
}

static void new_round(void)
{
    source.round = ram_counters.dirty_sync_count;
    source.block = 0;
    source.page = 0;
}

/* Returns 1 if ram may go on, 0 if there is more to look through, or -1. */
int managed_ram_save_iterate(QEMUFile *f, void *opaque)
{
    bool more = true;

    source.any = false;
    if (source.round != ram_counters.dirty_sync_count) {
        new_round();
    }
    while (more && !qemu_file_rate_limit(f)) {
        more = step(f);
    }
    return end_part(f) < 0 ? -1 : !more;
}

/*
 * The guest stands still.  What it has written last, and what has been evicted
 * of that, is known only after one more look at the dirty log.
 */
int managed_ram_save_complete(QEMUFile *f, void *opaque)
{
    source.any = false;
    ram_sync_dirty_bitmap();
    new_round();
    while (step(f)) {
        /* all of it */
    }
    return end_part(f);
}
