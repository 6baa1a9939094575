/*
 * Managed memory qtests: a memory manager of their own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Run folder and tier lie below one temporary folder with a short name, since
 * the paths of sockets are short. The manager's output goes to a file, which
 * is shown when a test fails. A manager dies with its test; its pagers end
 * when their QEMU does, but one that a test has stopped would not, so that
 * failing tests kill pagers.
 */
#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include "qapi/qmp/qlist.h"
#include "qemu/cutils.h"
#include "libqmp.h"
#include "libqtest.h"
#include "managed-memory-host.h"

#define RETRY_US 5000
#define QMP_TIMEOUT_S 40

static char *program(const char *name)
{
    g_autofree char *dir = g_path_get_dirname(getenv("QTEST_QEMU_BINARY"));

    return g_build_filename(dir, "memory-manager", name, NULL);
}

/* ---- folders ---- */

char *mm_host_path(const MmHost *host, const char *name)
{
    return g_build_filename(host->dir, name, NULL);
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *child = g_build_filename(path, name, NULL);

        if (g_file_test(child, G_FILE_TEST_IS_DIR) &&
            !g_file_test(child, G_FILE_TEST_IS_SYMLINK)) {
            remove_tree(child);
        } else {
            unlink(child);
        }
    }
    rmdir(path);
}

char *mm_host_log(const MmHost *host)
{
    char *text = NULL;

    g_file_get_contents(host->log, &text, NULL, NULL);
    return text ?: g_strdup("");
}

/* ---- process ---- */

/* Process IDs of all children, those of a manager that is gone included */
static char **list_children(void)
{
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/children",
                                            getpid());
    g_autofree char *text = NULL;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    return g_strsplit(g_strstrip(text), " ", -1);
}

static void kill_children(void)
{
    g_auto(GStrv) pids = list_children();
    int i;

    for (i = 0; pids[i] && *pids[i]; i++) {
        kill(atoi(pids[i]), SIGKILL);
    }
}

/* Pagers end by themselves, soon after their QEMU. */
static void wait_no_children(void)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;
    bool gone;

    do {
        g_auto(GStrv) pids = list_children();

        gone = !pids[0] || !*pids[0];
        if (!gone && waitpid(atoi(pids[0]), NULL, WNOHANG) == 0) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            g_usleep(RETRY_US);
        }
    } while (!gone);
}

/*
 * The test has failed: say what the manager says, and leave nothing running.
 * When the manager is gone, its pagers are children of this process, as QEMU
 * is. libqtest would wait for a QEMU that cannot end.
 */
static void host_aborted(void *opaque)
{
    MmHost *host = opaque;
    g_autofree char *log = mm_host_log(host);

    fprintf(stderr, "--- output of the memory manager:\n%s---\n", log);
    if (host->pid > 0) {
        kill(host->pid, SIGKILL);
        waitpid(host->pid, NULL, 0);
    }
    kill_children();
    remove_tree(host->dir);
}

void mm_host_guard(MmHost *host)
{
    qtest_remove_abrt_handler(host);
    qtest_add_abrt_handler(host_aborted, host);
}

static void child_setup(void *opaque)
{
    MmHost *host = opaque;
    int fd = open(host->log, O_WRONLY | O_APPEND | O_CREAT, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
}

static int try_connect(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct timeval timeout = { .tv_sec = QMP_TIMEOUT_S };
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(sock, >=, 0);
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    if (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
        close(sock);
        return -1;
    }
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    return sock;
}

/* QEMU's monitor may send an event to a client that it has not greeted yet. */
static void wait_greeting(MmHost *host)
{
    bool greeted = false;

    while (!greeted) {
        QDict *message = qmp_fd_receive(host->qmp);

        greeted = qdict_haskey(message, "QMP");
        qobject_unref(message);
    }
}

static void connect_monitor(MmHost *host)
{
    g_autofree char *path = g_build_filename(host->run_dir, "qmp.sock", NULL);
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    while ((host->qmp = try_connect(path)) < 0) {
        g_assert_cmpint(waitpid(host->pid, NULL, WNOHANG), ==, 0);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(RETRY_US);
    }
    wait_greeting(host);
    qobject_unref(mm_host_qmp(host, "{'execute': 'qmp_capabilities'}"));
}

void mm_host_start(MmHost *host)
{
    g_autofree char *binary = program("qemu-memory-manager");
    g_autofree char *tier = g_strdup_printf("--tier file,path=%s",
                                            host->tier_dir);
    g_autofree char *line = g_strdup_printf(
        "%s --run-dir %s %s %s", binary, host->run_dir,
        strstr(host->args, "--tier") ? "" : tier, host->args);
    g_auto(GStrv) argv = NULL;
    GError *err = NULL;

    g_assert(g_shell_parse_argv(line, NULL, &argv, NULL));
    g_spawn_async(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, child_setup,
                  host, &host->pid, &err);
    g_assert_no_error(err);
    connect_monitor(host);
}

static void close_monitor(MmHost *host)
{
    close(host->qmp);
    host->qmp = -1;
}

static int end_process(MmHost *host, int sig)
{
    int status;

    close_monitor(host);
    kill(host->pid, sig);
    g_assert_cmpint(waitpid(host->pid, &status, 0), ==, host->pid);
    host->pid = 0;
    return status;
}

void mm_host_kill(MmHost *host)
{
    end_process(host, SIGKILL);
}

MmHost *mm_host_new(const char *args)
{
    MmHost *host = g_new0(MmHost, 1);

    host->dir = g_dir_make_tmp("qtest-mm-XXXXXX", NULL);
    g_assert(host->dir);
    host->run_dir = mm_host_path(host, "run");
    host->tier_dir = mm_host_path(host, "tier");
    host->attach = mm_host_path(host, "run/attach.sock");
    host->log = mm_host_path(host, "log");
    host->args = g_strdup(args ?: "");
    host->qmp = -1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    qtest_add_abrt_handler(host_aborted, host);
    mm_host_start(host);
    return host;
}

MmHost *mm_host_new_failing(const char *failpoints, const char *args)
{
    g_autofree char *pager = program("pager/qemu-memory-pager-test");
    g_autofree char *all = g_strdup_printf("--pager %s %s", pager, args ?: "");
    MmHost *host;

    g_setenv("MM_FAILPOINT", failpoints, true);
    host = mm_host_new(all);
    g_unsetenv("MM_FAILPOINT");
    return host;
}

/* ---- the end ---- */

static void free_event(gpointer event)
{
    qobject_unref((QDict *)event);
}

static void check_empty(const char *path, const char *const *allowed)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        if (!g_strv_contains(allowed, name)) {
            mm_fail("%s is left in %s", name, path);
        }
    }
}

void mm_host_free(MmHost *host)
{
    static const char *const own[] = {
        "manager.lock", "attach.sock", "qmp.sock", NULL
    };
    int status;

    mm_host_wait_gone(host);
    check_empty(host->run_dir, own);
    check_empty(host->tier_dir, own + 3);
    status = end_process(host, SIGTERM);
    g_assert(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 0);
    wait_no_children();
    qtest_remove_abrt_handler(host);
    remove_tree(host->dir);
    g_list_free_full(host->events, free_event);
    g_free(host->dir);
    g_free(host->run_dir);
    g_free(host->tier_dir);
    g_free(host->attach);
    g_free(host->log);
    g_free(host->args);
    g_free(host);
}

/* ---- monitor ---- */

QDict *mm_host_qmp(MmHost *host, const char *fmt, ...)
{
    QDict *answer;
    va_list ap;

    va_start(ap, fmt);
    qmp_fd_vsend(host->qmp, fmt, ap);
    va_end(ap);
    for (;;) {
        answer = qmp_fd_receive(host->qmp);
        if (!qdict_haskey(answer, "event")) {
            return answer;
        }
        host->events = g_list_append(host->events, answer);
    }
}

QDict *mm_host_event(MmHost *host, const char *name)
{
    QDict *event, *data;

    for (;;) {
        if (host->events) {
            event = host->events->data;
            host->events = g_list_delete_link(host->events, host->events);
        } else {
            event = qmp_fd_receive(host->qmp);
        }
        if (!g_strcmp0(qdict_get_try_str(event, "event"), name)) {
            data = qobject_ref(qdict_get_qdict(event, "data"));
            qobject_unref(event);
            return data;
        }
        qobject_unref(event);
    }
}

/* ---- stopping processes ---- */

static bool thread_stopped(pid_t pid, const char *tid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task/%s/stat", pid, tid);
    g_autofree char *text = NULL;
    const char *state;

    g_assert(g_file_get_contents(path, &text, NULL, NULL));
    state = strrchr(text, ')');
    g_assert(state);
    return state[2] == 'T';
}

static bool process_stopped(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/task", pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *tid;

    g_assert(dir);
    while ((tid = g_dir_read_name(dir))) {
        if (!thread_stopped(pid, tid)) {
            return false;
        }
    }
    return true;
}

void mm_stop_process(pid_t pid)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    kill(pid, SIGSTOP);
    while (!process_stopped(pid)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* ---- VMs ---- */

static void describe(const QDict *vm, MmVmInfo *info)
{
    QDict *operation = qdict_get_qdict(vm, "operation");
    QListEntry *entry;

    *info = (MmVmInfo) {
        .qemu_pid = qdict_get_int(vm, "qemu-pid"),
        .pager_pid = qdict_get_try_int(vm, "pager-pid", 0),
        .stale = qdict_get_bool(vm, "stale"),
        .busy = operation && !strcmp(qdict_get_str(operation, "status"),
                                     "running"),
        .size = qdict_get_int(vm, "size"),
        .limit = qdict_get_try_int(vm, "limit", -1),
        .resident = qdict_get_int(vm, "resident"),
        .zero = qdict_get_int(vm, "zero"),
        .swapped = qdict_get_int(vm, "swapped"),
        .never = qdict_get_int(vm, "never-populated"),
        .stalled = qdict_get_int(vm, "stalled-threads"),
        .pager_starts = qdict_get_int(vm, "pager-starts"),
        .discarded = qdict_get_int(qdict_get_qdict(vm, "pages"), "discarded"),
        .overwritten = qdict_get_int(qdict_get_qdict(vm, "pages"),
                                     "overwritten"),
        .read_errors = qdict_get_int(qdict_get_qdict(vm, "errors"), "read"),
        .write_errors = qdict_get_int(qdict_get_qdict(vm, "errors"), "write"),
    };
    pstrcpy(info->name, sizeof(info->name), qdict_get_str(vm, "name"));
    pstrcpy(info->state, sizeof(info->state), qdict_get_str(vm, "state"));
    pstrcpy(info->uuid, sizeof(info->uuid), qdict_get_str(vm, "uuid"));
    QLIST_FOREACH_ENTRY(qdict_get_qlist(vm, "regions"), entry) {
        QDict *region = qobject_to(QDict, qlist_entry_obj(entry));

        info->dma_held += qdict_get_int(region, "dma-held");
        info->regions++;
    }
}

bool mm_host_vm(MmHost *host, const char *name, MmVmInfo *info)
{
    QDict *answer = mm_host_qmp(host, "{'execute': 'query-managed-vms'}");
    QListEntry *entry;
    bool found = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), entry) {
        QDict *vm = qobject_to(QDict, qlist_entry_obj(entry));

        if (!name || !strcmp(qdict_get_str(vm, "name"), name)) {
            g_assert(!found);
            found = true;
            describe(vm, info);
        }
    }
    qobject_unref(answer);
    return found;
}

void mm_host_wait_gone(MmHost *host)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;
    bool gone = false;

    while (!gone) {
        QDict *answer = mm_host_qmp(host, "{'execute': 'query-managed-vms'}");

        gone = qlist_empty(qdict_get_qlist(answer, "return"));
        qobject_unref(answer);
        if (!gone) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            g_usleep(RETRY_US);
        }
    }
}

/* ---- operations ---- */

char *mm_host_operation(MmHost *host, const char *name, const char *command)
{
    g_autofree char *full = g_strdup_printf("managed-vm-%s", command);
    QDict *answer, *data, *operation;
    char *error = NULL;
    MmVmInfo vm;

    g_assert(mm_host_vm(host, name, &vm));
    if (!strcmp(command, "evict")) {
        answer = mm_host_qmp(host, "{'execute': %s, 'arguments': {'vm': %s, "
                             "'bytes': %" PRIu64 "}}", full, vm.uuid, vm.size);
    } else {
        answer = mm_host_qmp(host, "{'execute': %s, 'arguments': {'vm': %s}}",
                             full, vm.uuid);
    }
    g_assert(qdict_haskey(answer, "return"));
    qobject_unref(answer);
    data = mm_host_event(host, "MANAGED_VM_OPERATION_COMPLETED");
    operation = qdict_get_qdict(data, "operation");
    g_assert_cmpstr(qdict_get_str(operation, "type"), ==, command);
    if (strcmp(qdict_get_str(operation, "status"), "done")) {
        error = g_strdup(qdict_get_str(operation, "error"));
    }
    qobject_unref(data);
    return error;
}

void mm_host_evict_all(MmHost *host, const char *name, uint64_t keep)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;
    MmVmInfo vm;

    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_assert_null(mm_host_operation(host, name, "evict"));
        g_assert(mm_host_vm(host, name, &vm));
    } while (vm.resident > keep);
}
