/*
 * qemu-memory-manager: how much may still be written to a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "write-account.h"

#define DAY_MS (24 * 60 * 60 * 1000.0)
/* What there has to be again: a quarter of an hour's, so that it is rare. */
#define ENOUGH (1.0 / 96)

void mm_account_open(MmWriteAccount *a, uint64_t per_day, double left,
                     int64_t now_ms)
{
    *a = (MmWriteAccount) {
        .per_day = per_day, .left = MIN(left, per_day), .at_ms = now_ms,
    };
    mm_account_charge(a, 0, now_ms);
}

void mm_account_set(MmWriteAccount *a, uint64_t per_day, int64_t now_ms)
{
    double used;

    mm_account_charge(a, 0, now_ms);
    used = a->per_day - a->left;
    mm_account_open(a, per_day, MAX(per_day - used, 0), now_ms);
}

static void credit(MmWriteAccount *a, int64_t now_ms)
{
    if (now_ms > a->at_ms) {
        a->left += a->per_day * ((now_ms - a->at_ms) / DAY_MS);
        a->left = MIN(a->left, a->per_day);
        a->at_ms = now_ms;
    }
}

bool mm_account_charge(MmWriteAccount *a, uint64_t bytes, int64_t now_ms)
{
    bool was = a->exhausted;

    if (!a->per_day) {
        a->left = 0;
        a->exhausted = false;
        return was;
    }
    credit(a, now_ms);
    a->left = MAX(a->left - bytes, -(double)a->per_day);
    if (a->left <= 0) {
        a->exhausted = true;
    } else if (a->left >= a->per_day * ENOUGH) {
        a->exhausted = false;
    }
    return a->exhausted != was;
}
