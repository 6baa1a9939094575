/*
 * qemu-memory-manager: trouble that a pager reports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager that has been broken into may send as many events as it likes; they
 * must not fill the log, nor keep everybody who listens to QMP busy. So only
 * some are reported in each second, and at the end of the second the last one
 * of those that were withheld: it may be the end of the trouble.
 */
#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "memory-manager/qapi/qapi-events-memory-manager.h"
#include "vm.h"

#define PERIOD_MS 1000
/* Of one topic and VM. */
#define REPORTS_PER_PERIOD 10

static const struct {
    ManagedVMConditionType type;
    MmTopic topic;
} conditions[MM_EVENT__MAX] = {
    [MM_EVENT_IO_ERROR] = { MANAGEDVM_CONDITION_TYPE_IO_ERROR, MM_TOPIC_IO },
    [MM_EVENT_IO_RECOVERED] = { MANAGEDVM_CONDITION_TYPE_IO_RECOVERED,
                                MM_TOPIC_IO },
    [MM_EVENT_PRESSURE] = { MANAGEDVM_CONDITION_TYPE_PRESSURE,
                            MM_TOPIC_PRESSURE },
    [MM_EVENT_PRESSURE_OVER] = { MANAGEDVM_CONDITION_TYPE_PRESSURE_OVER,
                                 MM_TOPIC_PRESSURE },
    [MM_EVENT_PAGE_LOST] = { MANAGEDVM_CONDITION_TYPE_PAGE_LOST,
                             MM_TOPIC_PAGE_LOST },
};

/* Refusals in all, whoever asks. */
static struct {
    int64_t since_ms;
    unsigned reported;
    unsigned withheld;
} refusals;

/* For logs, which are shown on terminals. */
static char *plain(const char *text)
{
    char *copy = g_strdup(text);
    char *c;

    for (c = copy; *c; c++) {
        *c = g_ascii_isprint(*c) ? *c : '?';
    }
    return copy;
}

static char *tell_suppressed(unsigned suppressed)
{
    return suppressed ? g_strdup_printf(" (%u reports before this one "
                                        "suppressed)", suppressed)
                      : g_strdup("");
}

static bool is_end_of_trouble(const MmMsgEvent *event)
{
    return event->kind == MM_EVENT_IO_RECOVERED ||
           event->kind == MM_EVENT_PRESSURE_OVER;
}

static void report(MmVM *vm, const MmMsgEvent *event, unsigned suppressed)
{
    ManagedVMConditionType type = conditions[event->kind].type;
    g_autofree char *more = tell_suppressed(suppressed);
    g_autofree char *text = plain(event->text);

    if (is_end_of_trouble(event)) {
        info_report("VM %s: %s: %s%s", vm->label,
                    ManagedVMConditionType_str(type), text, more);
    } else {
        warn_report("VM %s: %s: %s%s", vm->label,
                    ManagedVMConditionType_str(type), text, more);
    }
    qapi_event_send_managed_vm_condition(vm->uuid_text, vm->rec.name, type,
                                         event->region != UINT32_MAX,
                                         event->region, event->arg,
                                         event->text, suppressed > 0,
                                         suppressed);
}

static void end_period(MmVM *vm, MmTopic topic, int64_t now)
{
    MmTopicState *t = &vm->conditions.topics[topic];
    unsigned withheld = t->withheld;

    t->since_ms = now;
    t->withheld = 0;
    t->reported = withheld > 0;
    if (withheld) {
        report(vm, &t->last, withheld - 1);
    }
}

static void period_ended(void *opaque)
{
    MmVM *vm = opaque;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    int64_t next = INT64_MAX;
    int i;

    for (i = 0; i < MM_TOPIC__MAX; i++) {
        MmTopicState *t = &vm->conditions.topics[i];

        if (t->withheld && now - t->since_ms >= PERIOD_MS) {
            end_period(vm, i, now);
        } else if (t->withheld) {
            next = MIN(next, t->since_ms + PERIOD_MS);
        }
    }
    if (next != INT64_MAX) {
        timer_mod(vm->conditions.timer, next);
    }
}

void mm_condition_report(MmVM *vm, const MmMsgEvent *event)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    MmTopicState *t;

    if (event->kind >= MM_EVENT__MAX) {
        return;
    }
    t = &vm->conditions.topics[conditions[event->kind].topic];
    if (now - t->since_ms >= PERIOD_MS) {
        end_period(vm, conditions[event->kind].topic, now);
    }
    if (t->reported < REPORTS_PER_PERIOD) {
        t->reported++;
        report(vm, event, 0);
        return;
    }
    t->last = *event;
    t->withheld++;
    timer_mod_anticipate(vm->conditions.timer, t->since_ms + PERIOD_MS);
}

void mm_condition_refused(const char *who, const char *why)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    g_autofree char *more = NULL;
    g_autofree char *text = NULL;

    if (now - refusals.since_ms >= PERIOD_MS) {
        refusals.since_ms = now;
        refusals.reported = 0;
    }
    if (refusals.reported >= REPORTS_PER_PERIOD) {
        refusals.withheld++;
        return;
    }
    refusals.reported++;
    more = tell_suppressed(refusals.withheld);
    refusals.withheld = 0;
    text = plain(why);
    warn_report("%s: refused: %s%s", who, text, more);
}

void mm_condition_refused_vm(const MmVM *vm, const char *why)
{
    g_autofree char *who = g_strdup_printf("VM %s", vm->label);

    mm_condition_refused(who, why);
}

void mm_condition_init(MmVM *vm)
{
    vm->conditions.timer = timer_new_ms(QEMU_CLOCK_REALTIME, period_ended, vm);
}

void mm_condition_clear(MmVM *vm)
{
    timer_free(vm->conditions.timer);
}
