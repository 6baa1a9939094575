/*
 * qemu-memory-manager: what a sample says of a VM's working set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_WORKING_SET_H
#define MEMORY_MANAGER_WORKING_SET_H

#include "managed-memory/proto.h"

/**
 * mm_working_set: estimate from a sample that has pages
 *
 * @bytes: out: the share of touched pages, of the VM's memory
 * @error: out: bytes; with a probability of 95% the truth is within @bytes
 *         plus or minus @error
 *
 * The error is that of Agresti and Coull ("Approximate is better than exact",
 * The American Statistician 52(2), 1998): half the width of the interval around
 * (x + 2) / (n + 4), widened by how far that is from x / n.  Unlike the
 * textbook's it is not zero when none, or all, of the pages were touched.
 */
void mm_working_set(const MmMsgSample *sample, uint64_t *bytes,
                    uint64_t *error);

#endif
