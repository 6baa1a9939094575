/*
 * Managed memory qtests: tiers that cannot be written or read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A page that cannot be written stays in memory; who touches one that cannot
 * be read waits. Both are told by events, and both end when the tier works
 * again. Errors are made by a pager with failpoints, or by a file system that
 * is really full.
 */
#include "qemu/osdep.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include "managed-memory-vm.h"

#define WHILE_MS 300

/* A VM whose memory is filled and evicted */
static QTestState *start_evicted(MmHost *host)
{
    QTestState *qts = mm_start(host, "", "");

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    return qts;
}

static void wait_recovered(QTestState *qts)
{
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
}

static void finish(QTestState *qts, MmHost *host)
{
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- errors ---- */

static void wait_io_error(QTestState *qts, bool active, int err)
{
    QDict *event, *data;
    bool same;

    do {
        event = qtest_qmp_eventwait_ref(qts, "MANAGED_MEMORY_IO_ERROR");
        data = qdict_get_qdict(event, "data");
        same = qdict_get_bool(data, "active") == active;
        if (same) {
            g_assert_cmpint(qdict_get_int(data, "errno"), ==, err);
            g_assert_cmpstr(qdict_get_str(data, "message"), !=, "");
        }
        qobject_unref(event);
    } while (!same);
}

/* What cannot be written stays, and is written when that is possible again. */
static void test_write_error(void)
{
    MmHost *host = mm_host_new_failing("tier-store:err=5:1", NULL);
    QTestState *qts = mm_start(host, "", "");
    MmVmInfo vm;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert_null(mm_host_operation(host, "vm", "evict"));
    wait_io_error(qts, true, EIO);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.swapped, ==, 0);
    g_assert_cmpint(vm.write_errors, >, 0);
    g_assert_cmpint(mm_query_usage(qts, "write-errors"), >, 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);

    /* the next pager has no such trouble */
    mm_host_kill(host);
    mm_host_start(host);
    kill(vm.pager_pid, SIGKILL);
    wait_recovered(qts);
    mm_host_evict_all(host, "vm", 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    finish(qts, host);
}

/* Who touches a page that cannot be read waits, and nobody else. */
static void test_read_error(void)
{
    MmHost *host = mm_host_new_failing("tier-load:err=5:1", NULL);
    QTestState *qts = start_evicted(host);
    MmReader *reader = mm_reader_start(qts, MM_RAM_START, MM_RAM_END, 1);
    MmVmInfo vm;

    /* the main thread is in the fault: the event comes from another one */
    wait_io_error(qts, true, EIO);
    mm_reader_waits(reader, WHILE_MS);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.read_errors, >, 0);
    g_assert_cmpint(vm.stalled, >, 0);
    mm_host_kill(host);
    mm_host_start(host);
    kill(vm.pager_pid, SIGKILL);
    mm_reader_finish(reader);
    wait_recovered(qts);
    finish(qts, host);
}

static void test_passing_errors(void)
{
    MmHost *host = mm_host_new_failing("tier-load:err1=5:3,"
                                       "tier-store:err1=5:2", NULL);
    QTestState *qts = start_evicted(host);
    MmVmInfo vm;

    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.read_errors, ==, 1);
    g_assert_cmpint(vm.write_errors, ==, 1);
    wait_io_error(qts, true, EIO);
    wait_io_error(qts, false, 0);
    finish(qts, host);
}

/* ---- a full disk ---- */

#define DISK_MIB 256
#define ROOM_MIB 8

static void run(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void run(const char *fmt, ...)
{
    g_autofree char *command = NULL;
    va_list ap;

    va_start(ap, fmt);
    command = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_cmpint(system(command), ==, 0);
}

/*
 * Mounts a small disk with a file "ballast" on it. The mount is this
 * process's own: it ends with it. NULL if there are no loop devices.
 */
static char *mount_disk(void)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-disk-XXXXXX", NULL);
    g_autofree char *command = g_strdup_printf(
        "mount -o loop %s.img %s 2>/dev/null", dir, dir);
    struct statvfs fs;

    run("truncate -s %dM %s.img && mkfs.ext4 -q -F %s.img", DISK_MIB, dir,
        dir);
    if (unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) ||
        system(command)) {
        run("rm -rf %s %s.img", dir, dir);
        return NULL;
    }
    g_assert_cmpint(statvfs(dir, &fs), ==, 0);
    run("fallocate -l %" PRIu64 " %s/ballast && mkdir %s/tier",
        (uint64_t)fs.f_bavail * fs.f_frsize - ROOM_MIB * MM_MIB, dir, dir);
    return g_steal_pointer(&dir);
}

/* Lazily: the kernel may still be about to close the files of a dead pager. */
static void unmount_disk(const char *dir)
{
    run("umount -l %s && rmdir %s && rm %s.img", dir, dir, dir);
}

/*
 * A full tier is both an error and pressure; which comes first is open, as is
 * whether both come before the answer to a command.
 */
static void wait_full(QTestState *qts, bool active, bool answered)
{
    bool error = false, pressure = false;

    while (!error || !pressure || !answered) {
        QDict *event = qtest_qmp_receive_dict(qts);
        QDict *data = qdict_get_qdict(event, "data");
        const char *name = qdict_get_try_str(event, "event");

        if (!name) {
            g_assert(qdict_haskey(event, "return"));
            answered = true;
        } else if (!strcmp(name, "MANAGED_MEMORY_IO_ERROR") &&
            qdict_get_bool(data, "active") == active) {
            g_assert_cmpint(qdict_get_int(data, "errno"), ==,
                            active ? ENOSPC : 0);
            error = true;
        } else if (!strcmp(name, "MANAGED_MEMORY_PRESSURE") &&
                   qdict_get_bool(data, "active") == active) {
            g_assert_cmpint(qdict_get_int(data, "excess") > 0, ==, active);
            pressure = true;
        }
        qobject_unref(event);
    }
}

static void test_full_disk(void)
{
    g_autofree char *disk = NULL, *args = NULL;
    MmHost *host;
    QTestState *qts;
    MmVmInfo vm;

    disk = geteuid() ? NULL : mount_disk();
    if (!disk) {
        g_test_skip("a small disk takes root and a loop device");
        return;
    }
    args = g_strdup_printf("--tier file,path=%s/tier,overcommit=on", disk);
    host = mm_host_new(args);
    qts = mm_start(host, "", "");
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    qtest_qmp_send(qts, "{'execute': 'managed-memory-set-limit', "
                   "'arguments': {'limit': %" PRIu64 "}}", 4 * MM_MIB);
    wait_full(qts, true, false);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.swapped, <=, ROOM_MIB * MM_MIB);
    g_assert_cmpint(vm.resident, >, 4 * MM_MIB);

    run("rm %s/ballast", disk);
    wait_full(qts, false, true);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, 4 * MM_MIB);
    finish(qts, host);
    unmount_disk(disk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/tier/write-error", test_write_error);
    qtest_add_func("managed-memory/tier/read-error", test_read_error);
    qtest_add_func("managed-memory/tier/passing-errors",
                   test_passing_errors);
    qtest_add_func("managed-memory/tier/full-disk", test_full_disk);
    return g_test_run();
}
