/*
 * Files of shared memory in huge pages (see huge.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "huge.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/mount.h>

/* From now on mounts of this process are its own. */
static void leave_mount_namespace(void)
{
    static bool left;

    if (left) {
        return;
    }
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE,
                                      NULL)) {
        fact_skip("no mount namespace of our own: %s", strerror(errno));
    }
    left = true;
}

/* An unnamed file in a tmpfs that is mounted on @dir while this runs. */
static int tmpfs_file(const char *dir, const char *option)
{
    int fd;

    if (mount("fact", dir, "tmpfs", 0, option)) {
        return -1;
    }
    fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    /* The open file keeps the file system alive. */
    SYS(umount2(dir, MNT_DETACH));
    return fd;
}

int huge_file(const char *option)
{
    char dir[256];
    int fd, err;

    leave_mount_namespace();
    snprintf(dir, sizeof(dir), "%s/huge-XXXXXX", scratch_dir());
    FACT_CHECK(mkdtemp(dir), "mkdtemp: %s", strerror(errno));
    fd = tmpfs_file(dir, option);
    err = errno;
    rmdir(dir);
    if (fd < 0) {
        fact_skip("cannot make a tmpfs with %s: %s", option, strerror(err));
    }
    SYS(ftruncate(fd, HUGE_BYTES));
    return fd;
}

uint8_t *huge_map(int fd)
{
    uint8_t *room = mmap(NULL, 2 * HUGE_BYTES, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uintptr_t aligned;
    void *addr;

    FACT_CHECK(room != MAP_FAILED, "mmap: %s", strerror(errno));
    aligned = ((uintptr_t)room + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1);
    addr = mmap((void *)aligned, HUGE_BYTES, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_FIXED, fd, 0);
    FACT_CHECK(addr != MAP_FAILED, "mmap: %s", strerror(errno));
    SYS(madvise(addr, HUGE_BYTES, MADV_HUGEPAGE));
    return addr;
}

void huge_touch(int fd, uint8_t *addr)
{
    store_byte(addr, 1);
    if (allocated_pages(fd) != HUGE_PAGES) {
        fact_skip("this kernel makes no huge pages in a tmpfs");
    }
    memset(addr, 1, HUGE_BYTES);
}
