/*
 * The memory that the workload works on, and what it ought to contain
 *
 * The expected contents are kept as one tag per page.  Tags travel with the
 * data: a page that was read from a disk block expects the tag that was
 * written there, whatever page it came from.
 *
 * Threads: a page and its tag belong to one worker at a time, so there are no
 * locks; only the version source and the mismatch counter are shared.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "arena.h"
#include "console.h"

/* A run that went wrong everywhere must not drown the serial line */
enum { BAD_LINES_MAX = 20 };

static uint8_t *arena_memory;
static PageTag *arena_tags;
static size_t arena_size_pages;

/* Shared by all runs of all phases: no content is ever used twice */
static _Atomic uint32_t next_version = 1;
static _Atomic uint64_t bad_pages;

static void *map_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void arena_drop(void)
{
    if (arena_memory) {
        munmap(arena_memory, arena_size_pages * STAMP_PAGE_BYTES);
    }
    if (arena_tags) {
        munmap(arena_tags, arena_size_pages * sizeof(*arena_tags));
    }
    arena_memory = NULL;
    arena_tags = NULL;
    arena_size_pages = 0;
}

bool arena_create(size_t pages)
{
    arena_drop();
    if (!pages) {
        return true;
    }
    arena_size_pages = pages;
    arena_memory = map_memory(pages * STAMP_PAGE_BYTES);
    arena_tags = map_memory(pages * sizeof(*arena_tags));
    if (!arena_memory || !arena_tags) {
        report("cannot map %zu pages: %s", pages, strerror(errno));
        arena_drop();
        return false;
    }
    return true;
}

size_t arena_pages(void)
{
    return arena_size_pages;
}

void arena_stamp(size_t page)
{
    arena_tags[page] = (PageTag) {
        .id = page,
        .version = atomic_fetch_add(&next_version, 1),
    };
    stamp_write(arena_address(page), arena_tags[page]);
}

bool arena_check(size_t page)
{
    char have[STAMP_TEXT_BYTES];
    char want[STAMP_TEXT_BYTES];

    if (stamp_check(arena_address(page), arena_tags[page])) {
        return true;
    }
    if (atomic_fetch_add(&bad_pages, 1) < BAD_LINES_MAX) {
        stamp_describe_page(arena_address(page), have);
        stamp_describe_tag(arena_tags[page], want);
        report("BAD page=%zu have=%s want=%s", page, have, want);
    }
    return false;
}

void *arena_address(size_t page)
{
    return arena_memory + page * STAMP_PAGE_BYTES;
}

PageTag arena_tag(size_t page)
{
    return arena_tags[page];
}

void arena_set_tag(size_t page, PageTag tag)
{
    arena_tags[page] = tag;
}

void arena_damage(size_t page)
{
    uint8_t *memory = arena_address(page);

    memory[STAMP_PAGE_BYTES - 1] ^= 0x10;
}

void arena_count_bad(void)
{
    atomic_fetch_add(&bad_pages, 1);
}

uint64_t arena_bad_pages(void)
{
    return atomic_load(&bad_pages);
}
