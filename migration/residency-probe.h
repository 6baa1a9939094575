/*
 * Where the host's kernel has the pages of ordinary memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Nothing here reads memory, so nothing is allocated or swapped in by asking.
 * All answers may be out of date when they come: the caller has to know what
 * that means.  Any thread.
 */
#ifndef MIGRATION_RESIDENCY_PROBE_H
#define MIGRATION_RESIDENCY_PROBE_H

#include "qemu/bitmap.h"

#define RESIDENCY_PAGES 256

/*
 * What is asked about
 *
 * @host: page-aligned address
 * @nr: pages of the host, at most RESIDENCY_PAGES
 * @fd: of memory that is mapped shared and is known (residency_is_known());
 *      -1: private anonymous memory
 * @offset: of @host in @fd
 */
typedef struct ResidencyRange {
    uint8_t *host;
    unsigned nr;
    int fd;
    off_t offset;
} ResidencyRange;

/*
 * What is known of its pages; each is in one bitmap at most
 *
 * @hole: has no content, and reads as zero
 * @swapped: has content, and is not in memory
 * @unmapped: is in memory, but not in the page tables of this process
 *
 * All others are mapped, or nothing is known of them.
 */
typedef struct Residency {
    DECLARE_BITMAP(hole, RESIDENCY_PAGES);
    DECLARE_BITMAP(swapped, RESIDENCY_PAGES);
    DECLARE_BITMAP(unmapped, RESIDENCY_PAGES);
} Residency;

/**
 * residency_is_known: can the kernel be asked about a file's pages?
 *
 * True for memfds and tmpfs.  A hole of another file system need not be one of
 * what is mapped.
 */
bool residency_is_known(int fd);

/**
 * residency_open_pagemap: what residency_look() takes
 *
 * The caller closes it.  Returns -1 where there is no /proc, or none for us.
 */
int residency_open_pagemap(void);

/**
 * residency_look: look at a range
 *
 * @range: which
 * @pagemap: residency_open_pagemap() of this process; -1: of private memory
 *           nothing is found then, and of shared memory no unmapped pages
 * @found: filled in
 */
void residency_look(const ResidencyRange *range, int pagemap,
                    Residency *found);

/**
 * residency_is_hole: has a range of a file no content at all, now?
 *
 * @fd: as above
 * @offset, @len: in bytes
 */
bool residency_is_hole(int fd, off_t offset, uint64_t len);

/**
 * residency_advise: madvise() for some pages
 *
 * @host: of page 0
 * @pages: bitmap of @nr pages
 * @advice: MADV_...
 *
 * That the kernel does not want to is no error.
 */
void residency_advise(uint8_t *host, const unsigned long *pages, unsigned nr,
                      int advice);

#endif
