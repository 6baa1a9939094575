/*
 * Managed memory pager: is a huge page there?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "qapi/error.h"
#include "huge-presence.h"
#include "uffd.h"

/* Since Linux 6.1; the headers of the base are older. */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define NEED_FEATURES (UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_HUGETLBFS | \
                       UFFD_FEATURE_MINOR_HUGETLBFS)
/* Until the kernel has memory for a page table. */
#define REST_MS 1

int mm_presence_uffd_new(int dev)
{
    struct uffdio_api api = { .api = UFFD_API, .features = NEED_FEATURES };
    const int flags = O_CLOEXEC | O_NONBLOCK;
    int fd = dev >= 0 ? ioctl(dev, USERFAULTFD_IOC_NEW, flags)
                      : syscall(SYS_userfaultfd, flags);
    int high = -1;

    if (fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0) {
        high = fcntl(fd, F_DUPFD_CLOEXEC, MM_PRESENCE_UFFD_MIN);
    }
    if (fd >= 0) {
        close(fd);
    }
    return high;
}

static bool register_alias(const MmRegion *region)
{
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)region->alias, .len = region->size },
        .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    };

    return ioctl(region->probe_uffd, UFFDIO_REGISTER, &reg) == 0 &&
           (reg.ioctls & 1ULL << _UFFDIO_CONTINUE);
}

bool mm_presence_open(MmVM *vm, MmRegion *region, Error **errp)
{
    void *mem;

    if (!mm_region_is_huge(region)) {
        return true;
    }
    if (vm->probe_uffd < 0) {
        error_setg(errp, "huge pages need a userfaultfd of the pager's own, "
                   "which the kernel does not give it; use Linux 6.1 or later, "
                   "or leave out hugetlb=on");
        return false;
    }
    region->probe_uffd = vm->probe_uffd;
    mem = mmap(NULL, region->size, PROT_NONE, MAP_SHARED | MAP_NORESERVE,
               region->ram_fd, 0);
    if (mem == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map huge pages");
        return false;
    }
    region->alias = mem;
    madvise(region->alias, region->size, MADV_DONTDUMP);
    if (!register_alias(region)) {
        error_setg(errp, "this kernel does not report minor faults of huge "
                   "pages; use Linux 5.18 or later, or leave out hugetlb=on");
        return false;
    }
    return true;
}

void mm_presence_close(MmRegion *region)
{
    if (region->alias) {
        munmap(region->alias, region->size);
    }
}

bool mm_presence_test(const MmRegion *region, uint64_t page)
{
    uint8_t *addr = region->alias + page * MM_PAGE_SIZE;
    MmUffdResult res;

    for (;;) {
        res = mm_uffd_continue(region->probe_uffd, (uintptr_t)addr,
                               MM_HUGE_PAGE_SIZE);
        if (res != MM_UFFD_NO_MEMORY && res != MM_UFFD_BUSY) {
            break;
        }
        poll(NULL, 0, REST_MS);
    }
    if (res == MM_UFFD_OK) {
        madvise(addr, MM_HUGE_PAGE_SIZE, MADV_DONTNEED);
    }
    return res != MM_UFFD_HOLE;
}
