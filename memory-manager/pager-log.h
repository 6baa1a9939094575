/*
 * qemu-memory-manager: what pagers print
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_PAGER_LOG_H
#define MEMORY_MANAGER_PAGER_LOG_H

typedef struct MmPagerLog MmPagerLog;

/**
 * mm_pager_log_new: make a pipe, and log what comes out of it
 *
 * @label: of the VM, copied
 * @fd: set to the end for the pager's standard error, which the caller closes
 *
 * Returns NULL on failure.
 */
MmPagerLog *mm_pager_log_new(const char *label, int *fd, Error **errp);

/** mm_pager_log_set_pid: name the process in the log from now on. */
void mm_pager_log_set_pid(MmPagerLog *log, pid_t pid);

/** mm_pager_log_free: log what is left, and end; @log may be NULL. */
void mm_pager_log_free(MmPagerLog *log);

#endif
