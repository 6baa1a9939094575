/*
 * Managed memory qtests: a manager and pager that obey the test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "qemu/cutils.h"
#include "managed-memory-fake.h"
#include "managed-memory-host.h"

/* more than one message may carry */
#define MAX_RAW_FDS 32

MmFake *mm_fake_new(void)
{
    MmFake *fake = g_new0(MmFake, 1);
    struct sockaddr_un addr = { .sun_family = AF_UNIX };

    fake->dir = g_dir_make_tmp("qtest-fake-XXXXXX", NULL);
    g_assert(fake->dir);
    fake->path = g_build_filename(fake->dir, "attach.sock", NULL);
    pstrcpy(addr.sun_path, sizeof(addr.sun_path), fake->path);
    fake->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fake->listener, (struct sockaddr *)&addr,
                         sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(fake->listener, 8), ==, 0);
    fake->sock = fake->zap = -1;
    fake->msg = g_new0(MmMsg, 1);
    return fake;
}

void mm_fake_close(MmFake *fake)
{
    mm_msg_clear(fake->msg);
    if (fake->sock >= 0) {
        close(fake->sock);
        fake->sock = -1;
    }
    if (fake->zap >= 0) {
        close(fake->zap);
        fake->zap = -1;
    }
}

void mm_fake_free(MmFake *fake)
{
    mm_fake_close(fake);
    close(fake->listener);
    unlink(fake->path);
    rmdir(fake->dir);
    g_free(fake->dir);
    g_free(fake->path);
    g_free(fake->msg);
    g_free(fake);
}

void mm_fake_accept(MmFake *fake)
{
    struct pollfd pfd = { .fd = fake->listener, .events = POLLIN };

    g_assert_cmpint(fake->sock, ==, -1);
    g_assert_cmpint(poll(&pfd, 1, MM_WAIT_MS), ==, 1);
    fake->sock = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
    g_assert_cmpint(fake->sock, >=, 0);
}

/* ---- messages ---- */

const void *mm_fake_recv(MmFake *fake, MmMsgType type)
{
    int ret;

    mm_msg_clear(fake->msg);
    ret = mm_msg_recv(fake->sock, fake->msg, MM_WAIT_MS);
    if (ret != 1) {
        mm_fail("%s instead of %s", ret ? strerror(-ret) : "end",
                mm_msg_type_name(type));
    }
    if (fake->msg->hdr.type != type) {
        mm_fail("%s instead of %s", mm_msg_type_name(fake->msg->hdr.type),
                mm_msg_type_name(type));
    }
    return fake->msg->payload;
}

void mm_fake_recv_end(MmFake *fake)
{
    int ret;

    do {
        mm_msg_clear(fake->msg);
        ret = mm_msg_recv(fake->sock, fake->msg, MM_WAIT_MS);
    } while (ret > 0);
    g_assert(ret == 0 || ret == -ECONNRESET);
    mm_fake_close(fake);
}

void mm_fake_send(MmFake *fake, MmMsgType type, const void *payload,
                  size_t len, const int *fds, int nr_fds)
{
    g_assert_cmpint(mm_msg_send(fake->sock, type, fake->msg->hdr.seq, payload,
                                len, fds, nr_fds), ==, 0);
}

void mm_fake_send_raw(MmFake *fake, const void *data, size_t len, int nr_fds)
{
    char control[CMSG_SPACE(MAX_RAW_FDS * sizeof(int))] = {};
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    int fds[MAX_RAW_FDS];
    int i;

    if (nr_fds) {
        struct cmsghdr *cmsg = (struct cmsghdr *)control;

        for (i = 0; i < nr_fds; i++) {
            fds[i] = STDERR_FILENO;
        }
        mh.msg_control = control;
        mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
    }
    g_assert_cmpint(sendmsg(fake->sock, &mh, MSG_NOSIGNAL), ==, len);
}

void mm_fake_ok(MmFake *fake)
{
    mm_fake_send(fake, MM_MSG_OK, NULL, 0, NULL, 0);
}

void mm_fake_error(MmFake *fake, int err, const char *text)
{
    g_assert_cmpint(mm_msg_send_error(fake->sock, fake->msg->hdr.seq, err,
                                      text), ==, 0);
}

/* ---- files ---- */

static int make_file(uint64_t size, bool sealed)
{
    int fd;

    if (sealed) {
        fd = mm_seal_memfd("fake", size);
    } else {
        fd = memfd_create("fake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        g_assert_cmpint(ftruncate(fd, size), ==, 0);
    }
    g_assert_cmpint(fd, >=, 0);
    return fd;
}

static int reopen_readonly(int fd)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    int readonly = open(path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(readonly, >=, 0);
    close(fd);
    return readonly;
}

static void close_all(int *fds, int nr)
{
    int i;

    for (i = 0; i < nr; i++) {
        close(fds[i]);
    }
}

/* ---- HELLO ---- */

void mm_fake_hello(MmFake *fake, const MmFakeHello *how)
{
    static const MmFakeHello good;
    MmMsgHelloReply reply = {};
    int fds[MM_MSG_MAX_FDS];
    int zap[2], i;

    how = how ?: &good;
    reply.version = how->version ?: MM_PROTO_VERSION_MAX;
    memset(reply.uuid, how->uuid, sizeof(reply.uuid));
    memset(reply.cookie, 'c', sizeof(reply.cookie));
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                               zap), ==, 0);
    fds[MM_HELLO_FD_STATE] = make_file(MM_STATE_SIZE, true);
    fds[MM_HELLO_FD_RING] = make_file(how->ring_size ?: sizeof(MmRing),
                                      !how->unsealed_ring);
    if (how->readonly_ring) {
        fds[MM_HELLO_FD_RING] = reopen_readonly(fds[MM_HELLO_FD_RING]);
    }
    fds[MM_HELLO_FD_KICK] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fds[MM_HELLO_FD_ZAP] = zap[1];
    fds[MM_HELLO_FD_UFFD_DEV] = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    for (i = MM_HELLO_FD__MAX; i < MM_MSG_MAX_FDS; i++) {
        fds[i] = dup(zap[1]);
    }
    mm_fake_send(fake, MM_MSG_HELLO_REPLY, &reply, sizeof(reply), fds,
                 how->nr_fds ?: MM_HELLO_FD__MAX);
    close_all(fds, MM_MSG_MAX_FDS);
    if (fake->zap >= 0) {
        close(fake->zap);
    }
    fake->zap = zap[0];
}

void mm_fake_attach(MmFake *fake)
{
    mm_fake_accept(fake);
    mm_fake_recv(fake, MM_MSG_HELLO);
    mm_fake_hello(fake, NULL);
    mm_fake_recv(fake, MM_MSG_UFFD);
}

void mm_fake_resume(MmFake *fake, unsigned nr_regions, unsigned nr_holds)
{
    const MmMsgHello *hello;
    const MmMsgResumeVM *vm;
    unsigned i;

    mm_fake_accept(fake);
    hello = mm_fake_recv(fake, MM_MSG_HELLO);
    g_assert_cmpint(hello->flags, ==, MM_HELLO_RESUME);
    vm = mm_fake_recv(fake, MM_MSG_RESUME_VM);
    g_assert_cmpint(vm->nr_regions, ==, nr_regions);
    g_assert_cmpint(vm->nr_holds, ==, nr_holds);
    for (i = 0; i < nr_holds; i++) {
        mm_fake_recv(fake, MM_MSG_RESUME_HOLD);
    }
    for (i = 0; i < nr_regions; i++) {
        const MmMsgRegion *region = mm_fake_recv(fake, MM_MSG_RESUME_REGION);

        g_assert_cmpint(region->hva, !=, 0);
        g_assert_cmpint(region->hva % 4096, ==, 0);
    }
    mm_fake_recv(fake, MM_MSG_RESUME_END);
}

/* ---- regions ---- */

void mm_fake_region(MmFake *fake, const MmFakeRegion *how)
{
    static const MmFakeRegion good;
    const MmMsgRegion *add = mm_fake_recv(fake, MM_MSG_REGION_ADD);
    uint64_t nr_chunks = DIV_ROUND_UP(add->size, MM_DMA_CHUNK);
    MmMsgRegionRef ref = { .id = add->id };
    int fds[MM_MSG_MAX_FDS];
    int i;

    how = how ?: &good;
    fds[MM_REGION_FD_RAM] = make_file(how->ram_size ?: add->size,
                                      !how->unsealed_ram);
    if (how->pipe) {
        close(fds[MM_REGION_FD_RAM]);
        fds[MM_REGION_FD_RAM] = eventfd(0, EFD_CLOEXEC);
    }
    fds[MM_REGION_FD_MAP] = make_file(how->map_size ?: MM_MAP_HEADER_SIZE +
                                      add->size / 4096 * sizeof(uint64_t),
                                      !how->unsealed_map);
    fds[MM_REGION_FD_DMA] = make_file(how->dma_size ?: nr_chunks * 4,
                                      !how->unsealed_dma);
    for (i = MM_REGION_FD__MAX; i < MM_MSG_MAX_FDS; i++) {
        fds[i] = dup(fds[0]);
    }
    mm_fake_send(fake, MM_MSG_REGION_ADDED, &ref, sizeof(ref), fds,
                 how->nr_fds ?: MM_REGION_FD__MAX);
    close_all(fds, MM_MSG_MAX_FDS);
}

void mm_fake_add_region(MmFake *fake)
{
    mm_fake_region(fake, NULL);
    mm_fake_recv(fake, MM_MSG_REGION_READY);
    mm_fake_ok(fake);
}
