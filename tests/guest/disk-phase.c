/*
 * Disk I/O straight from and into the arena
 *
 * O_DIRECT makes the device read and write the arena's own pages, without the
 * guest's page cache in between: a write reads pages that the host may have
 * swapped out, and a read stores into pages that the host may be about to
 * take away.  The tag of every disk block is remembered, so the expected
 * content follows the data through the disk and into another page.  Part of
 * what was read is compared at once, while the host may still be busy with
 * the page; the rest is left for a later phase, after it went cold.
 *
 * Threads: each worker owns a part of the arena and a part of the disk.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "arena.h"
#include "console.h"
#include "disk-phase.h"
#include "phase.h"

#define DISK_PATH "/dev/vda"

enum {
    RUN_PAGES_MAX = 64,
    BLOCKS_MAX = 65536,
};

static int disk_fd = -1;
static size_t disk_blocks;
static PageTag *disk_tags;
static _Atomic bool disk_failed;
static _Atomic size_t pages_read;
static _Atomic size_t pages_written;

static bool disk_open(void)
{
    uint64_t bytes;

    if (disk_fd >= 0) {
        return true;
    }
    disk_fd = open(DISK_PATH, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (disk_fd < 0 || ioctl(disk_fd, BLKGETSIZE64, &bytes) < 0) {
        report("cannot use %s: %s", DISK_PATH, strerror(errno));
        return false;
    }
    disk_blocks = bytes / STAMP_PAGE_BYTES;
    disk_blocks = disk_blocks < BLOCKS_MAX ? disk_blocks : BLOCKS_MAX;
    disk_tags = calloc(disk_blocks, sizeof(*disk_tags));
    if (!disk_tags) {
        abort();
    }
    return true;
}

/* Move @count pages; true if all of them were moved */
static bool disk_transfer(bool write, size_t page, size_t block, size_t count)
{
    size_t bytes = count * STAMP_PAGE_BYTES;
    off_t offset = (off_t)block * STAMP_PAGE_BYTES;
    ssize_t moved;

    moved = write ? pwrite(disk_fd, arena_address(page), bytes, offset)
                  : pread(disk_fd, arena_address(page), bytes, offset);
    if (moved == (ssize_t)bytes) {
        return true;
    }
    report("disk %s failed block=%zu count=%zu moved=%zd: %s",
           write ? "write" : "read", block, count, moved,
           moved < 0 ? strerror(errno) : "short");
    atomic_store(&disk_failed, true);
    return false;
}

static bool write_run(size_t page, size_t block, size_t count)
{
    if (!disk_transfer(true, page, block, count)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        disk_tags[block + i] = arena_tag(page + i);
    }
    atomic_fetch_add(&pages_written, count);
    return true;
}

static bool read_run(size_t page, size_t block, size_t count, bool check,
                     unsigned *good)
{
    if (!disk_transfer(false, page, block, count)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        arena_set_tag(page + i, disk_tags[block + i]);
    }
    for (size_t i = 0; check && i < count; i++) {
        *good += arena_check(page + i);
    }
    atomic_fetch_add(&pages_read, count);
    return true;
}

static bool is_written(size_t block, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!disk_tags[block + i].version) {
            return false;
        }
    }
    return true;
}

static void disk_work(Worker *worker)
{
    size_t first_block = disk_blocks * worker->index / phase_threads();
    size_t end_block = disk_blocks * (worker->index + 1) / phase_threads();
    size_t blocks = end_block - first_block;
    size_t last_block = 0, last_count = 0;
    bool more = true;

    while (more) {
        uint64_t pick = worker_random(worker);
        size_t count = 1 + pick % RUN_PAGES_MAX;
        size_t block = first_block + (pick >> 36) % (blocks - count);
        bool is_read = pick >> 63 && last_count;
        unsigned good = 0;
        size_t page;

        if (is_read && !is_written(block, count)) {
            /* a slow machine does not write so much that a guess is right */
            block = last_block;
            count = last_count;
        }
        page = worker->first_page +
               (pick >> 8) % (worker->page_count - count);
        if (!is_read) {
            last_block = block;
            last_count = count;
        }
        more = is_read ? read_run(page, block, count, pick >> 62 & 1, &good)
                       : write_run(page, block, count);
        more = worker_tick(worker, count, good) && more;
    }
}

bool disk_run(unsigned seconds)
{
    if (!disk_open()) {
        return false;
    }
    if (disk_blocks / phase_threads() <= RUN_PAGES_MAX) {
        report("%s is too small: %zu blocks for %u threads", DISK_PATH,
               disk_blocks, phase_threads());
        return false;
    }
    phase_run(&(Phase) {
        .name = "disk", .work = disk_work, .seconds = seconds,
    });
    return !atomic_load(&disk_failed);
}

size_t disk_pages_read(void)
{
    return atomic_load(&pages_read);
}

size_t disk_pages_written(void)
{
    return atomic_load(&pages_written);
}
