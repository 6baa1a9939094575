/*
 * Writes that a process submitted by io_uring go on landing after the process
 * was killed, EOF was seen on its socket, and it was reaped; an OFD lock taken
 * through the descriptor that the writes use is released only after the last
 * of them.  Writes by pwrite() are over at EOF.
 *
 * Design rules 2 and 7: a new pager hands out again the slots that the old
 * one had taken and not published.  A late write of the old pager would land
 * on the new content of such a slot, so a pager locks its tier files through
 * the very description it writes with, and a new pager waits for that lock
 * before it allocates.
 *
 * How late writes are seen: all writes are made from one shared buffer, which
 * the observer overwrites at each of these events.  What the disk holds in the
 * end tells when each sector was transferred.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <liburing.h>

#define WRITE_BYTES ((size_t)1 << 20)
#define WRITES      64
#define THREADS     4
#define TRIALS      5
#define SETTLE_MS   100

/* What the buffer holds, and so the disk: when was a sector transferred? */
typedef enum Phase {
    PHASE_FILLED,
    PHASE_WRITING,
    PHASE_AFTER_EOF,
    PHASE_AFTER_REAP,
    PHASE_AFTER_LOCK,
    PHASE_MAX,
} Phase;

/* Shared by the observer and the process that writes. */
typedef struct Shared {
    uint8_t buf[WRITE_BYTES];
    atomic_int submitted;
} Shared;

/* Sectors of the disk by the phase in which they were transferred. */
typedef struct Counts {
    size_t sectors[PHASE_MAX];
} Counts;

typedef void WriteAll(int disk, Shared *shared);

static void lock_whole_file(int fd, int command)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    SYS(fcntl(fd, command, &lock));
}

/* Another open file description of the same file. */
static int reopen(int fd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return SYS(open(path, O_RDWR | O_DIRECT | O_CLOEXEC));
}

static void write_by_uring(int disk, Shared *shared)
{
    struct io_uring ring;

    if (io_uring_queue_init(WRITES, &ring, 0)) {
        fact_skip("no io_uring on this machine");
    }
    for (size_t i = 0; i < WRITES; i++) {
        io_uring_prep_write(io_uring_get_sqe(&ring), disk, shared->buf,
                            WRITE_BYTES, i * WRITE_BYTES);
        SYS(io_uring_submit(&ring));
        atomic_fetch_add(&shared->submitted, 1);
    }
    pause();
}

typedef struct Writer {
    int disk;
    Shared *shared;
    size_t first;
} Writer;

static void *pwrite_thread(void *opaque)
{
    Writer *w = opaque;

    for (size_t i = w->first; i < WRITES; i += THREADS) {
        atomic_fetch_add(&w->shared->submitted, 1);
        SYS(pwrite(w->disk, w->shared->buf, WRITE_BYTES, i * WRITE_BYTES));
    }
    return NULL;
}

static void write_by_pwrite(int disk, Shared *shared)
{
    Writer writers[THREADS];
    pthread_t thread;

    for (size_t i = 0; i < THREADS; i++) {
        writers[i] = (Writer) { disk, shared, i };
        FACT_CHECK(!pthread_create(&thread, NULL, pwrite_thread,
                                   &writers[i]), "cannot create a thread");
    }
    pause();
}

static pid_t start_writer(int file, Shared *shared, int sock, WriteAll *how)
{
    pid_t pid = child_start();

    if (pid == 0) {
        int disk = reopen(file);

        close(file);
        lock_whole_file(disk, F_OFD_SETLK);
        send_token(sock);
        how(disk, shared);
    }
    close(sock);
    return pid;
}

static void enter(Shared *shared, Phase phase)
{
    memset(shared->buf, phase, WRITE_BYTES);
}

static void fill_disk(int disk, Shared *shared)
{
    enter(shared, PHASE_FILLED);
    for (size_t i = 0; i < WRITES; i++) {
        FACT_CHECK(pwrite(disk, shared->buf, WRITE_BYTES, i * WRITE_BYTES) ==
                   (ssize_t)WRITE_BYTES, "pwrite: %s", strerror(errno));
    }
}

static void count_sectors(int disk, Counts *counts)
{
    uint8_t *buf = page_alloc(WRITE_BYTES / PAGE_BYTES, 0);

    for (size_t i = 0; i < WRITES; i++) {
        FACT_CHECK(pread(disk, buf, WRITE_BYTES, i * WRITE_BYTES) ==
                   (ssize_t)WRITE_BYTES, "pread: %s", strerror(errno));
        for (size_t at = 0; at < WRITE_BYTES; at += 512) {
            FACT_CHECK(buf[at] < PHASE_MAX, "garbage on the disk");
            counts->sectors[buf[at]]++;
        }
    }
    free(buf);
}

/* Kill a process when it has submitted @writes. */
static void trial(int file, Shared *shared, WriteAll *how, int writes,
                  Counts *counts)
{
    int64_t end = now_ns() + PATIENCE_MS * (int64_t)1000000;
    int observer = reopen(file), sock[2];
    pid_t writer;

    fill_disk(observer, shared);
    enter(shared, PHASE_WRITING);
    atomic_store(&shared->submitted, 0);
    SYS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock));
    writer = start_writer(file, shared, sock[1], how);
    FACT_CHECK(wait_token(sock[0]), "the writer died");
    while (atomic_load(&shared->submitted) < writes) {
        FACT_CHECK(now_ns() < end, "the writer does not write");
    }
    SYS(kill(writer, SIGKILL));
    FACT_CHECK(!wait_token(sock[0]), "data instead of EOF");
    enter(shared, PHASE_AFTER_EOF);
    child_wait(writer);
    enter(shared, PHASE_AFTER_REAP);
    lock_whole_file(observer, F_OFD_SETLKW);
    enter(shared, PHASE_AFTER_LOCK);
    sleep_ms(SETTLE_MS);
    count_sectors(observer, counts);
    close(sock[0]);
    close(observer);
}

static Counts trials(const char *name, int file, Shared *shared, WriteAll *how)
{
    Counts counts = { 0 };

    for (int i = 1; i <= TRIALS; i++) {
        trial(file, shared, how, i * WRITES / TRIALS, &counts);
    }
    fact_info("sectors written by %-9s: %zu before EOF, %zu after EOF, %zu "
              "after the process was reaped, %zu after the lock was free",
              name, counts.sectors[PHASE_WRITING],
              counts.sectors[PHASE_AFTER_EOF],
              counts.sectors[PHASE_AFTER_REAP],
              counts.sectors[PHASE_AFTER_LOCK]);
    FACT_CHECK(counts.sectors[PHASE_AFTER_LOCK] == 0,
               "a write landed after the lock was free");
    FACT_CHECK(counts.sectors[PHASE_WRITING] > 0,
               "nothing was written: this says nothing");
    return counts;
}

int main(void)
{
    int file = scratch_file(O_DIRECT);
    Counts by_uring, by_pwrite;
    Shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    FACT_CHECK(shared != MAP_FAILED, "mmap: %s", strerror(errno));
    by_uring = trials("io_uring", file, shared, write_by_uring);
    by_pwrite = trials("pwrite", file, shared, write_by_pwrite);
    FACT_CHECK(by_pwrite.sectors[PHASE_AFTER_EOF] == 0 &&
               by_pwrite.sectors[PHASE_AFTER_REAP] == 0,
               "a pwrite landed after EOF");
    FACT_CHECK(by_uring.sectors[PHASE_AFTER_REAP] > 0,
               "no write by io_uring outlived its process: either the end of "
               "a process waits for them on this kernel, or this test is too "
               "slow to see it");
    return FACT_HOLDS;
}
