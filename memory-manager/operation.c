/*
 * qemu-memory-manager: operations on a VM that take long
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's QMP dispatcher runs one command at a time, over all of a program's
 * monitors. A command that waited for an eviction would stop everybody else's
 * queries, so it only starts it; an event tells the end, and a query shows how
 * it went to those who have missed the event.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/qapi/qapi-events-memory-manager.h"
#include "vm.h"
#include "trace.h"

static uint64_t last_id;

static const struct {
    MmMsgType request;
    MmMsgType answer;
} messages[MANAGEDVM_OPERATION_TYPE__MAX] = {
    [MANAGEDVM_OPERATION_TYPE_EVICT] = { MM_MSG_EVICT, MM_MSG_AMOUNT },
    [MANAGEDVM_OPERATION_TYPE_SWAP_IN] = { MM_MSG_SWAP_IN, MM_MSG_OK },
    [MANAGEDVM_OPERATION_TYPE_DETACH] = { MM_MSG_DETACH, MM_MSG_OK },
};

ManagedVMOperation *mm_operation_describe(const MmOperation *op)
{
    ManagedVMOperation *out;
    bool running = op->status == MANAGEDVM_OPERATION_STATUS_RUNNING;

    if (!op->id) {
        return NULL;
    }
    out = g_new0(ManagedVMOperation, 1);
    out->id = op->id;
    out->type = op->type;
    out->status = op->status;
    out->elapsed_ms = (running ? qemu_clock_get_ms(QEMU_CLOCK_REALTIME)
                               : op->ended_ms) - op->started_ms;
    out->has_evicted = op->type == MANAGEDVM_OPERATION_TYPE_EVICT &&
                       op->status == MANAGEDVM_OPERATION_STATUS_DONE;
    out->evicted = op->evicted;
    out->has_error = op->error;
    out->error = g_strdup(op->error);
    return out;
}

bool mm_operation_running(const MmVM *vm)
{
    return vm->operation.id &&
           vm->operation.status == MANAGEDVM_OPERATION_STATUS_RUNNING;
}

static bool is_free(const MmVM *vm, Error **errp)
{
    const MmOperation *op = &vm->operation;

    if (mm_operation_running(vm)) {
        error_setg(errp, "VM %s is busy with operation %" PRIu64 " (%s); wait "
                   "for its end", vm->uuid_text, op->id,
                   ManagedVMOperationType_str(op->type));
        return false;
    }
    return true;
}

static void begin(MmVM *vm, ManagedVMOperationType type)
{
    mm_operation_clear(&vm->operation);
    vm->operation = (MmOperation) {
        .id = ++last_id,
        .type = type,
        .status = MANAGEDVM_OPERATION_STATUS_RUNNING,
        .started_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME),
    };
}

bool mm_operation_begin(MmVM *vm, ManagedVMOperationType type, Error **errp)
{
    if (!is_free(vm, errp)) {
        return false;
    }
    begin(vm, type);
    return true;
}

void mm_operation_end(MmVM *vm, const char *error)
{
    g_autoptr(ManagedVMOperation) out = NULL;
    MmOperation *op = &vm->operation;

    op->ended_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    op->status = error ? MANAGEDVM_OPERATION_STATUS_FAILED
                       : MANAGEDVM_OPERATION_STATUS_DONE;
    op->error = g_strdup(error);
    trace_mm_operation_end(vm->uuid_text, ManagedVMOperationType_str(op->type),
                           ManagedVMOperationStatus_str(op->status));
    out = mm_operation_describe(op);
    qapi_event_send_managed_vm_operation_completed(vm->uuid_text, vm->rec.name,
                                                   out);
}

static void operation_answered(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;
    MmOperation *op = &vm->operation;
    Error *err = NULL;

    if (!mm_reply_ok(msg, messages[op->type].answer, &err)) {
        mm_operation_end(vm, error_get_pretty(err));
        error_free(err);
        return;
    }
    if (op->type == MANAGEDVM_OPERATION_TYPE_EVICT) {
        op->evicted = ((const MmMsgAmount *)msg->payload)->value;
    }
    mm_operation_end(vm, NULL);
    if (op->type == MANAGEDVM_OPERATION_TYPE_DETACH) {
        vm->rec.detached = 1;
        mm_record_write(vm->record_path, &vm->rec, NULL);
        mm_vm_close(vm);
    }
}

ManagedVMOperation *mm_operation_start(MmVM *vm, ManagedVMOperationType type,
                                       uint64_t bytes, Error **errp)
{
    MmMsgAmount amount = { .value = bytes };
    bool sized = type == MANAGEDVM_OPERATION_TYPE_EVICT;

    assert(messages[type].request != MM_MSG_INVALID);
    if (!is_free(vm, errp) || !mm_vm_connect(vm, errp) ||
        !mm_link_request(vm->link, messages[type].request,
                         sized ? &amount : NULL, sized ? sizeof(amount) : 0,
                         operation_answered, vm, errp)) {
        return NULL;
    }
    begin(vm, type);
    return mm_operation_describe(&vm->operation);
}

void mm_operation_clear(MmOperation *op)
{
    g_free(op->error);
    op->error = NULL;
}
