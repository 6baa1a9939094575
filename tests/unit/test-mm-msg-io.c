/*
 * Unit tests: sending and receiving messages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/socket.h>
#include "mm-unit.h"
#include "msg-link.h"

static void test_end_and_timeout(void)
{
    Link *link = link_new();
    int64_t start = g_get_monotonic_time();

    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, 50), ==, -ETIMEDOUT);
    g_assert_cmpint(g_get_monotonic_time() - start, >=, 50000);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, 0), ==, -ETIMEDOUT);
    shutdown(link->peer, SHUT_WR);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, -1), ==, 0);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, 1000), ==, 0);
    link_free(link);
}

/* Nothing is not the end, as long as there is somebody who can send more. */
static void test_empty_is_no_end(void)
{
    Link *link = link_new();

    link_send(link, "", 0, 0);
    link_send(link, "", 0, 0);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, 0), ==, -EPROTO);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, -1), ==, -EPROTO);
    g_assert_cmpint(mm_msg_send(link->peer, MM_MSG_OK, 1, NULL, 0, NULL, 0),
                    ==, 0);
    g_assert_cmpint(link_receive(link), ==, 1);
    /* a message that its sender did not wait for is no end either */
    g_assert_cmpint(mm_msg_send(link->peer, MM_MSG_OK, 2, NULL, 0, NULL, 0),
                    ==, 0);
    shutdown(link->peer, SHUT_WR);
    g_assert_cmpint(link_receive(link), ==, 1);
    g_assert_cmpint(link_receive(link), ==, 0);
    link_free(link);
}

/* The end of our own making is one. */
static void test_own_end(void)
{
    Link *link = link_new();

    shutdown(link->sock, SHUT_RDWR);
    g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, -1), ==, 0);
    link_free(link);
}

static void test_round_trip(void)
{
    const size_t len = sizeof(MmMsgZap) + MM_ZAP_MAX_RANGES * sizeof(MmRange);
    g_autofree uint8_t *payload = g_malloc(len);
    MmMsgZap *zap = (void *)payload;
    Link *link = link_new();
    size_t i;

    for (i = 0; i < len; i++) {
        payload[i] = g_test_rand_int();
    }
    zap->nr_ranges = MM_ZAP_MAX_RANGES;
    g_assert_cmpint(mm_msg_send(link->peer, MM_MSG_ZAP, UINT64_MAX, payload,
                                len, NULL, 0), ==, 0);
    g_assert_cmpint(link_receive(link), ==, 1);
    g_assert_cmpuint(link->msg.hdr.type, ==, MM_MSG_ZAP);
    g_assert_cmphex(link->msg.hdr.seq, ==, UINT64_MAX);
    g_assert_cmpmem(link->msg.payload, link->msg.hdr.len, payload, len);
    link_free(link);
}

static void test_descriptors_arrive(void)
{
    MmMsgHelloReply reply = {};
    int fds[MM_HELLO_FD__MAX], i, fd;
    struct stat sent, got;
    Link *link = link_new();

    for (i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = mm_seal_memfd("test", (i + 1) * 4096);
    }
    g_assert_cmpint(mm_msg_send(link->peer, MM_MSG_HELLO_REPLY, 1, &reply,
                                sizeof(reply), fds, ARRAY_SIZE(fds)), ==, 0);
    g_assert_cmpint(link_receive(link), ==, 1);
    for (i = 0; i < ARRAY_SIZE(fds); i++) {
        g_assert_cmpint(fcntl(link->msg.fds[i], F_GETFD), ==, FD_CLOEXEC);
        fstat(fds[i], &sent);
        fstat(link->msg.fds[i], &got);
        g_assert_cmpuint(sent.st_ino, ==, got.st_ino);
        close(fds[i]);
    }
    fd = mm_msg_take_fd(&link->msg, 2);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(mm_msg_take_fd(&link->msg, 2), ==, -1);
    g_assert_cmpint(mm_msg_take_fd(&link->msg, -1), ==, -1);
    g_assert_cmpint(mm_msg_take_fd(&link->msg, MM_HELLO_FD__MAX), ==, -1);
    mm_msg_clear(&link->msg);
    /* what was taken is the taker's */
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    close(fd);
    mm_msg_clear(&link->msg);
    link_free(link);
}

static void test_send_fails(void)
{
    Link *link = link_new();
    int ret, i;

    fcntl(link->sock, F_SETFL, O_NONBLOCK);
    for (i = 0; i < 100000; i++) {
        ret = mm_msg_send(link->sock, MM_MSG_OK, i, NULL, 0, NULL, 0);
        if (ret) {
            break;
        }
    }
    g_assert_cmpint(ret, ==, -EAGAIN);
    shutdown(link->peer, SHUT_RDWR);
    ret = mm_msg_send(link->sock, MM_MSG_OK, 1, NULL, 0, NULL, 0);
    g_assert_cmpint(ret, ==, -EPIPE);
    link_free(link);
}

static void test_error_is_cut_to_fit(void)
{
    MmMsgError *error;
    g_autofree char *text = g_strnfill(5000, 'x');
    Link *link = link_new();

    g_assert_cmpint(mm_msg_send_error(link->peer, 7, ENOSPC, text), ==, 0);
    g_assert_cmpint(link_receive(link), ==, 1);
    error = (void *)link->msg.payload;
    g_assert_cmpuint(link->msg.hdr.seq, ==, 7);
    g_assert_cmpuint(error->err, ==, ENOSPC);
    g_assert_cmpuint(strlen(error->text), ==, sizeof(error->text) - 1);
    link_free(link);
}

static void try_too_long(void)
{
    g_autofree uint8_t *payload = g_malloc0(MM_MSG_MAX);

    expect_death();
    mm_msg_send(0, MM_MSG_ZAP, 0, payload,
                MM_MSG_MAX - sizeof(MmMsgHeader) + 1, NULL, 0);
}

static void try_too_many_fds(void)
{
    int fds[MM_MSG_MAX_FDS + 1] = {};

    expect_death();
    mm_msg_send(0, MM_MSG_OK, 0, NULL, 0, fds, ARRAY_SIZE(fds));
}

static void test_misuse_asserts(void)
{
    assert_dies("/mm/msg-io/misuse/subprocess/too-long", "*MM_MSG_MAX*");
    assert_dies("/mm/msg-io/misuse/subprocess/too-many-fds", "*nr_fds*");
}

/* Datagrams of several senders do not mix. */
typedef struct Sender {
    int sock;
    uint32_t err;
} Sender;

#define SENDERS 4
#define EACH 3000

static void *sender(void *opaque)
{
    Sender *s = opaque;
    g_autofree char *text = g_strnfill(100 + s->err * 50, 'a' + s->err);
    int i;

    for (i = 0; i < EACH; i++) {
        g_assert_cmpint(mm_msg_send_error(s->sock, i, s->err, text), ==, 0);
    }
    return NULL;
}

static void test_several_senders(void)
{
    uint64_t next[SENDERS] = {};
    GThread *thread[SENDERS];
    Sender s[SENDERS];
    Link *link = link_new();
    int i;

    for (i = 0; i < SENDERS; i++) {
        s[i] = (Sender) { .sock = link->peer, .err = i };
        thread[i] = g_thread_new("sender", sender, &s[i]);
    }
    for (i = 0; i < SENDERS * EACH; i++) {
        MmMsgError *error = (void *)link->msg.payload;

        g_assert_cmpint(mm_msg_recv(link->sock, &link->msg, 5000), ==, 1);
        g_assert_cmpuint(error->err, <, SENDERS);
        g_assert_cmpuint(link->msg.hdr.seq, ==, next[error->err]++);
        g_assert_cmpuint(strlen(error->text), ==, 100 + error->err * 50);
        g_assert_cmpint(error->text[99], ==, 'a' + error->err);
    }
    for (i = 0; i < SENDERS; i++) {
        g_thread_join(thread[i]);
    }
    link_free(link);
}

static void test_sealed_memfd(void)
{
    unsigned before = count_fds();
    int fd = mm_seal_memfd("test", 8192);
    struct stat st;

    g_assert_cmpint(fstat(fd, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 8192);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0600);
    g_assert_cmpint(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    g_assert_cmpint(fcntl(fd, F_GET_SEALS), ==,
                    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    g_assert_cmpint(ftruncate(fd, 4096), ==, -1);
    g_assert_cmpint(ftruncate(fd, 12288), ==, -1);
    close(fd);
    /* a size that no file can have */
    g_assert_cmpint(mm_seal_memfd("test", UINT64_MAX / 2 + 1), <, 0);
    g_assert_cmpuint(count_fds(), ==, before);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mm/msg-io/end-and-timeout", test_end_and_timeout);
    g_test_add_func("/mm/msg-io/empty-is-no-end", test_empty_is_no_end);
    g_test_add_func("/mm/msg-io/own-end", test_own_end);
    g_test_add_func("/mm/msg-io/round-trip", test_round_trip);
    g_test_add_func("/mm/msg-io/descriptors-arrive", test_descriptors_arrive);
    g_test_add_func("/mm/msg-io/send-fails", test_send_fails);
    g_test_add_func("/mm/msg-io/error-is-cut", test_error_is_cut_to_fit);
    g_test_add_func("/mm/msg-io/misuse", test_misuse_asserts);
    g_test_add_func("/mm/msg-io/misuse/subprocess/too-long", try_too_long);
    g_test_add_func("/mm/msg-io/misuse/subprocess/too-many-fds",
                    try_too_many_fds);
    g_test_add_func("/mm/msg-io/several-senders", test_several_senders);
    g_test_add_func("/mm/msg-io/sealed-memfd", test_sealed_memfd);
    return g_test_run();
}
