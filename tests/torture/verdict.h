/*
 * Torture tests: the verdict of a run
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Threads that find something wrong say so here and go on; the test looks at
 * the end.  It is no assertion, since mutation tests want runs to fail, and a
 * run that has failed must still be taken down in order.  Any thread may call
 * any function.
 */
#ifndef TORTURE_VERDICT_H
#define TORTURE_VERDICT_H

typedef struct Verdict Verdict;

Verdict *verdict_new(void);
void verdict_free(Verdict *v);

/**
 * verdict_fail: note a failure
 *
 * The first text is the verdict, later ones are dropped: what is seen after a
 * failure is often only its consequence.
 */
void verdict_fail(Verdict *v, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/**
 * verdict_mute: drop what is noted from now on, or stop doing so
 *
 * While threads are let go that wait for what will not come.
 */
void verdict_mute(Verdict *v, bool mute);

/** verdict_failed: has anything been noted? */
bool verdict_failed(Verdict *v);

/** verdict_text: what was noted, or NULL; valid until verdict_free(). */
const char *verdict_text(Verdict *v);

#endif
