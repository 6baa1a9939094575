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
#ifndef MANAGED_MEMORY_ALIAS_H
#define MANAGED_MEMORY_ALIAS_H

#include "vm.h"

/**
 * mm_alias_uffd_new: the userfaultfd of all aliases
 *
 * @dev: /dev/userfaultfd, or -1
 *
 * Before the process is jailed.  Returns -1 if the kernel has none for us:
 * then there are no huge pages.
 */
int mm_alias_uffd_new(int dev);

/** mm_alias_open: map a region of huge pages; control thread. */
bool mm_alias_open(MmVM *vm, MmRegion *region, Error **errp);

/** mm_alias_close: undo mm_alias_open(), if that was done. */
void mm_alias_close(MmRegion *region);

/** mm_alias_present: is the huge page that begins at @page there?  Any thread */
bool mm_alias_present(const MmRegion *region, uint64_t page);

#endif
