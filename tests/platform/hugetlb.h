/*
 * Memfds of hugetlb pages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_PLATFORM_HUGETLB_H
#define TESTS_PLATFORM_HUGETLB_H

#include "platform.h"

#define UNIT_BYTES ((size_t)2 << 20)

/**
 * hugetlb_pool: have the host make @pages huge pages more; its own until exit
 *
 * Fails the test if it cannot.
 */
void hugetlb_pool(unsigned pages);

/** hugetlb_memfd: a memfd of @units huge pages, none of them there */
int hugetlb_memfd(size_t units);

/** hugetlb_map: map it without setting pages aside */
uint8_t *hugetlb_map(int fd, size_t units, int prot);

#endif
