/*
 * The seals SHRINK, GROW and SEAL keep a memfd at its size for ever, whoever
 * holds it, and still allow its pages to be written, punched and filled.
 *
 * Design rule 1: guest RAM is made and sealed by the manager.  A hostile QEMU
 * can then neither raise SIGBUS in the pager by truncating the file, nor add
 * a write seal that would keep the pager from filling it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <unistd.h>

#define PAGES   4
#define BYTES   (PAGES * PAGE_BYTES)

static void expect_eperm(const char *what, long ret)
{
    FACT_CHECK(ret < 0, "%s is possible", what);
    FACT_CHECK(errno == EPERM, "%s: %s", what, strerror(errno));
}

static void expect_size_is_fixed(int fd)
{
    expect_eperm("shrinking", ftruncate(fd, BYTES - PAGE_BYTES));
    expect_eperm("growing", ftruncate(fd, BYTES + PAGE_BYTES));
    expect_eperm("growing by fallocate",
                 fallocate(fd, 0, BYTES, PAGE_BYTES));
    expect_eperm("growing by write", pwrite(fd, "x", 1, BYTES));
    expect_eperm("sealing against writes",
                 fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    FACT_CHECK(lseek(fd, 0, SEEK_END) == (off_t)BYTES, "the size changed");
}

static void expect_pages_are_usable(int fd)
{
    uint8_t *ram = map_shared(fd, BYTES), *content = page_alloc(1, 0x42);
    int uffd = uffd_open_missing_minor();

    uffd_register(uffd, ram, BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    FACT_CHECK(!uffd_copy(uffd, ram + PAGE_BYTES, content, 1, 0, NULL),
               "a sealed memfd cannot be filled");
    FACT_CHECK(page_present(fd, 1) && allocated_pages(fd) == 1,
               "the filled page is not there");
    store_byte(ram + PAGE_BYTES, 1);
    punch(fd, 1, 1);
    FACT_CHECK(!page_present(fd, 1) && allocated_pages(fd) == 0,
               "the punch freed nothing");
}

int main(void)
{
    int fd = memfd_new(BYTES), copy;
    char path[64];

    SYS(ftruncate(fd, BYTES + PAGE_BYTES));
    SYS(ftruncate(fd, BYTES));
    SYS(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    expect_size_is_fixed(fd);
    expect_pages_are_usable(fd);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    copy = SYS(open(path, O_RDWR | O_CLOEXEC));
    expect_size_is_fixed(copy);
    return FACT_HOLDS;
}
