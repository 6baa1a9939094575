/*
 * Torture tests: the manager's side of one VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Does for one pager at a time what qemu-memory-manager does: opens what a
 * pager needs, starts it, hands QEMU's connection over, asks it questions on
 * the control socket, and proves that it is dead before the next one starts.
 */
#ifndef TORTURE_FAKE_MANAGER_H
#define TORTURE_FAKE_MANAGER_H

#include "qemu/thread.h"
#include "managed-memory/msg.h"

/* How a pager is started; plain values, copied by fake_manager_new(). */
typedef struct PagerConfig {
    const char *binary;         /* NULL: the one that ships */
    const char *mutation;       /* MM_MUTATION, or NULL */
    const char *jail_probe;     /* MM_JAIL_PROBE, or NULL */
    const char *tier_dir;       /* NULL: a directory of its own */
    uint64_t tier_size;         /* bytes, 0: no limit */
    uint64_t compressed_size;   /* of a tier before it, 0: none */
    MmAlgorithm algorithm;      /* of that one */
    bool overcommit;
    bool no_uring;              /* as on a host without io_uring */
    uint64_t limit;             /* bytes; 0: MM_LIMIT_NONE */
    unsigned sample_ms;         /* interval of samples, 0: none */
} PagerConfig;

/* A message that wants an answer. */
typedef struct FakeRequest {
    MmMsgType type;
    const void *payload;        /* NULL: none */
    size_t len;
    const int *fd;              /* NULL: none */
    const unsigned *pager;      /* of QEMU: to this one only; NULL: to any */
} FakeRequest;

/* How long any answer may take; a swap-in of all is the longest. */
#define FAKE_REQUEST_MS 30000

typedef struct FakeManager {
    /* fixed after creation */
    PagerConfig config;
    char *dir;                  /* run directory */
    char *tier_dir;
    bool own_tier_dir;
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    char name[MM_NAME_LEN];

    /* protected by lock */
    QemuMutex lock;
    pid_t pid;                  /* 0: no pager */
    bool death_wanted;          /* the pager is being killed on purpose */

    /* protected by control_lock, which is held across a request */
    QemuMutex control_lock;
    int control;                /* our end, or -1 */
    uint64_t seq;
    MmMsgControlInfo info;      /* the latest one */

    /*
     * of the next pager, in the order of filling; changed while none is being
     * started
     */
    MmMsgStartTier tiers[MM_MAX_TIERS];
    unsigned nr_tiers;

    /* for the next start only, set while no pager is being started */
    char *failpoint;            /* MM_FAILPOINT, or NULL */
    int count_fd;               /* the pager writes its counts here, or -1 */
    int heal_fd;                /* eventfd: the pager's errors end */

    /* atomic */
    unsigned nr_starts;         /* pagers so far */
} FakeManager;

/** fake_manager_new: make the directories; starts nothing. */
FakeManager *fake_manager_new(const PagerConfig *config);

/**
 * fake_manager_free: kill what still runs, remove all files
 *
 * Returns false, and says why on stderr, if a pager left files behind.
 */
bool fake_manager_free(FakeManager *fm);

/**
 * fake_manager_start: start a pager and hand over QEMU's connection
 *
 * @connection: the pager's end, closed here in any case
 * @resume: a former pager has served this VM
 * @hello_seq: of QEMU's HELLO
 *
 * The pager before must have been waited for.
 */
bool fake_manager_start(FakeManager *fm, int connection, bool resume,
                        uint64_t hello_seq, Error **errp);

/**
 * fake_manager_add_tier: the next pager gets a file tier that is filled first
 *
 * @number: that no tier has
 * @size: most bytes in it, 0: no limit
 */
void fake_manager_add_tier(FakeManager *fm, unsigned number, uint64_t size);

/** fake_manager_remove_tier: the next pager does not have tier @number. */
void fake_manager_remove_tier(FakeManager *fm, unsigned number);

/** fake_manager_tier: tier @number of the next pager. */
MmMsgStartTier *fake_manager_tier(FakeManager *fm, unsigned number);

/**
 * fake_manager_arm: give the next pager a failpoint
 *
 * @failpoint: as MM_FAILPOINT; copied
 */
void fake_manager_arm(FakeManager *fm, const char *failpoint);

/** fake_manager_heal: the errors of the armed failpoints end. */
void fake_manager_heal(FakeManager *fm);

/**
 * fake_manager_request: ask the pager on the control socket
 *
 * @reply: filled in; release with mm_msg_clear().  May be MM_MSG_ERROR.
 *
 * Returns 0, -ETIMEDOUT, or -ECONNRESET if the pager is gone.
 */
int fake_manager_request(FakeManager *fm, const FakeRequest *rq,
                         MmMsg *reply);

/** fake_manager_query: MM_MSG_QUERY; false if there is no pager to ask. */
bool fake_manager_query(FakeManager *fm, MmMsgQueryReply *reply);

/** fake_manager_set_limit: @bytes or MM_LIMIT_NONE; false as above. */
bool fake_manager_set_limit(FakeManager *fm, uint64_t bytes);

/** fake_manager_wait_serving: wait for the pager to say that it serves. */
bool fake_manager_wait_serving(FakeManager *fm, int timeout_ms);

/**
 * fake_manager_connect: a second control connection, as a new manager
 *
 * @flags: SOCK_NONBLOCK or 0
 */
int fake_manager_connect(FakeManager *fm, int flags);

/** fake_manager_kill: SIGKILL the pager, if there is one. */
void fake_manager_kill(FakeManager *fm);

/**
 * fake_manager_reap: wait for the pager's end
 *
 * @wanted: set to whether it was killed by fake_manager_kill()
 *
 * Returns its wait status, or -1 if it still lives after @timeout_ms.
 */
int fake_manager_reap(FakeManager *fm, int timeout_ms, bool *wanted);

/** fake_manager_control: our end of the control socket, for raw access. */
int fake_manager_control(FakeManager *fm);

/** fake_manager_pid: of the running pager, or 0. */
pid_t fake_manager_pid(FakeManager *fm);

/** describe_status: a wait status for people; g_free() it. */
char *describe_status(int status);

#endif
