/*
 * Histogram of durations, for percentiles
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_HISTOGRAM_H
#define GUEST_HISTOGRAM_H

#include <stdint.h>

/* Each power of two in 16 parts: a percentile is right to 6%. */
#define HISTOGRAM_PARTS 16
#define HISTOGRAM_BUCKETS (64 * HISTOGRAM_PARTS)

typedef struct Histogram {
    uint64_t count[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t max;
} Histogram;

/**
 * histogram_add: one duration, in any unit
 */
void histogram_add(Histogram *h, uint64_t value);

/**
 * histogram_merge: add all of @from to @to
 */
void histogram_merge(Histogram *to, const Histogram *from);

/**
 * histogram_percentile: upper bound of @per_mille thousandths of all values
 */
uint64_t histogram_percentile(const Histogram *h, unsigned per_mille);

#endif
