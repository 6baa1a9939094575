/*
 * Torture tests: what a pager can still do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Looks at a serving pager from outside, and has the one with test hooks try
 * what must be impossible.
 */
#include "qemu/osdep.h"
#include <dirent.h>
#include <linux/magic.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include "qemu/cutils.h"
#include "rig.h"
#include "torture.h"

static char *read_proc(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", pid, name);
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, NULL);
    return text ?: g_strdup("");
}

static void expect_line(Rig *rig, const char *status, const char *what,
                        const char *line)
{
    g_autofree char *anywhere = g_strdup_printf("\n%s\n", line);

    if (!strstr(status, anywhere)) {
        verdict_fail(rig->verdict, "%s: not '%s'", what, line);
    }
}

static void check_task(Rig *rig, pid_t pid, const char *tid)
{
    g_autofree char *path = g_strdup_printf("task/%s/status", tid);
    g_autofree char *status = read_proc(pid, path);
    g_autofree char *name = g_strndup(status, strcspn(status, "\n"));

    expect_line(rig, status, name, "NoNewPrivs:\t1");
    expect_line(rig, status, name, "Seccomp:\t2");
    expect_line(rig, status, name, "CapEff:\t0000000000000000");
    expect_line(rig, status, name, "CapPrm:\t0000000000000000");
    expect_line(rig, status, name, "CapBnd:\t0000000000000000");
    expect_line(rig, status, name, "CapAmb:\t0000000000000000");
}

typedef void EntryFn(Rig *rig, pid_t pid, const char *name);

/* Calls @fn for every entry of a folder of the pager's /proc. */
static unsigned each_entry(Rig *rig, pid_t pid, const char *folder,
                           EntryFn *fn)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", pid, folder);
    DIR *dir = opendir(path);
    struct dirent *entry;
    unsigned nr = 0;

    g_assert(dir);
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
            fn(rig, pid, entry->d_name);
            nr++;
        }
    }
    closedir(dir);
    return nr;
}

static void tell_root_entry(Rig *rig, pid_t pid, const char *name)
{
    verdict_fail(rig->verdict, "the root has an entry '%s'", name);
}

/* The root of a mount of its own: there is no way up from it. */
static bool is_confined(const char *path, const struct stat *st)
{
    g_autofree char *up = g_strconcat(path, "/..", NULL);
    struct stat parent;

    return stat(up, &parent) == 0 && parent.st_dev == st->st_dev &&
           parent.st_ino == st->st_ino;
}

/* How many threads the host runs, which anybody may read and nobody write. */
static bool is_loadavg(const char *path, const char *target)
{
    struct statfs fs;

    return g_str_has_suffix(target, "/loadavg") && statfs(path, &fs) == 0 &&
           fs.f_type == PROC_SUPER_MAGIC;
}

/* No descriptor leads out of the VM: no directory, no named file but one. */
static void check_fd(Rig *rig, pid_t pid, const char *name)
{
    static const char *const fine[] = {
        "anon_inode:", "socket:[", "pipe:[", "/memfd:managed-", "/dev/null",
    };
    g_autofree char *path = g_strdup_printf("/proc/%d/fd/%s", pid, name);
    char target[PATH_MAX] = "";
    struct stat st;
    int i;

    if (atoi(name) <= STDERR_FILENO ||
        readlink(path, target, sizeof(target) - 1) < 0 || stat(path, &st)) {
        return;
    }
    for (i = 0; i < ARRAY_SIZE(fine); i++) {
        if (strstart(target, fine[i], NULL)) {
            return;
        }
    }
    if ((S_ISREG(st.st_mode) && st.st_nlink == 0) ||
        (S_ISFIFO(st.st_mode) && strstr(target, "vm.lock"))) {
        return;
    }
    if (S_ISDIR(st.st_mode) && is_confined(path, &st)) {
        return;     /* its own descriptors, for reopening */
    }
    if (is_loadavg(path, target)) {
        return;
    }
    verdict_fail(rig->verdict, "descriptor %s is %s", name, target);
}

static void check_namespace(Rig *rig, pid_t pid, const char *name)
{
    g_autofree char *ours = g_strdup_printf("/proc/self/ns/%s", name);
    g_autofree char *its = g_strdup_printf("/proc/%d/ns/%s", pid, name);
    char a[64] = "", b[64] = "";

    if (readlink(ours, a, sizeof(a) - 1) < 0 ||
        readlink(its, b, sizeof(b) - 1) < 0 || !strcmp(a, b)) {
        verdict_fail(rig->verdict, "shares our %s namespace", name);
    }
}

static void check_status(bool no_uring)
{
    const RigConfig config = {
        .pager = { .no_uring = no_uring },
        .stamped_mib = { 4 },
        .limit_percent = 50,
    };
    Rig *rig = rig_new(&config, torture_seed());
    pid_t pid = fake_manager_pid(rig->fm);

    if (rig_ok(rig) && fake_manager_wait_serving(rig->fm, 5000)) {
        each_entry(rig, pid, "root", tell_root_entry);
        if (each_entry(rig, pid, "task", check_task) < 3) {
            verdict_fail(rig->verdict, "a pager has at least three threads");
        }
        each_entry(rig, pid, "fd", check_fd);
        check_namespace(rig, pid, "mnt");
        check_namespace(rig, pid, "net");
        check_namespace(rig, pid, "ipc");
    } else {
        verdict_fail(rig->verdict, "the pager does not serve");
    }
    rig_finish(rig);
}

static void test_status(void)
{
    check_status(false);
}

static void test_status_without_uring(void)
{
    check_status(true);
}

/* The hooks try it right after the jail is closed. */
static void test_probe(gconstpointer probe)
{
    const PagerConfig config = {
        .binary = torture_test_pager(),
        .jail_probe = probe,
    };
    FakeManager *fm = fake_manager_new(&config);
    int pair[2];
    bool wanted;
    int status;

    g_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    g_assert(fake_manager_start(fm, pair[1], false, 1, NULL));
    status = fake_manager_reap(fm, 5000, &wanted);
    if (status == -1) {
        g_test_message("the pager lives on");
        g_test_fail();
    } else if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) {
        g_autofree char *text = describe_status(status);

        g_test_message("%s instead of SIGSYS", text);
        g_test_fail();
    }
    close(pair[0]);
    g_assert(fake_manager_free(fm));
}

void torture_add_jail(void)
{
    g_test_add_func("/torture/jail/status", test_status);
    g_test_add_func("/torture/jail/status-without-io-uring",
                    test_status_without_uring);
    g_test_add_data_func("/torture/jail/open", "open", test_probe);
    g_test_add_data_func("/torture/jail/socket", "socket", test_probe);
    g_test_add_data_func("/torture/jail/execve", "execve", test_probe);
    g_test_add_data_func("/torture/jail/ptrace", "ptrace", test_probe);
    g_test_add_data_func("/torture/jail/register", "register", test_probe);
    g_test_add_data_func("/torture/jail/close", "close", test_probe);
    g_test_add_data_func("/torture/jail/dup3", "dup3", test_probe);
}
