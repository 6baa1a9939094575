/*
 * Managed memory qtests: managers and pagers that are absent, wrong or mad
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The peer on the other end of QEMU's connection may be of another version,
 * broken, or not a memory manager at all. QEMU tells what is wrong within a
 * bounded time, keeps nothing of it, and works with the next one.
 */
#include "qemu/osdep.h"
#include "qapi/qmp/qlist.h"
#include "managed-memory-fake.h"
#include "managed-memory-vm.h"

static QTestState *start(void)
{
    return qtest_init("-name peer -machine none -nodefaults");
}

/* The peer speaks between this and finish_add(). */
static void begin_add(QTestState *qts, const char *path)
{
    qtest_qmp_send(qts, "{'execute': 'object-add', 'arguments': {"
                   "'qom-type': 'memory-backend-managed', 'id': 'mm0', "
                   "'size': 4194304, 'path': %s}}", path);
}

static void finish_add(QTestState *qts, const char *words)
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

static unsigned count_fds(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", pid);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    g_assert(dir);
    while (g_dir_read_name(dir)) {
        n++;
    }
    return n;
}

/* ---- nobody there ---- */

static void test_nobody(void)
{
    g_autofree char *dir = g_dir_make_tmp("qtest-none-XXXXXX", NULL);
    g_autofree char *missing = g_build_filename(dir, "attach.sock", NULL);
    g_autofree char *args = g_strdup_printf(
        "-machine none -object memory-backend-managed,id=mm0,size=4M,path=%s",
        missing);
    g_autofree char *text = mm_run_failing(args);
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();

    mm_assert_text(text, "qemu-memory-manager running|'path'|No such file");
    mm_assert_text(text, missing);
    begin_add(qts, missing);
    finish_add(qts, "qemu-memory-manager|No such file or directory");
    /* a socket that its owner has left behind */
    g_assert_cmpint(rename(fake->path, missing), ==, 0);
    mm_fake_free(fake);
    begin_add(qts, missing);
    finish_add(qts, "qemu-memory-manager|Connection refused");
    qtest_quit(qts);
    unlink(missing);
    rmdir(dir);
}

/* ---- instead of an answer to HELLO ---- */

static void say_nothing(MmFake *fake)
{
    mm_fake_close(fake);
}

static void say_garbage(MmFake *fake)
{
    char garbage[200];

    memset(garbage, 0xa5, sizeof(garbage));
    mm_fake_send_raw(fake, garbage, sizeof(garbage), 0);
}

static void say_little(MmFake *fake)
{
    mm_fake_send_raw(fake, "abc", 3, 0);
}

/* Reads like the end of the connection, but is not. */
static void say_empty(MmFake *fake)
{
    mm_fake_send_raw(fake, "", 0, 0);
}

static void say_too_much(MmFake *fake)
{
    g_autofree char *data = g_malloc0(MM_MSG_MAX + 4096);
    MmMsgHeader header = { .type = MM_MSG_HELLO_REPLY, .seq = 1,
                           .len = MM_MSG_MAX + 4096 - sizeof(header) };

    memcpy(data, &header, sizeof(header));
    mm_fake_send_raw(fake, data, MM_MSG_MAX + 4096, 0);
}

static void say_wrong_length(MmFake *fake)
{
    MmMsgHeader header = { .type = MM_MSG_HELLO_REPLY, .len = 100, .seq = 1 };

    mm_fake_send_raw(fake, &header, sizeof(header), 0);
}

static void say_ok(MmFake *fake)
{
    mm_fake_ok(fake);
}

static void say_error(MmFake *fake)
{
    mm_fake_error(fake, EUSERS, "the moon is in the wrong house");
}

static void say_endless_error(MmFake *fake)
{
    MmMsgError error = { .err = EIO };

    memset(error.text, 'x', sizeof(error.text));
    mm_fake_send(fake, MM_MSG_ERROR, &error, sizeof(error), NULL, 0);
}

static void say_many_fds(MmFake *fake)
{
    MmMsgHeader header = { .type = MM_MSG_HELLO_REPLY, .seq = 1,
                           .len = sizeof(MmMsgHelloReply) };
    char data[sizeof(header) + sizeof(MmMsgHelloReply)] = {};

    memcpy(data, &header, sizeof(header));
    mm_fake_send_raw(fake, data, sizeof(data), 30);
}

static const struct {
    const char *name;
    void (*say)(MmFake *fake);
    MmFakeHello hello;          /* if there is no function */
    const char *words;
} bad_hellos[] = {
    { "end", say_nothing, {}, "memory manager|closed the connection|log" },
    { "garbage", say_garbage, {}, "bad answer from the memory manager" },
    { "little", say_little, {}, "bad answer from the memory manager" },
    { "empty", say_empty, {}, "bad answer from the memory manager" },
    { "too much", say_too_much, {}, "bad answer from the memory manager" },
    { "length", say_wrong_length, {}, "bad answer from the memory manager" },
    { "ok", say_ok, {}, "sent OK instead of HELLO_REPLY" },
    { "error", say_error, {}, "refuses|the moon is in the wrong house" },
    { "endless", say_endless_error, {}, "bad answer" },
    { "30 fds", say_many_fds, {}, "bad answer from the memory manager" },
    { "version", NULL, { .version = 99 }, "version 99|install matching" },
    { "3 fds", NULL, { .nr_fds = 3 }, "bad answer" },
    { "6 fds", NULL, { .nr_fds = 6 }, "bad answer" },
    { "8 fds", NULL, { .nr_fds = 8 }, "bad answer" },
    { "unsealed", NULL, { .unsealed_ring = true }, "ring" },
    { "small", NULL, { .ring_size = 4096 }, "ring" },
    { "readonly", NULL, { .readonly_ring = true }, "ring" },
};

static void test_hello(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();
    unsigned before = 0;
    MmVmInfo vm;
    pid_t pid = 0;
    int i;

    mm_host_guard(host);
    for (i = 0; i < ARRAY_SIZE(bad_hellos); i++) {
        const MmMsgHello *hello;

        g_test_message("%s", bad_hellos[i].name);
        begin_add(qts, fake->path);
        mm_fake_accept(fake);
        hello = mm_fake_recv(fake, MM_MSG_HELLO);
        g_assert_cmpstr(hello->name, ==, "peer");
        g_assert_cmpint(hello->flags, ==, 0);
        pid = hello->pid;
        if (bad_hellos[i].say) {
            bad_hellos[i].say(fake);
        } else {
            mm_fake_hello(fake, &bad_hellos[i].hello);
        }
        finish_add(qts, bad_hellos[i].words);
        if (fake->sock >= 0) {
            mm_fake_recv_end(fake);
        }
        if (i == 0) {
            before = count_fds(pid);
        }
        g_assert_cmpint(count_fds(pid), ==, before);
    }
    begin_add(qts, host->attach);
    finish_add(qts, NULL);
    g_assert(mm_host_vm(host, "peer", &vm));
    mm_fake_free(fake);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- regions ---- */

static const struct {
    MmFakeRegion how;
    const char *words;
} bad_regions[] = {
    { { .unsealed_ram = true }, "memory file|not sealed" },
    { { .ram_size = 4096 }, "memory file|smaller than 4194304" },
    { { .pipe = true }, "memory file|not sealed" },
    { { .unsealed_map = true }, "page map|not sealed" },
    { { .map_size = 4096 }, "page map|smaller than 12288" },
    { { .unsealed_dma = true }, "counter file|not sealed" },
    { { .dma_size = 4 }, "counter file|smaller than" },
};

static void test_region(void)
{
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();
    int i;

    for (i = 0; i < ARRAY_SIZE(bad_regions); i++) {
        begin_add(qts, fake->path);
        if (i == 0) {
            mm_fake_attach(fake);
        }
        mm_fake_region(fake, &bad_regions[i].how);
        mm_fake_recv(fake, MM_MSG_REGION_REMOVE);
        mm_fake_ok(fake);
        finish_add(qts, bad_regions[i].words);
    }
    begin_add(qts, fake->path);
    mm_fake_recv(fake, MM_MSG_REGION_ADD);
    mm_fake_error(fake, ENOSPC, "the cupboard is bare");
    /* there is nothing to remove */
    finish_add(qts, "pager refuses|the cupboard is bare");

    begin_add(qts, fake->path);
    mm_fake_recv(fake, MM_MSG_REGION_ADD);
    mm_fake_ok(fake);
    mm_fake_recv(fake, MM_MSG_REGION_REMOVE);
    mm_fake_ok(fake);
    finish_add(qts, "answers REGION_ADD with OK");

    begin_add(qts, fake->path);
    mm_fake_add_region(fake);
    finish_add(qts, NULL);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- the end in the middle ---- */

static void wait_lost(QTestState *qts)
{
    qtest_qmp_eventwait(qts, "MANAGED_MEMORY_LOST");
}

static void wait_recovered(QTestState *qts)
{
    QDict *event = qtest_qmp_eventwait_ref(qts, "MANAGED_MEMORY_RECOVERED");

    g_assert(qdict_haskey(qdict_get_qdict(event, "data"), "stall-ms"));
    qobject_unref(event);
}

static void test_end_in_set_up(void)
{
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();

    /* after HELLO_REPLY: nothing is left of it */
    begin_add(qts, fake->path);
    mm_fake_attach(fake);
    mm_fake_recv(fake, MM_MSG_REGION_ADD);
    mm_fake_close(fake);
    finish_add(qts, "REGION_ADD|pager|reset");
    wait_lost(qts);
    mm_fake_resume(fake, 0, 0);
    mm_fake_hello(fake, NULL);
    wait_recovered(qts);

    /* after REGION_ADDED: the successor gets the region and goes on */
    begin_add(qts, fake->path);
    mm_fake_region(fake, NULL);
    mm_fake_recv(fake, MM_MSG_REGION_READY);
    mm_fake_close(fake);
    mm_fake_resume(fake, 1, 0);
    mm_fake_hello(fake, NULL);
    finish_add(qts, NULL);
    wait_recovered(qts);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* ---- a detach in the middle ---- */

static QTestState *start_perturbed(void)
{
    QTestState *qts;

    /* what is freed is overwritten, lest it looks as if it were still there */
    g_setenv("MALLOC_PERTURB_", "165", true);
    qts = start();
    g_unsetenv("MALLOC_PERTURB_");
    return qts;
}

static void detach(MmFake *fake)
{
    mm_fake_send(fake, MM_MSG_DETACHED, NULL, 0, NULL, 0);
    mm_fake_recv(fake, MM_MSG_OK);
    mm_fake_close(fake);
}

static void check_detached(QTestState *qts, MmFake *fake)
{
    QDict *info;

    mm_wait_status(qts, "detached");
    info = mm_query(qts);
    g_assert(qlist_empty(qdict_get_qlist(info, "regions")));
    qobject_unref(info);
    begin_add(qts, fake->path);
    finish_add(qts, "was detached|restart it");
}

static void test_detach_in_set_up(void)
{
    QTestState *qts = start_perturbed();
    MmFake *fake = mm_fake_new();

    begin_add(qts, fake->path);
    mm_fake_attach(fake);
    mm_fake_region(fake, NULL);
    mm_fake_recv(fake, MM_MSG_REGION_READY);
    detach(fake);
    finish_add(qts, "REGION_READY|reset");
    check_detached(qts, fake);
    mm_fake_free(fake);
    qtest_quit(qts);
}

static void wait_fds(pid_t pid, unsigned most)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    while (count_fds(pid) > most) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
}

/* A successor that detaches before anybody has looked at its zap channel */
static void detach_by_successor(void)
{
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();
    unsigned before;
    pid_t pid;

    begin_add(qts, fake->path);
    mm_fake_accept(fake);
    pid = ((const MmMsgHello *)mm_fake_recv(fake, MM_MSG_HELLO))->pid;
    before = count_fds(pid);
    mm_fake_hello(fake, NULL);
    mm_fake_recv(fake, MM_MSG_UFFD);
    mm_fake_recv(fake, MM_MSG_REGION_ADD);
    mm_fake_close(fake);
    finish_add(qts, "REGION_ADD|reset");
    mm_fake_resume(fake, 0, 0);
    mm_fake_hello(fake, NULL);
    mm_fake_send(fake, MM_MSG_DETACHED, NULL, 0, NULL, 0);
    mm_fake_close(fake);
    check_detached(qts, fake);
    /* only an eventfd is left, in place of the connection, and the ring */
    wait_fds(pid, before + 1);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* Which thread is faster is left to chance. */
static void test_detach_by_successor(void)
{
    int i;

    for (i = 0; i < 10; i++) {
        detach_by_successor();
    }
}

static void test_detach_in_removal(void)
{
    QTestState *qts = start_perturbed();
    MmFake *fake = mm_fake_new();

    begin_add(qts, fake->path);
    mm_fake_attach(fake);
    mm_fake_add_region(fake);
    finish_add(qts, NULL);
    qtest_qmp_send(qts, "{'execute': 'object-del', "
                   "'arguments': {'id': 'mm0'}}");
    mm_fake_recv(fake, MM_MSG_REGION_REMOVE);
    detach(fake);
    finish_add(qts, NULL);
    check_detached(qts, fake);
    mm_fake_free(fake);
    qtest_quit(qts);
}

/* A successor that is as bad is not taken; the next one is. */
static void test_bad_successors(void)
{
    static const MmFakeHello other_vm = { .uuid = 7 };
    QTestState *qts = start();
    MmFake *fake = mm_fake_new();

    begin_add(qts, fake->path);
    mm_fake_attach(fake);
    mm_fake_add_region(fake);
    finish_add(qts, NULL);
    mm_fake_close(fake);
    wait_lost(qts);

    mm_fake_resume(fake, 1, 0);
    mm_fake_hello(fake, &other_vm);
    mm_fake_recv_end(fake);
    mm_fake_resume(fake, 1, 0);
    say_garbage(fake);
    mm_fake_recv_end(fake);
    mm_fake_resume(fake, 1, 0);
    mm_fake_error(fake, EAGAIN, "not yet");
    mm_fake_recv_end(fake);
    mm_fake_accept(fake);
    mm_fake_close(fake);
    mm_wait_status(qts, "lost");
    mm_fake_resume(fake, 1, 0);
    mm_fake_hello(fake, NULL);
    wait_recovered(qts);
    mm_fake_free(fake);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/peer/nobody", test_nobody);
    qtest_add_func("managed-memory/peer/hello", test_hello);
    qtest_add_func("managed-memory/peer/region", test_region);
    qtest_add_func("managed-memory/peer/end-in-set-up", test_end_in_set_up);
    qtest_add_func("managed-memory/peer/detach-in-set-up",
                   test_detach_in_set_up);
    qtest_add_func("managed-memory/peer/detach-by-successor",
                   test_detach_by_successor);
    qtest_add_func("managed-memory/peer/detach-in-removal",
                   test_detach_in_removal);
    qtest_add_func("managed-memory/peer/bad-successors",
                   test_bad_successors);
    return g_test_run();
}
