/*
 * Managed memory pager: commands of a manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Long commands (evict, swap-in, detach) are carried out by the other threads
 * and answered when they are done; one at a time.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "../fault/fault.h"
#include "../reclaim/reclaim.h"
#include "../region.h"
#include "control.h"

static void answer_error(MmControl *c, int sock, int err, const char *text)
{
    mm_msg_send_error(sock, c->msg->hdr.seq, err, text);
}

static void answer(MmControl *c, int sock, bool ok, Error *err)
{
    if (ok) {
        mm_msg_send(sock, MM_MSG_OK, c->msg->hdr.seq, NULL, 0, NULL, 0);
    } else {
        answer_error(c, sock, EINVAL, error_get_pretty(err));
        error_free(err);
    }
}

static void answer_amount(int sock, uint64_t seq, uint64_t value)
{
    MmMsgAmount amount = { .value = value };

    mm_msg_send(sock, MM_MSG_AMOUNT, seq, &amount, sizeof(amount), NULL, 0);
}

void mm_manager_info(MmVM *vm, MmMsgControlInfo *info)
{
    memset(info, 0, sizeof(*info));
    memcpy(info->uuid, vm->id.uuid, sizeof(info->uuid));
    memcpy(info->name, vm->name, sizeof(info->name));
    info->pager_pid = getpid();
    info->qemu_pid = vm->qemu_pid;
    info->serving = qatomic_read(&vm->serving);
}

static void handle_hello(MmControl *c, int sock)
{
    MmMsgControlInfo info;
    int log = mm_msg_take_fd(c->msg, 0);

    /* a manager that was restarted: nobody reads what we had until now */
    if (log >= 0) {
        dup3(log, STDERR_FILENO, O_CLOEXEC);
        close(log);
    }
    mm_manager_info(c->vm, &info);
    mm_msg_send(sock, MM_MSG_CONTROL_INFO, c->msg->hdr.seq, &info,
                sizeof(info), NULL, 0);
}

static void handle_query(MmControl *c, int sock)
{
    MmMsgQueryReply reply;

    mm_control_query(c->vm, &reply);
    mm_msg_send(sock, MM_MSG_QUERY_REPLY, c->msg->hdr.seq, &reply,
                sizeof(reply), NULL, 0);
}

static void handle_query_region(MmControl *c, int sock)
{
    const MmMsgRegionRef *ref = (const void *)c->msg->payload;
    MmRegion *region = mm_vm_region_nth(c->vm, ref->id);
    MmMsgRegionInfo info;

    if (!region) {
        answer_error(c, sock, ENOENT, "no such region");
        return;
    }
    mm_region_info(region, &info);
    mm_region_put(c->vm, region);
    mm_msg_send(sock, MM_MSG_REGION_INFO, c->msg->hdr.seq, &info,
                sizeof(info), NULL, 0);
}

static void handle_set_limit(MmControl *c, int sock)
{
    const MmMsgAmount *amount = (const void *)c->msg->payload;
    Error *err = NULL;
    bool ok = mm_control_set_limit(c->vm, amount->value, &err);

    answer(c, sock, ok, err);
}

static MmTier *find_tier(MmVM *vm, uint32_t number, Error **errp)
{
    MmTier *tier = number < MM_MAX_TIERS ? vm->by_number[number] : NULL;

    if (!tier) {
        error_setg(errp, "the VM has no tier number %u", number);
    }
    return tier;
}

static bool set_tier(MmVM *vm, const MmMsgSetTier *set, Error **errp)
{
    MmTier *tier = find_tier(vm, set->number, errp);

    if (!tier || !tier->ops->resize(tier, set->size, MIN(set->share, 100),
                                    qatomic_read(&vm->total_size), errp)) {
        return false;
    }
    mm_reclaim_resized(vm);
    return true;
}

static void handle_set_tier(MmControl *c, int sock)
{
    Error *err = NULL;
    bool ok = set_tier(c->vm, (const void *)c->msg->payload, &err);

    answer(c, sock, ok, err);
}

static void handle_set_draining(MmControl *c, int sock)
{
    const MmMsgSetDraining *set = (const void *)c->msg->payload;
    Error *err = NULL;
    bool ok = mm_control_set_draining(c->vm, set->tiers, &err);

    answer(c, sock, ok, err);
}

static void handle_set_io_limits(MmControl *c, int sock)
{
    const MmMsgSetIOLimits *set = (const void *)c->msg->payload;
    Error *err = NULL;
    MmTier *tier = find_tier(c->vm, set->number, &err);

    if (tier) {
        mm_throttle_set(&tier->throttle, &set->io);
    }
    answer(c, sock, tier, err);
}

static void handle_set_spared(MmControl *c, int sock)
{
    const MmMsgSetSpared *set = (const void *)c->msg->payload;
    unsigned i;

    for (i = 0; i < c->vm->nr_tiers; i++) {
        MmTier *tier = c->vm->tiers[i];

        qatomic_set(&tier->spared, !!(set->tiers & 1u << tier->number));
    }
    answer(c, sock, true, NULL);
}

static void handle_give_up(MmControl *c, int sock)
{
    uint64_t count;

    mm_fault_call(c->vm, mm_fault_give_up, &count);
    answer_amount(sock, c->msg->hdr.seq, count);
}

static void handle_prefetch(MmControl *c, int sock)
{
    uint64_t pages;

    mm_fault_call(c->vm, mm_fault_replay, &pages);
    answer_amount(sock, c->msg->hdr.seq, pages * MM_PAGE_SIZE);
}

/* What everything together would occupy, never populated pages aside. */
static uint64_t populated_bytes(MmVM *vm)
{
    MmMsgQueryReply q;

    mm_control_query(vm, &q);
    return q.size - q.never;
}

static void swap_in(MmControl *c)
{
    bool detach = c->long_kind == MM_LONG_DETACH;

    mm_fault_call(c->vm, mm_fault_swap_in, &detach);
}

void mm_long_start(MmControl *c, MmLongKind kind, int sock)
{
    const MmMsgAmount *amount = (const void *)c->msg->payload;
    MmVM *vm = c->vm;
    uint64_t limit = qatomic_read(&vm->limit.limit);

    if (c->long_kind != MM_LONG_NONE) {
        answer_error(c, sock, EBUSY, "another such command is in progress");
        return;
    }
    if (kind == MM_LONG_SWAP_IN && limit != UINT64_MAX &&
        populated_bytes(vm) > limit * MM_PAGE_SIZE) {
        answer_error(c, sock, ENOSPC, "the resident limit has no room for "
                     "all of it; raise the limit first");
        return;
    }
    c->long_kind = kind;
    c->long_sock = sock;
    c->long_seq = c->msg->hdr.seq;
    if (kind == MM_LONG_EVICT) {
        mm_reclaim_evict(vm, amount->value / MM_PAGE_SIZE +
                         (amount->value % MM_PAGE_SIZE != 0));
        return;
    }
    qatomic_set(&vm->reclaim_resting, false);
    /* in this order: the reclaim thread answers the second with the first */
    smp_wmb();
    qatomic_set(&vm->reclaim_rests, true);
    mm_reclaim_wake(vm);
    if (kind == MM_LONG_DETACH) {
        /* vm->state keeps the limit, should a successor have to go on */
        vm->limit_lifted = true;
        mm_limit_set(&vm->limit, UINT64_MAX);
    }
    swap_in(c);
}

static void long_answer(MmControl *c, bool ok, const char *error,
                        uint64_t value)
{
    if (c->long_sock >= 0) {
        if (c->long_kind == MM_LONG_EVICT) {
            answer_amount(c->long_sock, c->long_seq, value);
        } else if (ok) {
            mm_msg_send(c->long_sock, MM_MSG_OK, c->long_seq, NULL, 0,
                        NULL, 0);
        } else {
            mm_msg_send_error(c->long_sock, c->long_seq, EIO, error);
        }
    }
    c->long_kind = MM_LONG_NONE;
    c->long_sock = -1;
}

/* Reclaim goes on, with the limit that a detach may have lifted. */
static void rest_ends(MmVM *vm)
{
    vm->limit_lifted = false;
    mm_limit_set(&vm->limit, vm->state->limit == MM_LIMIT_NONE
                 ? UINT64_MAX : vm->state->limit / MM_PAGE_SIZE);
    qatomic_set(&vm->reclaim_rests, false);
    mm_reclaim_wake(vm);
}

static void let_go(MmVM *vm, bool on)
{
    mm_fault_call(vm, mm_fault_let_go, &on);
}

void mm_long_detached(MmControl *c, bool ok)
{
    MmVM *vm = c->vm;

    c->detach_sent = false;
    if (!ok) {
        let_go(vm, false);
        rest_ends(vm);
    }
    long_answer(c, ok, "QEMU does not let go", 0);
}

static void send_detached(MmControl *c)
{
    let_go(c->vm, true);
    c->detach_sent = mm_msg_send(c->vm->connection, MM_MSG_DETACHED, 1,
                                 NULL, 0, NULL, 0) == 0;
    if (!c->detach_sent) {
        let_go(c->vm, false);
        rest_ends(c->vm);
        long_answer(c, false, "QEMU does not answer", 0);
    }
}

static void long_swapped_in(MmControl *c)
{
    MmFaultAbsent absent;
    MmVM *vm = c->vm;

    /* nothing goes out, and the fault thread itself counts: this is exact */
    mm_fault_call(vm, mm_fault_count_absent, &absent);
    if (absent.elsewhere && absent.no_room) {
        rest_ends(vm);
        long_answer(c, false, qatomic_read(&vm->not_had)
                    ? "the host, or the VM's cgroup, has no room for all of "
                      "it; free some memory, or add huge pages if it "
                      "consists of these"
                    : "the resident limit has no room for all of it; raise the "
                      "limit first", 0);
    } else if (absent.elsewhere && !absent.failed) {
        swap_in(c);
    } else if (absent.elsewhere) {
        rest_ends(vm);
        long_answer(c, false, "some pages cannot be read from their tier; "
                    "try again when it works", 0);
    } else if (c->long_kind == MM_LONG_SWAP_IN) {
        rest_ends(vm);
        long_answer(c, true, NULL, 0);
    } else if (absent.lost) {
        rest_ends(vm);
        long_answer(c, false, "the guest has lost pages, which would read as "
                    "zeroes", 0);
    } else {
        send_detached(c);
    }
}

void mm_long_progress(MmControl *c)
{
    MmVM *vm = c->vm;
    uint64_t pages;

    switch (c->long_kind) {
    case MM_LONG_NONE:
        return;
    case MM_LONG_EVICT:
        if (mm_reclaim_evicted(vm, &pages)) {
            long_answer(c, true, NULL, pages * MM_PAGE_SIZE);
        }
        return;
    case MM_LONG_SWAP_IN:
    case MM_LONG_DETACH:
        if (!c->detach_sent && mm_fault_swapped_in(vm) &&
            qatomic_read(&vm->reclaim_resting)) {
            long_swapped_in(c);
        }
        return;
    }
}

void mm_manager_handle(MmControl *c, int sock)
{
    switch (c->msg->hdr.type) {
    case MM_MSG_CONTROL_HELLO:
        handle_hello(c, sock);
        break;
    case MM_MSG_QUERY:
        handle_query(c, sock);
        break;
    case MM_MSG_QUERY_REGION:
        handle_query_region(c, sock);
        break;
    case MM_MSG_SET_LIMIT:
        handle_set_limit(c, sock);
        break;
    case MM_MSG_EVICT:
        mm_long_start(c, MM_LONG_EVICT, sock);
        break;
    case MM_MSG_SWAP_IN:
        mm_long_start(c, MM_LONG_SWAP_IN, sock);
        break;
    case MM_MSG_DETACH:
        mm_long_start(c, MM_LONG_DETACH, sock);
        break;
    case MM_MSG_GIVE_UP:
        handle_give_up(c, sock);
        break;
    case MM_MSG_SET_TIER:
        handle_set_tier(c, sock);
        break;
    case MM_MSG_SET_DRAINING:
        handle_set_draining(c, sock);
        break;
    case MM_MSG_SET_IO_LIMITS:
        handle_set_io_limits(c, sock);
        break;
    case MM_MSG_SET_SPARED:
        handle_set_spared(c, sock);
        break;
    case MM_MSG_PREFETCH:
        handle_prefetch(c, sock);
        break;
    default:
        answer_error(c, sock, EPROTO, "the pager does not know this command");
        break;
    }
}
