/*
 * Managed memory qtests: a memory manager of their own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each test starts the real manager on temporary folders, so that tests
 * neither see each other nor a manager of the host. All functions fail the
 * test when something takes too long or goes wrong, except where they say
 * otherwise. One thread only.
 */
#ifndef TESTS_MANAGED_MEMORY_HOST_H
#define TESTS_MANAGED_MEMORY_HOST_H

#include "qapi/qmp/qdict.h"

/* How long anything may take that takes a moment, in milliseconds */
#define MM_WAIT_MS 40000

/* Fails the test with a message, as g_assert_*() do. */
#define mm_fail(...) \
    do { \
        g_autofree char *mm_why = g_strdup_printf(__VA_ARGS__); \
        g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, \
                            mm_why); \
        abort(); \
    } while (0)

typedef struct MmHost {
    char *dir;                  /* removed at the end */
    char *run_dir;
    char *tier_dir;
    char *attach;               /* path of the attach socket */
    char *log;                  /* output of manager and pagers */
    char *args;                 /* further arguments of the manager */
    GPid pid;                   /* of the manager, 0: it does not run */
    int qmp;                    /* connection to its monitor, or -1 */
    GList *events;              /* QDict, oldest first */
} MmHost;

/**
 * mm_host_new: start a manager
 *
 * @args: further arguments, separated by spaces, or NULL. An argument
 *        --tier or --pager replaces the default.
 */
MmHost *mm_host_new(const char *args);

/**
 * mm_host_new_failing: start a manager whose pagers interfere with themselves
 *
 * @failpoints: for MM_FAILPOINT of qemu-memory-pager-test
 * @args: as for mm_host_new()
 */
MmHost *mm_host_new_failing(const char *failpoints, const char *args);

/**
 * mm_host_free: end the manager; all QEMUs have ended before
 *
 * Checks that nothing is left of any VM, no process, no file in memory or on
 * disk, and that the manager ends well.
 */
void mm_host_free(MmHost *host);

/**
 * mm_host_guard: call this after each start of QEMU
 *
 * Has a failing test kill QEMU, which may be unable to end by itself.
 */
void mm_host_guard(MmHost *host);

/** mm_host_start: start the manager again, on the same folders */
void mm_host_start(MmHost *host);

/** mm_host_kill: end the manager by SIGKILL; pagers go on */
void mm_host_kill(MmHost *host);

/**
 * mm_host_path: name of a file in the host's folder
 *
 * The file need not exist. Caller frees the result.
 */
char *mm_host_path(const MmHost *host, const char *name);

/** mm_host_qmp: run a command of the manager's monitor, return its answer */
QDict *mm_host_qmp(MmHost *host, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/** mm_host_event: wait for an event of the manager, return its data */
QDict *mm_host_event(MmHost *host, const char *name);

/* What the manager says about a VM; sizes in bytes */
typedef struct MmVmInfo {
    char name[64];
    char state[16];
    char uuid[40];
    pid_t qemu_pid;
    pid_t pager_pid;            /* 0: none */
    bool stale;
    bool busy;                  /* with an operation */
    uint64_t size;
    uint64_t limit;             /* UINT64_MAX: none */
    uint64_t resident;
    uint64_t zero;
    uint64_t swapped;
    uint64_t never;
    uint64_t dma_held;
    uint64_t stalled;           /* threads */
    uint64_t pager_starts;
    uint64_t write_errors;
    uint64_t read_errors;
    uint64_t discarded;         /* pages */
    uint64_t overwritten;
    unsigned regions;
} MmVmInfo;

/**
 * mm_host_vm: ask the manager for a VM
 *
 * @name: its name, or NULL for the only one
 *
 * Returns false if there is no such VM.
 */
bool mm_host_vm(MmHost *host, const char *name, MmVmInfo *info);

/** mm_host_wait_gone: wait until the manager has forgotten all VMs */
void mm_host_wait_gone(MmHost *host);

/**
 * mm_host_operation: run evict, swap-in or detach to its end
 *
 * @name: of the VM, NULL for the only one
 * @command: "evict", "swap-in" or "detach"
 *
 * Returns NULL, or the error that the operation has ended with.
 */
char *mm_host_operation(MmHost *host, const char *name, const char *command);

/**
 * mm_host_evict_all: evict until nothing is resident
 *
 * @keep: bytes that may stay
 */
void mm_host_evict_all(MmHost *host, const char *name, uint64_t keep);

/** mm_stop_process: SIGSTOP, and wait until all threads stand still */
void mm_stop_process(pid_t pid);

/** mm_host_log: all that manager and pagers have printed; free the result */
char *mm_host_log(const MmHost *host);

#endif
