/*
 * Fuzz target: protocol codec
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Input: a byte of how to send it, then the datagram.  What is accepted is
 * used as its receivers do, from a copy that is not one byte larger than the
 * payload; and no descriptor may be left behind.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "managed-memory/msg.h"
#include "fuzz.h"

/* Bits of the first byte. */
#define NR_FDS 0x0f
#define FLOOD 0x10              /* more descriptors than fit */
#define RIGHT_LEN 0x20          /* the header's length is put right */
#define RIGHT_TYPE 0x40         /* the type is one that exists */

#define MAX_FLOOD 253

static int pair[2];
static int next_fd;

static void use_text(const char *text)
{
    /* as long as the sanitizer lets it be */
    g_assert(strlen(text) < MM_MSG_MAX);
}

static void use_zap(const MmMsgZap *zap)
{
    uint64_t sum = 0;
    uint32_t i;

    for (i = 0; i < zap->nr_ranges; i++) {
        sum += zap->ranges[i].first_page + zap->ranges[i].nr_pages +
               zap->ranges[i].region;
    }
    g_assert(zap->nr_ranges && (sum || !sum));
}

static void use(uint32_t type, const void *p)
{
    switch (type) {
    case MM_MSG_ERROR:
        use_text(((const MmMsgError *)p)->text);
        break;
    case MM_MSG_HELLO:
        use_text(((const MmMsgHello *)p)->name);
        break;
    case MM_MSG_RESUME_REGION:
    case MM_MSG_REGION_ADD:
        use_text(((const MmMsgRegion *)p)->idstr);
        break;
    case MM_MSG_EVENT:
        use_text(((const MmMsgEvent *)p)->text);
        break;
    case MM_MSG_ZAP:
        use_zap(p);
        break;
    case MM_MSG_START_TIER:
        use_text(((const MmMsgStartTier *)p)->name);
        break;
    case MM_MSG_START:
        use_text(((const MmMsgStart *)p)->name);
        break;
    case MM_MSG_CONTROL_INFO:
        use_text(((const MmMsgControlInfo *)p)->name);
        break;
    case MM_MSG_REGION_INFO:
        use_text(((const MmMsgRegionInfo *)p)->idstr);
        break;
    default:
        break;
    }
}

static void send_datagram(const void *data, size_t len, unsigned nr_fds)
{
    static char control[CMSG_SPACE(MAX_FLOOD * sizeof(int))];
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *cmsg = (void *)control;
    unsigned i;

    if (nr_fds) {
        mh.msg_control = control;
        mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        for (i = 0; i < nr_fds; i++) {
            ((int *)CMSG_DATA(cmsg))[i] = STDIN_FILENO;
        }
    }
    g_assert(sendmsg(pair[0], &mh, 0) == len);
}

static void receive(void)
{
    static MmMsg msg;
    g_autofree void *copy = NULL;
    int ret = mm_msg_recv(pair[1], &msg, 0);

    g_assert(ret == 1 || ret == 0 || ret == -EPROTO);
    if (ret == 1) {
        int fd = mm_msg_take_fd(&msg, msg.hdr.seq % MM_MSG_MAX_FDS);

        g_assert(msg.nr_fds <= MM_MSG_MAX_FDS);
        if (fd >= 0) {
            close(fd);
        }
        copy = g_memdup2(msg.payload, msg.hdr.len);
        use(msg.hdr.type, copy);
    }
    mm_msg_clear(&msg);
    g_assert(fuzz_next_fd() == next_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree uint8_t *datagram = NULL;
    MmMsgHeader *hdr;
    unsigned how, nr_fds;

    if (size < 1 || size > MM_MSG_MAX + 4096) {
        return 0;
    }
    how = *data++;
    size--;
    datagram = g_memdup2(data, size);
    hdr = (void *)datagram;
    if (size >= sizeof(*hdr) && (how & RIGHT_LEN)) {
        hdr->len = size - sizeof(*hdr);
    }
    if (size >= sizeof(*hdr) && (how & RIGHT_TYPE)) {
        hdr->type %= MM_MSG__MAX;
    }
    nr_fds = how & FLOOD ? MAX_FLOOD - (how & NR_FDS) : how & NR_FDS;
    send_datagram(datagram, size, nr_fds);
    receive();
    return 0;
}

/* A message of each type; the fuzzer finds the numbers of descriptors. */
static void write_seeds(void)
{
    static const size_t lengths[] = {
        0, sizeof(MmMsgAmount), sizeof(MmMsgRegionRef), sizeof(MmMsgHold),
        sizeof(MmMsgError), sizeof(MmMsgHello), sizeof(MmMsgRegion),
        sizeof(MmMsgEvent), sizeof(MmMsgZap) + 3 * sizeof(MmRange),
        sizeof(MmMsgStartTier), sizeof(MmMsgStart), sizeof(MmMsgControlInfo),
        sizeof(MmMsgRegionInfo), sizeof(MmMsgHelloReply),
        sizeof(MmMsgQueryReply), sizeof(MmMsgResumeVM),
    };
    static uint8_t data[1 + MM_MSG_MAX];
    MmMsg msg = {};
    unsigned type, i, nr_fds;

    ((MmMsgZap *)msg.payload)->nr_ranges = 3;
    for (type = 1; type < MM_MSG__MAX; type++) {
        for (i = 0; i < ARRAY_SIZE(lengths); i++) {
            for (nr_fds = 0; nr_fds <= MM_MSG_MAX_FDS; nr_fds++) {
                msg.hdr.type = type;
                msg.hdr.len = lengths[i];
                msg.nr_fds = nr_fds;
                if (mm_msg_check(&msg)) {
                    data[0] = nr_fds;
                    memcpy(data + 1, &msg.hdr, sizeof(msg.hdr));
                    memcpy(data + 1 + sizeof(msg.hdr), msg.payload,
                           lengths[i]);
                    fuzz_seed(mm_msg_type_name(type), data,
                              1 + sizeof(msg.hdr) + lengths[i]);
                }
            }
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(*argc, *argv, write_seeds);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        abort();
    }
    next_fd = fuzz_next_fd();
    return 0;
}
