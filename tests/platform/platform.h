/*
 * Shared helpers of the kernel-fact programs: verdicts, userfaultfd, memfds
 *
 * Every program in this folder checks one fact about the kernel that the
 * design of managed memory leans on.  It is stand-alone (libc, and liburing
 * where a fact is about io_uring), so that a failure on a new kernel can be
 * shown to somebody who knows nothing of QEMU.
 *
 * A program exits with FACT_HOLDS, FACT_BROKEN or FACT_SKIP; its last line
 * says why when it is not the first.  run.sh turns that into TAP.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_PLATFORM_H
#define TESTS_PLATFORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <errno.h>
#include <string.h>
#include <pthread.h>
#include <sys/types.h>
#include <linux/userfaultfd.h>

#define PAGE_BYTES      ((size_t)4096)
#define NOBODY_UID      65534

/* How long a thread is watched before it counts as blocked. */
#define BLOCKED_MS      300
/* How long something that must happen may take on a loaded machine. */
#define PATIENCE_MS     10000

enum {
    FACT_HOLDS = 0,
    FACT_BROKEN = 1,
    FACT_SKIP = 77,
};

/* Verdicts */

/** fact_info: print one line for the reader; does not change the verdict */
void fact_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** fact_skip: the fact cannot be tested here, and the text says why */
void fact_skip(const char *fmt, ...)
    __attribute__((format(printf, 1, 2), noreturn));

/** fact_fail_at: the fact does not hold; use FACT_CHECK or fact_fail */
void fact_fail_at(const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), noreturn));

#define fact_fail(...) fact_fail_at(__FILE__, __LINE__, __VA_ARGS__)

/* FACT_CHECK: the fact needs @cond; the text says what its failure means */
#define FACT_CHECK(cond, ...) \
    do { \
        if (!(cond)) { \
            fact_fail(__VA_ARGS__); \
        } \
    } while (0)

/* SYS: evaluate a system call that has to work for the test to mean anything */
#define SYS(call) \
    ({ \
        __auto_type sys_ret_ = (call); \
        if (sys_ret_ < 0) { \
            fact_fail("%s: %s", #call, strerror(errno)); \
        } \
        sys_ret_; \
    })

/* Memory */

/** memfd_new: a memfd of @bytes, not sealed, close-on-exec */
int memfd_new(size_t bytes);

/** map_shared: map all @bytes of @fd shared and writable */
uint8_t *map_shared(int fd, size_t bytes);

/** page_alloc: @pages of private, touched memory, each byte set to @value */
uint8_t *page_alloc(size_t pages, int value);

/** punch: free the pages of @fd in [@page, @page + @pages) */
void punch(int fd, size_t page, size_t pages);

/** page_present: does @fd hold data at @page (SEEK_DATA)? */
bool page_present(int fd, size_t page);

/** allocated_pages: how many pages the file has allocated (st_blocks) */
size_t allocated_pages(int fd);

/** read_page: pread page @page of @fd into @buf; all of it */
void read_page(int fd, size_t page, void *buf);

/** load_byte: one byte read from memory now, for sure */
uint8_t load_byte(const void *addr);

/** store_byte: one byte written to memory now, for sure */
void store_byte(void *addr, uint8_t value);

/* userfaultfd; the ioctl wrappers return 0 or -errno */

/**
 * uffd_open: a non-blocking userfaultfd with at least @features
 *
 * Skips the test when this kernel lacks userfaultfd or one of @features.
 */
int uffd_open(uint64_t features);

/** uffd_handshake: UFFDIO_API on @uffd; skips like uffd_open */
void uffd_handshake(int uffd, uint64_t features);

/** uffd_open_missing_minor: what the fork asks for, on shared memory */
int uffd_open_missing_minor(void);

/** uffd_register: register @bytes from @addr with UFFDIO_REGISTER_MODE_* */
void uffd_register(int uffd, void *addr, size_t bytes, uint64_t mode);

/**
 * uffd_next: wait up to @timeout_ms for a message
 *
 * Returns false when none came.
 */
bool uffd_next(int uffd, struct uffd_msg *msg, int timeout_ms);

/**
 * uffd_copy: UFFDIO_COPY of @pages pages
 *
 * @done receives the pages copied (may be NULL); a partial copy is -EAGAIN.
 */
int uffd_copy(int uffd, void *dst, const void *src, size_t pages,
              uint64_t mode, size_t *done);

/** uffd_continue: UFFDIO_CONTINUE of @pages pages; @done as in uffd_copy */
int uffd_continue(int uffd, void *addr, size_t pages, uint64_t mode,
                  size_t *done);

/** uffd_wake: UFFDIO_WAKE of @pages pages */
void uffd_wake(int uffd, void *addr, size_t pages);

/** msg_page: the page-aligned address that a page fault message is about */
uint8_t *msg_page(const struct uffd_msg *msg);

/** msg_is_minor: is this page fault flagged MINOR? */
bool msg_is_minor(const struct uffd_msg *msg);

/*
 * Toucher: a thread that reads one byte and may block in the fault
 *
 * Started by toucher_start(); @value is valid once toucher_returned() is
 * true.  A toucher that never returns dies with the process.
 */
typedef struct Toucher {
    pthread_t thread;
    const uint8_t *addr;
    uint8_t value;
    atomic_int tid;
    atomic_bool done;
} Toucher;

/** toucher_start: start a thread that reads the byte at @addr */
void toucher_start(Toucher *t, const uint8_t *addr);

/** toucher_returned: did the read return within @timeout_ms? */
bool toucher_returned(Toucher *t, int timeout_ms);

/* Processes */

/** child_start: fork; the child is killed when its parent goes away */
pid_t child_start(void);

/** child_wait: wait for @pid and return its wait status */
int child_wait(pid_t pid);

/**
 * child_expect_success: wait for a child that checked something itself
 *
 * A child that failed or skipped takes the whole program with it.
 */
void child_expect_success(pid_t pid);

/** child_kill: SIGKILL @pid and reap it */
void child_kill(pid_t pid);

/** become_nobody: give up root for good, groups and capabilities included */
void become_nobody(void);

/** need_root: skip unless run by root; @why says what root is for */
void need_root(const char *why);

/** send_fd: pass @fd over the socket @sock */
void send_fd(int sock, int fd);

/** recv_fd: take the next descriptor from @sock */
int recv_fd(int sock);

/** send_token: one byte to the other end of a socket or pipe */
void send_token(int fd);

/** wait_token: wait up to PATIENCE_MS for one byte; false on end of file */
bool wait_token(int fd);

/** scratch_dir: where test files may lie: $TMPDIR, or the working folder */
const char *scratch_dir(void);

/** scratch_file: an unnamed file in scratch_dir(), mode 0600 */
int scratch_file(int extra_flags);

/** scratch_folder: make a folder for a core dump; its path goes to @path */
void scratch_folder(char *path, size_t size);

/** scratch_folder_remove: remove that folder with all that is in it */
void scratch_folder_remove(const char *path);

/* Time */

/** now_ns: monotonic time in nanoseconds */
int64_t now_ns(void);

/** sleep_ms: sleep @ms milliseconds */
void sleep_ms(int ms);

#endif
