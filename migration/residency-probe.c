/*
 * Where the host's kernel has the pages of ordinary memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shared memory: what is swapped out leaves no trace in page tables, so that
 * pagemap tells mapped pages from all others, mincore() those that are in
 * memory from all others, and lseek() holes from what has content.
 *
 * Private memory: pagemap tells what is mapped, and what is swapped out; of
 * that, mincore() tells what is in memory all the same, as its neighbours were
 * wanted.  What is neither has never been written to, or has been discarded.
 */
#include "qemu/osdep.h"
#include <linux/magic.h>
#include <sys/vfs.h>
#include "migration/residency-probe.h"

#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)

bool residency_is_known(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

int residency_open_pagemap(void)
{
    return qemu_open_old("/proc/self/pagemap", O_RDONLY);
}

static bool read_pagemap(const ResidencyRange *range, int pagemap,
                         uint64_t *entries)
{
    size_t len = range->nr * sizeof(*entries);
    off_t page = (uintptr_t)range->host / qemu_real_host_page_size();

    return pagemap >= 0 &&
           pread(pagemap, entries, len, page * sizeof(*entries)) == len;
}

static void look_private(const ResidencyRange *range, int pagemap,
                         Residency *found)
{
    size_t len = range->nr * qemu_real_host_page_size();
    unsigned char in_memory[RESIDENCY_PAGES];
    uint64_t entries[RESIDENCY_PAGES];
    unsigned i;

    if (!read_pagemap(range, pagemap, entries) ||
        mincore(range->host, len, in_memory) < 0) {
        return;
    }
    for (i = 0; i < range->nr; i++) {
        if (entries[i] & PAGEMAP_SWAPPED) {
            set_bit(i, in_memory[i] & 1 ? found->unmapped : found->swapped);
        } else if (!(entries[i] & PAGEMAP_PRESENT)) {
            set_bit(i, found->hole);
        }
    }
}

/* Those that are not in memory, in @absent; false if that is not known */
static bool find_absent(const ResidencyRange *range, int pagemap,
                        Residency *found, unsigned long *absent)
{
    size_t len = range->nr * qemu_real_host_page_size();
    unsigned char in_memory[RESIDENCY_PAGES];
    uint64_t entries[RESIDENCY_PAGES];
    bool have_pagemap = read_pagemap(range, pagemap, entries);
    unsigned i;

    if (mincore(range->host, len, in_memory) < 0) {
        return false;
    }
    for (i = 0; i < range->nr; i++) {
        if (!(in_memory[i] & 1)) {
            set_bit(i, absent);
        } else if (have_pagemap && !(entries[i] & PAGEMAP_PRESENT)) {
            set_bit(i, found->unmapped);
        }
    }
    return true;
}

/* Where content begins at or after @pos: @end if not before, -1: not known */
static off_t next_content(int fd, off_t pos, off_t end)
{
    off_t content = lseek(fd, pos, SEEK_DATA);

    if (content < 0) {
        return errno == ENXIO ? end : -1;
    }
    return MIN(content, end);
}

/*
 * Which of the absent pages have content.  By SEEK_DATA alone, which stops at
 * the first page that has any: SEEK_HOLE would go through all that come after
 * the range, too.
 */
static void divide_absent(const ResidencyRange *range, Residency *found,
                          const unsigned long *absent)
{
    size_t page_size = qemu_real_host_page_size();
    off_t end = range->offset + range->nr * page_size;
    unsigned i = find_first_bit(absent, range->nr);

    while (i < range->nr) {
        off_t pos = range->offset + i * page_size;
        off_t content = next_content(range->fd, pos, end);

        if (content < 0) {
            break;
        }
        if (content < pos + page_size) {
            set_bit(i++, found->swapped);
        } else {
            bitmap_set(found->hole, i, (content - pos) / page_size);
            i += (content - pos) / page_size;
        }
        i = find_next_bit(absent, range->nr, i);
    }
    bitmap_and(found->hole, found->hole, absent, range->nr);
}

static void look_shared(const ResidencyRange *range, int pagemap,
                        Residency *found)
{
    DECLARE_BITMAP(absent, RESIDENCY_PAGES) = { 0 };

    if (find_absent(range, pagemap, found, absent) &&
        !bitmap_empty(absent, range->nr)) {
        divide_absent(range, found, absent);
    }
}

void residency_look(const ResidencyRange *range, int pagemap,
                    Residency *found)
{
    assert(range->nr <= RESIDENCY_PAGES);
    memset(found, 0, sizeof(*found));
    if (range->fd < 0) {
        look_private(range, pagemap, found);
    } else {
        look_shared(range, pagemap, found);
    }
}

bool residency_is_hole(int fd, off_t offset, uint64_t len)
{
    off_t end = offset + len;

    return next_content(fd, offset, end) == end;
}

void residency_advise(uint8_t *host, const unsigned long *pages, unsigned nr,
                      int advice)
{
    size_t page_size = qemu_real_host_page_size();
    unsigned long first = find_first_bit(pages, nr);

    while (first < nr) {
        unsigned long end = find_next_zero_bit(pages, nr, first);

        madvise(host + first * page_size, (end - first) * page_size, advice);
        first = find_next_bit(pages, nr, end);
    }
}
