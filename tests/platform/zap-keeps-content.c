/*
 * madvise(MADV_DONTNEED) on a shared mapping of a sealed memfd that is
 * registered MISSING|MINOR only takes the page out of the page table: the
 * content stays in the memfd, and the next touch is a MINOR fault.
 *
 * Design rule 4: a zap is the access sampling, the second chance and the
 * isolation of a page that is about to be evicted, all at once.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <sys/mman.h>

#define PAGES   4
#define TARGET  2

static void expect_fault(int uffd, uint8_t *page, bool minor)
{
    struct uffd_msg msg;

    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS), "no %s fault",
               minor ? "MINOR" : "MISSING");
    FACT_CHECK(msg_page(&msg) == page, "fault on the wrong page");
    FACT_CHECK(msg_is_minor(&msg) == minor, "the fault is not flagged %s",
               minor ? "MINOR" : "MISSING");
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    int uffd = uffd_open_missing_minor();
    uint8_t *page, content[PAGE_BYTES];
    Toucher touch;

    SYS(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
    page = map_shared(memfd, PAGES * PAGE_BYTES);
    uffd_register(uffd, page, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    page += TARGET * PAGE_BYTES;

    toucher_start(&touch, page);
    expect_fault(uffd, page, false);
    FACT_CHECK(!uffd_copy(uffd, page, page_alloc(1, 0x11), 1, 0, NULL),
               "UFFDIO_COPY failed");
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS) && touch.value == 0x11,
               "the filled page was not seen");
    store_byte(page + 1, 0x22);

    SYS(madvise(page, PAGE_BYTES, MADV_DONTNEED));
    FACT_CHECK(page_present(memfd, TARGET), "the zap freed the page");
    read_page(memfd, TARGET, content);
    FACT_CHECK(content[0] == 0x11 && content[1] == 0x22,
               "the zap changed the content");

    toucher_start(&touch, page + 1);
    expect_fault(uffd, page, true);
    FACT_CHECK(!toucher_returned(&touch, BLOCKED_MS),
               "the touch did not wait for UFFDIO_CONTINUE");
    FACT_CHECK(!uffd_continue(uffd, page, 1, 0, NULL),
               "UFFDIO_CONTINUE failed");
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS) && touch.value == 0x22,
               "the content did not come back");
    return FACT_HOLDS;
}
