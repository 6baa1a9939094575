/*
 * Migration of ordinary memory that the host's kernel swaps
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The hooks of ram.c and migration.c.  Without migration capability
 * swap-aware-ram they do nothing.
 */
#ifndef MIGRATION_RAM_RESIDENCY_H
#define MIGRATION_RAM_RESIDENCY_H

#include "exec/ramblock.h"

/**
 * ram_residency_check_caps: does it go together with other capabilities?
 *
 * @caps: by MigrationCapability
 *
 * Main thread.
 */
bool ram_residency_check_caps(const bool *caps, Error **errp);

/**
 * ram_residency_skips: is a page known to be zero without being read?
 *
 * @rb, @offset: the page, which is about to be sent: its dirty bit, and that of
 *               the log which it came from, have been cleared
 *
 * A page for which this is false is going to be read, and is brought in ahead
 * of that together with others if it is swapped out.  Migration thread.
 */
bool ram_residency_skips(RAMBlock *rb, ram_addr_t offset);

/**
 * ram_residency_put_back: what has been read has been sent
 *
 * Pages go back to where they were, and are looked at afresh from now on.
 * Migration thread, before the dirty bitmap is synchronized again.
 */
void ram_residency_put_back(void);

/**
 * ram_residency_cleanup: nothing more is sent
 *
 * Main thread, when there is no migration thread any more.
 */
void ram_residency_cleanup(void);

/**
 * ram_residency_is_hole: need zeros not be written, nor looked for?
 *
 * @host, @size: where zeros have arrived
 *
 * Main thread of the destination.
 */
bool ram_residency_is_hole(void *host, uint64_t size);

#endif
