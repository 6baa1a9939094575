/*
 * Managed memory: the migration section "managed-ram"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages of managed memory that are not in memory are not brought in to be sent
 * (managed-ram-source.c), nor where they arrive (managed-ram-target.c).  The
 * section is registered before ram's, and takes from the migration bitmap what
 * it sends itself; ram sends the rest.
 *
 * What it sends may neither overtake older content of the same page nor be
 * overtaken by newer.  Content that travels through channels of its own
 * (multifd) is kept in order by a SYNC record; ram sees to it that what it has
 * sent arrives before its part of the stream ends.  Where that cannot be had
 * (compress), or content depends on what was sent (xbzrle), managed memory
 * refuses the capability.
 *
 * The destination is asked before anything is sent (managed_ram_negotiate()).
 * One that does not understand the section is sent what any QEMU sends.
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/ctype.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "exec/ram_addr.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "migration/managed-ram.h"
#include "migration/managed-ram-internal.h"
#include "migration/managed-ram-owner.h"
#include "migration/managed-ram-wire.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-visit-migration.h"
#include "sysemu/managed-memory.h"

/* The pong of a destination that understands the section: "MMR", version */
#define PONG_UNDERSTOOD (0x4d4d5200 | MANAGED_RAM_VERSION)
/* Pongs in which a destination says why it refuses: three bytes of text each */
#define PONG_TEXT 'E'
#define TEXT_MAX 1000
/* So that the source has read it before the connection ends */
#define TEXT_MS 200
/* The first ping of migration_thread() */
#define FIRST_PING 1
#define ANSWER_RECHECK_US 1000
#define ANSWER_TIMEOUT_S 30

/* atomic: written by the thread of the return path */
static bool understood;         /* the destination says so */
static bool answered;           /* it has answered the first ping */
/* of the thread of the return path: what the destination has said so far */
static char refusal[TEXT_MAX + 1];
static unsigned refusal_len;
/* atomic: written by the migration thread */
static bool active;
/* atomic: reset by the main thread, before there is a migration thread */
static bool used;               /* by this migration, or the last one */
/* set by the main thread, before there is a migration thread */
static bool asks;               /* the destination is asked */

static bool enabled(void)
{
    return migrate_get_current()->
           enabled_capabilities[MIGRATION_CAPABILITY_MANAGED_RAM];
}

static bool wanted(void)
{
    return managed_memory_used() && enabled() &&
           TARGET_PAGE_SIZE == MANAGED_RAM_PAGE_SIZE;
}

static bool can_ask(MigrationState *s)
{
    Object *ioc = OBJECT(qemu_file_get_ioc(s->to_dst_file));

    /* a command or a pipe might take the request for a part of the stream */
    return wanted() && (object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_SOCKET) ||
                        object_dynamic_cast(ioc, TYPE_QIO_CHANNEL_TLS));
}

static void fail(MigrationState *s, int ret, const char *why)
{
    Error *err = NULL;

    error_setg(&err, "%s", why);
    migrate_set_error(s, err);
    error_report_err(err);
    qemu_file_set_error(s->to_dst_file, ret);
}

bool managed_ram_wants_return_path(MigrationState *s)
{
    bool left = managed_ram_owner_has_left();

    /* the numbers of the last migration are not this one's */
    qatomic_set(&used, false);
    refusal_len = 0;
    asks = !left && can_ask(s);
    if (left) {
        /* what is left of it here cannot be sent once more */
        fail(s, -EPERM, "this guest has gone to another host, which alone can "
             "run it or send it on: quit this QEMU; or, if it has not arrived "
             "there, have it go on here (cont)");
    }
    return asks;
}

static bool waits_for_answer(MigrationState *s)
{
    return !qatomic_load_acquire(&answered) &&
           s->state == MIGRATION_STATUS_SETUP && !s->rp_state.error &&
           !qemu_file_get_error(s->to_dst_file);
}

void managed_ram_negotiate(MigrationState *s)
{
    int64_t end = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  ANSWER_TIMEOUT_S * 1000;

    if (!asks) {
        return;
    }
    qemu_fflush(s->to_dst_file);
    while (waits_for_answer(s)) {
        if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) >= end) {
            fail(s, -ETIMEDOUT, "the destination has not answered within "
                 stringify(ANSWER_TIMEOUT_S) " s; if it is none that could, "
                 "switch migration capability managed-ram off");
        }
        g_usleep(ANSWER_RECHECK_US);
    }
    qatomic_set(&active, qatomic_read(&understood));
    qatomic_set(&used, qatomic_read(&understood));
}

void managed_ram_close_return_path(MigrationState *s)
{
    /* the memory may have been detached meanwhile */
    if (s->rp_state.rp_thread_created && asks) {
        WITH_QEMU_LOCK_GUARD(&s->qemu_file_lock) {
            if (s->rp_state.from_dst_file) {
                qemu_file_shutdown(s->rp_state.from_dst_file);
            }
        }
        qemu_thread_join(&s->rp_state.rp_thread);
        s->rp_state.rp_thread_created = false;
    }
    /* nobody is left who could say anything */
    qatomic_set(&answered, false);
    qatomic_set(&understood, false);
}

/* Returns whether that was all. */
static bool hear_refusal(uint32_t value)
{
    int shift;

    for (shift = 16; shift >= 0; shift -= 8) {
        char c = value >> shift;

        if (!c || refusal_len == TEXT_MAX) {
            refusal[refusal_len] = '\0';
            return true;
        }
        refusal[refusal_len++] = qemu_isprint(c) ? c : '?';
    }
    return false;
}

static void report_refusal(void)
{
    Error *err = NULL;

    error_setg(&err, "the destination refuses this guest: %s", refusal);
    migrate_set_error(migrate_get_current(), err);
    error_report_err(err);
    refusal_len = 0;
}

void managed_ram_refuse(const char *why)
{
    MigrationIncomingState *mis = migration_incoming_get_current();
    size_t len = MIN(strlen(why), TEXT_MAX), i;

    if (!mis->to_src_file) {
        return;
    }
    for (i = 0; i <= len; i += 3) {
        uint32_t value = PONG_TEXT << 24;
        unsigned k;

        for (k = 0; k < 3 && i + k < len; k++) {
            value |= (uint32_t)(uint8_t)why[i + k] << (16 - 8 * k);
        }
        migrate_send_rp_pong(mis, value);
    }
    g_usleep(TEXT_MS * 1000);
}

void managed_ram_pong(uint32_t value)
{
    if (value >> 24 == PONG_TEXT) {
        if (hear_refusal(value)) {
            report_refusal();
        }
    } else if (value == PONG_UNDERSTOOD) {
        qatomic_set(&understood, true);
    } else if (value == FIRST_PING) {
        qatomic_store_release(&answered, true);
    }
}

void managed_ram_ping(MigrationIncomingState *mis)
{
    if (enabled()) {
        migrate_send_rp_pong(mis, PONG_UNDERSTOOD);
    }
}

void managed_ram_fill_info(MigrationInfo *info)
{
    ManagedRamStats sent = managed_ram_sent();

    if (qatomic_read(&used)) {
        info->has_managed_ram = true;
        info->managed_ram = QAPI_CLONE(ManagedRamStats, &sent);
    }
}

static bool is_active(void *opaque)
{
    return qatomic_read(&active);
}

static void save_cleanup(void *opaque)
{
    managed_ram_save_cleanup(opaque);
    qatomic_set(&active, false);
}

static SaveVMHandlers handlers = {
    .save_setup = managed_ram_save_setup,
    .save_live_iterate = managed_ram_save_iterate,
    .save_live_complete_precopy = managed_ram_save_complete,
    .save_cleanup = save_cleanup,
    .is_active = is_active,
    .load_state = managed_ram_load_state,
    .load_cleanup = managed_ram_load_cleanup,
};

void managed_ram_init(void)
{
    register_savevm_live("managed-ram", 0, MANAGED_RAM_VERSION, &handlers,
                         NULL);
}
