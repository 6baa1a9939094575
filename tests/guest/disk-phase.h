/*
 * Disk I/O straight from and into the arena
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_DISK_PHASE_H
#define GUEST_DISK_PHASE_H

#include <stdbool.h>
#include <stddef.h>

/**
 * disk_run: move pages between arena and disk with O_DIRECT, and verify
 *
 * Needs an arena; main thread only.
 *
 * @seconds: when to stop; 0 for when the host sends "stop"
 *
 * Returns false, with the reason reported, if the disk cannot be used or an
 * operation on it failed.
 */
bool disk_run(unsigned seconds);

/**
 * disk_pages_read: pages that were read from the disk since the start
 */
size_t disk_pages_read(void);

/**
 * disk_pages_written: pages that were written to the disk since the start
 */
size_t disk_pages_written(void);

#endif
