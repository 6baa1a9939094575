/*
 * A process without privilege that is handed an open /dev/userfaultfd makes
 * a userfaultfd that catches faults of the kernel too, even where
 * vm.unprivileged_userfaultfd is 0.
 *
 * Design rule 1: QEMU may run as an unprivileged user, and system calls that
 * QEMU makes (reading a disk into guest memory) must find pages that are
 * swapped out.  Without the device such a call fails with EFAULT, which is
 * shown here as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define FILL_VALUE  0x5a
#define READ_VALUE  0x33

/* Let the kernel write one byte to @addr on our behalf. */
static ssize_t kernel_store(uint8_t *addr)
{
    char byte = READ_VALUE;
    int fds[2];

    SYS(pipe(fds));
    SYS(write(fds[1], &byte, 1));
    return read(fds[0], addr, 1);
}

static void check_refused_without_device(void)
{
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

    FACT_CHECK(uffd < 0 && errno == EPERM,
               "nobody made a full userfaultfd without the device");
}

static void check_user_mode_misses_kernel_fault(void)
{
    int uffd = SYS(syscall(SYS_userfaultfd,
                           O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
    int memfd = memfd_new(PAGE_BYTES);
    uint8_t *ram = map_shared(memfd, PAGE_BYTES);

    uffd_handshake(uffd, UFFD_FEATURE_MISSING_SHMEM);
    uffd_register(uffd, ram, PAGE_BYTES, UFFDIO_REGISTER_MODE_MISSING);
    FACT_CHECK(kernel_store(ram) < 0 && errno == EFAULT,
               "a user-mode userfaultfd caught a fault of the kernel");
}

static void qemu_side(int sock, bool privilege_needed)
{
    int dev = recv_fd(sock);
    int memfd = recv_fd(sock);
    uint8_t *ram;
    int uffd;

    become_nobody();
    if (privilege_needed) {
        check_refused_without_device();
    }
    check_user_mode_misses_kernel_fault();

    uffd = SYS(ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    uffd_handshake(uffd,
                   UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);
    ram = map_shared(memfd, PAGE_BYTES);
    uffd_register(uffd, ram, PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
    send_fd(sock, uffd);

    FACT_CHECK(kernel_store(ram) == 1, "read() into a missing page: %s",
               strerror(errno));
    FACT_CHECK(ram[0] == READ_VALUE && ram[1] == FILL_VALUE,
               "the page is not the filled one with one byte changed");
    _exit(FACT_HOLDS);
}

static bool unprivileged_is_off(void)
{
    FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
    int value = 0;

    if (f) {
        FACT_CHECK(fscanf(f, "%d", &value) == 1, "unreadable sysctl");
        fclose(f);
    }
    return value == 0;
}

int main(void)
{
    bool privilege_needed = unprivileged_is_off();
    struct uffd_msg msg;
    int sock[2], dev, memfd, uffd;
    pid_t qemu;

    need_root("to become nobody and to open /dev/userfaultfd");
    dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (dev < 0) {
        fact_skip("/dev/userfaultfd: %s (needs Linux 6.1 or a backport)",
                  strerror(errno));
    }
    if (!privilege_needed) {
        fact_info("vm.unprivileged_userfaultfd is 1: refusal not tested");
    }

    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    qemu = child_start();
    if (qemu == 0) {
        qemu_side(sock[1], privilege_needed);
    }
    close(sock[1]);
    memfd = memfd_new(PAGE_BYTES);
    send_fd(sock[0], dev);
    send_fd(sock[0], memfd);
    uffd = recv_fd(sock[0]);

    FACT_CHECK(uffd_next(uffd, &msg, PATIENCE_MS),
               "the kernel's fault was not delivered");
    FACT_CHECK(!uffd_copy(uffd, msg_page(&msg), page_alloc(1, FILL_VALUE), 1,
                          0, NULL), "UFFDIO_COPY: %s", strerror(errno));
    child_expect_success(qemu);
    return FACT_HOLDS;
}
