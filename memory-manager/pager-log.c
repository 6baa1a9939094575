/*
 * qemu-memory-manager: what pagers print
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager may have been broken into, and the manager's standard error may be a
 * file: the pager gets a pipe instead. What comes out of it is logged line by
 * line, with the VM's name and without control characters. If it is too much,
 * the pipe is left full for a while, and what is in it then is thrown away. A
 * pager never waits for its pipe. What counts is what all pagers of the VM
 * have printed: to die and come back is no way to print more.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "pager-log.h"

/* More in such a time is too much. A line may be as long as the buffer. */
#define WINDOW_MS 10000
#define WINDOW_LINES 50
#define WINDOW_BYTES (16 * KiB)
#define LINE_MAX_LEN 400
#define READ_SIZE 4096
/* Enough to empty a pipe, unless it is still written to, or was enlarged. */
#define MAX_READS 32

struct MmPagerLog {
    const char *label;
    int fd;                     /* -1: there is no pipe */
    pid_t pid;
    GString *line;              /* the one that has not ended */
    int64_t window_ms;          /* when the window has begun */
    unsigned nr_lines;          /* in it */
    unsigned nr_bytes;
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
    log->nr_bytes++;
    if (c == '\n') {
        log_line(log);
    } else if (log->line->len < LINE_MAX_LEN) {
        g_string_append_c(log->line, g_ascii_isprint(c) ? c : '?');
    }
}

static void begin_window(MmPagerLog *log)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (now - log->window_ms >= WINDOW_MS) {
        log->window_ms = now;
        log->nr_lines = 0;
        log->nr_bytes = 0;
    }
}

static bool too_much(const MmPagerLog *log)
{
    return log->nr_lines >= WINDOW_LINES || log->nr_bytes >= WINDOW_BYTES;
}

/* Takes one buffer's worth; returns what read() has. */
static ssize_t read_some(MmPagerLog *log, bool *dropped)
{
    char buf[READ_SIZE];
    ssize_t n = TEMP_FAILURE_RETRY(read(log->fd, buf, sizeof(buf)));
    ssize_t i;

    begin_window(log);
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

static void end_reading(MmPagerLog *log)
{
    qemu_set_fd_handler(log->fd, NULL, NULL, NULL);
    close(log->fd);
    log->fd = -1;
    timer_del(log->timer);
}

static void log_readable(void *opaque)
{
    MmPagerLog *log = opaque;
    bool dropped = false;
    ssize_t n = read_some(log, &dropped);

    if (dropped) {
        report_dropped(log);
        qemu_set_fd_handler(log->fd, NULL, NULL, NULL);
        timer_mod(log->timer, log->window_ms + WINDOW_MS);
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

MmPagerLog *mm_pager_log_new(const char *label)
{
    MmPagerLog *log = g_new0(MmPagerLog, 1);

    log->fd = -1;
    log->label = label;
    log->line = g_string_new(NULL);
    log->window_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    log->timer = timer_new_ms(QEMU_CLOCK_REALTIME, pause_is_over, log);
    return log;
}

int mm_pager_log_open(MmPagerLog *log, Error **errp)
{
    int ends[2];

    assert(log->fd < 0);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK)) {
        error_setg_errno(errp, errno, "cannot make a pipe for the pager's "
                         "messages");
        return -1;
    }
    log->fd = ends[0];
    qemu_set_fd_handler(log->fd, log_readable, NULL, log);
    return ends[1];
}

bool mm_pager_log_is_open(const MmPagerLog *log)
{
    return log->fd >= 0;
}

void mm_pager_log_set_pid(MmPagerLog *log, pid_t pid)
{
    log->pid = pid;
}

void mm_pager_log_close(MmPagerLog *log)
{
    bool dropped = timer_pending(log->timer);
    int n;

    for (n = 0; n < MAX_READS && log->fd >= 0 && !dropped; n++) {
        if (read_some(log, &dropped) <= 0) {
            break;
        }
        if (dropped) {
            report_dropped(log);
        }
    }
    if (log->line->len) {
        log_line(log);
    }
    if (log->fd >= 0) {
        end_reading(log);
    }
}

void mm_pager_log_free(MmPagerLog *log)
{
    mm_pager_log_close(log);
    timer_free(log->timer);
    g_string_free(log->line, true);
    g_free(log);
}
