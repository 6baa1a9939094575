/*
 * Unit tests: sequential streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/stream.h"

#define STEPS 200000

/* A fault at @page with everything that it asks for filled. */
static unsigned fault(MmStreams *s, uint64_t page, unsigned first)
{
    unsigned nr = mm_stream_window(s, page, first);

    mm_stream_filled(s, page + nr);
    return nr;
}

static void test_window_doubles(void)
{
    unsigned first, want;

    for (first = 1; first <= MM_WINDOW_MAX; first++) {
        MmStreams s = {};
        uint64_t page = 1000;
        int i;

        want = first;
        for (i = 0; i < 12; i++) {
            g_assert_cmpuint(fault(&s, page, first), ==, want);
            page += want;
            want = MIN(want * 2, MM_WINDOW_MAX);
        }
    }
}

static void test_page_0_is_no_stream(void)
{
    MmStreams s = {};

    g_assert_cmpuint(fault(&s, 0, 5), ==, 5);
}

static void test_random_faults_stay_small(void)
{
    MmStreams s = {};
    uint64_t page = 0;
    int i;

    for (i = 0; i < 1000; i++) {
        page += 1000 + i;
        g_assert_cmpuint(fault(&s, page, 1), ==, 1);
    }
}

/* Backwards, or the same page over and over, is no stream either. */
static void test_only_forwards(void)
{
    MmStreams s = {};
    int i;

    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(fault(&s, 10000 - i, 4), ==, 4);
    }
    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(fault(&s, 50000, 4), ==, 4);
    }
}

static void test_streams_side_by_side(void)
{
    MmStreams s = {};
    uint64_t page[MM_STREAMS];
    unsigned want = 1;
    int i, round;

    for (i = 0; i < MM_STREAMS; i++) {
        page[i] = i * 100000;
    }
    for (round = 0; round < 10; round++) {
        for (i = 0; i < MM_STREAMS; i++) {
            g_assert_cmpuint(fault(&s, page[i], 1), ==, want);
            page[i] += want;
        }
        want = MIN(want * 2, MM_WINDOW_MAX);
    }
}

static void test_oldest_gives_way(void)
{
    MmStreams s = {};
    int i;

    for (i = 0; i <= MM_STREAMS; i++) {
        fault(&s, 100000 * (i + 1), 1);
    }
    /* the second one goes on; the first one has been forgotten */
    g_assert_cmpuint(fault(&s, 200001, 1), ==, 2);
    g_assert_cmpuint(fault(&s, 100001, 1), ==, 1);
}

/* A fill that ended early goes on where it has ended. */
static void test_cut_short(void)
{
    MmStreams s = {};

    g_assert_cmpuint(mm_stream_window(&s, 100, 8), ==, 8);
    mm_stream_filled(&s, 103);
    g_assert_cmpuint(mm_stream_window(&s, 103, 8), ==, 16);
    mm_stream_filled(&s, 119);
    g_assert_cmpuint(mm_stream_window(&s, 119, 8), ==, 32);
}

/* What is filled while the guest goes on belongs to the stream, too. */
static void test_filled_ahead(void)
{
    MmStreams s = {};
    unsigned stream;

    g_assert_cmpuint(mm_stream_window(&s, 100, 8), ==, 8);
    mm_stream_filled(&s, 108);
    stream = s.current;
    mm_stream_extend(&s, stream, 108, 140);
    g_assert_cmpuint(mm_stream_window(&s, 140, 8), ==, 16);
    mm_stream_filled(&s, 156);
    /* too late: the stream has gone on meanwhile */
    mm_stream_extend(&s, stream, 140, 172);
    g_assert_cmpuint(mm_stream_window(&s, 156, 8), ==, 32);
}

typedef struct Shadow {
    GQueue streams;             /* of Stream, oldest first */
} Shadow;

typedef struct Stream {
    uint64_t next;
    unsigned window;
} Stream;

static Stream *shadow_fault(Shadow *shadow, uint64_t page, unsigned first)
{
    GList *l;
    Stream *stream;

    for (l = shadow->streams.head; l; l = l->next) {
        stream = l->data;
        if (stream->next == page) {
            stream->window = MIN(stream->window * 2, MM_WINDOW_MAX);
            return stream;
        }
    }
    if (shadow->streams.length == MM_STREAMS) {
        g_free(g_queue_pop_head(&shadow->streams));
    }
    stream = g_new0(Stream, 1);
    stream->window = first;
    g_queue_push_tail(&shadow->streams, stream);
    return stream;
}

static uint64_t pick_page(Shadow *shadow)
{
    unsigned nr = shadow->streams.length;

    if (nr && g_test_rand_int_range(0, 4)) {
        Stream *stream = g_queue_peek_nth(&shadow->streams,
                                          g_test_rand_int_range(0, nr));

        return stream->next;
    }
    return g_test_rand_int();
}

/* Two streams at one place are one: which of them goes on is no matter. */
static bool is_ambiguous(Shadow *shadow, uint64_t next)
{
    unsigned same = 0;
    GList *l;

    for (l = shadow->streams.head; l; l = l->next) {
        same += ((Stream *)l->data)->next == next;
    }
    return same > 1;
}

static void test_random(void)
{
    Shadow shadow = { .streams = G_QUEUE_INIT };
    MmStreams s = {};
    int i;

    for (i = 0; i < STEPS; i++) {
        uint64_t page = pick_page(&shadow);
        unsigned first = g_test_rand_int_range(1, MM_WINDOW_MAX + 1);
        Stream *stream = shadow_fault(&shadow, page, first);
        unsigned nr = mm_stream_window(&s, page, first);

        g_assert_cmpuint(nr, ==, stream->window);
        stream->next = page + g_test_rand_int_range(1, nr + 1);
        while (is_ambiguous(&shadow, stream->next)) {
            stream->next += 1000;
        }
        mm_stream_filled(&s, stream->next);
    }
    while (!g_queue_is_empty(&shadow.streams)) {
        g_free(g_queue_pop_head(&shadow.streams));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/stream/doubles", test_window_doubles);
    g_test_add_func("/mm/stream/page-0", test_page_0_is_no_stream);
    g_test_add_func("/mm/stream/random-faults", test_random_faults_stay_small);
    g_test_add_func("/mm/stream/only-forwards", test_only_forwards);
    g_test_add_func("/mm/stream/side-by-side", test_streams_side_by_side);
    g_test_add_func("/mm/stream/oldest-gives-way", test_oldest_gives_way);
    g_test_add_func("/mm/stream/cut-short", test_cut_short);
    g_test_add_func("/mm/stream/filled-ahead", test_filled_ahead);
    g_test_add_func("/mm/stream/random", test_random);
    return g_test_run();
}
