/*
 * Memfds of hugetlb pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "hugetlb.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <linux/memfd.h>
#include <sys/mman.h>

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static unsigned before;

static unsigned pool_get(const char *name)
{
    FILE *file = fopen(name, "r");
    unsigned n = 0;

    FACT_CHECK(file && fscanf(file, "%u", &n) == 1, "%s: %s", name,
               strerror(errno));
    fclose(file);
    return n;
}

static void pool_set(unsigned n)
{
    FILE *file = fopen(POOL "nr_hugepages", "w");

    FACT_CHECK(file && fprintf(file, "%u", n) > 0 && fclose(file) == 0,
               "cannot set the number of huge pages: %s", strerror(errno));
}

static void give_back(void)
{
    pool_set(before);
}

void hugetlb_pool(unsigned pages)
{
    unsigned unused = pool_get(POOL "free_hugepages");

    before = pool_get(POOL "nr_hugepages");
    atexit(give_back);
    /* those that are there may be somebody's, or be wanted by somebody */
    pool_set(before - unused + pages);
    FACT_CHECK(pool_get(POOL "free_hugepages") == pages,
               "the host has %u free huge pages instead of %u",
               pool_get(POOL "free_hugepages"), pages);
}

int hugetlb_memfd(size_t units)
{
    int fd = SYS(memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB |
                              MFD_HUGE_2MB));

    SYS(ftruncate(fd, units * UNIT_BYTES));
    return fd;
}

uint8_t *hugetlb_map(int fd, size_t units, int prot)
{
    void *addr = mmap(NULL, units * UNIT_BYTES, prot,
                      MAP_SHARED | MAP_NORESERVE, fd, 0);

    FACT_CHECK(addr != MAP_FAILED, "mmap: %s", strerror(errno));
    return addr;
}
