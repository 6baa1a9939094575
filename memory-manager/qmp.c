/*
 * qemu-memory-manager: QMP commands
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The dispatcher runs one command at a time, so each of these ends within
 * MM_QUERY_TIMEOUT_MS, whatever pagers do. See operation.c for what takes
 * longer.
 *
 * The main loop is what ends a wait, and monitor_cleanup() waits for the
 * dispatcher without it. So mm_qmp_stop() has to come first.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "memory-manager/qapi/qapi-commands-memory-manager.h"
#include "memory-manager/qapi/qapi-emit-events.h"
#include "handover.h"
#include "tiers.h"
#include "vm.h"

/*
 * The monitor limits the rate of some of QEMU's events. It knows them by
 * number, and ours have numbers of their own: they must stay below the first
 * that is limited (WATCHDOG).
 */
QEMU_BUILD_BUG_ON(QAPI_EVENT__MAX > 8);

static MmManager *manager;
static bool stopped;            /* nothing waits for pagers any more */

void mm_qmp_init(MmManager *mgr)
{
    manager = mgr;
    mm_tiers_init(mgr);
}

static ManagedVM *describe_vm(MmVM *vm)
{
    ManagedVM *out = g_new0(ManagedVM, 1);

    out->uuid = g_strdup(vm->uuid_text);
    out->name = g_strdup(vm->rec.name);
    out->state = vm->state;
    out->qemu_pid = vm->rec.qemu_pid;
    out->qemu_uid = vm->rec.qemu_uid;
    out->host_swap = vm->host_swap;
    out->has_pager_pid = vm->pager;
    out->pager_pid = vm->pager ? mm_process_pid(vm->pager) : 0;
    out->operation = mm_operation_describe(&vm->operation);
    out->has_operation = out->operation;
    mm_snapshot_describe(vm, qapi_ManagedVM_base(out));
    return out;
}

ManagedVMList *coroutine_fn qmp_query_managed_vms(bool has_vm, const char *id,
                                                  Error **errp)
{
    ManagedVMList *list = NULL, **tail = &list;
    const char *match = has_vm ? id : NULL;
    MmVM *vm;

    mm_snapshot_refresh(manager, match);
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        if (!match || mm_vm_matches(vm, match)) {
            QAPI_LIST_APPEND(tail, describe_vm(vm));
        }
    }
    return list;
}

QEMU_BUILD_BUG_ON((int)MANAGED_TIER_ALGORITHM_LZ4 != MM_ALGORITHM_LZ4 ||
                  (int)MANAGED_TIER_ALGORITHM_ZSTD != MM_ALGORITHM_ZSTD ||
                  (int)MANAGED_TIER_TYPE_FILE != MM_TIER_KIND_FILE ||
                  (int)MANAGED_TIER_TYPE_DEVICE != MM_TIER_KIND_DEVICE);

/* A tier of the command line, or one that VMs have of an earlier manager. */
static ManagedTier *describe_tier(const MmMsgStartTier *conf, const char *path,
                                  bool active)
{
    ManagedTier *out = g_new0(ManagedTier, 1);

    out->name = g_strdup(conf->name);
    if (conf->kind == MM_TIER_KIND_COMPRESSED) {
        out->type = MANAGED_TIER_TYPE_COMPRESSED;
        out->has_algorithm = true;
        out->algorithm = (ManagedTierAlgorithm)conf->algorithm;
    } else {
        out->type = (ManagedTierType)conf->kind;
        out->has_path = true;
        out->path = g_strdup(path);
    }
    out->has_vm_size = conf->size;
    out->vm_size = conf->size;
    out->has_vm_share = conf->share;
    out->vm_share = conf->share;
    out->overcommit = conf->overcommit;
    out->has_storage = conf->shared;
    if (conf->shared) {
        QemuUUID uuid;

        memcpy(uuid.data, conf->storage, sizeof(uuid.data));
        out->storage = qemu_uuid_unparse_strdup(&uuid);
    }
    out->active = active;
    out->throttling = mm_io_throttle_describe(&conf->io);
    out->has_throttling = out->throttling;
    return out;
}

static ManagedTierList *find_tier(ManagedTierList *list, const MmRecord *rec,
                                  unsigned i)
{
    const MmRecordTier *tier = &rec->tiers[i];
    bool outside = tier->conf.kind != MM_TIER_KIND_COMPRESSED;

    for (; list; list = list->next) {
        if (list->value->has_path == outside &&
            g_str_equal(list->value->name, tier->conf.name) &&
            (!outside || !strncmp(list->value->path, tier->path,
                                   MM_RECORD_PATH_LEN - 1))) {
            return list;
        }
    }
    return NULL;
}

/* What a VM has in its tiers, which may be of an earlier manager. */
static void add_usage(ManagedTierList **list, const MmVM *vm)
{
    const MmMsgQueryReply *reply = &vm->snapshot.vm;
    const MmRecord *rec = &vm->rec;
    unsigned i;

    for (i = 0; i < rec->nr_tiers; i++) {
        ManagedTierList *tier = find_tier(*list, rec, i);
        unsigned number = rec->tiers[i].conf.number;

        if (!(reply->tiers & 1u << number)) {
            continue;
        }
        if (!tier) {
            ManagedTierList **tail = list;

            while (*tail) {
                tail = &(*tail)->next;
            }
            QAPI_LIST_APPEND(tail, describe_tier(&rec->tiers[i].conf,
                                                 rec->tiers[i].path, false));
            tier = find_tier(*list, rec, i);
        }
        tier->value->content += reply->tier_content[number];
        tier->value->used += reply->tier_used[number];
        tier->value->reserved += reply->tier_size[number];
    }
}

ManagedTierList *coroutine_fn qmp_query_managed_tiers(Error **errp)
{
    ManagedTierList *list = NULL, **tail = &list;
    MmVM *vm;
    int i;

    mm_snapshot_refresh(manager, NULL);
    for (i = 0; i < manager->opts.nr_tiers; i++) {
        const MmTierConf *tier = &manager->opts.tiers[i];
        MmMsgStartTier conf;
        ManagedTier *out;

        mm_tier_describe(tier, &conf);
        out = describe_tier(&conf, tier->path, !tier->draining);
        out->write_budget = mm_write_budget_describe(&tier->writes);
        out->has_write_budget = out->write_budget;
        QAPI_LIST_APPEND(tail, out);
    }
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        add_usage(&list, vm);
    }
    return list;
}

/* A request whose answer a command waits for. */
typedef struct Wait {
    Coroutine *co;              /* NULL: it does not wait (yet, any more) */
    MmMsg *answer;
    bool answered;
} Wait;

static Wait *current_wait;      /* of the one command that is carried out */

static void request_answered(void *opaque, const MmMsg *msg)
{
    Wait *wait = opaque;

    wait->answered = true;
    wait->answer = msg ? g_memdup2(msg, sizeof(*msg)) : NULL;
    if (wait->co) {
        aio_co_wake(g_steal_pointer(&wait->co));
    }
}

static void stop_waiting(void *opaque)
{
    Wait *wait = opaque;

    if (wait->co) {
        aio_co_wake(g_steal_pointer(&wait->co));
    }
}

void mm_qmp_stop(void)
{
    stopped = true;
    mm_snapshot_stop();
    if (current_wait) {
        stop_waiting(current_wait);
    }
}

static void coroutine_fn wait_for_answer(Wait *wait)
{
    QEMUTimer *timer = timer_new_ms(QEMU_CLOCK_REALTIME, stop_waiting, wait);

    timer_mod(timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                     MM_QUERY_TIMEOUT_MS);
    wait->co = qemu_coroutine_self();
    current_wait = wait;
    qemu_coroutine_yield();
    current_wait = NULL;
    timer_free(timer);
}

/* Ask a pager and wait for the answer; NULL with @errp set if there is none. */
static MmMsg *coroutine_fn ask_pager(const char *id, MmMsgType type,
                                     const void *payload, size_t len,
                                     MmMsgType expected, Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);
    Wait wait = {};
    MmLink *link;
    uint64_t seq;

    if (vm && stopped) {
        error_setg(errp, "the manager ends");
        return NULL;
    }
    if (!vm || !mm_vm_connect(vm, errp)) {
        return NULL;
    }
    link = vm->link;
    seq = mm_link_request(link, type, payload, len, request_answered, &wait,
                          errp);
    if (!seq) {
        return NULL;
    }
    wait_for_answer(&wait);
    if (!wait.answered) {
        mm_link_forget(link, seq);
        error_setg(errp, "the pager of VM %s has not answered within %d ms; "
                   "it may still do what was asked", id, MM_QUERY_TIMEOUT_MS);
        return NULL;
    }
    if (!mm_reply_ok(wait.answer, expected, errp)) {
        g_free(wait.answer);
        return NULL;
    }
    return wait.answer;
}

bool coroutine_fn mm_qmp_ask_pager(const char *id, MmMsgType type,
                                   const void *payload, size_t len,
                                   Error **errp)
{
    g_autofree MmMsg *answer = ask_pager(id, type, payload, len, MM_MSG_OK,
                                         errp);

    return answer != NULL;
}

void coroutine_fn qmp_managed_vm_set_limit(const char *id, uint64_t limit,
                                           Error **errp)
{
    MmMsgAmount amount = { .value = limit ?: MM_LIMIT_NONE };

    g_free(ask_pager(id, MM_MSG_SET_LIMIT, &amount, sizeof(amount), MM_MSG_OK,
                     errp));
}

/* A request that has no parameters and is answered by a number. */
static bool coroutine_fn ask_amount(const char *id, MmMsgType type,
                                    uint64_t *amount, Error **errp)
{
    g_autofree MmMsg *answer = ask_pager(id, type, NULL, 0, MM_MSG_AMOUNT,
                                         errp);

    if (answer) {
        *amount = ((const MmMsgAmount *)answer->payload)->value;
    }
    return answer != NULL;
}

ManagedVMPrefetch *coroutine_fn qmp_managed_vm_prefetch(const char *id,
                                                        Error **errp)
{
    g_autofree ManagedVMPrefetch *out = g_new0(ManagedVMPrefetch, 1);

    return ask_amount(id, MM_MSG_PREFETCH, &out->bytes, errp)
           ? g_steal_pointer(&out) : NULL;
}

ManagedVMGivenUp *coroutine_fn qmp_managed_vm_give_up(const char *id,
                                                      Error **errp)
{
    g_autofree ManagedVMGivenUp *out = g_new0(ManagedVMGivenUp, 1);

    return ask_amount(id, MM_MSG_GIVE_UP, &out->pages, errp)
           ? g_steal_pointer(&out) : NULL;
}

static ManagedVMOperation *start_operation(const char *id,
                                           ManagedVMOperationType type,
                                           uint64_t bytes, Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);

    return vm ? mm_operation_start(vm, type, bytes, errp) : NULL;
}

ManagedVMOperation *qmp_managed_vm_evict(const char *id, uint64_t bytes,
                                         Error **errp)
{
    return start_operation(id, MANAGEDVM_OPERATION_TYPE_EVICT, bytes, errp);
}

ManagedVMOperation *qmp_managed_vm_swap_in(const char *id, Error **errp)
{
    return start_operation(id, MANAGEDVM_OPERATION_TYPE_SWAP_IN, 0, errp);
}

ManagedVMOperation *qmp_managed_vm_detach(const char *id, Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);

    if (!vm || !mm_handover_settled(vm, errp)) {
        return NULL;
    }
    return start_operation(id, MANAGEDVM_OPERATION_TYPE_DETACH, 0, errp);
}
