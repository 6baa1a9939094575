/*
 * Managed memory: introducing this VM to the manager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One function: connect, say HELLO, hand back what a former pager has left
 * with us if there was one, and wait for the pager's HELLO_REPLY.  The manager
 * reads the HELLO only; it then hands the connection to the VM's pager.
 *
 * Introducing a new VM takes a bounded time: the kernel limits connect() and
 * sends (SO_SNDTIMEO), poll() the answer.  A resume that has failed ends when
 * the peer has: a pager that is merely slow already has the VM's descriptors,
 * and may execute a discard at any time.
 */
#include "qemu/osdep.h"
#include <grp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/memfd.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "sysemu/sysemu.h"
#include "backends/managed-memory-internal.h"

#define SEND_TIMEOUT_S 5

/* By number where it has no name, which is none to be searched for long. */
static char *group_name(gid_t gid)
{
    char buf[1024];
    struct group group, *found;

    return getgrgid_r(gid, &group, buf, sizeof(buf), &found) == 0 && found
           ? g_strdup(group.gr_name) : g_strdup_printf("%d", (int)gid);
}

static void hint_at_access(const char *path, Error **errp)
{
    struct stat st;

    if (stat(path, &st)) {
        error_append_hint(errp, "QEMU's user has to be let into the socket's "
                          "folder.\n");
    } else if ((st.st_mode & S_IWGRP) && st.st_gid) {
        g_autofree char *group = group_name(st.st_gid);

        error_append_hint(errp, "The socket is for group '%s': put QEMU's "
                          "user into it, or start qemu-memory-manager with "
                          "another --attach-group.\n", group);
    } else {
        /* nobody should be put into root's group */
        error_append_hint(errp, "The socket is for user %d alone: start "
                          "qemu-memory-manager with --attach-group GROUP, "
                          "and another --attach-mode if it has one.\n",
                          (int)st.st_uid);
    }
}

static void connect_failed(const char *path, int err, Error **errp)
{
    ERRP_GUARD();

    if (err == EACCES || err == EPERM) {
        error_setg_errno(errp, err, "QEMU's user may not use the memory "
                         "manager's socket '%s'", path);
        hint_at_access(path, errp);
    } else {
        error_setg_errno(errp, err, "cannot reach the memory manager at "
                         "'%s'; is qemu-memory-manager running, and is this "
                         "its attach socket (property 'path')?", path);
    }
}

static int connect_socket(const char *path, Error **errp)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    struct timeval timeout = { .tv_sec = SEND_TIMEOUT_S };
    int sock;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        error_setg(errp, "the path of the memory manager's socket is longer "
                   "than %zu characters: '%s'", sizeof(addr.sun_path) - 1,
                   path);
        return -1;
    }
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    sock = qemu_socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (sock < 0) {
        error_setg_errno(errp, errno, "cannot make a socket");
        return -1;
    }
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    if (connect(sock, (struct sockaddr *)&addr, sizeof(addr))) {
        connect_failed(path, errno, errp);
        close(sock);
        return -1;
    }
    return sock;
}

static int send_hello(int sock, const ManagedResume *resume)
{
    MmMsgHello hello = {
        .version_min = MM_PROTO_VERSION_MIN,
        .version_max = MM_PROTO_VERSION_MAX,
        .flags = resume ? MM_HELLO_RESUME : 0,
        .pid = getpid(),
    };

    pstrcpy(hello.name, sizeof(hello.name), qemu_get_vm_name() ?: "");
    if (resume) {
        memcpy(hello.uuid, resume->uuid, sizeof(hello.uuid));
        memcpy(hello.cookie, resume->cookie, sizeof(hello.cookie));
    }
    return mm_msg_send(sock, MM_MSG_HELLO, 1, &hello, sizeof(hello), NULL, 0);
}

static int send_region(int sock, const ManagedRegion *region)
{
    MmMsgRegion msg = {
        .id = region->id,
        .page_size = region->page_size,
        .size = region->size,
        .limit = region->limit,
        .hva = (uintptr_t)region->hva,
    };

    pstrcpy(msg.idstr, sizeof(msg.idstr), region->idstr);
    return mm_msg_send(sock, MM_MSG_RESUME_REGION, 0, &msg, sizeof(msg),
                       region->fds, MM_REGION_FD__MAX);
}

static int send_resume(int sock, const ManagedResume *resume)
{
    MmMsgResumeVM vm = {
        .nr_regions = resume->regions->len,
        .nr_holds = resume->holds->len,
        .lost_ns = resume->lost_ns,
        .pinned = resume->pinned,
    };
    int fds[MM_RESUME_FD__MAX] = {
        [MM_RESUME_FD_STATE] = resume->fds.state,
        [MM_RESUME_FD_RING] = resume->fds.ring,
        [MM_RESUME_FD_KICK] = resume->kick,
        [MM_RESUME_FD_UFFD] = resume->fds.uffd,
    };
    unsigned i;
    int ret;

    ret = mm_msg_send(sock, MM_MSG_RESUME_VM, 0, &vm, sizeof(vm), fds,
                      MM_RESUME_FD__MAX);
    for (i = 0; ret == 0 && i < resume->holds->len; i++) {
        ManagedHold *hold = &g_array_index(resume->holds, ManagedHold, i);

        ret = mm_msg_send(sock, MM_MSG_RESUME_HOLD, 0, &hold->what,
                          sizeof(hold->what), &hold->fd, 1);
    }
    for (i = 0; ret == 0 && i < resume->regions->len; i++) {
        ret = send_region(sock, resume->regions->pdata[i]);
    }
    if (ret == 0 && resume->key) {
        ret = mm_msg_send(sock, MM_MSG_KEY, 0, resume->key,
                          sizeof(*resume->key), NULL, 0);
    }
    if (ret == 0) {
        ret = mm_msg_send(sock, MM_MSG_RESUME_END, 1, NULL, 0, NULL, 0);
    }
    return ret;
}

static bool check_reply(const MmMsg *reply, MmMsgType want, Error **errp)
{
    const MmMsgError *error = (const void *)reply->payload;

    if (reply->hdr.type == want) {
        return true;
    }
    if (reply->hdr.type == MM_MSG_ERROR) {
        error_setg(errp, "the memory manager refuses this VM: %s",
                   error->text);
    } else {
        error_setg(errp, "the memory manager sent %s instead of %s",
                   mm_msg_type_name(reply->hdr.type), mm_msg_type_name(want));
    }
    return false;
}

static bool check_version(const MmMsg *reply, Error **errp)
{
    const MmMsgHelloReply *hello = (const void *)reply->payload;

    if (hello->version < MM_PROTO_VERSION_MIN ||
        hello->version > MM_PROTO_VERSION_MAX) {
        error_setg(errp, "the memory manager speaks protocol version "
                   "%u, this QEMU %u to %u; install matching versions",
                   hello->version, MM_PROTO_VERSION_MIN,
                   MM_PROTO_VERSION_MAX);
        return false;
    }
    return true;
}

/* Returns 0, -EAGAIN if the manager has ended, or another error. */
static int wait_reply(int sock, int timeout_ms, MmMsgType want, MmMsg *reply,
                      void (*on_message)(MmMsg *msg), Error **errp)
{
    int64_t deadline = qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + timeout_ms;

    for (;;) {
        int64_t left = deadline - qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
        int ret = mm_msg_recv(sock, reply, MAX(left, 0));

        if (ret == 0 || ret == -ECONNRESET) {
            error_setg(errp, "the memory manager has closed the connection; "
                       "its log says why");
            return -EAGAIN;
        }
        if (ret == -ETIMEDOUT) {
            error_setg(errp, "the memory manager has accepted the connection "
                       "but did not answer within %d ms", timeout_ms);
            return ret;
        }
        if (ret < 0) {
            error_setg_errno(errp, -ret, "bad answer from the memory manager");
            return -EPROTO;
        }
        if (!on_message || (reply->hdr.type != MM_MSG_HOLD &&
                            reply->hdr.type != MM_MSG_EVENT)) {
            return check_reply(reply, want, errp) ? 0 : -EREMOTEIO;
        }
        on_message(reply);
        mm_msg_clear(reply);
    }
}

void managed_wait_gone(int sock, MmMsg *msg, void (*on_message)(MmMsg *msg))
{
    int ret;

    shutdown(sock, SHUT_WR);
    do {
        ret = mm_msg_recv(sock, msg, -1);
        if (ret > 0 && msg->hdr.type == MM_MSG_HOLD) {
            on_message(msg);
        }
        mm_msg_clear(msg);
    } while (ret > 0 || ret == -EPROTO);
}

int managed_attach(const char *path, const ManagedResume *resume,
                   MmMsg *reply, void (*on_message)(MmMsg *msg),
                   Error **errp)
{
    int timeout = resume ? MANAGED_RESUME_TIMEOUT_MS : MANAGED_HELLO_TIMEOUT_MS;
    int sock = connect_socket(path, errp);
    int ret;

    if (sock < 0) {
        return -1;
    }
    ret = send_hello(sock, resume);
    if (ret == 0 && resume) {
        ret = send_resume(sock, resume);
    }
    /* The reason may have come back before the peer hung up: read first. */
    if (wait_reply(sock, ret < 0 ? 0 : timeout, MM_MSG_HELLO_REPLY, reply,
                   on_message, errp) < 0 || !check_version(reply, errp)) {
        if (resume) {
            managed_wait_gone(sock, reply, on_message);
        }
        close(sock);
        return -1;
    }
    return sock;
}

int managed_attach_handover(const char *path, const MmMsgHandover *request,
                            int timeout_ms, MmMsgType want, MmMsg *reply,
                            Error **errp)
{
    int sock = connect_socket(path, errp);
    int ret;

    if (sock < 0) {
        return -ECONNREFUSED;
    }
    ret = mm_msg_send(sock, MM_MSG_HANDOVER, 1, request, sizeof(*request),
                      NULL, 0);
    ret = wait_reply(sock, ret < 0 ? 0 : timeout_ms, want, reply, NULL, errp);
    close(sock);
    return ret;
}

bool managed_attach_key(int sock, const MmMsgKey *key, MmMsg *reply,
                        void (*on_message)(MmMsg *msg), Error **errp)
{
    int ret = mm_msg_send(sock, MM_MSG_KEY, 1, key, sizeof(*key), NULL, 0);
    bool ok = wait_reply(sock, ret < 0 ? 0 : MANAGED_HELLO_TIMEOUT_MS,
                         MM_MSG_OK, reply, on_message, errp) == 0;

    mm_msg_clear(reply);
    return ok;
}

bool managed_check_memfd(int fd, uint64_t size, const char *what,
                         Error **errp)
{
    const int need = F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & need) != need) {
        error_setg(errp, "the memory manager sent a %s that is not sealed "
                   "against resizing", what);
        return false;
    }
    if (fstat(fd, &st) || st.st_size < size) {
        error_setg(errp, "the memory manager sent a %s that is smaller than "
                   "%" PRIu64 " bytes", what, size);
        return false;
    }
    return true;
}
