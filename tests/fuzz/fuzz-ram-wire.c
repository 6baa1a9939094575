/*
 * Fuzz target: records of the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: a part of the section, which is walked as its loader does.  Payloads
 * are looked at in copies that are not one byte larger; what is accepted has to
 * lie within the blocks.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "migration/managed-ram-wire.h"
#include "fuzz.h"

static ManagedRamBlock blocks[MANAGED_RAM_BLOCKS_MAX];
static ManagedRamRun runs[MANAGED_RAM_RUNS_MAX];
static MmPlace places[MANAGED_RAM_PLACES_MAX];
static MmSharedFile file;

static int load_hello(const uint8_t *buf, uint32_t len, Error **errp)
{
    int nr = managed_ram_get_hello(buf, len, blocks, &file, errp), i;

    for (i = 0; i < nr; i++) {
        g_assert(strlen(blocks[i].name) - 1 < MANAGED_RAM_NAME_MAX);
    }
    g_assert(nr < 0 || strnlen(file.file, MM_FILE_LEN) < MM_FILE_LEN);
    return nr;
}

static bool load_runs(const uint8_t *buf, uint32_t len, int nr_blocks,
                      Error **errp)
{
    uint32_t block;
    int nr = managed_ram_get_runs(buf, len, blocks, nr_blocks, &block, runs,
                                  errp), i;

    for (i = 0; i < nr; i++) {
        uint64_t pages = blocks[block].size / MANAGED_RAM_PAGE_SIZE;

        g_assert(block < nr_blocks && runs[i].first < pages);
        g_assert(runs[i].nr - 1 < pages - runs[i].first);
    }
    return nr >= 0;
}

static bool load_data(const uint8_t *buf, uint32_t len, int nr_blocks,
                      Error **errp)
{
    ManagedRamRun run;
    uint32_t block;
    const uint8_t *content = managed_ram_get_data(buf, len, blocks, nr_blocks,
                                                  &block, &run, errp);

    if (content) {
        uint64_t pages = blocks[block].size / MANAGED_RAM_PAGE_SIZE;

        g_assert(block < nr_blocks && run.first < pages);
        g_assert(run.nr - 1 < MIN(pages - run.first, MANAGED_RAM_DATA_MAX));
        g_assert(content + run.nr * MANAGED_RAM_PAGE_SIZE == buf + len);
    }
    return content;
}

static bool load_fill(const uint8_t *buf, uint32_t len, int nr_blocks,
                      Error **errp)
{
    ManagedRamRun run;
    uint32_t block;
    const uint8_t *value = managed_ram_get_fill(buf, len, blocks, nr_blocks,
                                                &block, &run, errp);

    if (value) {
        uint64_t pages = blocks[block].size / MANAGED_RAM_PAGE_SIZE;

        g_assert(block < nr_blocks && run.first < pages);
        g_assert(run.nr - 1 < MIN(pages - run.first, MANAGED_RAM_DATA_MAX));
        g_assert(value + MANAGED_RAM_VALUE_LEN == buf + len);
    }
    return value;
}

static bool load_wake(const uint8_t *buf, uint32_t len, int nr_blocks,
                      Error **errp)
{
    ManagedRamRun run;
    uint32_t block;
    const uint8_t *bits = managed_ram_get_wake(buf, len, blocks, nr_blocks,
                                               &block, &run, errp);

    if (bits) {
        uint64_t pages = blocks[block].size / MANAGED_RAM_PAGE_SIZE;

        g_assert(block < nr_blocks && run.first < pages);
        g_assert(run.nr - 1 < MIN(pages - run.first, MANAGED_RAM_WAKE_MAX));
        g_assert(bits + DIV_ROUND_UP(run.nr, 8 * MM_RING_WAKE_BLOCK) ==
                 buf + len);
    }
    return bits;
}

static bool load_places(const uint8_t *buf, uint32_t len, int nr_blocks,
                        Error **errp)
{
    ManagedRamRun run;
    uint32_t block;
    bool ok = managed_ram_get_places(buf, len, blocks, nr_blocks, &block, &run,
                                     places, errp);

    if (ok) {
        uint64_t pages = blocks[block].size / MANAGED_RAM_PAGE_SIZE;

        g_assert(block < nr_blocks && run.first < pages);
        g_assert(run.nr - 1 < MIN(pages - run.first, MANAGED_RAM_PLACES_MAX));
    }
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput in = { .data = data, .size = size };
    ManagedRamHeader header;
    int nr_blocks = 0;
    Error *err = NULL;

    while (in.size >= MANAGED_RAM_HEADER_LEN && !err) {
        uint8_t head[MANAGED_RAM_HEADER_LEN];
        g_autofree uint8_t *buf = NULL;

        fuzz_take(&in, head, sizeof(head));
        if (!managed_ram_get_header(head, &header, &err)) {
            break;
        }
        g_assert(header.len <= MANAGED_RAM_PAYLOAD_MAX);
        buf = g_malloc(header.len ?: 1);
        fuzz_take(&in, buf, header.len);
        if (header.type == MANAGED_RAM_HELLO) {
            nr_blocks = MAX(load_hello(buf, header.len, &err), 0);
        } else if (header.type == MANAGED_RAM_NEVER ||
                   header.type == MANAGED_RAM_ZERO) {
            g_assert(load_runs(buf, header.len, nr_blocks, &err) == !err);
        } else if (header.type == MANAGED_RAM_DATA) {
            g_assert(load_data(buf, header.len, nr_blocks, &err) == !err);
        } else if (header.type == MANAGED_RAM_FILL) {
            g_assert(load_fill(buf, header.len, nr_blocks, &err) == !err);
        } else if (header.type == MANAGED_RAM_PLACES) {
            g_assert(load_places(buf, header.len, nr_blocks, &err) == !err);
        } else if (header.type == MANAGED_RAM_WAKE) {
            g_assert(load_wake(buf, header.len, nr_blocks, &err) == !err);
        } else if (header.type == MANAGED_RAM_ROOM) {
            ManagedMemoryNeed need;

            g_assert(managed_ram_get_room(buf, header.len, &need, &err) ==
                     !err);
            g_assert(err || need.shrinks);
        }
    }
    error_free(err);
    return 0;
}

static void write_seeds(void)
{
    static const ManagedRamBlock two[] = {
        { "pc.ram", 0x8000000 }, { "dimm", 0x200000, 7 },
    };
    static const MmSharedFile shared = { .present = 1, .file = "name" };
    static const MmPlace three[3] = { { .place = 1 }, { .place = 3 } };
    const ManagedRamRun placed = { 0x100, 3 };
    static const ManagedRamRun some[] = {
        { 0, 1 }, { 2, 0x7ffe }, { 0x7fff, 1 },
    };
    static const uint8_t content[2 * MANAGED_RAM_PAGE_SIZE];
    const ManagedRamRun pages = { 0x7ffe, 2 };
    g_autoptr(GByteArray) out = g_byte_array_new();

    managed_ram_put_hello(out, two, ARRAY_SIZE(two), &shared);
    managed_ram_put_wake(out, 1, &(ManagedRamRun) { 32, 300 }, content);
    managed_ram_put_room(out, &(ManagedMemoryNeed) { 1 << 20, 3 });
    managed_ram_put_end(out);
    fuzz_seed("hello", out->data, out->len);
    managed_ram_put_runs(out, MANAGED_RAM_NEVER, 1, some, 1);
    managed_ram_put_runs(out, MANAGED_RAM_ZERO, 0, some, ARRAY_SIZE(some));
    managed_ram_put_end(out);
    fuzz_seed("zeros", out->data, out->len);
    managed_ram_put_data(out, 0, &pages, content);
    managed_ram_put_end(out);
    fuzz_seed("data", out->data, out->len);
    managed_ram_put_fill(out, 0, &pages, content);
    managed_ram_put_end(out);
    fuzz_seed("fill", out->data, out->len);
    managed_ram_put_places(out, 1, &placed, three);
    managed_ram_put_end(out);
    fuzz_seed("places", out->data, out->len);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(*argc, *argv, write_seeds);
    return 0;
}
