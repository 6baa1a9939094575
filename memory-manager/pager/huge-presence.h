/*
 * Managed memory pager: is a huge page there?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A hugetlb memfd says nothing of its holes (SEEK_DATA finds data everywhere),
 * and reads as zeroes where it has one.  UFFDIO_CONTINUE does tell: it maps a
 * page that is there, and fails where there is none.  So the region is mapped
 * here once more, for nothing but that: nobody may access the mapping, and what
 * does so all the same (ptrace, say) fills no hole of it, since it is
 * registered with a userfaultfd that answers by SIGBUS.  The guest's mapping is
 * not touched.
 */
#ifndef MANAGED_MEMORY_HUGE_PRESENCE_H
#define MANAGED_MEMORY_HUGE_PRESENCE_H

#include "vm.h"

/*
 * No other descriptor of ours has a number as high, so that the jail can tell
 * it from QEMU's userfaultfd: with that one a pager that is broken must not
 * have other memory of QEMU's registered.
 */
#define MM_PRESENCE_UFFD_MIN 900

/**
 * mm_presence_uffd_new: the userfaultfd of all such mappings
 *
 * @dev: /dev/userfaultfd, or -1
 *
 * Before the process is jailed.  Returns MM_PRESENCE_UFFD_MIN or above, or -1
 * if the kernel has none for us: then there are no huge pages.
 */
int mm_presence_uffd_new(int dev);

/** mm_presence_open: map a region if it has huge pages; control thread. */
bool mm_presence_open(MmVM *vm, MmRegion *region, Error **errp);

/** mm_presence_close: undo mm_presence_open(), if that was done. */
void mm_presence_close(MmRegion *region);

/** mm_presence_test: is the huge page from @page on there?  Any thread. */
bool mm_presence_test(const MmRegion *region, uint64_t page);

#endif
