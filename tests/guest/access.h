/*
 * Access patterns: what the benchmarks measure
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_ACCESS_H
#define GUEST_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * All of these run on the main thread, until their end.
 */

/**
 * access_prepare: make a field and write its content
 *
 * @pages: its size
 * @noise: percent of each page that cannot be compressed
 */
bool access_prepare(size_t pages, unsigned noise);

/**
 * access_verify: compare every page of the field
 */
bool access_verify(void);

/**
 * access_run: access pages by a pattern for some time, half of them to write
 *
 * Reports what the phase does, then percentiles of an access's time in
 * "latency", and in "timeline" lines how many there were in each tenth of a
 * second.
 *
 * @pattern: its name, see access.c
 * @seconds: how long
 * @part: percent of the field that is used, or of each worker's share of it
 *
 * Returns false, with a reason reported, if there is no such pattern.
 */
bool access_run(const char *pattern, unsigned seconds, unsigned part);

#endif
