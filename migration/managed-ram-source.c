/*
 * Managed memory: what a migration sends of pages out of memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that are zero are not read, since that would populate them, and are
 * not sent either: ranges of them are.  The content of swapped pages is fetched
 * from where it is, and they stay there: the guest's working set need not make
 * room.  So is that of idle pages, which are next to be swapped out: touched
 * they would count as in use.  They arrive swapped out, which leaves the room
 * over there to what is in use.
 *
 * What a page is only the pager knows (MM_RING_LOOK).  For each window of
 * pages, in the migration thread:
 *
 *  1 look: which are dirty and out of memory?
 *  2 claim those: clear their bits, and those of the log that they came from
 *  3 look again, and fetch what is swapped out or idle; that, and what is zero,
 *    goes into the stream, all else is given back, for ram to send it next
 *
 * R1 What is sent of a page was so after its dirty bits had been cleared: what
 *    is written to it since then sets them again, and is sent later.  To clear
 *    them after the look might lose what is written meanwhile.
 * R2 What has been claimed is sent or given back before the section's part
 *    ends.
 * R3 The pager's word is taken only from the second look; without a pager
 *    everything counts as content in memory.
 *
 * While a window's content is fetched the one before it is sent.
 *
 * If the VM has a file on shared storage, a window is first gone through by
 * place: in step 3 the pager is asked where swapped pages are in that file
 * (MM_RING_PIN), and those stay there.  Others, and idle ones, are given back,
 * and the window is gone through once more, by content.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/rcu.h"
#include "qemu/timer.h"
#include "exec/ram_addr.h"
#include "exec/ramblock.h"
#include "qapi/error.h"
#include "managed-memory/shared.h"
#include "migration/managed-ram-internal.h"
#include "migration/managed-ram-owner.h"
#include "migration/migration.h"
#include "migration/misc.h"
#include "migration/multifd.h"
#include "migration/ram.h"
#include "sysemu/managed-memory.h"
#include "sysemu/managed-memory-handover.h"
#include "sysemu/runstate.h"

#define WINDOW_PAGES MM_RING_LOOK_MAX
/* From its first swapped page on a window has at most so many. */
#define FETCH_PAGES MANAGED_MEMORY_FETCH_PAGES
/* How long a part may take, so that the migration thread looks round: as ram */
#define PART_MS 50

typedef struct ManagedRamSource {
    ManagedRamHello hello;
    uint64_t round;             /* of the bitmap that is being gone through */
    unsigned block;             /* how far */
    uint64_t page;
    uint64_t content_end;       /* up to there, pages go by content */
    MmPlace *places;            /* MM_RING_PLACES_MAX */
    bool any;                   /* something of this part has been sent */
    GByteArray *out;
    uint8_t *content;           /* of FETCH_PAGES pages */
    struct Window *fetching;    /* has been claimed and not sent, or NULL */

    /* atomic; kept until the next migration */
    ManagedRamStats sent;
} ManagedRamSource;

/* Dirty pages of a block that are looked at together */
typedef struct Window {
    RAMBlock *rb;
    uint64_t page;              /* the first one */
    unsigned nr;                /* up to WINDOW_PAGES */
    unsigned block;             /* number in HELLO */
    uint8_t look[WINDOW_PAGES];
    DECLARE_BITMAP(claimed, WINDOW_PAGES);

    unsigned first;             /* swapped page */
    unsigned nr_fetched;        /* pages from there on */
    DECLARE_BITMAP(wanted, FETCH_PAGES); /* of these */
    ManagedMemoryFetch *fetch;  /* NULL: none is */
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
        .idle = qatomic_read(&source.sent.idle),
        .filled = qatomic_read(&source.sent.filled),
        .shared = qatomic_read(&source.sent.shared),
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
    if (runstate_is_running()) {
        ram_counters.precopy_bytes += source.out->len;
    } else {
        ram_counters.downtime_bytes += source.out->len;
    }
    count(&source.sent.bytes, source.out->len);
    g_byte_array_set_size(source.out, 0);
}

int managed_ram_save_setup(QEMUFile *f, void *opaque)
{
    Error *err = NULL;

    source.out = g_byte_array_new();
    if (!managed_ram_say(&source.hello, source.out, &err)) {
        migrate_set_error(migrate_get_current(), err);
        error_report_err(err);
        return -EINVAL;
    }
    source.places = g_new(MmPlace, MM_RING_PLACES_MAX);
    source.content = g_malloc(FETCH_PAGES * MANAGED_RAM_PAGE_SIZE);
    source.round = 0;
    source.block = 0;
    source.page = 0;
    qatomic_set(&source.sent.never, 0);
    qatomic_set(&source.sent.zero, 0);
    qatomic_set(&source.sent.fetched, 0);
    qatomic_set(&source.sent.idle, 0);
    qatomic_set(&source.sent.filled, 0);
    qatomic_set(&source.sent.shared, 0);
    qatomic_set(&source.sent.bytes, 0);
    managed_ram_put_end(source.out);
    send_out(f);
    return 0;
}

void managed_ram_save_cleanup(void *opaque)
{
    managed_ram_owner_keeps();
    managed_ram_forget(&source.hello);
    g_clear_pointer(&source.places, g_free);
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

static void look(Window *w)
{
    if (!managed_memory_look(host_of(w, 0), w->nr, w->look)) {
        /* not any more: it has been detached */
        memset(w->look, MM_LOOK_CONTENT, w->nr);
    }
}

/* Is it dirty, and out of memory as far as is known? */
static bool is_candidate(const Window *w, unsigned i)
{
    return w->look[i] != MM_LOOK_CONTENT && test_bit(w->page + i, w->rb->bmap);
}

/* Is its content somewhere else than ram would read it? */
static bool has_content(const Window *w, unsigned i)
{
    return w->look[i] == MM_LOOK_SWAPPED || w->look[i] == MM_LOOK_IDLE;
}

/* What there is can be fetched at once. */
static void shorten(Window *w)
{
    for (w->first = 0; w->first < w->nr; w->first++) {
        if (has_content(w, w->first) && is_candidate(w, w->first)) {
            break;
        }
    }
    w->nr_fetched = MIN(w->nr - w->first, FETCH_PAGES);
    w->nr = w->first + w->nr_fetched;
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
        managed_ram_put_runs(source.out, type, w->block, runs.run, runs.nr);
    }
}

static const uint8_t *content_of(unsigned i)
{
    return source.content + i * MANAGED_RAM_PAGE_SIZE;
}

/* Is it one value throughout? */
static bool is_filled(const uint8_t *page)
{
    return !memcmp(page, page + MANAGED_RAM_VALUE_LEN,
                   MANAGED_RAM_PAGE_SIZE - MANAGED_RAM_VALUE_LEN);
}

/* Can page @i be in one record with page @first? */
static bool goes_along(unsigned first, bool filled, unsigned i)
{
    return filled ? !memcmp(content_of(first), content_of(i),
                            MANAGED_RAM_PAGE_SIZE)
                  : !is_filled(content_of(i));
}

/* @nr pages from w->first + @i on */
static void count_content(const Window *w, unsigned i, unsigned nr)
{
    const uint8_t *look = w->look + w->first + i;
    unsigned end = i + nr;

    for (; i < end; i++) {
        count(*look++ == MM_LOOK_IDLE ? &source.sent.idle
                                      : &source.sent.fetched, 1);
    }
}

/* What has been had of the pages from w->first on */
static void send_content(const Window *w, const unsigned long *had)
{
    unsigned nr = w->nr_fetched, i, end;

    for (i = find_first_bit(had, nr); i < nr; i = find_next_bit(had, nr, end)) {
        ManagedRamRun run = { .first = w->page + w->first + i };
        unsigned most = MIN(i + MANAGED_RAM_DATA_MAX, nr);
        bool filled = is_filled(content_of(i));

        end = i + 1;
        while (end < most && test_bit(end, had) && goes_along(i, filled, end)) {
            end++;
        }
        run.nr = end - i;
        if (filled) {
            managed_ram_put_fill(source.out, w->block, &run, content_of(i));
            ram_counters.duplicate += run.nr;
            count(&source.sent.filled, run.nr);
        } else {
            managed_ram_put_data(source.out, w->block, &run, content_of(i));
            ram_counters.normal += run.nr;
            count_content(w, i, run.nr);
        }
    }
}

static void begin_fetch(Window *w)
{
    unsigned i;

    bitmap_zero(w->wanted, FETCH_PAGES);
    for (i = 0; i < w->nr_fetched; i++) {
        if (test_bit(w->first + i, w->claimed) &&
            has_content(w, w->first + i)) {
            set_bit(i, w->wanted);
        }
    }
    w->fetch = bitmap_empty(w->wanted, FETCH_PAGES) ? NULL
               : managed_memory_fetch_begin(host_of(w, w->first),
                                            w->nr_fetched, w->wanted);
}

/* What was to be fetched and was not is as if it were in memory. */
static void end_fetch(Window *w)
{
    unsigned i;

    if (w->fetch) {
        managed_memory_fetch_end(w->fetch, w->wanted, source.content);
        send_content(w, w->wanted);
    }
    for (i = 0; i < w->nr; i++) {
        if (has_content(w, i) &&
            (i < w->first || !test_bit(i - w->first, w->wanted))) {
            w->look[i] = MM_LOOK_CONTENT;
        }
    }
}

/* Not to the log: ram would not see them in this round, nor we in the next. */
static void give_back(const Window *w)
{
    unsigned i;

    for (i = find_first_bit(w->claimed, w->nr); i < w->nr;
         i = find_next_bit(w->claimed, w->nr, i + 1)) {
        if (w->look[i] == MM_LOOK_CONTENT) {
            ram_set_dirty(w->rb, w->page + i);
        }
    }
}

/* Step 3 comes to its end for what has been claimed. */
static void finish_claimed(QEMUFile *f)
{
    Window *w = source.fetching;

    if (w) {
        source.fetching = NULL;
        end_fetch(w);
        give_back(w);
        source.any |= source.out->len != 0;
        send_out(f);
    }
}

/* ---- by place ---- */

static bool any_swapped(const Window *w)
{
    unsigned i;

    for (i = find_first_bit(w->claimed, w->nr); i < w->nr;
         i = find_next_bit(w->claimed, w->nr, i + 1)) {
        if (w->look[i] == MM_LOOK_SWAPPED) {
            return true;
        }
    }
    return false;
}

static bool has_place(const Window *w, unsigned i)
{
    const MmPlace *place = &source.places[i];

    /* its tiers may have changed since the file was told of */
    return i < w->nr && test_bit(i, w->claimed) &&
           w->look[i] == MM_LOOK_SWAPPED && place->known &&
           place->tier == source.hello.file.tier;
}

static void send_places(const Window *w)
{
    unsigned i = 0;

    while (i < w->nr) {
        ManagedRamRun run = { .first = w->page + i };

        while (has_place(w, i + run.nr)) {
            run.nr++;
        }
        if (run.nr) {
            managed_ram_put_places(source.out, w->block, &run,
                                   source.places + i);
            ram_counters.duplicate += run.nr;
            count(&source.sent.shared, run.nr);
        }
        i += run.nr + 1;
    }
}

/* What has content, and not there; returns whether anything has. */
static bool leave_to_content(Window *w)
{
    bool any = false;
    unsigned i;

    for (i = 0; i < w->nr; i++) {
        if (has_content(w, i) && test_bit(i, w->claimed) && !has_place(w, i)) {
            w->look[i] = MM_LOOK_CONTENT;
            any = true;
        }
    }
    return any;
}

static void do_places(QEMUFile *f, Window *w)
{
    bool again = false;

    look(w);
    if (claim(w)) {
        look(w);
        if (any_swapped(w)) {
            managed_memory_pin(host_of(w, 0), w->nr, source.places);
            send_places(w);
        }
        again = leave_to_content(w);
        send_zeros(w, MM_LOOK_NEVER, MANAGED_RAM_NEVER);
        send_zeros(w, MM_LOOK_ZERO, MANAGED_RAM_ZERO);
        give_back(w);
        source.any |= source.out->len != 0;
        send_out(f);
    }
    source.content_end = w->page + w->nr;
    source.page = again ? w->page : source.content_end;
}

/* ---- step by step ---- */

/* Steps 1 to 3, but for waiting; then wait for the window before. */
static void do_window(QEMUFile *f, Window *w)
{
    look(w);
    shorten(w);
    if (claim(w)) {
        look(w);
        begin_fetch(w);
        finish_claimed(f);
        send_zeros(w, MM_LOOK_NEVER, MANAGED_RAM_NEVER);
        send_zeros(w, MM_LOOK_ZERO, MANAGED_RAM_ZERO);
        source.fetching = w;
    }
}

/*
 * Of @nr pages from @page on, of which the first one is, unless the balloon has
 * just been told that it is free
 */
static unsigned last_dirty(const RAMBlock *rb, uint64_t page, unsigned nr)
{
    while (nr > 1 && !test_bit(page + nr - 1, rb->bmap)) {
        nr--;
    }
    return nr - 1;
}

/* Most pages of the window that begins with @page */
static unsigned most(uint64_t page)
{
    if (!source.hello.file.present) {
        return WINDOW_PAGES;
    }
    return page < source.content_end
           ? MIN(source.content_end - page, WINDOW_PAGES) : MM_RING_PLACES_MAX;
}

/*
 * Go on with the first window that has dirty pages; false: there is none.  In
 * an RCU critical section that lasts until finish_claimed().
 */
static bool step(QEMUFile *f)
{
    static Window windows[2];
    Window *w = &windows[source.fetching == &windows[0]];

    while (source.block < source.hello.nr_blocks) {
        const ManagedRamBlock *block = &source.hello.blocks[source.block];
        RAMBlock *rb = qemu_ram_block_by_name(block->name);
        uint64_t end = rb && rb->bmap
                       ? MIN(block->size, rb->used_length) /
                         MANAGED_RAM_PAGE_SIZE : 0;
        uint64_t page = end ? find_next_bit(rb->bmap, end, source.page) : end;

        if (page < end) {
            w->rb = rb;
            w->block = source.block;
            w->page = page;
            w->nr = last_dirty(rb, page, MIN(end - page, most(page))) + 1;
            if (source.hello.file.present && page >= source.content_end) {
                do_places(f, w);
            } else {
                do_window(f, w);
                source.page = page + w->nr;
            }
            return true;
        }
        source.block++;
        source.page = 0;
        source.content_end = 0;
    }
    return false;
}

/*
 * All of a round, or as much as the limits let through; returns whether there
 * is more.
 */
static bool send_part(QEMUFile *f, bool limited)
{
    int64_t end_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + PART_MS;
    bool more = true;

    source.any = false;
    RCU_READ_LOCK_GUARD();
    while (more && !(limited && (qemu_file_rate_limit(f) ||
                                 qemu_clock_get_ms(QEMU_CLOCK_REALTIME) >=
                                 end_ms))) {
        more = step(f);
    }
    finish_claimed(f);
    return more;
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
    source.content_end = 0;
}

/* Returns 1 if ram may go on, 0 if there is more to look through, or -1. */
int managed_ram_save_iterate(QEMUFile *f, void *opaque)
{
    bool more;

    if (source.round != ram_counters.dirty_sync_count) {
        new_round();
    }
    more = send_part(f, true);
    return end_part(f) < 0 ? -1 : !more;
}

/*
 * The guest stands still.  What it has written last, and what has been evicted
 * of that, is known only after one more look at the dirty log.
 */
int managed_ram_save_complete(QEMUFile *f, void *opaque)
{
    ram_sync_dirty_bitmap();
    new_round();
    send_part(f, false);
    return end_part(f);
}
