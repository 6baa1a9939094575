/*
 * qemu-memory-manager: the pager of a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Invariants:
 *
 * P1 A pager is started only by whoever has just taken the lock of the VM, and
 *    the lock is handed to it: there are never two pagers.
 * P2 The record names the pager before it gets START. Thus a manager that is
 *    restarted at any point finds the pager, or the pager ends by itself,
 *    because its control socket closes before START.
 * P3 The manager's copies of connection, listening socket and lock are closed
 *    as soon as START is sent, and no other process has any (spawn.c), so that
 *    their end shows the pager's.
 *
 * A pager that dies again and again is started with a delay that doubles: a
 * guest that crashes its pager at once must not keep a CPU busy.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "memory-manager/qapi/qapi-events-memory-manager.h"
#include "spawn.h"
#include "takeover.h"
#include "vm.h"
#include "vm-tiers.h"
#include "trace.h"

/* Deaths in a row that cost no delay: an operator may kill a pager or two. */
#define FREE_DEATHS 3
#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS 10000
/*
 * A pager that ends by itself does so because QEMU has closed the connection,
 * and QEMU does that when it ends: its process may need a moment longer.
 */
#define LOST_GRACE_MS 200
/* A pager that has served this long is not part of a crash loop. */
#define GOOD_SERVICE_MS 1000

static void link_unasked(void *opaque, const MmMsg *msg);
static void link_closed(void *opaque);

static const MmLinkOps link_ops = {
    .unasked = link_unasked,
    .closed = link_closed,
};

void mm_vm_report_lost(MmVM *vm)
{
    g_autofree char *how = g_steal_pointer(&vm->lost_how);

    if (how) {
        warn_report("VM %s: pager %d %s", vm->label, (int)vm->lost_pid, how);
        qapi_event_send_managed_vm_pager_lost(vm->uuid_text, vm->rec.name,
                                              vm->lost_pid, how);
    }
}

static void now_serving(MmVM *vm)
{
    mm_vm_set_state(vm, MANAGEDVM_STATE_SERVING);
    vm->serving_since_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    if (vm->attaching) {
        vm->attaching = false;
        mm_vm_tiers_held(vm);
        info_report("VM %s: attached, process %d of user %d", vm->label,
                    (int)vm->rec.qemu_pid, (int)vm->rec.qemu_uid);
    }
    if (vm->had_pager_lost) {
        vm->had_pager_lost = false;
        info_report("VM %s: recovered, pager %d", vm->label,
                    (int)vm->rec.pager_pid);
        qapi_event_send_managed_vm_recovered(vm->uuid_text, vm->rec.name,
                                             vm->rec.pager_pid);
    }
    mm_vm_tiers_step(vm);
}

void mm_vm_replace_pager(MmVM *vm)
{
    if (vm->pager) {
        vm->replacing = true;
        mm_process_kill(vm->pager);
    }
}

void mm_vm_handle_info(MmVM *vm, const MmMsgControlInfo *info)
{
    if (memcmp(info->uuid, vm->rec.uuid, MM_UUID_LEN)) {
        error_report("VM %s: pager %d serves another VM", vm->label,
                     (int)vm->rec.pager_pid);
        /* Once per link, however often it says so. */
        link_closed(vm);
        return;
    }
    if (vm->state == MANAGEDVM_STATE_ADOPTING && !info->serving) {
        mm_vm_set_state(vm, MANAGEDVM_STATE_STARTING);
    } else if ((vm->state == MANAGEDVM_STATE_ADOPTING ||
                vm->state == MANAGEDVM_STATE_STARTING) && info->serving) {
        now_serving(vm);
    }
}

static void link_unasked(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;

    if (msg->hdr.type == MM_MSG_CONTROL_INFO) {
        mm_vm_handle_info(vm, (const void *)msg->payload);
    } else if (msg->hdr.type == MM_MSG_EVENT) {
        mm_condition_report(vm, (const void *)msg->payload);
    } else if (msg->hdr.type == MM_MSG_ERROR) {
        const MmMsgError *refusal = (const void *)msg->payload;

        mm_condition_refused_vm(vm, refusal->text);
    }
}

static void link_closed(void *opaque)
{
    MmVM *vm = opaque;
    MmLink *link = vm->link;

    vm->link = NULL;
    mm_link_free(link);
}

static void info_answered(void *opaque, const MmMsg *msg)
{
    if (mm_reply_ok(msg, MM_MSG_CONTROL_INFO, NULL)) {
        mm_vm_handle_info(opaque, (const void *)msg->payload);
    }
}

static bool say_hello(MmVM *vm, Error **errp)
{
    int log = -1;
    bool ok;

    if (!mm_pager_log_is_open(vm->log)) {
        /* it is one of a manager that has ended; without a log it works, too */
        log = mm_pager_log_open(vm->log, NULL);
        mm_pager_log_set_pid(vm->log, vm->rec.pager_pid);
    }
    ok = mm_link_hello(vm->link, log, info_answered, vm, errp);
    if (log >= 0) {
        close(log);
        if (!ok) {
            mm_pager_log_close(vm->log);
        }
    }
    return ok;
}

bool mm_vm_connect(MmVM *vm, Error **errp)
{
    int sock;

    if (vm->link) {
        return true;
    }
    if (!vm->pager) {
        error_setg(errp, "VM %s has no pager now; it gets one when its QEMU, "
                   "process %d, has connected again", vm->uuid_text,
                   vm->rec.qemu_pid);
        return false;
    }
    sock = mm_connect(vm->socket_path);
    if (sock < 0) {
        error_setg_errno(errp, -sock, "cannot connect to pager %d of VM %s",
                         (int)vm->rec.pager_pid, vm->uuid_text);
        return false;
    }
    vm->link = mm_link_new(sock, &link_ops, vm);
    if (!say_hello(vm, errp)) {
        link_closed(vm);
        return false;
    }
    return true;
}

static void fill_start(const MmVM *vm, MmMsgStart *start, uint64_t seq,
                       uint32_t version, bool resume)
{
    *start = (MmMsgStart) {
        .version = version,
        .resume = resume,
        .hello_seq = seq,
        .qemu_pid = vm->rec.qemu_pid,
        .qemu_uid = vm->rec.qemu_uid,
        .limit = vm->mgr->opts.limit,
        .sample_interval_ns = vm->mgr->opts.wss_interval_s * 1000000000ULL,
    };
    memcpy(start->uuid, vm->rec.uuid, MM_UUID_LEN);
    memcpy(start->cookie, vm->rec.cookie, MM_COOKIE_LEN);
    memcpy(start->name, vm->rec.name, MM_NAME_LEN);
}

/* A pager that was not told to start ends when its control socket closes. */
static bool spawn_and_record(MmVM *vm, int *control, Error **errp)
{
    pid_t pid;
    int log;

    log = mm_pager_log_open(vm->log, errp);
    if (log < 0) {
        return false;
    }
    pid = mm_spawn_pager(&vm->mgr->opts, vm->rec.qemu_pid, log, control, errp);
    close(log);
    if (pid < 0) {
        mm_pager_log_close(vm->log);
        return false;
    }
    mm_pager_log_set_pid(vm->log, pid);
    vm->pager = mm_process_open(pid, 0, mm_vm_pager_exit, vm, errp);
    if (!vm->pager) {
        close(*control);
        /* Nothing will tell its end. It is ours until it is waited for. */
        kill(pid, SIGKILL);
        TEMP_FAILURE_RETRY(waitpid(pid, NULL, 0));
        mm_pager_log_close(vm->log);
        return false;
    }
    vm->rec.pager_pid = pid;
    vm->rec.pager_start = mm_process_start(vm->pager);
    if (!mm_record_write(vm->record_path, &vm->rec, errp)) {
        close(*control);
        return false;
    }
    return true;
}

static bool start_with(MmVM *vm, const MmMsgStart *start,
                       const MmStartFds *fds, Error **errp)
{
    int control;

    if (!spawn_and_record(vm, &control, errp)) {
        return false;
    }
    /* The pager waits on the connection in its own way. */
    g_unix_set_fd_nonblocking(fds->connection, false, NULL);
    if (!mm_spawn_send_start(control, &vm->mgr->opts, &vm->rec, start, fds,
                             errp)) {
        close(control);
        return false;
    }
    mm_vm_report_lost(vm);
    trace_mm_vm_start_pager(vm->uuid_text, vm->rec.pager_pid, start->resume);
    vm->link = mm_link_new(control, &link_ops, vm);
    mm_write_budget_new_pager(vm, !start->resume);
    vm->serving_since_ms = 0;
    vm->fresh = !start->resume;
    mm_vm_set_state(vm, MANAGEDVM_STATE_STARTING);
    return true;
}

bool mm_vm_start_pager(MmVM *vm, int sock, uint64_t seq, uint32_t version,
                       bool resume, Error **errp)
{
    MmStartFds fds = { .connection = sock, .listen = -1 };
    MmMsgStart start;
    bool ok = false;

    assert(!vm->pager && !vm->link);
    fds.lock = mm_lock_take(vm->lock_path);
    if (fds.lock < 0) {
        error_setg_errno(errp, -fds.lock, "cannot lock %s", vm->lock_path);
        return false;
    }
    fds.listen = mm_listen(vm->socket_path, SOCK_SEQPACKET, 0600, errp);
    if (fds.listen >= 0) {
        fill_start(vm, &start, seq, version, resume);
        ok = start_with(vm, &start, &fds, errp);
        close(fds.listen);
    }
    close(fds.lock);
    return ok;
}

/* Sets when the next pager may start, and tells if it is not at once. */
static void count_death(MmVM *vm)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    int64_t delay = 0;

    if (vm->serving_since_ms && now - vm->serving_since_ms > GOOD_SERVICE_MS) {
        vm->deaths = 0;
    }
    vm->deaths++;
    if (vm->deaths > FREE_DEATHS) {
        int doublings = MIN(vm->deaths - FREE_DEATHS - 1, 10);

        delay = MIN(FIRST_DELAY_MS << doublings, LAST_DELAY_MS);
        warn_report("VM %s: %u pagers have died in a row; the next one starts "
                    "after %" PRId64 " ms", vm->label, vm->deaths, delay);
        qapi_event_send_managed_vm_crash_loop(vm->uuid_text, vm->rec.name,
                                              vm->deaths, delay);
    }
    vm->not_before_ms = now + delay;
}

/* What the pager has sent before its end counts: the end of a detach, say. */
static void forget_pager(MmVM *vm)
{
    if (vm->link) {
        mm_link_drain(vm->link);
    }
    if (vm->link) {
        link_closed(vm);
    }
    mm_pager_log_close(vm->log);
    mm_process_close(vm->pager);
    vm->pager = NULL;
    unlink(vm->socket_path);
}

/*
 * A QEMU that has not got as far as a userfaultfd has nothing to resume. The
 * first pager tells by how it ends, unless it was killed.
 */
static bool was_never_used(const MmVM *vm, int status)
{
    return vm->fresh && status >= 0 &&
           (status == MM_PAGER_EXIT_UNUSED || !vm->serving_since_ms);
}

/*
 * QEMU only sees that the connection has ended, and the VM goes with it. A VM
 * that is being closed is no news, unless it was this that closed it.
 */
static void report_start_failed(const MmVM *vm, pid_t pid, const char *how,
                                int status)
{
    if (vm->attaching && status >= 0 &&
        (status > 0 || vm->state != MANAGEDVM_STATE_CLOSING)) {
        warn_report("VM %s: pager %d %s before it served", vm->label, (int)pid,
                    how);
    }
}

void mm_vm_pager_exit(void *opaque, const char *how, int status)
{
    MmVM *vm = opaque;
    pid_t pid = mm_process_pid(vm->pager);

    forget_pager(vm);
    report_start_failed(vm, pid, how, status);
    vm->unused = vm->state != MANAGEDVM_STATE_CLOSING &&
                 was_never_used(vm, status);
    if (vm->state == MANAGEDVM_STATE_CLOSING || vm->unused) {
        mm_vm_close(vm);
        return;
    }
    if (vm->state != MANAGEDVM_STATE_LOST) {
        mm_vm_set_state(vm, MANAGEDVM_STATE_LOST);
    }
    if (vm->replacing) {
        vm->replacing = false;
        info_report("VM %s: pager %d is replaced", vm->label, (int)pid);
        mm_takeover_continue(vm);
        return;
    }
    count_death(vm);
    vm->had_pager_lost = true;
    mm_vm_report_lost(vm);
    vm->lost_how = g_strdup(how);
    vm->lost_pid = pid;
    if (status && status != MM_STATUS_UNKNOWN) {
        mm_vm_report_lost(vm);
    } else {
        timer_mod(vm->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                             LOST_GRACE_MS);
    }
    mm_takeover_continue(vm);
}
