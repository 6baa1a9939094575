/*
 * qemu-memory-manager: a process that is watched
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_PROCESS_H
#define MEMORY_MANAGER_PROCESS_H

typedef struct MmProcess MmProcess;

/* Instead of an exit status. */
#define MM_STATUS_UNKNOWN (-1)      /* not our child */
#define MM_STATUS_KILLED (-2)

/**
 * MmProcessExitFn: the process has ended
 *
 * Called once, from the main loop. May free the MmProcess.
 *
 * @how: how it ended, for people
 * @status: exit status, or what stands for it
 */
typedef void MmProcessExitFn(void *opaque, const char *how, int status);

/**
 * mm_process_open: watch a process by PID
 *
 * @pid: of the process
 * @start: its start time as mm_process_start() tells it; 0: any
 * @fn: called with @opaque when the process has ended
 *
 * Fails if there is no such process, or another one has its PID now.
 */
MmProcess *mm_process_open(pid_t pid, uint64_t start,
                           MmProcessExitFn *fn, void *opaque, Error **errp);

/**
 * mm_process_open_peer: watch the process at the other end of a connection
 *
 * @sock: unix socket; the process is the one that called connect()
 * @pid: its PID, from SO_PEERCRED
 */
MmProcess *mm_process_open_peer(int sock, pid_t pid,
                                MmProcessExitFn *fn, void *opaque,
                                Error **errp);

/** mm_process_close: stop to watch; NULL is allowed. */
void mm_process_close(MmProcess *proc);

/** mm_process_runs: whether it has not ended, noticed or not. */
bool mm_process_runs(const MmProcess *proc);

pid_t mm_process_pid(const MmProcess *proc);

/** mm_process_start: start time in clock ticks since boot. */
uint64_t mm_process_start(const MmProcess *proc);

/** mm_process_kill: send SIGKILL to this very process. */
void mm_process_kill(MmProcess *proc);

#endif
