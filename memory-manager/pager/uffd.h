/*
 * Managed memory pager: userfaultfd operations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Thin wrappers that name every outcome.  Addresses are QEMU's.  Any thread.
 */
#ifndef MANAGED_MEMORY_UFFD_H
#define MANAGED_MEMORY_UFFD_H

typedef enum MmUffdResult {
    MM_UFFD_OK,                 /* all done, waiters woken */
    /* the next page is there already (COPY) or mapped already (CONTINUE) */
    MM_UFFD_EXISTS,
    MM_UFFD_HOLE,               /* CONTINUE: the next page is not there */
    MM_UFFD_BAD,                /* CONTINUE: the hardware has lost the page */
    MM_UFFD_NO_MEMORY,          /* QEMU's memory cgroup or the host is full */
    MM_UFFD_BUSY,               /* QEMU changes its mappings: try later */
    MM_UFFD_GONE,               /* QEMU or its mapping is gone */
} MmUffdResult;

/**
 * mm_uffd_copy: fill missing pages and wake their waiters
 *
 * @uffd: userfaultfd
 * @dst: page-aligned address in QEMU
 * @src: content, @len bytes
 * @len: in bytes
 * @done: out: bytes filled, also when the result is not OK
 */
MmUffdResult mm_uffd_copy(int uffd, uint64_t dst, const void *src,
                          uint64_t len, uint64_t *done);

/** mm_uffd_continue: map one present page of @len bytes, wake its waiters. */
MmUffdResult mm_uffd_continue(int uffd, uint64_t addr, uint64_t len);

/** mm_uffd_wake: let waiters in the range fault again. */
void mm_uffd_wake(int uffd, uint64_t addr, uint64_t len);

/**
 * mm_uffd_poison: make one missing page of @len bytes fail
 *
 * Returns -errno if that is not possible.
 */
int mm_uffd_poison(int uffd, uint64_t addr, uint64_t len);

#endif
