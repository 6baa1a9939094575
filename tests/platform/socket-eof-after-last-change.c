/*
 * The end of file on a unix socket comes only when every thread of the peer
 * process is past its last system call: after a SIGKILL in the middle of a
 * long punch, the file does not change any more once EOF was seen.
 *
 * Design rule 2: never two pagers on one VM.  QEMU takes EOF for the death of
 * its pager, and a new pager may then scan the memfd and believe it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>
#include <sys/socket.h>

#define THREADS         4
#define THREAD_PAGES    ((size_t)8192)
#define PAGES           (THREADS * THREAD_PAGES)
#define TRIALS          8
#define SETTLE_MS       60

typedef struct Puncher {
    int memfd;
    size_t first_page;
} Puncher;

static void *puncher_thread(void *opaque)
{
    Puncher *p = opaque;

    punch(p->memfd, p->first_page, THREAD_PAGES);
    pause();
    return NULL;
}

/* Punches its quarter of the file in each of its threads. */
static void peer_side(int memfd, int sock)
{
    Puncher punchers[THREADS];
    pthread_t thread;

    FACT_CHECK(wait_token(sock), "no order");
    for (int i = 0; i < THREADS; i++) {
        punchers[i] = (Puncher) { memfd, i * THREAD_PAGES };
        FACT_CHECK(!pthread_create(&thread, NULL, puncher_thread,
                                   &punchers[i]), "cannot create a thread");
    }
    pause();
}

static void populate(int memfd, const uint8_t *content)
{
    for (size_t i = 0; i < PAGES; i += 64) {
        SYS(pwrite(memfd, content, 64 * PAGE_BYTES, i * PAGE_BYTES));
    }
}

/* Wait for the punches to begin, and return what is left by then. */
static size_t wait_for_progress(int memfd)
{
    int64_t end = now_ns() + PATIENCE_MS * (int64_t)1000000;
    size_t left;

    while ((left = allocated_pages(memfd)) == PAGES) {
        FACT_CHECK(now_ns() < end, "the peer does not punch");
    }
    return left;
}

static void wait_for_eof(int sock)
{
    struct pollfd pfd = { .fd = sock, .events = POLLIN };
    char byte;

    FACT_CHECK(poll(&pfd, 1, PATIENCE_MS) > 0, "no EOF after SIGKILL");
    FACT_CHECK(read(sock, &byte, 1) == 0, "data instead of EOF");
}

/* Returns whether the kill came in the middle of a punch. */
static bool trial(int memfd, const uint8_t *content)
{
    size_t at_kill, at_eof;
    int sock[2];
    pid_t peer;

    populate(memfd, content);
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    peer = child_start();
    if (peer == 0) {
        close(sock[0]);
        peer_side(memfd, sock[1]);
    }
    close(sock[1]);
    send_token(sock[0]);
    at_kill = wait_for_progress(memfd);
    SYS(kill(peer, SIGKILL));
    wait_for_eof(sock[0]);
    at_eof = allocated_pages(memfd);
    for (int ms = 0; ms < SETTLE_MS; ms++) {
        FACT_CHECK(allocated_pages(memfd) == at_eof, "the file changed %d ms "
                   "after EOF, from %zu to %zu pages", ms, at_eof,
                   allocated_pages(memfd));
        sleep_ms(1);
    }
    child_wait(peer);
    close(sock[0]);
    return at_kill > at_eof;
}

int main(void)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    const uint8_t *content = page_alloc(64, 0x11);
    int in_the_middle = 0;

    for (int i = 0; i < TRIALS; i++) {
        in_the_middle += trial(memfd, content);
    }
    fact_info("%d of %d kills came while a punch was running", in_the_middle,
              TRIALS);
    FACT_CHECK(in_the_middle > 0, "no kill came while a punch was running: "
               "this says nothing");
    return FACT_HOLDS;
}
