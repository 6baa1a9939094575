/*
 * Punching one page out of a huge folio that is pinned returns success, but
 * leaves the page allocated and present, filled with zeros; out of a huge
 * folio that is not pinned it is really freed.
 *
 * Design rule 12: after each batch of punches the pager verifies the holes.
 * A present page wins over the page map, so an unnoticed page of zeros would
 * take the place of the swapped-out one.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "huge.h"

#include <fcntl.h>
#include <unistd.h>
#include <sys/uio.h>

#define PUNCHED 5
#define PINNED  9

static int huge_file_touched(uint8_t **ram)
{
    int fd = huge_file("huge=always");

    *ram = huge_map(fd);
    huge_touch(fd, *ram);
    return fd;
}

/* Keep a reference to one page, as DMA into guest memory does. */
static void pin_page(uint8_t *page)
{
    struct iovec iov = { page, PAGE_BYTES };
    int fds[2];

    SYS(pipe(fds));
    FACT_CHECK(vmsplice(fds[1], &iov, 1, 0) == (ssize_t)PAGE_BYTES,
               "vmsplice: %s", strerror(errno));
}

/* The control: what shows that the punch below could have freed the page. */
static bool unpinned_is_freed(void)
{
    uint8_t *ram;
    int fd = huge_file_touched(&ram);

    punch(fd, PUNCHED, 1);
    return allocated_pages(fd) == HUGE_PAGES - 1 && !page_present(fd, PUNCHED);
}

static void pinned_is_zeroed_and_stays(void)
{
    uint8_t *ram, content[PAGE_BYTES];
    int fd = huge_file_touched(&ram);

    pin_page(ram + PINNED * PAGE_BYTES);
    punch(fd, PUNCHED, 1);
    read_page(fd, PUNCHED, content);
    FACT_CHECK(content[0] == 0 && content[PAGE_BYTES - 1] == 0,
               "the punch did not remove the content");
    FACT_CHECK(page_present(fd, PUNCHED) && allocated_pages(fd) == HUGE_PAGES,
               "the page was freed: verifying punches is not needed here");
}

int main(void)
{
    need_root("to mount a tmpfs that prefers huge pages");
    FACT_CHECK(unpinned_is_freed(), "the page of an unpinned folio stays");
    pinned_is_zeroed_and_stays();
    return FACT_HOLDS;
}
