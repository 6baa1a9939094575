/*
 * qemu-memory-manager: the QMP socket
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * QEMU's character devices serve one client at a time; the next one waits
 * until the first has gone. Somebody who watches "qemu-memctl top" must not
 * keep others out, so several monitors share the listening socket: those that
 * have no client all accept, and one of them gets it. The socket is
 * non-blocking, so that the others do not wait.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include "chardev/char.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qapi/qapi-types-char.h"
#include "qapi/qapi-types-control.h"
#include "manager.h"

/* Clients that can be connected at the same time. */
#define NR_MONITORS 16

static bool add_chardev(const char *id, int sock, Error **errp)
{
    g_autofree char *number = g_strdup_printf("%d", sock);
    String fd = { .str = number };
    SocketAddressLegacy addr = {
        .type = SOCKET_ADDRESS_TYPE_FD,
        .u.fd.data = &fd,
    };
    ChardevSocket server = {
        .addr = &addr,
        .has_server = true,
        .server = true,
        .has_wait = true,
        .wait = false,
    };
    ChardevBackend backend = {
        .type = CHARDEV_BACKEND_KIND_SOCKET,
        .u.socket.data = &server,
    };

    return qemu_chardev_new(id, TYPE_CHARDEV_SOCKET, &backend, NULL, errp);
}

static bool add_monitor(int number, int listening, Error **errp)
{
    g_autofree char *id = g_strdup_printf("qmp%d", number);
    MonitorOptions options = {
        .has_mode = true,
        .mode = MONITOR_MODE_CONTROL,
        .chardev = id,
    };
    int sock = dup(listening);

    if (sock < 0) {
        error_setg_errno(errp, errno, "cannot duplicate the QMP socket");
        return false;
    }
    qemu_set_cloexec(sock);
    return add_chardev(id, sock, errp) &&
           monitor_init(&options, false, errp) == 0;
}

bool mm_qmp_listen(const char *path, Error **errp)
{
    int sock = mm_listen(path, SOCK_STREAM, 0600, errp);
    bool ok = sock >= 0;
    int i;

    for (i = 0; ok && i < NR_MONITORS; i++) {
        ok = add_monitor(i, sock, errp);
    }
    if (sock >= 0) {
        /* the character devices have set a shorter queue */
        listen(sock, SOMAXCONN);
        close(sock);
    }
    return ok;
}
