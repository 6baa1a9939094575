/*
 * qemu-memory-manager: how much may still be written to a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A flash device stands so many bytes written per day for as long as it is to
 * last.  The account of a tier is credited with them at a constant rate, up to
 * one day's, and charged with what its VMs write.
 */
#ifndef MEMORY_MANAGER_WRITE_ACCOUNT_H
#define MEMORY_MANAGER_WRITE_ACCOUNT_H

typedef struct MmWriteAccount {
    uint64_t per_day;           /* bytes; 0: no budget */
    double left;                /* bytes; below 0, to -per_day: beyond it */
    int64_t at_ms;              /* up to when it was credited */
    bool exhausted;             /* until there is something on it again */
} MmWriteAccount;

/**
 * mm_account_open: begin with @left bytes
 *
 * @per_day: 0: no budget
 * @left: at most @per_day counts
 * @now_ms: of a clock that goes on while nobody looks
 */
void mm_account_open(MmWriteAccount *a, uint64_t per_day, double left,
                     int64_t now_ms);

/**
 * mm_account_set: another budget
 *
 * What was used of the old one was used; what is beyond the new one is not
 * held against it.
 */
void mm_account_set(MmWriteAccount *a, uint64_t per_day, int64_t now_ms);

/**
 * mm_account_charge: @bytes have been written since the last call
 *
 * Returns whether @a->exhausted has changed.
 */
bool mm_account_charge(MmWriteAccount *a, uint64_t bytes, int64_t now_ms);

#endif
