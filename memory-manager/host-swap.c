/*
 * qemu-memory-manager: does the kernel swap managed memory, too?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * It would do so behind the pager's back: pages that count as resident would
 * have to be read from a disk, and be written there once more when they are
 * evicted. A host without swap does not, nor does a cgroup (v2) with
 * memory.swap.max=0, at any level. With v1 nothing prevents it for certain.
 */
#include "qemu/osdep.h"
#include "cgroup.h"
#include "host-swap.h"

bool mm_host_swap_in_use(const char *swaps)
{
    const char *second = strchr(swaps, '\n');

    /* the first line is the heading */
    return second && second[1];
}

static bool is_zero(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "memory.swap.max", NULL);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) &&
           g_str_equal(g_strchomp(text), "0");
}

bool mm_host_swap_excluded(const char *dir)
{
    g_autofree char *level = g_strdup(dir);

    while (!is_zero(level)) {
        char *up = g_path_get_dirname(level);

        if (g_str_equal(up, level)) {
            g_free(up);
            return false;
        }
        g_free(level);
        level = up;
    }
    return true;
}

bool mm_host_swap_may_hit(pid_t pid)
{
    g_autofree char *swaps = NULL;
    g_autoptr(GPtrArray) dirs = NULL;
    int i;

    if (!g_file_get_contents("/proc/swaps", &swaps, NULL, NULL) ||
        !mm_host_swap_in_use(swaps)) {
        return false;
    }
    dirs = mm_cgroup_dirs_of(pid, NULL);
    for (i = 0; dirs && i < dirs->len; i++) {
        if (mm_host_swap_excluded(g_ptr_array_index(dirs, i))) {
            return false;
        }
    }
    return true;
}
