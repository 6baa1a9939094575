/*
 * Managed memory qtests: what a pager may say once it serves a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The pager is the test. It reports events, asks QEMU to keep descriptors, to
 * drop page table entries, and all of that in ways that a sane pager would
 * not; it is slow or silent. QEMU's monitor answers all the time.
 */
#include "qemu/osdep.h"
#include "managed-memory-fake.h"
#include "managed-memory-vm.h"

#define REGION_SIZE (4 * MM_MIB)
#define REGION_PAGES (REGION_SIZE / MM_PAGE)

/* ---- a VM with a fake pager ---- */

static void begin_add(QTestState *qts, const char *path)
{
    qtest_qmp_send(qts, "{'execute': 'object-add', 'arguments': {"
                   "'qom-type': 'memory-backend-managed', 'id': 'mm0', "
                   "'size': %" PRIu64 ", 'path': %s}}", REGION_SIZE, path);
}

/* Receives the answer to what has been sent; @words: of its error, or NULL. */
static void finish(QTestState *qts, const char *words)
{
    QDict *answer = qtest_qmp_receive(qts);
    QDict *error = qdict_get_qdict(answer, "error");

    if (!words && error) {
        mm_fail("%s", qdict_get_str(error, "desc"));
    }
    if (words) {
        g_assert(error);
        mm_assert_text(qdict_get_str(error, "desc"), words);
    }
    qobject_unref(answer);
}

static QTestState *start(MmFake *fake)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");

    begin_add(qts, fake->path);
    mm_fake_attach(fake);
    mm_fake_add_region(fake);
    finish(qts, NULL);
    return qts;
}

/* Queries ask the pager, which has to answer. */
static QDict *query(QTestState *qts, MmFake *fake)
{
    MmMsgQueryReply reply = { .size = REGION_SIZE, .limit = MM_LIMIT_NONE,
                              .hard_limit = MM_LIMIT_NONE };
    QDict *answer, *info;

    qtest_qmp_send(qts, "{'execute': 'query-managed-memory'}");
    mm_fake_recv(fake, MM_MSG_QUERY);
    mm_fake_send(fake, MM_MSG_QUERY_REPLY, &reply, sizeof(reply), NULL, 0);
    answer = qtest_qmp_receive(qts);
    info = qdict_get_qdict(answer, "return");
    qobject_ref(info);
    qobject_unref(answer);
    return info;
}

static void assert_connected(QTestState *qts, MmFake *fake)
{
    QDict *info = query(qts, fake);

    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "connected");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(info, "usage"), "size"), ==,
                    REGION_SIZE);
    qobject_unref(info);
}

/* ---- events ---- */

static QDict *event_data(QTestState *qts, const char *name)
{
    QDict *event = qtest_qmp_eventwait_ref(qts, name);
    QDict *data = qdict_get_qdict(event, "data");

    qobject_ref(data);
    qobject_unref(event);
    return data;
}

static void send_event(MmFake *fake, uint32_t kind, uint64_t arg)
{
    MmMsgEvent event = { .kind = kind, .region = 0, .arg = arg,
                         .text = "says the pager" };

    mm_msg_clear(fake->msg);
    fake->msg->hdr.seq = 0;
    mm_fake_send(fake, MM_MSG_EVENT, &event, sizeof(event), NULL, 0);
}

static void test_events(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    QDict *data;

    send_event(fake, MM_EVENT_IO_ERROR, ENOSPC);
    data = event_data(qts, "MANAGED_MEMORY_IO_ERROR");
    g_assert(qdict_get_bool(data, "active"));
    g_assert_cmpint(qdict_get_int(data, "errno"), ==, ENOSPC);
    g_assert_cmpstr(qdict_get_str(data, "message"), ==, "says the pager");
    qobject_unref(data);

    send_event(fake, MM_EVENT_IO_RECOVERED, 0);
    data = event_data(qts, "MANAGED_MEMORY_IO_ERROR");
    g_assert(!qdict_get_bool(data, "active"));
    qobject_unref(data);

    send_event(fake, MM_EVENT_PRESSURE, 12345);
    data = event_data(qts, "MANAGED_MEMORY_PRESSURE");
    g_assert(qdict_get_bool(data, "active"));
    g_assert_cmpint(qdict_get_int(data, "excess"), ==, 12345);
    qobject_unref(data);

    send_event(fake, MM_EVENT_PRESSURE_OVER, 0);
    data = event_data(qts, "MANAGED_MEMORY_PRESSURE");
    g_assert(!qdict_get_bool(data, "active"));
    qobject_unref(data);

    send_event(fake, MM_EVENT_PAGE_LOST, 8192);
    data = event_data(qts, "MANAGED_MEMORY_PAGE_LOST");
    g_assert_cmpint(qdict_get_int(data, "region"), ==, 0);
    g_assert_cmpint(qdict_get_int(data, "offset"), ==, 8192);
    qobject_unref(data);

    /* of a later release */
    send_event(fake, 77, 0);
    assert_connected(qts, fake);
    mm_fake_free(fake);
    qtest_quit(qts);
}

static void test_event_flood(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    int i;

    for (i = 0; i < 2000; i++) {
        send_event(fake, MM_EVENT_PRESSURE, i);
    }
    assert_connected(qts, fake);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- the zap channel ---- */

static int zap_recv(MmFake *fake)
{
    mm_msg_clear(fake->msg);
    return mm_msg_recv(fake->zap, fake->msg, MM_WAIT_MS);
}

static void zap_send(MmFake *fake, const MmRange *ranges, unsigned nr)
{
    g_autofree MmMsgZap *zap = g_malloc0(sizeof(*zap) +
                                         nr * sizeof(zap->ranges[0]));

    zap->nr_ranges = nr;
    memcpy(zap->ranges, ranges, nr * sizeof(zap->ranges[0]));
    g_assert_cmpint(mm_msg_send(fake->zap, MM_MSG_ZAP, 42, zap,
                                sizeof(*zap) + nr * sizeof(zap->ranges[0]),
                                NULL, 0), ==, 0);
}

static void zap_expect(MmFake *fake, MmMsgType type)
{
    g_assert_cmpint(zap_recv(fake), ==, 1);
    g_assert_cmpstr(mm_msg_type_name(fake->msg->hdr.type), ==,
                    mm_msg_type_name(type));
    g_assert_cmpint(fake->msg->hdr.seq, ==, 42);
}

static void test_zap(void)
{
    static const MmRange good[] = {
        { .region = 0, .first_page = 0, .nr_pages = REGION_PAGES },
        { .region = 0, .first_page = REGION_PAGES - 1, .nr_pages = 1 },
        { .region = 0, .first_page = REGION_PAGES, .nr_pages = 0 },
        /* a region that is gone meanwhile */
        { .region = 99, .first_page = 1u << 30, .nr_pages = 5 },
    };
    static const MmRange bad[] = {
        { .region = 0, .first_page = REGION_PAGES, .nr_pages = 1 },
        { .region = 0, .first_page = 1, .nr_pages = REGION_PAGES },
        { .region = 0, .first_page = 0, .nr_pages = UINT32_MAX },
        { .region = 0, .first_page = UINT64_MAX, .nr_pages = 1 },
        { .region = 0, .first_page = UINT64_MAX - 5, .nr_pages = 10 },
        { .region = 0, .first_page = UINT64_MAX / MM_PAGE, .nr_pages = 1 },
        { .region = MM_MAX_REGIONS, .first_page = 0, .nr_pages = 1 },
        { .region = UINT32_MAX, .first_page = 0, .nr_pages = 1 },
    };
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    MmRange all[MM_ZAP_MAX_RANGES] = {};
    int i;

    for (i = 0; i < ARRAY_SIZE(good); i++) {
        zap_send(fake, &good[i], 1);
        zap_expect(fake, MM_MSG_ZAP_DONE);
    }
    for (i = 0; i < ARRAY_SIZE(bad); i++) {
        MmRange both[] = { good[0], bad[i] };

        zap_send(fake, &bad[i], 1);
        zap_expect(fake, MM_MSG_ERROR);
        zap_send(fake, both, 2);
        zap_expect(fake, MM_MSG_ERROR);
    }
    for (i = 0; i < MM_ZAP_MAX_RANGES; i++) {
        all[i] = (MmRange) { .first_page = i % REGION_PAGES, .nr_pages = 1 };
    }
    zap_send(fake, all, MM_ZAP_MAX_RANGES);
    zap_expect(fake, MM_MSG_ZAP_DONE);

    g_assert_cmpint(mm_msg_send(fake->zap, MM_MSG_QUERY, 42, NULL, 0, NULL,
                                0), ==, 0);
    zap_expect(fake, MM_MSG_ERROR);
    g_assert_cmpint(send(fake->zap, "nonsense", 8, MSG_NOSIGNAL), ==, 8);
    g_assert_cmpint(zap_recv(fake), ==, 0);
    assert_connected(qts, fake);

    /* the next pager brings a new channel */
    mm_fake_close(fake);
    mm_fake_resume(fake, 1, 0);
    mm_fake_hello(fake, NULL);
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
    zap_send(fake, good, ARRAY_SIZE(good));
    zap_expect(fake, MM_MSG_ZAP_DONE);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- descriptors to keep ---- */

static void send_hold(MmFake *fake, uint32_t kind, uint32_t index)
{
    MmMsgHold hold = { .kind = kind, .index = index };
    int fd = fake->listener;

    mm_fake_send(fake, MM_MSG_HOLD, &hold, sizeof(hold), &fd, 1);
}

static void test_holds(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    int i, round;

    for (round = 0; round < 3; round++) {
        for (i = 0; i < 30; i++) {
            send_hold(fake, MM_HOLD_TIER_FILE, i);
        }
    }
    assert_connected(qts, fake);
    mm_fake_close(fake);
    /* each once, and not more than there can be tiers */
    mm_fake_resume(fake, 1, MM_MAX_TIERS);
    mm_fake_hello(fake, NULL);
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- nonsense ---- */

static void recover(QTestState *qts, MmFake *fake)
{
    mm_fake_recv_end(fake);
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_LOST");
    mm_fake_resume(fake, 1, 0);
    mm_fake_hello(fake, NULL);
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
    assert_connected(qts, fake);
}

/* What cannot be understood ends the connection, all else does not. */
static void test_nonsense(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    MmMsgHello hello = {};

    mm_fake_send(fake, MM_MSG_HELLO, &hello, sizeof(hello), NULL, 0);
    mm_fake_ok(fake);
    mm_fake_error(fake, EIO, "whose is this?");
    assert_connected(qts, fake);

    mm_fake_send_raw(fake, "nonsense", 8, 0);
    shutdown(fake->sock, SHUT_WR);
    recover(qts, fake);
    mm_fake_send_raw(fake, "nonsense", 8, 20);
    shutdown(fake->sock, SHUT_WR);
    recover(qts, fake);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- silence ---- */

static void assert_answers(QTestState *qts)
{
    qobject_unref(mm_qmp(qts, "{'execute': 'query-status'}"));
}

static void test_slow_answers(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);
    int64_t begin = g_get_monotonic_time();
    QDict *info = mm_query(qts);

    g_assert(!qdict_haskey(info, "usage"));
    g_assert_cmpstr(qdict_get_str(info, "status"), ==, "connected");
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 5 * G_USEC_PER_SEC);
    qobject_unref(info);
    assert_answers(qts);

    begin = g_get_monotonic_time();
    qtest_qmp_send(qts, "{'execute': 'managed-memory-set-limit', "
                   "'arguments': {'limit': 1048576}}");
    finish(qts, "no answer to SET_LIMIT|pager|timed out");
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 10 * G_USEC_PER_SEC);

    /* the answers that come now are nobody's */
    mm_fake_recv(fake, MM_MSG_QUERY);
    mm_fake_error(fake, EIO, "too late");
    mm_fake_recv(fake, MM_MSG_SET_LIMIT);
    mm_fake_ok(fake);
    assert_connected(qts, fake);

    qtest_qmp_send(qts, "{'execute': 'managed-memory-set-limit', "
                   "'arguments': {'limit': 1048576}}");
    mm_fake_recv(fake, MM_MSG_SET_LIMIT);
    mm_fake_error(fake, EINVAL, "not today");
    finish(qts, "pager refuses|not today");
    mm_fake_free(fake);
    qtest_quit(qts);
}

/*
 * A pager that does not confirm that it has let go of a region has to go: it
 * could still put pages where somebody else's memory is.
 */
static void test_silent_remove(void)
{
    MmFake *fake = mm_fake_new();
    QTestState *qts = start(fake);

    qtest_qmp_send(qts, "{'execute': 'object-del', 'arguments': {"
                   "'id': 'mm0'}}");
    finish(qts, NULL);
    mm_fake_recv(fake, MM_MSG_REGION_REMOVE);
    mm_fake_recv_end(fake);
    mm_fake_resume(fake, 0, 0);
    mm_fake_hello(fake, NULL);
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_RECOVERED");
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* Set-up waits long enough for a busy host, but not for ever. */
static void test_silent_hello(void)
{
    int64_t begin = g_get_monotonic_time();
    QTestState *qts = qtest_init("-machine none -nodefaults");
    MmFake *fake = mm_fake_new();

    begin_add(qts, fake->path);
    mm_fake_accept(fake);
    finish(qts, "memory manager|did not answer within");
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 20 * G_USEC_PER_SEC);
    assert_answers(qts);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* Both at the same time, since it takes half a minute */
static void test_silent_region(void)
{
    int64_t begin = g_get_monotonic_time();
    MmFake *fake[] = { mm_fake_new(), mm_fake_new() };
    QTestState *qts[2];
    int i;

    for (i = 0; i < 2; i++) {
        qts[i] = qtest_init("-machine none -nodefaults");
        begin_add(qts[i], fake[i]->path);
        mm_fake_attach(fake[i]);
    }
    mm_fake_region(fake[1], NULL);
    finish(qts[0], "no answer to REGION_ADD|timed out");
    finish(qts[1], "no answer to REGION_READY|timed out");
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 45 * G_USEC_PER_SEC);
    for (i = 0; i < 2; i++) {
        assert_answers(qts[i]);
        mm_fake_free(fake[i]);
        qtest_quit(qts[i]);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/pager/events", test_events);
    qtest_add_func("managed-memory/pager/event-flood", test_event_flood);
    qtest_add_func("managed-memory/pager/zap", test_zap);
    qtest_add_func("managed-memory/pager/holds", test_holds);
    qtest_add_func("managed-memory/pager/nonsense", test_nonsense);
    qtest_add_func("managed-memory/pager/slow-answers", test_slow_answers);
    qtest_add_func("managed-memory/pager/silent-remove", test_silent_remove);
    qtest_add_func("managed-memory/pager/silent-hello", test_silent_hello);
    if (g_test_slow()) {
        qtest_add_func("managed-memory/pager/silent-region",
                       test_silent_region);
    }
    return g_test_run();
}
