/*
 * qemu-memory-manager: the cgroups of a VM
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A pager works for one VM, and the VM should be charged for it: CPU, memory
 * and I/O. With cgroup v1 those are separate hierarchies, which
 * /proc/PID/cgroup names by controller; /proc/self/mountinfo tells where each
 * is mounted. With v2 there is one. A mount may show only a part of the
 * hierarchy (in a container): its root is taken off the path.
 *
 * libvirt makes threaded cgroups of v2 for vCPUs and emulator; a process as a
 * whole can join only the domain above them.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cgroup.h"

/* A field of mountinfo has spaces as \040 and the like. */
static char *unescape(const char *field)
{
    return g_strcompress(field);
}

static bool list_has(const char *list, const char *word)
{
    g_auto(GStrv) words = g_strsplit(list, ",", -1);

    return g_strv_contains((const char *const *)words, word);
}

/*
 * A mount's directory for @path: mountinfo is
 * ID PARENT DEV ROOT MOUNTPOINT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS
 */
static char *dir_in_mount(const char *line, const char *controller,
                          const char *path)
{
    g_auto(GStrv) halves = g_strsplit(line, " - ", 2);
    g_auto(GStrv) left = NULL;
    g_auto(GStrv) right = NULL;
    g_autofree char *root = NULL;
    g_autofree char *mount = NULL;

    if (g_strv_length(halves) != 2) {
        return NULL;
    }
    left = g_strsplit(halves[0], " ", 6);
    right = g_strsplit(halves[1], " ", 3);
    if (g_strv_length(left) < 6 || g_strv_length(right) < 3) {
        return NULL;
    }
    if (controller ? !g_str_equal(right[0], "cgroup") ||
                     !list_has(right[2], controller)
                   : !g_str_equal(right[0], "cgroup2")) {
        return NULL;
    }
    root = unescape(left[3]);
    mount = unescape(left[4]);
    if (g_str_equal(root, "/")) {
        return g_strconcat(mount, path, NULL);
    }
    if (g_str_has_prefix(path, root)) {
        path += strlen(root);
        if (*path == '\0' || *path == '/') {
            return g_strconcat(mount, path, NULL);
        }
    }
    return NULL;
}

static char *find_dir(char **mounts, const char *controller, const char *path)
{
    char *dir = NULL;
    int i;

    for (i = 0; mounts[i] && !dir; i++) {
        dir = dir_in_mount(mounts[i], controller, path);
    }
    return dir;
}

/* The first of the controllers that pagers are charged by, or NULL. */
static const char *known_controller(const char *list)
{
    static const char *const known[] = { "cpu", "cpuacct", "memory", "blkio" };
    int i;

    for (i = 0; i < ARRAY_SIZE(known); i++) {
        if (list_has(list, known[i])) {
            return known[i];
        }
    }
    return NULL;
}

GPtrArray *mm_cgroup_dirs(const char *cgroups, const char *mountinfo)
{
    GPtrArray *dirs = g_ptr_array_new_with_free_func(g_free);
    g_auto(GStrv) lines = g_strsplit(cgroups, "\n", -1);
    g_auto(GStrv) mounts = g_strsplit(mountinfo, "\n", -1);
    int i;

    for (i = 0; lines[i]; i++) {
        /* HIERARCHY:CONTROLLERS:PATH, v2 being 0 with no controllers */
        g_auto(GStrv) part = g_strsplit(lines[i], ":", 3);
        const char *controller;
        char *dir;

        if (g_strv_length(part) != 3) {
            continue;
        }
        controller = known_controller(part[1]);
        if (!controller && !g_str_equal(part[0], "0")) {
            continue;
        }
        dir = find_dir(mounts, controller, part[2]);
        if (dir) {
            g_ptr_array_add(dirs, dir);
        }
    }
    return dirs;
}

/* A process cannot join a threaded cgroup: step up to its domain. */
static char *domain_of(const char *dir)
{
    char *domain = g_strdup(dir);

    for (;;) {
        g_autofree char *path = g_build_filename(domain, "cgroup.type", NULL);
        g_autofree char *type = NULL;
        char *up;

        if (!g_file_get_contents(path, &type, NULL, NULL) ||
            !g_str_has_prefix(type, "threaded")) {
            return domain;
        }
        up = g_path_get_dirname(domain);
        g_free(domain);
        domain = up;
    }
}

static bool join_one(pid_t pid, const char *dir, Error **errp)
{
    g_autofree char *domain = domain_of(dir);
    g_autofree char *path = g_build_filename(domain, "cgroup.procs", NULL);
    char text[32];
    int len = snprintf(text, sizeof(text), "%d", (int)pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, len) == len;

    if (!ok) {
        error_setg_errno(errp, errno, "cannot write to %s", path);
    }
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

GPtrArray *mm_cgroup_dirs_of(pid_t pid, Error **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cgroup", (int)pid);
    g_autofree char *cgroups = NULL;
    g_autofree char *mountinfo = NULL;

    if (!g_file_get_contents(path, &cgroups, NULL, NULL) ||
        !g_file_get_contents("/proc/self/mountinfo", &mountinfo, NULL, NULL)) {
        error_setg(errp, "cannot read %s and /proc/self/mountinfo", path);
        return NULL;
    }
    return mm_cgroup_dirs(cgroups, mountinfo);
}

bool mm_cgroup_join(pid_t pid, pid_t model, Error **errp)
{
    g_autoptr(GPtrArray) own = mm_cgroup_dirs_of(getpid(), errp);
    g_autoptr(GPtrArray) dirs = own ? mm_cgroup_dirs_of(model, errp) : NULL;
    int i;

    for (i = 0; dirs && i < dirs->len; i++) {
        const char *dir = g_ptr_array_index(dirs, i);

        /* A move takes 10 ms even to where the process already is. */
        if (!g_ptr_array_find_with_equal_func(own, dir, g_str_equal, NULL) &&
            !join_one(pid, dir, errp)) {
            return false;
        }
    }
    return dirs;
}
