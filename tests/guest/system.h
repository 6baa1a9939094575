/*
 * What the agent asks of the guest's kernel
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef GUEST_SYSTEM_H
#define GUEST_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>

/**
 * system_available_mib: memory that can be used without swapping
 */
size_t system_available_mib(void);

/**
 * system_report_memory: report "meminfo", in KiB, with the balloon's size
 */
void system_report_memory(void);

/**
 * system_compact: drop the page cache and join free memory to large blocks
 *
 * Free page reporting only reports blocks of 2 MiB and more.
 */
void system_compact(void);

/**
 * system_shell: run a shell command and report its output as "out" lines
 *
 * Returns the exit status, or -1 if it could not be run.
 */
int system_shell(const char *command);

/**
 * system_reboot: restart the machine at once; does not return
 */
void system_reboot(void) __attribute__((noreturn));

/**
 * system_poweroff: switch the machine off at once; does not return
 */
void system_poweroff(void) __attribute__((noreturn));

#endif
