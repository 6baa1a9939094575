/*
 * A fault that a pager had already read when it died is not shown to the
 * next pager, until UFFDIO_WAKE makes the waiting thread fault again.
 *
 * Design rule 2: attaching to a guest is "map, WAKE everything, serve".
 * Without the WAKE a vCPU whose fault was in flight waits for ever.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <unistd.h>

#define PAGES   16
#define CONTENT 0xaa

/* A pager that reads one fault and never answers. */
static pid_t deaf_pager(int uffd, int ready)
{
    pid_t pid = child_start();

    if (pid == 0) {
        struct uffd_msg msg;

        FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS), "no fault");
        send_token(ready);
        pause();
    }
    return pid;
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    uint8_t *ram = map_shared(memfd, PAGES * PAGE_BYTES);
    int uffd = uffd_open_missing_minor();
    struct uffd_msg msg;
    Toucher touch;
    int ready[2];
    pid_t pager;

    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    SYS(pipe(ready));
    pager = deaf_pager(uffd, ready[1]);
    toucher_start(&touch, ram + PAGE_BYTES);
    FACT_CHECK(wait_token(ready[0]), "the pager saw no fault");
    child_kill(pager);

    FACT_CHECK(!uffd_next(uffd, &msg, BLOCKED_MS),
               "the fault was delivered twice without a WAKE");
    FACT_CHECK(!toucher_returned(&touch, 1), "the thread did not wait");

    uffd_wake(uffd, ram, PAGES);
    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS),
               "UFFDIO_WAKE does not bring the fault back");
    FACT_CHECK(msg_page(&msg) == ram + PAGE_BYTES, "another page came back");
    FACT_CHECK(!uffd_copy(uffd, msg_page(&msg), page_alloc(1, CONTENT), 1, 0,
                          NULL), "UFFDIO_COPY failed");
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS),
               "the thread is still blocked after the fill");
    FACT_CHECK(touch.value == CONTENT, "read 0x%02x", touch.value);
    return FACT_HOLDS;
}
