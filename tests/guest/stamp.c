/*
 * Stamped pages: page contents that prove where they come from
 *
 * A checker that only looks at a page number misses stale and torn pages.
 * Here the tag (page, version) determines every byte: three header words
 * (page, version, checksum), then a pseudo-random payload, which in every other
 * page repeats itself, so that these compress and the others do not.  A check
 * recomputes the payload, so no wrong bit goes unseen; the header exists to
 * explain a mismatch, and its checksum covers what is found, not what was
 * expected.
 *
 * Some tags stand for pages without a header, all zero or one repeated word:
 * a memory manager keeps those without storage, which is code of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "stamp.h"

enum {
    WORD_ID,
    WORD_VERSION,
    WORD_SUM,
    WORD_PAYLOAD,
    WORD_COUNT = STAMP_PAGE_BYTES / sizeof(uint64_t),
};

typedef enum StampKind {
    STAMP_FULL,
    STAMP_ZERO,
    STAMP_SAME,
} StampKind;

/* Of a tag's key: the payload repeats itself after so many words. */
#define KEY_REPEATS (UINT64_C(1) << 40)
#define PERIOD      64

static uint64_t stamp_seed;
static unsigned stamp_special;

/* The finalizer of splitmix64: every input bit changes half of the output */
static uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t tag_key(PageTag tag)
{
    uint64_t packed = (uint64_t)tag.version << 32 | tag.id;

    return mix64(stamp_seed + mix64(packed));
}

static StampKind tag_kind(PageTag tag)
{
    unsigned pick;

    if (!tag.version) {
        return STAMP_ZERO;
    }
    if (!stamp_special) {
        return STAMP_FULL;
    }
    pick = tag_key(tag) % stamp_special;
    return pick == 0 ? STAMP_ZERO : pick == 1 ? STAMP_SAME : STAMP_FULL;
}

/*
 * One step of the payload.  The generator is a linear congruential one, whose
 * low bits are poor; folding the high half down mends that at little cost,
 * which counts because an emulated CPU runs this for every word.
 */
static uint64_t payload_next(uint64_t *state, uint64_t key, int i)
{
    if ((key & KEY_REPEATS) && (i - WORD_PAYLOAD) % PERIOD == 0) {
        *state = key;
    }
    *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *state ^ *state >> 32;
}

static uint64_t sum_add(uint64_t sum, uint64_t word)
{
    return (sum ^ word) * UINT64_C(0x100000001b3) + (sum >> 47);
}

static uint64_t sum_page(const uint64_t *words)
{
    uint64_t sum = stamp_seed;

    sum = sum_add(sum, words[WORD_ID]);
    sum = sum_add(sum, words[WORD_VERSION]);
    for (int i = WORD_PAYLOAD; i < WORD_COUNT; i++) {
        sum = sum_add(sum, words[i]);
    }
    return sum;
}

static bool is_filled_with(const uint64_t *words, uint64_t word)
{
    for (int i = 0; i < WORD_COUNT; i++) {
        if (words[i] != word) {
            return false;
        }
    }
    return true;
}

void stamp_setup(uint64_t seed, unsigned special)
{
    stamp_seed = mix64(seed + 1);
    stamp_special = special;
}

void stamp_write(void *page, PageTag tag)
{
    uint64_t *words = page;
    uint64_t key = tag_key(tag), state = key;
    StampKind kind = tag_kind(tag);

    if (kind != STAMP_FULL) {
        for (int i = 0; i < WORD_COUNT; i++) {
            words[i] = kind == STAMP_SAME ? state : 0;
        }
        return;
    }
    words[WORD_ID] = tag.id;
    words[WORD_VERSION] = tag.version;
    for (int i = WORD_PAYLOAD; i < WORD_COUNT; i++) {
        words[i] = payload_next(&state, key, i);
    }
    words[WORD_SUM] = sum_page(words);
}

bool stamp_check(const void *page, PageTag want)
{
    const uint64_t *words = page;
    uint64_t key = tag_key(want), state = key;
    uint64_t differences = 0;

    switch (tag_kind(want)) {
    case STAMP_ZERO:
        return is_filled_with(words, 0);
    case STAMP_SAME:
        return is_filled_with(words, state);
    case STAMP_FULL:
        break;
    }
    for (int i = WORD_PAYLOAD; i < WORD_COUNT; i++) {
        differences |= words[i] ^ payload_next(&state, key, i);
    }
    return !differences && words[WORD_ID] == want.id &&
           words[WORD_VERSION] == want.version &&
           words[WORD_SUM] == sum_page(words);
}

void stamp_describe_page(const void *page, char *text)
{
    const uint64_t *words = page;

    if (is_filled_with(words, 0)) {
        snprintf(text, STAMP_TEXT_BYTES, "zero");
    } else if (is_filled_with(words, words[0])) {
        snprintf(text, STAMP_TEXT_BYTES, "same:%016" PRIx64, words[0]);
    } else {
        snprintf(text, STAMP_TEXT_BYTES,
                 "id:%" PRIu64 ",version:%" PRIu64 ",sum:%s",
                 words[WORD_ID], words[WORD_VERSION],
                 words[WORD_SUM] == sum_page(words) ? "good" : "bad");
    }
}

void stamp_describe_tag(PageTag tag, char *text)
{
    static const char *const kinds[] = {
        [STAMP_FULL] = "sum:good",
        [STAMP_ZERO] = "zero",
        [STAMP_SAME] = "same",
    };

    snprintf(text, STAMP_TEXT_BYTES, "id:%" PRIu32 ",version:%" PRIu32 ",%s",
             tag.id, tag.version, kinds[tag_kind(tag)]);
}
