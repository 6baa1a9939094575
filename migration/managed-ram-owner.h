/*
 * Managed memory: which host may run the guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Under the BQL.
 */
#ifndef MIGRATION_MANAGED_RAM_OWNER_H
#define MIGRATION_MANAGED_RAM_OWNER_H

#include "managed-memory/shared.h"

/**
 * managed_ram_owner_lends: this guest leaves, and its file with it
 *
 * The file is released when block devices are inactivated, and claimed when
 * they are activated again: then the guest may go on here.
 */
bool managed_ram_owner_lends(const MmSharedFile *file, Error **errp);

/** managed_ram_owner_has_left: has it gone, whoever has claimed it since? */
bool managed_ram_owner_has_left(void);

/**
 * managed_ram_owner_keeps: no migration is under way any more
 *
 * If the guest has not been released, or was claimed again, nobody else reads
 * its file.
 */
void managed_ram_owner_keeps(void);

/**
 * managed_ram_owner_borrows: this guest arrives, and another host's file
 *
 * It is claimed when block devices are activated, before the guest runs.
 */
bool managed_ram_owner_borrows(const MmSharedFile *file, Error **errp);

#endif
