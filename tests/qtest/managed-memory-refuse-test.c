/*
 * Managed memory qtests: what it cannot be combined with
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each conflict is tried in every order that the command line and the monitor
 * allow, without any hardware. QEMU must say what conflicts and what to do
 * instead, must not crash, and must go on as if nobody had asked.
 */
#include "qemu/osdep.h"
#include <sys/socket.h>
#include <sys/un.h>
#include "qapi/qmp/qjson.h"
#include "qemu/cutils.h"
#include "managed-memory-vm.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define ORDINARY "ordinary memory backend"

/* ---- a vhost-user device that has no features ---- */

enum { VHOST_USER_GET_FEATURES = 1, VHOST_USER_REPLY = 4 | 1 };

typedef struct VhostMsg {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
    uint64_t payload;
} QEMU_PACKED VhostMsg;

#define VHOST_HEADER offsetof(VhostMsg, payload)

static void *vhost_peer(void *opaque)
{
    int listener = GPOINTER_TO_INT(opaque);
    int sock = accept(listener, NULL, NULL);
    VhostMsg msg;
    char skip[4096];

    close(listener);
    while (recv(sock, &msg, VHOST_HEADER, MSG_WAITALL) == VHOST_HEADER) {
        if (msg.size) {
            g_assert_cmpint(msg.size, <=, sizeof(skip));
            g_assert_cmpint(recv(sock, skip, msg.size, MSG_WAITALL), ==,
                            msg.size);
        }
        if (msg.request == VHOST_USER_GET_FEATURES) {
            msg.flags = VHOST_USER_REPLY;
            msg.size = sizeof(msg.payload);
            msg.payload = 0;
            g_assert_cmpint(send(sock, &msg, sizeof(msg), 0), ==, sizeof(msg));
        }
    }
    close(sock);
    return NULL;
}

/* Returns arguments that make the chardev "vu", connected to such a device. */
static char *start_vhost_peer(const MmHost *host, GThread **thread)
{
    g_autofree char *path = mm_host_path(host, "vhost-user");
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    pstrcpy(addr.sun_path, sizeof(addr.sun_path), path);
    g_assert_cmpint(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(sock, 1), ==, 0);
    *thread = g_thread_new("vhost-user", vhost_peer, GINT_TO_POINTER(sock));
    return g_strdup_printf("-chardev socket,id=vu,path=%s", path);
}

/* ---- managed memory first ---- */

/* A command's arguments; what has to be in the error */
typedef struct Refusal {
    const char *command;
    const char *arguments;
    const char *words;
} Refusal;

static const Refusal later[] = {
    { "device_add", "{'driver': 'vhost-user-blk-pci', 'chardev': 'spare', "
      "'bus': 'rp'}",
      "vhost-user-blk|another process maps guest memory|virtio|" ORDINARY },
    { "device_add", "{'driver': 'vhost-user-rng-pci', 'chardev': 'spare', "
      "'bus': 'rp'}",
      "vhost-user-rng|another process maps guest memory|" ORDINARY },
    { "device_add", "{'driver': 'vhost-user-scsi-pci', 'chardev': 'spare', "
      "'bus': 'rp'}",
      "vhost-user-scsi|another process maps guest memory|" ORDINARY },
    { "device_add", "{'driver': 'vhost-user-fs-pci', 'chardev': 'spare', "
      "'tag': 't', 'bus': 'rp'}",
      "vhost-user-fs|another process maps guest memory|" ORDINARY },
    { "device_add", "{'driver': 'vhost-scsi-pci', 'bus': 'rp', "
      "'wwpn': 'naa.5123456789abcde0'}",
      "vhost-scsi|pins guest memory|virtio-scsi|" ORDINARY },
    { "device_add", "{'driver': 'vfio-pci', 'host': '0000:00:00.0', "
      "'bus': 'rp'}",
      "vfio-pci|pins guest memory|" ORDINARY },
    { "device_add", "{'driver': 'virtio-pmem-pci', 'memdev': 'spare-mem', "
      "'bus': 'rp'}",
      "virtio-pmem|does not persist|memory-backend-file" },
    { "device_add", "{'driver': 'nvdimm', 'memdev': 'spare-mem'}",
      "nvdimm|does not persist|memory-backend-file" },
    { "device_add", "{'driver': 'nvme', 'serial': 'x', "
      "'pmrdev': 'spare-mem', 'bus': 'rp'}",
      "nvme|does not persist|memory-backend-file" },
    { "netdev_add", "{'type': 'vhost-user', 'id': 'n', 'chardev': 'spare'}",
      "vhost-user|another process maps guest memory|virtio|" ORDINARY },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'postcopy-ram', 'state': true}]}",
      "postcopy-ram|managed memory|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'background-snapshot', "
      "'state': true}]}",
      "background-snapshot|managed memory|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'x-colo', 'state': true}]}",
      "x-colo|managed memory|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'xbzrle', 'state': true}]}",
      "xbzrle|managed memory|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'compress', 'state': true}]}",
      "compress|managed memory|multifd|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'x-ignore-shared', 'state': true}]}",
      "x-ignore-shared|managed memory|switch it off" },
    { "migrate-set-capabilities",
      "{'capabilities': [{'capability': 'xbzrle', 'state': true}, "
      "{'capability': 'postcopy-ram', 'state': true}]}",
      "postcopy-ram|managed memory|switch it off" },
};

static void test_later(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *spare = mm_backend(host, "spare-mem", 64, "");
    g_autofree char *chardev = mm_host_path(host, "spare");
    g_autofree char *args = g_strdup_printf(
        "-machine nvdimm=on -m 32M,slots=2,maxmem=1G "
        "-device pcie-root-port,id=rp "
        "-chardev socket,id=spare,path=%s,server=on,wait=off %s", chardev,
        spare);
    QTestState *qts = mm_start(host, "", args);
    int i;

    mm_fill(qts, MM_RAM_START, 8 * MM_MIB, 1);
    mm_host_evict_all(host, NULL, 0);
    for (i = 0; i < ARRAY_SIZE(later); i++) {
        g_autofree char *command = g_strdup_printf(
            "{'execute': '%s', 'arguments': %s}", later[i].command,
            later[i].arguments);
        g_autofree char *error = mm_qmp_error(qts, "%p",
                                              qobject_from_json(command,
                                                                NULL));

        mm_assert_text(error, later[i].words);
    }
    /* what does not conflict still works, and so does memory */
    qobject_unref(mm_qmp(qts, "{'execute': 'device_add', 'arguments': {"
                         "'driver': 'virtio-balloon-pci', 'bus': 'rp'}}"));
    qobject_unref(mm_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                         "'arguments': {'capabilities': [{"
                         "'capability': 'multifd', 'state': true}]}}"));
    mm_check(qts, MM_RAM_START, 8 * MM_MIB, 1);
    mm_stop(qts, host);
    mm_host_free(host);
}

/* ---- managed memory second ---- */

static char *try_object(QTestState *qts, MmHost *host)
{
    return mm_qmp_error(qts, "{'execute': 'object-add', 'arguments': {"
                        "'qom-type': 'memory-backend-managed', 'id': 'mm0', "
                        "'size': 4194304, 'path': %s}}", host->attach);
}

static void add_object(QTestState *qts, MmHost *host)
{
    qobject_unref(mm_qmp(qts, "{'execute': 'object-add', 'arguments': {"
                         "'qom-type': 'memory-backend-managed', 'id': 'mm0', "
                         "'size': 4194304, 'path': %s}}", host->attach));
}

static void refused_with(const char *machine, const char *args,
                         const char *words)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *error = NULL;
    QTestState *qts;
    GThread *peer;
    g_autofree char *chardev = start_vhost_peer(host, &peer);

    qts = qtest_initf("-machine %s -nodefaults %s %s", machine, chardev, args);
    mm_host_guard(host);
    error = try_object(qts, host);
    mm_assert_text(error, words);
    qtest_quit(qts);
    g_thread_join(peer);
    mm_host_free(host);
}

static void test_vhost_user_netdev_first(void)
{
    refused_with("none", "-netdev vhost-user,id=net0,chardev=vu",
                 "vhost-user|net0|another process maps guest memory|"
                 "another netdev");
}

/* One that comes after more netdevs than anybody has */
static void test_vhost_user_netdev_last(void)
{
    g_autoptr(GString) args = g_string_new("");
    int i;

    for (i = 0; i < 100; i++) {
        g_string_append_printf(args, "-netdev hubport,id=hub%d,hubid=0 ", i);
    }
    g_string_append(args, "-netdev vhost-user,id=net0,chardev=vu");
    refused_with("none", args->str,
                 "vhost-user|net0|another process maps guest memory|"
                 "another netdev");
}

static void test_vhost_user_device_first(void)
{
    refused_with("q35", "-device vhost-user-rng-pci,chardev=vu",
                 "vhost-user-rng|another process maps guest memory|"
                 ORDINARY);
}

static void test_migration_first(void)
{
    static const char *const names[] = {
        "postcopy-ram", "background-snapshot", "x-ignore-shared",
    };
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = qtest_init("-machine none -nodefaults");
    int i;

    mm_host_guard(host);
    for (i = 0; i < ARRAY_SIZE(names); i++) {
        g_autofree char *error = NULL;
        bool on;

        for (on = true; ; on = false) {
            qobject_unref(mm_qmp(qts, "{'execute': 'migrate-set-capabilities',"
                                 "'arguments': {'capabilities': [{"
                                 "'capability': %s, 'state': %i}]}}",
                                 names[i], on));
            if (!on) {
                break;
            }
            error = try_object(qts, host);
            mm_assert_text(error, names[i]);
            mm_assert_text(error, "managed memory|switch it off first");
        }
    }
    add_object(qts, host);
    qtest_quit(qts);
    mm_host_free(host);
}

/* A refusal must not outlast the last region. */
static void test_allowed_again(void)
{
    MmHost *host = mm_host_new(NULL);
    QTestState *qts = qtest_init("-machine none -nodefaults");
    int i;

    mm_host_guard(host);
    for (i = 0; i < 2; i++) {
        g_autofree char *error = NULL;

        add_object(qts, host);
        error = mm_qmp_error(qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': [{"
                             "'capability': 'postcopy-ram', "
                             "'state': true}]}}");
        qobject_unref(mm_qmp(qts, "{'execute': 'object-del', 'arguments': {"
                             "'id': 'mm0'}}"));
        qobject_unref(mm_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': [{"
                             "'capability': 'x-ignore-shared', "
                             "'state': true}]}}"));
        qobject_unref(mm_qmp(qts, "{'execute': 'migrate-set-capabilities', "
                             "'arguments': {'capabilities': [{"
                             "'capability': 'x-ignore-shared', "
                             "'state': false}]}}"));
    }
    qtest_quit(qts);
    mm_host_free(host);
}

/* ---- on the command line ---- */

typedef struct BadLine {
    const char *before;         /* arguments before the backend */
    const char *options;        /* of the backend */
    const char *after;
    const char *words;
} BadLine;

static const BadLine lines[] = {
    { "-overcommit mem-lock=on", "", "", "mem-lock|leave out" },
    { "", ",share=off", "", "always shared|leave out share=off" },
    { "", ",limit=4", "", "limit|in 4 bytes|at least 256 KiB|0 for no limit" },
    { "", ",limit=255k", "", "limit|at least 256 KiB" },
    { "", ",limit=-1", "", "limit" },
    { "", ",prealloc=on,reserve=off", "", "prealloc|reserve" },
    { "", ",hugetlb=on,size=33M", "",
      "huge pages|multiple of 2 MiB|use size=34M" },
    { "", ",hugetlb=on,limit=4M", "",
      "limit of 4 MiB|huge pages|at least 16 MiB" },
    { "", "", "-object managed-memory,id=m,path=PATH,limit=8M "
      "-object memory-backend-memfd,id=h,size=64M,share=on,hugetlb=on",
      "limit of 8 MiB|huge pages|at least 16 MiB" },
    { "", ",policy=bind", "", "host-nodes" },
    { "", "", "-device virtio-vga,blob=on",
      "virtio-vga|blob resources|pin guest memory|leave out blob=on" },
    { "", "", "-device virtio-gpu-pci,blob=on",
      "virtio-gpu|blob resources|pin guest memory|leave out blob=on" },
    { "-global migration.x-postcopy-ram=on", "", "",
      "postcopy-ram|switch it off first" },
    { "-global migration.x-background-snapshot=on", "", "",
      "background-snapshot|switch it off first" },
    { "", "", "-device vhost-scsi-pci,wwpn=naa.5123456789abcde0",
      "vhost-scsi|pins guest memory|virtio-scsi" },
    { "", "", "-device vfio-pci,host=0000:00:00.0",
      "vfio-pci|pins guest memory" },
    { "", "", "-chardev null,id=c "
      "-device vhost-user-blk-pci,chardev=c",
      "vhost-user-blk|another process maps guest memory" },
    { "", "", "-object memory-backend-managed,id=nil,size=0", "size|0" },
    { "", "", "-object memory-backend-managed,id=nil",
      "'size' is missing" },
    { "", "", "-object memory-backend-managed,id=two,size=4M,path=/nowhere",
      "/nowhere|attach.sock|use the same path" },
    { "", "", "-object managed-memory,id=m,path=PATH "
      "-object memory-backend-memfd,id=h,size=1G,share=on,hugetlb=on,"
      "hugetlbsize=1G",
      "huge pages of 1 GiB|cannot be managed memory|hugetlbsize=2M" },
    { "", "", "-object managed-memory,id=m,path=PATH",
      "serves no memory|memory-backend-memfd with share=on|memoryBacking" },
    { "", "", "-object managed-memory,id=m -object managed-memory,id=n",
      "already|one serves all" },
};

static void test_command_line(void)
{
    MmHost *host = mm_host_new(NULL);
    int i;

    for (i = 0; i < ARRAY_SIZE(lines); i++) {
        g_autofree char *backend = mm_backend(host, "mm0", 32,
                                              lines[i].options);
        g_auto(GStrv) parts = g_strsplit(lines[i].after, "PATH", 2);
        g_autofree char *after = g_strjoinv(host->attach, parts);
        g_autofree char *args = g_strdup_printf(
            "-machine q35,memory-backend=mm0 -m 32M %s %s %s",
            lines[i].before, backend, after);
        g_autofree char *text = mm_run_failing(args);

        mm_assert_text(text, lines[i].words);
    }
    mm_host_free(host);
}

static void test_long_path(void)
{
    g_autofree char *path = g_strnfill(200, 'x');
    g_autofree char *args = g_strdup_printf(
        "-machine none -object memory-backend-managed,id=m,size=4M,path=/%s",
        path);
    g_autofree char *text = mm_run_failing(args);

    mm_assert_text(text, "longer than 107 characters|xxx");
}

/* A VM's space is reserved when it attaches, so this is known at the start. */
static void test_no_space(void)
{
    g_autofree char *tier = g_dir_make_tmp("qtest-tier-XXXXXX", NULL);
    g_autofree char *manager = g_strdup_printf("--tier file,path=%s,size=8M",
                                               tier);
    MmHost *host = mm_host_new(manager);
    g_autofree char *args = g_strdup_printf(
        "-machine none -object memory-backend-managed,id=m,size=64M,"
        "limit=16M,path=%s", host->attach);
    g_autofree char *text = mm_run_failing(args);

    mm_assert_text(text, "pager refuses|tier 'swap'|8 MiB per VM|"
                   "raise the resident limit|overcommit");
    mm_host_free(host);
    rmdir(tier);
}

static void test_too_large(void)
{
    MmHost *host = mm_host_new(NULL);
    g_autofree char *args = g_strdup_printf(
        "-machine none -object memory-backend-managed,id=m,size=4P,path=%s",
        host->attach);
    g_autofree char *text = mm_run_failing(args);

    mm_assert_text(text, "4503599627370496 bytes|at most 16 TiB");
    mm_host_free(host);
}

/* ---- where the manager is out of reach later ---- */

static void refused_confined(MmHost *host, const char *how, const char *words)
{
    g_autofree char *backend = mm_backend(host, "mm0", 4, "");
    g_autofree char *args = g_strdup_printf("-machine none %s %s", backend,
                                            how);
    g_autofree char *text = mm_run_failing(args);

    mm_assert_text(text, words);
    mm_assert_text(text, host->attach);
    mm_host_wait_gone(host);
}

static void test_chroot(void)
{
    g_autofree char *how = NULL;
    MmHost *host;

    if (geteuid()) {
        g_test_skip("only root can change the root");
        return;
    }
    host = mm_host_new(NULL);
    how = g_strdup_printf("-chroot %s", host->tier_dir);
    refused_confined(host, how, "-chroot|when a pager is lost|same path");
    mm_host_free(host);
}

/* The same path leads to another manager in the new root. */
static void test_chroot_other(void)
{
    g_autofree char *how = NULL, *command = NULL, *dir = NULL;
    MmHost *host;

    if (geteuid()) {
        g_test_skip("only root can change the root");
        return;
    }
    host = mm_host_new(NULL);
    dir = g_strconcat(host->tier_dir, host->run_dir, NULL);
    command = g_strdup_printf("mkdir -p %s && touch %s/attach.sock", dir, dir);
    g_assert_cmpint(system(command), ==, 0);
    how = g_strdup_printf("-chroot %s", host->tier_dir);
    refused_confined(host, how, "-chroot|when a pager is lost|same path");
    g_free(command);
    command = g_strdup_printf("find %s -mindepth 1 -delete", host->tier_dir);
    g_assert_cmpint(system(command), ==, 0);
    mm_host_free(host);
}

static void test_runas(void)
{
    MmHost *host;

    if (geteuid()) {
        g_test_skip("only root can become somebody else");
        return;
    }
    host = mm_host_new("--attach-mode 0600");
    /* neither by the folder ... */
    refused_confined(host, "-runas 65534:65534", "-runas|--attach-mode");
    /* ... nor by the socket */
    g_assert_cmpint(chmod(host->dir, 0711), ==, 0);
    refused_confined(host, "-runas 65534:65534", "-runas|--attach-mode");
    mm_host_free(host);
}

/* ---- the host ---- */

static void refused_with_shmem(MmHost *host, const char *setting)
{
    g_autofree char *file = mm_host_path(host, "shmem_enabled");
    g_autofree char *backend = mm_backend(host, "mm0", 4, "");
    g_autofree char *script = g_strdup_printf(
        "mount --bind %s " SHMEM_ENABLED " && exec \"$@\"", file);
    g_autofree char *prefix = g_strdup_printf("unshare -m sh -c '%s' sh",
                                              script);
    g_autofree char *args = g_strdup_printf("-machine none %s", backend);
    g_autofree char *text = NULL;

    g_assert(g_file_set_contents(file, setting, -1, NULL));
    text = mm_run_failing_in(prefix, args);
    mm_assert_text(text, "huge pages|'advise' or 'never'|" SHMEM_ENABLED);
}

/* The setting is that of a mount of our own: the host keeps its own. */
static void test_huge_shmem(void)
{
    MmHost *host;

    if (geteuid()) {
        g_test_skip("only root can make a mount to pretend the setting");
        return;
    }
    host = mm_host_new(NULL);
    refused_with_shmem(host, "[always] within_size advise never deny force\n");
    refused_with_shmem(host, "always within_size advise never deny [force]\n");
    mm_host_free(host);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("managed-memory/refuse/later", test_later);
    qtest_add_func("managed-memory/refuse/vhost-user-netdev-first",
                   test_vhost_user_netdev_first);
    qtest_add_func("managed-memory/refuse/vhost-user-netdev-last",
                   test_vhost_user_netdev_last);
    qtest_add_func("managed-memory/refuse/vhost-user-device-first",
                   test_vhost_user_device_first);
    qtest_add_func("managed-memory/refuse/migration-first",
                   test_migration_first);
    qtest_add_func("managed-memory/refuse/allowed-again",
                   test_allowed_again);
    qtest_add_func("managed-memory/refuse/command-line", test_command_line);
    qtest_add_func("managed-memory/refuse/long-path", test_long_path);
    qtest_add_func("managed-memory/refuse/no-space", test_no_space);
    qtest_add_func("managed-memory/refuse/too-large", test_too_large);
    qtest_add_func("managed-memory/refuse/chroot", test_chroot);
    qtest_add_func("managed-memory/refuse/chroot-other", test_chroot_other);
    qtest_add_func("managed-memory/refuse/runas", test_runas);
    qtest_add_func("managed-memory/refuse/huge-shmem", test_huge_shmem);
    return g_test_run();
}
