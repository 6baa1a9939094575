/*
 * The serial line between the guest agent and the test on the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdbool.h>
#include <stddef.h>

/**
 * console_setup: switch the console to whole lines without echo
 *
 * Reads standard input and writes standard output, which init leaves
 * connected to the serial port.
 */
void console_setup(void);

/**
 * report: send one line to the host, prefixed with "MM: "
 *
 * May be called by any thread; a line is never mixed with another one's.
 *
 * @fmt: printf format without the line end
 */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * console_read_line: wait for a line from the host
 *
 * @line: buffer for the line without its end
 * @size: bytes in @line; the rest of a longer line is returned by the
 *     next call
 *
 * Returns false if the console is gone.
 */
bool console_read_line(char *line, size_t size);

/**
 * console_fd: the descriptor to poll for a line from the host
 */
int console_fd(void);

#endif
