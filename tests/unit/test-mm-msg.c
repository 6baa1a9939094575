/*
 * Unit tests: protocol codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a type's message looks like is written down here a second time, from
 * proto.h.  Everything goes through a real socket, and no case may leave a
 * descriptor behind.
 */
#include "qemu/osdep.h"
#include "mm-unit.h"
#include "msg-link.h"

#define HEADER sizeof(MmMsgHeader)
#define RANGE sizeof(MmRange)
#define MAX_ZAP (sizeof(MmMsgZap) + MM_ZAP_MAX_RANGES * RANGE)

typedef struct Shape {
    const char *name;
    size_t min_len, max_len;
    unsigned min_fds, max_fds;
    /* a text member: where, and how long */
    size_t text, text_size;
} Shape;

#define FIXED(type) .min_len = sizeof(type), .max_len = sizeof(type)
#define FDS(min, max) .min_fds = min, .max_fds = max
#define TEXT(type, member) .text = offsetof(type, member), \
    .text_size = sizeof(((type *)0)->member)

static const Shape shapes[MM_MSG__MAX] = {
    [MM_MSG_OK] = { "OK" },
    [MM_MSG_ERROR] = { "ERROR", FIXED(MmMsgError), TEXT(MmMsgError, text) },
    [MM_MSG_HELLO] = { "HELLO", FIXED(MmMsgHello), TEXT(MmMsgHello, name) },
    [MM_MSG_RESUME_VM] = { "RESUME_VM", FIXED(MmMsgResumeVM), FDS(4, 4) },
    [MM_MSG_RESUME_HOLD] = { "RESUME_HOLD", FIXED(MmMsgHold), FDS(1, 1) },
    [MM_MSG_RESUME_REGION] = { "RESUME_REGION", FIXED(MmMsgRegion),
                               FDS(3, 3), TEXT(MmMsgRegion, idstr) },
    [MM_MSG_RESUME_END] = { "RESUME_END" },
    [MM_MSG_UFFD] = { "UFFD", FDS(1, 1) },
    [MM_MSG_REGION_ADD] = { "REGION_ADD", FIXED(MmMsgRegion),
                            TEXT(MmMsgRegion, idstr) },
    [MM_MSG_REGION_READY] = { "REGION_READY", FIXED(MmMsgRegionRef) },
    [MM_MSG_REGION_REMOVE] = { "REGION_REMOVE", FIXED(MmMsgRegionRef) },
    [MM_MSG_HELLO_REPLY] = { "HELLO_REPLY", FIXED(MmMsgHelloReply),
                             FDS(4, 5) },
    [MM_MSG_REGION_ADDED] = { "REGION_ADDED", FIXED(MmMsgRegionRef),
                              FDS(3, 3) },
    [MM_MSG_HOLD] = { "HOLD", FIXED(MmMsgHold), FDS(0, 1) },
    [MM_MSG_EVENT] = { "EVENT", FIXED(MmMsgEvent), TEXT(MmMsgEvent, text) },
    [MM_MSG_DETACHED] = { "DETACHED" },
    [MM_MSG_ZAP] = { "ZAP", sizeof(MmMsgZap) + RANGE, MAX_ZAP },
    [MM_MSG_ZAP_DONE] = { "ZAP_DONE" },
    [MM_MSG_SET_LIMIT] = { "SET_LIMIT", FIXED(MmMsgAmount) },
    [MM_MSG_QUERY] = { "QUERY" },
    [MM_MSG_QUERY_REPLY] = { "QUERY_REPLY", FIXED(MmMsgQueryReply) },
    [MM_MSG_START_TIER] = { "START_TIER", FIXED(MmMsgStartTier), FDS(0, 2),
                            TEXT(MmMsgStartTier, name) },
    [MM_MSG_START] = { "START", FIXED(MmMsgStart), FDS(3, 4),
                       TEXT(MmMsgStart, name) },
    [MM_MSG_CONTROL_HELLO] = { "CONTROL_HELLO", FDS(0, 1) },
    [MM_MSG_CONTROL_INFO] = { "CONTROL_INFO", FIXED(MmMsgControlInfo),
                              TEXT(MmMsgControlInfo, name) },
    [MM_MSG_QUERY_REGION] = { "QUERY_REGION", FIXED(MmMsgRegionRef) },
    [MM_MSG_REGION_INFO] = { "REGION_INFO", FIXED(MmMsgRegionInfo),
                             TEXT(MmMsgRegionInfo, idstr) },
    [MM_MSG_EVICT] = { "EVICT", FIXED(MmMsgAmount) },
    [MM_MSG_SWAP_IN] = { "SWAP_IN" },
    [MM_MSG_DETACH] = { "DETACH" },
    [MM_MSG_GIVE_UP] = { "GIVE_UP" },
    [MM_MSG_AMOUNT] = { "AMOUNT", FIXED(MmMsgAmount) },
    [MM_MSG_SET_TIER] = { "SET_TIER", FIXED(MmMsgSetTier) },
    [MM_MSG_SET_DRAINING] = { "SET_DRAINING", FIXED(MmMsgSetDraining) },
    [MM_MSG_SET_IO_LIMITS] = { "SET_IO_LIMITS", FIXED(MmMsgSetIOLimits) },
    [MM_MSG_SET_SPARED] = { "SET_SPARED", FIXED(MmMsgSetSpared) },
    [MM_MSG_PREFETCH] = { "PREFETCH" },
    [MM_MSG_KEY] = { "KEY", FIXED(MmMsgKey) },
    [MM_MSG_UNPIN] = { "UNPIN" },
    [MM_MSG_HANDOVER] = { "HANDOVER", FIXED(MmMsgHandover) },
};

/* One well-formed message of a type, with @len bytes of payload. */
static uint8_t *make(uint32_t type, size_t len)
{
    uint8_t *data = g_malloc0(HEADER + len);
    MmMsgHeader *hdr = (void *)data;

    hdr->type = type;
    hdr->len = len;
    hdr->seq = 0x1122334455667788;
    if (type == MM_MSG_ZAP && len >= sizeof(MmMsgZap)) {
        ((MmMsgZap *)(hdr + 1))->nr_ranges = (len - sizeof(MmMsgZap)) / RANGE;
    }
    return data;
}

/* What becomes of @type with @len bytes and @nr_fds descriptors? */
static int exchange(Link *link, uint32_t type, size_t len, unsigned nr_fds)
{
    g_autofree uint8_t *data = make(type, len);
    int ret;

    link_send(link, data, HEADER + len, nr_fds);
    ret = link_receive(link);
    if (ret == 1) {
        g_assert_cmpuint(link->msg.hdr.type, ==, type);
        g_assert_cmpuint(link->msg.hdr.len, ==, len);
        g_assert_cmpint(link->msg.nr_fds, ==, nr_fds);
    } else {
        g_assert_cmpint(ret, ==, -EPROTO);
    }
    mm_msg_clear(&link->msg);
    /* the socket's two ends and nothing else, whatever came */
    g_assert_cmpuint(count_fds(), ==, link->fds_before + 2);
    return ret;
}

static void test_every_type(void)
{
    unsigned type;

    for (type = 1; type < MM_MSG__MAX; type++) {
        const Shape *s = &shapes[type];
        Link *link = link_new();

        /* a new type needs a line above */
        g_assert_cmpstr(mm_msg_type_name(type), ==, s->name);
        g_assert_cmpint(exchange(link, type, s->min_len, s->min_fds), ==, 1);
        g_assert_cmpint(exchange(link, type, s->max_len, s->max_fds), ==, 1);
        link_free(link);
    }
}

static void test_wrong_length(void)
{
    unsigned type;
    size_t len;

    for (type = 1; type < MM_MSG__MAX; type++) {
        const Shape *s = &shapes[type];
        Link *link = link_new();

        for (len = 0; len < s->min_len; len += 1 + len / 16) {
            g_assert_cmpint(exchange(link, type, len, s->min_fds), <, 0);
        }
        if (s->min_len) {
            g_assert_cmpint(exchange(link, type, s->min_len - 1, s->min_fds),
                            <, 0);
        }
        for (len = s->max_len + 1; len < MM_MSG_MAX - HEADER; len *= 2) {
            g_assert_cmpint(exchange(link, type, len, s->max_fds), <, 0);
        }
        g_assert_cmpint(exchange(link, type, MM_MSG_MAX - HEADER,
                                 s->max_fds), <, 0);
        link_free(link);
    }
}

static void test_wrong_fds(void)
{
    unsigned type, nr;

    for (type = 1; type < MM_MSG__MAX; type++) {
        const Shape *s = &shapes[type];
        Link *link = link_new();

        for (nr = 0; nr <= MM_MSG_MAX_FDS + 2; nr++) {
            bool ok = nr >= s->min_fds && nr <= s->max_fds;

            g_assert_cmpint(exchange(link, type, s->min_len, nr), ==,
                            ok ? 1 : -EPROTO);
        }
        g_assert_cmpint(exchange(link, type, s->min_len, SCM_MAX), <, 0);
        link_free(link);
    }
}

static void test_unknown_types(void)
{
    static const uint32_t types[] = {
        MM_MSG_INVALID, MM_MSG__MAX, MM_MSG__MAX + 1, INT32_MAX, 0x80000000,
        UINT32_MAX,
    };
    Link *link = link_new();
    int i;

    for (i = 0; i < ARRAY_SIZE(types); i++) {
        g_assert_cmpint(exchange(link, types[i], 0, 0), ==, -EPROTO);
        g_assert_cmpint(exchange(link, types[i], 100, 3), ==, -EPROTO);
        g_assert_cmpstr(mm_msg_type_name(types[i]), ==, "unknown");
    }
    link_free(link);
}

static int send_text(Link *link, unsigned type, size_t text_len)
{
    const Shape *s = &shapes[type];
    g_autofree uint8_t *data = make(type, s->min_len);

    /* whatever lies behind the text must not end it */
    memset(data + HEADER + s->text, 'a', text_len);
    memset(data + HEADER + s->text + s->text_size, 0,
           s->min_len - s->text - s->text_size);
    link_send(link, data, HEADER + s->min_len, s->min_fds);
    return link_receive(link);
}

static void test_texts_end(void)
{
    unsigned type, nr = 0;

    for (type = 1; type < MM_MSG__MAX; type++) {
        size_t size = shapes[type].text_size;
        Link *link = link_new();

        if (size) {
            nr++;
            g_assert_cmpint(send_text(link, type, 0), ==, 1);
            g_assert_cmpint(send_text(link, type, size - 1), ==, 1);
            g_assert_cmpint(send_text(link, type, size), ==, -EPROTO);
        }
        link_free(link);
    }
    g_assert_cmpuint(nr, ==, 9);
}

static int send_zap(Link *link, uint32_t nr_ranges, size_t len)
{
    g_autofree uint8_t *data = make(MM_MSG_ZAP, len);

    ((MmMsgZap *)(data + HEADER))->nr_ranges = nr_ranges;
    link_send(link, data, HEADER + len, 0);
    return link_receive(link);
}

static void test_zap_counts(void)
{
    Link *link = link_new();
    const size_t base = sizeof(MmMsgZap);
    unsigned nr;

    for (nr = 1; nr <= MM_ZAP_MAX_RANGES; nr++) {
        g_assert_cmpint(send_zap(link, nr, base + nr * RANGE), ==, 1);
        g_assert_cmpint(send_zap(link, nr - 1, base + nr * RANGE), <, 0);
        g_assert_cmpint(send_zap(link, nr + 1, base + nr * RANGE), <, 0);
        g_assert_cmpint(send_zap(link, nr, base + nr * RANGE + 1), <, 0);
    }
    g_assert_cmpint(send_zap(link, 0, base), ==, -EPROTO);
    g_assert_cmpint(send_zap(link, nr, base + nr * RANGE), ==, -EPROTO);
    /* a product that overflows 32 bits to the right length */
    g_assert_cmpint(send_zap(link, 0x10000001, base + RANGE), ==, -EPROTO);
    g_assert_cmpint(send_zap(link, UINT32_MAX, base + RANGE), ==, -EPROTO);
    link_free(link);
}

static void test_header_lies(void)
{
    static const uint32_t lies[] = {
        0, 1, sizeof(MmMsgAmount) - 1, sizeof(MmMsgAmount) + 1, MM_MSG_MAX,
        UINT32_MAX - HEADER, UINT32_MAX,
    };
    g_autofree uint8_t *data = make(MM_MSG_AMOUNT, sizeof(MmMsgAmount));
    Link *link = link_new();
    int i;

    for (i = 0; i < ARRAY_SIZE(lies); i++) {
        ((MmMsgHeader *)data)->len = lies[i];
        link_send(link, data, HEADER + sizeof(MmMsgAmount), 0);
        g_assert_cmpint(link_receive(link), ==, -EPROTO);
    }
    /* what the type wants, but not what has come */
    ((MmMsgHeader *)data)->len = sizeof(MmMsgAmount);
    for (i = 0; i < sizeof(MmMsgAmount); i++) {
        link_send(link, data, HEADER + i, 0);
        g_assert_cmpint(link_receive(link), ==, -EPROTO);
    }
    link_free(link);
}

/* A header that is not all there, with and without descriptors. */
static void test_truncated(void)
{
    g_autofree uint8_t *data = make(MM_MSG_OK, 0);
    Link *link = link_new();
    unsigned len, nr_fds;

    for (nr_fds = 0; nr_fds <= MM_MSG_MAX_FDS; nr_fds += 4) {
        for (len = 1; len < HEADER; len++) {
            link_send(link, data, len, nr_fds);
            g_assert_cmpint(link_receive(link), ==, -EPROTO);
        }
    }
    link_free(link);
}

static void test_huge(void)
{
    static const size_t sizes[] = { MM_MSG_MAX + 1, 2 * MM_MSG_MAX };
    unsigned nr_fds;
    Link *link = link_new();
    int i;

    for (i = 0; i < ARRAY_SIZE(sizes); i++) {
        for (nr_fds = 0; nr_fds <= SCM_MAX; nr_fds += SCM_MAX) {
            g_autofree uint8_t *data = make(MM_MSG_ZAP, sizes[i] - HEADER);

            link_send(link, data, sizes[i], nr_fds);
            g_assert_cmpint(link_receive(link), ==, -EPROTO);
            /* what was cut off is no message of its own */
            link_send(link, data, HEADER, 0);
            g_assert_cmpint(link_receive(link), ==, -EPROTO);
        }
    }
    link_free(link);
}

static void test_empty(void)
{
    Link *link = link_new();

    link_send(link, "", 0, 0);
    g_assert_cmpint(link_receive(link), ==, -EPROTO);
    link_send(link, "", 0, 1);
    g_assert_cmpint(link_receive(link), ==, -EPROTO);
    link_send(link, "", 0, SCM_MAX);
    g_assert_cmpint(link_receive(link), ==, -EPROTO);
    link_free(link);
}

static void test_random_garbage(void)
{
    g_autofree uint8_t *data = g_malloc(2 * MM_MSG_MAX);
    Link *link = link_new();
    unsigned i, k, accepted = 0;

    for (i = 0; i < 20000; i++) {
        size_t len = 1 + g_test_rand_int_range(0, i % 64 ? 1500
                                                         : 2 * MM_MSG_MAX - 1);
        MmMsgHeader *hdr = (void *)data;
        int ret;

        for (k = 0; k < MIN(len, 2048); k++) {
            data[k] = g_test_rand_int();
        }
        if (i % 2) {
            hdr->type = g_test_rand_int_range(0, MM_MSG__MAX);
            hdr->len = len - HEADER;
        }
        link_send(link, data, len, i % 5 ? 0 : g_test_rand_int_range(0, 12));
        ret = link_receive(link);
        g_assert_true(ret == 1 || ret == -EPROTO);
        accepted += ret == 1;
    }
    g_test_message("%u of %u accepted", accepted, i);
    link_free(link);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/msg/every-type", test_every_type);
    g_test_add_func("/mm/msg/wrong-length", test_wrong_length);
    g_test_add_func("/mm/msg/wrong-fds", test_wrong_fds);
    g_test_add_func("/mm/msg/unknown-types", test_unknown_types);
    g_test_add_func("/mm/msg/texts-end", test_texts_end);
    g_test_add_func("/mm/msg/zap-counts", test_zap_counts);
    g_test_add_func("/mm/msg/header-lies", test_header_lies);
    g_test_add_func("/mm/msg/truncated", test_truncated);
    g_test_add_func("/mm/msg/huge", test_huge);
    g_test_add_func("/mm/msg/empty", test_empty);
    g_test_add_func("/mm/msg/garbage", test_random_garbage);
    return g_test_run();
}
