/*
 * Managed memory qtests: pagers and managers that die or stop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The real manager and pager, killed and stopped at bad moments. QEMU's main
 * thread then waits in a page fault, with the big lock held: what has to go on
 * meanwhile must not need it. Not one page may be wrong in the end.
 */
#include "qemu/osdep.h"
#include "qapi/qmp/qlist.h"
#include "managed-memory-vm.h"

#define WHILE_MS 300

static pid_t pager_pid(MmHost *host)
{
    MmVmInfo vm;

    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.pager_pid, >, 0);
    return vm.pager_pid;
}

static void wait_lost(QTestState *qts)
{
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_LOST");
}

static void wait_recovered(QTestState *qts)
{
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
}

/* A VM whose memory is filled and evicted */
static QTestState *start_evicted(MmHost *host)
{
    QTestState *qts = mm_start(host, "", "");

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    return qts;
}

static void finish(QTestState *qts, MmHost *host)
{
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- death of the pager ---- */

static void test_pager_killed(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_evicted(host);
    QDict *event, *data, *info;
    pid_t pid = pager_pid(host);
    MmVmInfo vm;

    kill(pid, SIGKILL);
    event = qtest_qmp_eventwait_ref(qts, "MANAGED_MEMORY_LOST");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "path"), ==, host->attach);
    qobject_unref(event);
    event = qtest_qmp_eventwait_ref(qts, "MANAGED_MEMORY_RECOVERED");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "path"), ==, host->attach);
    g_assert_cmpint(qdict_get_int(data, "stall-ms"), <, 5000);
    qobject_unref(event);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);

    info = mm_query(qts);
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "connected");
    g_assert_cmpint(qdict_get_int(info, "lost"), ==, 1);
    g_assert_cmpint(qdict_get_int(info, "stall-total-ms"), ==,
                    qdict_get_int(info, "stall-last-ms"));
    qobject_unref(info);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.pager_starts, ==, 2);
    g_assert_cmpint(vm.pager_pid, !=, pid);
    finish(qts, host);
}

/* Again and again, while memory is read, written and evicted */
static void test_pager_killed_busy(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, ",limit=8M", "");
    int i;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    for (i = 0; i < 4; i++) {
        MmReader *reader = mm_reader_start(qts, MM_RAM_START, MM_RAM_END, 1);

        g_usleep(20000 * i);
        kill(pager_pid(host), SIGKILL);
        mm_reader_finish(reader);
        mm_wait_status(qts, "connected");
    }
    for (i = 0; i < 4; i++) {
        kill(pager_pid(host), SIGKILL);
        mm_fill(qts, MM_RAM_START, MM_RAM_END, i);
        mm_check(qts, MM_RAM_START, MM_RAM_END, i);
        mm_wait_status(qts, "connected");
    }
    finish(qts, host);
}

/* ---- a QEMU that has changed folder, root or user ---- */

/* Starts QEMU in the manager's folder: the path is the socket's name. */
static QTestState *start_relative(MmHost *host, const char *args)
{
    g_autofree char *cwd = g_get_current_dir();
    g_autofree char *qemu = realpath(getenv("QTEST_QEMU_BINARY"), NULL);
    QTestState *qts;

    g_setenv("QTEST_QEMU_BINARY", qemu, true);
    g_assert_cmpint(chdir(host->run_dir), ==, 0);
    qts = qtest_initf("-name vm -machine q35,memory-backend=mm0 -m 32M "
                      "-nodefaults -object memory-backend-managed,id=mm0,"
                      "size=32M,path=attach.sock %s", args);
    g_assert_cmpint(chdir(cwd), ==, 0);
    mm_host_guard(host);
    return qts;
}

static void lose_pager(QTestState *qts, MmHost *host)
{
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    kill(pager_pid(host), SIGKILL);
    wait_recovered(qts);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
}

/* A daemon goes to the root folder, after it has attached. */
static void test_daemon(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_relative(host, "-daemonize");

    lose_pager(qts, host);
    /* libqtest knows the process that has started the daemon only */
    qobject_unref(mm_qmp(qts, "{'execute': 'quit'}"));
    finish(qts, host);
}

/* A new root is fine if the manager is where it was. */
static void test_chroot(void)
{
    MmHost *host;
    QTestState *qts;

    if (geteuid()) {
        g_test_skip("only root can change the root");
        return;
    }
    host = mm_host_new(NULL);
    qts = start_relative(host, "-chroot /");
    lose_pager(qts, host);
    finish(qts, host);
}

/* It is the process that attached, although its user is another one now. */
static void test_runas(void)
{
    MmHost *host;
    QTestState *qts;

    if (geteuid()) {
        g_test_skip("only root can become somebody else");
        return;
    }
    host = mm_host_new("--attach-mode 0666");
    g_assert_cmpint(chmod(host->dir, 0711), ==, 0);
    qts = mm_start(host, "", "-runas 65534:65534");
    lose_pager(qts, host);
    finish(qts, host);
}

/* ---- death of the manager ---- */

static void test_manager_killed(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_evicted(host);
    pid_t pid = pager_pid(host);
    MmVmInfo vm;

    mm_host_kill(host);
    mm_check(qts, MM_RAM_START, 16 * MM_MIB, 1);
    g_assert_cmpint(mm_query_usage(qts, "pager-starts"), ==, 1);
    mm_host_start(host);
    mm_check(qts, 16 * MM_MIB, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.pager_pid, ==, pid);
    mm_host_evict_all(host, "vm", 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);

    /* once more, and then the pager, too */
    mm_host_kill(host);
    mm_host_start(host);
    mm_host_evict_all(host, "vm", 0);
    kill(pid, SIGKILL);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    wait_recovered(qts);
    finish(qts, host);
}

/*
 * Nobody is there to serve the main thread's fault. The event gets out all
 * the same, and when the manager is back, so does the main thread.
 */
static void test_both_killed(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_evicted(host);
    pid_t pid = pager_pid(host);
    MmReader *reader;

    mm_host_kill(host);
    mm_stop_process(pid);
    reader = mm_reader_start(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_reader_waits(reader, WHILE_MS);
    kill(pid, SIGKILL);
    wait_lost(qts);
    mm_reader_waits(reader, WHILE_MS);
    mm_host_start(host);
    mm_reader_finish(reader);
    wait_recovered(qts);
    mm_host_evict_all(host, "vm", 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    finish(qts, host);
}

/* As long as no page is missing, a VM without a pager runs. */
static void test_lost_but_resident(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", "");
    g_autofree char *error = NULL;
    pid_t pid = pager_pid(host);
    QDict *info;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_kill(host);
    kill(pid, SIGKILL);
    wait_lost(qts);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 2);
    info = mm_query(qts);
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "lost");
    g_assert(!qdict_haskey(info, "usage"));
    g_assert_cmpint(qlist_size(qdict_get_qlist(info, "regions")), ==, 1);
    qobject_unref(info);
    error = mm_qmp_error(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': 8388608}}");
    mm_assert_text(error, "pager");
    mm_host_start(host);
    wait_recovered(qts);
    mm_host_evict_all(host, "vm", 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 2);
    finish(qts, host);
}

/* ---- a pager that stands still ---- */

static void test_pager_stopped(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_evicted(host);
    pid_t pid = pager_pid(host);
    int64_t begin;
    MmReader *reader;
    QDict *info;
    MmVmInfo vm;

    mm_stop_process(pid);
    begin = g_get_monotonic_time();
    info = mm_qmp(qts, "{'execute': 'query-status'}");
    qobject_unref(info);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, G_USEC_PER_SEC);
    info = mm_query(qts);
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "connected");
    g_assert(!qdict_haskey(info, "usage"));
    qobject_unref(info);
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 5 * G_USEC_PER_SEC);

    reader = mm_reader_start(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_reader_waits(reader, WHILE_MS);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert(vm.stale);
    kill(pid, SIGCONT);
    mm_reader_finish(reader);
    finish(qts, host);
}

/* A QEMU that waits for a page can be killed. */
static void test_qemu_killed(bool pager_lives)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start_evicted(host);
    int64_t end = g_get_monotonic_time() + 5 * G_USEC_PER_SEC;
    MmVmInfo vm;

    g_assert(mm_host_vm(host, "vm", &vm));
    mm_host_kill(host);
    mm_stop_process(vm.pager_pid);
    qtest_qmp_send(qts, "{'execute': 'pmemsave', 'arguments': {"
                   "'val': 2097152, 'size': 1048576, "
                   "'filename': '/dev/null'}}");
    g_usleep(WHILE_MS * 1000);
    if (!pager_lives) {
        kill(vm.pager_pid, SIGKILL);
    }
    kill(vm.qemu_pid, SIGKILL);
    while (qtest_probe_child(qts)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
    if (pager_lives) {
        kill(vm.pager_pid, SIGCONT);
    }
    mm_host_start(host);
    mm_host_wait_gone(host);
    mm_host_free(host);
    /* qtest_quit() takes any death by a signal for a failure */
    qtest_remove_abrt_handler(qts);
}

static void test_qemu_killed_pager_stopped(void)
{
    test_qemu_killed(true);
}

static void test_qemu_killed_pager_dead(void)
{
    test_qemu_killed(false);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/loss/pager-killed", test_pager_killed);
    qtest_add_func("managed-memory/loss/pager-killed-busy",
                   test_pager_killed_busy);
    qtest_add_func("managed-memory/loss/daemon", test_daemon);
    qtest_add_func("managed-memory/loss/chroot", test_chroot);
    qtest_add_func("managed-memory/loss/runas", test_runas);
    qtest_add_func("managed-memory/loss/manager-killed",
                   test_manager_killed);
    qtest_add_func("managed-memory/loss/both-killed", test_both_killed);
    qtest_add_func("managed-memory/loss/lost-but-resident",
                   test_lost_but_resident);
    qtest_add_func("managed-memory/loss/pager-stopped", test_pager_stopped);
    qtest_add_func("managed-memory/loss/qemu-killed-pager-stopped",
                   test_qemu_killed_pager_stopped);
    qtest_add_func("managed-memory/loss/qemu-killed-pager-dead",
                   test_qemu_killed_pager_dead);
    return g_test_run();
}
