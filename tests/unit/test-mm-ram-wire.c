/*
 * Unit tests: records of the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qapi/error.h"
#include "migration/managed-ram-wire.h"

static ManagedRamBlock blocks[MANAGED_RAM_BLOCKS_MAX];
static ManagedRamRun runs[MANAGED_RAM_RUNS_MAX];
static MmSharedFile file;

static const ManagedRamBlock two[] = {
    { "pc.ram", 0x8000000, 0x1234567890abcdef }, { "hotplugged", 0x200000, 7 },
};

static const MmSharedFile no_file;
static const MmSharedFile some_file = {
    .present = 1, .storage = { 1, 2 }, .id = { 3, 4 }, .key = { 5, 6 },
    .file = "name", .epoch = 0x123456789abcdef0,
};

static const MmPlace three_places[] = {
    { .place = 0x3ffffffffff, .checksum = 0xdeadbeef, .version = 0x3ff },
    { .place = 0, .checksum = 0, .version = 0 },
    { .place = 0x1020304, .checksum = 0x50607080, .version = 0x102 },
};

static const ManagedRamRun some[] = {
    { 0, 1 }, { 2, 0x7ffe }, { 0x7fff, 1 },
};

static uint8_t *payload(GByteArray *record)
{
    return record->data + MANAGED_RAM_HEADER_LEN;
}

static uint32_t payload_len(const GByteArray *record)
{
    return record->len - MANAGED_RAM_HEADER_LEN;
}

static void assert_header(const GByteArray *record, ManagedRamType type)
{
    ManagedRamHeader header;

    g_assert_true(managed_ram_get_header(record->data, &header, &error_abort));
    g_assert_cmpuint(header.type, ==, type);
    g_assert_cmpuint(header.len, ==, payload_len(record));
}

static GByteArray *hello(void)
{
    GByteArray *out = g_byte_array_new();

    managed_ram_put_hello(out, two, ARRAY_SIZE(two), &some_file);
    return out;
}

static GByteArray *zeros(void)
{
    GByteArray *out = g_byte_array_new();

    managed_ram_put_runs(out, MANAGED_RAM_ZERO, 0, some, ARRAY_SIZE(some));
    return out;
}

/* Of @len bytes in a buffer of just that size: sanitizers see what is beyond */
static int get_hello(const uint8_t *buf, uint32_t len)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    int nr = managed_ram_get_hello(copy, len, blocks, &file, &err);

    g_assert_true((nr < 0) == !!err);
    error_free(err);
    return nr;
}

static int get_runs(const uint8_t *buf, uint32_t len, uint32_t *block)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    int nr = managed_ram_get_runs(copy, len, two, ARRAY_SIZE(two), block, runs,
                                  &err);

    g_assert_true((nr < 0) == !!err);
    error_free(err);
    return nr;
}

/* Two pages of block 1 */
static GByteArray *data(void)
{
    const ManagedRamRun run = { 0x1fe, 2 };
    uint8_t content[2 * MANAGED_RAM_PAGE_SIZE];
    GByteArray *out = g_byte_array_new();

    memset(content, 1, MANAGED_RAM_PAGE_SIZE);
    memset(content + MANAGED_RAM_PAGE_SIZE, 2, MANAGED_RAM_PAGE_SIZE);
    managed_ram_put_data(out, 1, &run, content);
    return out;
}

/* Content is accepted only if it is all that there is. */
static bool get_data(const uint8_t *buf, uint32_t len, uint32_t *block,
                     ManagedRamRun *run)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    const uint8_t *content = managed_ram_get_data(copy, len, two,
                                                  ARRAY_SIZE(two), block, run,
                                                  &err);

    g_assert_true(!content == !!err);
    error_free(err);
    g_assert_true(!content ||
                  content + run->nr * MANAGED_RAM_PAGE_SIZE == copy + len);
    return content;
}

static void test_data(void)
{
    g_autoptr(GByteArray) d = data();
    ManagedRamRun run;
    uint32_t block, len, bit;

    assert_header(d, MANAGED_RAM_DATA);
    g_assert_true(get_data(payload(d), payload_len(d), &block, &run));
    g_assert_cmpuint(block, ==, 1);
    g_assert_cmphex(run.first, ==, 0x1fe);
    g_assert_cmpuint(run.nr, ==, 2);
    g_assert_cmpuint(payload(d)[20], ==, 1);
    g_assert_cmpuint(d->data[d->len - 1], ==, 2);
    for (len = 0; len < payload_len(d); len += len < 64 ? 1 : 37) {
        g_assert_false(get_data(payload(d), len, &block, &run));
    }
    for (bit = 0; bit < 8 * 20; bit++) {
        payload(d)[bit / 8] ^= 1 << bit % 8;
        if (get_data(payload(d), payload_len(d), &block, &run)) {
            g_assert_cmpuint(block, <, 2);
            g_assert_cmpuint(run.nr, ==, 2);
            g_assert_cmpuint(run.first, <=, two[block].size / 4096 - 2);
        }
        payload(d)[bit / 8] ^= 1 << bit % 8;
    }
    g_byte_array_append(d, (uint8_t *)"", 1);
    g_assert_false(get_data(payload(d), payload_len(d), &block, &run));
}

static bool get_wake(const uint8_t *buf, uint32_t len, uint32_t *block,
                     ManagedRamRun *run)
{
    /* exactly as long, so that nothing behind it is read */
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    const uint8_t *bits = managed_ram_get_wake(copy, len, two,
                                               ARRAY_SIZE(two), block, run,
                                               NULL);

    g_assert(!bits || bits + DIV_ROUND_UP(run->nr, 256) == copy + len);
    return bits;
}

static void test_wake(void)
{
    const ManagedRamRun run = { 0x40, 0x1c0 };
    const uint8_t want[] = {
        0, 9, 0, 1, 0, 0, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x40,
        0, 0, 0, 0, 0, 0, 1, 0xc0, 0x81, 0x3f,
    };
    g_autoptr(GByteArray) w = g_byte_array_new();
    ManagedRamRun found;
    uint32_t block, len, bit;

    managed_ram_put_wake(w, 1, &run, want + sizeof(want) - 2);
    g_assert_cmpmem(w->data, w->len, want, sizeof(want));
    g_assert_true(get_wake(payload(w), payload_len(w), &block, &found));
    g_assert_cmpuint(block, ==, 1);
    g_assert_cmpmem(&found, sizeof(found), &run, sizeof(run));
    for (len = 0; len < payload_len(w); len++) {
        g_assert_false(get_wake(payload(w), len, &block, &found));
    }
    for (bit = 0; bit < 8 * 20; bit++) {
        payload(w)[bit / 8] ^= 1 << bit % 8;
        if (get_wake(payload(w), payload_len(w), &block, &found)) {
            g_assert_cmpuint(block, <, 2);
            g_assert_cmpuint(found.first % MM_RING_WAKE_BLOCK, ==, 0);
            g_assert_cmpuint(found.first, <=,
                             two[block].size / 4096 - found.nr);
        }
        payload(w)[bit / 8] ^= 1 << bit % 8;
    }
}

static void test_room(void)
{
    const ManagedMemoryNeed need = { .bytes = 0x123456789abcULL, .shrinks = 3 };
    g_autoptr(GByteArray) f = g_byte_array_new();
    ManagedRamHeader header;
    ManagedMemoryNeed found;
    uint32_t len;

    managed_ram_put_room(f, &need);
    g_assert_true(managed_ram_get_header(f->data, &header, &error_abort));
    g_assert_cmpuint(header.type, ==, MANAGED_RAM_ROOM);
    g_assert_true(header.skippable);
    g_assert_true(managed_ram_get_room(payload(f), payload_len(f), &found,
                                       &error_abort));
    g_assert_cmphex(found.bytes, ==, need.bytes);
    g_assert_cmpuint(found.shrinks, ==, need.shrinks);
    for (len = 0; len < payload_len(f) + 2; len++) {
        g_assert(managed_ram_get_room(payload(f), len, &found, NULL) ==
                 (len == payload_len(f)));
    }
    memset(payload(f) + 8, 0, 4);
    g_assert_false(managed_ram_get_room(payload(f), payload_len(f), &found,
                                        NULL));
}

static bool get_fill(const uint8_t *buf, uint32_t len, uint32_t *block,
                     ManagedRamRun *run)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    const uint8_t *value = managed_ram_get_fill(copy, len, two,
                                                ARRAY_SIZE(two), block, run,
                                                &err);

    g_assert_true(!value == !!err);
    error_free(err);
    g_assert_true(!value || value + MANAGED_RAM_VALUE_LEN == copy + len);
    return value;
}

/* One value of 32 pages, byte by byte, and all that it can be damaged to */
static void test_fill(void)
{
    static const uint8_t want[] = {
        0, 7, 0, 0, 0, 0, 0, 28,                         /* FILL, 28 bytes */
        0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2,              /* block 1, 0x102 */
        0, 0, 0, 0, 0, 0, 0, 32, 1, 2, 3, 4, 5, 6, 7, 8, /* +32, the value */
    };
    const ManagedRamRun run = { 0x102, MANAGED_RAM_DATA_MAX };
    g_autoptr(GByteArray) f = g_byte_array_new();
    ManagedRamRun found;
    uint32_t block, len, bit;

    managed_ram_put_fill(f, 1, &run, want + sizeof(want) - 8);
    g_assert_cmpmem(f->data, f->len, want, sizeof(want));
    assert_header(f, MANAGED_RAM_FILL);
    g_assert_true(get_fill(payload(f), payload_len(f), &block, &found));
    g_assert_cmpuint(block, ==, 1);
    g_assert_cmpmem(&found, sizeof(found), &run, sizeof(run));
    for (len = 0; len < payload_len(f); len++) {
        g_assert_false(get_fill(payload(f), len, &block, &found));
    }
    for (bit = 0; bit < 8 * 20; bit++) {
        payload(f)[bit / 8] ^= 1 << bit % 8;
        if (get_fill(payload(f), payload_len(f), &block, &found)) {
            g_assert_cmpuint(block, <, 2);
            g_assert_cmpuint(found.nr, <=, MANAGED_RAM_DATA_MAX);
            g_assert_cmpuint(found.first, <=,
                             two[block].size / 4096 - found.nr);
        }
        payload(f)[bit / 8] ^= 1 << bit % 8;
    }
    g_byte_array_append(f, (uint8_t *)"", 1);
    g_assert_false(get_fill(payload(f), payload_len(f), &block, &found));
}

/* Three pages of block 1 */
static GByteArray *places(void)
{
    const ManagedRamRun run = { 0x1fd, ARRAY_SIZE(three_places) };
    GByteArray *out = g_byte_array_new();

    managed_ram_put_places(out, 1, &run, three_places);
    return out;
}

static bool get_places(const uint8_t *buf, uint32_t len, uint32_t *block,
                       ManagedRamRun *run, MmPlace *found)
{
    g_autofree uint8_t *copy = g_memdup2(buf, len);
    Error *err = NULL;
    bool ok = managed_ram_get_places(copy, len, two, ARRAY_SIZE(two), block,
                                     run, found, &err);

    g_assert_true(ok == !err);
    error_free(err);
    return ok;
}

static void test_places(void)
{
    g_autofree MmPlace *found = g_new0(MmPlace, MANAGED_RAM_PLACES_MAX);
    g_autoptr(GByteArray) p = places();
    uint32_t block, len, bit;
    ManagedRamRun run;
    unsigned i;

    assert_header(p, MANAGED_RAM_PLACES);
    g_assert_true(get_places(payload(p), payload_len(p), &block, &run, found));
    g_assert_cmpuint(block, ==, 1);
    g_assert_cmphex(run.first, ==, 0x1fd);
    g_assert_cmpuint(run.nr, ==, ARRAY_SIZE(three_places));
    for (i = 0; i < run.nr; i++) {
        g_assert_cmphex(found[i].place, ==, three_places[i].place);
        g_assert_cmphex(found[i].checksum, ==, three_places[i].checksum);
        g_assert_cmphex(found[i].version, ==, three_places[i].version);
        g_assert_cmpuint(found[i].known, ==, 1);
    }
    for (len = 0; len < payload_len(p); len++) {
        g_assert_false(get_places(payload(p), len, &block, &run, found));
    }
    for (bit = 0; bit < 8 * 20; bit++) {
        payload(p)[bit / 8] ^= 1 << bit % 8;
        if (get_places(payload(p), payload_len(p), &block, &run, found)) {
            g_assert_cmpuint(block, <, 2);
            g_assert_cmpuint(run.nr, ==, ARRAY_SIZE(three_places));
            g_assert_cmpuint(run.first, <=, two[block].size / 4096 - run.nr);
        }
        payload(p)[bit / 8] ^= 1 << bit % 8;
    }
    g_byte_array_append(p, (uint8_t *)"", 1);
    g_assert_false(get_places(payload(p), payload_len(p), &block, &run,
                              found));
}

/* A name without an end, and a number of files that cannot be */
static void test_file(void)
{
    MmSharedFile endless = some_file;
    g_autoptr(GByteArray) none = g_byte_array_new();
    g_autoptr(GByteArray) h = g_byte_array_new();

    managed_ram_put_hello(none, two, ARRAY_SIZE(two), &no_file);
    g_assert_cmpint(get_hello(payload(none), payload_len(none)), ==, 2);
    g_assert_cmpuint(file.present, ==, 0);
    stl_be_p(payload(none) + 12, 2);
    g_assert_cmpint(get_hello(payload(none), payload_len(none)), ==, -1);
    stl_be_p(payload(none) + 12, 1);
    g_assert_cmpint(get_hello(payload(none), payload_len(none)), ==, -1);
    memset(endless.file, 'x', sizeof(endless.file));
    managed_ram_put_hello(h, two, ARRAY_SIZE(two), &endless);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, -1);
}

static void test_there_and_back(void)
{
    g_autoptr(GByteArray) end = g_byte_array_new();
    g_autoptr(GByteArray) sync = g_byte_array_new();
    g_autoptr(GByteArray) h = hello();
    g_autoptr(GByteArray) z = zeros();
    uint32_t block;
    int i;

    managed_ram_put_end(end);
    assert_header(end, MANAGED_RAM_END);
    g_assert_cmpuint(end->len, ==, MANAGED_RAM_HEADER_LEN);
    managed_ram_put_sync(sync);
    assert_header(sync, MANAGED_RAM_SYNC);
    g_assert_cmpuint(sync->len, ==, MANAGED_RAM_HEADER_LEN);
    assert_header(h, MANAGED_RAM_HELLO);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, 2);
    for (i = 0; i < 2; i++) {
        g_assert_cmpstr(blocks[i].name, ==, two[i].name);
        g_assert_cmphex(blocks[i].size, ==, two[i].size);
        g_assert_cmphex(blocks[i].seed, ==, two[i].seed);
    }
    g_assert_cmpmem(&file, sizeof(file), &some_file, sizeof(some_file));
    assert_header(z, MANAGED_RAM_ZERO);
    g_assert_cmpint(get_runs(payload(z), payload_len(z), &block), ==, 3);
    g_assert_cmpuint(block, ==, 0);
    g_assert_cmpmem(runs, sizeof(some), some, sizeof(some));
}

/* The format as it is documented, byte by byte */
static void test_bytes(void)
{
    static const uint8_t want[] = {
        0, 2, 0, 0, 0, 0, 0, 24,                        /* NEVER, 24 bytes */
        0, 0, 0, 1, 0, 0, 0, 1,                         /* block 1, one run */
        0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, /* 0x102 +3 */
    };
    const ManagedRamRun run = { 0x102, 3 };
    g_autoptr(GByteArray) out = g_byte_array_new();

    managed_ram_put_runs(out, MANAGED_RAM_NEVER, 1, &run, 1);
    g_assert_cmpmem(out->data, out->len, want, sizeof(want));
}

static void test_largest(void)
{
    g_autofree ManagedRamRun *all = g_new(ManagedRamRun, MANAGED_RAM_RUNS_MAX);
    g_autofree ManagedRamBlock *many = g_new0(ManagedRamBlock,
                                              MANAGED_RAM_BLOCKS_MAX);
    g_autoptr(GByteArray) z = g_byte_array_new();
    g_autoptr(GByteArray) h = g_byte_array_new();
    uint32_t block;
    unsigned i;

    for (i = 0; i < MANAGED_RAM_RUNS_MAX; i++) {
        all[i] = (ManagedRamRun) { .first = 2 * i, .nr = 1 };
    }
    managed_ram_put_runs(z, MANAGED_RAM_ZERO, 0, all, MANAGED_RAM_RUNS_MAX);
    assert_header(z, MANAGED_RAM_ZERO);
    g_assert_cmpint(get_runs(payload(z), payload_len(z), &block), ==,
                    MANAGED_RAM_RUNS_MAX);
    for (i = 0; i < MANAGED_RAM_BLOCKS_MAX; i++) {
        memset(many[i].name, 'x', MANAGED_RAM_NAME_MAX);
        many[i].name[0] = 1 + i;
    }
    managed_ram_put_hello(h, many, MANAGED_RAM_BLOCKS_MAX, &some_file);
    assert_header(h, MANAGED_RAM_HELLO);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==,
                    MANAGED_RAM_BLOCKS_MAX);
}

static void test_truncated(void)
{
    g_autoptr(GByteArray) h = hello();
    g_autoptr(GByteArray) z = zeros();
    uint32_t len, block;

    for (len = 0; len < payload_len(h); len++) {
        g_assert_cmpint(get_hello(payload(h), len), ==, -1);
    }
    for (len = 0; len < payload_len(z); len++) {
        g_assert_cmpint(get_runs(payload(z), len, &block), ==, -1);
    }
    g_byte_array_append(h, (uint8_t *)"", 1);
    g_byte_array_append(z, (uint8_t *)"", 1);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, -1);
    g_assert_cmpint(get_runs(payload(z), payload_len(z), &block), ==, -1);
}

/* Whatever a bit more or less makes of it, it stays within its bounds. */
static void test_flipped(void)
{
    g_autoptr(GByteArray) h = hello();
    g_autoptr(GByteArray) z = zeros();
    uint32_t bit, block;
    int nr, i;

    for (bit = 0; bit < 8 * payload_len(h); bit++) {
        payload(h)[bit / 8] ^= 1 << bit % 8;
        nr = get_hello(payload(h), payload_len(h));
        g_assert_cmpint(nr, <=, 2);
        for (i = 0; i < nr; i++) {
            g_assert_cmpint(strlen(blocks[i].name), >, 0);
        }
        payload(h)[bit / 8] ^= 1 << bit % 8;
    }
    for (bit = 0; bit < 8 * payload_len(z); bit++) {
        payload(z)[bit / 8] ^= 1 << bit % 8;
        nr = get_runs(payload(z), payload_len(z), &block);
        for (i = 0; i < nr; i++) {
            g_assert_cmpuint(block, <, 2);
            g_assert_cmpuint(runs[i].nr, >, 0);
            g_assert_cmpuint(runs[i].first, <, two[block].size / 4096);
            g_assert_cmpuint(runs[i].nr, <=,
                             two[block].size / 4096 - runs[i].first);
        }
        payload(z)[bit / 8] ^= 1 << bit % 8;
    }
}

static void test_nonsense(void)
{
    g_autoptr(GByteArray) h = hello();
    g_autoptr(GByteArray) same = g_byte_array_new();
    const ManagedRamBlock twice[] = { two[0], two[0] };
    const ManagedRamRun outside[] = { { 0x8000, 1 }, { 0x7fff, 2 }, { 0, 0 },
                                      { 1, UINT64_MAX }, { UINT64_MAX, 1 } };
    uint32_t block;
    unsigned i;

    /* a version that does not exist yet; other pages; a name with a hole */
    stl_be_p(payload(h), MANAGED_RAM_VERSION + 1);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, -1);
    stl_be_p(payload(h), MANAGED_RAM_VERSION);
    stl_be_p(payload(h) + 4, 65536);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, -1);
    stl_be_p(payload(h) + 4, MANAGED_RAM_PAGE_SIZE);
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, 2);
    payload(h)[16 + 8 + 3 * 16 + MM_FILE_LEN + 17 + 2] = '\0';
    g_assert_cmpint(get_hello(payload(h), payload_len(h)), ==, -1);
    managed_ram_put_hello(same, twice, 2, &no_file);
    g_assert_cmpint(get_hello(payload(same), payload_len(same)), ==, -1);
    for (i = 0; i < ARRAY_SIZE(outside); i++) {
        g_autoptr(GByteArray) z = g_byte_array_new();

        managed_ram_put_runs(z, MANAGED_RAM_ZERO, 0, &outside[i], 1);
        g_assert_cmpint(get_runs(payload(z), payload_len(z), &block), ==, -1);
    }
}

static bool header_is_good(uint16_t type, uint16_t flags, uint32_t len)
{
    ManagedRamHeader header;
    uint8_t buf[MANAGED_RAM_HEADER_LEN];
    Error *err = NULL;
    bool good;

    stw_be_p(buf, type);
    stw_be_p(buf + 2, flags);
    stl_be_p(buf + 4, len);
    good = managed_ram_get_header(buf, &header, &err);
    g_assert_true(good == !err);
    error_free(err);
    return good;
}

static void test_header(void)
{
    g_assert_true(header_is_good(MANAGED_RAM_ZERO, 0, MANAGED_RAM_PAYLOAD_MAX));
    g_assert_false(header_is_good(MANAGED_RAM_ZERO, 0,
                                  MANAGED_RAM_PAYLOAD_MAX + 1));
    g_assert_false(header_is_good(MANAGED_RAM_ZERO, 0, UINT32_MAX));
    /* of a newer source: only what may be left out */
    g_assert_false(header_is_good(MANAGED_RAM__MAX, 0, 0));
    g_assert_true(header_is_good(MANAGED_RAM__MAX, 1, 0));
    g_assert_false(header_is_good(UINT16_MAX, 0xfffe, 0));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/ram-wire/there-and-back", test_there_and_back);
    g_test_add_func("/mm/ram-wire/bytes", test_bytes);
    g_test_add_func("/mm/ram-wire/largest", test_largest);
    g_test_add_func("/mm/ram-wire/data", test_data);
    g_test_add_func("/mm/ram-wire/fill", test_fill);
    g_test_add_func("/mm/ram-wire/room", test_room);
    g_test_add_func("/mm/ram-wire/wake", test_wake);
    g_test_add_func("/mm/ram-wire/places", test_places);
    g_test_add_func("/mm/ram-wire/file", test_file);
    g_test_add_func("/mm/ram-wire/truncated", test_truncated);
    g_test_add_func("/mm/ram-wire/flipped", test_flipped);
    g_test_add_func("/mm/ram-wire/nonsense", test_nonsense);
    g_test_add_func("/mm/ram-wire/header", test_header);
    return g_test_run();
}
