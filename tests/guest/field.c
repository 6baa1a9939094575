/*
 * Memory for benchmarks: cheap to check, of a given compressibility
 *
 * Threads: a page and its count of writes belong to one worker at a time; where
 * any may pick it, to the one that has its lock.
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
#include "field.h"
#include "stamp.h"

enum {
    WORD_ID,
    WORD_WRITES,
    WORD_PAYLOAD,
    WORD_COUNT = STAMP_PAGE_BYTES / sizeof(uint64_t),
    BAD_LINES_MAX = 20,
};

static uint64_t *field_memory;
static uint32_t *field_writes;
static atomic_bool *field_locks;
static size_t field_size_pages;
static unsigned noise_words;
static _Atomic unsigned bad_lines;

static void *map_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void drop(void)
{
    if (field_memory) {
        munmap(field_memory, field_size_pages * STAMP_PAGE_BYTES);
    }
    if (field_writes) {
        munmap(field_writes, field_size_pages * sizeof(*field_writes));
    }
    if (field_locks) {
        munmap(field_locks, field_size_pages * sizeof(*field_locks));
    }
    field_memory = NULL;
    field_writes = NULL;
    field_locks = NULL;
    field_size_pages = 0;
}

bool field_create(size_t pages, unsigned noise)
{
    drop();
    if (!pages) {
        return true;
    }
    field_size_pages = pages;
    noise_words = WORD_COUNT * noise / 100;
    field_memory = map_memory(pages * STAMP_PAGE_BYTES);
    field_writes = map_memory(pages * sizeof(*field_writes));
    field_locks = map_memory(pages * sizeof(*field_locks));
    if (!field_memory || !field_writes || !field_locks) {
        report("cannot map %zu pages: %s", pages, strerror(errno));
        drop();
        return false;
    }
    return true;
}

size_t field_pages(void)
{
    return field_size_pages;
}

bool field_try_lock(size_t page)
{
    return !atomic_exchange_explicit(&field_locks[page], true,
                                     memory_order_acquire);
}

void field_unlock(size_t page)
{
    atomic_store_explicit(&field_locks[page], false, memory_order_release);
}

static uint64_t *words_of(size_t page)
{
    return field_memory + page * WORD_COUNT;
}

static uint64_t id_of(size_t page)
{
    return (page + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Noise, then one word over and over, of its own in each page */
static uint64_t payload(uint64_t *state, uint64_t id, int i)
{
    if (i >= (int)noise_words) {
        return id >> 32;
    }
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *state ^ *state >> 32;
}

void field_write_content(size_t page)
{
    uint64_t *words = words_of(page);
    uint64_t id = id_of(page), state = id;

    words[WORD_ID] = id;
    words[WORD_WRITES] = field_writes[page] = 1;
    for (int i = WORD_PAYLOAD; i < WORD_COUNT; i++) {
        words[i] = payload(&state, id, i);
    }
}

bool field_access(size_t page, bool write)
{
    uint64_t *words = words_of(page);

    if (words[WORD_ID] != id_of(page) ||
        words[WORD_WRITES] != field_writes[page]) {
        return false;
    }
    if (write) {
        words[WORD_WRITES] = ++field_writes[page];
    }
    return true;
}

bool field_verify(size_t page)
{
    const uint64_t *words = words_of(page);
    uint64_t id = id_of(page), state = id;
    uint64_t differences = words[WORD_ID] ^ id;

    differences |= words[WORD_WRITES] ^ field_writes[page];
    for (int i = WORD_PAYLOAD; i < WORD_COUNT; i++) {
        differences |= words[i] ^ payload(&state, id, i);
    }
    if (differences) {
        field_report_bad(page);
    }
    return !differences;
}

void field_report_bad(size_t page)
{
    const uint64_t *words = words_of(page);

    arena_count_bad();
    if (atomic_fetch_add(&bad_lines, 1) < BAD_LINES_MAX) {
        report("BAD page=%zu have=id:%" PRIx64 ",writes:%" PRIu64
               " want=id:%" PRIx64 ",writes:%" PRIu32, page, words[WORD_ID],
               words[WORD_WRITES], id_of(page), field_writes[page]);
    }
}
