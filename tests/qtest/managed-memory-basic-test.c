/*
 * Managed memory qtests: content, numbers and limits
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory is filled, evicted by order of the manager, and read again. All
 * reads and writes are done by QEMU's main thread with the big lock held, so
 * these tests also show that nothing in the fault path needs that lock.
 */
#include "qemu/osdep.h"
#include "qapi/qmp/qlist.h"
#include "managed-memory-vm.h"

/* ---- content ---- */

static void test_evict(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", "");
    MmVmInfo vm;

    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.never, ==, MM_RAM_END);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, >=, MM_RAM_SIZE);

    mm_host_evict_all(host, "vm", 0);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, ==, 0);
    g_assert_cmpint(vm.zero, >, MM_RAM_SIZE / 3);
    g_assert_cmpint(vm.swapped, >, MM_RAM_SIZE / 3);
    g_assert_cmpint(vm.zero + vm.swapped + vm.never, ==, MM_RAM_END);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* New content on top of what is swapped out */
static void test_overwrite(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", "");
    uint64_t middle = MM_RAM_START + 10 * MM_MIB + 3 * MM_PAGE;
    uint32_t seed;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 0);
    for (seed = 1; seed < 4; seed++) {
        mm_host_evict_all(host, "vm", 0);
        mm_fill(qts, MM_RAM_START, middle, seed);
        mm_check(qts, MM_RAM_START, middle, seed);
        mm_host_evict_all(host, "vm", 0);
        mm_check(qts, middle, MM_RAM_END, 0);
        mm_check(qts, MM_RAM_START, middle, seed);
    }
    mm_stop(qts, host);
    mm_host_free(host);
}

static void test_numa(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *mm0 = mm_backend(host, "mm0", 16, ",limit=4M");
    g_autofree char *mm1 = mm_backend(host, "mm1", 16, ",limit=8M");
    QTestState *qts;
    MmVmInfo vm;

    qts = qtest_initf("-machine q35 -m 32M -nodefaults %s %s "
                      "-numa node,memdev=mm0 -numa node,memdev=mm1", mm0, mm1);
    mm_host_guard(host);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.regions, ==, 2);
    g_assert_cmpint(vm.limit, ==, 12 * MM_MIB);
    g_assert_cmpint(vm.resident, <=, 12 * MM_MIB);
    mm_host_evict_all(host, NULL, 0);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts, host);
    mm_host_free(host);
}

static void test_two_vms(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *backend = mm_backend(host, "mm0", 32, "");
    QTestState *qts[2];
    int i;

    for (i = 0; i < 2; i++) {
        qts[i] = qtest_initf("-name vm%d -machine q35,memory-backend=mm0 "
                             "-m 32M -nodefaults %s", i, backend);
        mm_host_guard(host);
        mm_fill(qts[i], MM_RAM_START, MM_RAM_END, i);
    }
    mm_host_evict_all(host, "vm0", 0);
    mm_host_evict_all(host, "vm1", 0);
    mm_check(qts[1], MM_RAM_START, MM_RAM_END, 1);
    mm_check(qts[0], MM_RAM_START, MM_RAM_END, 0);
    qtest_quit(qts[0]);
    mm_host_evict_all(host, "vm1", 0);
    mm_check(qts[1], MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts[1], host);
    mm_host_free(host);
}

/* After a detachment, memory is as any other and needs nobody. */
static void test_detach(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, ",limit=8M", "");
    QDict *info;
    g_autofree char *error = NULL;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert_null(mm_host_operation(host, "vm", "detach"));
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_DETACHED");
    mm_host_wait_gone(host);
    mm_host_kill(host);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 2);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 2);

    info = mm_query(qts);
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "detached");
    g_assert(qlist_empty(qdict_get_qlist(info, "regions")));
    g_assert(!qdict_haskey(info, "usage"));
    qobject_unref(info);
    mm_host_start(host);
    error = mm_qmp_error(qts, "{'execute': 'object-add', 'arguments': {"
                         "'qom-type': 'memory-backend-managed', 'id': 'mm1', "
                         "'size': 4096, 'path': %s}}", host->attach);
    mm_assert_text(error, "detached|restart");
    qtest_quit(qts);
    mm_host_free(host);
}

/* ---- numbers ---- */

/* Both are asked until nothing has changed between the two answers. */
static QDict *query_both(QTestState *qts, MmHost *host, MmVmInfo *vm)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    for (;;) {
        QDict *info, *usage;

        g_assert(mm_host_vm(host, "vm", vm));
        info = mm_query(qts);
        usage = qdict_get_qdict(info, "usage");
        if ((qdict_get_int(usage, "resident") == vm->resident &&
             qdict_get_int(usage, "swapped") == vm->swapped) ||
            g_get_monotonic_time() > end) {
            return info;
        }
        qobject_unref(info);
        g_usleep(5000);
    }
}

static void test_queries_agree(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, ",limit=20M", "");
    QDict *info, *usage, *region;
    MmVmInfo vm;

    mm_fill(qts, MM_RAM_START, 16 * MM_MIB, 1);
    mm_host_evict_all(host, "vm", 0);
    mm_check(qts, MM_RAM_START, 8 * MM_MIB, 1);
    info = query_both(qts, host, &vm);
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "connected");
    g_assert_cmpstr(qdict_get_str(info, "path"), ==, host->attach);
    g_assert_cmpstr(qdict_get_str(info, "uuid"), ==, vm.uuid);
    g_assert_cmpint(qdict_get_int(info, "lost"), ==, 0);
    g_assert_cmpint(qdict_get_int(info, "discards-skipped"), ==, 0);
    usage = qdict_get_qdict(info, "usage");
    g_assert_cmpint(qdict_get_int(usage, "size"), ==, vm.size);
    g_assert_cmpint(qdict_get_int(usage, "limit"), ==, vm.limit);
    g_assert_cmpint(qdict_get_int(usage, "hard-limit"), >, vm.limit);
    g_assert_cmpint(qdict_get_int(usage, "resident"), ==, vm.resident);
    g_assert_cmpint(qdict_get_int(usage, "zero"), ==, vm.zero);
    g_assert_cmpint(qdict_get_int(usage, "swapped"), ==, vm.swapped);
    g_assert_cmpint(qdict_get_int(usage, "never"), ==, vm.never);
    g_assert_cmpint(qdict_get_int(usage, "pager-starts"), ==, 1);
    g_assert_cmpint(qdict_get_int(usage, "stalled-threads"), ==, 0);
    g_assert_cmpint(qdict_get_int(usage, "faults-swapin"), >, 0);
    g_assert_cmpint(qdict_get_int(usage, "faults-missing"), >, 0);
    g_assert_cmpint(vm.never, >=, 16 * MM_MIB);
    g_assert_cmpint(vm.resident + vm.zero + vm.swapped + vm.never, ==,
                    MM_RAM_END);
    region = qobject_to(QDict, qlist_peek(qdict_get_qlist(info, "regions")));
    g_assert_cmpstr(qdict_get_str(region, "name"), ==, "mm0");
    g_assert_cmpstr(qdict_get_str(region, "backend"), ==, "/objects/mm0");
    g_assert_cmpint(qdict_get_int(region, "size"), ==, MM_RAM_END);
    g_assert_cmpint(qdict_get_int(region, "limit"), ==, 20 * MM_MIB);
    g_assert_cmpint(qdict_get_int(region, "dma-held"), ==, 0);
    qobject_unref(info);
    mm_stop(qts, host);
    mm_host_free(host);
}

static void test_no_managed_memory(void)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");
    QDict *info = mm_query(qts);
    g_autofree char *error = NULL, *text = NULL;

    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "none");
    g_assert(!qdict_haskey(info, "path"));
    g_assert(!qdict_haskey(info, "uuid"));
    g_assert(!qdict_haskey(info, "usage"));
    qobject_unref(info);
    error = mm_qmp_error(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': 0}}");
    mm_assert_text(error, "no managed memory");
    text = qtest_hmp(qts, "info managed-memory");
    mm_assert_text(text, "managed memory: none");
    qtest_quit(qts);
}

static void test_hmp(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", "");
    g_autofree char *text = NULL, *error = NULL;
    MmVmInfo vm;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    text = qtest_hmp(qts, "managed_memory_limit 16");
    g_assert_cmpstr(text, ==, "");
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.limit, ==, 16 * MM_MIB);
    g_free(text);
    text = qtest_hmp(qts, "info managed-memory");
    mm_assert_text(text, "managed memory: connected|region 0: mm0|"
                   "size: 32 MiB|limit: 16 MiB|swap-in");
    mm_assert_text(text, host->attach);
    mm_assert_text(text, vm.uuid);
    g_free(text);
    text = qtest_hmp(qts, "managed_memory_limit 0");
    g_assert_cmpstr(text, ==, "");
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.limit, ==, UINT64_MAX);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- limits ---- */

static void wait_resident(MmHost *host, uint64_t most)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;
    MmVmInfo vm;

    do {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
        g_assert(mm_host_vm(host, "vm", &vm));
    } while (vm.resident > most);
}

static void test_limit(void)
{
    MmHost *host = mm_host_new("--limit 24M");
    QTestState *qts = mm_start(host, "", "");
    g_autofree char *error = NULL;
    MmVmInfo vm;

    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.limit, ==, 24 * MM_MIB);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, 24 * MM_MIB);

    qobject_unref(mm_qmp(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': 16777216}}"));
    wait_resident(host, 16 * MM_MIB);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident, <=, 16 * MM_MIB);

    qobject_unref(mm_host_qmp(host, "{'execute': 'managed-vm-set-limit', "
                              "'arguments': {'vm': 'vm', "
                              "'limit': 8388608}}"));
    g_assert_cmpint(mm_query_usage(qts, "limit"), ==, 8 * MM_MIB);
    wait_resident(host, 8 * MM_MIB);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);

    error = mm_qmp_error(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': 4096}}");
    mm_assert_text(error, "4 KiB|too low|at least 256 KiB");
    g_assert_cmpint(mm_query_usage(qts, "limit"), ==, 8 * MM_MIB);

    /* as for managed-vm-set-limit of the manager */
    qobject_unref(mm_qmp(qts, "{'execute': 'managed-memory-set-limit', "
                         "'arguments': {'limit': 0}}"));
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.limit, ==, UINT64_MAX);
    g_assert_null(mm_host_operation(host, "vm", "swap-in"));
    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.resident + vm.never, ==, MM_RAM_END);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts, host);
    mm_host_free(host);
}

static void test_prealloc(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, ",prealloc=on,prealloc-threads=2,"
                               "limit=8M", "");
    MmVmInfo vm;

    g_assert(mm_host_vm(host, "vm", &vm));
    g_assert_cmpint(vm.never, ==, 0);
    g_assert_cmpint(vm.resident, <=, 8 * MM_MIB);
    mm_fill(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_check(qts, MM_RAM_START, MM_RAM_END, 1);
    mm_stop(qts, host);
    mm_host_free(host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/content/evict", test_evict);
    qtest_add_func("managed-memory/content/overwrite", test_overwrite);
    qtest_add_func("managed-memory/content/numa", test_numa);
    qtest_add_func("managed-memory/content/two-vms", test_two_vms);
    qtest_add_func("managed-memory/content/detach", test_detach);
    qtest_add_func("managed-memory/query/agree", test_queries_agree);
    qtest_add_func("managed-memory/query/none", test_no_managed_memory);
    qtest_add_func("managed-memory/query/hmp", test_hmp);
    qtest_add_func("managed-memory/limit/set", test_limit);
    qtest_add_func("managed-memory/limit/prealloc", test_prealloc);
    return g_test_run();
}
