/*
 * qemu-memory-manager: I/O limits as people give them; pagers enforce them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "io-throttle.h"

/*
 * With less, a single cluster of pages would hold up all faults for longer than
 * people wait.
 */
#define MIN_BPS (1 * MiB)
#define MIN_IOPS 16

static bool check(const char *what, uint64_t rate, uint64_t most,
                  uint64_t least, Error **errp)
{
    if (rate && rate < least) {
        error_setg(errp, "throttling.%s=%" PRIu64 " is too low for a guest's "
                   "memory; it is at least %" PRIu64 ", or 0 for no limit",
                   what, rate, least);
        return false;
    }
    if (most && most < rate) {
        error_setg(errp, "throttling.%s-max cannot be lower than "
                   "throttling.%s", what, what);
        return false;
    }
    if (most && !rate) {
        error_setg(errp, "throttling.%s-max needs throttling.%s", what, what);
        return false;
    }
    return true;
}

bool mm_io_throttle_from_opts(MmMsgIOLimits *io, QemuOpts *o, Error **errp)
{
    *io = (MmMsgIOLimits) {
        .bps = qemu_opt_get_size(o, "throttling.bps-total", 0),
        .bps_burst = qemu_opt_get_size(o, "throttling.bps-total-max", 0),
        .iops = qemu_opt_get_number(o, "throttling.iops-total", 0),
        .iops_burst = qemu_opt_get_number(o, "throttling.iops-total-max", 0),
    };
    return check("bps-total", io->bps, io->bps_burst, MIN_BPS, errp) &&
           check("iops-total", io->iops, io->iops_burst, MIN_IOPS, errp);
}

static void set(QemuOpts *o, const char *key, bool has, uint64_t value)
{
    if (has) {
        g_autofree char *text = g_strdup_printf("%" PRIu64, value);

        qemu_opt_set(o, key, text, &error_abort);
    }
}

void mm_io_throttle_to_opts(const ManagedIOThrottle *t, QemuOpts *o)
{
    set(o, "throttling.bps-total", t->has_bps_total, t->bps_total);
    set(o, "throttling.bps-total-max", t->has_bps_total_max,
        t->bps_total_max);
    set(o, "throttling.iops-total", t->has_iops_total, t->iops_total);
    set(o, "throttling.iops-total-max", t->has_iops_total_max,
        t->iops_total_max);
}

bool mm_io_throttle_any(const MmMsgIOLimits *io)
{
    return io->bps || io->iops;
}

ManagedIOThrottle *mm_io_throttle_describe(const MmMsgIOLimits *io)
{
    ManagedIOThrottle *out;

    if (!mm_io_throttle_any(io)) {
        return NULL;
    }
    out = g_new0(ManagedIOThrottle, 1);
    out->has_bps_total = io->bps;
    out->bps_total = io->bps;
    out->has_bps_total_max = io->bps_burst;
    out->bps_total_max = io->bps_burst;
    out->has_iops_total = io->iops;
    out->iops_total = io->iops;
    out->has_iops_total_max = io->iops_burst;
    out->iops_total_max = io->iops_burst;
    return out;
}
