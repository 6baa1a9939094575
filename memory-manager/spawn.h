/*
 * qemu-memory-manager: starting a pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_SPAWN_H
#define MEMORY_MANAGER_SPAWN_H

#include "options.h"
#include "record.h"

/**
 * mm_spawn_pager: make a process that runs the pager's program
 *
 * @opts: says which, and whether it joins cgroups
 * @qemu_pid: whose cgroups to join
 * @log: its standard error; stays the caller's
 * @control: the manager's end of the control socket, non-blocking
 *
 * The pager waits for its START messages; if the manager dies before they are
 * sent, it exits.
 *
 * Returns its PID, or -1.
 */
pid_t mm_spawn_pager(const MmOptions *opts, pid_t qemu_pid, int log,
                     int *control, Error **errp);

/* What a pager starts with besides its tiers; all stay the caller's. */
typedef struct MmStartFds {
    int connection;
    int listen;
    int lock;
} MmStartFds;

/**
 * mm_spawn_send_start: send a fresh pager its START_TIER and START messages
 *
 * @control: of mm_spawn_pager()
 * @rec: names the tiers; if this is no resume, those of @opts
 */
bool mm_spawn_send_start(int control, const MmOptions *opts,
                         const MmRecord *rec, const MmMsgStart *start,
                         const MmStartFds *fds, Error **errp);

#endif
