/*
 * Managed memory qtests: content that leaves QEMU and comes back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Dumps, snapshots and migration read all of guest memory, most of it swapped
 * out, and load more than the resident limit allows. Their results equal
 * those of a VM with ordinary memory.
 */
#include "qemu/osdep.h"
#include "libqos/libqos.h"
#include "managed-memory-vm.h"

#define STOCK "-object memory-backend-memfd,id=mm0,size=32M,share=on"
#define LIMIT (8 * MM_MIB)

/* ---- stock VMs to compare with ---- */

static QTestState *start_stock(MmHost *host, const char *args)
{
    QTestState *qts = qtest_initf("-name vm -machine q35,memory-backend=mm0 "
                                  "-m 32M -nodefaults " STOCK " %s", args);

    mm_host_guard(host);
    return qts;
}

/* ---- files that QEMU writes ---- */

static void dump_guest(QTestState *qts, const char *path, const char *format)
{
    g_autofree char *protocol = g_strdup_printf("file:%s", path);

    qobject_unref(mm_qmp(qts, "{'execute': 'dump-guest-memory', 'arguments': {"
                         "'paging': false, 'protocol': %s, 'format': %s}}",
                         protocol, format));
}

static void assert_same_files(const char *a, const char *b)
{
    gsize a_len, b_len;
    char *a_data, *b_data;

    g_assert(g_file_get_contents(a, &a_data, &a_len, NULL));
    g_assert(g_file_get_contents(b, &b_data, &b_len, NULL));
    g_assert_cmpint(a_len, ==, b_len);
    mm_assert_same((uint8_t *)a_data, (uint8_t *)b_data, a_len, 0);
    g_free(a_data);
    g_free(b_data);
}

static void compare_dumps(const char *format)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *stock_file = mm_host_path(host, "stock.dump");
    g_autofree char *managed_file = mm_host_path(host, "managed.dump");
    QTestState *qts = start_stock(host, "");
    MmVmInfo vm;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    dump_guest(qts, stock_file, format);
    qtest_quit(qts);

    qts = mm_start(host, "", "");
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    qobject_unref(mm_qmp(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': %" PRIu64 "}}", LIMIT));
    dump_guest(qts, managed_file, format);
    assert_same_files(managed_file, stock_file);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, LIMIT);
    mm_stop(qts, host);
    mm_host_free(host);
}

static void test_dump_elf(void)
{
    compare_dumps("elf");
}

static void test_dump_kdump(void)
{
    compare_dumps("kdump-zlib");
}

static void test_pmemsave(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *path = mm_host_path(host, "saved");
    g_autofree uint8_t *should = mm_pattern(MM_RAM_START, MM_RAM_END, 1);
    QTestState *qts = mm_start(host, ",limit=8M", "");
    char *is;
    gsize len;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    qobject_unref(mm_qmp(qts, "{'execute': 'pmemsave', 'arguments': {"
                         "'val': %" PRIu64 ", 'size': %" PRIu64 ", "
                         "'filename': %s}}", MM_RAM_START,
                         MM_RAM_SIZE, path));
    g_assert(g_file_get_contents(path, &is, &len, NULL));
    g_assert_cmpint(len, ==, MM_RAM_SIZE);
    mm_assert_same((uint8_t *)is, should, len, MM_RAM_START);
    g_free(is);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- snapshots ---- */

static char *make_image(const MmHost *host)
{
    g_autofree char *path = mm_host_path(host, "disk.qcow2");

    mkqcow2(path, 16);
    return g_strdup_printf("-drive if=none,id=disk,file=%s", path);
}

static void monitor(QTestState *qts, const char *command)
{
    g_autofree char *text = qtest_hmp(qts, "%s", command);

    g_assert_cmpstr(text, ==, "");
}

static void test_snapshot(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *disk = make_image(host);
    QTestState *qts = mm_start(host, ",limit=8M", disk);
    MmVmInfo vm;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    monitor(qts, "savevm one");
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 2);
    mm_host_evict_all(host, "vm", 0);
    monitor(qts, "savevm two");

    monitor(qts, "loadvm one");
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_host_evict_all(host, "vm", 0);
    monitor(qts, "loadvm two");
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, LIMIT);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 2);
    mm_stop(qts, host);

    /* in another process, and in one with ordinary memory */
    qts = mm_start(host, ",limit=8M", disk);
    monitor(qts, "loadvm one");
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts, host);
    qts = start_stock(host, disk);
    monitor(qts, "loadvm two");
    mm_check(qts, MM_RAM_START, MM_RAM_END, 2);
    qtest_quit(qts);
    mm_host_free(host);
}

/* ---- migration ---- */

static void set_speed(QTestState *qts)
{
    qobject_unref(mm_qmp(qts, "{'execute': 'migrate-set-parameters', "
                         "'arguments': {'max-bandwidth': 1000000000}}"));
}

static void wait_migrated(QTestState *qts)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    for (;;) {
        QDict *info = mm_qmp(qts, "{'execute': 'query-migrate'}");
        const char *status = qdict_get_try_str(info, "status");
        bool done = status && !strcmp(status, "completed");

        g_assert_cmpstr(status, !=, "failed");
        qobject_unref(info);
        if (done) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

/* Fills @from, migrates it to @to and checks that. Either may be managed. */
static void migrate_and_check(MmHost *host, QTestState *from, QTestState *to,
                              const char *uri, bool evict)
{
    mm_fill(from, MM_RAM_START, MM_RAM_END, 1);
    if (evict) {
        mm_host_evict_all(host, "vm", 0);
    }
    set_speed(from);
    qobject_unref(mm_qmp(from, "{'execute': 'migrate', 'arguments': {"
                         "'uri': %s}}", uri));
    wait_migrated(from);
    qtest_qmp_eventwait(to, "RESUME");
    mm_check(to, MM_RAM_START, MM_RAM_END, 1);
    mm_fill(to, MM_RAM_START, MM_RAM_END, 2);
    mm_check(to, MM_RAM_START, MM_RAM_END, 2);
}

static char *migration_uri(const MmHost *host)
{
    g_autofree char *path = mm_host_path(host, "migration");

    return g_strdup_printf("unix:%s", path);
}

static void test_migrate_to_stock(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *uri = migration_uri(host);
    g_autofree char *incoming = g_strdup_printf("-incoming %s", uri);
    QTestState *from = mm_start(host, "", "");
    QTestState *to = start_stock(host, incoming);

    migrate_and_check(host, from, to, uri, true);
    qtest_quit(to);
    mm_stop(from, host);
    mm_host_free(host);
}

static void test_migrate_from_stock(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *uri = migration_uri(host);
    g_autofree char *incoming = g_strdup_printf("-incoming %s", uri);
    QTestState *from = start_stock(host, "");
    QTestState *to = mm_start(host, ",limit=8M", incoming);
    MmVmInfo vm;

    migrate_and_check(host, from, to, uri, false);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, LIMIT);
    qtest_quit(from);
    mm_stop(to, host);
    mm_host_free(host);
}

static void test_migrate_managed(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *uri = migration_uri(host);
    g_autofree char *mm0 = mm_backend(host, "mm0", 32, ",limit=8M");
    QTestState *from = mm_start(host, "", "");
    QTestState *to;

    to = qtest_initf("-name other -machine q35,memory-backend=mm0 -m 32M "
                     "-nodefaults %s -incoming %s", mm0, uri);
    mm_host_guard(host);
    migrate_and_check(host, from, to, uri, true);
    qtest_quit(from);
    mm_host_evict_all(host, "other", 0);
    mm_check(to, MM_RAM_START, MM_RAM_END, 2);
    mm_stop(to, host);
    mm_host_free(host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert(have_qemu_img());
    qtest_add_func("managed-memory/dump/elf", test_dump_elf);
    qtest_add_func("managed-memory/dump/kdump", test_dump_kdump);
    qtest_add_func("managed-memory/dump/pmemsave", test_pmemsave);
    qtest_add_func("managed-memory/snapshot", test_snapshot);
    qtest_add_func("managed-memory/migrate/to-stock", test_migrate_to_stock);
    qtest_add_func("managed-memory/migrate/from-stock",
                   test_migrate_from_stock);
    qtest_add_func("managed-memory/migrate/managed", test_migrate_managed);
    return g_test_run();
}
