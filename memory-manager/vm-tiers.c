/*
 * qemu-memory-manager: the tiers of one VM, while it runs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager gets its tiers when it starts, before it is jailed, so a VM gets
 * others with another pager: the record is changed, and the pager replaced.
 * That costs the guest what the death of a pager costs it, some milliseconds.
 *
 *   ADDING     the record has the new tiers, marked as such. When the next
 *              pager serves, QEMU holds their files: they are as all others.
 *   SETTING    the pager is told which tiers to drain. It refuses, all or none,
 *              if the others cannot promise the space.
 *   DRAINING   until there is nothing in them.
 *   REMOVING   the record does not have them any more. When the next pager
 *              serves, nobody holds them open.
 *
 * If the pager cannot make a tier, or refuses, the way goes back: the tiers of
 * before, and those that were new are drained. Then the change has failed.
 *
 * A file of another host, which the VM is lent when it arrives with a migration
 * (handover.c), takes the same way: ADDING, and DRAINING when it has become
 * ours.
 *
 * The record has all that must not be forgotten. A manager that is restarted
 * goes on with SETTING, and does not know of tiers that were only going to be
 * drained. A pager that dies does not matter: each step begins anew with its
 * successor.  VMs whose pagers are to be replaced take turns.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "shared-file.h"
#include "tier-plan.h"
#include "trace.h"
#include "vm-tiers.h"

/* How often to look how much is left. */
#define LOOK_MS 500
/*
 * VMs that are without a pager at the same time, because they get another one:
 * the manager starts one after the other.  One that does not come back for so
 * long does not hold up the others.
 */
#define REPLACED_AT_ONCE 4
#define TURN_MS 2000

typedef enum Phase {
    PHASE_NONE,
    PHASE_ADDING,
    PHASE_SETTING,
    PHASE_DRAINING,
    PHASE_REMOVING,
    PHASE__MAX
} Phase;

#define TO(phase) (1u << PHASE_##phase)

static const uint8_t edges[PHASE__MAX] = {
    [PHASE_NONE] = TO(ADDING) | TO(SETTING) | TO(REMOVING),
    [PHASE_ADDING] = TO(SETTING) | TO(NONE),
    [PHASE_SETTING] = TO(DRAINING) | TO(NONE) | TO(ADDING),   /* back */
    [PHASE_DRAINING] = TO(REMOVING) | TO(NONE),
    [PHASE_REMOVING] = TO(NONE),
};

static const char *const phase_names[PHASE__MAX] = {
    [PHASE_NONE] = "none",
    [PHASE_ADDING] = "adding",
    [PHASE_SETTING] = "setting",
    [PHASE_DRAINING] = "draining",
    [PHASE_REMOVING] = "removing",
};

struct MmTierChange {
    QEMUTimer *timer;
    Phase phase;                /* set by set_phase() only */
    MmRecord before;            /* its tiers, to go back to */
    uint32_t leaving;           /* SETTING: bit per number: to be drained */
    uint32_t old_pager;         /* ADDING, REMOVING: the one to be replaced */
    char *error;                /* why it goes back, or NULL */
    uint64_t asked;             /* number of the request under way, or 0 */
    bool operation;             /* not if a restarted manager goes on with it */
    bool compared;              /* what the pager has with the record */
    bool waiting;               /* for its turn to have the pager replaced */
    int64_t replaced_ms;        /* when it was; 0: the next one serves */
};

static void set_phase(MmVM *vm, Phase to)
{
    MmTierChange *change = vm->tier_change;

    assert(edges[change->phase] & (1u << to));
    trace_mm_vm_tiers_phase(vm->uuid_text, phase_names[change->phase],
                            phase_names[to]);
    change->phase = to;
}

static void time_is_up(void *opaque)
{
    mm_vm_tiers_step(opaque);
}

void mm_vm_tiers_new(MmVM *vm)
{
    vm->tier_change = g_new0(MmTierChange, 1);
    vm->tier_change->timer = timer_new_ms(QEMU_CLOCK_REALTIME, time_is_up, vm);
}

void mm_vm_tiers_free(MmVM *vm)
{
    timer_free(vm->tier_change->timer);
    g_free(vm->tier_change->error);
    g_free(vm->tier_change);
}

static void write_record(MmVM *vm)
{
    Error *err = NULL;

    if (!mm_record_write(vm->record_path, &vm->rec, &err)) {
        error_reportf_err(err, "VM %s: a restarted manager will not know its "
                          "tiers: ", vm->label);
    }
}

void mm_vm_tiers_held(MmVM *vm)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        vm->rec.tiers[i].conf.is_new = 0;
    }
    write_record(vm);
}

/* Does the pager that runs have these tiers, in this order? */
static bool same_tiers(const MmRecord *a, const MmRecord *b)
{
    uint32_t i;

    for (i = 0; i < a->nr_tiers && i < b->nr_tiers; i++) {
        if (a->tiers[i].conf.number != b->tiers[i].conf.number) {
            return false;
        }
    }
    return a->nr_tiers == b->nr_tiers;
}

/* The rest of a record tells of the pager, which changes on the way. */
static void copy_tiers(MmRecord *to, const MmRecord *from)
{
    to->nr_tiers = from->nr_tiers;
    memcpy(to->tiers, from->tiers, sizeof(to->tiers));
}

static void later(MmVM *vm)
{
    timer_mod(vm->tier_change->timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + LOOK_MS);
}

static unsigned nr_without_pager(MmManager *mgr, int64_t now)
{
    unsigned nr = 0;
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        const MmTierChange *change = vm->tier_change;

        nr += change->replaced_ms && now - change->replaced_ms < TURN_MS;
    }
    return nr;
}

/* Those whose turn it is; others look again. */
static void replace_some(MmManager *mgr)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    unsigned nr = nr_without_pager(mgr, now);
    MmVM *vm;

    QTAILQ_FOREACH(vm, &mgr->vms, next) {
        MmTierChange *change = vm->tier_change;

        if (change->waiting && nr < REPLACED_AT_ONCE) {
            change->waiting = false;
            change->replaced_ms = now;
            nr++;
            mm_vm_replace_pager(vm);
        }
    }
}

static void replace_pager(MmVM *vm)
{
    vm->tier_change->old_pager = vm->rec.pager_pid;
    vm->tier_change->waiting = true;
    later(vm);
    replace_some(vm->mgr);
}

/* Has the pager been replaced, or has it died before its turn came? */
static bool replaced(MmVM *vm)
{
    MmTierChange *change = vm->tier_change;

    if (vm->rec.pager_pid == change->old_pager) {
        if (change->waiting) {
            later(vm);
            replace_some(vm->mgr);
        }
        return false;
    }
    change->waiting = false;
    change->replaced_ms = 0;
    replace_some(vm->mgr);
    return true;
}

/* To these tiers, of which some are to be drained. */
static void go(MmVM *vm, const MmRecord *rec, uint32_t leaving)
{
    vm->tier_change->leaving = leaving;
    if (same_tiers(&vm->rec, rec)) {
        if (vm->tier_change->phase != PHASE_SETTING) {
            set_phase(vm, PHASE_SETTING);
        }
        mm_vm_tiers_step(vm);
    } else {
        if (vm->tier_change->phase != PHASE_ADDING) {
            set_phase(vm, PHASE_ADDING);
        }
        copy_tiers(&vm->rec, rec);
        write_record(vm);
        replace_pager(vm);
    }
}

bool mm_vm_tiers_may_change(MmVM *vm, Error **errp)
{
    MmTierChange *change = vm->tier_change;

    if (vm->state != MANAGEDVM_STATE_SERVING || !change->compared) {
        error_setg(errp, "VM %s is not served by a pager now; try again when "
                   "it is", vm->uuid_text);
        return false;
    }
    if (change->phase != PHASE_NONE && change->phase != PHASE_DRAINING) {
        error_setg(errp, "VM %s is being given other tiers; wait for the end "
                   "of that", vm->uuid_text);
        return false;
    }
    return true;
}

bool mm_vm_tiers_change(MmVM *vm, const strList *names, Error **errp)
{
    MmTierChange *change = vm->tier_change;
    MmRecord rec = vm->rec;
    uint32_t leaving;

    if (!mm_vm_tiers_may_change(vm, errp)) {
        return false;
    }
    if (!mm_tier_plan(vm, names, &rec, &leaving, errp)) {
        return false;
    }
    if (change->operation) {
        mm_operation_end(vm, "another change has taken its place");
        change->operation = false;
    }
    if (!mm_operation_begin(vm, MANAGEDVM_OPERATION_TYPE_SET_TIERS, errp)) {
        return false;
    }
    if (change->phase != PHASE_NONE) {
        set_phase(vm, PHASE_NONE);
    }
    timer_del(change->timer);
    if (change->asked) {
        /* what it was asked for is not of interest any more */
        mm_link_forget(vm->link, change->asked);
        change->asked = 0;
    }
    change->operation = true;
    change->before = vm->rec;
    g_clear_pointer(&change->error, g_free);
    go(vm, &rec, leaving);
    return true;
}

bool mm_vm_tiers_lend(MmVM *vm, const MmRecordTier *tier, uint64_t *number,
                      Error **errp)
{
    MmTierChange *change = vm->tier_change;
    MmRecord rec = vm->rec;

    if (!mm_vm_tiers_may_change(vm, errp)) {
        return false;
    }
    if (change->phase != PHASE_NONE || mm_operation_running(vm)) {
        error_setg(errp, "VM %s is busy with another operation; try again "
                   "when that is over", vm->uuid_text);
        return false;
    }
    if (!mm_tier_plan_lent(vm, tier, &rec, number, errp)) {
        return false;
    }
    change->before = vm->rec;
    g_clear_pointer(&change->error, g_free);
    go(vm, &rec, 0);
    return true;
}

/* There may be something to do that has come up meanwhile. */
static void end_change(MmVM *vm, const char *error)
{
    set_phase(vm, PHASE_NONE);
    later(vm);
    if (vm->tier_change->operation) {
        vm->tier_change->operation = false;
        mm_operation_end(vm, error);
    }
}

static void forget_tier(MmVM *vm, uint32_t i)
{
    MmRecordTier *tier = &vm->rec.tiers[i];

    mm_shared_remove(tier);
    vm->rec.nr_tiers--;
    memmove(tier, tier + 1, (vm->rec.nr_tiers - i) * sizeof(*tier));
}

/* It cannot be: as it was, and what is new has to go. */
static void go_back(MmVM *vm, const char *error)
{
    MmTierChange *change = vm->tier_change;
    MmRecord rec = change->before;
    uint32_t leaving = 0, i;

    if (change->error) {
        end_change(vm, change->error);      /* not even that */
        return;
    }
    change->error = g_strdup(error);
    for (i = 0; i < rec.nr_tiers; i++) {
        leaving |= (uint32_t)rec.tiers[i].conf.draining <<
                   rec.tiers[i].conf.number;
    }
    for (i = 0; i < vm->rec.nr_tiers && rec.nr_tiers < MM_MAX_TIERS; i++) {
        const MmRecordTier *tier = &vm->rec.tiers[i];

        if (!mm_record_tier(&rec, tier->conf.name)) {
            rec.tiers[rec.nr_tiers++] = *tier;
            leaving |= 1u << tier->conf.number;
        }
    }
    go(vm, &rec, leaving);
}

static const MmMsgQueryReply *answer_to_query(const MmMsg *msg)
{
    return mm_reply_ok(msg, MM_MSG_QUERY_REPLY, NULL)
           ? (const void *)msg->payload : NULL;
}

static bool ask(MmVM *vm, MmMsgType type, const void *payload, size_t len,
                MmReplyFn *fn)
{
    vm->tier_change->asked = mm_vm_connect(vm, NULL)
        ? mm_link_request(vm->link, type, payload, len, fn, vm, NULL) : 0;
    return vm->tier_change->asked != 0;
}

/* The new pager has what it could get. */
static void added(void *opaque, const MmMsg *msg)
{
    const MmMsgQueryReply *reply = answer_to_query(msg);
    g_autofree char *missing = NULL;
    MmVM *vm = opaque;
    uint32_t i = 0;

    vm->tier_change->asked = 0;
    if (!reply) {
        later(vm);
        return;
    }
    while (i < vm->rec.nr_tiers) {
        MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

        if (conf->is_new && !(reply->tiers & 1u << conf->number)) {
            g_free(missing);
            missing = g_strdup_printf("tier '%s' could not be made for the VM; "
                                      "the manager's log says why",
                                      conf->name);
            forget_tier(vm, i);
        } else {
            conf->is_new = 0;
            i++;
        }
    }
    write_record(vm);
    if (missing) {
        go_back(vm, missing);
    } else {
        set_phase(vm, PHASE_SETTING);
        mm_vm_tiers_step(vm);
    }
}

static void draining_set(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;
    MmTierChange *change = vm->tier_change;
    Error *err = NULL;
    uint32_t i;

    change->asked = 0;
    if (!msg) {
        later(vm);      /* its pager has died: the next one is told anew */
    } else if (mm_reply_ok(msg, MM_MSG_OK, &err)) {
        for (i = 0; i < vm->rec.nr_tiers; i++) {
            MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

            conf->draining = !!(change->leaving & 1u << conf->number);
        }
        write_record(vm);
        set_phase(vm, PHASE_DRAINING);
        mm_vm_tiers_step(vm);
    } else {
        go_back(vm, error_get_pretty(err));
        error_free(err);
    }
}

static void set_draining(MmVM *vm)
{
    const MmMsgSetDraining set = { .tiers = vm->tier_change->leaving };

    if (!ask(vm, MM_MSG_SET_DRAINING, &set, sizeof(set), draining_set)) {
        later(vm);
    }
}

/*
 * What the pager says to be drained it does not use again.  (That a tier is
 * empty is another thing: the pager may be about to put something into it, or,
 * having just started, not know yet what is in it.)
 */
static bool all_drained(const MmVM *vm, const MmMsgQueryReply *reply)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

        if (conf->draining && !(reply->drained & 1u << conf->number)) {
            return false;
        }
    }
    return true;
}

static bool remove_drained(MmVM *vm)
{
    uint32_t i = 0;
    bool any = false;

    while (i < vm->rec.nr_tiers) {
        if (vm->rec.tiers[i].conf.draining) {
            forget_tier(vm, i);
            any = true;
        } else {
            i++;
        }
    }
    return any;
}

static void looked(void *opaque, const MmMsg *msg)
{
    const MmMsgQueryReply *reply = answer_to_query(msg);
    MmVM *vm = opaque;

    vm->tier_change->asked = 0;
    if (!reply || !all_drained(vm, reply)) {
        later(vm);
    } else if (remove_drained(vm)) {
        write_record(vm);
        set_phase(vm, PHASE_REMOVING);
        replace_pager(vm);
    } else {
        end_change(vm, vm->tier_change->error);
    }
}

/*
 * What an earlier manager has not brought to its end, or a lent file that has
 * become ours.
 */
static void find_unfinished(MmVM *vm)
{
    MmTierChange *change = vm->tier_change;
    bool adding = false;
    uint32_t i;

    change->leaving = change->old_pager = 0;
    change->before = vm->rec;
    g_clear_pointer(&change->error, g_free);
    for (i = 0; i < vm->rec.nr_tiers; i++) {
        MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

        adding |= conf->is_new;
        conf->draining |= conf->lent && mm_shared_is_ours(conf->file);
        change->leaving |= (uint32_t)conf->draining << conf->number;
    }
    if (adding) {
        set_phase(vm, PHASE_ADDING);
    } else if (change->leaving) {
        /* or the pager has been told something else last */
        set_phase(vm, PHASE_SETTING);
    }
}

/*
 * A pager that has more than the record was to be replaced when the manager
 * died.  The number of what it has too much would be given to another tier.
 */
static void compared(void *opaque, const MmMsg *msg)
{
    const MmMsgQueryReply *reply = answer_to_query(msg);
    MmVM *vm = opaque;
    uint32_t known = 0, i;

    vm->tier_change->asked = 0;
    if (!reply) {
        later(vm);
        return;
    }
    vm->tier_change->compared = true;
    for (i = 0; i < vm->rec.nr_tiers; i++) {
        known |= 1u << vm->rec.tiers[i].conf.number;
    }
    if (reply->tiers & ~known) {
        set_phase(vm, PHASE_REMOVING);
        replace_pager(vm);
    } else {
        mm_vm_tiers_step(vm);
    }
}

void mm_vm_tiers_step(MmVM *vm)
{
    MmTierChange *change = vm->tier_change;

    if (vm->state != MANAGEDVM_STATE_SERVING || change->asked) {
        return;
    }
    if (!change->compared) {
        if (!ask(vm, MM_MSG_QUERY, NULL, 0, compared)) {
            later(vm);
        }
        return;
    }
    if (change->phase == PHASE_NONE) {
        find_unfinished(vm);
    }
    switch (change->phase) {
    case PHASE_ADDING:
        if (replaced(vm) && !ask(vm, MM_MSG_QUERY, NULL, 0, added)) {
            later(vm);
        }
        break;
    case PHASE_SETTING:
        set_draining(vm);
        break;
    case PHASE_DRAINING:
        if (!ask(vm, MM_MSG_QUERY, NULL, 0, looked)) {
            later(vm);
        }
        break;
    case PHASE_REMOVING:
        if (replaced(vm)) {
            end_change(vm, change->error);
        }
        break;
    default:
        break;
    }
}
