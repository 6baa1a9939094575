/*
 * qemu-memory-manager: the cgroups of a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MEMORY_MANAGER_CGROUP_H
#define MEMORY_MANAGER_CGROUP_H

/**
 * mm_cgroup_dirs: directories of the cgroups that a process is in
 *
 * @cgroups: content of the process's /proc/PID/cgroup
 * @mountinfo: content of our own /proc/self/mountinfo
 *
 * cgroup v1: one for each hierarchy of cpu, cpuacct, memory and blkio; v2: the
 * one, if it has controllers. Pure: no I/O.
 *
 * Returns an array of strings; free with g_ptr_array_unref().
 */
GPtrArray *mm_cgroup_dirs(const char *cgroups, const char *mountinfo);

/**
 * mm_cgroup_dirs_of: the same for a process that runs
 *
 * Returns NULL if it cannot be found out.
 */
GPtrArray *mm_cgroup_dirs_of(pid_t pid, Error **errp);

/**
 * mm_cgroup_join: put a process into the cgroups of another one
 *
 * @pid: the process that moves, a child of ours that is where we are
 * @model: the process whose cgroups it joins
 *
 * Returns false if at least one cgroup could not be joined.
 */
bool mm_cgroup_join(pid_t pid, pid_t model, Error **errp);

#endif
