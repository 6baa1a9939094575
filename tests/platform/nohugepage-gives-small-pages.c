/*
 * MADV_NOHUGEPAGE after MADV_HUGEPAGE and before the first touch gives shared
 * memory in pages of 4 KiB, even where the file system prefers huge ones:
 * one touch allocates one page, and punching one page frees just that page.
 *
 * Design rule 12: QEMU asks for huge pages on all its RAM.  A huge folio
 * cannot be evicted page by page, so the fork takes the request back.
 *
 * What a huge folio does to a punch is shown by punch-spares-pinned-huge-page.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "huge.h"

#include <sys/mman.h>

static void expect_small(int fd, uint8_t *ram, const char *where)
{
    SYS(madvise(ram, HUGE_BYTES, MADV_NOHUGEPAGE));
    store_byte(ram, 1);
    FACT_CHECK(allocated_pages(fd) == 1, "%s: one touch allocated %zu pages",
               where, allocated_pages(fd));
    memset(ram, 1, HUGE_BYTES);
    FACT_CHECK(allocated_pages(fd) == HUGE_PAGES, "%s: %zu pages allocated",
               where, allocated_pages(fd));
    punch(fd, 5, 1);
    FACT_CHECK(allocated_pages(fd) == HUGE_PAGES - 1 && !page_present(fd, 5),
               "%s: punching one page left %zu", where, allocated_pages(fd));
}

int main(void)
{
    static const char *const options[] = { "huge=advise", "huge=always" };
    int fd;

    need_root("to mount a tmpfs that prefers huge pages");
    for (int i = 0; i < 2; i++) {
        /* Without taking the request back the page is huge. */
        fd = huge_file(options[i]);
        huge_touch(fd, huge_map(fd));
        fd = huge_file(options[i]);
        expect_small(fd, huge_map(fd), options[i]);
    }
    fd = memfd_new(HUGE_BYTES);
    expect_small(fd, huge_map(fd), "memfd");
    return FACT_HOLDS;
}
