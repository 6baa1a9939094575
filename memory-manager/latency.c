/*
 * qemu-memory-manager: percentiles from a histogram
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "latency.h"

double mm_latency_percentile_us(const uint64_t buckets[MM_LATENCY_BUCKETS],
                                double fraction)
{
    double total = 0, before = 0;
    int i;

    for (i = 0; i < MM_LATENCY_BUCKETS; i++) {
        total += buckets[i];
    }
    for (i = 0; i < MM_LATENCY_BUCKETS; i++) {
        double in = buckets[i];

        if (in && before + in >= total * fraction) {
            double part = (total * fraction - before) / in;

            return ldexp(1 + part, i) / 1000;
        }
        before += in;
    }
    return 0;
}
