/*
 * qemu-memory-manager: one VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 *
 *                 manager restarted                QEMU attaches
 *                         |                              |
 *                     ADOPTING ------------------> STARTING <---.
 *                         |  \                        |   |     | RESUME, and
 *                         |   `-----> SERVING <-------'   |     | the old pager
 *                         |              |                |     | proven dead
 *                         |              v    pager died  |     |
 *                         `---------->  LOST <------------' ----'
 *
 *       any --- QEMU has ended, or is detached,
 *               or has failed to attach ---> CLOSING ---> freed
 *
 * States are those of QMP (ManagedVMState, where they are explained):
 *
 * ADOPTING  @pager runs, @link may be NULL. Leaves when the pager answers.
 * STARTING  @pager runs. Leaves when the pager says that it serves; it is
 *           killed if it does not within some seconds.
 * SERVING   @pager runs.
 * LOST      no @pager, no @link; @qemu runs. A takeover may be under way.
 * CLOSING   @pager runs; when it ends, the VM is freed.
 *
 * @link is NULL whenever the pager has closed it, in any state; it is made
 * anew when it is needed. A takeover can be under way in all states but
 * CLOSING: it waits for LOST.
 */
#ifndef MEMORY_MANAGER_VM_H
#define MEMORY_MANAGER_VM_H

#include "qapi/qapi-builtin-types.h"
#include "memory-manager/qapi/qapi-types-memory-manager.h"
#include "qemu/timer.h"
#include "qemu/uuid.h"
#include "condition.h"
#include "link.h"
#include "manager.h"
#include "operation.h"
#include "pager-log.h"
#include "process.h"
#include "record.h"
#include "snapshot.h"
#include "vm-state.h"
#include "write-budget.h"

typedef struct MmTakeover MmTakeover;
typedef struct MmTierChange MmTierChange;

struct MmVM {
    /* fixed after creation */
    MmManager *mgr;
    QemuUUID uuid;
    char uuid_text[UUID_FMT_LEN + 1];
    char *label;                /* for the log: UUID and, if any, name */
    char *record_path;
    char *lock_path;
    char *socket_path;

    MmRecord rec;               /* as it is on disk */
    bool host_swap;             /* the kernel may swap it, too */
    ManagedVMState state;       /* set by mm_vm_set_state() only */
    MmProcess *qemu;            /* NULL once it has ended */
    MmProcess *pager;
    MmLink *link;
    MmPagerLog *log;
    bool attaching;             /* that it has attached is to be logged */
    bool fresh;                 /* the one pager so far was not for a resume */
    MmTakeover *takeover;       /* a QEMU that waits to resume */
    /* ADOPTING: ask again; STARTING, CLOSING: kill pager; LOST: report it */
    QEMUTimer *timer;

    bool unused;                /* QEMU cannot resume: it has no userfaultfd */
    char *lost_how;             /* PAGER_LOST is due for process @lost_pid */
    pid_t lost_pid;
    bool had_pager_lost;        /* RECOVERED is due */
    int64_t serving_since_ms;   /* 0: the current pager has not served yet */
    uint32_t deaths;            /* pagers that died in a row */
    int64_t not_before_ms;      /* of the next pager's start */

    bool replacing;             /* the pager is being killed for another one */
    MmTierChange *tier_change;
    struct MmRenaming *renaming; /* of a file of it, or NULL: handover.c */
    bool looks_for_room;        /* a thread does: room.c */

    MmConditions conditions;
    MmSnapshot snapshot;
    MmVMWrites writes;
    MmOperation operation;
    QTAILQ_ENTRY(MmVM) next;
};

/* A QEMU that has said HELLO. */
typedef struct MmHelloPeer {
    int sock;                   /* stays the caller's */
    pid_t pid;                  /* from SO_PEERCRED */
    uid_t uid;
    uint32_t version;           /* chosen from HELLO's range */
    uint64_t seq;               /* of HELLO */
    const MmMsgHello *hello;
} MmHelloPeer;

/** mm_vm_copy_name: make @from, of a HELLO, a name of MM_NAME_LEN bytes. */
void mm_vm_copy_name(char *to, const char *from);

/** mm_vm_attach: make a VM for a QEMU and start its pager. */
bool mm_vm_attach(MmManager *mgr, const MmHelloPeer *peer, Error **errp);

/**
 * mm_vm_adopt: make a VM from the record of an earlier manager
 *
 * The files of the VM are kept or removed as needed.
 */
void mm_vm_adopt(MmManager *mgr, const MmRecord *rec);

/**
 * mm_vm_start_pager: start a pager and hand the VM over to it
 *
 * @sock: connection from QEMU, its HELLO read; stays the caller's
 * @seq: of HELLO
 * @version: of the protocol
 * @resume: whether it takes the VM over from another pager
 *
 * No pager may run. Fails with EAGAIN in @err if one still holds the lock.
 */
bool mm_vm_start_pager(MmVM *vm, int sock, uint64_t seq, uint32_t version,
                       bool resume, Error **errp);

/**
 * mm_vm_replace_pager: end the pager, so that the VM gets another one
 *
 * With what the record says then. As when it dies, but nobody complains.
 */
void mm_vm_replace_pager(MmVM *vm);

/** mm_vm_connect: make a link to the pager if there is none. */
bool mm_vm_connect(MmVM *vm, Error **errp);

/** mm_vm_handle_info: the pager has told its state. */
void mm_vm_handle_info(MmVM *vm, const MmMsgControlInfo *info);

/** mm_vm_pager_exit: MmProcessExitFn of @pager. */
void mm_vm_pager_exit(void *opaque, const char *how, int status);

/** mm_vm_report_lost: tell that there is no pager, if that is still due. */
void mm_vm_report_lost(MmVM *vm);

/** mm_vm_qemu_exit: MmProcessExitFn of @qemu. */
void mm_vm_qemu_exit(void *opaque, const char *how, int status);

/**
 * mm_vm_close: QEMU has ended or let go of its pager
 *
 * Frees the VM if no pager runs; otherwise the pager gets some seconds to end
 * by itself.
 */
void mm_vm_close(MmVM *vm);

/** mm_vm_free: remove the files of a VM and free it. */
void mm_vm_free(MmVM *vm);

/** mm_vm_set_state: the only way to change the state; @to must be legal. */
void mm_vm_set_state(MmVM *vm, ManagedVMState to);

MmVM *mm_vm_by_uuid(MmManager *mgr, const uint8_t *uuid);

/** mm_vm_matches: is @id the name of the VM, or does its UUID begin so? */
bool mm_vm_matches(const MmVM *vm, const char *id);

/** mm_vm_find: the one VM with this UUID or name, or NULL. */
MmVM *mm_vm_find(MmManager *mgr, const char *id, Error **errp);

/** mm_vm_count: number of VMs of the user and of the process of a peer. */
void mm_vm_count(MmManager *mgr, const MmHelloPeer *peer, uint32_t *user,
                 uint32_t *process);

#endif
