/*
 * Histogram of durations, for percentiles
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "histogram.h"

/* Small values have a bucket each. */
static unsigned bucket_of(uint64_t value)
{
    unsigned shift;

    if (value < HISTOGRAM_PARTS) {
        return value;
    }
    shift = 63 - __builtin_clzll(value) - 4;
    return (shift + 1) * HISTOGRAM_PARTS + (value >> shift) -
           HISTOGRAM_PARTS;
}

static uint64_t bucket_end(unsigned bucket)
{
    unsigned shift = bucket / HISTOGRAM_PARTS;
    uint64_t part = bucket % HISTOGRAM_PARTS;

    return shift ? ((HISTOGRAM_PARTS + part + 1) << (shift - 1)) - 1 : part;
}

void histogram_add(Histogram *h, uint64_t value)
{
    h->count[bucket_of(value)]++;
    h->total++;
    h->max = value > h->max ? value : h->max;
}

void histogram_merge(Histogram *to, const Histogram *from)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        to->count[i] += from->count[i];
    }
    to->total += from->total;
    to->max = from->max > to->max ? from->max : to->max;
}

uint64_t histogram_percentile(const Histogram *h, unsigned per_mille)
{
    uint64_t left = h->total * per_mille / 1000;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (h->count[i] > left) {
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
        }
        left -= h->count[i];
    }
    return h->max;
}
