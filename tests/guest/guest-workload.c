/*
 * Guest agent: puts verified load on the guest's memory and disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * This program and busybox are all the userland of the test guest.  It first
 * does what the kernel command line asks for, then what lines on the serial
 * port ask for; both use the same commands.  Its answers are "MM: " lines of
 * "word key=value ..." which the host parses:
 *
 *     ready ...             the agent reads commands now
 *     start|progress|done phase=NAME ...
 *     BAD page=.. have=.. want=..
 *     ok cmd=NAME           the command succeeded
 *     failed cmd=NAME ...   it did not, or wrong pages were found meanwhile
 *     result status=pass|fail ...   sums over everything since the boot
 *
 * Commands; N is optional where the parameters below have a default for it,
 * and 0 seconds mean until the host sends "stop":
 *
 *     fill [MIB]            map that much memory anew and stamp every page
 *     verify                compare every page
 *     sweep|random|disk [SECONDS]
 *                           verified work, see memory-phases.h, disk-phase.h
 *     dirty [PAGES]         rewrite so many scattered pages
 *     damage [PAGES]        spoil so many pages, for verify to find
 *     prepare MIB NOISE     make a field for "access"; NOISE percent of each of
 *                           its pages cannot be compressed
 *     access PATTERN SECONDS PART
 *                           benchmark, see access.c, on PART percent of it
 *     compare               compare every page of the field
 *     free                  unmap the memory
 *     compact               drop caches, join free memory to large blocks
 *     meminfo, result       report "meminfo ...", "result ..."
 *     ping TEXT             report "pong TEXT"
 *     sleep [SECONDS]
 *     sh COMMAND            run a shell command; reports "out ..." lines and
 *                           "exit status=.."
 *     reboot, poweroff      at once
 *
 * While a phase runs, "stop" is the only command that is understood.
 *
 * Parameters on the kernel command line, with their defaults:
 *
 *     mm.run=               commands separated by commas, with a colon before
 *                           their argument (fill:700,verify); they end with
 *                           the first that fails, and with a result
 *     mm.mib=128            for fill
 *     mm.seconds=5          for sweep, random, disk and sleep
 *     mm.threads=           worker threads; one per processor
 *     mm.seed=1             for contents and order
 *     mm.special=16         one page in so many is made zero, another is
 *                           filled with one word; 0 for none
 *
 * Threads: this file runs on the main thread only.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "arena.h"
#include "console.h"
#include "disk-phase.h"
#include "field.h"
#include "memory-phases.h"
#include "phase.h"
#include "stamp.h"
#include "system.h"

enum {
    PAGES_PER_MIB = (1 << 20) / STAMP_PAGE_BYTES,
    LINE_BYTES = 1024,
    /* Left to the guest's kernel: less, and its own OOM killer decides */
    SPARE_MIB = 40,
    /* Every worker needs room for the longest disk transfer */
    ARENA_MIN_MIB = 16,
};

/*
 * @text: as it was sent, "" without an argument
 * @number: its value if the command takes a number
 */
typedef struct Argument {
    const char *text;
    unsigned long number;
} Argument;

/*
 * @name: as sent by the host
 * @run: returns false if the command failed and has reported why
 * @number: what a missing number stands for; NULL if the command takes none
 * @needs_arena: refused before the first fill
 */
typedef struct Command {
    const char *name;
    bool (*run)(const Argument *argument);
    const unsigned long *number;
    bool needs_arena;
} Command;

typedef struct Parameters {
    char run[LINE_BYTES];
    unsigned long mib;
    unsigned long seconds;
    unsigned long seed;
    unsigned long threads;
    unsigned long special;
} Parameters;

static Parameters parameters = {
    .mib = 128, .seconds = 5, .seed = 1, .special = 16,
};

static const unsigned long one = 1;

static bool parse_number(const char *text, unsigned long *number)
{
    char rest;

    return sscanf(text, "%lu%c", number, &rest) == 1;
}

static bool run_fill(const Argument *argument)
{
    unsigned long mib = argument->number;
    size_t available;

    arena_create(0);
    available = system_available_mib();
    if (mib < ARENA_MIN_MIB || mib + SPARE_MIB > available) {
        report("cannot fill %lu MiB: choose %d to %zu", mib, ARENA_MIN_MIB,
               available < SPARE_MIB ? 0 : available - SPARE_MIB);
        return false;
    }
    if (!arena_create(mib * PAGES_PER_MIB)) {
        return false;
    }
    return memory_fill();
}

static bool run_verify(const Argument *argument)
{
    return memory_verify();
}

static bool run_sweep(const Argument *argument)
{
    memory_sweep(argument->number);
    return true;
}

static bool run_random(const Argument *argument)
{
    memory_random(argument->number);
    return true;
}

static bool run_dirty(const Argument *argument)
{
    size_t pages = argument->number;

    if (!pages || pages > arena_pages()) {
        report("cannot dirty %zu pages: choose 1 to %zu", pages,
               arena_pages());
        return false;
    }
    return memory_dirty(pages);
}

static bool run_disk(const Argument *argument)
{
    return disk_run(argument->number);
}

static bool run_free(const Argument *argument)
{
    return arena_create(0) && field_create(0, 0);
}

static bool run_prepare(const Argument *argument)
{
    unsigned mib, noise;

    if (sscanf(argument->text, "%u %u", &mib, &noise) != 2 || noise > 100 ||
        mib < ARENA_MIN_MIB || mib + SPARE_MIB > system_available_mib()) {
        report("cannot prepare: there is room for %zu MiB",
               system_available_mib() - SPARE_MIB);
        return false;
    }
    return access_prepare(mib * PAGES_PER_MIB, noise);
}

static bool run_access(const Argument *argument)
{
    unsigned seconds, part;
    char pattern[32];

    return sscanf(argument->text, "%31s %u %u", pattern, &seconds,
                  &part) == 3 && access_run(pattern, seconds, part);
}

static bool run_compare(const Argument *argument)
{
    return access_verify();
}

static bool run_compact(const Argument *argument)
{
    system_compact();
    return true;
}

static bool run_damage(const Argument *argument)
{
    size_t count = argument->number;

    if (!count || count > arena_pages()) {
        report("cannot damage %zu pages: choose 1 to %zu", count,
               arena_pages());
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        arena_damage(arena_pages() / count * i);
    }
    return true;
}

static bool run_meminfo(const Argument *argument)
{
    system_report_memory();
    return true;
}

static bool run_sleep(const Argument *argument)
{
    sleep(argument->number);
    return true;
}

static bool run_sh(const Argument *argument)
{
    int status = system_shell(argument->text);

    report("exit status=%d", status);
    return status == 0;
}

static bool run_ping(const Argument *argument)
{
    report("pong %s", argument->text);
    return true;
}

static bool run_result(const Argument *argument)
{
    const char *phase;
    uint64_t gap_us = phase_max_gap_us(&phase);

    report("result status=%s bad=%" PRIu64 " written=%zu checked=%zu "
           "disk-read=%zu disk-written=%zu gap-us=%" PRIu64 " gap-phase=%s",
           arena_bad_pages() ? "fail" : "pass", arena_bad_pages(),
           memory_touched(), memory_checked(), disk_pages_read(),
           disk_pages_written(), gap_us, phase);
    return true;
}

static bool run_reboot(const Argument *argument)
{
    system_reboot();
}

static bool run_poweroff(const Argument *argument)
{
    system_poweroff();
}

static const Command commands[] = {
    { "fill", run_fill, &parameters.mib, false },
    { "verify", run_verify, NULL, true },
    { "sweep", run_sweep, &parameters.seconds, true },
    { "random", run_random, &parameters.seconds, true },
    { "dirty", run_dirty, &one, true },
    { "disk", run_disk, &parameters.seconds, true },
    { "damage", run_damage, &one, true },
    { "prepare", run_prepare, NULL, false },
    { "access", run_access, NULL, false },
    { "compare", run_compare, NULL, false },
    { "free", run_free, NULL, false },
    { "compact", run_compact, NULL, false },
    { "meminfo", run_meminfo, NULL, false },
    { "sleep", run_sleep, &parameters.seconds, false },
    { "sh", run_sh, NULL, false },
    { "ping", run_ping, NULL, false },
    { "result", run_result, NULL, false },
    { "reboot", run_reboot, NULL, false },
    { "poweroff", run_poweroff, NULL, false },
};

static const Command *command_find(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* Run one command and report how it ended; wrong pages are a failure */
static bool command_run(const char *name, const char *text)
{
    const Command *command = command_find(name);
    Argument argument = { .text = text };
    uint64_t bad = arena_bad_pages();
    bool good;

    if (!command) {
        report("failed cmd=%s reason=unknown", name);
        return false;
    }
    if (command->needs_arena && !arena_pages()) {
        report("failed cmd=%s reason=nothing-filled", name);
        return false;
    }
    if (command->number && !*text) {
        argument.number = *command->number;
    } else if (command->number && !parse_number(text, &argument.number)) {
        report("failed cmd=%s reason=not-a-number", name);
        return false;
    }
    good = command->run(&argument);
    bad = arena_bad_pages() - bad;
    if (bad) {
        report("failed cmd=%s reason=bad-pages bad=%" PRIu64, name, bad);
    } else if (!good) {
        report("failed cmd=%s reason=see-above", name);
    } else {
        report("ok cmd=%s", name);
    }
    return good && !bad;
}

/* "name argument" or, on the kernel command line, "name:argument" */
static bool command_line(char *line, char separator)
{
    char *text = strchr(line, separator);

    if (text) {
        *text++ = '\0';
    }
    return command_run(line, text ? text : "");
}

static void parameter_set(const char *word)
{
    const struct {
        const char *name;
        unsigned long *number;
    } numbers[] = {
        { "mm.mib=", &parameters.mib },
        { "mm.seconds=", &parameters.seconds },
        { "mm.seed=", &parameters.seed },
        { "mm.threads=", &parameters.threads },
        { "mm.special=", &parameters.special },
    };

    if (strncmp(word, "mm.run=", 7) == 0) {
        snprintf(parameters.run, sizeof(parameters.run), "%s", word + 7);
    }
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        size_t length = strlen(numbers[i].name);

        if (strncmp(word, numbers[i].name, length) == 0 &&
            !parse_number(word + length, numbers[i].number)) {
            report("not a number: %s", word);
        }
    }
}

static void parameters_read(void)
{
    static const char separators[] = { ' ', '\n', '\0' };
    char line[2 * LINE_BYTES];
    char *save;
    FILE *file = fopen("/proc/cmdline", "re");

    if (!file || !fgets(line, sizeof(line), file)) {
        report("cannot read /proc/cmdline");
        line[0] = '\0';
    }
    if (file) {
        fclose(file);
    }
    for (char *word = strtok_r(line, separators, &save); word;
         word = strtok_r(NULL, separators, &save)) {
        parameter_set(word);
    }
    if (!parameters.threads) {
        parameters.threads = sysconf(_SC_NPROCESSORS_ONLN);
    }
}

/* The commands of mm.run, up to the first that fails, then the result */
static void run_from_parameters(void)
{
    char *save;
    char *word = strtok_r(parameters.run, ",", &save);

    if (!word) {
        return;
    }
    while (word && command_line(word, ':')) {
        word = strtok_r(NULL, ",", &save);
    }
    run_result(NULL);
}

int main(void)
{
    char line[LINE_BYTES];

    console_setup();
    parameters_read();
    stamp_setup(parameters.seed, parameters.special);
    phase_setup(parameters.threads, parameters.seed);
    report("ready uptime-ms=%" PRIu64 " cpus=%ld threads=%u available-mib=%zu",
           now_ns() / 1000000, sysconf(_SC_NPROCESSORS_ONLN),
           phase_threads(), system_available_mib());
    run_from_parameters();
    while (console_read_line(line, sizeof(line))) {
        if (line[0]) {
            command_line(line, ' ');
        }
    }
    report("console closed");
    system_poweroff();
}
