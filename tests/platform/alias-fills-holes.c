/*
 * A second mapping of the RAM memfd gets its holes filled with zeros by a
 * core dump, mlockall, process_vm_readv and ptrace, without anybody touching
 * it; a userfaultfd with UFFD_FEATURE_SIGBUS on that mapping prevents it.
 *
 * Design rule 6 (the alias must never fill a hole) and the reason why the
 * pager has no such mapping at all: a page present in the memfd wins over
 * the page map, so such zeros would replace a swapped-out page for good.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include "platform.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define PAGES   8
#define HOLE    3

typedef enum Outcome {
    OUTCOME_DONE,
    OUTCOME_IMPOSSIBLE,     /* this machine does not let us try */
} Outcome;

typedef struct Way {
    const char *name;
    /* What the owner of the alias does when told to; then it waits. */
    void (*in_owner)(void);
    /* What is done to it by its parent. */
    Outcome (*from_outside)(pid_t owner, uint8_t *hole);
} Way;

static char core_dir[256];

static void owner_waits(void)
{
    pause();
}

static void owner_locks(void)
{
    SYS(mlockall(MCL_CURRENT));
    raise(SIGSTOP);
    pause();
}

static void owner_aborts(void)
{
    struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };

    setrlimit(RLIMIT_CORE, &unlimited);
    SYS(chdir(core_dir));
    abort();
}

static Outcome await_core(pid_t owner, uint8_t *hole)
{
    siginfo_t info;

    (void)hole;
    SYS(waitid(P_PID, owner, &info, WEXITED | WNOWAIT));
    return info.si_code == CLD_DUMPED ? OUTCOME_DONE : OUTCOME_IMPOSSIBLE;
}

static Outcome await_lock(pid_t owner, uint8_t *hole)
{
    siginfo_t info;

    (void)hole;
    SYS(waitid(P_PID, owner, &info, WSTOPPED | WEXITED | WNOWAIT));
    FACT_CHECK(info.si_code == CLD_STOPPED, "mlockall failed");
    return OUTCOME_DONE;
}

static Outcome vm_read(pid_t owner, uint8_t *hole)
{
    char byte;
    struct iovec local = { &byte, 1 }, remote = { hole, 1 };
    ssize_t n = process_vm_readv(owner, &local, 1, &remote, 1, 0);

    return n < 0 && errno == EPERM ? OUTCOME_IMPOSSIBLE : OUTCOME_DONE;
}

static Outcome ptrace_peek(pid_t owner, uint8_t *hole)
{
    if (ptrace(PTRACE_ATTACH, owner, NULL, NULL)) {
        return OUTCOME_IMPOSSIBLE;
    }
    SYS(waitpid(owner, NULL, __WALL));
    ptrace(PTRACE_PEEKDATA, owner, hole, NULL);
    ptrace(PTRACE_DETACH, owner, NULL, NULL);
    return OUTCOME_DONE;
}

static const Way ways[] = {
    { "a core dump", owner_aborts, await_core },
    { "mlockall", owner_locks, await_lock },
    { "process_vm_readv", owner_waits, vm_read },
    { "ptrace", owner_waits, ptrace_peek },
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void guard_alias(uint8_t *alias)
{
    int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

    if (uffd < 0) {
        fact_skip("no user-mode userfaultfd: %s", strerror(errno));
    }
    uffd_handshake(uffd, UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM);
    uffd_register(uffd, alias, PAGES * PAGE_BYTES,
                  UFFDIO_REGISTER_MODE_MISSING);
}

static void owner_side(const Way *way, int memfd, int sock, bool guarded)
{
    uint8_t *alias = map_shared(memfd, PAGES * PAGE_BYTES);

    if (guarded) {
        guard_alias(alias);
    }
    SYS(write(sock, &alias, sizeof(alias)));
    way->in_owner();
}

/* Does @way fill the hole?  Says so in @filled. */
static Outcome try_way(const Way *way, bool guarded, bool *filled)
{
    int memfd = memfd_new(PAGES * PAGE_BYTES);
    int sock[2];
    uint8_t *alias;
    Outcome outcome;
    pid_t owner;

    for (size_t i = 0; i < PAGES; i++) {
        if (i != HOLE) {
            SYS(pwrite(memfd, "x", 1, i * PAGE_BYTES));
        }
    }
    SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
    owner = child_start();
    if (owner == 0) {
        owner_side(way, memfd, sock[1], guarded);
    }
    close(sock[1]);
    FACT_CHECK(read(sock[0], &alias, sizeof(alias)) == sizeof(alias),
               "the owner of the alias died");
    outcome = way->from_outside(owner, alias + HOLE * PAGE_BYTES);
    *filled = page_present(memfd, HOLE);
    child_kill(owner);
    close(sock[0]);
    close(memfd);
    return outcome;
}

int main(void)
{
    bool filled[2][WAYS];
    Outcome outcome[2][WAYS];

    need_root("to lock all memory of a process and to trace it");
    scratch_folder(core_dir, sizeof(core_dir));
    for (int guarded = 0; guarded < 2; guarded++) {
        for (size_t i = 0; i < WAYS; i++) {
            outcome[guarded][i] = try_way(&ways[i], guarded,
                                          &filled[guarded][i]);
        }
    }
    scratch_folder_remove(core_dir);

    for (size_t i = 0; i < WAYS; i++) {
        if (outcome[0][i] == OUTCOME_IMPOSSIBLE) {
            fact_info("%s: not possible on this machine", ways[i].name);
            continue;
        }
        FACT_CHECK(filled[0][i], "%s does not fill the hole of an unguarded "
                   "alias: this test does not see it", ways[i].name);
        FACT_CHECK(!filled[1][i], "%s fills the hole of a guarded alias",
                   ways[i].name);
    }
    return FACT_HOLDS;
}
