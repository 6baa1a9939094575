/*
 * Torture tests: page contents that prove where they come from
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Most stamped pages have a header {page, version, checksum, seed} and a
 * pseudo-random payload.  A check makes the page again and compares all of
 * it; the header serves to explain a difference.  The rest are the pages that
 * a memory manager stores in a way of their own, and those that only look
 * like them until the last word.
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "rng.h"
#include "stamps.h"

#define WORDS (STAMP_PAGE_SIZE / sizeof(uint64_t))

enum {
    WORD_PAGE,
    WORD_VERSION,
    WORD_SUM,
    WORD_SEED,
    WORD_PAYLOAD,
};

typedef enum StampKind {
    STAMP_ZERO,
    STAMP_SAME_32,              /* one 32-bit word, repeated */
    STAMP_SAME_64,              /* one 64-bit word, repeated */
    STAMP_ALMOST_ZERO,          /* zero but for one word */
    STAMP_ALMOST_SAME,          /* STAMP_SAME_32 but for one byte */
    STAMP_FULL,
} StampKind;

static uint64_t stamp_key(Stamp s)
{
    return rng_mix(s.seed + rng_mix(s.page + rng_mix(s.version)));
}

/* One page in 16 is of each special kind, zero pages are twice as common. */
static StampKind stamp_kind(Stamp s)
{
    unsigned pick = stamp_key(s) >> 60;

    if (!s.version || pick == 15) {
        return STAMP_ZERO;
    }
    return MIN(pick, STAMP_FULL);
}

static uint64_t repeat_32(uint64_t word)
{
    return (word & UINT32_MAX) * UINT64_C(0x100000001);
}

static uint64_t payload_word(uint64_t key, unsigned i)
{
    uint64_t x = (key ^ i) * UINT64_C(0xd1342543de82ef95);

    return x ^ x >> 29;
}

static uint64_t page_sum(const uint64_t *words)
{
    uint64_t sum = words[WORD_PAGE] * 31 + words[WORD_VERSION];
    unsigned i;

    for (i = WORD_SEED; i < WORDS; i++) {
        sum = (sum << 7 | sum >> 57) ^ words[i];
    }
    return sum;
}

static void fill_repeated(uint64_t *words, uint64_t word)
{
    unsigned i;

    for (i = 0; i < WORDS; i++) {
        words[i] = word;
    }
}

static void fill_full(uint64_t *words, Stamp s, uint64_t key)
{
    /* every other page repeats itself, and can be compressed */
    unsigned period = key & 1024 ? WORDS : 48;
    unsigned i;

    words[WORD_PAGE] = s.page;
    words[WORD_VERSION] = s.version;
    words[WORD_SEED] = s.seed;
    for (i = WORD_PAYLOAD; i < WORDS; i++) {
        words[i] = payload_word(key, i % period);
    }
    words[WORD_SUM] = page_sum(words);
}

void stamp_fill(void *buf, Stamp stamp)
{
    uint64_t *words = buf;
    uint64_t key = stamp_key(stamp);

    switch (stamp_kind(stamp)) {
    case STAMP_ZERO:
        fill_repeated(words, 0);
        break;
    case STAMP_SAME_32:
        fill_repeated(words, repeat_32(key));
        break;
    case STAMP_SAME_64:
        fill_repeated(words, key);
        break;
    case STAMP_ALMOST_ZERO:
        fill_repeated(words, 0);
        words[key % WORDS] = key;
        break;
    case STAMP_ALMOST_SAME:
        fill_repeated(words, repeat_32(key));
        ((uint8_t *)buf)[key % STAMP_PAGE_SIZE] ^= 1 + (key >> 32) % 255;
        break;
    case STAMP_FULL:
        fill_full(words, stamp, key);
        break;
    }
}

bool stamp_matches(const void *buf, Stamp stamp)
{
    uint64_t want[WORDS];

    stamp_fill(want, stamp);
    return memcmp(buf, want, sizeof(want)) == 0;
}

bool stamp_matches_or_zero(const void *buf, Stamp stamp)
{
    const uint64_t *words = buf;
    uint64_t want[WORDS];
    unsigned i;

    stamp_fill(want, stamp);
    for (i = 0; i < WORDS; i++) {
        if (words[i] && words[i] != want[i]) {
            return false;
        }
    }
    return true;
}

bool stamp_is_zero(const void *buf)
{
    return buffer_is_zero(buf, STAMP_PAGE_SIZE);
}

static unsigned count_differences(const uint64_t *words, Stamp expected)
{
    uint64_t want[WORDS];
    unsigned i, n = 0;

    stamp_fill(want, expected);
    for (i = 0; i < WORDS; i++) {
        n += words[i] != want[i];
    }
    return n;
}

char *stamp_describe(const void *buf, Stamp expected)
{
    const uint64_t *words = buf;
    Stamp old = expected;
    unsigned n = count_differences(words, expected);

    if (stamp_is_zero(buf)) {
        return g_strdup("all zero");
    }
    for (old.version = expected.version; old.version > 0; old.version--) {
        if (expected.version - old.version > 1000) {
            break;
        }
        if (stamp_matches(buf, old)) {
            return g_strdup_printf("its old version %u", old.version);
        }
    }
    if (words[WORD_SUM] == page_sum(words)) {
        return g_strdup_printf("page 0x%" PRIx64 " version %" PRIu64
                               " of seed 0x%" PRIx64, words[WORD_PAGE],
                               words[WORD_VERSION], words[WORD_SEED]);
    }
    return g_strdup_printf("torn, %u of %zu words differ, first word 0x%"
                           PRIx64, n, WORDS, words[0]);
}
