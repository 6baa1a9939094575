/*
 * Managed memory pager: the fault thread
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One round: wait for the userfaultfd, the ring's kick or a wake-up; serve what
 * has been faulted on; place what has been read; go on with what is in the
 * ring, and what is read and stored for it; retry who waits; one step each of
 * filling and reading ahead, of a replay and of the attach scan; and, if no
 * fault has come, one of swap-in.  Nothing in a round waits for another thread
 * or for a medium.
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include "qapi/error.h"
#include "../reclaim/quarantine.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "../test-hooks.h"
#include "../uffd.h"
#include "fault-internal.h"

/* Faults taken from the kernel at once. */
#define BATCH 64

/* How often to look at what nobody tells. */
#define LOOK_MS 100

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

/* Where an address lies; the table is small, and the last hit likely. */
static MmRegion *find_region(MmFault *f, uint64_t addr, uint64_t *page)
{
    unsigned i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        unsigned n = (f->last_region + i) % MM_MAX_REGIONS;
        MmRegion *region = f->vm->regions[n];

        if (region && addr - region->hva < region->size) {
            f->last_region = n;
            *page = (addr - region->hva) / MM_PAGE_SIZE;
            return region;
        }
    }
    return NULL;
}

static void serve_fault(MmFault *f, uint64_t addr, uint32_t tid)
{
    MmWaitReason reason;
    MmRegion *region;
    uint64_t page;

    region = find_region(f, addr, &page);
    if (!region) {
        return;     /* unmapped since, and whoever waited is gone */
    }
    page = mm_region_unit(region, page);
    addr = region->hva + page * MM_PAGE_SIZE;
    mm_region_reconcile_chunk(f->vm, region, page / MM_CHUNK_PAGES);
    f->tid = tid;
    f->node = mm_nodes_of_thread(f->vm->nodes, tid, f->now_ns);
    reason = mm_serve_page(f, region, page);
    if (reason == MM_WAIT_NONE) {
        mm_fault_latency(f, f->now_ns);
        return;
    }
    if (reason == MM_WAIT_LIMIT) {
        MM_STAT_ADD(f->vm, fault_wait, 1);
    }
    mm_waiters_add(&f->waiters, addr, tid, f->now_ns, reason);
    qatomic_set(&f->nobody_waits, false);
}

static bool serve_faults(MmFault *f)
{
    struct uffd_msg msgs[BATCH];
    ssize_t len = TEMP_FAILURE_RETRY(read(f->vm->uffd, msgs, sizeof(msgs)));
    int i;

    if (len < (ssize_t)sizeof(msgs[0])) {
        if (len < 0 && errno == EAGAIN) {
            return true;    /* the fault has been woken by another's page */
        }
        return false;
    }
    mm_failpoint(MM_FP_FAULT_READ);
    for (i = 0; i < len / sizeof(msgs[0]); i++) {
        if (msgs[i].event == UFFD_EVENT_PAGEFAULT) {
            serve_fault(f, msgs[i].arg.pagefault.address,
                        msgs[i].arg.pagefault.feat.ptid);
        } else if (msgs[i].event == UFFD_EVENT_FORK) {
            /* never asked for; reading it has opened a descriptor */
            close(msgs[i].arg.fork.ufd);
        }
    }
    return true;
}

static void wake_all(MmVM *vm)
{
    int i;

    for (i = 0; i < MM_MAX_REGIONS; i++) {
        MmRegion *region = vm->regions[i];

        if (region) {
            mm_uffd_wake(vm->uffd, region->hva, region->size);
        }
    }
}

static bool reason_may_be_gone(const MmFault *f, const MmWaiter *waiter)
{
    switch (waiter->reason) {
    case MM_WAIT_LOAD:
    case MM_WAIT_LOST:
        return false;
    case MM_WAIT_ERROR:
        return f->now_ns >= f->retry_at_ns;
    default:
        return true;
    }
}

/* If there is a page for one of them only, it is the oldest's. */
static void oldest_first(MmWaiter *waiters, unsigned nr)
{
    unsigned i, oldest = 0;
    MmWaiter first;

    for (i = 1; i < nr; i++) {
        if (waiters[i].since_ns < waiters[oldest].since_ns) {
            oldest = i;
        }
    }
    if (oldest) {
        first = waiters[oldest];
        waiters[oldest] = waiters[0];
        waiters[0] = first;
    }
}

/*
 * Serve again whoever waits for something else than a read in flight.  The
 * served ones leave the table under our hands, so go by a copy.
 */
static void retry_waiters(MmFault *f)
{
    MmWaiter *again = f->again;
    unsigned i, nr = 0;

    qatomic_set(&f->retry, false);
    /* pairs with mm_fault_retry(): reset, then looked at what has changed */
    smp_mb();
    for (i = 0; i < f->waiters.nr; i++) {
        if (reason_may_be_gone(f, &f->waiters.waiter[i])) {
            again[nr++] = f->waiters.waiter[i];
        }
    }
    oldest_first(again, nr);
    f->retrying = true;
    for (i = 0; i < nr; i++) {
        uint64_t page;
        MmRegion *region = find_region(f, again[i].addr, &page);

        if (!region) {
            mm_waiters_remove(&f->waiters, again[i].addr, MM_PAGE_SIZE,
                              mm_fault_latency, f);
            continue;
        }
        f->tid = again[i].tid;
        f->node = mm_nodes_of_thread(f->vm->nodes, f->tid, f->now_ns);
        mm_waiters_set_reason(&f->waiters, again[i].addr,
                              mm_serve_page(f, region, page));
    }
    f->retrying = false;
    if (f->waiters.overflow &&
        (f->waiters.nr < MM_MAX_WAITERS / 2 ||
         f->now_ns - f->woke_all_ns >= LOOK_MS * 1000000ULL)) {
        /* those beyond the table may be served where those in it are not */
        f->waiters.overflow = false;
        f->woke_all_ns = f->now_ns;
        wake_all(f->vm);
    }
    if (f->retry_at_ns && f->now_ns >= f->retry_at_ns) {
        f->retry_at_ns = 0;
    }
    qatomic_set(&f->nobody_waits, f->waiters.nr == 0);
}

/* The timers count also while new faults keep coming. */
static bool retry_due(const MmFault *f)
{
    return qatomic_read(&f->retry) ||
           (f->retry_at_ns && f->now_ns >= f->retry_at_ns) ||
           (f->waiters.nr && f->now_ns >= mm_fault_beyond_at(f));
}

static void run_work(MmFault *f)
{
    MmWork *work;

    g_mutex_lock(&f->work_lock);
    while ((work = QSIMPLEQ_FIRST(&f->work))) {
        QSIMPLEQ_REMOVE_HEAD(&f->work, next);
        g_mutex_unlock(&f->work_lock);
        work->fn(f->vm, work->opaque);
        g_mutex_lock(&f->work_lock);
        work->done = true;
        g_cond_broadcast(&f->work_done);
    }
    g_mutex_unlock(&f->work_lock);
}

/* How long until @at_ns, at most @max_ms. */
static int until_ms(const MmFault *f, uint64_t at_ns, int max_ms)
{
    return at_ns <= f->now_ns ? 0
           : MIN((at_ns - f->now_ns) / 1000000 + 1, max_ms);
}

static bool look_again(MmFault *f)
{
    return mm_poll_again(&f->poll,
                         f->waiters.nr && !QLIST_EMPTY(&f->busy_loads),
                         clock_ns());
}

static int next_timeout_ms(MmFault *f, bool busy)
{
    int ms = -1;

    /* pairs with mm_fault_retry(): waiter noted, then retry looked at */
    smp_mb();
    if (busy || f->scanning || qatomic_read(&f->retry)) {
        mm_poll_busy(&f->poll);
        return 0;
    }
    if (f->retry_at_ns) {
        ms = until_ms(f, f->retry_at_ns, LOOK_MS);
    } else if (f->waiters.nr) {
        /* they are woken, but for those that wait for their turn */
        ms = MAX(until_ms(f, mm_fault_beyond_at(f), LOOK_MS), 1);
    } else if (f->waiters.overflow || f->read_failing || f->ring_slot >= 0 ||
               qatomic_read(&f->swapping_in) || mm_wake_records(&f->wake) ||
               mm_fetch_busy(f) || mm_import_busy(f)) {
        ms = LOOK_MS;
    }
    if (look_again(f)) {
        return 0;
    }
    return mm_queues_wait_ms(f->queues, f->vm->nr_tiers, ms);
}

/* From here on it is known what is in the tiers, and what is free. */
static void claim_places(MmVM *vm)
{
    int i;

    mm_failpoint(MM_FP_CLAIMING);
    for (i = 0; i < MM_MAX_REGIONS; i++) {
        if (vm->regions[i]) {
            mm_region_claim_places(vm, vm->regions[i]);
        }
    }
    mm_quarantine_resume(vm);
    qatomic_set(&vm->limit.blind, true);
    mm_vm_places_known(vm);
}

static void unwatch(MmFault *f, int fd)
{
    epoll_ctl(f->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void *fault_thread(void *opaque)
{
    MmFault *f = opaque;
    MmVM *vm = f->vm;
    bool busy = false;

    claim_places(vm);
    f->now_ns = f->began_ns = clock_ns();
    if (!mm_mutated(MM_MUT_NO_WAKE)) {
        /* a fault that a dead pager has read is told again after this */
        wake_all(vm);
    }
    mm_ring_resume(f);
    for (;;) {
        struct epoll_event ev[4];
        bool faults = false, kicked = false, look;
        unsigned ended;
        int i, nr;

        nr = TEMP_FAILURE_RETRY(epoll_wait(f->epoll_fd, ev, ARRAY_SIZE(ev),
                                           next_timeout_ms(f, busy)));
        f->now_ns = clock_ns();
        look = f->now_ns - f->looked_ns >= LOOK_MS * 1000000ULL;
        if (look) {
            mm_replay_look(f);
        }
        for (i = 0; i < nr; i++) {
            int fd = ev[i].data.fd;

            if (fd == vm->uffd) {
                faults = true;
                if ((ev[i].events & ~EPOLLIN) || !serve_faults(f)) {
                    unwatch(f, fd);
                }
            } else if (fd == vm->kick_fd) {
                f->kicked = kicked = true;
            }
        }
        ended = mm_load_reap(f);
        mm_huge_in_step(f);
        /* a wake-up without anything is none */
        if (faults || kicked || ended) {
            mm_poll_event(&f->poll, f->now_ns);
        }
        run_work(f);
        busy = mm_ring_poll(f);
        busy |= mm_fetch_step(f);
        mm_import_step(f);
        if (look) {
            f->looked_ns = f->now_ns;
            mm_load_look(f);
        }
        if (look || retry_due(f)) {
            retry_waiters(f);
        }
        busy |= mm_serve_ahead(f);
        busy |= mm_swap_in_ahead(f);
        busy |= mm_replay_step(f);
        /* the scan holds up reclaim, and with it the limit: it comes first */
        if (!faults || f->scanning) {
            busy |= mm_background_step(f);
        }
    }
    return NULL;
}

static bool watch(MmFault *f, int fd, uint32_t events, Error **errp)
{
    struct epoll_event ev = { .events = events, .data.fd = fd };

    if (epoll_ctl(f->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
        error_setg_errno(errp, errno, "cannot watch a descriptor");
        return false;
    }
    return true;
}

static void *locked_buffer(size_t size, Error **errp)
{
    void *buf = mmap(NULL, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (buf == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot allocate %zu bytes", size);
        return NULL;
    }
    /* best effort: without the right to lock, pressure may slow us down */
    mlock(buf, size);
    return buf;
}

MmFault *mm_fault_new(MmVM *vm, Error **errp)
{
    size_t arena_size = MM_NR_LOADS * MM_LOAD_PAGES * MM_PAGE_SIZE;
    MmFault *f = g_new0(MmFault, 1);
    MmCrowd crowd;
    unsigned i;

    f->vm = vm;
    f->ring_slot = -1;
    f->scanning = true;
    f->nobody_waits = true;
    mm_crowd_init(&crowd, mm_crowd_open_loadavg(),
                  sysconf(_SC_NPROCESSORS_ONLN));
    mm_poll_init(&f->poll, crowd);
    QSIMPLEQ_INIT(&f->work);
    g_mutex_init(&f->work_lock);
    g_cond_init(&f->work_done);
    mm_waiters_init(&f->waiters);
    f->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    f->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->arena = locked_buffer(arena_size, errp);
    f->zeroes = locked_buffer(MM_POPULATE_PAGES * MM_PAGE_SIZE, errp);
    f->fill_page = locked_buffer(MM_PAGE_SIZE, errp);
    if (!f->arena || !f->zeroes || !f->fill_page || f->epoll_fd < 0 ||
        f->wake_fd < 0 || !watch(f, f->wake_fd, EPOLLIN | EPOLLET, errp)) {
        return NULL;
    }
    mm_load_init(f);
    for (i = 0; i < vm->nr_tiers; i++) {
        f->queues[i] = vm->tiers[i]->ops->queue_new(vm->tiers[i], f->arena,
                                                    arena_size, MM_NR_LOADS,
                                                    f->wake_fd, errp);
        if (!f->queues[i]) {
            return NULL;
        }
    }
    return f;
}

void mm_fault_watch_uffd(MmVM *vm)
{
    watch(vm->fault, vm->uffd, EPOLLIN, &error_abort);
}

void mm_fault_start(MmVM *vm)
{
    if (vm->uffd >= 0) {
        mm_fault_watch_uffd(vm);
    }
    /* QEMU's as well: a read might block */
    watch(vm->fault, vm->kick_fd, EPOLLIN | EPOLLET, &error_abort);
    mm_vm_start_queues(vm, vm->fault->queues);
    vm->fault->thread = g_thread_new("fault", fault_thread, vm->fault);
}

void mm_fault_call(MmVM *vm, MmFaultWork *fn, void *opaque)
{
    MmWork work = { .fn = fn, .opaque = opaque };
    MmFault *f = vm->fault;

    g_mutex_lock(&f->work_lock);
    QSIMPLEQ_INSERT_TAIL(&f->work, &work, next);
    mm_wake(f->wake_fd);
    while (!work.done) {
        g_cond_wait(&f->work_done, &f->work_lock);
    }
    g_mutex_unlock(&f->work_lock);
}

void mm_fault_retry(MmVM *vm)
{
    qatomic_set(&vm->fault->retry, true);
    /* pairs with next_timeout_ms() */
    smp_mb();
    if (!qatomic_read(&vm->fault->nobody_waits) ||
        qatomic_read(&vm->fault->ring_slot) >= 0) {
        mm_wake(vm->fault->wake_fd);
    }
}

void mm_fault_imported(MmVM *vm)
{
    mm_wake(vm->fault->wake_fd);
}

void mm_fault_add_region(MmVM *vm, void *opaque)
{
    MmRegion *region = opaque;

    mm_vm_publish_region(vm, region->id, region);
    /* a fault that was read before now belonged to nobody */
    mm_uffd_wake(vm->uffd, region->hva, region->size);
    vm->fault->scan_region = 0;
    vm->fault->scanning = true;
}

void mm_fault_remove_region(MmVM *vm, void *opaque)
{
    MmRegion *region = opaque;

    mm_vm_publish_region(vm, region->id, NULL);
    mm_replay_forget_region(vm->fault, region->id);
    mm_swap_in_forget_region(vm->fault, region->id);
    mm_fetch_stop(vm->fault, region);
    mm_load_cancel(vm->fault, region, 0, region->nr_pages, MM_PAGE_NEVER);
    mm_waiters_remove(&vm->fault->waiters, region->hva, region->size,
                      mm_fault_latency, vm->fault);
}

void mm_fault_give_up(MmVM *vm, void *opaque)
{
    MmFault *f = vm->fault;
    uint64_t *count = opaque;
    unsigned i, nr = f->waiters.nr;

    *count = 0;
    memcpy(f->again, f->waiters.waiter, nr * sizeof(f->again[0]));
    for (i = 0; i < nr; i++) {
        uint64_t page;
        MmRegion *region = find_region(f, f->again[i].addr, &page);

        if (region && mm_can_give_up(f, region, page) &&
            mm_uffd_poison(vm->uffd, f->again[i].addr,
                           region->unit_pages * MM_PAGE_SIZE) == 0) {
            mm_give_up(f, region, page);
            mm_fault_served(f, region, page, region->unit_pages);
            (*count)++;
        }
    }
}

void mm_fault_waiting(MmVM *vm, uint32_t *threads, uint64_t *oldest_ns)
{
    mm_waiters_count(&vm->fault->waiters, threads, oldest_ns);
    if (*oldest_ns) {
        *oldest_ns = clock_ns() - *oldest_ns;
    }
}
