/*
 * qemu-memory-manager: what a tier is, by command line, file or QMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "qemu/osdep.h"
#include <sys/stat.h>
#include <sys/vfs.h>
#include <linux/magic.h>
#include "qapi/error.h"
#include "qemu/config-file.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/help_option.h"
#include "qemu/option.h"
#include "qemu/units.h"
#include "shared-file.h"
#include "tier-conf.h"
#include "tier-device.h"

#define DEFAULT_SHARE 25
#define MIN_WRITE_BUDGET (1 * GiB)

QemuOptsList mm_tier_opts = {
    .name = "tier",
    .implied_opt_name = "type",
    .head = QTAILQ_HEAD_INITIALIZER(mm_tier_opts.head),
    .desc = {
        {
            .name = "type",
            .type = QEMU_OPT_STRING,
            .help = "kind of tier: file, device, compressed (default: file)",
        }, {
            .name = "name",
            .type = QEMU_OPT_STRING,
            .help = "name in queries (default: swap; compressed)",
        }, {
            .name = "path",
            .type = QEMU_OPT_STRING,
            .help = "file: directory for the VMs' unnamed files (default: "
                    MM_DEFAULT_TIER_PATH "); device: block device of a VM, "
                    "with %n for its name, such as /dev/vg0/swap-%n",
        }, {
            .name = "size",
            .type = QEMU_OPT_STRING,
            .help = "most that one VM can have in it, such as 4G; compressed: "
                    "also a share of the VM's memory, such as 25% (default: "
                    "no limit; 25%)",
        }, {
            .name = "algorithm",
            .type = QEMU_OPT_STRING,
            .help = "compressed: lz4, which is fast, or zstd, which takes "
                    "less room (default: lz4)",
        }, {
            .name = "overcommit",
            .type = QEMU_OPT_BOOL,
            .help = "last tier: do not reserve space when a VM attaches "
                    "(default: off)",
        }, {
            .name = "shared",
            .type = QEMU_OPT_BOOL,
            .help = "file: the directory is on storage that other hosts see, "
                    "so that a VM can migrate without what is in it "
                    "(default: off)",
        },
        {
            .name = "throttling.bps-total",
            .type = QEMU_OPT_SIZE,
            .help = "not compressed: most bytes per second that one VM reads "
                    "and writes (default: no limit)",
        }, {
            .name = "throttling.bps-total-max",
            .type = QEMU_OPT_SIZE,
            .help = "not compressed: most bytes at once after a pause "
                    "(default: a tenth of a second's)",
        }, {
            .name = "throttling.iops-total",
            .type = QEMU_OPT_NUMBER,
            .help = "not compressed: most operations per second (default: no "
                    "limit)",
        }, {
            .name = "throttling.iops-total-max",
            .type = QEMU_OPT_NUMBER,
            .help = "not compressed: most operations at once after a pause "
                    "(default: a tenth of a second's)",
        }, {
            .name = "write-budget",
            .type = QEMU_OPT_SIZE,
            .help = "not compressed: bytes that all VMs together should write "
                    "to it per day, for the sake of flash (default: no limit)",
        },
        { /* end of list */ }
    },
};

const MmTierConf *mm_tier_find(const MmTierConf *tiers, unsigned nr,
                               const char *name)
{
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (g_str_equal(tiers[i].name, name)) {
            return &tiers[i];
        }
    }
    return NULL;
}

static const char *const types[MM_TIER_KIND__MAX] = {
    [MM_TIER_KIND_FILE] = "file",
    [MM_TIER_KIND_COMPRESSED] = "compressed",
    [MM_TIER_KIND_DEVICE] = "device",
};

const char *mm_tier_type(MmTierKind kind)
{
    return types[kind];
}

static bool parse_kind(MmTierConf *tier, const char *type, Error **errp)
{
    ERRP_GUARD();
    MmTierKind kind = 0;

    while (kind < MM_TIER_KIND__MAX && !g_str_equal(type, types[kind])) {
        kind++;
    }
    if (kind == MM_TIER_KIND__MAX) {
        error_setg(errp, "'%s' is not a type of tier, these are 'file', "
                   "'device' and 'compressed'", type);
        error_append_hint(errp, "Try: --tier compressed --tier "
                          "file,path=DIR\n");
        return false;
    }
    tier->kind = kind;
    return true;
}

static bool parse_algorithm(MmTierConf *tier, const char *name, Error **errp)
{
    ERRP_GUARD();

    if (!g_str_equal(name, "lz4") && !g_str_equal(name, "zstd")) {
        error_setg(errp, "'%s' is not an algorithm of a compressed tier",
                   name);
        error_append_hint(errp, "It can be lz4 or zstd.\n");
        return false;
    }
    tier->algorithm = g_str_equal(name, "lz4") ? MM_ALGORITHM_LZ4
                                               : MM_ALGORITHM_ZSTD;
    return true;
}

static bool parse_size(MmTierConf *tier, const char *size, Error **errp)
{
    ERRP_GUARD();
    const char *end;
    unsigned share;

    if (tier->kind == MM_TIER_KIND_COMPRESSED &&
        qemu_strtoui(size, &end, 10, &share) == 0 && g_str_equal(end, "%") &&
        share >= 1 && share <= 100) {
        tier->vm_share = share;
        return true;
    }
    if (qemu_strtosz(size, NULL, &tier->vm_size) < 0 || !tier->vm_size) {
        error_setg(errp, "'%s' is not a size of tier '%s'", size, tier->name);
        error_append_hint(errp, tier->kind != MM_TIER_KIND_COMPRESSED
                          ? "Use a size like 512M or 4G.\n"
                          : "Use a size like 512M or 4G, or a share of the "
                            "VM's memory from 1%% to 100%%.\n");
        return false;
    }
    return true;
}

static bool parse_outside(MmTierConf *tier, QemuOpts *o, Error **errp)
{
    ERRP_GUARD();
    g_autofree char *cwd = g_get_current_dir();
    const char *path = qemu_opt_get(o, "path");

    if (qemu_opt_get(o, "algorithm")) {
        error_setg(errp, "tier '%s' is of type '%s', which does not compress",
                   tier->name, mm_tier_type(tier->kind));
        error_append_hint(errp, "Put a tier of type 'compressed' before it, or "
                          "leave out algorithm=.\n");
        return false;
    }
    if (!path && tier->kind == MM_TIER_KIND_FILE) {
        path = MM_DEFAULT_TIER_PATH;
    }
    if (path && !*path) {
        error_setg(errp, "the path of tier '%s' is empty", tier->name);
        return false;
    }
    if (path) {
        tier->path = g_path_is_absolute(path)
            ? g_strdup(path) : g_build_filename(cwd, path, NULL);
    }
    return true;
}

static bool parse_compressed(MmTierConf *tier, QemuOpts *o, Error **errp)
{
    ERRP_GUARD();

    if (qemu_opt_get(o, "path") || mm_io_throttle_any(&tier->io) ||
        tier->writes.per_day) {
        error_setg(errp, "tier '%s' is in memory and has no %s", tier->name,
                   qemu_opt_get(o, "path") ? "path" :
                   tier->writes.per_day ? "write-budget"
                                        : "I/O to be throttled");
        error_append_hint(errp, "Leave that out, or use a tier of type "
                          "'file'.\n");
        return false;
    }
    if (!tier->vm_size && !tier->vm_share) {
        tier->vm_share = DEFAULT_SHARE;
    }
    return parse_algorithm(tier, qemu_opt_get(o, "algorithm") ?: "lz4", errp);
}

static bool parse_name(MmTierConf *tier, const char *name, Error **errp)
{
    tier->name = g_strdup(name ?: tier->kind == MM_TIER_KIND_COMPRESSED
                          ? "compressed" : "swap");
    if (!*tier->name || strlen(tier->name) >= MM_NAME_LEN) {
        error_setg(errp, "a tier's name has 1 to %d bytes", MM_NAME_LEN - 1);
        return false;
    }
    return true;
}

static bool parse_write_budget(MmTierConf *tier, QemuOpts *o, Error **errp)
{
    uint64_t per_day = qemu_opt_get_size(o, "write-budget", 0);

    tier->writes.per_day = per_day;
    if (per_day && per_day < MIN_WRITE_BUDGET) {
        error_setg(errp, "write-budget=%" PRIu64 " is too low for a day; it is "
                   "at least 1G, or 0 for no budget", per_day);
        return false;
    }
    return true;
}

static bool check_shared(const MmTierConf *tier, Error **errp)
{
    if (tier->shared && tier->kind != MM_TIER_KIND_FILE) {
        error_setg(errp, "tier '%s' is of type '%s' and cannot be shared; only "
                   "a directory can", tier->name, mm_tier_type(tier->kind));
        return false;
    }
    if (tier->shared && strlen(tier->path) >= MM_RECORD_PATH_LEN) {
        error_setg(errp, "the path of tier '%s' has more than %d bytes",
                   tier->name, MM_RECORD_PATH_LEN - 1);
        return false;
    }
    return true;
}

static bool parse_tier(MmTierConf *tier, QemuOpts *o, Error **errp)
{
    const char *size = qemu_opt_get(o, "size");

    return parse_kind(tier, qemu_opt_get(o, "type") ?: "file", errp) &&
           parse_name(tier, qemu_opt_get(o, "name"), errp) &&
           (!size || parse_size(tier, size, errp)) &&
           mm_io_throttle_from_opts(&tier->io, o, errp) &&
           parse_write_budget(tier, o, errp) &&
           (tier->kind == MM_TIER_KIND_COMPRESSED
            ? parse_compressed : parse_outside)(tier, o, errp) &&
           check_shared(tier, errp);
}

void mm_tier_clear(MmTierConf *tier)
{
    if (tier->dirfd >= 0) {
        close(tier->dirfd);
    }
    g_free(tier->name);
    g_free(tier->path);
    *tier = (MmTierConf) { .dirfd = -1 };
}

bool mm_tier_from_opts(MmTierConf *tier, QemuOpts *o, Error **errp)
{
    *tier = (MmTierConf) {
        .dirfd = -1,
        .overcommit = qemu_opt_get_bool(o, "overcommit", false),
        .shared = qemu_opt_get_bool(o, "shared", false),
    };
    if (!parse_tier(tier, o, errp)) {
        mm_tier_clear(tier);
        return false;
    }
    return true;
}

void mm_tier_parse(MmTierConf *tiers, unsigned *nr, const char *arg)
{
    Error *err = NULL;
    QemuOpts *o;

    if (is_help_option(arg)) {
        qemu_opts_print_help(&mm_tier_opts, true);
        exit(EXIT_SUCCESS);
    }
    if (*nr == MM_MAX_TIERS) {
        error_report("there can be %d tiers, not more", MM_MAX_TIERS);
        exit(EXIT_FAILURE);
    }
    o = qemu_opts_parse(&mm_tier_opts, arg, true, &err);
    if (!o) {
        error_reportf_err(err, "--tier %s: ", arg);
        error_printf("Its parameters are type, name, path, size, algorithm, "
                     "overcommit, shared, write-budget and throttling.*; "
                     "--tier help explains them.\n");
        exit(EXIT_FAILURE);
    }
    if (!mm_tier_from_opts(&tiers[*nr], o, &err)) {
        error_report_err(err);
        exit(EXIT_FAILURE);
    }
    (*nr)++;
    qemu_opts_del(o);
}

static bool shares_device(const MmTierConf *tiers, unsigned i)
{
    unsigned k;

    for (k = 0; k < i; k++) {
        if (tiers[i].kind == MM_TIER_KIND_DEVICE &&
            tiers[k].kind == MM_TIER_KIND_DEVICE &&
            !g_strcmp0(tiers[i].path, tiers[k].path)) {
            return true;
        }
    }
    return false;
}

bool mm_tiers_check(const MmTierConf *tiers, unsigned nr, Error **errp)
{
    ERRP_GUARD();
    unsigned i;

    for (i = 0; i < nr; i++) {
        if (mm_tier_find(tiers, nr, tiers[i].name) != &tiers[i]) {
            error_setg(errp, "there are two tiers with the name '%s'",
                       tiers[i].name);
            error_append_hint(errp, "Tell them apart with name=NAME.\n");
            return false;
        }
        if (shares_device(tiers, i)) {
            error_setg(errp, "tier '%s' is the same device as another one, %s",
                       tiers[i].name, tiers[i].path);
            return false;
        }
        if (i && tiers[i].kind == MM_TIER_KIND_COMPRESSED) {
            error_setg(errp, "tier '%s' is compressed memory and has to be the "
                       "first one", tiers[i].name);
            error_append_hint(errp, "Tiers are filled in the order of their "
                              "--tier options, the fastest one first.\n");
            return false;
        }
    }
    return true;
}

void mm_tiers_warn(const MmTierConf *tiers, unsigned nr)
{
    const MmTierConf *last = &tiers[nr - 1];

    if (last->kind == MM_TIER_KIND_COMPRESSED && !last->overcommit) {
        warn_report("tier '%s' cannot promise room for what does not compress: "
                    "VMs with a limit are refused. Put a file tier behind it, "
                    "or let it be overcommitted (overcommit=on).", last->name);
    }
}

/* VMs' files are unnamed, so that they vanish with the VM, however it ends. */
static bool check_unnamed_files(MmTierConf *tier, Error **errp)
{
    ERRP_GUARD();
    int fd = openat(tier->dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot make an unnamed file in %s",
                         tier->path);
        error_append_hint(errp, "Choose a directory on a local file system "
                          "with O_TMPFILE, such as ext4, XFS or Btrfs, with "
                          "--tier file,path=DIR.\n");
        return false;
    }
    close(fd);
    return true;
}

static void warn_of_memory(const MmTierConf *tier)
{
    struct statfs fs;

    if (fstatfs(tier->dirfd, &fs) == 0 &&
        (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)) {
        warn_report("tier '%s': %s is itself in memory (tmpfs): to move "
                    "memory there makes no room", tier->name, tier->path);
    }
}

/* What is above its own folder is the host's: a disk may not be mounted. */
static bool make_folder(const char *path)
{
    if (g_str_equal(path, MM_DEFAULT_TIER_PATH)) {
        return g_mkdir_with_parents(path, 0700) == 0;
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST;
}

/* Devices may be made later; all that can be found now is a likely mistake. */
static bool check_device(const MmTierConf *tier, Error **errp)
{
    ERRP_GUARD();
    struct stat st;

    if (!tier->path) {
        error_setg(errp, "tier '%s' is of type 'device' and needs a path",
                   tier->name);
        error_append_hint(errp, "Try: --tier device,path=/dev/vg0/swap-%s\n",
                          MM_DEVICE_NAME);
        return false;
    }
    if (strlen(tier->path) >= MM_RECORD_PATH_LEN) {
        error_setg(errp, "the path of tier '%s' has more than %d bytes",
                   tier->name, MM_RECORD_PATH_LEN - 1);
        return false;
    }
    if (!strstr(tier->path, MM_DEVICE_NAME)) {
        if (stat(tier->path, &st) == 0 && !S_ISBLK(st.st_mode)) {
            error_setg(errp, "tier '%s': %s is no block device", tier->name,
                       tier->path);
            error_append_hint(errp, "For files in a directory there are tiers "
                              "of type 'file'.\n");
            return false;
        }
        warn_report("tier '%s' is the device %s: one VM at a time can have it. "
                    "With %s in the path, which stands for its name, each can "
                    "have one.", tier->name, tier->path, MM_DEVICE_NAME);
    }
    return true;
}

bool mm_tier_open(MmTierConf *tier, Error **errp)
{
    ERRP_GUARD();
    struct stat st;
    bool is_new;

    if (tier->kind != MM_TIER_KIND_FILE) {
        return tier->kind != MM_TIER_KIND_DEVICE || check_device(tier, errp);
    }
    is_new = access(tier->path, F_OK) != 0;
    if (!make_folder(tier->path)) {
        int err = errno;

        error_setg_errno(errp, err, "cannot create the tier's directory %s",
                         tier->path);
        error_append_hint(errp, err == ENOENT
                          ? "Only the last folder of the path is made: is "
                            "the disk not mounted?\n"
                          : "Choose another one with "
                            "--tier file,path=DIR.\n");
        return false;
    }
    tier->dirfd = open(tier->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tier->dirfd < 0) {
        error_setg_errno(errp, errno, "cannot open the tier's directory %s",
                         tier->path);
        error_append_hint(errp, "For block devices there are tiers of type "
                          "'device'.\n");
        return false;
    }
    if (fstat(tier->dirfd, &st) < 0) {
        error_setg_errno(errp, errno, "cannot look at the tier's directory %s",
                         tier->path);
        return false;
    }
    tier->device = st.st_dev;
    if (is_new) {
        info_report("tier '%s': %s did not exist, and was made", tier->name,
                    tier->path);
    }
    warn_of_memory(tier);
    return tier->shared ? mm_shared_identify(tier, errp)
                        : check_unnamed_files(tier, errp);
}

void mm_tier_describe(const MmTierConf *tier, MmMsgStartTier *out)
{
    *out = (MmMsgStartTier) {
        .kind = tier->kind,
        .overcommit = tier->overcommit,
        .shared = tier->shared,
        .algorithm = tier->algorithm,
        .share = tier->vm_share,
        .size = tier->vm_size,
        .io = tier->io,
        .device = tier->device,
    };
    pstrcpy(out->name, sizeof(out->name), tier->name);
    memcpy(out->storage, tier->storage, sizeof(out->storage));
}
