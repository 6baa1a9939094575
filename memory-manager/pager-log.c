/*
 * qemu-memory-manager: what pagers print
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager may have been broken into, and the manager's standard error may be a
 * file: the pager gets a pipe instead. What comes out of it is logged line by
 * line, with the VM's name and without control characters; if it is too much,
 * the pipe is left full for a while, and what is in it then is thrown away. A
 * pager never waits for its pipe.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "pager-log.h"

#define LINE_MAX_LEN 400
/* More lines than these in such a time are too much. */
#define WINDOW_LINES 50
#define WINDOW_MS 10000
/* A pipe holds 64 KiB; but for one that is still written to, it is empty then. */
#define READ_SIZE 4096
#define MAX_READS 32

struct MmPagerLog {
    int fd;                     /* -1: the pager has closed its end */
    pid_t pid;                  /* 0: not known yet */
    char *label;
    GString *line;              /* the one that has not ended */
    int64_t window_ms;          /* when the window has begun */
    unsigned nr_lines;          /* in it */
    QEMUTimer *timer;           /* ends a pause */
};

static void log_line(MmPagerLog *log)
{
    /* the pager's messages begin as those of any program */
    const char *text = log->line->str;

    if (g_str_has_prefix(text, "qemu-memory-pager: ")) {
        text += strlen("qemu-memory-pager: ");
    }
    error_report("VM %s: pager %d: %s", log->label, (int)log->pid, text);
    g_string_truncate(log->line, 0);
    log->nr_lines++;
}

static void take_char(MmPagerLog *log, char c)
{
    if (c == '\n') {
        log_line(log);
    } else if (log->line->len < LINE_MAX_LEN) {
        g_string_append_c(log->line, g_ascii_isprint(c) ? c : '?');
    }
}

static void end_reading(MmPagerLog *log)
{
    if (log->fd >= 0) {
        qemu_set_fd_handler(log->fd, NULL, NULL, NULL);
        close(log->fd);
        log->fd = -1;
    }
}

static bool too_much(MmPagerLog *log)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now - log->window_ms >= WINDOW_MS) {
        log->window_ms = now;
        log->nr_lines = 0;
    }
    return log->nr_lines >= WINDOW_LINES;
}

/* Takes one buffer's worth; returns what read() has. */
static ssize_t read_some(MmPagerLog *log, bool *dropped)
{
    char buf[READ_SIZE];
    ssize_t n = TEMP_FAILURE_RETRY(read(log->fd, buf, sizeof(buf)));
    ssize_t i;

    for (i = 0; i < n; i++) {
        if (too_much(log)) {
            *dropped = true;
            break;
        }
        take_char(log, buf[i]);
    }
    return n;
}

static void report_dropped(MmPagerLog *log)
{
    warn_report("VM %s: pager %d prints too much; some of it is left out",
                log->label, (int)log->pid);
    g_string_truncate(log->line, 0);
}

static void log_readable(void *opaque)
{
    MmPagerLog *log = opaque;
    bool dropped = false;
    ssize_t n = read_some(log, &dropped);

    if (dropped) {
        report_dropped(log);
        qemu_set_fd_handler(log->fd, NULL, NULL, NULL);
        timer_mod(log->timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                              WINDOW_MS);
    } else if (n == 0 || (n < 0 && errno != EAGAIN)) {
        end_reading(log);
    }
}

/* Throws away what came during the pause: its beginning is missing. */
static void pause_is_over(void *opaque)
{
    MmPagerLog *log = opaque;
    char buf[READ_SIZE];
    int n;

    for (n = 0; n < MAX_READS; n++) {
        if (TEMP_FAILURE_RETRY(read(log->fd, buf, sizeof(buf))) <= 0) {
            break;
        }
    }
    qemu_set_fd_handler(log->fd, log_readable, NULL, log);
}

MmPagerLog *mm_pager_log_new(const char *label, int *fd, Error **errp)
{
    MmPagerLog *log;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
        error_setg_errno(errp, errno, "cannot make a pipe for the pager's "
                         "messages");
        return NULL;
    }
    log = g_new0(MmPagerLog, 1);
    log->fd = ends[0];
    log->label = g_strdup(label);
    log->line = g_string_new(NULL);
    log->window_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    log->timer = timer_new_ms(QEMU_CLOCK_REALTIME, pause_is_over, log);
    qemu_set_fd_handler(log->fd, log_readable, NULL, log);
    *fd = ends[1];
    return log;
}

void mm_pager_log_set_pid(MmPagerLog *log, pid_t pid)
{
    log->pid = pid;
}

void mm_pager_log_free(MmPagerLog *log)
{
    bool dropped = false;
    int n;

    if (!log) {
        return;
    }
    for (n = 0; n < MAX_READS && log->fd >= 0 && !dropped; n++) {
        if (read_some(log, &dropped) <= 0) {
            break;
        }
    }
    if (dropped && !timer_pending(log->timer)) {
        report_dropped(log);
    } else if (log->line->len) {
        log_line(log);
    }
    end_reading(log);
    timer_free(log->timer);
    g_string_free(log->line, true);
    g_free(log->label);
    g_free(log);
}
