/*
 * Managed memory pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Serves the memory of one VM.  Started by qemu-memory-manager, never by hand;
 * see docs/devel/managed-memory.rst for how it works, and vm.h for where to
 * begin reading.
 */
#include "qemu/osdep.h"
#include <getopt.h>
#include <malloc.h>
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu-version.h"
#include "qapi/error.h"
#include "control/control.h"
#include "fault/fault.h"
#include "isolation.h"
#include "reclaim/reclaim.h"
#include "start.h"
#include "test-hooks.h"

/* One for each thread that runs all the time, and one for those for I/O. */
#define MAX_ARENAS 4

static void help(void)
{
    printf("Usage: %s --control FD\n"
           "QEMU memory pager: serves the managed memory of one VM\n"
           "\n"
           "Started by qemu-memory-manager for each VM that attaches; there\n"
           "is no use in starting it by hand.\n"
           "\n"
           "  -h, --help      display this help and exit\n"
           "  -V, --version   output version information and exit\n"
           "      --control   inherited socket to the manager\n",
           g_get_prgname());
}

static int parse_options(int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "control", required_argument, NULL, 'c' },
        { 0 }
    };
    int control = -1;
    int c;

    while ((c = getopt_long(argc, argv, "hV", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            help();
            exit(EXIT_SUCCESS);
        case 'V':
            printf("qemu-memory-pager version " QEMU_FULL_VERSION "\n");
            exit(EXIT_SUCCESS);
        case 'c':
            if (qemu_strtoi(optarg, NULL, 10, &control) < 0) {
                error_report("'%s' is no descriptor number", optarg);
                exit(EXIT_FAILURE);
            }
            break;
        default:
            exit(EXIT_FAILURE);
        }
    }
    if (control < 0) {
        error_report("this program is started by qemu-memory-manager");
        error_printf("Start the manager; it starts a pager for every VM with "
                     "'-object memory-backend-managed'.\n");
        exit(EXIT_FAILURE);
    }
    fcntl(control, F_SETFD, FD_CLOEXEC);
    return control;
}

int main(int argc, char **argv)
{
    MmVM *vm;
    int control;

    /*
     * glibc decides on the number of arenas when threads have used some, and
     * for that opens a file in /sys, which the jail forbids.
     */
    mallopt(M_ARENA_MAX, MAX_ARENAS);
    /* standard error is a pipe to the manager, which may have ended */
    signal(SIGPIPE, SIG_IGN);
    error_init(argv[0]);
    mm_test_init(argc, argv);
    control = parse_options(argc, argv);
    mm_isolation_harden();
    mm_isolation_lock_program();

    vm = mm_start(control, &error_fatal);
    vm->fault = mm_fault_new(vm, &error_fatal);
    vm->reclaim = mm_reclaim_new(vm, &error_fatal);
    mm_isolation_namespaces(&error_fatal);
    if (!mm_start_reply(vm, &error_fatal)) {
        return EXIT_FAILURE;
    }
    MM_STAT_ADD(vm, pager_starts, 1);
    vm->state->epoch++;
    mm_failpoint(MM_FP_ATTACH);
    mm_fault_start(vm);
    mm_reclaim_start(vm);
    mm_isolation_seccomp(&(MmIsolationFds) {
                             .proc = vm->proc_fd,
                             .task = mm_nodes_task_fd(vm->nodes),
                             .probe_uffd = vm->probe_uffd,
                         }, &error_fatal);
    mm_test_jail_probe();
    mm_control_run(vm);
}
