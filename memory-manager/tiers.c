/*
 * qemu-memory-manager: tiers that come and go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The manager's list of tiers is what VMs get that attach; each VM has a list
 * of its own from then on (vm-tiers.c).
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "memory-manager/qapi/qapi-commands-memory-manager.h"
#include "shared-file.h"
#include "tiers.h"
#include "vm-tiers.h"

static MmManager *manager;

void mm_tiers_init(MmManager *mgr)
{
    manager = mgr;
}

/* VMs may have it of an earlier manager all the same. */
static void no_such_tier(const char *name, Error **errp)
{
    MmVM *vm;

    QTAILQ_FOREACH(vm, &manager->vms, next) {
        const MmRecordTier *has = mm_record_tier(&vm->rec, name);

        if (has) {
            error_setg(errp, "tier '%s' is one of an earlier manager, which "
                       "VM %s has kept; add it again first, in %s", name,
                       vm->uuid_text,
                       has->conf.kind == MM_TIER_KIND_COMPRESSED ? "memory"
                                                                 : has->path);
            return;
        }
    }
    error_setg(errp, "there is no tier '%s'; query-managed-tiers, or "
               "'qemu-memctl tiers', shows all", name);
}

static MmTierConf *find(const char *name, Error **errp)
{
    MmOptions *opts = &manager->opts;
    const MmTierConf *tier = mm_tier_find(opts->tiers, opts->nr_tiers, name);

    if (!tier) {
        no_such_tier(name, errp);
        return NULL;
    }
    return &opts->tiers[tier - opts->tiers];
}

static void set_opt(QemuOpts *o, const char *key, const char *value)
{
    if (value) {
        qemu_opt_set(o, key, value, &error_abort);
    }
}

/* One place knows what a tier's parameters mean, whoever gives them. */
static bool parse(MmTierConf *tier, const char *name, const char *type,
                  const char *path, const char *size, const char *algorithm,
                  bool overcommit, bool shared,
                  const ManagedIOThrottle *throttling, uint64_t write_budget,
                  Error **errp)
{
    g_autofree char *per_day = g_strdup_printf("%" PRIu64, write_budget);
    QemuOpts *o = qemu_opts_create(&mm_tier_opts, NULL, 0, &error_abort);
    bool ok;

    set_opt(o, "name", name);
    set_opt(o, "type", type);
    set_opt(o, "path", path);
    set_opt(o, "size", size);
    set_opt(o, "algorithm", algorithm);
    set_opt(o, "overcommit", overcommit ? "on" : "off");
    set_opt(o, "shared", shared ? "on" : "off");
    set_opt(o, "write-budget", per_day);
    if (throttling) {
        mm_io_throttle_to_opts(throttling, o);
    }
    ok = mm_tier_from_opts(tier, o, errp);
    qemu_opts_del(o);
    return ok;
}

static bool insert(const MmTierConf *tier, unsigned at, Error **errp)
{
    MmOptions *opts = &manager->opts;
    MmTierConf tiers[MM_MAX_TIERS];

    if (opts->nr_tiers == MM_MAX_TIERS) {
        error_setg(errp, "there can be %d tiers, not more", MM_MAX_TIERS);
        return false;
    }
    memcpy(tiers, opts->tiers, at * sizeof(tiers[0]));
    tiers[at] = *tier;
    memcpy(&tiers[at + 1], &opts->tiers[at],
           (opts->nr_tiers - at) * sizeof(tiers[0]));
    if (!mm_tiers_check(tiers, opts->nr_tiers + 1, errp)) {
        return false;
    }
    memcpy(opts->tiers, tiers, ++opts->nr_tiers * sizeof(tiers[0]));
    mm_tiers_warn(opts->tiers, opts->nr_tiers);
    return true;
}

/* A tier that VMs have of an earlier manager must be the same one. */
static bool same_as_vms(const MmTierConf *tier, Error **errp)
{
    MmVM *vm;

    QTAILQ_FOREACH(vm, &manager->vms, next) {
        const MmRecordTier *has = mm_record_tier(&vm->rec, tier->name);

        if (has && (has->conf.kind != tier->kind ||
                    strcmp(has->path, tier->path ?: ""))) {
            error_setg(errp, "VM %s has another tier '%s'; choose another name",
                       vm->uuid_text, tier->name);
            return false;
        }
    }
    return true;
}

/* Drained before, and wanted again as it was. */
static bool use_again(const char *name, bool as_it_was, Error **errp)
{
    MmTierConf *tier = find(name, errp);

    if (!tier->draining) {
        error_setg(errp, "there is a tier '%s' already", name);
        return false;
    }
    if (!as_it_was) {
        error_setg(errp, "tier '%s' was drained; add it again without other "
                   "parameters, or remove it first", name);
        return false;
    }
    tier->draining = false;
    return true;
}

void qmp_managed_tier_add(const char *name, bool has_type,
                          ManagedTierType type, bool has_path,
                          const char *path, bool has_size, const char *size,
                          bool has_algorithm, ManagedTierAlgorithm algorithm,
                          bool has_overcommit, bool overcommit,
                          bool has_shared, bool shared,
                          bool has_throttling, ManagedIOThrottle *throttling,
                          bool has_write_budget, uint64_t write_budget,
                          bool has_before, const char *before, Error **errp)
{
    MmOptions *opts = &manager->opts;
    const MmTierConf *next = has_before ? find(before, errp) : NULL;
    MmTierConf tier;

    if (has_before && !next) {
        return;
    }
    if (mm_tier_find(opts->tiers, opts->nr_tiers, name)) {
        use_again(name, !has_type && !has_path && !has_size &&
                  !has_algorithm && !has_overcommit && !has_shared &&
                  !has_throttling && !has_write_budget && !has_before, errp);
        return;
    }
    if (!has_path && (!has_type || type != MANAGED_TIER_TYPE_COMPRESSED)) {
        error_setg(errp, "there is no tier '%s' to be used again; a new one "
                   "that is not compressed memory needs a path", name);
        return;
    }
    if (has_path && !g_path_is_absolute(path)) {
        error_setg(errp, "'%s' is not an absolute path", path);
        return;
    }
    if (!parse(&tier, name, has_type ? ManagedTierType_str(type) : NULL,
               has_path ? path : NULL, has_size ? size : NULL,
               has_algorithm ? ManagedTierAlgorithm_str(algorithm) : NULL,
               has_overcommit && overcommit, has_shared && shared,
               has_throttling ? throttling : NULL,
               has_write_budget ? write_budget : 0, errp)) {
        return;
    }
    if (!same_as_vms(&tier, errp) || !mm_tier_open(&tier, errp) ||
        !insert(&tier, next ? next - opts->tiers : opts->nr_tiers, errp)) {
        mm_tier_clear(&tier);
        return;
    }
    mm_shared_sweep(manager, find(name, &error_abort));
    mm_write_budget_begin(find(name, &error_abort));
}

static strList *other_tiers(MmVM *vm, const char *name)
{
    const MmOptions *opts = &manager->opts;
    strList *list = NULL, **tail = &list;
    unsigned i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;
        const MmTierConf *ours = mm_tier_find(opts->tiers, opts->nr_tiers,
                                              conf->name);

        if (strcmp(conf->name, name) && !conf->draining &&
            !(ours && ours->draining)) {
            QAPI_LIST_APPEND(tail, g_strdup(conf->name));
        }
    }
    for (i = 0; i < opts->nr_tiers; i++) {
        const MmTierConf *tier = &opts->tiers[i];

        /*
         * compressed memory would have to be the first, and who knows whether
         * the VM has a device
         */
        if (strcmp(tier->name, name) && !tier->draining &&
            !mm_record_tier(&vm->rec, tier->name) &&
            (tier->kind == MM_TIER_KIND_FILE ||
             (!list && tier->kind == MM_TIER_KIND_COMPRESSED))) {
            QAPI_LIST_APPEND(tail, g_strdup(tier->name));
        }
    }
    return list;
}

/* Can every VM that has it do without? */
static bool can_drain(const char *name, Error **errp)
{
    MmVM *vm;

    QTAILQ_FOREACH(vm, &manager->vms, next) {
        g_autoptr(strList) others = other_tiers(vm, name);

        if (!mm_record_tier(&vm->rec, name)) {
            continue;
        }
        if (!others) {
            error_setg(errp, "VM %s has no other tier than '%s'; add one first",
                       vm->uuid_text, name);
            return false;
        }
        if (!mm_vm_tiers_may_change(vm, errp)) {
            return false;
        }
        if (mm_operation_running(vm)) {
            error_setg(errp, "VM %s is busy with another operation; try again "
                       "when that is over", vm->uuid_text);
            return false;
        }
    }
    return true;
}

/* Is there another one that VMs can get, and that will do for them? */
static bool can_do_without(const MmTierConf *tier, Error **errp)
{
    const MmTierConf *last = NULL;
    unsigned i;

    for (i = 0; i < manager->opts.nr_tiers; i++) {
        const MmTierConf *other = &manager->opts.tiers[i];

        if (other != tier && !other->draining) {
            last = other;
        }
    }
    if (!last) {
        error_setg(errp, "there is no other tier that VMs could get than '%s'; "
                   "add one first", tier->name);
    } else if (last->kind == MM_TIER_KIND_COMPRESSED && !last->overcommit) {
        error_setg(errp, "without tier '%s' there is none that can promise "
                   "room, and VMs with a limit could not attach; add another "
                   "one in files first", tier->name);
        return false;
    }
    return last;
}

ManagedTierDrain *qmp_managed_tier_drain(const char *name, Error **errp)
{
    MmTierConf *tier = find(name, errp);
    ManagedTierDrain *out;
    MmVM *vm;

    if (!tier || !can_drain(name, errp)) {
        return NULL;
    }
    if (!can_do_without(tier, errp)) {
        return NULL;
    }
    tier->draining = true;
    out = g_new0(ManagedTierDrain, 1);
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        g_autoptr(strList) others = other_tiers(vm, name);
        Error *err = NULL;

        if (mm_record_tier(&vm->rec, name)) {
            out->vms++;
            if (!mm_vm_tiers_change(vm, others, &err)) {
                error_reportf_err(err, "VM %s keeps tier '%s': ", vm->label,
                                  name);
            }
        }
    }
    return out;
}

void qmp_managed_tier_remove(const char *name, Error **errp)
{
    MmOptions *opts = &manager->opts;
    MmTierConf *tier = find(name, errp);
    MmVM *vm;

    if (!tier) {
        return;
    }
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        if (mm_record_tier(&vm->rec, name)) {
            error_setg(errp, "VM %s has tier '%s'; managed-tier-drain, or "
                       "'qemu-memctl tier-drain', empties it", vm->uuid_text,
                       name);
            return;
        }
    }
    if (!can_do_without(tier, errp)) {
        return;
    }
    mm_tier_clear(tier);
    opts->nr_tiers--;
    memmove(tier, tier + 1,
            (&opts->tiers[opts->nr_tiers] - tier) * sizeof(*tier));
}

static bool parse_size(const char *name, MmTierKind kind, const char *size,
                       MmTierConf *out, Error **errp)
{
    return parse(out, name, mm_tier_type(kind), NULL, size, NULL, false, false,
                 NULL, 0, errp);
}

void qmp_managed_tier_resize(const char *name, const char *size, Error **errp)
{
    MmTierConf *tier = find(name, errp);
    MmTierConf new;

    if (tier && parse_size(name, tier->kind, size, &new, errp)) {
        tier->vm_size = new.vm_size;
        tier->vm_share = new.vm_share;
        mm_tier_clear(&new);
    }
}

static MmRecordTier *find_of_vm(MmVM *vm, const char *name, Error **errp)
{
    MmRecordTier *tier = mm_record_tier(&vm->rec, name);

    if (!tier) {
        error_setg(errp, "VM %s has no tier '%s'", vm->uuid_text, name);
    }
    return tier;
}

void coroutine_fn qmp_managed_vm_resize_tier(const char *id, const char *name,
                                             const char *size, Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);
    MmRecordTier *tier = vm ? find_of_vm(vm, name, errp) : NULL;
    MmMsgSetTier set;
    MmTierConf new;

    if (!tier || !parse_size(name, tier->conf.kind, size, &new, errp)) {
        return;
    }
    set = (MmMsgSetTier) {
        .number = tier->conf.number,
        .share = new.vm_share, .size = new.vm_size,
    };
    mm_tier_clear(&new);
    if (!mm_qmp_ask_pager(id, MM_MSG_SET_TIER, &set, sizeof(set), errp)) {
        return;
    }
    /* it may have gone while the pager thought about it */
    vm = mm_vm_find(manager, id, NULL);
    tier = vm ? mm_record_tier(&vm->rec, name) : NULL;
    if (tier) {
        tier->conf.share = set.share;
        tier->conf.size = set.size;
        mm_record_write(vm->record_path, &vm->rec, errp);
    }
}

static bool parse_throttle(const char *name, MmTierKind kind,
                           const ManagedIOThrottle *throttling,
                           MmMsgIOLimits *io, Error **errp)
{
    MmTierConf new;

    if (!parse(&new, name, mm_tier_type(kind), NULL, NULL, NULL, false, false,
               throttling, 0, errp)) {
        return false;
    }
    *io = new.io;
    mm_tier_clear(&new);
    return true;
}

void qmp_managed_tier_set_io_throttle(const char *name,
                                      ManagedIOThrottle *throttling,
                                      Error **errp)
{
    MmTierConf *tier = find(name, errp);

    if (tier) {
        parse_throttle(name, tier->kind, throttling, &tier->io, errp);
    }
}

void coroutine_fn
qmp_managed_vm_set_io_throttle(const char *id, const char *name,
                               ManagedIOThrottle *throttling, Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);
    MmRecordTier *tier = vm ? find_of_vm(vm, name, errp) : NULL;
    MmMsgSetIOLimits set = {};

    if (!tier || !parse_throttle(name, tier->conf.kind, throttling, &set.io,
                                 errp)) {
        return;
    }
    set.number = tier->conf.number;
    if (!mm_qmp_ask_pager(id, MM_MSG_SET_IO_LIMITS, &set, sizeof(set), errp)) {
        return;
    }
    /* it may have gone while the pager thought about it */
    vm = mm_vm_find(manager, id, NULL);
    tier = vm ? mm_record_tier(&vm->rec, name) : NULL;
    if (tier) {
        tier->conf.io = set.io;
        mm_record_write(vm->record_path, &vm->rec, errp);
    }
}

void qmp_managed_tier_set_write_budget(const char *name, uint64_t per_day,
                                       Error **errp)
{
    MmTierConf *tier = find(name, errp);
    MmTierConf new;

    if (tier && parse(&new, name, mm_tier_type(tier->kind), NULL, NULL, NULL,
                      false, false, NULL, per_day, errp)) {
        mm_tier_clear(&new);
        mm_write_budget_set(tier, per_day);
    }
}

ManagedVMOperation *qmp_managed_vm_set_tiers(const char *id, strList *tiers,
                                             Error **errp)
{
    MmVM *vm = mm_vm_find(manager, id, errp);

    if (!vm || !mm_vm_tiers_change(vm, tiers, errp)) {
        return NULL;
    }
    return mm_operation_describe(&vm->operation);
}
