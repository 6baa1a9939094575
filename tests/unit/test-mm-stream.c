/*
 * Unit tests: sequential streams of faults
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include "memory-manager/pager/fault/stream.h"

#define STEPS 200000

#define TID 77

/* A fault at @page with everything that it asks for filled. */
static unsigned fault_by(MmStreams *s, uint32_t tid, uint64_t page,
                         unsigned first)
{
    MmStream *stream = mm_stream_fault(s, tid, page, first);

    mm_stream_filled(stream, page + stream->stride * stream->window);
    return stream->window;
}

static unsigned fault(MmStreams *s, uint64_t page, unsigned first)
{
    return fault_by(s, TID, page, first);
}

/* What follows a window, of which @windows were followed before. */
static unsigned wider(unsigned window, unsigned windows)
{
    return MIN(window * (windows < 2 ? 2 : 4), MM_WINDOW_MAX);
}

static void test_window_grows(void)
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
            want = wider(want, i);
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

/* The same page over and over is no stream. */
static void test_same_page(void)
{
    MmStreams s = {};
    int i;

    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(fault(&s, 50000, 4), ==, 4);
    }
    /* nor does it push out others */
    fault(&s, 1000, 1);
    for (i = 0; i < 100; i++) {
        fault(&s, 50000, 4);
    }
    g_assert_cmpuint(fault(&s, 1001, 1), ==, 2);
}

/* Faults tell what the distance is; what is near ahead is a gap. */
static void test_strides(void)
{
    static const int64_t strides[] = { -1, -2, 16, -16, 500, -500 };
    int i, k;

    for (i = 0; i < ARRAY_SIZE(strides); i++) {
        MmStreams s = {};
        uint64_t page = 1000000;
        unsigned want = 1;

        fault(&s, page, 1);
        page += strides[i];
        for (k = 0; k < 8; k++) {
            MmStream *stream = mm_stream_fault(&s, TID, page, 1);

            g_assert_cmpint(stream->stride, ==, strides[i]);
            g_assert_cmpuint(stream->window, ==, want);
            page += strides[i] * (int64_t)want;
            mm_stream_filled(stream, page);
            /* a distance that comes twice is not enough */
            want = ABS(strides[i]) > 1 && !k ? want : wider(want, k);
        }
    }
}

/* Pages that were there are passed over, others are another stream's. */
static void test_gaps(void)
{
    MmStreams s = {};

    fault(&s, 100, 1);
    fault(&s, 101, 1);
    g_assert_cmpuint(fault(&s, 103, 1), ==, 4);
    g_assert_cmpuint(fault(&s, 107 + 5, 1), ==, 1);
    g_assert_cmpuint(fault(&s, 107 + 3, 1), ==, 16);
}

static void test_strides_are_a_thread_s(void)
{
    MmStreams s = {};

    fault_by(&s, 1, 1000, 1);
    fault_by(&s, 2, 1008, 1);
    fault_by(&s, 1, 1016, 1);
    fault_by(&s, 2, 1108, 1);
    fault_by(&s, 1, 1032, 1);
    fault_by(&s, 2, 1208, 1);
    g_assert_cmpuint(fault_by(&s, 1, 1048, 1), ==, 2);
    g_assert_cmpuint(fault_by(&s, 2, 1308, 1), ==, 2);
}

static uint64_t long_stream(MmStreams *s, uint64_t page)
{
    unsigned i;

    for (i = 0; i < 20; i++) {
        page += fault(s, page, 1);
    }
    return page;
}

/* A large window does not catch what comes anywhere in it by chance. */
static void test_large_window_small_gap(void)
{
    MmStreams s = {};
    uint64_t page = long_stream(&s, 0);

    g_assert_cmpuint(fault(&s, page + 100, 1), ==, 1);
    g_assert_cmpuint(fault(&s, page + 17, 1), ==, 1);
    g_assert_cmpuint(fault(&s, page + 16, 1), ==, MM_WINDOW_MAX);
}

/* A stream that has stood still for long is none any more. */
static void test_lifetime(void)
{
    MmStreams s = {};
    uint64_t old = long_stream(&s, 0), other = 1000000;
    unsigned i;

    for (i = 0; i < 300; i++) {
        other += fault(&s, other, 1);
    }
    g_assert_cmpuint(fault(&s, old, 1), ==, 1);
}

/* What is far away is no stride. */
static void test_far(void)
{
    MmStreams s = {};
    int i;

    for (i = 0; i < 100; i++) {
        g_assert_cmpuint(fault(&s, 1000 + i * (MM_STRIDE_MAX + 1), 1), ==, 1);
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
        want = wider(want, round);
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

    mm_stream_filled(mm_stream_fault(&s, TID, 100, 8), 103);
    mm_stream_filled(mm_stream_fault(&s, TID, 103, 8), 119);
    g_assert_cmpuint(mm_stream_fault(&s, TID, 119, 8)->window, ==, 32);
}

/* What is filled while the guest goes on belongs to the stream, too. */
static void test_filled_ahead(void)
{
    MmStreams s = {};
    MmStream *stream = mm_stream_fault(&s, TID, 100, 8);

    mm_stream_filled(stream, 108);
    mm_stream_extend(stream, 108, 140);
    g_assert_cmpuint(stream->next, ==, 140);
    g_assert_true(mm_stream_fault(&s, TID, 140, 8) == stream);
    mm_stream_filled(stream, 156);
    /* too late: the stream has gone on meanwhile */
    mm_stream_extend(stream, 140, 172);
    g_assert_cmpuint(stream->next, ==, 156);
}

/* Whatever comes, a window has its bounds, and follows from one before. */
static void test_random(void)
{
    MmStreams s = {};
    uint64_t page = 0;
    int i;

    for (i = 0; i < STEPS; i++) {
        unsigned first = g_test_rand_int_range(1, MM_WINDOW_MAX + 1);
        MmStream before[MM_STREAMS], *stream;

        memcpy(before, s.stream, sizeof(before));
        switch (g_test_rand_int_range(0, 4)) {
        case 0:
            page = g_test_rand_int() % 100000;
            break;
        case 1:
            page += g_test_rand_int_range(-20, 20);
            break;
        default:
            page = s.stream[g_test_rand_int_range(0, MM_STREAMS)].next;
        }
        stream = mm_stream_fault(&s, g_test_rand_int_range(0, 4), page, first);
        g_assert_cmpuint(stream->window, >=, 1);
        g_assert_cmpuint(stream->window, <=, MM_WINDOW_MAX);
        g_assert_cmpint(stream->stride, !=, 0);
        g_assert_cmpint(ABS(stream->stride), <=, MM_STRIDE_MAX);
        g_assert_cmpuint(stream->last, ==, page);
        if (stream->windows) {
            const MmStream *was = &before[stream - s.stream];

            g_assert_cmpuint(stream->window, <=, was->window * 4);
            g_assert_cmpint((int64_t)(page - was->last) % was->stride, ==, 0);
        }
        mm_stream_filled(stream, page + stream->stride *
                         (int64_t)g_test_rand_int_range(0, stream->window + 1));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/stream/grows", test_window_grows);
    g_test_add_func("/mm/stream/page-0", test_page_0_is_no_stream);
    g_test_add_func("/mm/stream/random-faults", test_random_faults_stay_small);
    g_test_add_func("/mm/stream/same-page", test_same_page);
    g_test_add_func("/mm/stream/strides", test_strides);
    g_test_add_func("/mm/stream/gaps", test_gaps);
    g_test_add_func("/mm/stream/threads", test_strides_are_a_thread_s);
    g_test_add_func("/mm/stream/far", test_far);
    g_test_add_func("/mm/stream/small-gap", test_large_window_small_gap);
    g_test_add_func("/mm/stream/lifetime", test_lifetime);
    g_test_add_func("/mm/stream/side-by-side", test_streams_side_by_side);
    g_test_add_func("/mm/stream/oldest-gives-way", test_oldest_gives_way);
    g_test_add_func("/mm/stream/cut-short", test_cut_short);
    g_test_add_func("/mm/stream/filled-ahead", test_filled_ahead);
    g_test_add_func("/mm/stream/random", test_random);
    return g_test_run();
}
