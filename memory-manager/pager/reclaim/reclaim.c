/*
 * Managed memory pager: the reclaim thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Decides when pages leave memory.  Normally from the high watermark down to
 * the low one, ahead of the faults that need the room; besides, when the
 * operator says so (evict) and when the kernel is out of memory (urge).
 *
 * Zapped pages wait in a fifo, whose length is their second chance: a share of
 * what is resident, so that the chance lasts longer where eviction is slow.
 *
 * If a whole turn evicts nothing, because all is mapped for DMA or the tiers
 * do not take anything, reclaim is stuck: it says so, lets faults draw on the
 * reserve, and tries again every now and then.
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../region.h"
#include "reclaim-internal.h"

/* Share of the resident pages that waits in the fifo. */
#define FIFO_SHARE 8
#define FIFO_MIN_PAGES 64
/* Pages evicted when the kernel is out of memory. */
#define URGE_PAGES 256
/* How long to rest between tries while stuck. */
#define STUCK_REST_MS 50
/* Pressure is over when it has not come back for so long. */
#define UNSTUCK_NS 1000000000ULL
/* The same while pages are still being looked at after a takeover. */
#define SCAN_REST_MS 1
/* How often to look at what nobody tells. */
#define LOOK_REST_MS 100
/* Turns of the hand that find no candidate before reclaim is stuck. */
#define STUCK_TURNS 3
/* Share of the resident pages that DMA holds when it is to blame for that. */
#define HELD_SHARE 2
/* Batches of which every page was touched before reclaim is stuck. */
#define STUCK_BATCHES 512

static uint64_t resident(const MmReclaim *r)
{
    return qatomic_read(&r->vm->total_resident);
}

/* Has the operator asked for more than is on its way? */
static bool evict_wanted(const MmReclaim *r)
{
    return qatomic_read(&r->evicting) &&
           qatomic_read(&r->evict_done) + mm_writeback_leaving(r) <
           qatomic_read(&r->evict_want);
}

/* Has the operator got what he has asked for, and was not told yet? */
static bool evict_over(const MmReclaim *r)
{
    return qatomic_load_acquire(&r->evicting) &&
           qatomic_read(&r->evict_done) >= qatomic_read(&r->evict_want);
}

static bool wanted(MmReclaim *r)
{
    MmLimit *l = &r->vm->limit;
    uint64_t staying = resident(r) - MIN(resident(r), mm_writeback_leaving(r));

    if (qatomic_read(&r->vm->reclaim_rests)) {
        return false;
    }
    r->active = r->active ? mm_limit_above_low(l, staying)
                          : mm_limit_above_high(l, staying);
    return r->active || qatomic_read(&r->urged) || evict_wanted(r);
}

bool mm_reclaim_wants_huge(const MmReclaim *r)
{
    return !r->active && !evict_wanted(r) && qatomic_read(&r->urged) &&
           qatomic_read(&r->vm->not_had) == MM_HUGE_PAGE_SIZE;
}

bool mm_reclaim_pressed(MmReclaim *r)
{
    return wanted(r) && (r->active || qatomic_read(&r->urged));
}

/*
 * Pages that are to wait in the fifo.  Of a large guest these are many, and the
 * guest faults on each one that it still uses; so beyond a few there is one
 * more for each page that has been evicted.
 */
static uint64_t fifo_target(MmReclaim *r)
{
    uint64_t share = MAX(resident(r) / FIFO_SHARE, FIFO_MIN_PAGES);

    mm_fifo_fit(&r->fifo, share + MM_ZAP_PAGES);
    return MIN(share, MIN(r->fifo.size, MM_FIFO_MIN + r->fifo_grown) -
                      MM_ZAP_PAGES);
}

/* Evict until something is evicted or the hand has found nothing. */
static int reclaim_some(MmReclaim *r, unsigned *evicted)
{
    uint64_t target = fifo_target(r);
    bool force = qatomic_read(&r->vm->limit.stuck);
    int turns = 0, batches = 0;
    int ret = 1;

    r->held = 0;
    r->refused = false;
    if (evict_wanted(r)) {
        mm_sample_abort(r);
    }
    /* those that hung and do not any more, too: nobody waits for them below */
    *evicted = mm_writeback_reap(r);
    while (!*evicted && turns < STUCK_TURNS && batches < STUCK_BATCHES &&
           !qatomic_read(&r->vm->reclaim_rests)) {
        if (r->fifo.pages < target && ret > 0) {
            ret = mm_scan_candidates(r, MM_ZAP_PAGES, force);
            if (ret < 0) {
                return ret;
            }
            if (ret > 0) {
                continue;
            }
        }
        if (r->fifo.nr || mm_writeback_leaving(r)) {
            *evicted = mm_writeback(r);
            batches++;
            if (r->refused) {
                break;
            }
        } else {
            turns++;
            ret = 1;
            mm_sample_abort(r);
            /* of one turn, whole, counts what DMA holds */
            if (turns < STUCK_TURNS) {
                r->held = 0;
            }
            force = turns == STUCK_TURNS - 1;
        }
    }
    r->fifo_grown = MIN(r->fifo_grown + *evicted, MM_FIFO_MAX);
    return 0;
}

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

static void tell_stuck(MmReclaim *r)
{
    MmVM *vm = r->vm;
    uint64_t limit = qatomic_read(&vm->limit.limit);
    uint64_t over = resident(r) > limit
                    ? (resident(r) - limit) * MM_PAGE_SIZE : 0;
    unsigned last = mm_vm_last_tier(vm)->index;

    if (!r->refused && qatomic_read(&vm->not_had) == MM_HUGE_PAGE_SIZE) {
        mm_vm_event(vm, MM_EVENT_PRESSURE, UINT32_MAX, over,
                    "the host has no free huge page of 2 MiB, and nothing of "
                    "this VM can be evicted; raise nr_hugepages");
    } else if (!r->refused && qatomic_read(&vm->not_had)) {
        mm_vm_event(vm, MM_EVENT_PRESSURE, UINT32_MAX, over,
                    "the kernel has no memory for a page, and nothing of this "
                    "VM can be evicted: the host, or the VM's cgroup, is full");
    } else if (!r->refused) {
        mm_vm_event(vm, MM_EVENT_PRESSURE, UINT32_MAX, over,
                    "nothing can be evicted: all of it is mapped for DMA or "
                    "in constant use");
    } else {
        mm_vm_event(vm, MM_EVENT_PRESSURE, UINT32_MAX, over,
                    "nothing can be evicted: tier '%s' takes nothing%s%s",
                    vm->tiers[last]->name,
                    r->health[last].write_error ? ": " : "",
                    mm_store_error(r->health[last].write_error));
    }
}

void mm_reclaim_set_stuck(MmReclaim *r, bool stuck)
{
    bool was = qatomic_xchg(&r->vm->limit.stuck, stuck);

    if (stuck) {
        r->unstuck_ns = 0;
        if (!r->told_stuck) {
            r->told_stuck = true;
            tell_stuck(r);
        }
    } else if (was) {
        r->unstuck_ns = clock_ns();
    }
    if (was != stuck) {
        mm_fault_retry(r->vm);
    }
}

/* One page that could go now and then is no end of it. */
static void tell_unstuck(MmReclaim *r)
{
    if (r->told_stuck && r->unstuck_ns &&
        clock_ns() - r->unstuck_ns >= UNSTUCK_NS) {
        r->told_stuck = false;
        mm_vm_event(r->vm, MM_EVENT_PRESSURE_OVER, UINT32_MAX, 0,
                    "pages can be evicted again");
    }
}

/* Is there nothing to evict, or is it only not found yet? */
static bool all_looked_at(const MmReclaim *r)
{
    return qatomic_load_acquire(&r->vm->scan_done) &&
           !qatomic_read(&r->vm->reclaim_rests);
}

static void count_evicted(MmReclaim *r, unsigned evicted, bool no_more)
{
    uint64_t done;

    if (!qatomic_load_acquire(&r->evicting)) {
        return;     /* what evict_done is then is not known */
    }
    done = qatomic_read(&r->evict_done) + evicted;
    qatomic_set(&r->evict_done, done);
    if (no_more || done >= qatomic_read(&r->evict_want)) {
        qatomic_store_release(&r->evicting, false);
        mm_wake(r->vm->control_wake_fd);
    }
}

static void account(MmReclaim *r, unsigned evicted, bool all)
{
    if (!evicted && all && !mm_limit_above_high(&r->vm->limit, resident(r))) {
        /* it was to work ahead, for faults that have the room they need */
        r->active = false;
    }
    qatomic_set(&r->vm->limit.held, !evicted && !r->refused &&
                r->held >= resident(r) / HELD_SHARE);
    /* an operator who wants more than there is is no pressure */
    mm_reclaim_set_stuck(r, !evicted && all && (r->active ||
                                                qatomic_read(&r->urged)));
    qatomic_set(&r->urged, false);
    count_evicted(r, evicted, !evicted && all);
}

/* Is anything on its way out, or from tier to tier? */
static bool busy(const MmReclaim *r)
{
    return mm_writeback_busy(r) || mm_move_busy(r);
}

/*
 * Tell the control thread, if it wants to know, that no page is on its way
 * out, and none will be before it says so.
 */
static void tell_resting(MmReclaim *r)
{
    if (qatomic_read(&r->vm->reclaim_rests) &&
        !qatomic_xchg(&r->vm->reclaim_resting, true)) {
        mm_wake(r->vm->control_wake_fd);
    }
}

static void rest(MmReclaim *r, int timeout_ms)
{
    struct pollfd pfd[] = {
        { .fd = r->wake_fd, .events = POLLIN },
        { .fd = r->io_fd, .events = POLLIN },
    };

    qatomic_set(&r->sleeping, true);
    /* pairs with mm_reclaim_wake(): asleep, then looked once more */
    smp_mb();
    if (mm_move_wanted(r)) {
        timeout_ms = LOOK_REST_MS;
    }
    if (!wanted(r) && !evict_over(r) && !mm_import_wants(r) &&
        (busy(r) || !qatomic_read(&r->vm->reclaim_rests) ||
         qatomic_read(&r->vm->reclaim_resting))) {
        poll(pfd, ARRAY_SIZE(pfd), mm_reclaim_wait_ms(r, timeout_ms));
    }
    qatomic_set(&r->sleeping, false);
    mm_unwake(r->wake_fd);
    mm_unwake(r->io_fd);
}

/* Without QEMU's zap thread there is nothing to do: a successor has one. */
static void *zap_lost(MmReclaim *r)
{
    qatomic_set(&r->vm->zap_lost, true);
    mm_wake(r->vm->control_wake_fd);
    return NULL;
}

static void *reclaim_thread(void *opaque)
{
    MmReclaim *r = opaque;

    mm_tiers_wait(r);
    mm_vm_wait_places(r->vm);
    for (;;) {
        bool ready = mm_tiers_ready(r);
        unsigned evicted = 0, sum = 0;
        bool all;

        if (!wanted(r)) {
            count_evicted(r, mm_writeback_reap(r), false);
            mm_reclaim_set_stuck(r, false);
            tell_unstuck(r);
            if (mm_move_step(r)) {
                continue;
            }
            if (!busy(r)) {
                tell_resting(r);
            }
            if (mm_sample_step(r) < 0) {
                return zap_lost(r);
            }
            rest(r, ready && !r->told_stuck && !busy(r) && !mm_store_look(r)
                    ? mm_sample_wait_ms(r) : LOOK_REST_MS);
            continue;
        }
        /* before the work: what is found meanwhile is not this turn's */
        all = all_looked_at(r);
        do {
            if (reclaim_some(r, &evicted) < 0) {
                return zap_lost(r);
            }
            sum += evicted;
        } while (evicted && qatomic_read(&r->urged) && sum < URGE_PAGES);
        mm_store_look(r);
        /* and while reclaim is to rest, it is not tried at all */
        account(r, sum, all && !qatomic_read(&r->vm->reclaim_rests));
        tell_unstuck(r);
        if (mm_sample_step(r) < 0) {
            return zap_lost(r);
        }
        if (!mm_move_step(r) && !sum) {
            /* not to be woken by the faults that wait: they change nothing */
            poll(NULL, 0, all ? STUCK_REST_MS : SCAN_REST_MS);
        }
    }
}

static void set_up_batch(MmBatch *b, unsigned slot, uint8_t **arena)
{
    b->slot = slot;
    b->buf = *arena;
    b->gather = b->buf + MM_TIER_IO_PAGES * MM_PAGE_SIZE;
    *arena = b->gather + MM_TIER_IO_PAGES * MM_PAGE_SIZE;
}

static void set_up_batches(MmReclaim *r, uint8_t *arena)
{
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(r->batches); i++) {
        set_up_batch(&r->batches[i], i, &arena);
    }
    QEMU_BUILD_BUG_ON(ARRAY_SIZE(r->batches) >= MM_STORING);
    set_up_batch(&r->move.batch, i, &arena);
    r->move.batch.moving = true;
    r->identities = arena;
}

MmImport *mm_reclaim_imports(MmVM *vm)
{
    return vm->reclaim->imports;
}

MmReclaim *mm_reclaim_new(MmVM *vm, Error **errp)
{
    MmReclaim *r = g_new0(MmReclaim, 1);
    unsigned nr_batches = ARRAY_SIZE(r->batches) + 1;
    /* a store for each batch, what the mover loads, an identity */
    unsigned depth = nr_batches + MM_TIER_IO_PAGES + 1;
    size_t size = (2 * MM_TIER_IO_PAGES * nr_batches + MM_MAX_TIERS) *
                  MM_PAGE_SIZE;
    uint8_t *arena;
    unsigned i;

    r->vm = vm;
    mm_fifo_init(&r->fifo);
    r->random = clock_ns() | 1;
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->io_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    arena = mmap(NULL, size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (r->wake_fd < 0 || r->io_fd < 0 || arena == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot set up reclaim");
        return NULL;
    }
    set_up_batches(r, arena);
    /* best effort: without the right to lock, pressure may slow us down */
    mlock(arena, size);
    for (i = 0; i < vm->nr_tiers; i++) {
        r->queues[i] = vm->tiers[i]->ops->queue_new(vm->tiers[i], arena, size,
                                                    depth, r->io_fd, errp);
        if (!r->queues[i]) {
            return NULL;
        }
    }
    return r;
}

void mm_reclaim_start(MmVM *vm)
{
    mm_vm_start_queues(vm, vm->reclaim->queues);
    vm->reclaim->thread = g_thread_new("reclaim", reclaim_thread,
                                       vm->reclaim);
}

void mm_reclaim_wake(MmVM *vm)
{
    /* pairs with rest(): the reason noted, then asleep looked at */
    smp_mb();
    if (qatomic_read(&vm->reclaim->sleeping)) {
        mm_wake(vm->reclaim->wake_fd);
    }
}

void mm_reclaim_resized(MmVM *vm)
{
    qatomic_set(&vm->reclaim->move.resized, true);
    mm_reclaim_wake(vm);
}

void mm_reclaim_urge(MmVM *vm)
{
    qatomic_set(&vm->reclaim->urged, true);
    mm_reclaim_wake(vm);
}

void mm_reclaim_turned(MmVM *vm)
{
    qatomic_set(&vm->reclaim->turned, true);
}

void mm_reclaim_evict(MmVM *vm, uint64_t pages)
{
    qatomic_set(&vm->reclaim->evict_want, pages);
    qatomic_set(&vm->reclaim->evict_done, 0);
    qatomic_store_release(&vm->reclaim->evicting, true);
    mm_reclaim_wake(vm);
}

bool mm_reclaim_evicted(MmVM *vm, uint64_t *pages)
{
    *pages = qatomic_read(&vm->reclaim->evict_done);
    return !qatomic_load_acquire(&vm->reclaim->evicting);
}
