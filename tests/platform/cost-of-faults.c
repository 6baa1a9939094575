/*
 * What a fault, a zap, a punch and an attach scan cost on this machine.
 *
 * Chapter 4 of the design is built on these figures: a fault round trip to
 * another process is tens of microseconds, so that runs are filled per fault;
 * zaps are cheap enough to sample with; punches are done in bulk.  They are
 * printed for comparison and have no limits.  What can fail here is that a
 * page comes back with the wrong content.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>

#define PAGES       ((size_t)8192)
#define CONTENT     0x42
#define RUN_PAGES   32

typedef struct Server {
    int uffd;
    uint8_t *ram;
    size_t run_pages;
    int cpu;
    atomic_bool stop;
    pthread_t thread;
} Server;

static int memfd;
static uint8_t *ram, *content;
static int64_t latency_ns[PAGES];

static void run_on_cpu(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* Where this is not allowed the figures are only less steady. */
    sched_setaffinity(0, sizeof(set), &set);
}

static void *server_thread(void *opaque)
{
    Server *s = opaque;
    struct uffd_msg msg;

    run_on_cpu(s->cpu);
    while (!atomic_load(&s->stop)) {
        uint8_t *addr;

        if (!uffd_next(s->uffd, &msg, 20)) {
            continue;
        }
        addr = msg_page(&msg);
        if (msg_is_minor(&msg)) {
            uffd_continue(s->uffd, addr, s->run_pages, 0, NULL);
        } else {
            uffd_copy(s->uffd, addr, content, s->run_pages, 0, NULL);
        }
    }
    return NULL;
}

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Touch every page in order, each fault served with @run_pages. */
static void touch_all(const char *what, int uffd, size_t run_pages, int cpu)
{
    Server server = { uffd, ram, run_pages, cpu, false, 0 };
    int64_t start, total;

    FACT_CHECK(!pthread_create(&server.thread, NULL, server_thread, &server),
               "cannot create a thread");
    run_on_cpu(0);
    sleep_ms(20);
    start = now_ns();
    for (size_t i = 0; i < PAGES; i++) {
        int64_t before = now_ns();

        FACT_CHECK(load_byte(ram + i * PAGE_BYTES) == CONTENT,
                   "page %zu has the wrong content", i);
        latency_ns[i] = now_ns() - before;
    }
    total = now_ns() - start;
    atomic_store(&server.stop, true);
    pthread_join(server.thread, NULL);
    qsort(latency_ns, PAGES, sizeof(latency_ns[0]), compare_ns);
    fact_info("%-42s %6.2f us per page (p50 %.1f, p99 %.1f)", what,
              total / 1e3 / PAGES, latency_ns[PAGES / 2] / 1e3,
              latency_ns[PAGES * 99 / 100] / 1e3);
}

static void print_cost(const char *what, int64_t start, size_t pages)
{
    fact_info("%-42s %6.2f us per page", what,
              (now_ns() - start) / 1e3 / pages);
}

static void zap_all(const char *what)
{
    int64_t start = now_ns();

    SYS(madvise(ram, PAGES * PAGE_BYTES, MADV_DONTNEED));
    if (what) {
        print_cost(what, start, PAGES);
    }
}

static void zap_singly(const char *what)
{
    int64_t start = now_ns();

    for (size_t i = 0; i < PAGES; i++) {
        SYS(madvise(ram + i * PAGE_BYTES, PAGE_BYTES, MADV_DONTNEED));
    }
    print_cost(what, start, PAGES);
}

static void punch_singly(const char *what, size_t step)
{
    int64_t start = now_ns();

    for (size_t i = 0; i < PAGES; i += step) {
        punch(memfd, i, 1);
    }
    print_cost(what, start, PAGES / step);
}

/* An attach scan of a file in which every other page is a hole. */
static void scan_alternating(void)
{
    int64_t start;
    off_t at = 0, data;
    size_t extents = 0;

    punch_singly("punch, page by page, not mapped", 2);
    start = now_ns();
    while ((data = lseek(memfd, at, SEEK_DATA)) >= 0) {
        at = SYS(lseek(memfd, data, SEEK_HOLE));
        extents++;
    }
    fact_info("%-42s %6.2f ms per GiB", "attach scan, every other page a hole",
              (now_ns() - start) / 1e6 * (1 << 18) / PAGES);
    FACT_CHECK(extents == PAGES / 2, "%zu extents instead of %zu", extents,
               PAGES / 2);
}

int main(void)
{
    int other_cpu = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 1 : 0;
    int64_t start;
    int uffd;

    memfd = memfd_new(PAGES * PAGE_BYTES);
    ram = map_shared(memfd, PAGES * PAGE_BYTES);
    content = page_alloc(RUN_PAGES, CONTENT);
    uffd = uffd_open_missing_minor();
    uffd_register(uffd, ram, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);

    touch_all("MISSING, COPY, from another CPU", uffd, 1, other_cpu);
    zap_all("zap, in bulk");
    touch_all("MINOR, CONTINUE, from another CPU", uffd, 1, other_cpu);
    zap_singly("zap, page by page");
    touch_all("MINOR, CONTINUE, from the same CPU", uffd, 1, 0);
    zap_all(NULL);
    touch_all("MINOR, CONTINUE of 32 pages", uffd, RUN_PAGES, other_cpu);
    zap_all(NULL);
    start = now_ns();
    punch(memfd, 0, PAGES);
    print_cost("punch, in bulk, not mapped", start, PAGES);
    touch_all("MISSING, COPY, from the same CPU", uffd, 1, 0);
    punch_singly("punch, page by page, mapped", 1);
    touch_all("MISSING, COPY of 32 pages", uffd, RUN_PAGES, other_cpu);
    zap_all(NULL);
    scan_alternating();
    return FACT_HOLDS;
}
