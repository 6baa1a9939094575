/*
 * Managed memory: records of the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "managed-ram-wire.h"

#define FLAG_SKIPPABLE 1

#define HELLO_FIXED_LEN 16
#define FILE_LEN (8 + 2 * MM_UUID_LEN + MM_COOKIE_LEN + MM_FILE_LEN)
#define BLOCK_FIXED_LEN 17
#define ROOM_LEN 12
#define RUNS_FIXED_LEN 8
#define RUN_LEN 16
#define ONE_RUN_LEN 20
#define PLACE_LEN 14

QEMU_BUILD_BUG_ON(RUNS_FIXED_LEN + MANAGED_RAM_RUNS_MAX * RUN_LEN >
                  MANAGED_RAM_PAYLOAD_MAX);
QEMU_BUILD_BUG_ON(ONE_RUN_LEN + MANAGED_RAM_DATA_MAX *
                  MANAGED_RAM_PAGE_SIZE > MANAGED_RAM_PAYLOAD_MAX);
QEMU_BUILD_BUG_ON(ONE_RUN_LEN + MANAGED_RAM_PLACES_MAX * PLACE_LEN >
                  MANAGED_RAM_PAYLOAD_MAX);
QEMU_BUILD_BUG_ON(HELLO_FIXED_LEN + FILE_LEN + MANAGED_RAM_BLOCKS_MAX *
                  (BLOCK_FIXED_LEN + MANAGED_RAM_NAME_MAX) >
                  MANAGED_RAM_PAYLOAD_MAX);

/* ---- out ---- */

static void put_be16(GByteArray *out, uint16_t value)
{
    value = cpu_to_be16(value);
    g_byte_array_append(out, (uint8_t *)&value, sizeof(value));
}

static void put_be32(GByteArray *out, uint32_t value)
{
    value = cpu_to_be32(value);
    g_byte_array_append(out, (uint8_t *)&value, sizeof(value));
}

static void put_be64(GByteArray *out, uint64_t value)
{
    value = cpu_to_be64(value);
    g_byte_array_append(out, (uint8_t *)&value, sizeof(value));
}

static void put_flagged(GByteArray *out, ManagedRamType type, uint16_t flags,
                        uint32_t len)
{
    put_be16(out, type);
    put_be16(out, flags);
    put_be32(out, len);
}

static void put_header(GByteArray *out, ManagedRamType type, uint32_t len)
{
    put_flagged(out, type, 0, len);
}

void managed_ram_put_end(GByteArray *out)
{
    put_header(out, MANAGED_RAM_END, 0);
}

void managed_ram_put_sync(GByteArray *out)
{
    put_header(out, MANAGED_RAM_SYNC, 0);
}

void managed_ram_put_encrypted(GByteArray *out)
{
    put_header(out, MANAGED_RAM_ENCRYPTED, 0);
}

static void put_file(GByteArray *out, const MmSharedFile *file)
{
    put_be64(out, file->epoch);
    g_byte_array_append(out, file->storage, sizeof(file->storage));
    g_byte_array_append(out, file->id, sizeof(file->id));
    g_byte_array_append(out, file->key, sizeof(file->key));
    g_byte_array_append(out, (const uint8_t *)file->file, sizeof(file->file));
}

void managed_ram_put_hello(GByteArray *out, const ManagedRamBlock *blocks,
                           unsigned nr, const MmSharedFile *file)
{
    uint32_t len = HELLO_FIXED_LEN + (file->present ? FILE_LEN : 0);
    unsigned i;

    for (i = 0; i < nr; i++) {
        len += BLOCK_FIXED_LEN + strlen(blocks[i].name);
    }
    put_header(out, MANAGED_RAM_HELLO, len);
    put_be32(out, MANAGED_RAM_VERSION);
    put_be32(out, MANAGED_RAM_PAGE_SIZE);
    put_be32(out, nr);
    put_be32(out, file->present);
    if (file->present) {
        put_file(out, file);
    }
    for (i = 0; i < nr; i++) {
        uint8_t name_len = strlen(blocks[i].name);

        put_be64(out, blocks[i].size);
        put_be64(out, blocks[i].seed);
        g_byte_array_append(out, &name_len, 1);
        g_byte_array_append(out, (const uint8_t *)blocks[i].name, name_len);
    }
}

void managed_ram_put_room(GByteArray *out, const ManagedMemoryNeed *need)
{
    put_flagged(out, MANAGED_RAM_ROOM, FLAG_SKIPPABLE, ROOM_LEN);
    put_be64(out, need->bytes);
    put_be32(out, need->shrinks);
}

void managed_ram_put_runs(GByteArray *out, ManagedRamType type, uint32_t block,
                          const ManagedRamRun *runs, unsigned nr)
{
    unsigned i;

    put_header(out, type, RUNS_FIXED_LEN + nr * RUN_LEN);
    put_be32(out, block);
    put_be32(out, nr);
    for (i = 0; i < nr; i++) {
        put_be64(out, runs[i].first);
        put_be64(out, runs[i].nr);
    }
}

static void put_run_head(GByteArray *out, uint32_t block,
                         const ManagedRamRun *run)
{
    put_be32(out, block);
    put_be64(out, run->first);
    put_be64(out, run->nr);
}

void managed_ram_put_data(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run, const uint8_t *content)
{
    uint32_t len = run->nr * MANAGED_RAM_PAGE_SIZE;

    assert(run->nr && run->nr <= MANAGED_RAM_DATA_MAX);
    put_header(out, MANAGED_RAM_DATA, ONE_RUN_LEN + len);
    put_run_head(out, block, run);
    g_byte_array_append(out, content, len);
}

void managed_ram_put_fill(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run,
                          const uint8_t value[MANAGED_RAM_VALUE_LEN])
{
    assert(run->nr && run->nr <= MANAGED_RAM_DATA_MAX);
    put_header(out, MANAGED_RAM_FILL, ONE_RUN_LEN + MANAGED_RAM_VALUE_LEN);
    put_run_head(out, block, run);
    g_byte_array_append(out, value, MANAGED_RAM_VALUE_LEN);
}

void managed_ram_put_places(GByteArray *out, uint32_t block,
                            const ManagedRamRun *run, const MmPlace *places)
{
    uint64_t i;

    assert(run->nr && run->nr <= MANAGED_RAM_PLACES_MAX);
    put_header(out, MANAGED_RAM_PLACES,
               ONE_RUN_LEN + run->nr * PLACE_LEN);
    put_run_head(out, block, run);
    for (i = 0; i < run->nr; i++) {
        put_be64(out, places[i].place);
        put_be16(out, places[i].version);
        put_be32(out, places[i].checksum);
    }
}

/* A bit per block */
static uint32_t wake_len(const ManagedRamRun *run)
{
    return DIV_ROUND_UP(run->nr, 8 * MM_RING_WAKE_BLOCK);
}

void managed_ram_put_wake(GByteArray *out, uint32_t block,
                          const ManagedRamRun *run, const uint8_t *blocks)
{
    assert(run->nr && run->nr <= MANAGED_RAM_WAKE_MAX);
    put_flagged(out, MANAGED_RAM_WAKE, FLAG_SKIPPABLE,
                ONE_RUN_LEN + wake_len(run));
    put_run_head(out, block, run);
    g_byte_array_append(out, blocks, wake_len(run));
}

/* ---- in ---- */

bool managed_ram_get_header(const uint8_t *buf, ManagedRamHeader *header,
                            Error **errp)
{
    header->type = lduw_be_p(buf);
    header->skippable = lduw_be_p(buf + 2) & FLAG_SKIPPABLE;
    header->len = ldl_be_p(buf + 4);
    if (header->len > MANAGED_RAM_PAYLOAD_MAX) {
        error_setg(errp, "record %u has %u bytes, more than any may have",
                   header->type, header->len);
        return false;
    }
    if (header->type >= MANAGED_RAM__MAX && !header->skippable) {
        error_setg(errp, "record %u is not known here: the source is newer",
                   header->type);
        return false;
    }
    return true;
}

static bool check_hello(const uint8_t *buf, uint32_t len, Error **errp)
{
    if (len < HELLO_FIXED_LEN) {
        error_setg(errp, "a HELLO of %u bytes is too short", len);
        return false;
    }
    if (ldl_be_p(buf) != MANAGED_RAM_VERSION) {
        error_setg(errp, "version %u of the format is not known here, only %u",
                   ldl_be_p(buf), MANAGED_RAM_VERSION);
        return false;
    }
    if (ldl_be_p(buf + 4) != MANAGED_RAM_PAGE_SIZE) {
        error_setg(errp, "pages of %u bytes, not %u", ldl_be_p(buf + 4),
                   MANAGED_RAM_PAGE_SIZE);
        return false;
    }
    if (ldl_be_p(buf + 12) > 1) {
        error_setg(errp, "%u files, at most one is possible",
                   ldl_be_p(buf + 12));
        return false;
    }
    if (ldl_be_p(buf + 8) > MANAGED_RAM_BLOCKS_MAX) {
        error_setg(errp, "%u blocks, at most %u are possible",
                   ldl_be_p(buf + 8), MANAGED_RAM_BLOCKS_MAX);
        return false;
    }
    return true;
}

static bool name_is_new(const ManagedRamBlock *blocks, unsigned nr)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (!strcmp(blocks[i].name, blocks[nr].name)) {
            return false;
        }
    }
    return true;
}

/* Returns where it ends. */
static const uint8_t *get_file(const uint8_t *buf, MmSharedFile *file)
{
    file->present = 1;
    file->epoch = ldq_be_p(buf);
    buf += 8;
    memcpy(file->storage, buf, MM_UUID_LEN);
    memcpy(file->id, buf + MM_UUID_LEN, MM_UUID_LEN);
    memcpy(file->key, buf + 2 * MM_UUID_LEN, MM_COOKIE_LEN);
    buf += 2 * MM_UUID_LEN + MM_COOKIE_LEN;
    memcpy(file->file, buf, MM_FILE_LEN);
    return buf + MM_FILE_LEN;
}

int managed_ram_get_hello(const uint8_t *buf, uint32_t len,
                          ManagedRamBlock *blocks, MmSharedFile *file,
                          Error **errp)
{
    const uint8_t *end = buf + len;
    bool has_file;
    unsigned i, nr;

    if (!check_hello(buf, len, errp)) {
        return -1;
    }
    nr = ldl_be_p(buf + 8);
    has_file = ldl_be_p(buf + 12);
    buf += HELLO_FIXED_LEN;
    *file = (MmSharedFile) {};
    if (has_file && end - buf >= FILE_LEN) {
        buf = get_file(buf, file);
    }
    if (has_file && !memchr(file->file, '\0', MM_FILE_LEN)) {
        error_setg(errp, "the name of the source's file makes no sense");
        return -1;
    }
    if (has_file != file->present) {
        error_setg(errp, "a HELLO of %u bytes is too short", len);
        return -1;
    }
    for (i = 0; i < nr; i++) {
        uint8_t name_len;

        if (end - buf < BLOCK_FIXED_LEN ||
            end - buf - BLOCK_FIXED_LEN < buf[BLOCK_FIXED_LEN - 1]) {
            error_setg(errp, "a HELLO of %u bytes is too short", len);
            return -1;
        }
        blocks[i].size = ldq_be_p(buf);
        blocks[i].seed = ldq_be_p(buf + 8);
        name_len = buf[BLOCK_FIXED_LEN - 1];
        buf += BLOCK_FIXED_LEN;
        memcpy(blocks[i].name, buf, name_len);
        blocks[i].name[name_len] = '\0';
        buf += name_len;
        if (!name_len || strlen(blocks[i].name) != name_len ||
            !name_is_new(blocks, i)) {
            error_setg(errp, "the name of block %u makes no sense", i);
            return -1;
        }
    }
    if (buf != end) {
        error_setg(errp, "a HELLO of %u bytes is too long", len);
        return -1;
    }
    return nr;
}

static bool get_run(const uint8_t *buf, const ManagedRamBlock *block,
                    ManagedRamRun *run, Error **errp)
{
    uint64_t pages = block->size / MANAGED_RAM_PAGE_SIZE;

    run->first = ldq_be_p(buf);
    run->nr = ldq_be_p(buf + 8);
    if (!run->nr || run->first >= pages || run->nr > pages - run->first) {
        error_setg(errp, "pages 0x%" PRIx64 " +0x%" PRIx64 " are not in block "
                   "'%s'", run->first, run->nr, block->name);
        return false;
    }
    return true;
}

int managed_ram_get_runs(const uint8_t *buf, uint32_t len,
                         const ManagedRamBlock *blocks, unsigned nr_blocks,
                         uint32_t *block, ManagedRamRun *runs, Error **errp)
{
    uint32_t nr, i;

    if (len < RUNS_FIXED_LEN) {
        error_setg(errp, "a list of %u bytes is too short", len);
        return -1;
    }
    *block = ldl_be_p(buf);
    nr = ldl_be_p(buf + 4);
    if (*block >= nr_blocks || nr > MANAGED_RAM_RUNS_MAX ||
        len != RUNS_FIXED_LEN + nr * RUN_LEN) {
        error_setg(errp, "a list of %u runs of block %u in %u bytes makes no "
                   "sense", nr, *block, len);
        return -1;
    }
    for (i = 0; i < nr; i++) {
        if (!get_run(buf + RUNS_FIXED_LEN + i * RUN_LEN, &blocks[*block],
                     &runs[i], errp)) {
            return -1;
        }
    }
    return nr;
}

bool managed_ram_get_room(const uint8_t *buf, uint32_t len,
                          ManagedMemoryNeed *need, Error **errp)
{
    if (len != ROOM_LEN || !ldl_be_p(buf + 8)) {
        error_setg(errp, "a ROOM of %u bytes makes no sense", len);
        return false;
    }
    need->bytes = ldq_be_p(buf);
    need->shrinks = ldl_be_p(buf + 8);
    return true;
}

/* What records begin with that are about one run of at most @most pages */
static bool get_block_run(const uint8_t *buf, uint32_t len,
                          const ManagedRamBlock *blocks, unsigned nr_blocks,
                          uint64_t most, uint32_t *block, ManagedRamRun *run,
                          Error **errp)
{
    if (len < ONE_RUN_LEN) {
        error_setg(errp, "what is said of pages in %u bytes is too short", len);
        return false;
    }
    *block = ldl_be_p(buf);
    if (*block >= nr_blocks) {
        error_setg(errp, "pages of block %u, of %u", *block, nr_blocks);
        return false;
    }
    if (!get_run(buf + 4, &blocks[*block], run, errp)) {
        return false;
    }
    if (run->nr > most) {
        error_setg(errp, "0x%" PRIx64 " pages in one record, at most 0x%" PRIx64
                   " are possible", run->nr, most);
        return false;
    }
    return true;
}

const uint8_t *managed_ram_get_data(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp)
{
    if (!get_block_run(buf, len, blocks, nr_blocks, MANAGED_RAM_DATA_MAX, block,
                       run, errp)) {
        return NULL;
    }
    if (len != ONE_RUN_LEN + run->nr * MANAGED_RAM_PAGE_SIZE) {
        error_setg(errp, "content of 0x%" PRIx64 " pages in %u bytes makes no "
                   "sense", run->nr, len);
        return NULL;
    }
    return buf + ONE_RUN_LEN;
}

const uint8_t *managed_ram_get_fill(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp)
{
    if (!get_block_run(buf, len, blocks, nr_blocks, MANAGED_RAM_DATA_MAX, block,
                       run, errp)) {
        return NULL;
    }
    if (len != ONE_RUN_LEN + MANAGED_RAM_VALUE_LEN) {
        error_setg(errp, "a value in %u bytes makes no sense", len);
        return NULL;
    }
    return buf + ONE_RUN_LEN;
}

bool managed_ram_get_places(const uint8_t *buf, uint32_t len,
                            const ManagedRamBlock *blocks, unsigned nr_blocks,
                            uint32_t *block, ManagedRamRun *run,
                            MmPlace *places, Error **errp)
{
    uint64_t i;

    if (!get_block_run(buf, len, blocks, nr_blocks, MANAGED_RAM_PLACES_MAX,
                       block, run, errp)) {
        return false;
    }
    if (!blocks[*block].seed) {
        error_setg(errp, "places for block '%s', which has none",
                   blocks[*block].name);
        return false;
    }
    if (len != ONE_RUN_LEN + run->nr * PLACE_LEN) {
        error_setg(errp, "places of 0x%" PRIx64 " pages in %u bytes make no "
                   "sense", run->nr, len);
        return false;
    }
    for (i = 0; i < run->nr; i++) {
        const uint8_t *p = buf + ONE_RUN_LEN + i * PLACE_LEN;

        places[i] = (MmPlace) {
            .place = ldq_be_p(p),
            .version = lduw_be_p(p + 8),
            .checksum = ldl_be_p(p + 10),
            .known = 1,
        };
    }
    return true;
}

const uint8_t *managed_ram_get_wake(const uint8_t *buf, uint32_t len,
                                    const ManagedRamBlock *blocks,
                                    unsigned nr_blocks, uint32_t *block,
                                    ManagedRamRun *run, Error **errp)
{
    if (!get_block_run(buf, len, blocks, nr_blocks, MANAGED_RAM_WAKE_MAX, block,
                       run, errp)) {
        return NULL;
    }
    if (run->first % MM_RING_WAKE_BLOCK ||
        len != ONE_RUN_LEN + wake_len(run)) {
        error_setg(errp, "what 0x%" PRIx64 " pages are wanted from 0x%" PRIx64
                   " on makes no sense in %u bytes", run->nr, run->first, len);
        return NULL;
    }
    return buf + ONE_RUN_LEN;
}
