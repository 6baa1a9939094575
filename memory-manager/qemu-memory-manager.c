/*
 * qemu-memory-manager: host service for the managed memory of VMs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One per host. It introduces QEMUs to the pagers that it starts for them, and
 * shows and controls what pagers do (docs/interop/managed-memory.rst). It is
 * not needed while a VM runs: guests and pagers do not notice its end, and a
 * new one finds them by the run directory.
 *
 * One thread does everything and never waits for anybody; QEMU's monitor code
 * has another one for the QMP sockets.
 */
#include "qemu/osdep.h"
#include <sys/resource.h>
#include "block/aio.h"
#include "chardev/char.h"
#include "crypto/init.h"
#include "monitor/monitor.h"
#include "monitor/monitor-internal.h"
#include "qapi/error.h"
#include "qemu/config-file.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "memory-manager/qapi/qapi-commands.h"
#include "memory-manager/qapi/qapi-init-commands.h"
#include "sysemu/runstate.h"
#include "trace/control.h"
#include "attach.h"
#include "manager.h"
#include "shared-file.h"
#include "write-budget.h"

static bool exit_requested;
static MmManager manager = {
    .vms = QTAILQ_HEAD_INITIALIZER(manager.vms),
};

/* Called by a signal handler; the signal may come right before a poll(). */
void qemu_system_killed(int signal, pid_t pid)
{
    qatomic_set(&exit_requested, true);
    qemu_notify_event();
}

void qmp_quit(Error **errp)
{
    qatomic_set(&exit_requested, true);
    qemu_notify_event();
}

static void init_qmp_commands(void)
{
    qmp_init_marshal(&qmp_commands);
    QTAILQ_INIT(&qmp_cap_negotiation_commands);
    qmp_register_command(&qmp_cap_negotiation_commands, "qmp_capabilities",
                         qmp_marshal_qmp_capabilities,
                         QCO_ALLOW_PRECONFIG, 0);
}

/* Errors cannot be reported before the monitor is there. */
static void init_libraries(void)
{
    module_call_init(MODULE_INIT_QOM);
    module_call_init(MODULE_INIT_TRACE);
    qemu_add_opts(&qemu_trace_opts);
    qcrypto_init(&error_fatal);
    monitor_init_globals_core();
    init_qmp_commands();
}

static void init_logging(void)
{
    if (!trace_init_backends()) {
        exit(EXIT_FAILURE);
    }
    trace_init_file();
    if (manager.opts.log_file) {
        /* only the first log file of a process is emptied when it is opened */
        qemu_set_log_filename("/dev/null", &error_fatal);
        qemu_set_log_filename(manager.opts.log_file, &error_fatal);
        message_with_timestamp = is_daemonized();
    }
    qemu_set_log(LOG_TRACE | qemu_loglevel, &error_fatal);
}

/* A VM takes four descriptors; the usual limit is 1024. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void start_service(void)
{
    MmOptions *opts = &manager.opts;
    int i;

    if (!mm_rundir_open(&manager.dir, opts->run_dir, &error_fatal)) {
        exit(EXIT_FAILURE);
    }
    mm_shared_init(manager.dir.path);
    for (i = 0; i < opts->nr_tiers; i++) {
        mm_tier_open(&opts->tiers[i], &error_fatal);
    }
    raise_descriptor_limit();
    mm_qmp_init(&manager);
    mm_adopt_vms(&manager);
    for (i = 0; i < opts->nr_tiers; i++) {
        mm_shared_sweep(&manager, &opts->tiers[i]);
    }
    mm_write_budget_init(&manager);
    mm_qmp_listen(opts->qmp_path, &error_fatal);
    mm_attach_listen(&manager, &error_fatal);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    error_init(argv[0]);
    qemu_init_exec_dir(argv[0]);
    os_setup_signal_handling();
    if (mm_options_parse_early(argc, argv)) {
        os_set_daemonize(true);
    }
    os_daemonize();
    init_libraries();
    mm_options_parse(&manager.opts, argc, argv);
    init_logging();
    qemu_init_main_loop(&error_fatal);
    start_service();
    if (manager.opts.pid_file) {
        qemu_write_pidfile(manager.opts.pid_file, &error_fatal);
    }
    os_setup_post();
    info_report("listening in %s", manager.opts.run_dir);

    while (!qatomic_read(&exit_requested)) {
        main_loop_wait(false);
    }

    mm_attach_close(&manager);
    unlink(manager.opts.qmp_path);
    if (manager.opts.pid_file) {
        unlink(manager.opts.pid_file);
    }
    mm_qmp_stop();
    monitor_cleanup();
    qemu_chr_cleanup();
    return EXIT_SUCCESS;
}
