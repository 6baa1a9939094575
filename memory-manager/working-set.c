/*
 * qemu-memory-manager: what a sample says of a VM's working set
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <math.h>
#include "working-set.h"

/* Two standard deviations, nearly, have 95% of a normal distribution. */
#define Z 1.96

void mm_working_set(const MmMsgSample *sample, uint64_t *bytes,
                    uint64_t *error)
{
    double n = sample->pages, x = MIN(sample->touched, sample->pages);
    double share = x / n;
    double centre = (x + 2) / (n + 4);
    double half = Z * sqrt(centre * (1 - centre) / (n + 4));

    *bytes = share * sample->size;
    *error = (half + fabs(centre - share)) * sample->size;
}
