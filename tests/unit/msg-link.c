/*
 * Unit tests: a socket with a peer that sends what it likes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "mm-unit.h"
#include "msg-link.h"

Link *link_new(void)
{
    Link *link = g_new0(Link, 1);
    int pair[2];

    link->fds_before = count_fds();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
                               pair), ==, 0);
    link->peer = pair[0];
    link->sock = pair[1];
    return link;
}

void link_free(Link *link)
{
    mm_msg_clear(&link->msg);
    close(link->peer);
    close(link->sock);
    g_assert_cmpuint(count_fds(), ==, link->fds_before);
    g_free(link);
}

void link_send(Link *link, const void *data, size_t len, unsigned nr_fds)
{
    g_autofree char *control = g_malloc0(CMSG_SPACE(SCM_MAX * sizeof(int)));
    struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
    struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
    unsigned i;

    if (nr_fds) {
        struct cmsghdr *cmsg = (void *)control;
        int *fds = (int *)CMSG_DATA(cmsg);

        mh.msg_control = control;
        mh.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
        for (i = 0; i < nr_fds; i++) {
            fds[i] = link->peer;
        }
    }
    g_assert_cmpint(sendmsg(link->peer, &mh, 0), ==, len);
}

int link_receive(Link *link)
{
    mm_msg_clear(&link->msg);
    return mm_msg_recv(link->sock, &link->msg, 1000);
}
