/*
 * SEEK_DATA and SEEK_HOLE on a memfd tell exactly which pages hold content,
 * after any mixture of UFFDIO_COPY, UFFDIO_CONTINUE, zap and punch.  The one
 * exception is a page reserved by fallocate(): SEEK_DATA calls it a hole,
 * st_blocks counts it, and a fault on it is MINOR.
 *
 * Design rule 7: after a crash a page that is present wins over the page map
 * and a hole takes the map's word.  Because of the exception nothing may ever
 * call fallocate() without PUNCH_HOLE on guest RAM.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

#define PAGES           256
#define OPERATIONS      4000
#define CHECK_EVERY     16

/* Walk the extents of the file as an attach scan does. */
static void scan(int memfd, bool *present)
{
    off_t end = PAGES * PAGE_BYTES, hole = 0;

    memset(present, 0, PAGES * sizeof(*present));
    while (hole < end) {
        off_t data = lseek(memfd, hole, SEEK_DATA);

        if (data < 0) {
            FACT_CHECK(errno == ENXIO, "SEEK_DATA: %s", strerror(errno));
            return;
        }
        hole = SYS(lseek(memfd, data, SEEK_HOLE));
        FACT_CHECK(data % PAGE_BYTES == 0 && hole % PAGE_BYTES == 0,
                   "extents are not in whole pages");
        for (off_t at = data; at < hole; at += PAGE_BYTES) {
            present[at / PAGE_BYTES] = true;
        }
    }
}

static void compare(const bool *shadow, int memfd)
{
    bool present[PAGES];
    size_t count = 0;

    scan(memfd, present);
    for (size_t i = 0; i < PAGES; i++) {
        FACT_CHECK(present[i] == shadow[i], "page %zu is %s, the scan "
                   "says otherwise", i, shadow[i] ? "present" : "a hole");
        count += shadow[i];
    }
    FACT_CHECK(allocated_pages(memfd) == count,
               "st_blocks counts %zu pages, %zu are present",
               allocated_pages(memfd), count);
}

static void random_operation(bool *shadow, int memfd, int uffd, uint8_t *ram,
                             const uint8_t *content)
{
    size_t i = random() % PAGES;
    uint8_t *addr = ram + i * PAGE_BYTES;

    switch (random() % 4) {
    case 0:
        if (!uffd_copy(uffd, addr, content, 1, 0, NULL)) {
            shadow[i] = true;
        }
        break;
    case 1:
        if (!uffd_continue(uffd, addr, 1, 0, NULL)) {
            FACT_CHECK(shadow[i], "CONTINUE mapped a hole");
        }
        break;
    case 2:
        SYS(madvise(addr, PAGE_BYTES, MADV_DONTNEED));
        break;
    case 3:
        punch(memfd, i, 1);
        shadow[i] = false;
        break;
    }
}

/* A reserved page: a hole by SEEK_DATA, yet its fault is MINOR. */
static void reserved_page_is_ambiguous(int memfd, int uffd, uint8_t *ram)
{
    struct uffd_msg msg;
    Toucher touch;

    punch(memfd, 0, PAGES);
    SYS(fallocate(memfd, 0, 0, PAGE_BYTES));
    FACT_CHECK(allocated_pages(memfd) == 1, "fallocate allocated nothing");
    FACT_CHECK(!page_present(memfd, 0), "SEEK_DATA shows a reserved page");
    toucher_start(&touch, ram);
    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS), "no fault");
    FACT_CHECK(msg_is_minor(&msg), "a reserved page faults as MISSING: "
               "SEEK_DATA and the fault agree on this kernel");
}

int main(void)
{
    static bool shadow[PAGES];
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    uint8_t *ram = map_shared(memfd, PAGES * PAGE_BYTES);
    uint8_t *content = page_alloc(1, 0x42);
    int uffd = uffd_open_missing_minor();

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    srandom(1);
    for (int op = 0; op < OPERATIONS; op++) {
        random_operation(shadow, memfd, uffd, ram, content);
        if (op % CHECK_EVERY == 0) {
            compare(shadow, memfd);
        }
    }
    compare(shadow, memfd);
    reserved_page_is_ambiguous(memfd, uffd, ram);
    return FACT_HOLDS;
}
