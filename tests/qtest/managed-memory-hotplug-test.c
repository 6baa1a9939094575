/*
 * Managed memory qtests: memory modules that come and go
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * No guest runs, so the tests eject a module as a guest's ACPI code does: by
 * writing to the registers of the memory hot-plug controller.
 */
#include "qemu/osdep.h"
#include "qapi/qmp/qlist.h"
#include "managed-memory-vm.h"

#define DIMM_SIZE (16 * MM_MIB)
#define HOTPLUG "-m 32M,slots=4,maxmem=1G"

/* Registers of ACPI memory hot-plug, docs/specs/acpi_mem_hotplug.rst */
#define ACPI_MEMORY_BASE 0xa00
#define ACPI_MEMORY_SELECT (ACPI_MEMORY_BASE + 0x0)
#define ACPI_MEMORY_STATUS (ACPI_MEMORY_BASE + 0x14)
#define ACPI_MEMORY_EJECT 8

/*
 * A pager that is lost while it makes the region lets the command fail, with
 * nothing left behind: then it can be repeated.
 */
static void plug(QTestState *qts, const MmHost *host, int n)
{
    g_autofree char *id = g_strdup_printf("mem%d", n);
    g_autofree char *dimm = g_strdup_printf("dimm%d", n);
    int tries = 0;

    for (;;) {
        QDict *answer = qtest_qmp(
            qts, "{'execute': 'object-add', 'arguments': {"
            "'qom-type': 'memory-backend-managed', 'id': %s, "
            "'size': %" PRIu64 ", 'path': %s}}", id, DIMM_SIZE, host->attach);
        bool ok = qdict_haskey(answer, "return");

        if (!ok) {
            mm_assert_text(qdict_get_str(qdict_get_qdict(answer, "error"),
                                         "desc"), "pager");
        }
        qobject_unref(answer);
        if (ok) {
            break;
        }
        g_assert_cmpint(++tries, <, 3);
    }
    qobject_unref(mm_qmp(qts, "{'execute': 'device_add', 'arguments': {"
                         "'driver': 'pc-dimm', 'id': %s, 'memdev': %s}}",
                         dimm, id));
}

/* Also says which slot it has. */
static uint64_t dimm_address(QTestState *qts, int n, int *slot)
{
    g_autofree char *dimm = g_strdup_printf("dimm%d", n);
    QDict *answer = qtest_qmp(qts, "{'execute': 'query-memory-devices'}");
    QListEntry *entry;
    uint64_t addr = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(answer, "return"), entry) {
        QDict *data = qdict_get_qdict(qobject_to(QDict,
                                                 qlist_entry_obj(entry)),
                                      "data");

        if (!strcmp(qdict_get_str(data, "id"), dimm)) {
            addr = qdict_get_int(data, "addr");
            *slot = qdict_get_int(data, "slot");
        }
    }
    qobject_unref(answer);
    g_assert_cmpint(addr, !=, 0);
    return addr;
}

static void unplug(QTestState *qts, int n)
{
    g_autofree char *id = g_strdup_printf("mem%d", n);
    g_autofree char *dimm = g_strdup_printf("dimm%d", n);
    int slot;

    dimm_address(qts, n, &slot);
    qobject_unref(mm_qmp(qts, "{'execute': 'device_del', 'arguments': {"
                         "'id': %s}}", dimm));
    qtest_outl(qts, ACPI_MEMORY_SELECT, slot);
    qtest_outb(qts, ACPI_MEMORY_STATUS, ACPI_MEMORY_EJECT);
    qtest_qmp_eventwait(qts, "DEVICE_DELETED");
    qobject_unref(mm_qmp(qts, "{'execute': 'object-del', 'arguments': {"
                         "'id': %s}}", id));
}

/* QEMU gives memory up when its last user has, which takes a moment. */
static void wait_size(MmHost *host, uint64_t size)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;
    MmVmInfo vm;

    for (;;) {
        g_assert(mm_host_vm(host, NULL, &vm));
        if (!vm.stale && vm.size == size) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
}

static void test_plug(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", HOTPLUG);
    int n, slot;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 9);
    for (n = 0; n < 3; n++) {
        uint64_t addr;

        plug(qts, host, n);
        addr = dimm_address(qts, n, &slot);
        g_assert_cmpint(addr, >=, 4096 * MM_MIB);
        mm_fill(qts, addr, addr + DIMM_SIZE, n);
    }
    mm_host_evict_all(host, NULL, 0);
    for (n = 2; n >= 0; n--) {
        uint64_t addr = dimm_address(qts, n, &slot);

        mm_check(qts, addr, addr + DIMM_SIZE, n);
    }
    mm_check(qts, MM_RAM_START, MM_RAM_END, 9);
    wait_size(host, MM_RAM_END + 3 * DIMM_SIZE);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* Unplugged in the middle: the others keep their content, all is released. */
static void test_unplug(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", HOTPLUG);
    uint64_t addr[3];
    int n, slot;
    MmVmInfo vm;

    for (n = 0; n < 3; n++) {
        plug(qts, host, n);
        addr[n] = dimm_address(qts, n, &slot);
        mm_fill(qts, addr[n], addr[n] + DIMM_SIZE, n);
    }
    mm_host_evict_all(host, NULL, 0);
    mm_check(qts, addr[1], addr[1] + DIMM_SIZE / 2, 1);
    unplug(qts, 1);
    wait_size(host, MM_RAM_END + 2 * DIMM_SIZE);
    mm_check(qts, addr[0], addr[0] + DIMM_SIZE, 0);
    mm_host_evict_all(host, NULL, 0);

    /* in its place: nothing of the old one can be seen */
    plug(qts, host, 1);
    g_assert_cmpint(dimm_address(qts, 1, &slot), ==, addr[1]);
    g_assert_cmpint(qtest_readq(qts, addr[1]), ==, 0);
    mm_fill(qts, addr[1], addr[1] + DIMM_SIZE, 4);
    mm_host_evict_all(host, NULL, 0);
    mm_check(qts, addr[1], addr[1] + DIMM_SIZE, 4);
    mm_check(qts, addr[2], addr[2] + DIMM_SIZE, 2);
    for (n = 0; n < 3; n++) {
        unplug(qts, n);
    }
    wait_size(host, MM_RAM_END);
    g_assert(mm_host_vm(host, NULL, &vm));
    g_assert_cmpint(vm.regions, ==, 1);
    g_assert_cmpint(vm.resident + vm.zero + vm.swapped + vm.never, ==,
                    MM_RAM_END);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* The pager is killed while modules come and go. */
static void test_unplug_after_loss(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", HOTPLUG);
    uint64_t addr;
    MmVmInfo vm;
    int i, slot;

    mm_fill(qts, MM_RAM_START, MM_RAM_END, 9);
    for (i = 0; i < 4; i++) {
        plug(qts, host, 0);
        addr = dimm_address(qts, 0, &slot);
        mm_fill(qts, addr, addr + 8 * MM_MIB, i);
        mm_host_evict_all(host, NULL, 0);
        g_assert(mm_host_vm(host, NULL, &vm));
        kill(vm.pager_pid, SIGKILL);
        /* at once, while the VM is lost or being handed over */
        unplug(qts, 0);
        mm_wait_status(qts, "connected");
        wait_size(host, MM_RAM_END);
    }
    mm_check(qts, MM_RAM_START, MM_RAM_END, 9);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* A backend comes while there is no pager: it waits for the next one. */
static void test_plug_after_loss(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = mm_start(host, "", HOTPLUG);
    uint64_t addr;
    MmVmInfo vm;
    int i, slot;

    for (i = 0; i < 4; i++) {
        g_assert(mm_host_vm(host, NULL, &vm));
        kill(vm.pager_pid, SIGKILL);
        plug(qts, host, i);
        addr = dimm_address(qts, i, &slot);
        mm_fill(qts, addr, addr + 8 * MM_MIB, i);
        mm_host_evict_all(host, NULL, 0);
        mm_check(qts, addr, addr + 8 * MM_MIB, i);
    }
    mm_stop(qts, host);
    mm_host_free(host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/hotplug/plug", test_plug);
    qtest_add_func("managed-memory/hotplug/unplug", test_unplug);
    qtest_add_func("managed-memory/hotplug/unplug-after-loss",
                   test_unplug_after_loss);
    qtest_add_func("managed-memory/hotplug/plug-after-loss",
                   test_plug_after_loss);
    return g_test_run();
}
