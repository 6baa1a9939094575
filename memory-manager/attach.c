/*
 * qemu-memory-manager: who connects to attach.sock
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Anybody who may connect is hostile until his HELLO has been checked. He has
 * HELLO_TIMEOUT_MS for one message; all else closes the connection, with an
 * ERROR that says why. Nothing here waits for a peer.
 *
 * The number of peers that have not said HELLO is bounded, per process and in
 * all. When it is reached, the oldest one goes: a real QEMU says HELLO at once,
 * so that those who keep connections idle only ever displace each other.
 *
 * A new VM costs a process and disk space, so their number is limited per user
 * and process. To resume one takes its cookie and its process.
 *
 * HELLO comes without descriptors; mm_msg_check() refuses one that has any. The
 * manager never holds a userfaultfd.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/queue.h"
#include "attach.h"
#include "attach-later.h"
#include "handover.h"
#include "takeover.h"
#include "trace.h"
#include "vm.h"

#define HELLO_TIMEOUT_MS 2000
#define MAX_PEERS 256
#define MAX_PEERS_PER_PROCESS 64
/* A QEMU has one; a broken one must not use up all that its user may have. */
#define MAX_VMS_PER_PROCESS 32
/* Connections accepted before other work gets its turn. */
#define ACCEPTS_PER_TURN 16
/* How long nobody is accepted when the manager has no descriptors left. */
#define ACCEPT_PAUSE_MS 100
/* Messages of a refused peer that are read, so that it can read the ERROR. */
#define MAX_DRAINED 64

typedef struct Peer {
    int sock;
    struct ucred cred;
    int64_t deadline_ms;
    QTAILQ_ENTRY(Peer) next;    /* oldest first */
} Peer;

static struct {
    MmManager *mgr;
    int sock;
    char *path;
    unsigned nr_peers;
    QTAILQ_HEAD(, Peer) peers;
    QEMUTimer *timer;
    QEMUTimer *pause;           /* ends a time in which nobody is accepted */
} listener = {
    .sock = -1,
    .peers = QTAILQ_HEAD_INITIALIZER(listener.peers),
};

/* Hands the peer's socket to the caller. */
static int forget_peer(Peer *peer)
{
    int sock = peer->sock;

    qemu_set_fd_handler(sock, NULL, NULL, NULL);
    QTAILQ_REMOVE(&listener.peers, peer, next);
    listener.nr_peers--;
    g_free(peer);
    return sock;
}

/*
 * A socket that is closed with unread messages makes the peer read ECONNRESET
 * instead of what was sent to it.
 */
void mm_attach_refuse(int sock, uint64_t seq, int err, const char *text)
{
    char byte;
    int n;

    mm_msg_send_error(sock, seq, err, text);
    shutdown(sock, SHUT_RD);
    for (n = 0; n < MAX_DRAINED; n++) {
        if (recv(sock, &byte, 1, MSG_DONTWAIT) <= 0) {
            break;
        }
    }
    close(sock);
}

static void refuse_process(int sock, pid_t pid, uid_t uid, uint64_t seq,
                           int err, const char *text)
{
    g_autofree char *who = g_strdup_printf("process %d of user %d",
                                           (int)pid, (int)uid);

    trace_mm_attach_refuse(pid, uid, text);
    mm_condition_refused(who, text);
    mm_attach_refuse(sock, seq, err, text);
}

static void refuse_peer(Peer *peer, uint64_t seq, int err, const char *text)
{
    struct ucred cred = peer->cred;

    refuse_process(forget_peer(peer), cred.pid, cred.uid, seq, err, text);
}

static void arm_timer(void)
{
    Peer *oldest = QTAILQ_FIRST(&listener.peers);

    if (oldest) {
        timer_mod(listener.timer, oldest->deadline_ms);
    } else {
        timer_del(listener.timer);
    }
}

static void hello_overdue(void *opaque)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    Peer *peer;

    while ((peer = QTAILQ_FIRST(&listener.peers)) &&
           peer->deadline_ms <= now) {
        refuse_peer(peer, 0, ETIMEDOUT, "no HELLO within two seconds");
    }
    arm_timer();
}

static char *check_hello(const MmMsgHello *hello)
{
    if (hello->version_min > hello->version_max) {
        return g_strdup("the range of versions in HELLO is empty");
    }
    if (hello->version_min > MM_PROTO_VERSION_MAX ||
        hello->version_max < MM_PROTO_VERSION_MIN) {
        return g_strdup_printf("this manager speaks versions %d to %d of the "
                               "protocol, this QEMU %u to %u: use programs of "
                               "the same release",
                               MM_PROTO_VERSION_MIN, MM_PROTO_VERSION_MAX,
                               hello->version_min, hello->version_max);
    }
    if (hello->flags & ~MM_HELLO_RESUME) {
        return g_strdup_printf("unknown flags 0x%x in HELLO", hello->flags);
    }
    return NULL;
}

static bool cookie_matches(const uint8_t *a, const uint8_t *b)
{
    uint8_t diff = 0;
    int i;

    /* always to the end: time must not tell how much of it was right */
    for (i = 0; i < MM_COOKIE_LEN; i++) {
        diff |= a[i] ^ b[i];
    }
    return !diff;
}

static void refuse_hello(const MmHelloPeer *hello, int err, const char *text)
{
    refuse_process(hello->sock, hello->pid, hello->uid, hello->seq, err, text);
}

static void attach_now(const MmHelloPeer *hello)
{
    MmManager *mgr = listener.mgr;
    uint32_t user, process;
    Error *err = NULL;

    mm_vm_count(mgr, hello, &user, &process);
    if (user >= mgr->opts.max_vms_per_user) {
        refuse_hello(hello, EUSERS, "this user has as many VMs attached as "
                     "the manager allows (--max-vms-per-user)");
    } else if (process >= MAX_VMS_PER_PROCESS) {
        refuse_hello(hello, EUSERS, "this process has attached too often");
    } else if (!mm_vm_attach(mgr, hello, &err)) {
        refuse_hello(hello, EIO, error_get_pretty(err));
        error_free(err);
    } else {
        close(hello->sock);
    }
}

static void attach(Peer *peer, const MmHelloPeer *hello)
{
    forget_peer(peer);
    if (!mm_attach_later(listener.mgr, hello, attach_now)) {
        attach_now(hello);
    }
}

/*
 * As long as the process that has attached runs, nobody else has its PID. Its
 * user may be another one by now: QEMU gives up rights with -runas.
 */
static bool is_same_process(const MmVM *vm, const Peer *peer)
{
    return vm->qemu && mm_process_runs(vm->qemu) &&
           mm_process_pid(vm->qemu) == peer->cred.pid;
}

static void resume(Peer *peer, const MmHelloPeer *hello)
{
    MmVM *vm = mm_vm_by_uuid(listener.mgr, hello->hello->uuid);

    if (!vm || vm->state == MANAGEDVM_STATE_CLOSING) {
        refuse_peer(peer, hello->seq, ENOENT, "the manager does not know this "
                    "VM; its run directory must be that of the manager that "
                    "the VM attached to");
    } else if (!cookie_matches(vm->rec.cookie, hello->hello->cookie)) {
        refuse_peer(peer, hello->seq, EACCES, "wrong cookie");
    } else if (!is_same_process(vm, peer)) {
        refuse_peer(peer, hello->seq, EACCES, "the VM belongs to another "
                    "process");
    } else {
        forget_peer(peer);
        mm_takeover_begin(vm, hello);
    }
}

static void handle_hello(Peer *peer, const MmMsg *msg)
{
    const MmMsgHello *hello = (const void *)msg->payload;
    g_autofree char *problem = check_hello(hello);
    MmHelloPeer info = {
        .sock = peer->sock,
        .pid = peer->cred.pid,
        .uid = peer->cred.uid,
        .version = MIN(hello->version_max, MM_PROTO_VERSION_MAX),
        .seq = msg->hdr.seq,
        .hello = hello,
    };

    trace_mm_attach_hello(peer->cred.pid, peer->cred.uid, hello->flags);
    if (problem) {
        refuse_peer(peer, msg->hdr.seq, EPROTO, problem);
    } else if (hello->flags & MM_HELLO_RESUME) {
        resume(peer, &info);
    } else {
        attach(peer, &info);
    }
}

static void handle_handover(Peer *peer, const MmMsg *msg)
{
    const MmMsgHandover *request = (const void *)msg->payload;
    MmVM *vm = mm_vm_by_uuid(listener.mgr, request->uuid);

    if (vm && vm->state != MANAGEDVM_STATE_CLOSING &&
        cookie_matches(vm->rec.cookie, request->cookie) &&
        is_same_process(vm, peer)) {
        mm_handover(vm, forget_peer(peer), msg->hdr.seq, request);
    } else {
        refuse_peer(peer, msg->hdr.seq, EACCES, "the manager does not know "
                    "this VM, or it belongs to another process");
    }
}

static void peer_readable(void *opaque)
{
    g_autofree MmMsg *msg = g_new(MmMsg, 1);
    Peer *peer = opaque;
    int ret = mm_msg_recv(peer->sock, msg, -1);

    if (ret == -EAGAIN) {
        return;
    }
    if (ret == 0 || ret == -ECONNRESET) {
        close(forget_peer(peer));
    } else if (ret < 0) {
        refuse_peer(peer, 0, EPROTO, "malformed message");
    } else if (msg->hdr.type == MM_MSG_HANDOVER) {
        handle_handover(peer, msg);
    } else if (msg->hdr.type != MM_MSG_HELLO) {
        refuse_peer(peer, msg->hdr.seq, EPROTO, "HELLO has to come first");
    } else {
        handle_hello(peer, msg);
    }
    mm_msg_clear(msg);
    arm_timer();
}

/* The oldest peer of a process, if it has too many of them. */
static Peer *find_excess(pid_t pid)
{
    Peer *peer, *oldest = NULL;
    unsigned n = 0;

    QTAILQ_FOREACH(peer, &listener.peers, next) {
        if (peer->cred.pid == pid) {
            oldest = oldest ?: peer;
            n++;
        }
    }
    return n >= MAX_PEERS_PER_PROCESS ? oldest : NULL;
}

static void make_room(pid_t pid)
{
    Peer *excess = find_excess(pid);

    if (!excess && listener.nr_peers >= MAX_PEERS) {
        excess = QTAILQ_FIRST(&listener.peers);
    }
    if (excess) {
        refuse_peer(excess, 0, EBUSY, "too many connections that have not "
                    "said HELLO, and this was the oldest one");
    }
}

static void add_peer(int sock)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    Peer *peer;

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len)) {
        close(sock);
        return;
    }
    make_room(cred.pid);
    peer = g_new0(Peer, 1);
    peer->sock = sock;
    peer->cred = cred;
    peer->deadline_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                        HELLO_TIMEOUT_MS;
    QTAILQ_INSERT_TAIL(&listener.peers, peer, next);
    listener.nr_peers++;
    trace_mm_attach_accept(cred.pid, cred.uid, listener.nr_peers);
    qemu_set_fd_handler(sock, peer_readable, NULL, peer);
}

/*
 * Out of descriptors or memory: the connection stays in the queue, and the
 * listener readable. Peers that are idle have to make room for it. If there
 * are none, not to look for a while is all that can be done.
 */
static void handle_accept_error(int err)
{
    Peer *oldest = QTAILQ_FIRST(&listener.peers);

    if (err != EMFILE && err != ENFILE && err != ENOBUFS && err != ENOMEM) {
        return;
    }
    if (oldest) {
        refuse_peer(oldest, 0, EBUSY, "the manager has no descriptors left");
        return;
    }
    qemu_set_fd_handler(listener.sock, NULL, NULL, NULL);
    timer_mod(listener.pause, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                              ACCEPT_PAUSE_MS);
}

static void listener_readable(void *opaque)
{
    int n;

    for (n = 0; n < ACCEPTS_PER_TURN; n++) {
        int sock = accept4(listener.sock, NULL, NULL,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (sock < 0) {
            handle_accept_error(errno);
            break;
        }
        add_peer(sock);
    }
    arm_timer();
}

static void pause_is_over(void *opaque)
{
    qemu_set_fd_handler(listener.sock, listener_readable, NULL, NULL);
}

static bool set_access(const MmOptions *opts, Error **errp)
{
    ERRP_GUARD();

    if (chown(listener.path, -1, opts->attach_gid)) {
        error_setg_errno(errp, errno, "cannot give %s to group %d",
                         listener.path, (int)opts->attach_gid);
        error_append_hint(errp, "Choose a group that you are in with "
                          "--attach-group GROUP.\n");
        return false;
    }
    if (chmod(listener.path, opts->attach_mode)) {
        error_setg_errno(errp, errno, "cannot set the mode of %s",
                         listener.path);
        return false;
    }
    return true;
}

bool mm_attach_listen(MmManager *mgr, Error **errp)
{
    listener.mgr = mgr;
    listener.path = g_build_filename(mgr->dir.path, MM_ATTACH_SOCKET_NAME,
                                     NULL);
    listener.sock = mm_listen(listener.path, SOCK_SEQPACKET, 0600, errp);
    if (listener.sock < 0 || !set_access(&mgr->opts, errp)) {
        return false;
    }
    listener.timer = timer_new_ms(QEMU_CLOCK_REALTIME, hello_overdue, NULL);
    listener.pause = timer_new_ms(QEMU_CLOCK_REALTIME, pause_is_over, NULL);
    qemu_set_fd_handler(listener.sock, listener_readable, NULL, NULL);
    return true;
}

void mm_attach_close(MmManager *mgr)
{
    if (listener.sock >= 0) {
        qemu_set_fd_handler(listener.sock, NULL, NULL, NULL);
        close(listener.sock);
        unlink(listener.path);
    }
}
