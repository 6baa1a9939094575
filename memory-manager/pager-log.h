/*
 * qemu-memory-manager: what pagers print
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_PAGER_LOG_H
#define MEMORY_MANAGER_PAGER_LOG_H

/* Of one VM, for all its pagers. */
typedef struct MmPagerLog MmPagerLog;

/** mm_pager_log_new: for a VM; @label: of the VM, stays the caller's. */
MmPagerLog *mm_pager_log_new(const char *label);

/**
 * mm_pager_log_open: make a pipe, and log what comes out of it
 *
 * There may be none open. Returns the end for the pager's standard error,
 * which the caller closes, or -1.
 */
int mm_pager_log_open(MmPagerLog *log, Error **errp);

/** mm_pager_log_is_open: is there a pipe that the pager has not closed? */
bool mm_pager_log_is_open(const MmPagerLog *log);

/** mm_pager_log_set_pid: name the process in the log from now on. */
void mm_pager_log_set_pid(MmPagerLog *log, pid_t pid);

/** mm_pager_log_close: log what is left in the pipe, and close it. */
void mm_pager_log_close(MmPagerLog *log);

/** mm_pager_log_free: close, and free. */
void mm_pager_log_free(MmPagerLog *log);

#endif
