/*
 * qemu-memory-manager: what all VMs together write to a tier per day
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every now and then each VM is asked what it has written.  A tier whose budget
 * is used up is *spared*: VMs write to their other tiers, and to this one only
 * what no other takes.  A guest is never made to wait for a budget.
 *
 * What is left, and what of each VM has been counted, is kept in the run
 * directory for a manager that is restarted.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/timer.h"
#include "memory-manager/qapi/qapi-events-memory-manager.h"
#include "vm.h"
#include "write-budget.h"

#define LOOK_MS 2000
#define FILE_NAME "write-budgets"
#define KEY_LEFT "left"
#define KEY_AT "at"
#define KEY_PER_DAY "per-day"
#define KEY_WRITTEN "written"

static MmManager *manager;
static QEMUTimer *timer;

/* Goes on while there is no manager. */
static int64_t now_ms(void)
{
    return g_get_real_time() / 1000;
}

static char *file_path(void)
{
    return g_build_filename(manager->opts.run_dir, FILE_NAME, NULL);
}

static void save_vm(GKeyFile *file, const MmVM *vm)
{
    double bytes[MM_MAX_TIERS];
    unsigned i;

    for (i = 0; i < MM_MAX_TIERS; i++) {
        bytes[i] = vm->writes.bytes[i];
    }
    g_key_file_set_double_list(file, vm->uuid_text, KEY_WRITTEN, bytes,
                               MM_MAX_TIERS);
}

/* Without it a manager that is restarted begins with a whole day's. */
static void save(void)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *path = file_path();
    unsigned i;
    MmVM *vm;

    for (i = 0; i < manager->opts.nr_tiers; i++) {
        const MmTierConf *tier = &manager->opts.tiers[i];

        if (tier->writes.per_day) {
            g_key_file_set_double(file, tier->name, KEY_LEFT,
                                  tier->writes.left);
            g_key_file_set_int64(file, tier->name, KEY_AT, tier->writes.at_ms);
            g_key_file_set_uint64(file, tier->name, KEY_PER_DAY,
                                  tier->writes.per_day);
        }
    }
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        if (vm->writes.known) {
            save_vm(file, vm);
        }
    }
    g_key_file_save_to_file(file, path, NULL);
}

static void load_vm(GKeyFile *file, MmVM *vm)
{
    g_autofree double *bytes = NULL;
    gsize i, nr = 0;

    bytes = g_key_file_get_double_list(file, vm->uuid_text, KEY_WRITTEN, &nr,
                                       NULL);
    vm->writes.known = bytes && nr == MM_MAX_TIERS;
    for (i = 0; vm->writes.known && i < nr; i++) {
        vm->writes.bytes[i] = MAX(bytes[i], 0);
    }
}

/* With what was left of the budget that it had, which may be another one now */
static void load_tier(GKeyFile *file, MmTierConf *tier)
{
    uint64_t per_day = tier->writes.per_day, was;
    int64_t now = now_ms();

    mm_account_open(&tier->writes, per_day, per_day, now);
    was = g_key_file_get_uint64(file, tier->name, KEY_PER_DAY, NULL);
    if (per_day && was) {
        double left = g_key_file_get_double(file, tier->name, KEY_LEFT, NULL);
        int64_t at = g_key_file_get_int64(file, tier->name, KEY_AT, NULL);

        mm_account_open(&tier->writes, was, left, MIN(at, now));
        mm_account_set(&tier->writes, per_day, now);
    }
}

static void load(void)
{
    g_autoptr(GKeyFile) file = g_key_file_new();
    g_autofree char *path = file_path();
    unsigned i;
    MmVM *vm;

    g_key_file_load_from_file(file, path, G_KEY_FILE_NONE, NULL);
    for (i = 0; i < manager->opts.nr_tiers; i++) {
        load_tier(file, &manager->opts.tiers[i]);
    }
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        load_vm(file, vm);
    }
}

/* Another folder of the same name, of an earlier manager, is another tier. */
static MmTierConf *find_conf(const MmRecordTier *has)
{
    MmOptions *opts = &manager->opts;
    const MmTierConf *tier = mm_tier_find(opts->tiers, opts->nr_tiers,
                                          has->conf.name);

    return tier && !strncmp(tier->path ?: "", has->path,
                            MM_RECORD_PATH_LEN - 1)
           ? &opts->tiers[tier - opts->tiers] : NULL;
}

static void tell(const MmTierConf *tier)
{
    g_autofree char *per_day = size_to_str(tier->writes.per_day);

    if (tier->writes.exhausted) {
        warn_report("tier '%s': the write budget of %s per day is used up; VMs "
                    "write to it only what no other tier takes", tier->name,
                    per_day);
    } else {
        info_report("tier '%s': there is a write budget again", tier->name);
    }
    qapi_event_send_managed_tier_write_budget(tier->name,
                                              tier->writes.exhausted);
}

static void charge(MmTierConf *tier, uint64_t bytes)
{
    if (mm_account_charge(&tier->writes, bytes, now_ms())) {
        tell(tier);
    }
}

static void take_counts(MmVM *vm, const MmMsgQueryReply *reply)
{
    MmVMWrites *writes = &vm->writes;
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;
        MmTierConf *tier = find_conf(&vm->rec.tiers[i]);
        uint64_t bytes = reply->stats.tier_written[conf->number];
        uint64_t before = writes->bytes[conf->number];

        if (tier && writes->known && bytes > before) {
            charge(tier, bytes - before);
        }
    }
    memcpy(writes->bytes, reply->stats.tier_written, sizeof(writes->bytes));
    writes->known = true;
}

static void answered(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;

    vm->writes.asked = false;
    if (mm_reply_ok(msg, MM_MSG_QUERY_REPLY, NULL)) {
        take_counts(vm, (const void *)msg->payload);
    }
}

static void spared(void *opaque, const MmMsg *msg)
{
    MmVM *vm = opaque;

    vm->writes.asked = false;
    if (!mm_reply_ok(msg, MM_MSG_OK, NULL)) {
        vm->writes.spared = UINT32_MAX;     /* not known: tell it again */
    }
}

static uint32_t to_spare(const MmVM *vm)
{
    uint32_t i, mask = 0;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;
        const MmTierConf *tier = find_conf(&vm->rec.tiers[i]);

        if (tier && tier->writes.exhausted) {
            mask |= 1u << conf->number;
        }
    }
    return mask;
}

static void ask(MmVM *vm)
{
    const MmMsgSetSpared set = { .tiers = to_spare(vm) };

    if (vm->state != MANAGEDVM_STATE_SERVING || vm->writes.asked ||
        !mm_vm_connect(vm, NULL)) {
        return;
    }
    if (set.tiers != vm->writes.spared) {
        vm->writes.spared = set.tiers;
        vm->writes.asked = mm_link_request(vm->link, MM_MSG_SET_SPARED, &set,
                                           sizeof(set), spared, vm, NULL);
    } else {
        vm->writes.asked = mm_link_request(vm->link, MM_MSG_QUERY, NULL, 0,
                                           answered, vm, NULL);
    }
}

static bool any_budget(void)
{
    unsigned i;

    for (i = 0; i < manager->opts.nr_tiers; i++) {
        if (manager->opts.tiers[i].writes.per_day) {
            return true;
        }
    }
    return false;
}

/* One more after the last budget was lifted, to spare nothing any more. */
static void look(void *opaque)
{
    bool again = any_budget();
    unsigned i;
    MmVM *vm;

    for (i = 0; i < manager->opts.nr_tiers; i++) {
        charge(&manager->opts.tiers[i], 0);
    }
    QTAILQ_FOREACH(vm, &manager->vms, next) {
        ask(vm);
        again |= vm->writes.spared != to_spare(vm);
    }
    save();
    if (again) {
        timer_mod(timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + LOOK_MS);
    }
}

void mm_write_budget_init(MmManager *mgr)
{
    manager = mgr;
    timer = timer_new_ms(QEMU_CLOCK_REALTIME, look, NULL);
    load();
    if (any_budget()) {
        look(NULL);
    }
}

void mm_write_budget_new_pager(MmVM *vm, bool first)
{
    vm->writes.spared = 0;
    vm->writes.known |= first;
}

void mm_write_budget_begin(MmTierConf *tier)
{
    uint64_t per_day = tier->writes.per_day;

    mm_account_open(&tier->writes, per_day, per_day, now_ms());
    look(NULL);
}

void mm_write_budget_set(MmTierConf *tier, uint64_t per_day)
{
    bool was = tier->writes.exhausted;

    mm_account_set(&tier->writes, per_day, now_ms());
    if (tier->writes.exhausted != was) {
        tell(tier);
    }
    look(NULL);
}

ManagedTierWriteBudget *mm_write_budget_describe(const MmWriteAccount *account)
{
    ManagedTierWriteBudget *out;

    if (!account->per_day) {
        return NULL;
    }
    out = g_new0(ManagedTierWriteBudget, 1);
    out->per_day = account->per_day;
    out->left = MAX(account->left, 0);
    out->exhausted = account->exhausted;
    return out;
}
