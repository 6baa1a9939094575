/*
 * Managed memory: what the files of the migration section share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * managed-ram.c         whether it is used, and its registration
 * managed-ram-hello.c   what is said first
 * managed-ram-source.c  what is sent
 * managed-ram-target.c  what becomes of it
 * managed-ram-owner.c   which host may run the guest
 * managed-ram-wire.c    the records
 */
#ifndef MIGRATION_MANAGED_RAM_INTERNAL_H
#define MIGRATION_MANAGED_RAM_INTERNAL_H

#include "migration/managed-ram-wire.h"
#include "migration/qemu-file.h"
#include "qapi/qapi-types-migration.h"

/* What both sides know of a migration, from its beginning on */
typedef struct ManagedRamHello {
    ManagedRamBlock *blocks;    /* MANAGED_RAM_BLOCKS_MAX, owned, or NULL */
    unsigned nr_blocks;
    MmSharedFile file;          /* what places are in, if present */
    unsigned tier;              /* that it is at the destination */
} ManagedRamHello;

/**
 * managed_ram_say: at the source; fill in @hello, and append it to @out
 *
 * managed_ram_forget() it, also if this fails.  In the migration thread.
 */
bool managed_ram_say(ManagedRamHello *hello, GByteArray *out, Error **errp);

/**
 * managed_ram_hear_hello: the payload of a HELLO, for which we make ready
 *
 * @hello: nothing yet; filled in.  managed_ram_forget() it in any case.
 *
 * In the main thread, as the others.
 */
bool managed_ram_hear_hello(ManagedRamHello *hello, const uint8_t *buf,
                            uint32_t len, Error **errp);

/** managed_ram_hear_room: the payload of a ROOM; false: there is not enough. */
bool managed_ram_hear_room(const ManagedRamHello *hello, const uint8_t *buf,
                           uint32_t len, Error **errp);

/** managed_ram_hear_encrypted: an ENCRYPTED; false: it would not be here. */
bool managed_ram_hear_encrypted(Error **errp);

/** managed_ram_hear_wake: the payload of a WAKE. */
bool managed_ram_hear_wake(const ManagedRamHello *hello, const uint8_t *buf,
                           uint32_t len, Error **errp);

/** managed_ram_host: a block's memory, or NULL; while a guest migrates. */
uint8_t *managed_ram_host(const ManagedRamBlock *block);

/** managed_ram_forget: free what it owns. */
void managed_ram_forget(ManagedRamHello *hello);

/** managed_ram_refuse: tell the source why; before the destination fails. */
void managed_ram_refuse(const char *why);

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
