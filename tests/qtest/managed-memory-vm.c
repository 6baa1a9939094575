/*
 * Managed memory qtests: VMs and what is in their memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory is read and written in pieces through the qtest protocol, that is by
 * QEMU's main thread with the big lock held: when it has to wait for a page,
 * all of QEMU that needs the lock does.
 */
#include "qemu/osdep.h"
#include <sys/prctl.h>
#include <sys/wait.h>
#include "qapi/qmp/qlist.h"
#include "managed-memory-vm.h"

#define CHUNK (64 * 1024)
#define RETRY_US 5000
#define WORDS_PER_PAGE (MM_PAGE / sizeof(uint64_t))

struct MmReader {
    QTestState *qts;
    uint64_t start;
    uint64_t end;
    uint32_t seed;
    GThread *thread;
    GMutex lock;
    GCond finished;
    bool done;                  /* protected by lock */
};

/* ---- starting and ending ---- */

char *mm_backend(const MmHost *host, const char *id, unsigned mib,
                 const char *options)
{
    return g_strdup_printf("-object memory-backend-managed,id=%s,size=%uM,"
                           "path=%s%s", id, mib, host->attach, options);
}

QTestState *mm_start(MmHost *host, const char *options, const char *args)
{
    g_autofree char *backend = mm_backend(host, "mm0", MM_RAM_END / MM_MIB,
                                          options);
    QTestState *qts;

    qts = qtest_initf("-name vm -machine q35,memory-backend=mm0 -m 32M "
                      "-nodefaults %s %s", backend, args);
    mm_host_guard(host);
    return qts;
}

void mm_stop(QTestState *qts, MmHost *host)
{
    qtest_quit(qts);
    mm_host_wait_gone(host);
}

/* ---- content ---- */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static void stamp_page(uint64_t *page, uint64_t nr, uint32_t seed)
{
    uint64_t key = mix(nr) ^ mix(seed);
    unsigned kind = mix(key) % 4;
    int i;

    for (i = 0; i < WORDS_PER_PAGE; i++) {
        page[i] = kind == 0 ? 0 : kind == 1 ? key : mix(key + i);
    }
}

uint8_t *mm_pattern(uint64_t start, uint64_t end, uint32_t seed)
{
    uint8_t *data = g_malloc(end - start);
    uint64_t addr;

    for (addr = start; addr < end; addr += MM_PAGE) {
        stamp_page((uint64_t *)(data + (addr - start)), addr / MM_PAGE, seed);
    }
    return data;
}

void mm_fill(QTestState *qts, uint64_t start, uint64_t end, uint32_t seed)
{
    uint64_t addr;

    for (addr = start; addr < end; addr += CHUNK) {
        uint64_t len = MIN(CHUNK, end - addr);
        g_autofree uint8_t *data = mm_pattern(addr, addr + len, seed);

        qtest_bufwrite(qts, addr, data, len);
    }
}

void mm_assert_same(const uint8_t *is, const uint8_t *should, size_t len,
                    uint64_t addr)
{
    size_t i;

    if (memcmp(is, should, len) == 0) {
        return;
    }
    for (i = 0; is[i] == should[i]; i++) {
        continue;
    }
    mm_fail("at address 0x%" PRIx64 " there is 0x%02x instead of 0x%02x",
            addr + i, is[i], should[i]);
}

void mm_check(QTestState *qts, uint64_t start, uint64_t end, uint32_t seed)
{
    g_autofree uint8_t *is = g_malloc(CHUNK);
    uint64_t addr;

    for (addr = start; addr < end; addr += CHUNK) {
        uint64_t len = MIN(CHUNK, end - addr);
        g_autofree uint8_t *should = mm_pattern(addr, addr + len, seed);

        qtest_bufread(qts, addr, is, len);
        mm_assert_same(is, should, len, addr);
    }
}

void mm_check_zero(QTestState *qts, uint64_t start, uint64_t end)
{
    g_autofree uint8_t *is = g_malloc(end - start);
    g_autofree uint8_t *zero = g_malloc0(end - start);

    qtest_bufread(qts, start, is, end - start);
    mm_assert_same(is, zero, end - start, start);
}

/* ---- monitor ---- */

static QDict *run_command(QTestState *qts, const char *fmt, va_list ap)
{
    qtest_qmp_vsend(qts, fmt, ap);
    return qtest_qmp_receive(qts);
}

QDict *mm_qmp(QTestState *qts, const char *fmt, ...)
{
    QDict *answer, *result;
    va_list ap;

    va_start(ap, fmt);
    answer = run_command(qts, fmt, ap);
    va_end(ap);
    if (!qdict_haskey(answer, "return")) {
        mm_fail("%s: %s", fmt,
                qdict_get_str(qdict_get_qdict(answer, "error"), "desc"));
    }
    result = qdict_get_qdict(answer, "return");
    qobject_ref(result);
    qobject_unref(answer);
    return result;
}

char *mm_qmp_error(QTestState *qts, const char *fmt, ...)
{
    QDict *answer;
    char *text;
    va_list ap;

    va_start(ap, fmt);
    answer = run_command(qts, fmt, ap);
    va_end(ap);
    if (!qdict_haskey(answer, "error")) {
        mm_fail("no error from %s", fmt);
    }
    text = g_strdup(qdict_get_str(qdict_get_qdict(answer, "error"), "desc"));
    qobject_unref(answer);
    return text;
}

void mm_assert_text(const char *text, const char *words)
{
    g_auto(GStrv) list = g_strsplit(words, "|", -1);
    int i;

    for (i = 0; list[i]; i++) {
        if (!strstr(text, list[i])) {
            mm_fail("'%s' does not occur in: %s", list[i], text);
        }
    }
}

QDict *mm_query(QTestState *qts)
{
    return mm_qmp(qts, "{'execute': 'query-managed-memory'}");
}

uint64_t mm_query_usage(QTestState *qts, const char *member)
{
    QDict *info = mm_query(qts);
    uint64_t value = qdict_get_int(qdict_get_qdict(info, "usage"), member);

    qobject_unref(info);
    return value;
}

uint64_t mm_query_dma_held(QTestState *qts)
{
    QDict *info = mm_query(qts);
    QListEntry *entry;
    uint64_t held = 0;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(info, "regions"), entry) {
        held += qdict_get_int(qobject_to(QDict, qlist_entry_obj(entry)),
                              "dma-held");
    }
    qobject_unref(info);
    return held;
}

void mm_wait_status(QTestState *qts, const char *status)
{
    int64_t end = g_get_monotonic_time() + MM_WAIT_MS * 1000;

    for (;;) {
        QDict *info = mm_query(qts);
        bool same = !strcmp(qdict_get_str(info, "status"), status);

        qobject_unref(info);
        if (same) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(RETRY_US);
    }
}

/* ---- a QEMU that has to refuse ---- */

static void die_with_parent(void *opaque)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    alarm(MM_WAIT_MS / 1000);
}

char *mm_run_failing(const char *args)
{
    return mm_run_failing_in("", args);
}

char *mm_run_failing_in(const char *prefix, const char *args)
{
    g_autofree char *line = g_strdup_printf(
        "%s %s -display none -nodefaults -accel qtest %s", prefix,
        getenv("QTEST_QEMU_BINARY"), args);
    g_auto(GStrv) argv = NULL;
    GError *err = NULL;
    char *text;
    int status;

    g_assert(g_shell_parse_argv(line, NULL, &argv, NULL));
    g_spawn_sync(NULL, argv, NULL,
                 G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_SEARCH_PATH,
                 die_with_parent, NULL, NULL, &text, &status, &err);
    g_assert_no_error(err);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
        mm_fail("QEMU %s has ended with wait status 0x%x: %s", args, status,
                text);
    }
    return text;
}

/* ---- reading in a thread ---- */

static void *reader_thread(void *opaque)
{
    MmReader *reader = opaque;

    mm_check(reader->qts, reader->start, reader->end, reader->seed);
    g_mutex_lock(&reader->lock);
    reader->done = true;
    g_cond_signal(&reader->finished);
    g_mutex_unlock(&reader->lock);
    return NULL;
}

MmReader *mm_reader_start(QTestState *qts, uint64_t start, uint64_t end,
                          uint32_t seed)
{
    MmReader *reader = g_new0(MmReader, 1);

    reader->qts = qts;
    reader->start = start;
    reader->end = end;
    reader->seed = seed;
    g_mutex_init(&reader->lock);
    g_cond_init(&reader->finished);
    reader->thread = g_thread_new("reader", reader_thread, reader);
    return reader;
}

static bool reader_wait(MmReader *reader, int ms)
{
    int64_t end = g_get_monotonic_time() + ms * 1000ll;
    bool done;

    g_mutex_lock(&reader->lock);
    while (!reader->done &&
           g_cond_wait_until(&reader->finished, &reader->lock, end)) {
        continue;
    }
    done = reader->done;
    g_mutex_unlock(&reader->lock);
    return done;
}

void mm_reader_waits(MmReader *reader, int ms)
{
    g_assert(!reader_wait(reader, ms));
}

void mm_reader_finish(MmReader *reader)
{
    g_assert(reader_wait(reader, MM_WAIT_MS));
    g_thread_join(reader->thread);
    g_mutex_clear(&reader->lock);
    g_cond_clear(&reader->finished);
    g_free(reader);
}
