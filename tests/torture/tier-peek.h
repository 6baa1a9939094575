/*
 * Torture tests: damaging what lies in a tier, and repairing it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TORTURE_TIER_PEEK_H
#define TORTURE_TIER_PEEK_H

#include "fake-qemu.h"

typedef struct TierDamage TierDamage;

/**
 * tier_damage_new: flip one bit in every page of the tier's file
 *
 * Pages that are zero throughout are left alone, as is the first page, which
 * says whose file it is.  Returns NULL if there was nothing to damage.
 */
TierDamage *tier_damage_new(FakeQemu *fq, uint64_t seed);

/**
 * tier_damage_swap: exchange neighbouring pages of the tier's file
 *
 * What a disk does that writes to the wrong place.  Returns how many pages
 * were exchanged.
 */
unsigned tier_damage_swap(FakeQemu *fq);

/** tier_damage_repair: undo it where nothing else has been written since. */
void tier_damage_repair(TierDamage *d);

void tier_damage_free(TierDamage *d);

#endif
