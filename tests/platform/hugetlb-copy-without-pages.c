/*
 * When the host has no huge page left, UFFDIO_COPY fails with EEXIST or with
 * ENOMEM, although the page does not exist: with the former where there is a
 * page table already.
 *
 * Design rule 6, for huge pages: EEXIST means that a present page wins.  Taken
 * at its word, it would make a page resident that is a hole, and so lose it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "hugetlb.h"

#include <sys/mman.h>
#include <sys/stat.h>

#define POOL_UNITS 2
#define UNITS (POOL_UNITS + 1)

int main(void)
{
    uint8_t *content = page_alloc(UNIT_BYTES / PAGE_BYTES, 0x5a);
    struct stat st;
    uint8_t *ram;
    int fd, uffd, ret;

    hugetlb_pool(POOL_UNITS);
    fd = hugetlb_memfd(UNITS);
    ram = hugetlb_map(fd, UNITS, PROT_READ | PROT_WRITE);
    uffd = uffd_open_missing_minor();
    uffd_register(uffd, ram, UNITS * UNIT_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    for (size_t i = 0; i < POOL_UNITS; i++) {
        SYS(uffd_copy(uffd, ram + i * UNIT_BYTES, content,
                      UNIT_BYTES / PAGE_BYTES, 0, NULL));
    }
    ret = uffd_copy(uffd, ram + POOL_UNITS * UNIT_BYTES, content,
                    UNIT_BYTES / PAGE_BYTES, 0, NULL);
    fact_info("a copy without a page to copy to: %s", strerror(-ret));
    FACT_CHECK(ret == -EEXIST || ret == -ENOMEM, "COPY: %s", strerror(-ret));
    SYS(fstat(fd, &st));
    FACT_CHECK(st.st_blocks * (size_t)512 == POOL_UNITS * UNIT_BYTES,
               "the host has given more pages than it has");
    return FACT_HOLDS;
}
