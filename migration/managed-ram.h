/*
 * Managed memory: what the rest of migration calls
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MANAGED_RAM_H
#define MIGRATION_MANAGED_RAM_H

#include "migration/migration.h"

/** managed_ram_init: register the section; once, before that of ram. */
void managed_ram_init(void);

/**
 * managed_ram_wants_return_path: hook of migrate_fd_connect()
 *
 * True if the destination is to be asked what it understands, on a channel on
 * which it can answer.
 */
bool managed_ram_wants_return_path(MigrationState *s);

/**
 * managed_ram_negotiate: hook of migration_thread()
 *
 * After the first ping, whose answer it waits for: what comes before that says
 * whether the destination understands the section.
 */
void managed_ram_negotiate(MigrationState *s);

/**
 * managed_ram_close_return_path: hook of migrate_fd_cleanup()
 *
 * After a migration that has failed or been cancelled its thread is still
 * there, which would be taken for that of the next one.  With the BQL dropped,
 * and before the stream is closed.
 */
void managed_ram_close_return_path(MigrationState *s);

/** managed_ram_pong: hook of source_return_path_thread(). */
void managed_ram_pong(uint32_t value);

/** managed_ram_ping: hook of loadvm_process_command(), before the pong. */
void managed_ram_ping(MigrationIncomingState *mis);

/**
 * managed_ram_fill_info: hook of populate_ram_info()
 *
 * Adds what the section has sent, if it is used.  Main thread.
 */
void managed_ram_fill_info(MigrationInfo *info);

/** managed_ram_print_info: hook of hmp_info_migrate(): the same as text. */
void managed_ram_print_info(Monitor *mon, const MigrationInfo *info);

#endif
