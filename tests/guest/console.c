/*
 * The serial line between the guest agent and the test on the host
 *
 * Everything that the host may rely on starts with "MM: " and is written with
 * one system call, since the kernel keeps single writes to a terminal
 * together.  Kernel messages can still appear on the same port.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "console.h"

#define PREFIX "MM: "

enum { LINE_BYTES = 512 };

void console_setup(void)
{
    struct termios mode;

    if (tcgetattr(STDIN_FILENO, &mode) == 0) {
        mode.c_lflag &= ~(ECHO | ECHONL | ISIG);
        mode.c_lflag |= ICANON;
        mode.c_iflag |= ICRNL;
        tcsetattr(STDIN_FILENO, TCSANOW, &mode);
    }
}

void report(const char *fmt, ...)
{
    char line[LINE_BYTES] = PREFIX;
    size_t used = strlen(PREFIX);
    size_t room = sizeof(line) - used - 1;
    va_list args;
    int length;

    va_start(args, fmt);
    length = vsnprintf(line + used, room, fmt, args);
    va_end(args);
    if (length < 0) {
        return;
    }
    used += (size_t)length < room ? (size_t)length : room - 1;
    line[used++] = '\n';
    while (write(STDOUT_FILENO, line, used) < 0 && errno == EINTR) {
        continue;
    }
}

bool console_read_line(char *line, size_t size)
{
    ssize_t length;

    do {
        length = read(STDIN_FILENO, line, size - 1);
    } while (length < 0 && errno == EINTR);
    if (length <= 0) {
        return false;
    }
    line[length] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    return true;
}

int console_fd(void)
{
    return STDIN_FILENO;
}
