/*
 * Fuzz targets: what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "fuzz.h"

static const char *seed_dir;

void fuzz_start(int argc, char **argv, FuzzSeeds *seeds)
{
    if (argc == 2 && strstart(argv[1], "--seeds=", &seed_dir)) {
        seeds();
        exit(EXIT_SUCCESS);
    }
}

void fuzz_seed(const char *name, const void *data, size_t size)
{
    g_autofree char *path = g_build_filename(seed_dir, name, NULL);

    if (!g_file_set_contents(path, data, size, NULL)) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(EXIT_FAILURE);
    }
}

void fuzz_take(FuzzInput *in, void *to, size_t size)
{
    size_t some = MIN(size, in->size);

    memset(to, 0, size);
    memcpy(to, in->data, some);
    in->data += some;
    in->size -= some;
}

int fuzz_next_fd(void)
{
    int fd = dup(STDIN_FILENO);

    g_assert(fd >= 0);
    close(fd);
    return fd;
}
