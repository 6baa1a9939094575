/*
 * Unit tests: tiers whose content somebody else can get at
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What encryption and block devices have beyond the contract that all tiers
 * keep (test-mm-tier.c).
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "tier-inject.h"
#include "tier-rig.h"

#define MIB (1024 * 1024)

static void read_raw(TierRig *rig, uint64_t place, uint8_t *buf)
{
    g_assert_cmpint(pread(rig->fd, buf, MM_PAGE_SIZE,
                          (place + 1) * MM_PAGE_SIZE), ==, MM_PAGE_SIZE);
}

/* Have two pages any block of the cipher in common? */
static bool alike(const uint8_t *a, const uint8_t *b)
{
    int i;

    for (i = 0; i < MM_PAGE_SIZE; i += 16) {
        if (!memcmp(a + i, b + i, 16)) {
            return true;
        }
    }
    return false;
}

/* T8: nothing on the medium looks like what was stored, or like another. */
static void test_medium_is_encrypted(void)
{
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_ENCRYPTED, 0, true);
    uint8_t *raw = rig->slot[1].io.buf, *first = raw + MM_PAGE_SIZE;
    uint64_t place;
    unsigned i;

    g_assert_cmpuint(rig_alloc(rig, 4, &place), ==, 4);
    for (i = 0; i < 4; i++) {
        rig_fill(rig->arena + i * MM_PAGE_SIZE, 7);
    }
    g_assert_cmpint(rig_transfer(rig, true, place, 4), ==, 0);
    read_raw(rig, place, first);
    for (i = 0; i < 4; i++) {
        g_assert_true(rig_is(rig->arena + i * MM_PAGE_SIZE, 7));
        read_raw(rig, place + i, raw);
        g_assert_false(alike(raw, rig->arena));
        g_assert_true(i == 0 || !alike(raw, first));
    }
    memset(rig->arena, 0, 4 * MM_PAGE_SIZE);
    g_assert_cmpint(rig_transfer(rig, false, place + 1, 2), ==, 0);
    g_assert_true(rig_is(rig->arena, 7));
    g_assert_true(rig_is(rig->arena + MM_PAGE_SIZE, 7));
    rig_free(rig);
}

/* Nor can it be read with another key, or as another tier's. */
static void test_other_key(void)
{
    static uint8_t key[MM_KEY_LEN];
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_ENCRYPTED, 0, true), *next;
    uint64_t place;
    int i;

    g_assert_cmpuint(rig_alloc(rig, 1, &place), ==, 1);
    rig_fill(rig->arena, 7);
    g_assert_cmpint(rig_transfer(rig, true, place, 1), ==, 0);
    memcpy(key, rig_key, sizeof(key));
    for (i = 0; i < 3; i++) {
        next = rig_reopen(rig, RIG_ENCRYPTED);
        key[i == 0 ? 0 : MM_KEY_LEN - 1] ^= 1;
        next->tier->key = i < 2 ? key : rig_key;
        next->tier->number = i == 2;
        g_assert_cmpint(rig_transfer(next, false, place, 1), ==, 0);
        g_assert_false(rig_is(next->arena, 7));
        rig_free(next);
    }
    rig_free(rig);
}

/* T8: whoever has failed to store it somewhere still has the content. */
static void test_failed_store_stays_plain(void)
{
    static const InjectKind kinds[] = { INJECT_FAIL, INJECT_SHORT };
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_INJECT, 0, true);
    uint64_t place;
    int i;

    rig->tier->key = rig_key;
    g_assert_cmpuint(rig_alloc(rig, 2, &place), ==, 2);
    rig_fill(rig->arena, 7);
    rig_fill(rig->arena + MM_PAGE_SIZE, 8);
    for (i = 0; i < ARRAY_SIZE(kinds); i++) {
        tier_inject_arm(rig->tier, kinds[i], 1, EIO);
        g_assert_cmpint(rig_transfer(rig, true, place, 2), ==, -EIO);
        g_assert_true(rig_is(rig->arena, 7));
        g_assert_true(rig_is(rig->arena + MM_PAGE_SIZE, 8));
    }
    rig_free(rig);
}

/* As large as its device, less the identity, and never larger. */
static void test_device_ends(void)
{
    const unsigned most = RIG_DEVICE_SIZE / MM_PAGE_SIZE - 1;
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_DEVICE, 0, false);
    Error *err = NULL;
    uint64_t place;
    unsigned nr, n;

    if (!rig) {
        return;
    }
    g_assert_false(rig->tier->ops->reserve(rig->tier, RIG_DEVICE_SIZE, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "enlarge the device"));
    error_free(err);
    g_assert_true(rig->tier->ops->reserve(rig->tier, most * MM_PAGE_SIZE,
                                          &error_abort));
    for (n = 0; (nr = rig_alloc(rig, 32, &place)); n += nr) {
        rig_fill(rig->arena, place);
        g_assert_cmpint(rig_transfer(rig, true, place, nr), ==, 0);
    }
    g_assert_cmpuint(n, ==, most);
    rig_free(rig);
}

/*
 * What was stored is there, though the tier may have less now, or the device is
 * not all back yet; and what a page map makes up takes no memory.
 */
static void test_device_smaller(void)
{
    TierRig *rig = rig_new(g_get_tmp_dir(), RIG_DEVICE, 0, true), *next;
    uint64_t place, last = 0;
    unsigned nr;

    if (!rig) {
        return;
    }
    while ((nr = rig_alloc(rig, 32, &place))) {
        last = place + nr - 1;
    }
    rig_fill(rig->arena, 7);
    g_assert_cmpint(rig_transfer(rig, true, last, 1), ==, 0);
    next = rig_reopen_sized(rig, RIG_DEVICE, MIB);
    g_assert_cmpuint(rig_size(next), ==, 0);
    g_assert_true(next->tier->ops->claim(next->tier, last));
    g_assert_false(next->tier->ops->claim(next->tier, last));
    g_assert_true(next->tier->ops->claim(next->tier, 3 * last));
    g_assert_false(next->tier->ops->claim(next->tier, 1ULL << 40));
    g_assert_cmpint(rig_transfer(next, false, last, 1), ==, 0);
    g_assert_true(rig_is(next->arena, 7));
    g_assert_cmpint(rig_transfer(next, false, 3 * last, 1), <, 0);
    rig_free(next);
    rig_free(rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/tier/device/ends", test_device_ends);
    g_test_add_func("/mm/tier/device/smaller", test_device_smaller);
    g_test_add_func("/mm/tier/encrypted/medium", test_medium_is_encrypted);
    g_test_add_func("/mm/tier/encrypted/other-key", test_other_key);
    g_test_add_func("/mm/tier/encrypted/failed-store",
                    test_failed_store_stays_plain);
    return g_test_run();
}
