/*
 * Managed memory: the userfaultfd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU makes the userfaultfd, because it is bound to the address space of its
 * maker, and hands it to the pager.  Faults of the kernel on QEMU's behalf
 * (KVM, vhost, system calls) must be caught too.  For that an unprivileged
 * process needs /dev/userfaultfd, which the manager passes open; without it
 * the system call may do.
 */
#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <linux/userfaultfd.h>
#include "qapi/error.h"
#include "backends/managed-memory-internal.h"

/* Not in the kernel headers of QEMU 7.2 */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define NEED_FEATURES (UFFD_FEATURE_MISSING_SHMEM | \
                       UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_THREAD_ID)

static int open_uffd(int dev, Error **errp)
{
    const int flags = O_CLOEXEC | O_NONBLOCK;
    int fd;

    fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, flags)
                  : syscall(SYS_userfaultfd, flags);
    if (fd >= 0) {
        return fd;
    }
    if (dev >= 0) {
        error_setg_errno(errp, errno, "managed memory: cannot make a "
                         "userfaultfd from the manager's /dev/userfaultfd");
    } else {
        error_setg_errno(errp, errno, "managed memory: the manager has no "
                         "/dev/userfaultfd to pass on, and this process may "
                         "not call userfaultfd() itself; use Linux 6.1 or "
                         "later, or set vm.unprivileged_userfaultfd=1");
    }
    return -1;
}

int managed_uffd_create(int dev, Error **errp)
{
    struct uffdio_api api = { .api = UFFD_API, .features = NEED_FEATURES };
    int fd = open_uffd(dev, errp);

    if (fd < 0) {
        return -1;
    }
    if (ioctl(fd, UFFDIO_API, &api) ||
        (api.features & NEED_FEATURES) != NEED_FEATURES) {
        error_setg(errp, "managed memory needs a kernel that reports minor "
                   "faults of shared memory (Linux 5.14 or later)");
        close(fd);
        return -1;
    }
    return fd;
}

bool managed_uffd_register(int uffd, void *host, uint64_t size, Error **errp)
{
    const uint64_t need = 1ULL << _UFFDIO_COPY | 1ULL << _UFFDIO_CONTINUE |
                          1ULL << _UFFDIO_WAKE;
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)host, .len = size },
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };

    if (ioctl(uffd, UFFDIO_REGISTER, &reg)) {
        error_setg_errno(errp, errno, "managed memory: cannot register guest "
                         "memory with userfaultfd");
        return false;
    }
    if ((reg.ioctls & need) != need) {
        error_setg(errp, "managed memory: this kernel cannot fill and map "
                   "pages of shared memory through userfaultfd");
        managed_uffd_unregister(uffd, host, size);
        return false;
    }
    return true;
}

void managed_uffd_unregister(int uffd, void *host, uint64_t size)
{
    struct uffdio_range range = { .start = (uintptr_t)host, .len = size };

    /* Fails only where there is nothing to undo. */
    ioctl(uffd, UFFDIO_UNREGISTER, &range);
    /* It may leave behind who faults at the same time, for good. */
    ioctl(uffd, UFFDIO_WAKE, &range);
}
