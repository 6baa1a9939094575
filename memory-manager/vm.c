/*
 * qemu-memory-manager: one VM, from attach to removal
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A VM exists as long as its QEMU process, unless it is detached, or was never
 * attached to the end: what the pager does, or how often it dies, does not
 * matter. A QEMU that has lost its
 * pager depends on the cookie in the record here, since nobody else could
 * tell its new pager from a stranger. vm-pager.c has what concerns the pager.
 */
#include "qemu/osdep.h"
#include <sys/random.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "memory-manager/qapi/qapi-events-memory-manager.h"
#include "host-swap.h"
#include "shared-file.h"
#include "takeover.h"
#include "tier-plan.h"
#include "trace.h"
#include "vm.h"
#include "vm-tiers.h"

/* How long a pager may take to end after its QEMU has. */
#define CLOSING_GRACE_MS 5000
/*
 * How long a pager may take until it serves: more than it waits itself for a
 * QEMU that does not say what to resume.
 */
#define STARTING_LIMIT_MS 15000
/* How often to ask a pager that was found running. */
#define ADOPTING_RETRY_MS 500
/* What is shown where there is no room for a UUID, to name a VM by. */
#define MIN_UUID_PREFIX 8

static void look_after_pager(void *opaque)
{
    MmVM *vm = opaque;

    if (vm->state == MANAGEDVM_STATE_CLOSING && vm->pager) {
        warn_report("VM %s: pager %d does not end by itself; killing it",
                    vm->label, (int)mm_process_pid(vm->pager));
        mm_process_kill(vm->pager);
    } else if (vm->state == MANAGEDVM_STATE_STARTING) {
        warn_report("VM %s: pager %d does not start to serve; killing it",
                    vm->label, (int)mm_process_pid(vm->pager));
        mm_process_kill(vm->pager);
    } else if (vm->state == MANAGEDVM_STATE_ADOPTING) {
        mm_vm_connect(vm, NULL);
        timer_mod(vm->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                             ADOPTING_RETRY_MS);
    } else {
        mm_vm_report_lost(vm);
    }
}

void mm_vm_set_state(MmVM *vm, ManagedVMState to)
{
    assert(mm_vm_edge_is_legal(vm->state, to));
    trace_mm_vm_state(vm->uuid_text, ManagedVMState_str(vm->state),
                      ManagedVMState_str(to));
    vm->state = to;
    if (to == MANAGEDVM_STATE_STARTING) {
        timer_mod(vm->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                             STARTING_LIMIT_MS);
    }
}

static MmVM *new_vm(MmManager *mgr, const MmRecord *rec, ManagedVMState state)
{
    MmVM *vm = g_new0(MmVM, 1);

    vm->mgr = mgr;
    vm->rec = *rec;
    vm->state = state;
    memcpy(vm->uuid.data, rec->uuid, MM_UUID_LEN);
    qemu_uuid_unparse(&vm->uuid, vm->uuid_text);
    vm->label = rec->name[0]
        ? g_strdup_printf("%s (%s)", vm->uuid_text, rec->name)
        : g_strdup(vm->uuid_text);
    vm->record_path = mm_rundir_file(&mgr->dir, &vm->uuid, MM_SUFFIX_RECORD);
    vm->lock_path = mm_rundir_file(&mgr->dir, &vm->uuid, MM_SUFFIX_LOCK);
    vm->socket_path = mm_rundir_file(&mgr->dir, &vm->uuid, MM_SUFFIX_SOCKET);
    vm->timer = timer_new_ms(QEMU_CLOCK_REALTIME, look_after_pager, vm);
    vm->log = mm_pager_log_new(vm->label);
    mm_condition_init(vm);
    mm_vm_tiers_new(vm);
    mm_snapshot_init(&vm->snapshot);
    QTAILQ_INSERT_TAIL(&mgr->vms, vm, next);
    return vm;
}

/* Names are shown on terminals and in logs. */
void mm_vm_copy_name(char *to, const char *from)
{
    int i;

    for (i = 0; i < MM_NAME_LEN - 1 && from[i]; i++) {
        to[i] = g_ascii_isprint(from[i]) ? from[i] : '?';
    }
    to[i] = '\0';
}

static bool make_record(const MmOptions *opts, MmRecord *rec,
                        const MmHelloPeer *peer, Error **errp)
{
    QemuUUID uuid;

    qemu_uuid_generate(&uuid);
    *rec = (MmRecord) {
        .magic = MM_RECORD_MAGIC,
        .version = MM_RECORD_VERSION,
        .qemu_uid = peer->uid,
        .qemu_pid = peer->pid,
    };
    memcpy(rec->uuid, uuid.data, MM_UUID_LEN);
    mm_vm_copy_name(rec->name, peer->hello->name);
    if (!mm_tier_plan_new(rec, opts, errp)) {
        return false;
    }
    if (getrandom(rec->cookie, MM_COOKIE_LEN, 0) != MM_COOKIE_LEN) {
        error_setg_errno(errp, errno, "cannot get random bytes");
        return false;
    }
    return true;
}

static void check_host_swap(MmVM *vm)
{
    vm->host_swap = mm_host_swap_may_hit(vm->rec.qemu_pid);
    if (vm->host_swap) {
        warn_report("VM %s: the kernel may swap this VM's memory, but for huge "
                    "pages, a second time. Set memory.swap.max=0 on its cgroup (v2), or "
                    "switch the host's swap off.", vm->label);
    }
}

bool mm_vm_attach(MmManager *mgr, const MmHelloPeer *peer, Error **errp)
{
    MmRecord rec;
    MmVM *vm;

    if (!make_record(&mgr->opts, &rec, peer, errp)) {
        return false;
    }
    vm = new_vm(mgr, &rec, MANAGEDVM_STATE_LOST);
    vm->attaching = true;
    vm->qemu = mm_process_open_peer(peer->sock, peer->pid, mm_vm_qemu_exit, vm,
                                    errp);
    if (vm->qemu) {
        check_host_swap(vm);
        vm->rec.qemu_start = mm_process_start(vm->qemu);
        if (mm_record_write(vm->record_path, &vm->rec, errp) &&
            mm_vm_start_pager(vm, peer->sock, peer->seq, peer->version, false,
                              errp)) {
            qapi_event_send_managed_vm_attached(vm->uuid_text, vm->rec.name);
            return true;
        }
    }
    if (vm->pager) {
        mm_vm_close(vm);        /* it ends, having got no START */
    } else {
        mm_vm_free(vm);
    }
    return false;
}

static void adopt_running_pager(MmVM *vm)
{
    Error *err = NULL;

    vm->pager = mm_process_open(vm->rec.pager_pid, vm->rec.pager_start,
                                mm_vm_pager_exit, vm, &err);
    if (!vm->pager) {
        error_reportf_err(err, "VM %s: its lock is held, but not by the "
                          "process of the record: ", vm->uuid_text);
        mm_vm_set_state(vm, MANAGEDVM_STATE_LOST);
        return;
    }
    info_report("VM %s: found again, pager %d", vm->label,
                (int)vm->rec.pager_pid);
    look_after_pager(vm);
}

/* A lock that is gone was held by nobody: it is made before the pager. */
static bool pager_exists(const MmVM *vm)
{
    int lock = mm_lock_take(vm->lock_path);

    if (lock >= 0) {
        close(lock);
    }
    return lock == -EAGAIN;
}

void mm_vm_adopt(MmManager *mgr, const MmRecord *rec)
{
    MmVM *vm = new_vm(mgr, rec, MANAGEDVM_STATE_ADOPTING);

    if (pager_exists(vm)) {
        adopt_running_pager(vm);
    } else {
        mm_vm_set_state(vm, MANAGEDVM_STATE_LOST);
        unlink(vm->socket_path);
        vm->had_pager_lost = true;
    }
    vm->qemu = mm_process_open(rec->qemu_pid, rec->qemu_start,
                               mm_vm_qemu_exit, vm, NULL);
    if (!vm->qemu || rec->detached) {
        mm_vm_close(vm);
        return;
    }
    check_host_swap(vm);
    if (vm->state == MANAGEDVM_STATE_LOST) {
        info_report("VM %s: found without a pager; waiting for its QEMU, "
                    "process %d", vm->label, rec->qemu_pid);
    }
}

void mm_vm_qemu_exit(void *opaque, const char *how, int status)
{
    MmVM *vm = opaque;

    mm_process_close(vm->qemu);
    vm->qemu = NULL;
    mm_vm_close(vm);
}

static ManagedVMRemovedReason removed_reason(const MmVM *vm)
{
    return vm->rec.detached ? MANAGEDVM_REMOVED_REASON_DETACHED
           : vm->unused ? MANAGEDVM_REMOVED_REASON_ATTACH_FAILED
           : MANAGEDVM_REMOVED_REASON_QEMU_ENDED;
}

void mm_vm_close(MmVM *vm)
{
    ManagedVMRemovedReason reason;

    mm_takeover_abort(vm, "the VM is being removed");
    if (vm->state != MANAGEDVM_STATE_CLOSING) {
        mm_vm_set_state(vm, MANAGEDVM_STATE_CLOSING);
    }
    if (vm->pager) {
        timer_mod(vm->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                             CLOSING_GRACE_MS);
        return;
    }
    reason = removed_reason(vm);
    info_report("VM %s: removed, %s", vm->label,
                ManagedVMRemovedReason_str(reason));
    qapi_event_send_managed_vm_removed(vm->uuid_text, vm->rec.name, reason);
    mm_vm_free(vm);
}

void mm_vm_free(MmVM *vm)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        mm_shared_remove(&vm->rec.tiers[i]);
    }
    unlink(vm->socket_path);
    unlink(vm->record_path);
    unlink(vm->lock_path);
    QTAILQ_REMOVE(&vm->mgr->vms, vm, next);
    mm_takeover_abort(vm, "the VM is being removed");
    mm_link_free(vm->link);
    mm_pager_log_free(vm->log);
    vm->link = NULL;
    mm_process_close(vm->pager);
    mm_process_close(vm->qemu);
    timer_free(vm->timer);
    mm_condition_clear(vm);
    mm_vm_tiers_free(vm);
    mm_operation_clear(&vm->operation);
    g_free(vm->lost_how);
    mm_snapshot_clear(&vm->snapshot);
    g_free(vm->label);
    g_free(vm->record_path);
    g_free(vm->lock_path);
    g_free(vm->socket_path);
    g_free(vm);
}

MmVM *mm_vm_by_uuid(MmManager *mgr, const uint8_t *uuid)
{
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        if (!memcmp(vm->uuid.data, uuid, MM_UUID_LEN)) {
            return vm;
        }
    }
    return NULL;
}

bool mm_vm_matches(const MmVM *vm, const char *id)
{
    size_t len = strlen(id);

    /* a VM without a name is not the one that an empty variable means */
    return (len >= MIN_UUID_PREFIX &&
            !g_ascii_strncasecmp(vm->uuid_text, id, len)) ||
           (len && g_str_equal(vm->rec.name, id));
}

MmVM *mm_vm_find(MmManager *mgr, const char *id, Error **errp)
{
    MmVM *found = NULL;
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        if (!g_ascii_strcasecmp(vm->uuid_text, id)) {
            return vm;      /* whoever has chosen this for a name */
        }
    }
    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        if (!mm_vm_matches(vm, id)) {
            continue;
        }
        if (found) {
            error_setg(errp, "'%s' names several VMs; use the UUID that "
                       "query-managed-vms, or 'qemu-memctl list', shows", id);
            return NULL;
        }
        found = vm;
    }
    if (!found) {
        error_setg(errp, "there is no VM with the UUID or name '%s'; "
                   "query-managed-vms, or 'qemu-memctl list', shows all", id);
    }
    return found;
}

void mm_vm_count(MmManager *mgr, const MmHelloPeer *peer, uint32_t *user,
                 uint32_t *process)
{
    MmVM *vm;

    *user = *process = 0;
    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        *user += vm->rec.qemu_uid == peer->uid;
        *process += vm->rec.qemu_pid == peer->pid;
    }
}
