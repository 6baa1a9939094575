/*
 * qemu-memory-manager: percentiles from a histogram
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_LATENCY_H
#define MEMORY_MANAGER_LATENCY_H

#include "managed-memory/proto.h"

/**
 * mm_latency_percentile_us: percentile of the durations in a histogram
 *
 * @buckets: bucket n counts durations of 2^n to 2^(n+1) nanoseconds
 * @fraction: 0 to 1
 *
 * Interpolates within the bucket. Pure. Returns microseconds; 0 if the
 * histogram is empty.
 */
double mm_latency_percentile_us(const uint64_t buckets[MM_LATENCY_BUCKETS],
                                double fraction);

#endif
