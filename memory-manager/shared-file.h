/*
 * qemu-memory-manager: VMs' files on storage that other hosts see
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_SHARED_FILE_H
#define MEMORY_MANAGER_SHARED_FILE_H

#include "manager.h"
#include "record.h"

/**
 * mm_shared_init: who we are among those that use the storage
 *
 * @run_dir: of this manager, absolute; one host may have several
 *
 * The same after a restart, of the manager as of the host.  Once.
 */
void mm_shared_init(const char *run_dir);

/**
 * mm_shared_identify: find out which storage a tier is on, or name it
 *
 * @tier: its dirfd is open; its storage is set
 *
 * Hosts that see the same storage see the same number in it.
 */
bool mm_shared_identify(MmTierConf *tier, Error **errp);

/**
 * mm_shared_name_file: give a VM's new file in a tier a name and a key
 *
 * @conf: its file, file_id and file_key are set
 */
bool mm_shared_name_file(MmMsgStartTier *conf, Error **errp);

/** mm_shared_our_name: that of a file that we have to remove; MM_FILE_LEN */
void mm_shared_our_name(const uint8_t *file_id, char *name);

/** mm_shared_released_name: that of one that was released in this migration */
void mm_shared_released_name(const uint8_t *file_id, uint64_t epoch,
                             char *name);

/** mm_shared_is_name: is @name that of this file, and some manager's? */
bool mm_shared_is_name(const char *name, const uint8_t *file_id);

/** mm_shared_is_ours: is it one that this manager has to remove? */
bool mm_shared_is_ours(const char *name);

/**
 * mm_shared_remove: remove the file of a VM, if it has one that is ours
 *
 * Soon, in another thread: the storage may hang.  What is not removed when the
 * manager ends is when the next one sweeps.
 */
void mm_shared_remove(const MmRecordTier *tier);

/** mm_shared_remove_named: the same, of a file that is nobody's any more. */
void mm_shared_remove_named(const char *dir, const char *file);

/**
 * mm_shared_sweep: remove files of ours in @tier that no VM has
 *
 * Which are those of a manager or host that has crashed.  Before VMs can
 * attach that get files in it.
 */
void mm_shared_sweep(MmManager *mgr, const MmTierConf *tier);

#endif
