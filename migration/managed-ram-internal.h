/*
 * Managed memory: what the files of the migration section share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * managed-ram.c         whether it is used, and its registration
 * managed-ram-source.c  what is sent
 * managed-ram-target.c  what becomes of it
 * managed-ram-owner.c   which host may run the guest
 * managed-ram-wire.c    the records
 */
#ifndef MIGRATION_MANAGED_RAM_INTERNAL_H
#define MIGRATION_MANAGED_RAM_INTERNAL_H

#include "migration/qemu-file.h"
#include "qapi/qapi-types-migration.h"

/* Of SaveVMHandlers: in the migration thread, complete under the BQL */
int managed_ram_save_setup(QEMUFile *f, void *opaque);
int managed_ram_save_iterate(QEMUFile *f, void *opaque);
int managed_ram_save_complete(QEMUFile *f, void *opaque);
void managed_ram_save_cleanup(void *opaque);

/** managed_ram_sent: by this migration, or the last one; any thread */
ManagedRamStats managed_ram_sent(void);

/* Likewise: in the main thread */
int managed_ram_load_state(QEMUFile *f, void *opaque, int version_id);
int managed_ram_load_cleanup(void *opaque);

#endif
