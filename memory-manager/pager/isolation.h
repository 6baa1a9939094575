/*
 * Managed memory pager: giving up rights
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MANAGED_MEMORY_ISOLATION_H
#define MANAGED_MEMORY_ISOLATION_H

/** mm_isolation_harden: what needs no thought; first thing in main(). */
void mm_isolation_harden(void);

/** mm_isolation_lock_program: keep it in memory; before anything is mapped. */
void mm_isolation_lock_program(void);

/**
 * mm_isolation_proc_fd: a detached mount that holds /proc/self/fd alone
 *
 * Descriptors can be reopened through it, and nothing else can be reached.
 * Returns a descriptor, or -1.
 */
int mm_isolation_proc_fd(Error **errp);

/** mm_isolation_detach: a detached mount of one directory; fd, or -errno. */
int mm_isolation_detach(const char *path);

/**
 * mm_isolation_namespaces: an empty root, no network, no capabilities
 *
 * Single-threaded.
 */
bool mm_isolation_namespaces(Error **errp);

/* What is open, and may be used as nothing else may. */
typedef struct MmIsolationFds {
    int proc;                   /* folder in which our own may be reopened */
    int task;                   /* in which QEMU's threads may be looked at */
    int probe_uffd;             /* MmVM's; the last two: or -1 */
} MmIsolationFds;

/**
 * mm_isolation_seccomp: allow the system calls of a serving pager only
 *
 * Holds for all threads, which have to exist.
 */
bool mm_isolation_seccomp(const MmIsolationFds *fds, Error **errp);

#endif
