/*
 * qemu-memory-manager: does the kernel swap managed memory, too?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_HOST_SWAP_H
#define MEMORY_MANAGER_HOST_SWAP_H

/**
 * mm_host_swap_in_use: has the host swap space?
 *
 * @swaps: content of /proc/swaps
 */
bool mm_host_swap_in_use(const char *swaps);

/**
 * mm_host_swap_excluded: is swapping switched off for a cgroup?
 *
 * @dir: its directory; the cgroups above it count as well
 */
bool mm_host_swap_excluded(const char *dir);

/** mm_host_swap_may_hit: may the kernel swap memory of this process? */
bool mm_host_swap_may_hit(pid_t pid);

#endif
