/*
 * Managed memory: the connection to the pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The manager or the pager may die, be upgraded or restarted at any time; the
 * VM goes on.  QEMU therefore owns what a pager works on and only lends it:
 * the userfaultfd, the files of the regions, the ring, the state, and what a
 * pager asked us to hold.  EOF on the connection says that the pager is gone,
 * entirely; QEMU then connects to the manager again, for ever, and hands all
 * of it to whoever answers.  Faults simply wait meanwhile.
 *
 *     NONE --open--> CONNECTED --EOF--> LOST --reconnect--> RESUMING
 *                     |    ^              ^                   |   |
 *                     |    |              +------failure------+   |
 *                     |    +------------------HELLO_REPLY---------+
 *                     +--DETACHED message--> DETACHED
 *
 * Invariants:
 *
 *  I1 The old connection is read to its end before the VM is handed on, so
 *     that no HOLD is lost.
 *  I2 The epoch changes before the regions are looked at for a hand-over.
 *     Who has added a region under an unchanged epoch has it handed over.
 *  I3 In LOST no pager can work on the VM.
 *
 * Thread mm-conn reads the connection, and is the only one to change its state
 * after the first attachment.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/socket.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/lockable.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "backends/managed-memory-internal.h"
#include "trace.h"

#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000

static struct {
    /* fixed once attached */
    char *path;
    dev_t folder_dev;           /* of the folder that path was in */
    ino_t folder_ino;
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    MmRing *ring;
    int kick;                   /* a new pager's eventfd takes its number */
    ManagedVMFds fds;
    bool encrypted;             /* there is a key */
    MmMsgKey key;

    /* owned by whoever attaches, then by mm-conn */
    GArray *holds;              /* of ManagedHold */

    /* protected by lock; state and epoch are also read without it */
    QemuMutex lock;
    QemuCond changed;           /* the state */
    ManagedConnState state;
    uint64_t epoch;
    int sock;
    bool resume_stale;          /* what is being handed over is not so now */
    int64_t lost_at_ms;
    unsigned lost;
    uint64_t stall_last_ms;
    uint64_t stall_total_ms;
    bool pinned;                /* see managed_conn_set_pinned() */
} conn = {
    .sock = -1,
    .kick = -1,
    .fds = { .state = -1, .ring = -1, .uffd = -1 },
};

static void __attribute__((constructor)) managed_conn_init(void)
{
    qemu_mutex_init(&conn.lock);
    qemu_cond_init(&conn.changed);
}

/* ---- state ---- */

static const char *const state_names[] = {
    [MANAGED_CONN_NONE] = "none",
    [MANAGED_CONN_CONNECTED] = "connected",
    [MANAGED_CONN_LOST] = "lost",
    [MANAGED_CONN_RESUMING] = "resuming",
    [MANAGED_CONN_DETACHED] = "detached",
};

static void set_state_locked(ManagedConnState state)
{
    trace_managed_memory_state(state_names[conn.state], state_names[state]);
    qatomic_set(&conn.state, state);
    qemu_cond_broadcast(&conn.changed);
}

ManagedConnState managed_conn_state(void)
{
    return qatomic_read(&conn.state);
}

uint64_t managed_conn_epoch(void)
{
    return qatomic_read(&conn.epoch);
}

int managed_conn_uffd(void)
{
    return qatomic_read(&conn.fds.uffd);
}

MmRing *managed_conn_ring(void)
{
    return conn.ring;
}

int managed_conn_ring_fd(void)
{
    return conn.fds.ring;
}

void managed_conn_kick(void)
{
    uint64_t one = 1;
    ssize_t ret = write(conn.kick, &one, sizeof(one));

    /* EAGAIN: the counter is full, so the pager is about to look anyway */
    (void)ret;
}

bool managed_conn_if_lost(bool (*fn)(void *opaque), void *opaque)
{
    QEMU_LOCK_GUARD(&conn.lock);

    return conn.state == MANAGED_CONN_LOST && fn(opaque);
}

void managed_conn_abort(void)
{
    QEMU_LOCK_GUARD(&conn.lock);

    if (conn.state == MANAGED_CONN_CONNECTED) {
        shutdown(conn.sock, SHUT_WR);
    }
}

void managed_conn_region_gone(void)
{
    QEMU_LOCK_GUARD(&conn.lock);

    conn.resume_stale = true;
}

bool managed_conn_wait(int timeout_ms)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + timeout_ms;

    QEMU_LOCK_GUARD(&conn.lock);
    while (conn.state != MANAGED_CONN_CONNECTED) {
        int64_t left = deadline - qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

        if (left <= 0 || conn.state == MANAGED_CONN_DETACHED) {
            return false;
        }
        qemu_cond_timedwait(&conn.changed, &conn.lock, left);
    }
    return true;
}

void managed_conn_info(ManagedConnInfo *info)
{
    QEMU_LOCK_GUARD(&conn.lock);

    *info = (ManagedConnInfo) {
        .state = conn.state,
        .path = g_strdup(conn.path),
        .encrypted = conn.encrypted,
        .lost = conn.lost,
        .stall_last_ms = conn.stall_last_ms,
        .stall_total_ms = conn.stall_total_ms,
    };
    memcpy(info->uuid, conn.uuid, sizeof(info->uuid));
    memcpy(info->cookie, conn.cookie, sizeof(info->cookie));
}

void managed_conn_set_pinned(bool pinned)
{
    QEMU_LOCK_GUARD(&conn.lock);

    /* PIN tells whoever gets it; of UNPIN only one that serves can be told */
    conn.resume_stale |= conn.pinned && !pinned;
    conn.pinned = pinned;
}

bool managed_conn_read_state(MmState *state)
{
    QEMU_LOCK_GUARD(&conn.lock);

    return pread(conn.fds.state, state, sizeof(*state), 0) == sizeof(*state);
}

/* ---- messages that the pager sends unasked ---- */

/* A HOLD without a descriptor: what was held is not needed any more. */
static void keep_hold(MmMsg *msg)
{
    ManagedHold new = {
        .what = *(const MmMsgHold *)msg->payload,
        .fd = mm_msg_take_fd(msg, 0),
    };
    unsigned i;

    for (i = 0; i < conn.holds->len; i++) {
        ManagedHold *hold = &g_array_index(conn.holds, ManagedHold, i);

        if (!memcmp(&hold->what, &new.what, sizeof(new.what))) {
            close(hold->fd);
            g_array_remove_index_fast(conn.holds, i);
            break;
        }
    }
    if (new.fd < 0) {
        return;
    }
    if (conn.holds->len == MM_MAX_TIERS) {
        managed_tell_error("the pager asks to keep more than %d descriptors",
                           MM_MAX_TIERS);
        close(new.fd);
        return;
    }
    g_array_append_val(conn.holds, new);
}

static void handle_unasked(MmMsg *msg)
{
    switch (msg->hdr.type) {
    case MM_MSG_HOLD:
        keep_hold(msg);
        break;
    case MM_MSG_EVENT:
        managed_tell_from_pager((const MmMsgEvent *)msg->payload);
        break;
    default:
        managed_tell_error("unexpected %s from the pager",
                           mm_msg_type_name(msg->hdr.type));
        break;
    }
}

static void drop_holds(void)
{
    unsigned i;

    for (i = 0; i < conn.holds->len; i++) {
        close(g_array_index(conn.holds, ManagedHold, i).fd);
    }
    g_array_set_size(conn.holds, 0);
}

static void drop_vm_fds(void)
{
    drop_holds();
    explicit_bzero(&conn.key, sizeof(conn.key));
    close(qatomic_xchg(&conn.fds.uffd, -1));
    close(conn.fds.state);
    /* the ring's may be in use: managed-memory-read.c */
    conn.fds.state = -1;
}

/*
 * All is resident, and stays so: the memory becomes QEMU's.  But only when the
 * pager is gone: until then it may execute a discard that it has taken, and
 * whoever waits for that must not go on.
 */
static void handle_detached(MmMsg *msg)
{
    uint64_t seq = msg->hdr.seq;

    managed_regions_release();
    mm_msg_send(conn.sock, MM_MSG_OK, seq, NULL, 0, NULL, 0);
    managed_wait_gone(conn.sock, msg, keep_hold);
    WITH_QEMU_LOCK_GUARD(&conn.lock) {
        set_state_locked(MANAGED_CONN_DETACHED);
        managed_requests_close();
        close(conn.sock);
        conn.sock = -1;
    }
    managed_zap_stop();
    drop_vm_fds();
    managed_tell_detached();
}

static void handle_message(MmMsg *msg)
{
    switch (msg->hdr.type) {
    case MM_MSG_OK:
    case MM_MSG_ERROR:
    case MM_MSG_REGION_ADDED:
    case MM_MSG_QUERY_REPLY:
        managed_requests_finish(msg);
        break;
    case MM_MSG_DETACHED:
        handle_detached(msg);
        break;
    default:
        handle_unasked(msg);
        break;
    }
}

/* ---- thread ---- */

/* Returns when the pager is gone or has detached the VM. */
static void serve_connection(MmMsg *msg)
{
    int ret;

    do {
        ret = mm_msg_recv(conn.sock, msg, -1);
        if (ret > 0) {
            handle_message(msg);
        }
        mm_msg_clear(msg);
    } while (ret > 0 && conn.state != MANAGED_CONN_DETACHED);

    /* A reset is an end, too: the pager has left something unread. */
    if (ret < 0 && ret != -ECONNRESET) {
        managed_tell_error("bad message from the pager: %s", strerror(-ret));
        managed_wait_gone(conn.sock, msg, keep_hold);
    }
}

static void become_lost(void)
{
    WITH_QEMU_LOCK_GUARD(&conn.lock) {
        conn.lost_at_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
        conn.lost++;
        qatomic_set(&conn.epoch, conn.epoch + 1);
        managed_requests_close();
        close(conn.sock);
        conn.sock = -1;
        set_state_locked(MANAGED_CONN_LOST);
    }
    managed_tell_lost(conn.path);
}

/* Take over what a new pager has sent; it works for us from here on. */
static bool take_over(int sock, MmMsg *reply, Error **errp)
{
    const MmMsgHelloReply *hello = (const void *)reply->payload;

    if (memcmp(hello->uuid, conn.uuid, sizeof(conn.uuid))) {
        error_setg(errp, "the memory manager resumes a different VM");
        return false;
    }
    QEMU_LOCK_GUARD(&conn.lock);
    if (conn.resume_stale) {
        error_setg(errp, "memory was unplugged, or a migration has ended, "
                   "during the hand-over");
        return false;
    }
    if (dup3(reply->fds[MM_HELLO_FD_KICK], conn.kick, O_CLOEXEC) < 0) {
        error_setg_errno(errp, errno, "cannot replace an eventfd");
        return false;
    }
    managed_zap_set_channel(mm_msg_take_fd(reply, MM_HELLO_FD_ZAP));
    memcpy(conn.cookie, hello->cookie, sizeof(conn.cookie));
    conn.sock = sock;
    conn.stall_last_ms = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) -
                         conn.lost_at_ms;
    conn.stall_total_ms += conn.stall_last_ms;
    managed_requests_open(sock, conn.epoch);
    set_state_locked(MANAGED_CONN_CONNECTED);
    return true;
}

static bool resume(MmMsg *reply, Error **errp)
{
    ManagedResume what = { .fds = conn.fds, .kick = conn.kick,
                           .holds = conn.holds,
                           .lost_ns = conn.lost_at_ms * SCALE_MS,
                           .key = conn.encrypted ? &conn.key : NULL };
    int sock;

    WITH_QEMU_LOCK_GUARD(&conn.lock) {
        conn.resume_stale = false;
        what.pinned = conn.pinned;
        set_state_locked(MANAGED_CONN_RESUMING);
    }
    memcpy(what.uuid, conn.uuid, sizeof(what.uuid));
    memcpy(what.cookie, conn.cookie, sizeof(what.cookie));
    what.regions = managed_regions_snapshot();
    g_ptr_array_set_free_func(what.regions,
                              (GDestroyNotify)managed_region_unref);
    sock = managed_attach(conn.path, &what, reply, handle_unasked, errp);
    g_ptr_array_unref(what.regions);
    if (sock >= 0 && take_over(sock, reply, errp)) {
        return true;
    }
    if (sock >= 0) {
        managed_wait_gone(sock, reply, keep_hold);
        close(sock);
    }
    WITH_QEMU_LOCK_GUARD(&conn.lock) {
        set_state_locked(MANAGED_CONN_LOST);
    }
    return false;
}

static void resume_until_served(MmMsg *reply)
{
    g_autofree char *reported = NULL;
    unsigned delay_ms = BACKOFF_MIN_MS;
    Error *err = NULL;

    while (!resume(reply, &err)) {
        mm_msg_clear(reply);
        if (g_strcmp0(reported, error_get_pretty(err))) {
            g_free(reported);
            reported = g_strdup(error_get_pretty(err));
            managed_tell_error("the guest waits: %s", reported);
        }
        error_free(err);
        err = NULL;
        g_usleep(delay_ms * 1000);
        delay_ms = MIN(delay_ms * 2, BACKOFF_MAX_MS);
    }
    mm_msg_clear(reply);
    if (reported) {
        managed_tell_info("the guest goes on");
    }
    /* Discards may have been posted while nobody listened. */
    managed_conn_kick();
    managed_tell_recovered(conn.path, conn.stall_last_ms);
}

static void *conn_thread(void *opaque)
{
    MmMsg *msg = g_new0(MmMsg, 1);

    for (;;) {
        serve_connection(msg);
        if (conn.state == MANAGED_CONN_DETACHED) {
            break;
        }
        become_lost();
        resume_until_served(msg);
    }
    g_free(msg);
    return NULL;
}

/* ---- first attachment ---- */

static bool map_ring(int fd, Error **errp)
{
    void *map;

    if (!managed_check_memfd(fd, sizeof(MmRing), "ring", errp)) {
        return false;
    }
    map = mmap(NULL, sizeof(MmRing), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the ring");
        return false;
    }
    /* what the guest reads; as for its memory with dump-guest-core=off */
    madvise(map, sizeof(MmRing), MADV_DONTDUMP);
    conn.ring = map;
    return true;
}

static bool first_uffd(int sock, int dev, Error **errp)
{
    int ret, uffd = managed_uffd_create(dev, errp);

    if (uffd < 0) {
        return false;
    }
    ret = mm_msg_send(sock, MM_MSG_UFFD, 0, NULL, 0, &uffd, 1);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "the memory manager has hung up");
        close(uffd);
        return false;
    }
    conn.fds.uffd = uffd;
    return true;
}

static bool first_key(int sock, const char *secret, const MmMsg *reply,
                      Error **errp)
{
    const MmMsgHelloReply *hello = (const void *)reply->payload;
    g_autofree MmMsg *answer = g_new0(MmMsg, 1);

    return !secret ||
           (managed_key_derive(secret, hello->uuid, &conn.key, errp) &&
            managed_attach_key(sock, &conn.key, answer, handle_unasked, errp));
}

static int stat_folder(const char *path, struct stat *st)
{
    g_autofree char *folder = g_path_get_dirname(path);

    return stat(folder, st) ? -errno : 0;
}

static void remember_path(const char *path)
{
    struct stat st = {};

    stat_folder(path, &st);
    conn.path = g_strdup(path);
    conn.folder_dev = st.st_dev;
    conn.folder_ino = st.st_ino;
}

static void first_connected(const ManagedConfig *config, int sock,
                            MmMsg *reply)
{
    const MmMsgHelloReply *hello = (const void *)reply->payload;
    QemuThread thread;

    remember_path(config->path);
    conn.encrypted = config->key_secret;
    memcpy(conn.uuid, hello->uuid, sizeof(conn.uuid));
    memcpy(conn.cookie, hello->cookie, sizeof(conn.cookie));
    conn.fds.state = mm_msg_take_fd(reply, MM_HELLO_FD_STATE);
    conn.fds.ring = mm_msg_take_fd(reply, MM_HELLO_FD_RING);
    conn.kick = mm_msg_take_fd(reply, MM_HELLO_FD_KICK);
    WITH_QEMU_LOCK_GUARD(&conn.lock) {
        conn.sock = sock;
        qatomic_set(&conn.epoch, 1);
        managed_requests_open(sock, conn.epoch);
        set_state_locked(MANAGED_CONN_CONNECTED);
    }
    managed_zap_start(mm_msg_take_fd(reply, MM_HELLO_FD_ZAP));
    qemu_thread_create(&thread, "mm-conn", conn_thread, NULL,
                       QEMU_THREAD_DETACHED);
}

static void first_undo(int sock)
{
    if (conn.ring) {
        munmap(conn.ring, sizeof(MmRing));
        conn.ring = NULL;
    }
    drop_holds();
    explicit_bzero(&conn.key, sizeof(conn.key));
    if (sock >= 0) {
        close(sock);
    }
}

static bool first_attach(const ManagedConfig *config, Error **errp)
{
    g_autofree MmMsg *reply = g_new0(MmMsg, 1);
    int dev, sock;
    bool ok = false;

    conn.holds = conn.holds ?: g_array_new(false, false, sizeof(ManagedHold));
    sock = managed_attach(config->path, NULL, reply, handle_unasked, errp);
    if (sock >= 0) {
        dev = mm_msg_take_fd(reply, MM_HELLO_FD_UFFD_DEV);
        ok = map_ring(reply->fds[MM_HELLO_FD_RING], errp) &&
             first_key(sock, config->key_secret, reply, errp) &&
             first_uffd(sock, dev, errp);
        if (dev >= 0) {
            close(dev);
        }
    }
    if (ok) {
        first_connected(config, sock, reply);
    } else {
        first_undo(sock);
    }
    mm_msg_clear(reply);
    return ok;
}

/* What counts is the key: its secret may have another name by now. */
static bool same_key(const char *secret, Error **errp)
{
    MmMsgKey key;
    bool same = !secret == !conn.encrypted;

    if (same && secret) {
        if (!managed_key_derive(secret, conn.uuid, &key, errp)) {
            return false;
        }
        same = !memcmp(&key, &conn.key, sizeof(key));
        explicit_bzero(&key, sizeof(key));
    }
    if (!same) {
        error_setg(errp, "a VM has one key for all of its memory, and this "
                   "one was started with %s; use the same key-secret",
                   conn.encrypted ? "another one" : "none");
    }
    return same;
}

static bool same_config(const ManagedConfig *config, Error **errp)
{
    if (strcmp(config->path, conn.path)) {
        error_setg(errp, "this VM's memory manager is at '%s'; a second one "
                   "at '%s' is not possible, use the same path", conn.path,
                   config->path);
        return false;
    }
    return same_key(config->key_secret, errp);
}

bool managed_conn_open(const ManagedConfig *config, Error **errp)
{
    if (conn.state == MANAGED_CONN_NONE) {
        return first_attach(config, errp);
    }
    if (conn.state == MANAGED_CONN_DETACHED) {
        error_setg(errp, "this VM was detached from its memory manager; "
                   "restart it to have managed memory again");
        return false;
    }
    if (!same_config(config, errp)) {
        return false;
    }
    if (!managed_conn_wait(MANAGED_HELLO_TIMEOUT_MS)) {
        error_setg(errp, "the pager of this VM is lost and the memory manager "
                   "at '%s' does not answer; try again when it runs",
                   config->path);
        return false;
    }
    return true;
}

/*
 * The folder is what counts: a manager that has just been restarted may be
 * about to make its socket.
 */
bool managed_conn_check_path(Error **errp)
{
    struct stat st;
    int ret;

    if (!conn.path) {
        return true;
    }
    ret = stat_folder(conn.path, &st);
    if (ret == 0 && (st.st_dev != conn.folder_dev ||
                     st.st_ino != conn.folder_ino)) {
        ret = -ENOENT;
    }
    if (ret == 0 && faccessat(AT_FDCWD, conn.path, W_OK, AT_EACCESS) &&
        errno == EACCES) {
        ret = -EACCES;
    }
    if (ret == -EACCES) {
        error_setg(errp, "managed memory cannot be used with this -runas: "
                   "the user may not connect to '%s', which is needed when a "
                   "pager is lost; allow it (--attach-mode and --attach-group "
                   "of qemu-memory-manager)", conn.path);
    } else if (ret < 0) {
        error_setg(errp, "managed memory cannot be used with this -chroot: "
                   "the memory manager's '%s' is not there, and is needed "
                   "when a pager is lost; mount its folder at the same path "
                   "within the new root, or leave out -chroot", conn.path);
    }
    return ret == 0;
}
