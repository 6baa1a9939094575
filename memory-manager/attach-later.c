/*
 * qemu-memory-manager: QEMUs whose devices are about to become free
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "attach-later.h"
#include "tier-plan.h"

#define LOOK_MS 10
#define MOST_MS 5000
/* Others are attached at once, and refused if need be. */
#define MAX_WAITING 32

typedef struct Later {
    MmManager *mgr;
    MmHelloPeer peer;
    MmMsgHello hello;
    MmAttachFn *attach;
    int64_t until_ms;
    QEMUTimer *timer;
} Later;

static unsigned nr_waiting;

static bool is_ending(const MmVM *vm)
{
    return vm->state == MANAGEDVM_STATE_CLOSING || !vm->qemu ||
           !mm_process_runs(vm->qemu);
}

static bool has_device(const MmVM *vm, uint64_t device)
{
    uint32_t i;

    for (i = 0; i < vm->rec.nr_tiers; i++) {
        const MmMsgStartTier *conf = &vm->rec.tiers[i].conf;

        if (conf->kind == MM_TIER_KIND_DEVICE && conf->device == device) {
            return true;
        }
    }
    return false;
}

static bool has_to_wait(MmManager *mgr, const MmMsgHello *hello)
{
    MmRecord rec = {};
    uint32_t i;
    MmVM *vm;

    mm_vm_copy_name(rec.name, hello->name);
    if (!mm_tier_plan_new(&rec, &mgr->opts, NULL)) {
        return false;
    }
    for (i = 0; i < rec.nr_tiers; i++) {
        QTAILQ_FOREACH(vm, &mgr->vms, next) {
            if (rec.tiers[i].conf.kind == MM_TIER_KIND_DEVICE &&
                is_ending(vm) && has_device(vm, rec.tiers[i].conf.device)) {
                return true;
            }
        }
    }
    return false;
}

static void look(void *opaque)
{
    Later *later = opaque;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now < later->until_ms && has_to_wait(later->mgr, &later->hello)) {
        timer_mod(later->timer, now + LOOK_MS);
        return;
    }
    nr_waiting--;
    later->attach(&later->peer);
    timer_free(later->timer);
    g_free(later);
}

bool mm_attach_later(MmManager *mgr, const MmHelloPeer *peer,
                     MmAttachFn *attach)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    Later *later;

    if (nr_waiting == MAX_WAITING || !has_to_wait(mgr, peer->hello)) {
        return false;
    }
    nr_waiting++;
    later = g_new0(Later, 1);
    later->mgr = mgr;
    later->peer = *peer;
    later->hello = *peer->hello;
    later->peer.hello = &later->hello;
    later->attach = attach;
    later->until_ms = now + MOST_MS;
    later->timer = timer_new_ms(QEMU_CLOCK_REALTIME, look, later);
    timer_mod(later->timer, now + LOOK_MS);
    return true;
}
