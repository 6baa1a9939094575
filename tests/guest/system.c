/*
 * What the agent asks of the guest's kernel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include "console.h"
#include "system.h"

/* The number that follows @name in @path, 0 if it is not there */
static unsigned long file_number(const char *path, const char *name)
{
    char line[256];
    unsigned long number = 0;
    FILE *file = fopen(path, "re");

    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, strlen(name)) == 0 &&
            sscanf(line + strlen(name), "%lu", &number) == 1) {
            break;
        }
    }
    if (file) {
        fclose(file);
    }
    return number;
}

static void file_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        report("cannot write \"%s\" to %s", text, path);
    }
    if (fd >= 0) {
        close(fd);
    }
}

size_t system_available_mib(void)
{
    return file_number("/proc/meminfo", "MemAvailable:") / 1024;
}

void system_report_memory(void)
{
    const char *meminfo = "/proc/meminfo";
    unsigned long in = file_number("/proc/vmstat", "balloon_inflate ");
    unsigned long out = file_number("/proc/vmstat", "balloon_deflate ");

    report("meminfo total-kib=%lu free-kib=%lu available-kib=%lu "
           "balloon-kib=%lu", file_number(meminfo, "MemTotal:"),
           file_number(meminfo, "MemFree:"),
           file_number(meminfo, "MemAvailable:"), (in - out) * 4);
}

void system_compact(void)
{
    file_write("/proc/sys/vm/drop_caches", "3");
    file_write("/proc/sys/vm/compact_memory", "1");
}

int system_shell(const char *command)
{
    char line[256];
    FILE *output = popen(command, "re");
    int status;

    if (!output) {
        return -1;
    }
    while (fgets(line, sizeof(line), output)) {
        line[strcspn(line, "\n")] = '\0';
        report("out %s", line);
    }
    status = pclose(output);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void system_reboot(void)
{
    sync();
    reboot(RB_AUTOBOOT);
    abort();
}

void system_poweroff(void)
{
    sync();
    reboot(RB_POWER_OFF);
    abort();
}
