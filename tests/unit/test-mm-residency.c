/*
 * Unit tests: where the host's kernel has the pages of ordinary memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Of real memory.  What is swapped out is tested where there is swap and a
 * memory cgroup that is too small for PRESSURE_BYTES, as
 * tests/functional/test-swap-aware-migration sees to.
 */
#include "qemu/osdep.h"
#include "qemu/memfd.h"
#include "qapi/error.h"
#include "migration/residency-probe.h"

#define NR_PAGES RESIDENCY_PAGES
#define PRESSURE_BYTES (64 << 20)
#define PRESSURE_STEP (4 << 20)
#define PRESSURE_PAUSE_US 10000
#define SWAP_ROUNDS 20

static size_t page_size;
static int pagemap;
static int memfd;
static uint8_t *shared;
static Residency found;

static void set_up(void)
{
    page_size = qemu_real_host_page_size();
    pagemap = residency_open_pagemap();
    g_assert_cmpint(pagemap, >=, 0);
    memfd = qemu_memfd_create("residency", NR_PAGES * page_size, false, 0, 0,
                              &error_abort);
    shared = mmap(NULL, NR_PAGES * page_size, PROT_READ | PROT_WRITE,
                  MAP_SHARED, memfd, 0);
    g_assert_true(shared != MAP_FAILED);
}

static void tear_down(void)
{
    munmap(shared, NR_PAGES * page_size);
    close(memfd);
    close(pagemap);
}

static uint8_t *new_private(void)
{
    uint8_t *host = mmap(NULL, NR_PAGES * page_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_true(host != MAP_FAILED);
    /* a huge page would populate its neighbours */
    madvise(host, NR_PAGES * page_size, MADV_NOHUGEPAGE);
    return host;
}

static void look(uint8_t *host, unsigned first, unsigned nr, int fd)
{
    ResidencyRange range = {
        .host = host + first * page_size,
        .nr = nr,
        .fd = fd,
        .offset = first * page_size,
    };

    residency_look(&range, pagemap, &found);
}

static uint64_t nr_of(const unsigned long *pages)
{
    return bitmap_count_one(pages, NR_PAGES);
}

static void write_pages(uint8_t *host, unsigned first, unsigned nr)
{
    unsigned i;

    for (i = first; i < first + nr; i++) {
        host[i * page_size] = i + 1;
    }
}

static void punch(unsigned first, unsigned nr)
{
    g_assert_cmpint(fallocate(memfd,
                              FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              first * page_size, nr * page_size), ==, 0);
}

static uint64_t allocated_pages(void)
{
    struct stat st;

    g_assert_cmpint(fstat(memfd, &st), ==, 0);
    return st.st_blocks * 512 / page_size;
}

static void test_known(void)
{
    int pipes[2];
    int huge;

    set_up();
    g_assert_true(residency_is_known(memfd));
    g_assert_false(residency_is_known(pagemap));
    g_assert_false(residency_is_known(-1));
    g_assert_cmpint(pipe(pipes), ==, 0);
    g_assert_false(residency_is_known(pipes[0]));
    close(pipes[0]);
    close(pipes[1]);
    huge = memfd_create("huge", MFD_HUGETLB);
    if (huge >= 0) {
        g_assert_false(residency_is_known(huge));
        close(huge);
    }
    tear_down();
}

static void test_shared(void)
{
    uint8_t byte = 1;

    set_up();
    look(shared, 0, NR_PAGES, memfd);
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES);

    write_pages(shared, 3, 2);
    /* this one is not mapped */
    g_assert_cmpint(pwrite(memfd, &byte, 1, 10 * page_size), ==, 1);
    write_pages(shared, NR_PAGES - 1, 1);
    look(shared, 0, NR_PAGES, memfd);
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES - 4);
    g_assert_cmpuint(find_next_zero_bit(found.hole, NR_PAGES, 0), ==, 3);
    g_assert_cmpuint(find_next_bit(found.hole, NR_PAGES, 3), ==, 5);
    g_assert_false(test_bit(NR_PAGES - 1, found.hole));
    g_assert_cmpuint(nr_of(found.unmapped), ==, 1);
    g_assert_true(test_bit(10, found.unmapped));
    g_assert_cmpuint(nr_of(found.swapped), ==, 0);
    /* to look allocates nothing, and maps nothing */
    g_assert_cmpuint(allocated_pages(), ==, 4);
    look(shared, 0, NR_PAGES, memfd);
    g_assert_true(test_bit(10, found.unmapped));
    tear_down();
}

static void test_part(void)
{
    set_up();
    write_pages(shared, 7, 2);
    look(shared, 8, 3, memfd);
    g_assert_false(test_bit(0, found.hole));
    g_assert_true(test_bit(1, found.hole));
    g_assert_true(test_bit(2, found.hole));
    g_assert_cmpuint(nr_of(found.hole), ==, 2);
    look(shared, 7, 2, memfd);
    g_assert_cmpuint(nr_of(found.hole), ==, 0);
    tear_down();
}

static void test_private(void)
{
    uint8_t *host;

    set_up();
    host = new_private();
    look(host, 0, NR_PAGES, -1);
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES);
    write_pages(host, 5, 1);
    /* reading makes it one that is there: the kernel's page of zeros */
    g_assert_cmpuint(*(volatile uint8_t *)(host + 6 * page_size), ==, 0);
    look(host, 0, NR_PAGES, -1);
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES - 2);
    g_assert_false(test_bit(5, found.hole));
    g_assert_cmpuint(nr_of(found.swapped), ==, 0);
    g_assert_cmpuint(nr_of(found.unmapped), ==, 0);
    munmap(host, NR_PAGES * page_size);
    tear_down();
}

/* In a jail there may be no /proc. */
static void test_without_pagemap(void)
{
    uint8_t byte = 1;
    uint8_t *host;

    set_up();
    close(pagemap);
    pagemap = -1;
    host = new_private();
    look(host, 0, NR_PAGES, -1);
    g_assert_cmpuint(nr_of(found.hole), ==, 0);
    g_assert_cmpint(pwrite(memfd, &byte, 1, 10 * page_size), ==, 1);
    look(shared, 0, NR_PAGES, memfd);
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES - 1);
    g_assert_cmpuint(nr_of(found.unmapped), ==, 0);
    munmap(host, NR_PAGES * page_size);
    tear_down();
}

static void test_is_hole(void)
{
    set_up();
    g_assert_true(residency_is_hole(memfd, 0, NR_PAGES * page_size));
    write_pages(shared, 4, 1);
    g_assert_true(residency_is_hole(memfd, 3 * page_size, page_size));
    g_assert_false(residency_is_hole(memfd, 4 * page_size, page_size));
    g_assert_true(residency_is_hole(memfd, 5 * page_size, page_size));
    g_assert_false(residency_is_hole(memfd, 3 * page_size, 2 * page_size));
    g_assert_false(residency_is_hole(memfd, 0, NR_PAGES * page_size));
    punch(4, 1);
    g_assert_true(residency_is_hole(memfd, 4 * page_size, page_size));
    g_assert_false(residency_is_hole(pagemap, 0, page_size));
    tear_down();
}

static void test_advise(void)
{
    DECLARE_BITMAP(pages, NR_PAGES) = { 0 };

    set_up();
    write_pages(shared, 0, NR_PAGES);
    set_bit(0, pages);
    bitmap_set(pages, 9, 3);
    set_bit(NR_PAGES - 1, pages);
    residency_advise(shared, pages, NR_PAGES, MADV_DONTNEED);
    look(shared, 0, NR_PAGES, memfd);
    g_assert_true(bitmap_equal(found.unmapped, pages, NR_PAGES));
    tear_down();
}

/* Not all at once: what is on its way to the swap counts until it is there. */
static void press(void)
{
    uint8_t *host = mmap(NULL, PRESSURE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t offset;

    g_assert_true(host != MAP_FAILED);
    for (offset = 0; offset < PRESSURE_BYTES; offset += page_size) {
        host[offset] = 1;
        if (offset % PRESSURE_STEP == 0) {
            g_usleep(PRESSURE_PAUSE_US);
        }
    }
    munmap(host, PRESSURE_BYTES);
}

/* What has come ahead of its use is there, though it is not mapped. */
static void check_brought_in(uint8_t *host, int fd,
                             const unsigned long *pages)
{
    int round;

    for (round = 0; round < SWAP_ROUNDS * 10; round++) {
        residency_advise(host, pages, NR_PAGES, MADV_WILLNEED);
        look(host, 0, NR_PAGES, fd);
        if (bitmap_empty(found.swapped, NR_PAGES)) {
            break;
        }
        g_usleep(PRESSURE_PAUSE_US);
    }
    g_assert_true(bitmap_equal(found.unmapped, pages, NR_PAGES));
}

/* Some pages are swapped out, some are holes, and some are there. */
static void check_swapped(uint8_t *host, int fd)
{
    DECLARE_BITMAP(pages, NR_PAGES) = { 0 };
    int round;

    bitmap_set(pages, 100, 50);
    bitmap_set(pages, 200, 1);
    write_pages(host, 100, 50);
    write_pages(host, 200, 1);
    for (round = 0; round < SWAP_ROUNDS; round++) {
        residency_advise(host, pages, NR_PAGES, MADV_PAGEOUT);
        press();
        look(host, 0, NR_PAGES, fd);
        if (bitmap_equal(found.swapped, pages, NR_PAGES)) {
            break;
        }
    }
    if (round == SWAP_ROUNDS) {
        g_test_message("the kernel has not swapped out what it could have: "
                       "there is no swap, or memory enough");
        g_test_fail();
        return;
    }
    g_assert_cmpuint(nr_of(found.hole), ==, NR_PAGES - 51);
    g_assert_cmpuint(nr_of(found.unmapped), ==, 0);
    if (fd >= 0) {
        g_assert_false(residency_is_hole(fd, 100 * page_size, page_size));
        g_assert_true(residency_is_hole(fd, 99 * page_size, page_size));
    }
    check_brought_in(host, fd, pages);
    write_pages(host, 230, 1);
    g_assert_cmpuint(host[200 * page_size], ==, 201);
    look(host, 0, NR_PAGES, fd);
    g_assert_false(test_bit(200, found.swapped));
    g_assert_false(test_bit(230, found.hole));
}

static void test_swapped_shared(void)
{
    set_up();
    check_swapped(shared, memfd);
    tear_down();
}

static void test_swapped_private(void)
{
    uint8_t *host;

    set_up();
    host = new_private();
    check_swapped(host, -1);
    munmap(host, NR_PAGES * page_size);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/residency/known", test_known);
    g_test_add_func("/mm/residency/shared", test_shared);
    g_test_add_func("/mm/residency/part", test_part);
    g_test_add_func("/mm/residency/private", test_private);
    g_test_add_func("/mm/residency/without-pagemap", test_without_pagemap);
    g_test_add_func("/mm/residency/is-hole", test_is_hole);
    g_test_add_func("/mm/residency/advise", test_advise);
    /* who calls with that has swap, and lets us have little memory */
    if (g_getenv("MM_SWAP")) {
        g_test_add_func("/mm/residency/swapped-shared", test_swapped_shared);
        g_test_add_func("/mm/residency/swapped-private", test_swapped_private);
    }
    return g_test_run();
}
