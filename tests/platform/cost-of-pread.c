/*
 * What it costs to read guest memory by pread on the memfd rather than by
 * memcpy from a second mapping, the alias.
 *
 * The pager has no alias (see alias-fills-holes).  A warm alias is cheaper to
 * read than a descriptor, but eviction reads each page once and then punches
 * it, and a punched page has to be faulted into the alias again, and to be
 * taken out of two page tables at the next punch.  The figures are printed
 * for comparison and have no limits.  What can fail here is that the two ways
 * read different content.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

#define PAGES       ((size_t)16384)
#define FILL_PAGES  32

typedef struct Reader {
    const char *name;
    int memfd;
    uint8_t *alias;         /* NULL: by pread */
} Reader;

typedef struct Cost {
    int64_t read_ns, punch_ns;
} Cost;

static uint8_t *ram, *buf;
static int uffd;
static size_t order[PAGES];

static uint8_t page_byte(size_t page)
{
    return 1 + page % 251;
}

/* A guarded alias, as it would have to be. */
static uint8_t *make_alias(int memfd)
{
    int guard = uffd_open(UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM);
    uint8_t *alias = map_shared(memfd, PAGES * PAGE_BYTES);

    SYS(madvise(alias, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE));
    uffd_register(guard, alias, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING);
    return alias;
}

static void fill_run(size_t page, size_t pages)
{
    for (size_t i = 0; i < pages; i++) {
        memset(buf + i * PAGE_BYTES, page_byte(page + i), PAGE_BYTES);
    }
    FACT_CHECK(!uffd_copy(uffd, ram + page * PAGE_BYTES, buf, pages, 0, NULL),
               "UFFDIO_COPY failed");
}

static void check_run(const Reader *r, size_t page, size_t pages)
{
    for (size_t i = 0; i < pages; i++) {
        FACT_CHECK(buf[i * PAGE_BYTES] == page_byte(page + i) &&
                   buf[(i + 1) * PAGE_BYTES - 1] == page_byte(page + i),
                   "%s gave the wrong content of page %zu", r->name,
                   page + i);
    }
}

static int64_t read_run(const Reader *r, size_t page, size_t pages)
{
    int64_t start = now_ns();

    if (r->alias) {
        memcpy(buf, r->alias + page * PAGE_BYTES, pages * PAGE_BYTES);
    } else {
        FACT_CHECK(pread(r->memfd, buf, pages * PAGE_BYTES,
                         page * PAGE_BYTES) ==
                   (ssize_t)(pages * PAGE_BYTES), "pread: %s",
                   strerror(errno));
    }
    return now_ns() - start;
}

static void shuffle_order(size_t n)
{
    srandom(1);
    for (size_t i = 0; i < n; i++) {
        size_t other = random() % (i + 1);

        order[i] = order[other];
        order[other] = i;
    }
}

/*
 * Go over all memory in runs of @run pages, in random order.  With @cycle
 * each run is zapped, read, punched and filled again, as eviction does it.
 */
static Cost measure(const Reader *r, size_t run, bool cycle)
{
    Cost cost = { 0 };

    shuffle_order(PAGES / run);
    for (size_t i = 0; i < PAGES / run; i++) {
        size_t page = order[i] * run;
        int64_t start;

        if (cycle) {
            SYS(madvise(ram + page * PAGE_BYTES, run * PAGE_BYTES,
                        MADV_DONTNEED));
        }
        cost.read_ns += read_run(r, page, run);
        check_run(r, page, run);
        if (cycle) {
            start = now_ns();
            punch(r->memfd, page, run);
            cost.punch_ns += now_ns() - start;
            fill_run(page, run);
        }
    }
    return cost;
}

static void report(const Reader *r, size_t run)
{
    Cost warm, cycle;

    measure(r, run, false);
    warm = measure(r, run, false);
    cycle = measure(r, run, true);
    cycle = measure(r, run, true);
    fact_info("%-6s in runs of %2zu: %5.2f us per page when nothing is "
              "evicted; in a cycle %5.2f to read + %5.2f to punch = %5.2f",
              r->name, run, warm.read_ns / 1e3 / PAGES,
              cycle.read_ns / 1e3 / PAGES, cycle.punch_ns / 1e3 / PAGES,
              (cycle.read_ns + cycle.punch_ns) / 1e3 / PAGES);
}

int main(void)
{
    static const size_t runs[] = { 1, FILL_PAGES };
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    Reader by_pread = { "pread", memfd, NULL };
    Reader by_alias = { "alias", memfd, NULL };

    ram = map_shared(memfd, PAGES * PAGE_BYTES);
    buf = page_alloc(FILL_PAGES, 0);
    uffd = uffd_open_missing_minor();
    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    for (size_t page = 0; page < PAGES; page += FILL_PAGES) {
        fill_run(page, FILL_PAGES);
    }
    for (int i = 0; i < 2; i++) {
        report(&by_pread, runs[i]);
    }
    by_alias.alias = make_alias(memfd);
    for (int i = 0; i < 2; i++) {
        report(&by_alias, runs[i]);
    }
    return FACT_HOLDS;
}
