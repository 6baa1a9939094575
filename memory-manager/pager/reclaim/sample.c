/*
 * Managed memory pager: how much memory the guest uses
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The working set is estimated from a sample: pages chosen at random among all
 * that the VM has are zapped, and those that have come back when the interval
 * is over were touched.  What is not in memory needs no zap.  (What is read or
 * filled ahead counts as touched, so the estimate is rather too high.)  The
 * share that was touched, of the VM's memory, is the working set of the
 * interval; who asks works out the error (memory-manager/working-set.c).
 *
 * A sampled page is CANDIDATE, as one that may be evicted, but the fifo passes
 * it over: it stays in memory meanwhile.  Its age is not changed by us.  If
 * memory is needed that cannot be had otherwise, or by the operator's word, the
 * sample is given up.
 */
#include "qemu/osdep.h"
#include "../region.h"
#include "reclaim-internal.h"

/* When to look again whether the VM has got memory. */
#define NO_MEMORY_NS 1000000000ULL

static uint64_t clock_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

static int by_number(const void *a, const void *b, void *unused)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Present, and to be unmapped, unless somebody uses it right now. */
static void take_present(MmRegion *region, MmSamplePage *p, MmZap *zap)
{
    uint64_t candidate = mm_entry_with_state(p->entry, MM_PAGE_CANDIDATE);
    bool zapped = mm_entry_state(p->entry) == MM_PAGE_CANDIDATE;

    candidate = mm_entry_at(candidate, MM_TIER_NONE, MM_PLACE_SAMPLED);
    /* what a device uses is in use, whether vCPUs touch it or not */
    p->touched = mm_region_dma_held(region, p->page) ||
                 !mm_map_cas(&region->map, p->page, p->entry, candidate);
    if (p->touched) {
        return;
    }
    p->ours = true;
    p->entry = candidate;
    if (!zapped) {
        mm_zap_add(zap, region, p->page);
    }
}

/* One page of the sample; into @zap if only that tells whether it is used. */
static void take(MmReclaim *r, MmRegion *region, uint64_t page, MmZap *zap)
{
    MmSamplePage *p = &r->sample.p[r->sample.nr++];

    *p = (MmSamplePage) {
        .region = region->id, .page = page,
        .entry = mm_map_get(&region->map, page),
    };
    switch (mm_entry_state(p->entry)) {
    case MM_PAGE_RESIDENT:
    case MM_PAGE_CANDIDATE:
        take_present(region, p, zap);
        break;
    case MM_PAGE_NEVER:
    case MM_PAGE_SWAPPED:
    case MM_PAGE_LOST:
    case MM_PAGE_WRITEBACK:
    case MM_PAGE_DROPPING:
        break;      /* not mapped: only a fault brings it back */
    default:
        p->touched = true;
    }
}

/*
 * The pages with these numbers, counted over all regions; they are sorted.
 * One that has been drawn twice counts once, and so does a huge page.
 */
static void take_all(MmReclaim *r, const uint64_t *numbers, unsigned nr,
                     MmZap *zap)
{
    uint64_t first = 0, page, last;
    unsigned i = 0;
    uint32_t id;

    for (id = 0; id < MM_MAX_REGIONS && i < nr; id++) {
        MmRegion *region = mm_vm_region_get(r->vm, id);

        if (!region) {
            continue;
        }
        last = UINT64_MAX;
        for (; i < nr && numbers[i] - first < region->nr_pages; i++) {
            page = mm_region_unit(region, numbers[i] - first);
            if (page != last) {
                take(r, region, page, zap);
                last = page;
            }
        }
        first += region->nr_pages;
        mm_region_put(r->vm, region);
    }
}

static int begin(MmReclaim *r)
{
    MmSample *sample = &r->sample;
    uint64_t pages = qatomic_read(&r->vm->total_size) / MM_PAGE_SIZE;
    uint64_t numbers[MM_SAMPLE_PAGES];
    MmZap zap = {};
    unsigned i;
    int ret;

    QEMU_BUILD_BUG_ON(MM_SAMPLE_PAGES > MM_ZAP_PAGES);
    sample->nr = 0;
    sample->size = pages * MM_PAGE_SIZE;
    sample->began_ns = clock_ns();
    for (i = 0; pages && i < MM_SAMPLE_PAGES; i++) {
        numbers[i] = mm_random(r, pages);
    }
    /* not qsort(), which asks the kernel what the jail does not let it ask */
    g_qsort_with_data(numbers, pages ? MM_SAMPLE_PAGES : 0, sizeof(numbers[0]),
                      by_number, NULL);
    take_all(r, numbers, pages ? MM_SAMPLE_PAGES : 0, &zap);
    ret = zap.nr_pages ? mm_zap_send(r, &zap) : 1;
    if (!ret) {
        mm_sample_abort(r);     /* nothing would be told from the rest */
    }
    return MIN(ret, 0);
}

/* How often a page has come in: more than before if it is out again, too. */
static unsigned times_in(uint64_t entry)
{
    switch (mm_entry_state(entry)) {
    case MM_PAGE_CANDIDATE:
    case MM_PAGE_WRITEBACK:
        return mm_entry_version(entry) + 1;
    default:
        return mm_entry_version(entry);
    }
}

/* Was it touched since it was chosen? */
static bool has_come_back(MmRegion *region, const MmSamplePage *p)
{
    uint64_t entry = mm_map_get(&region->map, p->page);

    if (p->ours) {
        /* nobody but a fault takes it: put it back */
        return entry != p->entry ||
               !mm_zap_give_up(region, p->page, entry);
    }
    switch (mm_entry_state(entry)) {
    case MM_PAGE_FILLING:
    case MM_PAGE_RESIDENT:
    case MM_PAGE_MAPPING:
        return true;
    default:
        return times_in(entry) != times_in(p->entry);
    }
}

static bool was_touched(MmReclaim *r, const MmSamplePage *p)
{
    MmRegion *region;
    bool touched;

    if (p->touched) {
        return true;
    }
    region = mm_vm_region_get(r->vm, p->region);
    if (!region) {
        return false;
    }
    touched = p->page < region->nr_pages && has_come_back(region, p);
    mm_region_put(r->vm, region);
    return touched;
}

static void end(MmReclaim *r)
{
    MmSample *sample = &r->sample;
    MmVM *vm = r->vm;
    unsigned i, touched = 0;

    for (i = 0; i < sample->nr; i++) {
        touched += was_touched(r, &sample->p[i]);
    }
    g_mutex_lock(&vm->sample_lock);
    vm->sampled = (MmMsgSample) {
        .touched = touched,
        .pages = sample->nr,
        .size = sample->size,
        .interval_ns = clock_ns() - sample->began_ns,
    };
    vm->sampled_ns = clock_ns();
    g_mutex_unlock(&vm->sample_lock);
    sample->nr = 0;
}

void mm_sample_abort(MmReclaim *r)
{
    MmSample *sample = &r->sample;
    unsigned i;

    for (i = 0; i < sample->nr; i++) {
        was_touched(r, &sample->p[i]);
    }
    sample->nr = 0;
}

static bool may_sample(const MmReclaim *r)
{
    return r->vm->sample_interval_ns && !qatomic_read(&r->evicting) &&
           qatomic_load_acquire(&r->vm->scan_done) &&
           !qatomic_read(&r->vm->reclaim_rests);
}

int mm_sample_step(MmReclaim *r)
{
    MmSample *sample = &r->sample;
    uint64_t now = clock_ns();
    int ret;

    if (!may_sample(r) || now < sample->next_ns) {
        return 0;
    }
    if (sample->nr) {
        end(r);
    }
    ret = begin(r);
    sample->next_ns = now + (sample->nr ? r->vm->sample_interval_ns
                             : MIN(r->vm->sample_interval_ns, NO_MEMORY_NS));
    return ret;
}

int mm_sample_wait_ms(const MmReclaim *r)
{
    uint64_t now = clock_ns();

    if (!may_sample(r)) {
        return -1;
    }
    return r->sample.next_ns <= now ? 0
           : MIN((r->sample.next_ns - now) / 1000000 + 1, INT_MAX);
}
