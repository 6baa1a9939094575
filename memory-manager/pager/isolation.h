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

/**
 * mm_isolation_seccomp: allow the system calls of a serving pager only
 *
 * @proc_fd: directory in which descriptors may be reopened
 * @task_fd: directory in which QEMU's threads may be looked at, or -1
 *
 * Holds for all threads, which have to exist.
 */
bool mm_isolation_seccomp(int proc_fd, int task_fd, Error **errp);

#endif
