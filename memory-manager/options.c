/*
 * qemu-memory-manager: what the command line says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Relative paths are made absolute here, because a daemon changes its working
 * directory. Everything has a default; what cannot work is refused at start,
 * with the way out in the message, and not when the first VM attaches.
 */
#include "qemu/osdep.h"
#include <getopt.h>
#include <grp.h>
#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/help_option.h"
#include "qemu/help-texts.h"
#include "qemu/log.h"
#include "qemu/units.h"
#include "qemu-version.h"
#include "trace/control.h"
#include "config-file.h"
#include "options.h"
#include "pager/limit.h"
#include "pager/page-map.h"

#define DEFAULT_ATTACH_GROUP "kvm"
#define DEFAULT_MAX_VMS_PER_USER 512
#define DEFAULT_WSS_INTERVAL_S 30
#define MAX_WSS_INTERVAL_S 86400
/* No guest of today is of use with less: a unit was forgotten, most likely. */
#define LOW_LIMIT (16 * MiB)
#define PAGER_NAME "qemu-memory-pager"
#define DEFAULT_CONFIG CONFIG_QEMU_CONFDIR "/memory-manager.conf"

enum {
    OPTION_ATTACH_GROUP = 256,
    OPTION_ATTACH_MODE,
    OPTION_CONFIG,
    OPTION_DAEMONIZE,
    OPTION_FOREGROUND,
    OPTION_LIMIT,
    OPTION_MAX_VMS,
    OPTION_PAGER,
    OPTION_PAGER_CGROUP,
    OPTION_PIDFILE,
    OPTION_QMP,
    OPTION_RUN_DIR,
    OPTION_TIER,
    OPTION_WSS_INTERVAL,
};

static const struct option long_options[] = {
    { "attach-group", required_argument, NULL, OPTION_ATTACH_GROUP },
    { "attach-mode", required_argument, NULL, OPTION_ATTACH_MODE },
    { "config", required_argument, NULL, OPTION_CONFIG },
    { "daemonize", no_argument, NULL, OPTION_DAEMONIZE },
    { "foreground", no_argument, NULL, OPTION_FOREGROUND },
    { "help", no_argument, NULL, 'h' },
    { "limit", required_argument, NULL, OPTION_LIMIT },
    { "max-vms-per-user", required_argument, NULL, OPTION_MAX_VMS },
    { "pager", required_argument, NULL, OPTION_PAGER },
    { "pager-cgroup", required_argument, NULL, OPTION_PAGER_CGROUP },
    { "pidfile", required_argument, NULL, OPTION_PIDFILE },
    { "qmp", required_argument, NULL, OPTION_QMP },
    { "run-dir", required_argument, NULL, OPTION_RUN_DIR },
    { "tier", required_argument, NULL, OPTION_TIER },
    { "trace", required_argument, NULL, 'T' },
    { "version", no_argument, NULL, 'V' },
    { "wss-interval", required_argument, NULL, OPTION_WSS_INTERVAL },
    { 0, 0, 0, 0 }
};

static void help(void)
{
    printf(
"Usage: %s [options]\n"
"Host service for the managed memory of QEMU's virtual machines\n"
"\n"
"QEMU connects to it with -object memory-backend-managed. It starts one\n"
"qemu-memory-pager per VM, which keeps the VM below its resident limit.\n"
"qemu-memctl shows and controls what it manages.\n"
"\n"
"Where:\n"
"  --run-dir DIR          sockets and state of running VMs\n"
"                         (default: " MM_DEFAULT_RUN_DIR ")\n"
"  --qmp PATH             QMP socket (default: RUN-DIR/" MM_QMP_SOCKET_NAME
")\n"
"  --pager PATH           the pager's program\n"
"                         (default: beside this program, or in libexecdir)\n"
"\n"
"Memory:\n"
"  --tier file[,path=DIR][,name=NAME][,size=SIZE][,overcommit=on|off]\n"
"              [,shared=on|off]\n"
"  --tier device,path=PATH[,name=NAME][,size=SIZE]...\n"
"  --tier compressed[,size=SIZE|PERCENT%%][,algorithm=lz4|zstd]...\n"
"                         where memory goes that is not resident, several in\n"
"                         the order in which they are filled; --tier help\n"
"                         explains (default: file in\n"
"                         " MM_DEFAULT_TIER_PATH ")\n"
"  --limit SIZE|none      resident limit of VMs that do not set one\n"
"                         (default: none)\n"
"  --wss-interval SECONDS how long a sample lasts by which VMs' working sets are\n"
"                         estimated, 0: no estimates (default: %d)\n"
"\n"
"Who may attach:\n"
"  --attach-mode MODE     access mode of RUN-DIR/" MM_ATTACH_SOCKET_NAME
", octal\n"
"                         (default: 0660)\n"
"  --attach-group GROUP   its group (default: " DEFAULT_ATTACH_GROUP
" if there is one and the\n"
"                         manager is root, else that of the manager)\n"
"  --max-vms-per-user N   VMs that one user can have attached (default: %d)\n"
"  --pager-cgroup vm|none vm: a pager joins the cgroups of its QEMU, so that\n"
"                         the VM is charged for its work (default: vm)\n"
"\n"
"Running:\n"
"  --config FILE          read options from this file first; man page: Files\n"
"                         (default: " DEFAULT_CONFIG ",\n"
"                         if there is one)\n"
"  --foreground           do not daemonize (default)\n"
"  --daemonize            go into the background once everything is set up\n"
"  --pidfile PATH         write the process ID there\n"
"  -D FILE                write messages and traces there\n"
"  -d ITEM[,...]          log these items, such as trace:mm_*; see -d help\n"
"  -T, --trace [[enable=]PATTERN][,events=FILE][,file=FILE]\n"
"                         enable trace events\n"
"  -h, --help             this text\n"
"  -V, --version          the version\n"
"\n"
QEMU_HELP_BOTTOM "\n", g_get_prgname(), DEFAULT_WSS_INTERVAL_S,
        DEFAULT_MAX_VMS_PER_USER);
}

static char *absolute(const char *path)
{
    g_autofree char *cwd = g_get_current_dir();

    return g_path_is_absolute(path) ? g_strdup(path)
                                    : g_build_filename(cwd, path, NULL);
}

static void set_path(char **where, const char *path)
{
    g_free(*where);
    *where = absolute(path);
}

static void check_limit(const char *arg, uint64_t limit)
{
    uint64_t floor = MM_LIMIT_MIN;
    g_autofree char *limit_text = size_to_str(limit);
    g_autofree char *floor_text = size_to_str(floor);

    if (limit < floor) {
        error_report("a limit of %s (--limit %s) is too low for a guest to "
                     "run, it must be at least %s", limit_text, arg,
                     floor_text);
        error_printf("Without a unit, it is a number of bytes. Use a size "
                     "like 512M or 4G, or 'none'.\n");
        exit(EXIT_FAILURE);
    }
    if (limit < LOW_LIMIT) {
        warn_report("guests will hardly run with a limit of %s (--limit %s)",
                    limit_text, arg);
    }
}

static uint64_t parse_limit(const char *arg)
{
    uint64_t limit;

    if (g_str_equal(arg, "none")) {
        return MM_LIMIT_NONE;
    }
    if (qemu_strtosz(arg, NULL, &limit) < 0 || !limit) {
        error_report("'%s' is not a limit", arg);
        error_printf("Use a size like 512M or 4G, or 'none'.\n");
        exit(EXIT_FAILURE);
    }
    check_limit(arg, limit);
    return limit;
}

static mode_t parse_mode(const char *arg)
{
    unsigned mode;

    if (qemu_strtoui(arg, NULL, 8, &mode) < 0 || (mode & ~0666)) {
        error_report("'%s' is not an access mode", arg);
        error_printf("Use octal digits: 0600, 0660 or 0666, for example.\n");
        exit(EXIT_FAILURE);
    }
    return mode;
}

static gid_t parse_group(const char *arg)
{
    struct group *group = getgrnam(arg);
    unsigned gid;

    if (group) {
        return group->gr_gid;
    }
    if (qemu_strtoui(arg, NULL, 10, &gid) < 0) {
        error_report("there is no group '%s'", arg);
        exit(EXIT_FAILURE);
    }
    return gid;
}

static uint32_t parse_count(const char *option, const char *arg)
{
    unsigned n;

    if (qemu_strtoui(arg, NULL, 10, &n) < 0 || !n) {
        error_report("%s needs a number above 0, not '%s'", option, arg);
        exit(EXIT_FAILURE);
    }
    return n;
}

static uint32_t parse_interval(const char *arg)
{
    unsigned n;

    if (qemu_strtoui(arg, NULL, 10, &n) < 0 || n > MAX_WSS_INTERVAL_S) {
        error_report("--wss-interval needs a number of seconds up to %d, not "
                     "'%s'", MAX_WSS_INTERVAL_S, arg);
        exit(EXIT_FAILURE);
    }
    return n;
}

static bool parse_cgroup(const char *arg)
{
    if (!g_str_equal(arg, "vm") && !g_str_equal(arg, "none")) {
        error_report("--pager-cgroup is 'vm' or 'none', not '%s'", arg);
        exit(EXIT_FAILURE);
    }
    return g_str_equal(arg, "vm");
}

static void parse_log_items(const char *arg)
{
    int mask = qemu_str_to_log_mask(arg);

    if (!mask) {
        qemu_print_log_usage(stdout);
        exit(is_help_option(arg) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    qemu_set_log(mask, &error_fatal);
}

static void parse_option(MmOptions *opts, int c)
{
    switch (c) {
    case OPTION_ATTACH_GROUP:
        opts->attach_gid = parse_group(optarg);
        break;
    case OPTION_ATTACH_MODE:
        opts->attach_mode = parse_mode(optarg);
        break;
    case OPTION_CONFIG:
    case OPTION_DAEMONIZE:
    case OPTION_FOREGROUND:
        break;                  /* parsed before all others */
    case OPTION_LIMIT:
        opts->limit = parse_limit(optarg);
        break;
    case OPTION_MAX_VMS:
        opts->max_vms_per_user = parse_count("--max-vms-per-user", optarg);
        break;
    case OPTION_PAGER:
        set_path(&opts->pager_path, optarg);
        break;
    case OPTION_PAGER_CGROUP:
        opts->pager_in_vm_cgroup = parse_cgroup(optarg);
        break;
    case OPTION_PIDFILE:
        set_path(&opts->pid_file, optarg);
        break;
    case OPTION_QMP:
        set_path(&opts->qmp_path, optarg);
        break;
    case OPTION_RUN_DIR:
        set_path(&opts->run_dir, optarg);
        break;
    case OPTION_TIER:
        mm_tier_parse(opts->tiers, &opts->nr_tiers, optarg);
        break;
    case OPTION_WSS_INTERVAL:
        opts->wss_interval_s = parse_interval(optarg);
        break;
    case 'D':
        set_path(&opts->log_file, optarg);
        break;
    case 'd':
        parse_log_items(optarg);
        break;
    case 'T':
        trace_opt_parse(optarg);
        break;
    default:
        g_assert_not_reached();
    }
}

/* The pager lies beside the manager, in the build tree or installed. */
static char *find_pager(void)
{
    g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(exe ?: "/usr/bin/x");
    g_autofree char *helpers = get_relocated_path(CONFIG_QEMU_HELPERDIR);
    char *places[] = {
        g_build_filename(helpers, PAGER_NAME, NULL),
        g_build_filename(dir, PAGER_NAME, NULL),
        g_build_filename(dir, "pager", PAGER_NAME, NULL),
    };
    char *found = NULL;
    int i;

    for (i = 0; i < ARRAY_SIZE(places); i++) {
        if (!found && access(places[i], X_OK) == 0) {
            found = g_steal_pointer(&places[i]);
        }
        g_free(places[i]);
    }
    return found;
}

static void fill_defaults(MmOptions *opts)
{
    if (!opts->run_dir) {
        opts->run_dir = g_strdup(MM_DEFAULT_RUN_DIR);
    }
    if (!opts->qmp_path) {
        opts->qmp_path = g_build_filename(opts->run_dir, MM_QMP_SOCKET_NAME,
                                          NULL);
    }
    if (!opts->nr_tiers) {
        mm_tier_parse(opts->tiers, &opts->nr_tiers, "file");
    }
    mm_tiers_check(opts->tiers, opts->nr_tiers, &error_fatal);
    mm_tiers_warn(opts->tiers, opts->nr_tiers);
    if (!opts->pager_path) {
        opts->pager_path = find_pager();
    }
    if (!opts->pager_path || access(opts->pager_path, X_OK)) {
        error_report("cannot execute the pager, %s%s%s",
                     opts->pager_path ?: PAGER_NAME,
                     opts->pager_path ? ": " : "",
                     opts->pager_path ? strerror(errno) : " is not installed");
        error_printf("Install it beside this program, or name it with "
                     "--pager PATH.\n");
        exit(EXIT_FAILURE);
    }
}

static int next_option(int argc, char **argv)
{
    return getopt_long(argc, argv, "hVD:d:T:", long_options, NULL);
}

bool mm_options_parse_early(int argc, char **argv)
{
    bool daemonize = false;
    int c;

    while ((c = next_option(argc, argv)) != -1) {
        switch (c) {
        case OPTION_DAEMONIZE:
        case OPTION_FOREGROUND:
            daemonize = c == OPTION_DAEMONIZE;
            break;
        case 'h':
            help();
            exit(EXIT_SUCCESS);
        case 'V':
            printf("qemu-memory-manager version " QEMU_FULL_VERSION "\n"
                   QEMU_COPYRIGHT "\n");
            exit(EXIT_SUCCESS);
        case '?':
            fprintf(stderr, "Try '%s --help' for the options.\n",
                    g_get_prgname());
            exit(EXIT_FAILURE);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: '%s' is not an option\n"
                "Try '%s --help' for the options.\n",
                g_get_prgname(), argv[optind], g_get_prgname());
        exit(EXIT_FAILURE);
    }
    return daemonize;
}

bool mm_options_set(MmOptions *opts, const char *name, const char *value)
{
    const struct option *o;

    for (o = long_options; o->name; o++) {
        if (g_str_equal(o->name, name) && o->has_arg == required_argument &&
            o->val != OPTION_CONFIG && o->val != OPTION_TIER) {
            optarg = (char *)value;
            parse_option(opts, o->val);
            return true;
        }
    }
    return false;
}

/* What the file says is there before the command line is parsed. */
static void read_config(MmOptions *opts, int argc, char **argv)
{
    g_autofree char *path = get_relocated_path(DEFAULT_CONFIG);
    bool given = false, tiers = false;
    int c;

    optind = 1;
    while ((c = next_option(argc, argv)) != -1) {
        tiers |= c == OPTION_TIER;
        if (c == OPTION_CONFIG) {
            given = true;
            set_path(&path, optarg);
        }
    }
    if (given || access(path, F_OK) == 0) {
        mm_config_read(opts, path, &error_fatal);
    }
    while (tiers && opts->nr_tiers) {
        /* instead of those of the file */
        mm_tier_clear(&opts->tiers[--opts->nr_tiers]);
    }
}

void mm_options_parse(MmOptions *opts, int argc, char **argv)
{
    struct group *group = getgrnam(DEFAULT_ATTACH_GROUP);
    int c;

    *opts = (MmOptions) {
        .attach_mode = 0660,
        .attach_gid = group && geteuid() == 0 ? group->gr_gid : getegid(),
        .limit = MM_LIMIT_NONE,
        .max_vms_per_user = DEFAULT_MAX_VMS_PER_USER,
        .pager_in_vm_cgroup = true,
        .wss_interval_s = DEFAULT_WSS_INTERVAL_S,
    };
    read_config(opts, argc, argv);
    optind = 1;
    while ((c = next_option(argc, argv)) != -1) {
        parse_option(opts, c);
    }
    fill_defaults(opts);
}
