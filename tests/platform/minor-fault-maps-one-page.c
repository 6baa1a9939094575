/*
 * In a range registered for MINOR faults a read maps just the page that was
 * resolved; the kernel's fault-around, which maps up to 16 neighbours at
 * once elsewhere, is off.
 *
 * Design rule 4: the page table is the access sampling.  If a fault mapped
 * neighbours too, pages in the middle of an eviction would become writable
 * behind the pager's back, and cold pages would look hot.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <unistd.h>

#define PAGES   64
#define TARGET  21

/* Ask /proc/self/pagemap how many pages from @ram have a page table entry. */
static size_t mapped_pages(const uint8_t *ram)
{
    uint64_t entry[PAGES];
    int fd = SYS(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    off_t at = (uintptr_t)ram / PAGE_BYTES * sizeof(entry[0]);
    size_t mapped = 0;

    FACT_CHECK(pread(fd, entry, sizeof(entry), at) == sizeof(entry),
               "short read from pagemap");
    close(fd);
    for (size_t i = 0; i < PAGES; i++) {
        mapped += entry[i] >> 63;
    }
    return mapped;
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    uint8_t *plain = map_shared(memfd, PAGES * PAGE_BYTES);
    uint8_t *ram = map_shared(memfd, PAGES * PAGE_BYTES);
    int uffd = uffd_open_missing_minor();
    struct uffd_msg msg;
    Toucher touch;

    for (size_t i = 0; i < PAGES; i++) {
        SYS(pwrite(memfd, "x", 1, i * PAGE_BYTES));
    }
    load_byte(plain + TARGET * PAGE_BYTES);
    fact_info("a read of one page maps %zu pages where nothing is registered",
              mapped_pages(plain));

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    toucher_start(&touch, ram + TARGET * PAGE_BYTES);
    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS) && msg_is_minor(&msg),
               "no MINOR fault");
    FACT_CHECK(mapped_pages(ram) == 0, "mapped before it was resolved");
    FACT_CHECK(!uffd_continue(uffd, msg_page(&msg), 1, 0, NULL),
               "UFFDIO_CONTINUE failed");
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS), "still blocked");
    FACT_CHECK(mapped_pages(ram) == 1, "one fault mapped %zu pages",
               mapped_pages(ram));

    toucher_start(&touch, ram + (TARGET + 1) * PAGE_BYTES);
    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS),
               "the neighbour raised no fault of its own");
    FACT_CHECK(msg_page(&msg) == ram + (TARGET + 1) * PAGE_BYTES,
               "fault on the wrong page");
    return FACT_HOLDS;
}
