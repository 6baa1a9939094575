/*
 * Managed memory: the wire protocol between QEMU, manager and pager
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One message is one datagram of a SOCK_SEQPACKET unix socket: a header, a
 * payload of fixed structures in host byte order (both ends run on one host),
 * and file descriptors by SCM_RIGHTS.  docs/interop/managed-memory.rst draws
 * the sequences and states the rules; msg.h has the functions.
 *
 * Three sockets use it:
 *
 *  connection   QEMU to manager, which reads MM_MSG_HELLO only and then hands
 *               the socket over to the VM's pager
 *  zap channel  pager to QEMU's private zap thread
 *  control      manager to pager
 *
 * EOF on the connection means that the peer process is entirely gone: the
 * manager closes its copy as soon as it has handed the connection over.
 */
#ifndef MANAGED_MEMORY_PROTO_H
#define MANAGED_MEMORY_PROTO_H

/* Versions that this tree speaks; the highest common one is used. */
#define MM_PROTO_VERSION_MIN 1
#define MM_PROTO_VERSION_MAX 1

/*
 * Exit status of a pager whose QEMU has closed the connection without having
 * sent a userfaultfd: there is nothing to resume.
 */
#define MM_PAGER_EXIT_UNUSED 3

/* Largest datagram, header included. */
#define MM_MSG_MAX 65536
/* Most descriptors that any one message carries. */
#define MM_MSG_MAX_FDS 8

#define MM_UUID_LEN 16
#define MM_COOKIE_LEN 16
#define MM_KEY_LEN 64           /* AES-256-XTS: two keys of 256 bits */
#define MM_NAME_LEN 64          /* VM name, NUL-terminated */
#define MM_IDSTR_LEN 256        /* RAMBlock name, NUL-terminated */
#define MM_MAX_REGIONS 256      /* regions (managed RAMBlocks) of one VM */
#define MM_FILE_LEN 64          /* name of a tier's file, NUL-terminated */
#define MM_MAX_TIERS 8          /* tiers that one VM can have pages in */

/* No resident limit. */
#define MM_LIMIT_NONE UINT64_MAX
/* Bytes.  Below it a guest could not even keep the pages of one instruction. */
#define MM_LIMIT_MIN (64 * 4096)

#define MM_DEFAULT_RUN_DIR "/run/qemu-memory-manager"
#define MM_ATTACH_SOCKET_NAME "attach.sock"
#define MM_QMP_SOCKET_NAME "qmp.sock"
#define MM_DEFAULT_TIER_PATH "/var/lib/qemu-memory-manager/swap"
#define MM_DEFAULT_ATTACH_PATH MM_DEFAULT_RUN_DIR "/" MM_ATTACH_SOCKET_NAME

typedef enum MmMsgType {
    MM_MSG_INVALID = 0,

    /* answers, any direction: the header's seq is the request's */
    MM_MSG_OK,                  /* no payload, or as the request says */
    MM_MSG_ERROR,               /* MmMsgError */

    /* connection, QEMU's side speaks */
    MM_MSG_HELLO,               /* MmMsgHello */
    MM_MSG_RESUME_VM,           /* MmMsgResumeVM; fds: MmResumeVMFd order */
    MM_MSG_RESUME_HOLD,         /* MmMsgHold; fd: the held one */
    MM_MSG_RESUME_REGION,       /* MmMsgRegion; fds: MmRegionFd order */
    MM_MSG_RESUME_END,          /* no payload; answered by HELLO_REPLY */
    MM_MSG_UFFD,                /* no payload; fd: the userfaultfd */
    MM_MSG_REGION_ADD,          /* MmMsgRegion (hva 0); answer REGION_ADDED */
    MM_MSG_REGION_READY,        /* MmMsgRegionRef with hva; answer OK */
    MM_MSG_REGION_REMOVE,       /* MmMsgRegionRef; answer OK */

    /* connection, the pager's side speaks */
    MM_MSG_HELLO_REPLY,         /* MmMsgHelloReply; fds: MmHelloReplyFd */
    MM_MSG_REGION_ADDED,        /* MmMsgRegionRef; fds: MmRegionFd order */
    /* MmMsgHold; fd: to be kept for RESUME; none: not needed any more */
    MM_MSG_HOLD,
    MM_MSG_EVENT,               /* MmMsgEvent */
    /*
     * no payload: all is resident; unregister, answer OK, and forget the pager
     */
    MM_MSG_DETACHED,

    /* zap channel */
    MM_MSG_ZAP,                 /* MmMsgZap */
    MM_MSG_ZAP_DONE,            /* no payload */

    /* connection (from QEMU) and control (from the manager) */
    MM_MSG_SET_LIMIT,           /* MmMsgAmount; answer OK */
    MM_MSG_QUERY,               /* no payload; answer QUERY_REPLY */
    MM_MSG_QUERY_REPLY,         /* MmMsgQueryReply */

    /* control only, to a fresh pager, in this order */
    /* MmMsgStartTier; fds: folder of a new file; MmTierDeviceFd of a device */
    MM_MSG_START_TIER,
    MM_MSG_START,               /* MmMsgStart; fds: MmStartFd order */

    /* control only, to a pager that serves or attaches */
    MM_MSG_CONTROL_HELLO,       /* fd: stderr, or none; answer CONTROL_INFO */
    /* MmMsgControlInfo, also sent unasked once the pager serves */
    MM_MSG_CONTROL_INFO,
    /*
     * MmMsgRegionRef by index; answer REGION_INFO, or ERROR past the last one
     */
    MM_MSG_QUERY_REGION,
    MM_MSG_REGION_INFO,         /* MmMsgRegionInfo */
    MM_MSG_EVICT,               /* MmMsgAmount in bytes; answer AMOUNT done */
    MM_MSG_SWAP_IN,             /* no payload; answer when all is resident */
    MM_MSG_DETACH,              /* no payload; answer when QEMU has let go */
    /*
     * no payload: pages that cannot be read are given up; answer AMOUNT of
     * pages
     */
    MM_MSG_GIVE_UP,
    MM_MSG_AMOUNT,              /* MmMsgAmount */
    MM_MSG_SET_TIER,            /* MmMsgSetTier; answer OK */
    MM_MSG_SET_DRAINING,        /* MmMsgSetDraining; answer OK */
    MM_MSG_SET_IO_LIMITS,       /* MmMsgSetIOLimits; answer OK */
    MM_MSG_SET_SPARED,          /* MmMsgSetSpared; answer OK */
    /* no payload: what it is known to want is read; answer AMOUNT of bytes */
    MM_MSG_PREFETCH,

    /*
     * connection, QEMU's side: MmMsgKey: what leaves memory is encrypted;
     * before UFFD, answer OK; of a resume: before RESUME_END, no answer
     */
    MM_MSG_KEY,

    /* connection, QEMU's side: no payload: places may go again; answer OK */
    MM_MSG_UNPIN,

    /*
     * in place of HELLO, of a VM that has attached: MmMsgHandover; answer OK
     * (LEND: AMOUNT, the tier's number) and the end of the connection
     */
    MM_MSG_HANDOVER,

    MM_MSG__MAX
} MmMsgType;

typedef struct MmMsgHeader {
    uint32_t type;              /* MmMsgType */
    uint32_t len;               /* of the payload in bytes */
    /* of a request, repeated in its answer; 0 where no answer is expected */
    uint64_t seq;
} MmMsgHeader;

typedef struct MmMsgError {
    uint32_t err;               /* errno value, positive */
    uint32_t pad;
    char text[1024];            /* NUL-terminated, for people */
} MmMsgError;

enum { MM_HELLO_RESUME = 1 << 0 };

typedef struct MmMsgHello {
    uint32_t version_min;
    uint32_t version_max;
    uint32_t flags;             /* MM_HELLO_* */
    uint32_t pid;               /* for people only: never trusted */
    uint8_t uuid[MM_UUID_LEN];  /* resume: from HELLO_REPLY, else 0 */
    uint8_t cookie[MM_COOKIE_LEN]; /* resume: from HELLO_REPLY, else 0 */
    char name[MM_NAME_LEN];
} MmMsgHello;

/* What becomes of files on shared storage, and what fits; handover.c, room.c */
typedef enum MmHandoverOp {
    MM_HANDOVER_LEND,           /* the VM is to read the one of another host */
    MM_HANDOVER_RELEASE,        /* it is nobody's, until it is claimed */
    MM_HANDOVER_CLAIM,          /* it is this VM's */
    MM_HANDOVER_ROOM,           /* how much content would its tiers take? */
} MmHandoverOp;

typedef struct MmMsgHandover {
    uint32_t op;                /* MmHandoverOp */
    uint32_t shrinks;           /* ROOM: compressed, it takes 1/shrinks */
    uint8_t uuid[MM_UUID_LEN];  /* of the VM: from HELLO_REPLY */
    uint8_t cookie[MM_COOKIE_LEN];
    uint8_t file_id[MM_UUID_LEN];
    uint64_t epoch;             /* RELEASE, CLAIM: of the migration; random */
    uint64_t size;              /* ROOM: of the VM's memory, in bytes */
    /* LEND only: all that the other host knows of it */
    uint8_t storage[MM_UUID_LEN];
    uint8_t file_key[MM_COOKIE_LEN];
    char file[MM_FILE_LEN];
} MmMsgHandover;

/* Descriptors of HELLO_REPLY, in this order; the device may be absent. */
typedef enum MmHelloReplyFd {
    MM_HELLO_FD_STATE,          /* MmState memfd, read-only */
    MM_HELLO_FD_RING,           /* MmRing memfd, read-write */
    MM_HELLO_FD_KICK,           /* eventfd: QEMU has posted to the ring */
    MM_HELLO_FD_ZAP,            /* zap channel, QEMU's end */
    MM_HELLO_FD_UFFD_DEV,       /* an open /dev/userfaultfd */
    MM_HELLO_FD__MAX
} MmHelloReplyFd;

typedef struct MmMsgHelloReply {
    uint32_t version;           /* the one in use from now on */
    uint32_t pad;
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
} MmMsgHelloReply;

typedef enum MmResumeVMFd {
    MM_RESUME_FD_STATE,
    MM_RESUME_FD_RING,
    MM_RESUME_FD_KICK,
    MM_RESUME_FD_UFFD,
    MM_RESUME_FD__MAX
} MmResumeVMFd;

typedef struct MmMsgResumeVM {
    uint32_t nr_regions;        /* RESUME_REGION messages that follow */
    uint32_t nr_holds;          /* RESUME_HOLD messages that follow */
    /*
     * CLOCK_MONOTONIC when the former connection ended, or 0: for the
     * statistics only
     */
    uint64_t lost_ns;
    uint32_t pinned;            /* 1: another host may read what was told of */
    uint32_t pad;
} MmMsgResumeVM;

typedef struct MmMsgKey {
    uint8_t key[MM_KEY_LEN];
} MmMsgKey;

/* What a held descriptor is; QEMU keeps them without looking inside. */
typedef enum MmHoldKind {
    MM_HOLD_TIER_FILE,          /* O_PATH descriptor of a tier's file */
    MM_HOLD_TIER_POOL,          /* the same of a compressed tier's memfd */
    MM_HOLD_TIER_DEVICE,        /* of a block device, which keeps others away */
    MM_HOLD__MAX
} MmHoldKind;

typedef struct MmMsgHold {
    uint32_t kind;              /* MmHoldKind */
    uint32_t index;             /* tier number */
} MmMsgHold;

/* Descriptors of a region, in this order. */
typedef enum MmRegionFd {
    MM_REGION_FD_RAM,           /* sealed memfd: the guest's memory */
    MM_REGION_FD_MAP,           /* MmPageMap memfd, read-only in QEMU */
    MM_REGION_FD_DMA,           /* uint32_t counters per MM_DMA_CHUNK */
    MM_REGION_FD__MAX
} MmRegionFd;

typedef struct MmMsgRegion {
    uint32_t id;                /* 0..MM_MAX_REGIONS-1, QEMU's choice */
    uint32_t page_size;         /* in bytes: 4096 */
    uint64_t size;              /* in bytes, a multiple of page_size */
    /*
     * what the region adds to the VM's resident limit in bytes, or
     * MM_LIMIT_NONE
     */
    uint64_t limit;
    uint64_t hva;               /* where QEMU maps it; 0 in REGION_ADD */
    char idstr[MM_IDSTR_LEN];
} MmMsgRegion;

typedef struct MmMsgRegionRef {
    uint32_t id;                /* QUERY_REGION: index in 0.. */
    uint32_t pad;
    uint64_t hva;               /* REGION_READY only */
} MmMsgRegionRef;

typedef enum MmEventKind {
    MM_EVENT_IO_ERROR,          /* a tier fails; arg: errno value */
    MM_EVENT_IO_RECOVERED,      /* the tier works again */
    MM_EVENT_PRESSURE,          /* nothing left to evict; arg: bytes over */
    MM_EVENT_PRESSURE_OVER,
    /* content gone (hardware, checksum); arg: byte offset in the region */
    MM_EVENT_PAGE_LOST,
    MM_EVENT__MAX
} MmEventKind;

typedef struct MmMsgEvent {
    uint32_t kind;              /* MmEventKind */
    uint32_t region;            /* id, or UINT32_MAX */
    uint64_t arg;
    char text[256];             /* NUL-terminated, for people */
} MmMsgEvent;

typedef struct MmRange {
    uint32_t region;            /* id */
    uint32_t nr_pages;
    uint64_t first_page;        /* index within the region */
} MmRange;

#define MM_ZAP_MAX_RANGES 1024

typedef struct MmMsgZap {
    uint32_t nr_ranges;         /* 1..MM_ZAP_MAX_RANGES */
    uint32_t pad;
    MmRange ranges[];
} MmMsgZap;

typedef struct MmMsgAmount {
    uint64_t value;             /* bytes or pages, as the message says */
} MmMsgAmount;

typedef enum MmTierKind {
    MM_TIER_KIND_FILE,
    MM_TIER_KIND_COMPRESSED,
    MM_TIER_KIND_DEVICE,
    MM_TIER_KIND__MAX
} MmTierKind;

typedef enum MmAlgorithm {
    MM_ALGORITHM_LZ4,
    MM_ALGORITHM_ZSTD,
    MM_ALGORITHM__MAX
} MmAlgorithm;

/*
 * Tiers are filled in the order of their START_TIER messages.  Their numbers
 * are what page maps name them by: a tier keeps its own.
 */
/*
 * Most that a VM may read and write together, per second; 0: no limit.  A burst
 * is what may be done at once after a pause; 0: a tenth of a second's worth.
 */
typedef struct MmMsgIOLimits {
    uint64_t bps;               /* bytes */
    uint64_t bps_burst;
    uint64_t iops;              /* transfers */
    uint64_t iops_burst;
} MmMsgIOLimits;

typedef struct MmMsgStartTier {
    uint32_t number;            /* 0..MM_MAX_TIERS-1 */
    uint32_t is_new;            /* 1: it has been in no START before */
    uint32_t draining;          /* 1: see MmMsgSetDraining */
    uint32_t kind;              /* MmTierKind */
    uint32_t overcommit;        /* 1: no space is reserved */
    uint32_t algorithm;         /* MmAlgorithm; compressed only */
    uint32_t share;             /* percent of the VM's memory; 0: see size */
    uint32_t shared;            /* 1: a file that other hosts see */
    uint32_t lent;              /* 1: one of another host, only to be read */
    uint32_t pad;
    uint64_t size;              /* most bytes of this VM in it; 0: no limit */
    uint64_t device;            /* st_dev of the file, st_rdev of the device */
    MmMsgIOLimits io;           /* of a file; compressed: none */
    char name[MM_NAME_LEN];
    /* of a shared one: where it is, its name, and what is in its first page */
    uint8_t storage[MM_UUID_LEN];
    char file[MM_FILE_LEN];
    uint8_t file_id[MM_UUID_LEN];
    uint8_t file_key[MM_COOKIE_LEN];
} MmMsgStartTier;

/* Descriptors of START_TIER for a device; what cannot be had is left out. */
typedef enum MmTierDeviceFd {
    MM_TIER_DEVICE_FD,          /* for transfers */
    MM_TIER_DEVICE_FD_CLAIM,    /* O_EXCL; only for a VM that is new to it */
    MM_TIER_DEVICE_FD__MAX
} MmTierDeviceFd;

typedef struct MmMsgSetTier {
    uint32_t number;
    uint32_t share;             /* as in MmMsgStartTier */
    uint64_t size;
} MmMsgSetTier;

typedef struct MmMsgSetIOLimits {
    uint32_t number;
    uint32_t pad;
    MmMsgIOLimits io;           /* all of them anew */
} MmMsgSetIOLimits;

/*
 * These tiers take nothing more, unless no other can, and what is in them moves
 * to the others.  Refused, all of it, if these cannot promise the space.
 */
typedef struct MmMsgSetDraining {
    uint32_t tiers;             /* bit per number; others do not drain (now) */
    uint32_t pad;
} MmMsgSetDraining;

/*
 * These tiers get only what no other takes, but keep what they have.  Not known
 * to the next pager.
 */
typedef struct MmMsgSetSpared {
    uint32_t tiers;             /* bit per number; others are not (any more) */
    uint32_t pad;
} MmMsgSetSpared;

/* Descriptors of START, in this order; the device may be absent. */
typedef enum MmStartFd {
    MM_START_FD_CONNECTION,     /* from QEMU, its HELLO already read */
    MM_START_FD_LISTEN,         /* listening control socket of this VM */
    MM_START_FD_LOCK,           /* with an OFD write lock held; no data */
    MM_START_FD_UFFD_DEV,       /* an open /dev/userfaultfd */
    MM_START_FD__MAX
} MmStartFd;

typedef struct MmMsgStart {
    uint32_t version;           /* chosen from HELLO's range */
    uint32_t resume;            /* 1: RESUME_VM follows on the connection */
    uint64_t hello_seq;         /* for the answer HELLO_REPLY */
    uint32_t qemu_pid;          /* from SO_PEERCRED, for display */
    uint32_t qemu_uid;
    /*
     * the manager's default in bytes, or MM_LIMIT_NONE; a region's own one wins
     */
    uint64_t limit;
    uint64_t sample_interval_ns; /* 0: the working set is not estimated */
    uint8_t uuid[MM_UUID_LEN];
    uint8_t cookie[MM_COOKIE_LEN];
    char name[MM_NAME_LEN];
} MmMsgStart;

typedef struct MmMsgControlInfo {
    uint8_t uuid[MM_UUID_LEN];
    char name[MM_NAME_LEN];
    uint32_t pager_pid;
    uint32_t qemu_pid;
    uint32_t serving;           /* 0 while attaching */
    uint32_t pad;
} MmMsgControlInfo;

typedef struct MmMsgRegionInfo {
    uint32_t id;
    uint32_t page_size;
    uint64_t size;
    uint64_t resident;          /* bytes each */
    uint64_t zero;
    uint64_t swapped;
    uint64_t never;
    uint64_t dma_held;          /* bytes in chunks whose counter is not 0 */
    char idstr[MM_IDSTR_LEN];
} MmMsgRegionInfo;

/* Log2 buckets in nanoseconds: bucket n counts [2^n, 2^(n+1)). */
#define MM_LATENCY_BUCKETS 40

/*
 * Counters of one VM.  They live in MmState and outlast a pager; only the
 * pager writes, 64-bit and relaxed, so a reader may see them slightly apart.
 */
typedef struct MmStats {
    uint64_t fault_missing;     /* first touches of never populated pages */
    uint64_t fault_minor;       /* present pages mapped again */
    uint64_t fault_zero;        /* zero or same-filled pages rebuilt */
    uint64_t fault_swapin;      /* faults that read from a tier */
    uint64_t fault_wait;        /* faults that had to wait for reclaim */
    uint64_t refault;           /* zapped candidates touched before eviction */
    uint64_t pages_populated;   /* never populated pages filled, with chunks */
    uint64_t pages_read;        /* from tiers, with clusters */
    uint64_t pages_written;     /* to tiers */
    uint64_t pages_zapped;
    uint64_t pages_evicted;     /* dropped from memory, zero ones included */
    uint64_t pages_evicted_zero;
    uint64_t pages_moved;       /* from place to place outside memory */
    uint64_t pages_discarded;
    uint64_t pages_overwritten; /* without having been read, by disk reads */
    uint64_t pages_fetched;     /* from where they are, for a migration */
    uint64_t pages_stored;      /* to tiers, for a migration that arrives */
    uint64_t pages_adopted;     /* where another host has left them */
    uint64_t evict_abort_touched; /* given up: touched during writeback */
    uint64_t evict_abort_dma;   /* given up: mapped for DMA */
    uint64_t read_errors;
    uint64_t write_errors;
    uint64_t checksum_errors;
    uint64_t pages_lost;
    uint64_t io_put_off;        /* transfers that I/O limits have held up */
    uint64_t pager_starts;
    uint64_t last_stall_ns;     /* connection lost until served again */
    uint64_t latency[MM_LATENCY_BUCKETS]; /* fault read to page placed */
    uint64_t tier_written[MM_MAX_TIERS];  /* bytes, by number */
} MmStats;

/* Of pages chosen at random, how many were touched within an interval. */
typedef struct MmMsgSample {
    uint32_t touched;
    uint32_t pages;             /* 0: there was none yet */
    uint64_t size;              /* bytes that they were chosen from */
    uint64_t interval_ns;
    uint64_t age_ns;            /* since its end */
} MmMsgSample;

typedef struct MmMsgQueryReply {
    uint64_t size;              /* all regions, bytes */
    uint64_t limit;             /* bytes, or MM_LIMIT_NONE */
    uint64_t hard_limit;        /* bytes, or MM_LIMIT_NONE */
    uint64_t resident;          /* bytes each */
    uint64_t zero;
    uint64_t swapped;
    uint64_t never;
    /* by number */
    uint64_t tier_content[MM_MAX_TIERS]; /* bytes of memory that lie in it */
    uint64_t tier_used[MM_MAX_TIERS];   /* bytes that these take there */
    uint64_t tier_size[MM_MAX_TIERS];   /* bytes of storage that it has */
    uint32_t tiers;             /* bit per number: the pager has it */
    uint32_t drained;           /* ... and it is empty for good */
    uint32_t proven;            /* ... and it is the VM's, or lent to it */
    uint32_t compressed;        /* ... and it is memory */
    uint32_t encrypted;         /* 1: the VM has a key */
    uint32_t nr_regions;
    uint32_t stalled_threads;   /* distinct threads that wait in a fault */
    uint32_t serving;
    uint64_t oldest_fault_ns;   /* age of the oldest waiting fault, or 0 */
    MmMsgSample sample;
    MmStats stats;
} MmMsgQueryReply;

#endif
