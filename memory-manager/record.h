/*
 * qemu-memory-manager: record and lock of a VM, which outlive the manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_RECORD_H
#define MEMORY_MANAGER_RECORD_H

#include "managed-memory/proto.h"

#define MM_RECORD_MAGIC 0x514d4d52      /* "QMMR" */
#define MM_RECORD_VERSION 5
/* To be shown: a longer path is cut off. */
#define MM_RECORD_PATH_LEN 512

typedef struct MmRecordTier {
    MmMsgStartTier conf;
    char path[MM_RECORD_PATH_LEN]; /* of the tier; "": compressed */
} MmRecordTier;

/* Processes are named by PID and start time: a PID alone can be reused. */
typedef struct MmRecord {
    uint32_t magic;
    uint32_t version;
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    char name[MM_NAME_LEN];
    uint32_t qemu_uid;
    uint32_t qemu_pid;
    uint64_t qemu_start;        /* in clock ticks since boot */
    uint32_t pager_pid;         /* 0: none has been started */
    uint32_t detached;          /* 1: ended by managed-vm-detach */
    uint64_t pager_start;
    /*
     * Of this VM, whatever tiers a restarted manager has: entries of its page
     * maps name them by number.  In the order of filling; vm-tiers.c changes
     * them.
     */
    uint32_t nr_tiers;          /* 1..MM_MAX_TIERS */
    MmRecordTier tiers[MM_MAX_TIERS];
} MmRecord;

/** mm_record_write: write a record, creating the file if there is none. */
bool mm_record_write(const char *path, const MmRecord *rec, Error **errp);

/** mm_record_read: read and check a record. */
bool mm_record_read(const char *path, MmRecord *rec, Error **errp);

/** mm_record_tier: the VM's tier with this name, or NULL. */
MmRecordTier *mm_record_tier(MmRecord *rec, const char *name);

/**
 * mm_lock_take: try to take the pager's lock, creating it if there is none
 *
 * @path: of the lock, which is not the record: the pager gets a descriptor of
 *        it that it can write to
 *
 * The lock belongs to the open file description: it is held until the last
 * descriptor of it is closed, in whatever process.
 *
 * Returns a descriptor with the lock held, -EAGAIN if a pager holds it, or
 * -errno.
 */
int mm_lock_take(const char *path);

#endif
