/*
 * qemu-memory-manager: operations on a VM that take long
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Main thread only.
 */
#ifndef MEMORY_MANAGER_OPERATION_H
#define MEMORY_MANAGER_OPERATION_H

#include "memory-manager/qapi/qapi-types-memory-manager.h"

struct MmVM;

/* The operation that runs, or the last one that did; @id 0: none ever. */
typedef struct MmOperation {
    uint64_t id;
    ManagedVMOperationType type;
    ManagedVMOperationStatus status;
    int64_t started_ms;
    int64_t ended_ms;
    uint64_t evicted;
    char *error;
} MmOperation;

/**
 * mm_operation_start: start one; its end is told by an event
 *
 * @bytes: evict: how much
 *
 * Returns a description for QMP, or NULL.
 */
ManagedVMOperation *mm_operation_start(struct MmVM *vm,
                                       ManagedVMOperationType type,
                                       uint64_t bytes, Error **errp);

/**
 * mm_operation_begin: note that an operation begins
 *
 * Whoever carries it out ends it with mm_operation_end(). Returns false and
 * sets @errp if another one runs.
 */
bool mm_operation_begin(struct MmVM *vm, ManagedVMOperationType type,
                        Error **errp);

/** mm_operation_end: it is done, or has failed with @error; tell everybody. */
void mm_operation_end(struct MmVM *vm, const char *error);

/** mm_operation_running: does one? */
bool mm_operation_running(const struct MmVM *vm);

/** mm_operation_describe: for QMP; NULL if there never was one. */
ManagedVMOperation *mm_operation_describe(const MmOperation *op);

/** mm_operation_clear: free what it holds, not itself. */
void mm_operation_clear(MmOperation *op);

#endif
