/*
 * qtest: migration capability swap-aware-ram, and what is written meanwhile
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A QEMU whose guest does not run, and whose memory is one hole.  One page is
 * written again and again, so that it is the last one that is looked at before
 * the migration waits to be continued.  Then another one is written: its
 * neighbour, which was looked at together with it, or one far away.
 */
#include "qemu/osdep.h"
#include "libqtest.h"
#include "qapi/qmp/qdict.h"

#define MEMORY_BYTES (64 << 20)
#define PAGE_BYTES 4096
#define LAST_PAGE 10000
#define ROUNDS 3
#define RECHECK_US 1000
#define TIMEOUT_US (20 * G_USEC_PER_SEC)

#define CAPABILITIES "{ 'execute': 'migrate-set-capabilities', 'arguments': {" \
    " 'capabilities': [" \
    "  { 'capability': 'swap-aware-ram', 'state': true }," \
    "  { 'capability': 'pause-before-switchover', 'state': true }," \
    "  { 'capability': 'multifd', 'state': %i } ] } }"

/* So slow that a dirty page is one too many for the end to come */
#define PARAMETERS "{ 'execute': 'migrate-set-parameters', 'arguments': {" \
    " 'max-bandwidth': 2097152, 'downtime-limit': 1 } }"

static QTestState *start(const char *extra)
{
    return qtest_initf(
        "-machine q35,memory-backend=ram0 -nodefaults -S -m %dM %s "
        "-object memory-backend-memfd,id=ram0,size=%dM,share=on",
        MEMORY_BYTES >> 20, extra, MEMORY_BYTES >> 20);
}

static void wait_for_status(QTestState *qts, const char *wanted)
{
    int64_t end = g_get_monotonic_time() + TIMEOUT_US;
    bool reached = false;

    while (!reached) {
        QDict *reply = qtest_qmp(qts, "{ 'execute': 'query-migrate' }");
        const char *status = qdict_get_try_str(qdict_get_qdict(reply, "return"),
                                               "status");

        g_assert_cmpstr(status, !=, "failed");
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        reached = g_strcmp0(status, wanted) == 0;
        qobject_unref(reply);
        g_usleep(RECHECK_US);
    }
}

/* How often memory has been looked through */
static int64_t rounds(QTestState *qts)
{
    QDict *reply = qtest_qmp(qts, "{ 'execute': 'query-migrate' }");
    QDict *ram = qdict_get_qdict(qdict_get_qdict(reply, "return"), "ram");
    int64_t count = ram ? qdict_get_int(ram, "dirty-sync-count") : 0;

    qobject_unref(reply);
    return count;
}

static void write_page(QTestState *qts, uint64_t page, uint8_t value)
{
    qtest_memset(qts, page * PAGE_BYTES, value, PAGE_BYTES);
}

static void check_page(QTestState *qts, uint64_t page, uint8_t value)
{
    uint8_t got[PAGE_BYTES];
    size_t i;

    qtest_memread(qts, page * PAGE_BYTES, got, sizeof(got));
    for (i = 0; i < sizeof(got); i++) {
        g_assert_cmpuint(got[i], ==, value);
    }
}

static void check_written_meanwhile(uint64_t page, bool multifd)
{
    g_autofree char *folder = g_dir_make_tmp("swap-aware-XXXXXX", NULL);
    g_autofree char *path = g_strdup_printf("%s/sock", folder);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    int64_t end = g_get_monotonic_time() + TIMEOUT_US;
    QTestState *from = start("");
    QTestState *to = start("-incoming defer");

    qtest_qmp_assert_success(from, CAPABILITIES, multifd);
    qtest_qmp_assert_success(to, CAPABILITIES, multifd);
    qtest_qmp_assert_success(from, PARAMETERS);
    qtest_qmp_assert_success(to, "{ 'execute': 'migrate-incoming',"
                             " 'arguments': { 'uri': %s } }", uri);
    qtest_qmp_assert_success(from, "{ 'execute': 'migrate',"
                             " 'arguments': { 'uri': %s } }", uri);
    while (rounds(from) < ROUNDS) {
        write_page(from, LAST_PAGE, 1);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    wait_for_status(from, "pre-switchover");
    write_page(from, page, 2);
    qtest_qmp_assert_success(from, "{ 'execute': 'migrate-continue',"
                             " 'arguments': { 'state': 'pre-switchover' } }");
    wait_for_status(from, "completed");
    wait_for_status(to, "completed");
    check_page(to, LAST_PAGE, 1);
    check_page(to, page, 2);
    check_page(to, page + 1, 0);
    qtest_quit(from);
    qtest_quit(to);
    unlink(path);
    rmdir(folder);
}

static void test_looked_at_last(void)
{
    check_written_meanwhile(LAST_PAGE + 1, false);
}

static void test_looked_at_before(void)
{
    check_written_meanwhile(LAST_PAGE / 2, false);
}

static void test_multifd(void)
{
    check_written_meanwhile(LAST_PAGE + 1, true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("mm/swap-aware/looked-at-last", test_looked_at_last);
    qtest_add_func("mm/swap-aware/looked-at-before", test_looked_at_before);
    qtest_add_func("mm/swap-aware/multifd", test_multifd);
    return g_test_run();
}
