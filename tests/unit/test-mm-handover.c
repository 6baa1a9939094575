/*
 * Unit tests: content that stays where it is while its guest moves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Two VMs, each as its pager has it: what one pins the other adopts and reads,
 * from a file that both have open.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/pager/fault/fault-internal.h"
#include "memory-manager/pager/reclaim/reclaim-internal.h"
#include "memory-manager/pager/region.h"
#include "vm-rig.h"

#define NR_PAGES 4096
#define BUFFER 40
#define CONTENT 200
#define TIMEOUT_MS 10000
/* Of allocations, until each place of the file has had its turn */
#define ROUNDS 1024

/* Numbers of tiers */
#define OWN 0
#define LENT 1

static MmVM *source, *target;
static MmRegion *from, *to;

static MmPlaces *places(MmVM *vm)
{
    return (MmPlaces *)vm->ring->buffer[BUFFER];
}

static void fault_round(MmVM *vm)
{
    vm->fault->now_ns = g_get_monotonic_time() * 1000;
    mm_load_reap(vm->fault);
    mm_ring_poll(vm->fault);
    mm_fetch_step(vm->fault);
}

/* Returns what the pager says is done. */
static uint32_t request(MmVM *vm, MmRingKind kind, uint64_t page, uint32_t nr,
                        unsigned buffer)
{
    MmRingSlot *slot = &vm->ring->slots[0];
    unsigned ms;

    *slot = (MmRingSlot) {
        .kind = kind, .buffer = buffer, .pages = 0xffffffff,
        .range = { .region = 0, .first_page = page, .nr_pages = nr },
    };
    qatomic_set(&slot->state, MM_RING_POSTED);
    vm->fault->kicked = true;
    for (ms = 0; qatomic_read(&slot->state) != MM_RING_DONE; ms++) {
        g_assert_cmpuint(ms, <, TIMEOUT_MS);
        fault_round(vm);
        if (ms > 10) {
            g_usleep(1000);
        }
    }
    return slot->pages;
}

static void swap_out(uint64_t page, unsigned nr)
{
    unsigned i;

    vm_rig_populate(from, page, nr);
    for (i = 0; i < nr; i++) {
        vm_rig_swap_out(source, from, page + i, MM_PAGE_SWAPPED);
    }
}

static void pin(uint64_t page, uint32_t nr)
{
    memset(places(source), 0xee, MM_RING_PLACES_PAGES(nr) * MM_PAGE_SIZE);
    request(source, MM_RING_PIN, page, nr, BUFFER);
}

/* What travels; the tier has another number where it is lent. */
static void travel(uint32_t nr)
{
    unsigned i;

    memcpy(places(target), places(source),
           MM_RING_PLACES_PAGES(nr) * MM_PAGE_SIZE);
    for (i = 0; i < nr; i++) {
        places(target)->page[i].tier = LENT;
    }
}

static uint32_t adopt(uint64_t page, uint32_t nr)
{
    return request(target, MM_RING_ADOPT, page, nr, BUFFER);
}

/* Is it out of memory at the target, and can it be had? */
static bool has_content(uint64_t page, uint64_t word)
{
    uint64_t *content = (uint64_t *)target->ring->buffer[CONTENT];

    *content = ~word;
    return vm_rig_state(to, page) == MM_PAGE_SWAPPED &&
           !vm_rig_present(to, page) &&
           request(target, MM_RING_FETCH, page, 1, CONTENT) == 1 &&
           *content == word;
}

static uint64_t used(MmVM *vm, unsigned tier)
{
    MmTierUsage usage;

    vm->by_number[tier]->ops->usage(vm->by_number[tier], &usage);
    return usage.pages;
}

static uint64_t free_pages(uint64_t page)
{
    uint64_t entry = mm_map_get(&from->map, page);
    uint64_t place = mm_entry_place(entry);

    mm_map_move(&from->map, page, entry,
                mm_entry_at(mm_entry_with_state(entry, MM_PAGE_NEVER),
                            MM_TIER_NONE, 0));
    source->tiers[0]->ops->free(source->tiers[0], place, 1);
    return place;
}

/* Take places all around the file; is this one among them? */
static bool is_handed_out(uint64_t place)
{
    MmTierQueue *queue = source->reclaim->queues[0];
    MmTierIO io = { .store = true };
    bool found = false;
    unsigned i;

    for (i = 0; i < ROUNDS; i++) {
        io.nr_pages = MM_TIER_IO_PAGES;
        g_assert_cmpint(queue->ops->alloc(queue, &io), ==, 0);
        found |= place - io.place < io.nr_pages;
        source->tiers[0]->ops->free(source->tiers[0], io.place, io.nr_pages);
    }
    return found;
}

static void test_content(void)
{
    unsigned i;

    swap_out(10, 20);
    vm_rig_populate(from, 30, 1);
    pin(8, 24);
    g_assert_cmpuint(source->state->pinned, ==, 1);
    for (i = 0; i < 24; i++) {
        g_assert_cmpuint(places(source)->page[i].known, ==, i >= 2 && i < 22);
    }
    travel(24);
    g_assert_cmpuint(adopt(8, 24), ==, 1);
    for (i = 0; i < 24; i++) {
        if (i >= 2 && i < 22) {
            g_assert_true(has_content(8 + i, 8 + i + 1));
        } else {
            g_assert_cmpint(vm_rig_state(to, 8 + i), ==, MM_PAGE_NEVER);
        }
    }
    g_assert_cmpuint(target->total_resident, ==, 0);
    g_assert_cmpuint(used(target, LENT), ==, 20);
    g_assert_cmpuint(used(target, OWN), ==, 0);
    g_assert_cmpuint(target->state->stats.pages_adopted, ==, 20);
}

/* Of zero pages, and what is in memory, there is nothing to tell. */
static void test_not_there(void)
{
    vm_rig_populate(from, 0, 1);
    pin(0, 2);
    g_assert_cmpuint(places(source)->page[0].known, ==, 0);
    g_assert_cmpuint(places(source)->page[1].known, ==, 0);
    source->state->shared.present = 0;
    swap_out(2, 1);
    memset(places(source), 0, MM_PAGE_SIZE);
    request(source, MM_RING_PIN, 2, 1, BUFFER);
    g_assert_cmpuint(places(source)->page[0].known, ==, 0);
    source->state->shared.present = 1;
}

/* A place that was told of stays as it is, whatever becomes of its page. */
static void test_pinned(void)
{
    uint64_t place;

    swap_out(0, 1);
    pin(0, 1);
    travel(1);
    place = free_pages(0);
    g_assert_cmpuint(used(source, OWN), ==, 0);
    g_assert_false(is_handed_out(place));
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_true(has_content(0, 1));
    source->tiers[0]->ops->unpin(source->tiers[0]);
    g_assert_true(is_handed_out(place));
}

/* What is there is newer, or not ours to know. */
static void test_only_empty(void)
{
    swap_out(0, 3);
    pin(0, 3);
    travel(3);
    places(target)->page[0].known = 0;
    g_assert_cmpuint(adopt(0, 3), ==, 1);
    vm_rig_populate(to, 0, 1);
    travel(3);
    places(target)->page[2].version++;
    g_assert_cmpuint(adopt(0, 3), ==, 1);
    g_assert_cmpuint(places(target)->page[0].known, ==, 0);
    /* as when a pager dies before the end of the request */
    g_assert_cmpuint(places(target)->page[1].known, ==, 1);
    g_assert_cmpuint(places(target)->page[2].known, ==, 0);
    g_assert_cmpint(vm_rig_state(to, 0), ==, MM_PAGE_RESIDENT);
    g_assert_true(has_content(1, 2));
    g_assert_cmpuint(used(target, LENT), ==, 2);
}

static void test_nonsense(void)
{
    MmPlace *page = places(target)->page;

    swap_out(0, 1);
    pin(0, 1);
    travel(1);
    page->tier = OWN;
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_cmpuint(page->known, ==, 0);
    travel(1);
    page->tier = 255;
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_cmpuint(page->known, ==, 0);
    travel(1);
    page->place = MM_PLACE_MAX;
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_cmpuint(page->known, ==, 0);
    travel(1);
    page->place = UINT64_MAX;
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_cmpuint(page->known, ==, 0);
    /* the same place for two pages */
    travel(1);
    places(target)->page[1] = *page;
    g_assert_cmpuint(adopt(0, 2), ==, 1);
    g_assert_cmpuint(places(target)->page[1].known, ==, 0);
    g_assert_cmpuint(used(target, LENT), ==, 1);
    g_assert_cmpuint(adopt(0, MM_RING_PLACES_MAX + 1), ==, 0);
    g_assert_cmpuint(adopt(NR_PAGES - 1, 2), ==, 0);
    g_assert_cmpuint(request(target, MM_RING_ADOPT, 0, 1,
                             MM_RING_BUFFER_PAGES), ==, 0);
    /* the last page that a request can have, and one further */
    g_assert_cmpuint(request(target, MM_RING_ADOPT, 0, MM_RING_PLACES_MAX,
                             MM_RING_BUFFER_PAGES - 7), ==, 0);
}

/* What it wants when it wakes up goes from one to the other. */
static void test_wake(void)
{
    uint8_t *bits = source->ring->buffer[BUFFER];
    const unsigned blocks = NR_PAGES / MM_RING_WAKE_BLOCK;

    mm_wake_set_put(&from->wake_set, 0, true);
    mm_wake_set_put(&from->wake_set, 11, true);
    mm_wake_set_put(&from->wake_set, blocks - 1, true);
    memset(bits, 0xee, MM_PAGE_SIZE);
    g_assert_cmpuint(request(source, MM_RING_WAKE_READ, 0, NR_PAGES, BUFFER),
                     ==, 1);
    g_assert_cmphex(bits[0], ==, 1);
    g_assert_cmphex(bits[1], ==, 8);
    g_assert_cmphex(bits[blocks / 8 - 1], ==, 0x80);
    g_assert_cmphex(bits[blocks / 8], ==, 0xee);
    /* from another block on, to one that is not whole */
    g_assert_cmpuint(request(source, MM_RING_WAKE_READ, 8 * MM_RING_WAKE_BLOCK,
                             3 * MM_RING_WAKE_BLOCK + 1, BUFFER), ==, 1);
    g_assert_cmphex(bits[0], ==, 8);
    g_assert_cmphex(bits[1], ==, 8);    /* as it was */

    mm_wake_set_put(&to->wake_set, 9, true);
    target->ring->buffer[BUFFER][0] = bits[0];
    g_assert_cmpuint(request(target, MM_RING_WAKE_WRITE, 8 * MM_RING_WAKE_BLOCK,
                             3 * MM_RING_WAKE_BLOCK + 1, BUFFER), ==, 1);
    g_assert_false(mm_wake_set_has(&to->wake_set, 9));
    g_assert_cmpuint(mm_wake_set_next(&to->wake_set, 0, 0), ==, 11);
    g_assert_cmpuint(mm_wake_set_pages(&to->wake_set), ==, MM_RING_WAKE_BLOCK);

    g_assert_cmpuint(request(target, MM_RING_WAKE_WRITE, 1, 64, BUFFER), ==, 0);
    g_assert_cmpuint(request(target, MM_RING_WAKE_READ, NR_PAGES, 1, BUFFER),
                     ==, 0);
    g_assert_cmpuint(request(target, MM_RING_WAKE_READ, 0, NR_PAGES,
                             MM_RING_BUFFER_PAGES), ==, 0);
}

/* Content that was checked by one seed is not by another. */
static void test_seed(void)
{
    uint64_t seed = to->map.checksum_seed;

    places(target)->seed = seed + 1;
    places(target)->page[0].known = 0;
    vm_rig_populate(to, 5, 1);
    g_assert_cmpuint(adopt(0, 1), ==, 0);
    vm_rig_swap_out(target, to, 5, MM_PAGE_SWAPPED);
    g_assert_cmpuint(adopt(0, 1), ==, 0);
    g_assert_cmphex(to->map.checksum_seed, ==, seed);
    places(target)->seed = seed;
    g_assert_cmpuint(adopt(0, 1), ==, 1);
    g_assert_true(has_content(5, 6));
}

/* Another one's content is found out, as is that of another page. */
static void test_wrong_content(void)
{
    swap_out(0, 2);
    pin(0, 2);
    travel(2);
    places(target)->page[0].checksum++;
    places(target)->page[1].place = places(source)->page[0].place;
    places(target)->page[0].place = places(source)->page[1].place;
    g_assert_cmpuint(adopt(0, 2), ==, 1);
    g_assert_false(has_content(0, 1));
    g_assert_false(has_content(1, 2));
    g_assert_cmpint(vm_rig_state(to, 0), ==, MM_PAGE_SWAPPED);
}

/* What is evicted goes to one's own tier, and nothing to the lent one. */
static void test_takes_nothing(void)
{
    MmTier *lent = target->by_number[LENT];

    g_assert_true(mm_tier_closed(lent));
    g_assert_false(mm_tier_draining(lent));
    g_assert_true(mm_vm_last_tier(target) == target->by_number[OWN]);
    g_assert_true(lent->ops->settled(lent));
}

static const struct {
    const char *name;
    void (*fn)(void);
} tests[] = {
    { "content", test_content },
    { "not-there", test_not_there },
    { "pinned", test_pinned },
    { "only-empty", test_only_empty },
    { "nonsense", test_nonsense },
    { "seed", test_seed },
    { "wake", test_wake },
    { "wrong-content", test_wrong_content },
    { "takes-nothing", test_takes_nothing },
};

/* Rigs live as long as the process. */
static MmVM *kept[2 * ARRAY_SIZE(tests)];

static MmVM *keep(MmVM *vm)
{
    static unsigned nr;

    kept[nr++] = vm;
    return vm;
}

static void run(const void *opaque)
{
    void (*const *fn)(void) = opaque;

    source = keep(vm_rig_new_shared(g_get_tmp_dir()));
    target = keep(vm_rig_new_lent(g_get_tmp_dir(), source));
    from = vm_rig_add(source, 0, NR_PAGES);
    to = vm_rig_add(target, 0, NR_PAGES);
    (*fn)();
    vm_rig_remove(source, from);
    vm_rig_remove(target, to);
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    for (i = 0; i < ARRAY_SIZE(tests); i++) {
        g_autofree char *path = g_strdup_printf("/mm/handover/%s",
                                                tests[i].name);

        g_test_add_data_func(path, &tests[i].fn, run);
    }
    return g_test_run();
}
