/*
 * Files of shared memory in huge pages, without touching host settings
 *
 * A memfd is made of huge pages only where the administrator has set
 * /sys/kernel/mm/transparent_hugepage/shmem_enabled.  A private tmpfs with
 * the same choice in its mount options behaves the same way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_PLATFORM_HUGE_H
#define TESTS_PLATFORM_HUGE_H

#include "platform.h"

#define HUGE_BYTES  ((size_t)2 << 20)
#define HUGE_PAGES  (HUGE_BYTES / PAGE_BYTES)

/**
 * huge_file: an unnamed file of HUGE_BYTES on a tmpfs mounted with @option
 *
 * @option is one of tmpfs's huge= mount options.  The mount is seen by this
 * process only.  Skips where the kernel does not know the option.
 */
int huge_file(const char *option);

/**
 * huge_map: map the file writable, where a huge page fits, asking for one
 *
 * With MADV_HUGEPAGE, as QEMU does for all its RAM.
 */
uint8_t *huge_map(int fd);

/** huge_touch: write to all of @addr; skips unless it became one huge page */
void huge_touch(int fd, uint8_t *addr);

#endif
