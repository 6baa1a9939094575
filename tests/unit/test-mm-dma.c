/*
 * Unit tests: QEMU's counters of mappings for DMA
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Callers unmap with another length, and some with another pointer, than they
 * have mapped.  Whatever they do, a chunk in which a mapping is alive must be
 * counted, and when no mapping is alive all counters must be zero.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/thread.h"
#include "backends/managed-memory-internal.h"

#define NR_CHUNKS 8
#define REGION_SIZE (NR_CHUNKS * (uint64_t)MM_DMA_CHUNK)
/* Never touched: only an address */
#define REGION_HVA ((uint8_t *)0x7f0000000000)

typedef struct Mapping {
    uint64_t offset;
    uint64_t len;
} Mapping;

static uint32_t counters[NR_CHUNKS];

static ManagedRegion region = {
    .hva = REGION_HVA,
    .size = REGION_SIZE,
    .dma = counters,
    .nr_chunks = NR_CHUNKS,
};

/* What managed-memory-dma.c needs of the client */
ManagedRegion *managed_region_find(const void *host)
{
    uint64_t offset = (uintptr_t)host - (uintptr_t)region.hva;

    return offset < region.size ? &region : NULL;
}

static void map(uint64_t offset, uint64_t len)
{
    managed_memory_dma_map_slow(region.hva + offset, len);
}

static void unmap(uint64_t offset, uint64_t len)
{
    managed_memory_dma_unmap_slow(region.hva + offset, len);
}

static void check_counters(uint64_t expected)
{
    unsigned i;

    for (i = 0; i < NR_CHUNKS; i++) {
        g_assert_cmpuint(counters[i], ==, (expected >> (4 * i)) & 15);
    }
}

/* ---- single mappings ---- */

static void test_chunks(void)
{
    map(0, 1);
    check_counters(0x1);
    map(MM_DMA_CHUNK - 1, 2);
    check_counters(0x12);
    map(MM_DMA_CHUNK, 3 * MM_DMA_CHUNK);
    check_counters(0x1122);
    g_assert_cmpuint(managed_dma_held(&region), ==, 4 * MM_DMA_CHUNK);
    unmap(MM_DMA_CHUNK - 1, 2);
    unmap(0, 1);
    unmap(MM_DMA_CHUNK, 3 * MM_DMA_CHUNK);
    check_counters(0);
    g_assert_cmpuint(managed_dma_held(&region), ==, 0);
}

static void test_not_managed(void)
{
    managed_memory_dma_map_slow(NULL, 0);
    managed_memory_dma_map_slow(region.hva + region.size, 4096);
    map(4096, 0);
    check_counters(0);
    managed_memory_dma_unmap_slow(region.hva + region.size, 4096);
    managed_memory_dma_unmap_slow(region.hva - 1, 4096);
    check_counters(0);
}

/* dma-helpers.c: the tail of the last entry was cut off */
static void test_shorter_unmap(void)
{
    map(MM_DMA_CHUNK - 512, 1024);
    unmap(MM_DMA_CHUNK - 512, 512);
    check_counters(0);

    /* two mappings from the same address: the short one ends */
    map(MM_DMA_CHUNK - 512, 512);
    map(MM_DMA_CHUNK - 512, 2 * MM_DMA_CHUNK);
    unmap(MM_DMA_CHUNK - 512, 300);
    check_counters(0x111);
    unmap(MM_DMA_CHUNK - 512, 2 * MM_DMA_CHUNK);
    check_counters(0);
}

/* The long mapping ends with a short length: its chunks may stay counted. */
static void test_ambiguous_unmap(void)
{
    map(0, 512);
    map(0, MM_DMA_CHUNK + 1);
    unmap(0, 100);
    g_assert_cmpuint(counters[0], ==, 1);
    unmap(0, 512);
    check_counters(0);
}

/* virtio-crypto moves the pointer, win_dump passes nonsense as length */
static void test_odd_unmap(void)
{
    map(4096, MM_DMA_CHUNK);
    unmap(4096 + 100, 200);
    check_counters(0);
    map(4096, MM_DMA_CHUNK);
    unmap(4096, UINT64_MAX);
    check_counters(0);

    /* nonsense must not cost another mapping its chunks */
    map(4096, 100);
    map(4096, MM_DMA_CHUNK);
    unmap(4096, UINT64_MAX);
    check_counters(0x11);
    unmap(4096, MM_DMA_CHUNK);
    check_counters(0);
}

/* A moved pointer in two overlapping mappings: neither may be dropped. */
static void test_uncertain_unmap(void)
{
    map(0, MM_DMA_CHUNK);
    map(4096, MM_DMA_CHUNK);
    unmap(8192, 100);
    check_counters(0x12);
    unmap(0, MM_DMA_CHUNK);
    unmap(4096, MM_DMA_CHUNK);
    check_counters(0);

    /* but of nested ones, the inner one */
    map(0, 2 * MM_DMA_CHUNK);
    map(4096, 8192);
    unmap(8192, 100);
    check_counters(0x11);
    unmap(0, 2 * MM_DMA_CHUNK);
    check_counters(0);
}

static void test_unmatched_unmap(void)
{
    map(0, 4096);
    unmap(8192, 4096);
    check_counters(0x1);
    unmap(0, 4096);
    check_counters(0);
}

/* ---- many mappings ---- */

/* A counter may be high while unmaps are ambiguous, but never low. */
static void check_covered(const GArray *live)
{
    uint32_t least[NR_CHUNKS] = {};
    unsigned i, chunk;

    for (i = 0; i < live->len; i++) {
        const Mapping *m = &g_array_index(live, Mapping, i);

        for (chunk = m->offset / MM_DMA_CHUNK;
             chunk <= (m->offset + m->len - 1) / MM_DMA_CHUNK; chunk++) {
            least[chunk]++;
        }
    }
    for (i = 0; i < NR_CHUNKS; i++) {
        g_assert_cmpuint(counters[i], >=, least[i]);
    }
}

static Mapping random_mapping(GRand *rand)
{
    Mapping m;

    /* few addresses, so that mappings share them */
    m.offset = g_rand_int_range(rand, 0, 12) * (REGION_SIZE / 12);
    m.len = 1 + g_rand_int_range(rand, 0, MIN(3 * MM_DMA_CHUNK,
                                              REGION_SIZE - m.offset));
    return m;
}

static void test_model(void)
{
    g_autoptr(GArray) live = g_array_new(false, false, sizeof(Mapping));
    GRand *rand = g_rand_new_with_seed(g_test_rand_int());
    unsigned i;

    for (i = 0; i < 200000; i++) {
        if (live->len < 40 && g_rand_boolean(rand)) {
            Mapping m = random_mapping(rand);

            map(m.offset, m.len);
            g_array_append_val(live, m);
        } else if (live->len) {
            unsigned at = g_rand_int_range(rand, 0, live->len);
            Mapping m = g_array_index(live, Mapping, at);

            g_array_remove_index_fast(live, at);
            unmap(m.offset, 1 + g_rand_int_range(rand, 0, m.len));
        }
        check_covered(live);
    }
    while (live->len) {
        Mapping m = g_array_index(live, Mapping, live->len - 1);

        g_array_set_size(live, live->len - 1);
        unmap(m.offset, m.len);
    }
    check_counters(0);
    g_rand_free(rand);
}

static void *hammer(void *opaque)
{
    GRand *rand = g_rand_new_with_seed(GPOINTER_TO_UINT(opaque));
    unsigned i;

    rcu_register_thread();
    for (i = 0; i < 100000; i++) {
        Mapping m = random_mapping(rand);

        map(m.offset, m.len);
        g_assert_cmpuint(qatomic_read(&counters[m.offset / MM_DMA_CHUNK]),
                         >, 0);
        unmap(m.offset, 1 + g_rand_int_range(rand, 0, m.len));
    }
    rcu_unregister_thread();
    g_rand_free(rand);
    return NULL;
}

static void test_threads(void)
{
    QemuThread threads[4];
    unsigned i;

    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_create(&threads[i], "hammer", hammer,
                           GUINT_TO_POINTER(g_test_rand_int()),
                           QEMU_THREAD_JOINABLE);
    }
    for (i = 0; i < ARRAY_SIZE(threads); i++) {
        qemu_thread_join(&threads[i]);
    }
    check_counters(0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    managed_dma_init();
    g_test_add_func("/managed-memory/dma/chunks", test_chunks);
    g_test_add_func("/managed-memory/dma/not-managed", test_not_managed);
    g_test_add_func("/managed-memory/dma/shorter-unmap", test_shorter_unmap);
    g_test_add_func("/managed-memory/dma/ambiguous-unmap",
                    test_ambiguous_unmap);
    g_test_add_func("/managed-memory/dma/odd-unmap", test_odd_unmap);
    g_test_add_func("/managed-memory/dma/uncertain-unmap",
                    test_uncertain_unmap);
    g_test_add_func("/managed-memory/dma/unmatched-unmap",
                    test_unmatched_unmap);
    g_test_add_func("/managed-memory/dma/model", test_model);
    g_test_add_func("/managed-memory/dma/threads", test_threads);
    return g_test_run();
}
