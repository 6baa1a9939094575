/*
 * Managed memory: sending and receiving messages
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The only code that looks at raw datagrams.  Whatever arrives is hostile
 * until mm_msg_check() has passed it: after that, the payload has the size of
 * its type, texts end within their arrays, counts lie in range, and there are
 * as many descriptors as the type allows.  What the values mean is checked by
 * whoever handles the message.
 */
#include "qemu/osdep.h"
#include <sys/mman.h>
#include <sys/socket.h>
#include <linux/memfd.h>
#include <poll.h>
#include "qemu/cutils.h"
#include "managed-memory/msg.h"

typedef struct MmMsgRule {
    const char *name;
    uint32_t len;               /* of the payload in bytes */
    int min_fds;
    int max_fds;
} MmMsgRule;

static const MmMsgRule rules[MM_MSG__MAX] = {
    [MM_MSG_OK] = { "OK", 0, 0, 0 },
    [MM_MSG_ERROR] = { "ERROR", sizeof(MmMsgError), 0, 0 },
    [MM_MSG_HELLO] = { "HELLO", sizeof(MmMsgHello), 0, 0 },
    [MM_MSG_RESUME_VM] = { "RESUME_VM", sizeof(MmMsgResumeVM),
                           MM_RESUME_FD__MAX, MM_RESUME_FD__MAX },
    [MM_MSG_RESUME_HOLD] = { "RESUME_HOLD", sizeof(MmMsgHold), 1, 1 },
    [MM_MSG_RESUME_REGION] = { "RESUME_REGION", sizeof(MmMsgRegion),
                               MM_REGION_FD__MAX, MM_REGION_FD__MAX },
    [MM_MSG_RESUME_END] = { "RESUME_END", 0, 0, 0 },
    [MM_MSG_UFFD] = { "UFFD", 0, 1, 1 },
    [MM_MSG_REGION_ADD] = { "REGION_ADD", sizeof(MmMsgRegion), 0, 0 },
    [MM_MSG_REGION_READY] = { "REGION_READY", sizeof(MmMsgRegionRef), 0, 0 },
    [MM_MSG_REGION_REMOVE] = { "REGION_REMOVE", sizeof(MmMsgRegionRef), 0, 0 },
    [MM_MSG_HELLO_REPLY] = { "HELLO_REPLY", sizeof(MmMsgHelloReply),
                             MM_HELLO_FD_UFFD_DEV, MM_HELLO_FD__MAX },
    [MM_MSG_REGION_ADDED] = { "REGION_ADDED", sizeof(MmMsgRegionRef),
                              MM_REGION_FD__MAX, MM_REGION_FD__MAX },
    [MM_MSG_HOLD] = { "HOLD", sizeof(MmMsgHold), 0, 1 },
    [MM_MSG_EVENT] = { "EVENT", sizeof(MmMsgEvent), 0, 0 },
    [MM_MSG_DETACHED] = { "DETACHED", 0, 0, 0 },
    [MM_MSG_ZAP] = { "ZAP", sizeof(MmMsgZap), 0, 0 },   /* and its ranges */
    [MM_MSG_ZAP_DONE] = { "ZAP_DONE", 0, 0, 0 },
    [MM_MSG_SET_LIMIT] = { "SET_LIMIT", sizeof(MmMsgAmount), 0, 0 },
    [MM_MSG_QUERY] = { "QUERY", 0, 0, 0 },
    [MM_MSG_QUERY_REPLY] = { "QUERY_REPLY", sizeof(MmMsgQueryReply), 0, 0 },
    [MM_MSG_START_TIER] = { "START_TIER", sizeof(MmMsgStartTier),
                            0, MM_TIER_DEVICE_FD__MAX },
    [MM_MSG_START] = { "START", sizeof(MmMsgStart),
                       MM_START_FD_UFFD_DEV, MM_START_FD__MAX },
    [MM_MSG_CONTROL_HELLO] = { "CONTROL_HELLO", 0, 0, 1 },
    [MM_MSG_CONTROL_INFO] = { "CONTROL_INFO", sizeof(MmMsgControlInfo), 0, 0 },
    [MM_MSG_QUERY_REGION] = { "QUERY_REGION", sizeof(MmMsgRegionRef), 0, 0 },
    [MM_MSG_REGION_INFO] = { "REGION_INFO", sizeof(MmMsgRegionInfo), 0, 0 },
    [MM_MSG_EVICT] = { "EVICT", sizeof(MmMsgAmount), 0, 0 },
    [MM_MSG_SWAP_IN] = { "SWAP_IN", 0, 0, 0 },
    [MM_MSG_DETACH] = { "DETACH", 0, 0, 0 },
    [MM_MSG_GIVE_UP] = { "GIVE_UP", 0, 0, 0 },
    [MM_MSG_AMOUNT] = { "AMOUNT", sizeof(MmMsgAmount), 0, 0 },
    [MM_MSG_SET_TIER] = { "SET_TIER", sizeof(MmMsgSetTier), 0, 0 },
    [MM_MSG_SET_DRAINING] = { "SET_DRAINING", sizeof(MmMsgSetDraining), 0, 0 },
    [MM_MSG_SET_IO_LIMITS] = { "SET_IO_LIMITS", sizeof(MmMsgSetIOLimits),
                               0, 0 },
    [MM_MSG_SET_SPARED] = { "SET_SPARED", sizeof(MmMsgSetSpared), 0, 0 },
    [MM_MSG_PREFETCH] = { "PREFETCH", 0, 0, 0 },
    [MM_MSG_KEY] = { "KEY", sizeof(MmMsgKey), 0, 0 },
    [MM_MSG_UNPIN] = { "UNPIN", 0, 0, 0 },
    [MM_MSG_HANDOVER] = { "HANDOVER", sizeof(MmMsgHandover), 0, 0 },
};

QEMU_BUILD_BUG_ON(sizeof(MmMsgZap) + MM_ZAP_MAX_RANGES * sizeof(MmRange) >
                  MM_MSG_MAX - sizeof(MmMsgHeader));

const char *mm_msg_type_name(uint32_t type)
{
    if (type >= MM_MSG__MAX || !rules[type].name) {
        return "unknown";
    }
    return rules[type].name;
}

static bool text_ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static bool check_texts(const MmMsg *msg)
{
    const void *p = msg->payload;

    switch (msg->hdr.type) {
    case MM_MSG_ERROR:
        return text_ends(((const MmMsgError *)p)->text,
                         sizeof(((MmMsgError *)0)->text));
    case MM_MSG_HELLO:
        return text_ends(((const MmMsgHello *)p)->name, MM_NAME_LEN);
    case MM_MSG_RESUME_REGION:
    case MM_MSG_REGION_ADD:
        return text_ends(((const MmMsgRegion *)p)->idstr, MM_IDSTR_LEN);
    case MM_MSG_EVENT:
        return text_ends(((const MmMsgEvent *)p)->text,
                         sizeof(((MmMsgEvent *)0)->text));
    case MM_MSG_START_TIER:
        return text_ends(((const MmMsgStartTier *)p)->name, MM_NAME_LEN) &&
               text_ends(((const MmMsgStartTier *)p)->file, MM_FILE_LEN);
    case MM_MSG_HANDOVER:
        return text_ends(((const MmMsgHandover *)p)->file, MM_FILE_LEN);
    case MM_MSG_START:
        return text_ends(((const MmMsgStart *)p)->name, MM_NAME_LEN);
    case MM_MSG_CONTROL_INFO:
        return text_ends(((const MmMsgControlInfo *)p)->name, MM_NAME_LEN);
    case MM_MSG_REGION_INFO:
        return text_ends(((const MmMsgRegionInfo *)p)->idstr, MM_IDSTR_LEN);
    default:
        return true;
    }
}

static bool check_zap(const MmMsg *msg)
{
    const MmMsgZap *zap = (const void *)msg->payload;

    return zap->nr_ranges >= 1 && zap->nr_ranges <= MM_ZAP_MAX_RANGES &&
           msg->hdr.len == sizeof(*zap) +
                           zap->nr_ranges * sizeof(zap->ranges[0]);
}

bool mm_msg_check(const MmMsg *msg)
{
    const MmMsgRule *rule;

    if (msg->hdr.type >= MM_MSG__MAX || !rules[msg->hdr.type].name) {
        return false;
    }
    rule = &rules[msg->hdr.type];
    if (msg->nr_fds < rule->min_fds || msg->nr_fds > rule->max_fds ||
        msg->hdr.len < rule->len) {
        return false;
    }
    if (msg->hdr.type == MM_MSG_ZAP) {
        return check_zap(msg);
    }
    return msg->hdr.len == rule->len && check_texts(msg);
}

static int send_with(int sock, MmMsgType type, uint64_t seq,
                     const void *payload, size_t len,
                     const int *fds, int nr_fds, int flags)
{
    MmMsgHeader hdr = { .type = type, .len = len, .seq = seq };
    struct iovec iov[2] = {
        { .iov_base = &hdr, .iov_len = sizeof(hdr) },
        { .iov_base = (void *)payload, .iov_len = len },
    };
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(MM_MSG_MAX_FDS * sizeof(int))];
    } control = {};
    struct msghdr mh = { .msg_iov = iov, .msg_iovlen = len ? 2 : 1 };
    ssize_t ret;

    assert(len <= MM_MSG_MAX - sizeof(hdr) && nr_fds <= MM_MSG_MAX_FDS);
    if (nr_fds) {
        struct cmsghdr *cmsg = &control.align;

        mh.msg_control = &control;
        mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
    }
    ret = TEMP_FAILURE_RETRY(sendmsg(sock, &mh, MSG_NOSIGNAL | flags));
    return ret < 0 ? -errno : 0;
}

int mm_msg_send(int sock, MmMsgType type, uint64_t seq,
                const void *payload, size_t len,
                const int *fds, int nr_fds)
{
    return send_with(sock, type, seq, payload, len, fds, nr_fds, 0);
}

int mm_msg_try_send(int sock, MmMsgType type, const void *payload, size_t len)
{
    return send_with(sock, type, 0, payload, len, NULL, 0, MSG_DONTWAIT);
}

int mm_msg_send_error(int sock, uint64_t seq, int err, const char *text)
{
    MmMsgError payload = { .err = err };

    pstrcpy(payload.text, sizeof(payload.text), text);
    return mm_msg_send(sock, MM_MSG_ERROR, seq, &payload, sizeof(payload),
                       NULL, 0);
}

static void collect_fds(MmMsg *msg, struct msghdr *mh)
{
    struct cmsghdr *cmsg;

    for (cmsg = CMSG_FIRSTHDR(mh); cmsg; cmsg = CMSG_NXTHDR(mh, cmsg)) {
        size_t nr;

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        /* the control buffer has room for MM_MSG_MAX_FDS, not for more */
        assert(msg->nr_fds + nr <= MM_MSG_MAX_FDS);
        memcpy(&msg->fds[msg->nr_fds], CMSG_DATA(cmsg), nr * sizeof(int));
        msg->nr_fds += nr;
    }
}

static int wait_readable(int sock, int timeout_ms)
{
    struct pollfd pfd = { .fd = sock, .events = POLLIN };
    int ret = TEMP_FAILURE_RETRY(poll(&pfd, 1, timeout_ms));

    if (ret < 0) {
        return -errno;
    }
    return ret ? 0 : -ETIMEDOUT;
}

/*
 * An empty datagram reads like the end of the connection, but the end of the
 * connection says that its other end is gone.  Only what its sender has left
 * behind counts as the end, too.
 */
static bool has_ended(int sock)
{
    struct pollfd pfd = { .fd = sock, .events = POLLRDHUP };

    return TEMP_FAILURE_RETRY(poll(&pfd, 1, 0)) > 0;
}

int mm_msg_recv(int sock, MmMsg *msg, int timeout_ms)
{
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(MM_MSG_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov[2] = {
        { .iov_base = &msg->hdr, .iov_len = sizeof(msg->hdr) },
        { .iov_base = msg->payload, .iov_len = sizeof(msg->payload) },
    };
    struct msghdr mh = {
        .msg_iov = iov, .msg_iovlen = 2,
        .msg_control = &control, .msg_controllen = sizeof(control),
    };
    ssize_t ret;

    msg->nr_fds = 0;
    if (timeout_ms >= 0) {
        ret = wait_readable(sock, timeout_ms);
        if (ret < 0) {
            return ret;
        }
    }
    ret = TEMP_FAILURE_RETRY(recvmsg(sock, &mh, MSG_CMSG_CLOEXEC));
    if (ret < 0) {
        return -errno;
    }
    collect_fds(msg, &mh);
    if (ret == 0 && !msg->nr_fds && !(mh.msg_flags & MSG_CTRUNC) &&
        has_ended(sock)) {
        return 0;
    }
    if ((mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
        ret < sizeof(msg->hdr) || msg->hdr.len != ret - sizeof(msg->hdr) ||
        !mm_msg_check(msg)) {
        return -EPROTO;
    }
    return 1;
}

int mm_msg_take_fd(MmMsg *msg, int index)
{
    int fd = -1;

    if (index >= 0 && index < msg->nr_fds) {
        fd = msg->fds[index];
        msg->fds[index] = -1;
    }
    return fd;
}

void mm_msg_clear(MmMsg *msg)
{
    int i;

    for (i = 0; i < msg->nr_fds; i++) {
        if (msg->fds[i] >= 0) {
            close(msg->fds[i]);
        }
    }
    msg->nr_fds = 0;
}

static int seal_memfd(const char *name, uint64_t size, unsigned flags)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

    if (fd < 0) {
        return -errno;
    }
    if (fchmod(fd, 0600) || ftruncate(fd, size) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        int ret = -errno;

        close(fd);
        return ret;
    }
    return fd;
}

int mm_seal_memfd(const char *name, uint64_t size)
{
    return seal_memfd(name, size, 0);
}

int mm_seal_huge_memfd(const char *name, uint64_t size)
{
    return seal_memfd(name, size, MFD_HUGETLB | MFD_HUGE_2MB);
}
