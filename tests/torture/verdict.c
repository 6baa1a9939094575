/*
 * Torture tests: the verdict of a run (see verdict.h)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "verdict.h"

struct Verdict {
    char *text;                 /* atomic: set once */
    bool muted;                 /* atomic */
};

Verdict *verdict_new(void)
{
    return g_new0(Verdict, 1);
}

void verdict_free(Verdict *v)
{
    if (v) {
        g_free(v->text);
        g_free(v);
    }
}

void verdict_fail(Verdict *v, const char *fmt, ...)
{
    va_list ap;
    char *text;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (qatomic_read(&v->muted) || qatomic_cmpxchg(&v->text, NULL, text)) {
        g_free(text);
    } else if (g_getenv("MM_TORTURE_STOP")) {
        g_printerr("%s\n", text);
        raise(SIGSTOP);
    }
}

void verdict_mute(Verdict *v, bool mute)
{
    qatomic_set(&v->muted, mute);
}

bool verdict_failed(Verdict *v)
{
    return verdict_text(v) != NULL;
}

const char *verdict_text(Verdict *v)
{
    return qatomic_load_acquire(&v->text);
}
