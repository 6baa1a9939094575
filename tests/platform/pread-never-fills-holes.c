/*
 * pread() on a memfd never fills a hole, whether the file is sparse or
 * reserved by fallocate(); nor does anything that happens to a process that
 * has only the descriptor and no mapping: mlockall, process_vm_readv by
 * another process, or a core dump.
 *
 * Design rules 6 and 7: the pager reads guest memory by pread and has no
 * mapping of it.  A hole that got filled with zeros would win over the page
 * map after a crash, and the page that it hides would be lost.
 *
 * What a mapping does is shown by alias-fills-holes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGES       256
#define CONTENT     0x77
/* Pages reserved by fallocate() and never written. */
#define RESERVED    128
#define RESERVED_N  16

typedef struct Snapshot {
    size_t allocated;
    bool present[PAGES];
} Snapshot;

static bool expected_present(size_t page)
{
    return page % 3 == 0 && (page < RESERVED || page >= RESERVED + RESERVED_N);
}

static int make_ram(void)
{
    uint8_t *content = page_alloc(1, CONTENT);
    int memfd = memfd_new(PAGES * PAGE_BYTES);

    SYS(fallocate(memfd, 0, RESERVED * PAGE_BYTES, RESERVED_N * PAGE_BYTES));
    for (size_t i = 0; i < PAGES; i++) {
        if (expected_present(i)) {
            SYS(pwrite(memfd, content, PAGE_BYTES, i * PAGE_BYTES));
        }
    }
    free(content);
    return memfd;
}

static void snapshot_take(Snapshot *s, int memfd)
{
    s->allocated = allocated_pages(memfd);
    for (size_t i = 0; i < PAGES; i++) {
        s->present[i] = page_present(memfd, i);
    }
}

static void expect_unchanged(const Snapshot *before, int memfd,
                             const char *what)
{
    Snapshot now;

    snapshot_take(&now, memfd);
    FACT_CHECK(now.allocated == before->allocated,
               "%s changed the allocation from %zu to %zu pages", what,
               before->allocated, now.allocated);
    for (size_t i = 0; i < PAGES; i++) {
        FACT_CHECK(now.present[i] == before->present[i],
                   "%s filled the hole at page %zu", what, i);
    }
}

static void read_everything(int memfd, uint8_t *buf)
{
    for (size_t i = 0; i < PAGES; i++) {
        uint8_t want = expected_present(i) ? CONTENT : 0;

        read_page(memfd, i, buf + i * PAGE_BYTES);
        FACT_CHECK(buf[i * PAGE_BYTES] == want &&
                   buf[i * PAGE_BYTES + PAGE_BYTES - 1] == want,
                   "pread of page %zu gave 0x%02x", i, buf[i * PAGE_BYTES]);
    }
    SYS(pread(memfd, buf, PAGES * PAGE_BYTES, 0));
}

/* One process that reads by descriptor only; dumps core at the end. */
static void reader_side(int memfd, int sock)
{
    struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
    uint8_t *buf = page_alloc(PAGES, 0);

    read_everything(memfd, buf);
    SYS(write(sock, &buf, sizeof(buf)));
    FACT_CHECK(wait_token(sock), "no order");
    SYS(mlockall(MCL_CURRENT | MCL_FUTURE));
    read_everything(memfd, buf);
    send_token(sock);
    FACT_CHECK(wait_token(sock), "no order");
    setrlimit(RLIMIT_CORE, &unlimited);
    abort();
}

int main(void)
{
    char core_dir[256];     /* where a relative core_pattern leads to */
    Snapshot before;
    struct iovec local, remote;
    int memfd, sock[2], status;
    uint8_t *buf;
    pid_t reader;

    need_root("to lock all memory of a process");
    memfd = make_ram();
    snapshot_take(&before, memfd);
    FACT_CHECK(before.present[0] && !before.present[1],
               "the file does not look as it was made");
    scratch_folder(core_dir, sizeof(core_dir));

    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    reader = child_start();
    if (reader == 0) {
        SYS(chdir(core_dir));
        reader_side(memfd, sock[1]);
    }
    close(sock[1]);
    FACT_CHECK(read(sock[0], &buf, sizeof(buf)) == sizeof(buf),
               "the reader died");
    expect_unchanged(&before, memfd, "pread");

    remote = (struct iovec) { buf, PAGES * PAGE_BYTES };
    local = (struct iovec) { page_alloc(PAGES, 0), PAGES * PAGE_BYTES };
    FACT_CHECK(process_vm_readv(reader, &local, 1, &remote, 1, 0) ==
               (ssize_t)(PAGES * PAGE_BYTES), "process_vm_readv: %s",
               strerror(errno));
    expect_unchanged(&before, memfd, "process_vm_readv of the reader");

    send_token(sock[0]);
    FACT_CHECK(wait_token(sock[0]), "the reader died");
    expect_unchanged(&before, memfd, "mlockall in the reader");

    send_token(sock[0]);
    status = child_wait(reader);
    scratch_folder_remove(core_dir);
    FACT_CHECK(WIFSIGNALED(status), "the reader did not abort");
    expect_unchanged(&before, memfd, "the core dump of the reader");
    if (!WCOREDUMP(status)) {
        fact_info("this machine makes no core dumps: that part not tested");
    }
    return FACT_HOLDS;
}
