/*
 * The errors of UFFDIO_COPY and UFFDIO_CONTINUE: CONTINUE on a hole is
 * EFAULT, on a mapped page EEXIST; COPY onto a page that is present, mapped
 * or not, is EEXIST.  A run that fails at its first page has done nothing;
 * one that fails later reports EAGAIN and how far it came.  ENOENT says that
 * the range is not registered, ESRCH that the process is gone.
 *
 * Design rule 6: every one of these is handled by name.  Mistaking "the first
 * page was there already" for "the run is done" leaves vCPUs waiting.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define PAGES   32

static int memfd, uffd;
static uint8_t *ram, *content;

static uint8_t *addr(size_t page)
{
    return ram + page * PAGE_BYTES;
}

/* Make pages [@page, @page + @n) present in the memfd, not mapped. */
static void make_present(size_t page, size_t n)
{
    for (size_t i = page; i < page + n; i++) {
        SYS(pwrite(memfd, "x", 1, i * PAGE_BYTES));
    }
}

static void expect(const char *what, int err, size_t done, int want_err,
                   size_t want_done)
{
    FACT_CHECK(err == -want_err, "%s: %s instead of %s", what,
               strerror(-err), strerror(want_err));
    FACT_CHECK(done == want_done, "%s: %zu pages done instead of %zu", what,
               done, want_done);
}

static void expect_continue(const char *what, size_t page, size_t n,
                            int want_err, size_t want_done)
{
    size_t done;
    int err = uffd_continue(uffd, addr(page), n, 0, &done);

    expect(what, err, done, want_err, want_done);
}

static void expect_copy(const char *what, size_t page, size_t n, int want_err,
                        size_t want_done)
{
    size_t done;
    int err = uffd_copy(uffd, addr(page), content, n, 0, &done);

    expect(what, err, done, want_err, want_done);
}

static void single_pages(void)
{
    expect_continue("CONTINUE on a hole", 0, 1, EFAULT, 0);
    FACT_CHECK(!page_present(memfd, 0), "CONTINUE filled the hole");
    expect_copy("COPY into a hole", 0, 1, 0, 1);
    expect_copy("COPY onto a mapped page", 0, 1, EEXIST, 0);
    expect_continue("CONTINUE on a mapped page", 0, 1, EEXIST, 0);
    SYS(madvise(addr(0), PAGE_BYTES, MADV_DONTNEED));
    expect_copy("COPY onto a page that is present but not mapped", 0, 1,
                EEXIST, 0);
    expect_continue("CONTINUE on a zapped page", 0, 1, 0, 1);
}

static void runs(void)
{
    /* 4..7 present, 5 mapped */
    make_present(4, 4);
    expect_continue("CONTINUE", 5, 1, 0, 1);
    expect_continue("CONTINUE run with its second page mapped", 4, 4, EAGAIN,
                    1);
    expect_continue("CONTINUE run with its first page mapped", 5, 3, EEXIST,
                    0);
    expect_continue("CONTINUE run stepped over its first page", 6, 2, 0, 2);

    /* 8, 9 present, 10 hole */
    make_present(8, 2);
    expect_continue("CONTINUE run into a hole", 8, 3, EAGAIN, 2);

    /* 12 hole, 13 present, 14 hole */
    make_present(13, 1);
    expect_copy("COPY run with its second page present", 12, 3, EAGAIN, 1);
    expect_copy("COPY run with its first page present", 13, 2, EEXIST, 0);
    expect_copy("COPY run stepped over its first page", 14, 1, 0, 1);
}

/* A waiter is woken by the part of a run that was done, and by that only. */
static void partial_run_wakes_its_part(void)
{
    struct uffd_msg msg;
    Toucher first, second;

    make_present(17, 1);
    toucher_start(&first, addr(16));
    toucher_start(&second, addr(17));
    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS) &&
               uffd_next(uffd, &msg, PATIENCE_MS), "no faults");
    expect_copy("COPY run", 16, 2, EAGAIN, 1);
    FACT_CHECK(toucher_returned(&first, PATIENCE_MS),
               "the part of a run that was done did not wake its waiter");
    FACT_CHECK(!toucher_returned(&second, BLOCKED_MS),
               "EEXIST woke a waiter: the WAKE after it is not needed");
    uffd_continue(uffd, addr(17), 1, 0, NULL);
    FACT_CHECK(toucher_returned(&second, PATIENCE_MS), "still blocked");
}

static void region_gone(void)
{
    SYS(munmap(addr(PAGES - 1), PAGE_BYTES));
    expect_copy("COPY into an unmapped range", PAGES - 1, 1, ENOENT, 0);
    expect_continue("CONTINUE in an unmapped range", PAGES - 1, 1, ENOENT, 0);
}

static void process_gone(void)
{
    int sock[2];
    pid_t owner;

    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    owner = child_start();
    if (owner == 0) {
        int own = uffd_open_missing_minor();

        uffd_register(own, ram, PAGE_BYTES, UFFDIO_REGISTER_MODE_MISSING);
        send_fd(sock[1], own);
        pause();
    }
    close(uffd);
    uffd = recv_fd(sock[0]);
    child_kill(owner);
    expect_copy("COPY for a dead process", 0, 1, ESRCH, 0);
}

int main(void)
{
    memfd = memfd_new(PAGES * PAGE_BYTES);
    ram = map_shared(memfd, PAGES * PAGE_BYTES);
    content = page_alloc(PAGES, 0x42);
    uffd = uffd_open_missing_minor();
    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    single_pages();
    runs();
    partial_run_wakes_its_part();
    region_gone();
    process_gone();
    return FACT_HOLDS;
}
