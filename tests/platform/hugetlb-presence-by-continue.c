/*
 * Whether a hugetlb memfd has a page is told by UFFDIO_CONTINUE in a second
 * mapping that nobody may access: 0 or EEXIST where it has, EFAULT where it has
 * none.  It fills nothing, and the guest's mapping stays as it is.  SEEK_DATA
 * and pread() do not tell: there is data everywhere, and holes read as zeroes.
 *
 * Design rules 4 and 7, for huge pages: a zapped page keeps its content, a
 * punched one is gone, and who has died in between can be told from it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "hugetlb.h"

#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define UNITS 4
#define BOTH (UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR)

static uint8_t *alias;
static int alias_uffd;

static bool is_there(size_t unit)
{
    uint8_t *addr = alias + unit * UNIT_BYTES;
    int ret = uffd_continue(alias_uffd, addr, UNIT_BYTES / PAGE_BYTES, 0, NULL);

    FACT_CHECK(ret == 0 || ret == -EEXIST || ret == -EFAULT,
               "CONTINUE: %s", strerror(-ret));
    if (ret == 0) {
        SYS(madvise(addr, UNIT_BYTES, MADV_DONTNEED));
    }
    return ret != -EFAULT;
}

static size_t units_allocated(int fd)
{
    struct stat st;

    SYS(fstat(fd, &st));
    return st.st_blocks * (size_t)512 / UNIT_BYTES;
}

int main(void)
{
    uint8_t *content = page_alloc(UNIT_BYTES / PAGE_BYTES, 0x5a);
    uint8_t *seen = page_alloc(UNIT_BYTES / PAGE_BYTES, 0);
    int fd, uffd;
    uint8_t *ram;

    hugetlb_pool(UNITS);
    fd = hugetlb_memfd(UNITS);
    ram = hugetlb_map(fd, UNITS, PROT_READ | PROT_WRITE);
    alias = hugetlb_map(fd, UNITS, PROT_NONE);
    uffd = uffd_open_missing_minor();
    alias_uffd = uffd_open(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MINOR_HUGETLBFS |
                           UFFD_FEATURE_MISSING_HUGETLBFS);
    uffd_register(uffd, ram, UNITS * UNIT_BYTES, BOTH);
    uffd_register(alias_uffd, alias, UNITS * UNIT_BYTES, BOTH);

    FACT_CHECK(!is_there(0) && !is_there(1), "a hole is a page");
    SYS(uffd_copy(uffd, ram, content, UNIT_BYTES / PAGE_BYTES, 0, NULL));
    FACT_CHECK(is_there(0) && !is_there(1), "a page is not told from a hole");
    FACT_CHECK(load_byte(ram + PAGE_BYTES) == 0x5a, "a probe unmaps the page");

    SYS(madvise(ram, UNIT_BYTES, MADV_DONTNEED));
    FACT_CHECK(is_there(0), "a zapped page is gone");
    FACT_CHECK(pread(fd, seen, UNIT_BYTES, 0) == (ssize_t)UNIT_BYTES &&
               !memcmp(seen, content, UNIT_BYTES), "a zap loses the content");

    FACT_CHECK(pread(fd, seen, UNIT_BYTES, UNIT_BYTES) == (ssize_t)UNIT_BYTES &&
               seen[0] == 0 && !is_there(1), "pread() fills a hole");
    FACT_CHECK(lseek(fd, UNIT_BYTES, SEEK_DATA) == (off_t)UNIT_BYTES,
               "SEEK_DATA tells a hole: there is no need for the alias");

    punch(fd, 0, UNIT_BYTES / PAGE_BYTES);
    FACT_CHECK(!is_there(0) && units_allocated(fd) == 0,
               "a punched page is there");
    return FACT_HOLDS;
}
