/*
 * Managed memory pager: userfaultfd operations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/userfaultfd.h>
#include "uffd.h"

/* Since Linux 6.6; the headers of the base are older. */
#ifndef UFFDIO_POISON
struct uffdio_poison {
    struct uffdio_range range;
    __u64 mode;
    __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

/*
 * Tries before the fault thread turns to something else: a QEMU that has asked
 * for events about its mappings, which ours never does, could hold us here.
 */
#define MAX_TRIES 64

static MmUffdResult result_of(int err)
{
    switch (err) {
    case EAGAIN:
    case EINTR:
        return MM_UFFD_BUSY;
    case EEXIST:
        return MM_UFFD_EXISTS;
    case EFAULT:
        return MM_UFFD_HOLE;
    case EIO:
    case EHWPOISON:
        return MM_UFFD_BAD;
    case ENOMEM:
        return MM_UFFD_NO_MEMORY;
    default:
        /* ESRCH: the process; ENOENT, EINVAL: the mapping */
        return MM_UFFD_GONE;
    }
}

MmUffdResult mm_uffd_copy(int uffd, uint64_t dst, const void *src,
                          uint64_t len, uint64_t *done)
{
    int tries = 0;

    *done = 0;
    while (*done < len) {
        struct uffdio_copy copy = {
            .dst = dst + *done,
            .src = (uintptr_t)src + *done,
            .len = len - *done,
        };

        if (ioctl(uffd, UFFDIO_COPY, &copy) == 0) {
            *done = len;
            break;
        }
        /* negative: the error once more; positive: partly done */
        if (copy.copy > 0) {
            *done += copy.copy;
        } else if ((errno != EAGAIN && errno != EINTR) ||
                   ++tries == MAX_TRIES) {
            return result_of(errno);
        }
    }
    return MM_UFFD_OK;
}

MmUffdResult mm_uffd_continue(int uffd, uint64_t addr, uint64_t len)
{
    struct uffdio_continue cont = {
        .range = { .start = addr, .len = len },
    };
    int tries = 0;

    while (ioctl(uffd, UFFDIO_CONTINUE, &cont) < 0) {
        if ((errno != EAGAIN && errno != EINTR) || ++tries == MAX_TRIES) {
            return result_of(errno);
        }
    }
    return MM_UFFD_OK;
}

void mm_uffd_wake(int uffd, uint64_t addr, uint64_t len)
{
    struct uffdio_range range = { .start = addr, .len = len };

    /* fails only if the mapping is gone, and its waiters with it */
    ioctl(uffd, UFFDIO_WAKE, &range);
}

int mm_uffd_poison(int uffd, uint64_t addr, uint64_t len)
{
    struct uffdio_poison poison = {
        .range = { .start = addr, .len = len },
    };

    return ioctl(uffd, UFFDIO_POISON, &poison) < 0 ? -errno : 0;
}
