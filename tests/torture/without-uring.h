/*
 * Torture tests: running a pager as on a host without io_uring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef TORTURE_WITHOUT_URING_H
#define TORTURE_WITHOUT_URING_H

/* First argument that makes this program a wrapper for others. */
#define WITHOUT_URING_OPTION "--without-io-uring"

/**
 * without_uring_exec: run a program to which io_uring does not exist
 *
 * @argv: the program and its arguments, NULL-terminated
 *
 * Replaces the process; returns only on failure.
 */
void without_uring_exec(char **argv);

#endif
