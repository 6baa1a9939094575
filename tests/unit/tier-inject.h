/*
 * Unit tests: a tier that misbehaves on demand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Lies over a real tier and passes everything on, but for the operation that
 * it is told to spoil.  Operations are transfers, or places for INJECT_FULL.
 */
#ifndef TIER_INJECT_H
#define TIER_INJECT_H

#include "memory-manager/pager/tier/tier.h"

typedef enum InjectKind {
    INJECT_NOTHING,
    /* honest failures: the transfer ends with an error */
    INJECT_FAIL,                /* nothing is transferred */
    INJECT_SHORT,               /* the first half is transferred */
    INJECT_FULL,                /* no place is handed out */
    /* no failure at all */
    INJECT_DELAY,               /* completes after all others in flight */
    /* lies: the transfer is said to have succeeded */
    INJECT_FLIP,                /* one bit is wrong */
    INJECT_LOSE,                /* nothing is transferred */
    INJECT__MAX
} InjectKind;

/** tier_inject_new: a tier over @inner, which stays the caller's. */
MmTier *tier_inject_new(MmTier *inner);

/**
 * tier_inject_arm: spoil the @nth operation from now on, counted from 1
 *
 * @err: errno value of the failure, where there is one
 */
void tier_inject_arm(MmTier *tier, InjectKind kind, unsigned nth, int err);

/** tier_inject_hit: has an operation been spoilt since it was armed? */
bool tier_inject_hit(const MmTier *tier);

/** inject_name: for messages. */
const char *inject_name(InjectKind kind);

#endif
