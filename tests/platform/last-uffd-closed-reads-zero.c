/*
 * When the last copy of a userfaultfd is closed, pages that were punched out
 * read as zeros, silently; while any process keeps a dup, the thread waits
 * and the next pager can still give it the right content.
 *
 * Design rule 2: QEMU keeps a dup of its userfaultfd, so that the death of
 * the pager delays the guest and loses nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <unistd.h>
#include <sys/socket.h>

#define PAGES   16
#define CONTENT 0xaa

typedef struct Guest {
    int memfd;
    int uffd;
    uint8_t *ram;
    pid_t pager;
    int pager_sock;
} Guest;

/* The pager evicts page 1; on demand it reads one fault and sits on it. */
static void pager_side(const Guest *g, int sock)
{
    struct uffd_msg msg;

    punch(g->memfd, 1, 1);
    send_token(sock);
    FACT_CHECK(wait_token(sock), "no order from the guest");
    FACT_CHECK(uffd_next(g->uffd, &msg, PATIENCE_MS), "no fault");
    send_token(sock);
    pause();
}

static Guest guest_start(void)
{
    Guest g;
    int sock[2];

    g.memfd = memfd_new(PAGES * PAGE_BYTES);
    g.ram = map_shared(g.memfd, PAGES * PAGE_BYTES);
    memset(g.ram, CONTENT, PAGES * PAGE_BYTES);
    g.uffd = uffd_open_missing_minor();
    uffd_register(g.uffd, g.ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    g.pager = child_start();
    if (g.pager == 0) {
        pager_side(&g, sock[1]);
    }
    close(sock[1]);
    g.pager_sock = sock[0];
    FACT_CHECK(wait_token(g.pager_sock), "the pager died");
    return g;
}

static void without_dup_fault_after_death(void)
{
    Guest g = guest_start();
    Toucher touch;

    close(g.uffd);
    child_kill(g.pager);
    toucher_start(&touch, g.ram + PAGE_BYTES);
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS),
               "the fault waits although nobody can serve it");
    FACT_CHECK(touch.value == 0, "read 0x%02x, not a zero", touch.value);
    FACT_CHECK(page_present(g.memfd, 1), "the zero page is not permanent");
}

static void without_dup_fault_in_flight(void)
{
    Guest g = guest_start();
    Toucher touch;

    close(g.uffd);
    toucher_start(&touch, g.ram + PAGE_BYTES);
    send_token(g.pager_sock);
    FACT_CHECK(wait_token(g.pager_sock), "the pager saw no fault");
    child_kill(g.pager);
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS),
               "the fault waits although nobody can serve it");
    FACT_CHECK(touch.value == 0, "read 0x%02x, not a zero", touch.value);
}

static void with_dup_next_pager_serves(void)
{
    Guest g = guest_start();
    struct uffd_msg msg;
    Toucher touch;

    child_kill(g.pager);
    toucher_start(&touch, g.ram + PAGE_BYTES);
    FACT_CHECK(!toucher_returned(&touch, BLOCKED_MS),
               "the thread did not wait: it read 0x%02x", touch.value);
    FACT_CHECK(uffd_next(g.uffd, &msg, PATIENCE_MS),
               "the next pager does not see the fault");
    FACT_CHECK(!uffd_copy(g.uffd, msg_page(&msg), page_alloc(1, CONTENT), 1,
                          0, NULL), "the next pager cannot fill the page");
    FACT_CHECK(toucher_returned(&touch, PATIENCE_MS),
               "the thread is still blocked after the fill");
    FACT_CHECK(touch.value == CONTENT, "read 0x%02x", touch.value);
}

int main(void)
{
    without_dup_fault_after_death();
    without_dup_fault_in_flight();
    with_dup_next_pager_serves();
    return FACT_HOLDS;
}
