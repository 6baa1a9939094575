/*
 * qemu-memory-manager: which tiers a VM is to get
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/host-utils.h"
#include "shared-file.h"
#include "tier-device.h"
#include "tier-plan.h"

static bool describe_new(const MmTierConf *conf, uint32_t number,
                         const char *vm_name, MmRecordTier *tier, Error **errp)
{
    mm_tier_describe(conf, &tier->conf);
    tier->conf.number = number;
    tier->conf.is_new = 1;
    pstrcpy(tier->path, sizeof(tier->path), conf->path ?: "");
    return (!conf->shared || mm_shared_name_file(&tier->conf, errp)) &&
           (conf->kind != MM_TIER_KIND_DEVICE ||
            mm_device_find(tier, vm_name, errp));
}

bool mm_tier_plan_new(MmRecord *rec, const MmOptions *opts, Error **errp)
{
    unsigned i;

    for (i = 0; i < opts->nr_tiers; i++) {
        const MmTierConf *conf = &opts->tiers[i];

        if (conf->draining) {
            continue;
        }
        if (!describe_new(conf, rec->nr_tiers, rec->name,
                          &rec->tiers[rec->nr_tiers], errp)) {
            return false;
        }
        rec->nr_tiers++;
    }
    return true;
}

/* A number that neither the VM nor what is in @rec has; there are enough. */
static uint32_t unused_number(const MmVM *vm, const MmRecord *rec)
{
    uint32_t used = 0, i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        used |= 1u << vm->rec.tiers[i].conf.number;
    }
    for (i = 0; i < rec->nr_tiers; i++) {
        used |= 1u << rec->tiers[i].conf.number;
    }
    return ctz32(~used);
}

static bool add_by_name(MmVM *vm, MmRecord *rec, const char *name,
                        Error **errp)
{
    const MmOptions *opts = &vm->mgr->opts;
    const MmTierConf *conf = mm_tier_find(opts->tiers, opts->nr_tiers, name);
    const MmRecordTier *has = mm_record_tier(&vm->rec, name);
    MmRecordTier *tier = &rec->tiers[rec->nr_tiers];

    if (!has && (!conf || conf->draining)) {
        error_setg(errp, conf ? "tier '%s' is being drained"
                   : "there is no tier '%s'; query-managed-tiers, or "
                   "'qemu-memctl tiers', shows all", name);
        return false;
    }
    if (has) {
        *tier = *has;
    } else if (!describe_new(conf, unused_number(vm, rec), vm->rec.name, tier,
                             errp)) {
        return false;
    }
    if (rec->nr_tiers && tier->conf.kind == MM_TIER_KIND_COMPRESSED) {
        error_setg(errp, "tier '%s' is compressed memory and has to be the "
                   "first one", name);
        return false;
    }
    rec->nr_tiers++;
    return true;
}

/* The tiers of @names, then those that have to go. */
bool mm_tier_plan(MmVM *vm, const strList *names, MmRecord *rec,
                  uint32_t *leaving, Error **errp)
{
    uint32_t i;

    rec->nr_tiers = 0;
    *leaving = 0;
    if (!names) {
        error_setg(errp, "a VM needs at least one tier");
        return false;
    }
    for (; names; names = names->next) {
        if (mm_record_tier(rec, names->value)) {
            error_setg(errp, "tier '%s' is named twice", names->value);
            return false;
        }
        if (rec->nr_tiers == MM_MAX_TIERS ||
            !add_by_name(vm, rec, names->value, errp)) {
            return false;
        }
    }
    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmRecordTier *tier = &vm->rec.tiers[i];

        if (mm_record_tier(rec, tier->conf.name)) {
            continue;
        }
        if (rec->nr_tiers == MM_MAX_TIERS) {
            error_setg(errp, "with those that have to be drained, the VM would "
                       "have more than %d tiers; do it in two steps",
                       MM_MAX_TIERS);
            return false;
        }
        rec->tiers[rec->nr_tiers++] = *tier;
        /* what is another host's has to be claimed first */
        if (!tier->conf.lent || mm_shared_is_ours(tier->conf.file)) {
            *leaving |= 1u << tier->conf.number;
        }
    }
    return true;
}

bool mm_tier_plan_lent(MmVM *vm, const MmRecordTier *tier, MmRecord *rec,
                       uint64_t *number, Error **errp)
{
    if (rec->nr_tiers == MM_MAX_TIERS) {
        error_setg(errp, "VM %s has %d tiers already, and can have no more",
                   vm->uuid_text, MM_MAX_TIERS);
        return false;
    }
    *number = unused_number(vm, rec);
    rec->tiers[rec->nr_tiers] = *tier;
    rec->tiers[rec->nr_tiers++].conf.number = *number;
    return true;
}
