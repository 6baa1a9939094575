/*
 * What kernel and disk allow at best: raw figures to measure others by
 *
 *     raw-limits FILE MIB
 *
 * FILE is made, written and removed.  Prints "name value" lines:
 *
 *     read-us         a random 4 KiB read, one at a time, without page cache;
 *                     median
 *     write-bytes     sequential writes of 128 KiB, four at a time; per second
 *     round-trip-us   a fault on missing memory that a thread which is awake
 *                     on another processor fills with UFFDIO_COPY; median
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "../platform/platform.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    READS = 20000,
    WRITE_BYTES = 128 * 1024,
    WRITERS = 4,
    FAULTS = 20000,
};

static int64_t sample_ns[READS > FAULTS ? READS : FAULTS];

static int compare_ns(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static void print_median_us(const char *name, size_t nr)
{
    qsort(sample_ns, nr, sizeof(sample_ns[0]), compare_ns);
    printf("%s %.2f\n", name, sample_ns[nr / 2] / 1e3);
}

static void run_on_cpu(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* Where this is not allowed the figures are only less steady. */
    sched_setaffinity(0, sizeof(set), &set);
}

/* Disk */

typedef struct Writer {
    pthread_t thread;
    int fd;
    off_t first, bytes;
} Writer;

static void *writer_thread(void *opaque)
{
    Writer *w = opaque;
    uint8_t *buf;

    FACT_CHECK(!posix_memalign((void **)&buf, PAGE_BYTES, WRITE_BYTES),
               "no memory");
    for (size_t i = 0; i < WRITE_BYTES; i++) {
        buf[i] = (i * 2654435761u) >> 13;
    }
    for (off_t at = 0; at < w->bytes; at += WRITE_BYTES) {
        FACT_CHECK(pwrite(w->fd, buf, WRITE_BYTES, w->first + at) ==
                   WRITE_BYTES, "cannot write: %s", strerror(errno));
    }
    free(buf);
    return NULL;
}

static void write_all(int fd, off_t bytes)
{
    Writer writers[WRITERS];

    for (int i = 0; i < WRITERS; i++) {
        writers[i] = (Writer) {
            .fd = fd, .first = bytes / WRITERS * i, .bytes = bytes / WRITERS,
        };
        FACT_CHECK(!pthread_create(&writers[i].thread, NULL, writer_thread,
                                   &writers[i]), "cannot create a thread");
    }
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
    }
}

static void measure_disk(const char *path, off_t bytes)
{
    int fd = SYS(open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT, 0600));
    uint8_t *buf;
    int64_t start;

    SYS(unlink(path));
    SYS(fallocate(fd, 0, 0, bytes));
    /* the first time blocks are written they are also entered as such */
    write_all(fd, bytes);
    start = now_ns();
    write_all(fd, bytes);
    printf("write-bytes %.0f\n", bytes * 1e9 / (now_ns() - start));

    FACT_CHECK(!posix_memalign((void **)&buf, PAGE_BYTES, PAGE_BYTES),
               "no memory");
    for (int i = 0; i < READS; i++) {
        off_t page = random() % (bytes / (off_t)PAGE_BYTES);

        start = now_ns();
        FACT_CHECK(pread(fd, buf, PAGE_BYTES, page * PAGE_BYTES) ==
                   (ssize_t)PAGE_BYTES, "cannot read: %s", strerror(errno));
        sample_ns[i] = now_ns() - start;
    }
    print_median_us("read-us", READS);
    free(buf);
    close(fd);
}

/* Faults */

typedef struct Server {
    pthread_t thread;
    int uffd;
    atomic_bool stop;
} Server;

static void *server_thread(void *opaque)
{
    Server *s = opaque;
    uint8_t *content = page_alloc(1, 1);
    struct uffd_msg msg;

    run_on_cpu(1);
    while (!atomic_load(&s->stop)) {
        if (read(s->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
            uffd_copy(s->uffd, msg_page(&msg), content, 1, 0, NULL);
        }
    }
    return NULL;
}

static void measure_round_trip(void)
{
    size_t bytes = FAULTS * PAGE_BYTES;
    uint8_t *ram = map_shared(memfd_new(bytes), bytes);
    Server server = { .uffd = uffd_open_missing_minor() };

    uffd_register(server.uffd, ram, bytes, UFFDIO_REGISTER_MODE_MISSING);
    FACT_CHECK(!pthread_create(&server.thread, NULL, server_thread, &server),
               "cannot create a thread");
    run_on_cpu(0);
    for (size_t i = 0; i < FAULTS; i++) {
        int64_t start = now_ns();

        load_byte(ram + i * PAGE_BYTES);
        sample_ns[i] = now_ns() - start;
    }
    atomic_store(&server.stop, true);
    pthread_join(server.thread, NULL);
    print_median_us("round-trip-us", FAULTS);
}

int main(int argc, char **argv)
{
    off_t mib = argc == 3 ? atol(argv[2]) : 0;

    if (mib < 1) {
        fprintf(stderr, "usage: %s FILE MIB\n", argv[0]);
        return 1;
    }
    measure_disk(argv[1], mib << 20);
    measure_round_trip();
    return FACT_HOLDS;
}
