/*
 * Torture tests: QEMU's side of one VM, the connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Whatever arrives on the connection is received in one place at a time: by
 * the thread that attaches until HELLO_REPLY, by the connection thread from
 * then on.  That thread also resumes: it proves that the old pager is dead,
 * settles the ring, starts the next pager and hands back what QEMU kept.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qemu/lockable.h"
#include "qapi/error.h"
#include "ring.h"
#include "fake-qemu.h"
#include "torture.h"

#define RESUME_TIMEOUT_MS 20000
#define DEATH_TIMEOUT_MS 5000
/* A pager that is killed while it attaches is followed by another one. */
#define RESUME_ATTEMPTS 50

static uint64_t next_seq(FakeQemu *fq)
{
    return qatomic_fetch_inc(&fq->seq) + 1;
}

/* False if the VM stops: nobody would shut the new connection down. */
static bool replace_sock(FakeQemu *fq, int sock)
{
    QEMU_LOCK_GUARD(&fq->lock);
    if (fq->stopping) {
        return false;
    }
    if (fq->sock >= 0) {
        close(fq->sock);
    }
    fq->sock = sock;
    return true;
}

bool fake_qemu_connect(FakeQemu *fq, bool resume, Error **errp)
{
    struct timeval timeout = { .tv_sec = RESUME_TIMEOUT_MS / 1000 };
    int pair[2];

    g_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    if (!replace_sock(fq, pair[0])) {
        error_setg(errp, "the VM stops");
        close(pair[0]);
        close(pair[1]);
        return false;
    }
    /* a pager that does not read must not hang us */
    setsockopt(fq->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    return fake_manager_start(fq->fm, pair[1], resume, next_seq(fq), errp);
}

/* Messages that come unasked */

static void keep_hold(FakeQemu *fq, MmMsg *msg)
{
    FakeHold new = { .fd = mm_msg_take_fd(msg, 0) };
    int i;

    memcpy(&new.what, msg->payload, sizeof(new.what));
    QEMU_LOCK_GUARD(&fq->lock);
    for (i = 0; i < fq->nr_holds; i++) {
        if (!memcmp(&fq->holds[i].what, &new.what, sizeof(new.what))) {
            close(fq->holds[i].fd);
            fq->holds[i] = fq->holds[--fq->nr_holds];
            break;
        }
    }
    if (new.fd >= 0) {
        g_assert(fq->nr_holds < FQ_MAX_HOLDS);
        fq->holds[fq->nr_holds++] = new;
    }
}

static void note_event(FakeQemu *fq, const MmMsg *msg)
{
    const MmMsgEvent *event = (const void *)msg->payload;

    QEMU_LOCK_GUARD(&fq->lock);
    if (event->kind >= MM_EVENT__MAX) {
        verdict_fail(fq->verdict, "event of unknown kind %u", event->kind);
        return;
    }
    if (event->kind == MM_EVENT_PAGE_LOST && !fq->may_lose) {
        verdict_fail(fq->verdict, "event: %s", event->text);
    }
    fq->nr_events[event->kind]++;
    fq->last_event = *event;
    qemu_cond_broadcast(&fq->cond);
}

/* All is in memory, but until the pager is gone it may still discard. */
static void answer_detached(FakeQemu *fq, const MmMsg *msg)
{
    fake_qemu_release_faults(fq);
    fq->detaching = true;
    mm_msg_send(fq->sock, MM_MSG_OK, msg->hdr.seq, NULL, 0, NULL, 0);
}

static void end_detach(FakeQemu *fq)
{
    ring_end(fq);
    QEMU_LOCK_GUARD(&fq->lock);
    fq->detached = true;
    qemu_cond_broadcast(&fq->cond);
}

static void finish_request(FakeQemu *fq, MmMsg *msg, int ret)
{
    QEMU_LOCK_GUARD(&fq->lock);
    if (!fq->reply_seq || (msg && msg->hdr.seq != fq->reply_seq)) {
        if (msg && !fq->hostile) {
            verdict_fail(fq->verdict, "%s answers nothing that was asked",
                         mm_msg_type_name(msg->hdr.type));
        }
        return;
    }
    if (msg) {
        *fq->reply = *msg;
        msg->nr_fds = 0;
    }
    fq->reply_ret = ret;
    fq->reply_seq = 0;
    qemu_cond_broadcast(&fq->cond);
}

static void dispatch(FakeQemu *fq, MmMsg *msg)
{
    switch (msg->hdr.type) {
    case MM_MSG_HOLD:
        keep_hold(fq, msg);
        break;
    case MM_MSG_EVENT:
        note_event(fq, msg);
        break;
    case MM_MSG_DETACHED:
        answer_detached(fq, msg);
        break;
    case MM_MSG_OK:
    case MM_MSG_ERROR:
    case MM_MSG_REGION_ADDED:
    case MM_MSG_QUERY_REPLY:
        finish_request(fq, msg, 0);
        break;
    default:
        if (!fq->hostile) {
            verdict_fail(fq->verdict, "QEMU received %s",
                         mm_msg_type_name(msg->hdr.type));
        }
        break;
    }
}

/* Attaching and resuming */

/* What QEMU has mapped must not be replaced by something else. */
static void check_same_memfd(FakeQemu *fq, int old_fd, int new_fd)
{
    struct stat old_st, new_st;

    g_assert(fstat(old_fd, &old_st) == 0 && fstat(new_fd, &new_st) == 0);
    if (old_st.st_dev != new_st.st_dev || old_st.st_ino != new_st.st_ino) {
        verdict_fail(fq->verdict, "resume has replaced a shared memfd");
    }
}

static void take_hello_fds(FakeQemu *fq, MmMsg *msg)
{
    int i;

    /* discards are kicked under this lock */
    QEMU_LOCK_GUARD(&fq->ring_lock);
    for (i = 0; i < MM_HELLO_FD__MAX; i++) {
        int fd = mm_msg_take_fd(msg, i);

        if (fd >= 0) {
            if (fq->fds[i] >= 0) {
                if (i == MM_HELLO_FD_STATE || i == MM_HELLO_FD_RING) {
                    check_same_memfd(fq, fq->fds[i], fd);
                }
                close(fq->fds[i]);
            }
            fq->fds[i] = fd;
        }
    }
}

bool fake_qemu_wait_hello(FakeQemu *fq, int timeout_ms, Error **errp)
{
    for (;;) {
        MmMsg msg;
        int ret = mm_msg_recv(fq->sock, &msg, timeout_ms);
        uint32_t type = msg.hdr.type;

        if (ret <= 0) {
            error_setg(errp, "no HELLO_REPLY: %s",
                       ret ? strerror(-ret) : "connection closed");
        } else if (type == MM_MSG_HELLO_REPLY) {
            take_hello_fds(fq, &msg);
        } else if (type == MM_MSG_ERROR) {
            error_setg(errp, "refused: %s",
                       ((const MmMsgError *)msg.payload)->text);
            ret = -EPROTO;
        } else {
            dispatch(fq, &msg);
        }
        mm_msg_clear(&msg);
        if (ret <= 0 || type == MM_MSG_HELLO_REPLY) {
            return ret > 0;
        }
    }
}

static int send_resume_regions(FakeQemu *fq)
{
    int i, ret = 0;

    for (i = 0; i < MM_MAX_REGIONS && !ret; i++) {
        FakeRegion *region = fq->regions[i];
        MmMsgRegion msg = {};

        if (!region) {
            continue;
        }
        msg.id = region->id;
        msg.page_size = fq->page_size;
        msg.size = region->size;
        msg.limit = region->limit;
        msg.hva = (uintptr_t)region->mem;
        snprintf(msg.idstr, sizeof(msg.idstr), "torture%u", region->id);
        ret = mm_msg_send(fq->sock, MM_MSG_RESUME_REGION, 0, &msg,
                          sizeof(msg), region->fds, MM_REGION_FD__MAX);
    }
    return ret;
}

int fake_qemu_send_resume(FakeQemu *fq)
{
    MmMsgResumeVM vm = {};
    int fds[MM_RESUME_FD__MAX] = {
        [MM_RESUME_FD_STATE] = fq->fds[MM_HELLO_FD_STATE],
        [MM_RESUME_FD_RING] = fq->fds[MM_HELLO_FD_RING],
        [MM_RESUME_FD_KICK] = fq->fds[MM_HELLO_FD_KICK],
        [MM_RESUME_FD_UFFD] = fq->uffd,
    };
    int i, ret;

    QEMU_LOCK_GUARD(&fq->lock);
    vm.nr_regions = fq->nr_regions;
    vm.nr_holds = fq->nr_holds;
    ret = mm_msg_send(fq->sock, MM_MSG_RESUME_VM, 0, &vm, sizeof(vm), fds,
                      MM_RESUME_FD__MAX);
    for (i = 0; i < fq->nr_holds && !ret; i++) {
        ret = mm_msg_send(fq->sock, MM_MSG_RESUME_HOLD, 0, &fq->holds[i].what,
                          sizeof(MmMsgHold), &fq->holds[i].fd, 1);
    }
    ret = ret ?: send_resume_regions(fq);
    if (fq->encrypted && !ret) {
        ret = mm_msg_send(fq->sock, MM_MSG_KEY, 0, &fake_qemu_key,
                          sizeof(fake_qemu_key), NULL, 0);
    }
    return ret ?: mm_msg_send(fq->sock, MM_MSG_RESUME_END, next_seq(fq), NULL,
                              0, NULL, 0);
}

/* Proves that the pager is dead; false if it must not have died. */
static bool bury_pager(FakeQemu *fq)
{
    g_autofree char *text = NULL;
    bool wanted, killed;
    int status = fake_manager_reap(fq->fm, DEATH_TIMEOUT_MS, &wanted);

    if (status == -1) {
        verdict_fail(fq->verdict, "the pager closed the connection and lives");
        fake_manager_kill(fq->fm);
        fake_manager_reap(fq->fm, -1, &wanted);
        return false;
    }
    killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if ((killed && (wanted || fq->may_die)) ||
        (status == 0 && qatomic_read(&fq->may_leave))) {
        return true;
    }
    text = describe_status(status);
    verdict_fail(fq->verdict, "the pager died of itself: %s", text);
    return false;
}

/* One attempt; *again is set if the new pager was killed meanwhile. */
static bool try_resume(FakeQemu *fq, bool *again)
{
    Error *err = NULL;

    *again = false;
    if (fake_qemu_connect(fq, true, &err)) {
        /* if this fails, the pager is gone, and wait_hello() tells */
        fake_qemu_send_resume(fq);
        if (fake_qemu_wait_hello(fq, RESUME_TIMEOUT_MS, &err)) {
            return true;
        }
        *again = bury_pager(fq);
    }
    if (!*again) {
        verdict_fail(fq->verdict, "resume failed: %s", error_get_pretty(err));
    }
    error_free(err);
    return false;
}

static bool resume_after_death(FakeQemu *fq)
{
    int64_t lost = torture_now_us(), stall;
    bool again;
    int i;

    WITH_QEMU_LOCK_GUARD(&fq->lock) {
        fq->serving = false;
    }
    finish_request(fq, NULL, -ECONNRESET);
    if (!bury_pager(fq)) {
        return false;
    }
    fake_zap_join(fq);
    ring_settle(fq);
    for (i = 0, again = true; !try_resume(fq, &again); i++) {
        if (!again || i == RESUME_ATTEMPTS || fq->stopping) {
            return false;
        }
    }
    stall = torture_now_us() - lost;
    fake_zap_start(fq);
    QEMU_LOCK_GUARD(&fq->lock);
    g_array_append_val(fq->stalls_us, stall);
    fq->resumes++;
    fq->serving = true;
    qemu_cond_broadcast(&fq->cond);
    return true;
}

static bool lost_connection(FakeQemu *fq)
{
    WITH_QEMU_LOCK_GUARD(&fq->lock) {
        if (fq->stopping) {
            return false;
        }
    }
    if (fq->detaching) {
        end_detach(fq);
        return false;
    }
    return fq->auto_resume && resume_after_death(fq);
}

static void *conn_thread_fn(void *opaque)
{
    FakeQemu *fq = opaque;
    bool alive = true;

    while (alive) {
        MmMsg msg;
        int ret = mm_msg_recv(fq->sock, &msg, -1);

        if (ret > 0) {
            dispatch(fq, &msg);
        } else if (ret == 0 || ret == -ECONNRESET) {
            alive = lost_connection(fq);
        } else {
            verdict_fail(fq->verdict, "connection: %s", strerror(-ret));
            alive = false;
        }
        mm_msg_clear(&msg);
    }
    WITH_QEMU_LOCK_GUARD(&fq->lock) {
        fq->deserted = true;
        fq->serving = false;
    }
    finish_request(fq, NULL, -ECONNRESET);
    return NULL;
}

void fake_qemu_start_threads(FakeQemu *fq)
{
    fq->deserted = false;
    fake_zap_start(fq);
    fq->have_conn_thread = true;
    qemu_thread_create(&fq->conn_thread, "conn", conn_thread_fn, fq,
                       QEMU_THREAD_JOINABLE);
}

void fake_qemu_join_threads(FakeQemu *fq)
{
    if (fq->have_conn_thread) {
        qemu_thread_join(&fq->conn_thread);
        fq->have_conn_thread = false;
    }
    fake_zap_join(fq);
}

/* Requests */

/* Called with lock held. */
static void wait_serving_locked(FakeQemu *fq, int64_t end)
{
    while (!fq->serving && !fq->deserted && torture_now_us() < end) {
        qemu_cond_timedwait(&fq->cond, &fq->lock, 10);
    }
}

unsigned fake_qemu_pager(FakeQemu *fq)
{
    QEMU_LOCK_GUARD(&fq->lock);
    wait_serving_locked(fq, torture_now_us() + FAKE_REQUEST_MS * 1000);
    return fq->resumes;
}

bool fake_qemu_enter_region(FakeQemu *fq, FakeRegion *region, unsigned pager)
{
    QEMU_LOCK_GUARD(&fq->lock);
    if (!fq->serving || fq->resumes != pager) {
        return false;
    }
    fq->regions[region->id] = region;
    fq->nr_regions++;
    return true;
}

unsigned fake_qemu_take_region(FakeQemu *fq, FakeRegion *region)
{
    QEMU_LOCK_GUARD(&fq->lock);
    wait_serving_locked(fq, torture_now_us() + FAKE_REQUEST_MS * 1000);
    fq->regions[region->id] = NULL;
    fq->nr_regions--;
    g_ptr_array_add(fq->removed, region);
    return fq->resumes;
}

int fake_qemu_request(FakeQemu *fq, const FakeRequest *rq, MmMsg *reply)
{
    int64_t end = torture_now_us() + FAKE_REQUEST_MS * 1000;
    uint64_t seq = next_seq(fq);
    int ret;

    reply->nr_fds = 0;
    QEMU_LOCK_GUARD(&fq->request_lock);
    QEMU_LOCK_GUARD(&fq->lock);
    wait_serving_locked(fq, end);
    if (fq->deserted || (rq->pager && *rq->pager != fq->resumes)) {
        return -ECONNRESET;
    }
    fq->reply = reply;
    fq->reply_ret = -ETIMEDOUT;
    fq->reply_seq = seq;
    ret = mm_msg_send(fq->sock, rq->type, seq, rq->payload, rq->len, rq->fd,
                      rq->fd != NULL);
    if (ret) {
        fq->reply_seq = 0;
        return -ECONNRESET;
    }
    while (fq->reply_seq && torture_now_us() < end) {
        qemu_cond_timedwait(&fq->cond, &fq->lock, 10);
    }
    fq->reply_seq = 0;
    return fq->reply_ret;
}

/* Waiting */

typedef bool FakeCondition(FakeQemu *fq, unsigned a, unsigned b);

static bool wait_for(FakeQemu *fq, FakeCondition *test, unsigned a, unsigned b,
                     int timeout_ms)
{
    int64_t end = torture_now_us() + timeout_ms * 1000LL;

    QEMU_LOCK_GUARD(&fq->lock);
    while (!test(fq, a, b)) {
        if (torture_now_us() >= end || verdict_failed(fq->verdict)) {
            return false;
        }
        qemu_cond_timedwait(&fq->cond, &fq->lock, 10);
    }
    return true;
}

static bool has_resumed(FakeQemu *fq, unsigned n, unsigned unused)
{
    return fq->resumes >= n || fq->detached;
}

static bool has_event(FakeQemu *fq, unsigned kind, unsigned n)
{
    return fq->nr_events[kind] >= n;
}

static bool has_detached(FakeQemu *fq, unsigned unused, unsigned unused2)
{
    return fq->detached;
}

bool fake_qemu_wait_resumes(FakeQemu *fq, unsigned n, int timeout_ms)
{
    return wait_for(fq, has_resumed, n, 0, timeout_ms);
}

bool fake_qemu_wait_event(FakeQemu *fq, MmEventKind kind, unsigned n,
                          int timeout_ms)
{
    return wait_for(fq, has_event, kind, n, timeout_ms);
}

bool fake_qemu_wait_detached(FakeQemu *fq, int timeout_ms)
{
    return wait_for(fq, has_detached, 0, 0, timeout_ms);
}
