/*
 * Unit tests of the manager's pure parts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * States of a VM, finding cgroups, the host's swap, percentiles, working sets,
 * write budgets, paths of devices.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "memory-manager/cgroup.h"
#include "memory-manager/host-swap.h"
#include "memory-manager/latency.h"
#include "memory-manager/tier-device.h"
#include "memory-manager/vm-state.h"
#include "memory-manager/working-set.h"
#include "memory-manager/write-account.h"

#define A MANAGEDVM_STATE_ADOPTING
#define S MANAGEDVM_STATE_STARTING
#define V MANAGEDVM_STATE_SERVING
#define L MANAGEDVM_STATE_LOST
#define C MANAGEDVM_STATE_CLOSING

/* The diagram in vm.h, written down once more. */
static const ManagedVMState legal[][2] = {
    { A, S }, { A, V }, { A, L }, { A, C },
    { S, V }, { S, L }, { S, C },
    { V, L }, { V, C },
    { L, S }, { L, C },
};

static void test_states(void)
{
    unsigned nr_legal = 0;
    int from, to, i;

    for (from = 0; from < MANAGEDVM_STATE__MAX; from++) {
        for (to = 0; to < MANAGEDVM_STATE__MAX; to++) {
            bool expected = false;

            for (i = 0; i < ARRAY_SIZE(legal); i++) {
                expected |= legal[i][0] == from && legal[i][1] == to;
            }
            g_assert_cmpint(mm_vm_edge_is_legal(from, to), ==, expected);
            nr_legal += expected;
        }
    }
    g_assert_cmpuint(nr_legal, ==, ARRAY_SIZE(legal));
}

/* Every state but the last can be left, and the last can be reached. */
static void test_no_dead_end(void)
{
    int from;

    for (from = 0; from < MANAGEDVM_STATE__MAX; from++) {
        g_assert_cmpint(mm_vm_edge_is_legal(from, C), ==, from != C);
    }
}

#undef A
#undef S
#undef V
#undef L
#undef C

static void test_host_swap_in_use(void)
{
    const char *heading = "Filename\t\t\t\tType\t\tSize\n";
    g_autofree char *two = g_strconcat(heading, "/dev/zram0 partition 9\n",
                                       NULL);

    g_assert_false(mm_host_swap_in_use(""));
    g_assert_false(mm_host_swap_in_use(heading));
    g_assert_true(mm_host_swap_in_use(two));
}

static void set_swap_max(const char *dir, const char *text)
{
    g_autofree char *path = g_build_filename(dir, "memory.swap.max", NULL);

    if (text) {
        g_assert_true(g_file_set_contents(path, text, -1, NULL));
    } else {
        g_assert_cmpint(unlink(path), ==, 0);
    }
}

static void test_host_swap_excluded(void)
{
    g_autofree char *top = g_dir_make_tmp("mm-manager-XXXXXX", NULL);
    g_autofree char *slice = g_build_filename(top, "machine.slice", NULL);
    g_autofree char *scope = g_build_filename(slice, "vm.scope", NULL);

    g_assert_cmpint(g_mkdir_with_parents(scope, 0700), ==, 0);
    g_assert_false(mm_host_swap_excluded(scope));
    set_swap_max(scope, "max\n");
    g_assert_false(mm_host_swap_excluded(scope));
    set_swap_max(slice, "1048576\n");
    g_assert_false(mm_host_swap_excluded(scope));
    set_swap_max(slice, "0\n");
    g_assert_true(mm_host_swap_excluded(scope));
    g_assert_false(mm_host_swap_excluded(top));
    set_swap_max(slice, NULL);
    set_swap_max(scope, "0\n");
    g_assert_true(mm_host_swap_excluded(scope));
    set_swap_max(scope, NULL);
    g_assert_cmpint(rmdir(scope), ==, 0);
    g_assert_cmpint(rmdir(slice), ==, 0);
    g_assert_cmpint(rmdir(top), ==, 0);
}

typedef struct CgroupCase {
    const char *name;
    const char *cgroups;
    const char *mountinfo;
    const char *dirs[5];
} CgroupCase;

#define V1_MOUNT(id, dir, ctrl) \
    id " 30 0:26 / " dir " rw,nosuid shared:9 - cgroup cgroup rw," ctrl "\n"
#define V2_MOUNT(dir) \
    "42 30 0:27 / " dir " rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNTS \
    V1_MOUNT("31", "/cg/cpu", "cpu") V1_MOUNT("32", "/cg/memory", "memory") \
    V1_MOUNT("33", "/cg/blkio", "blkio") V1_MOUNT("34", "/cg/pids", "pids")

static const CgroupCase cgroup_cases[] = {
    {
        "v1", "4:pids:/p\n3:blkio:/b\n2:memory:/vm/1\n1:cpu:/\n", V1_MOUNTS,
        { "/cg/blkio/b", "/cg/memory/vm/1", "/cg/cpu/" },
    }, {
        "v1-joint", "5:cpu,cpuacct:/x\n6:cpuset:/y\n",
        V1_MOUNT("31", "/cg/cpuset", "cpuset")
        V1_MOUNT("32", "/cg/cpu,cpuacct", "cpu,cpuacct"),
        { "/cg/cpu,cpuacct/x" },
    }, {
        "v2", "0::/machine.slice/vm.scope\n", V2_MOUNT("/sys/fs/cgroup"),
        { "/sys/fs/cgroup/machine.slice/vm.scope" },
    }, {
        "hybrid", "2:memory:/m\n0::/u\n", V1_MOUNTS V2_MOUNT("/cg/unified"),
        { "/cg/memory/m", "/cg/unified/u" },
    }, {
        "container", "2:memory:/docker/abc/vm\n3:cpu:/docker/abcdef\n",
        "31 30 0:26 /docker/abc /cg/memory ro - cgroup cgroup rw,memory\n"
        "32 30 0:26 /docker/abc /cg/cpu ro - cgroup cgroup rw,cpu\n",
        { "/cg/memory/vm" },
    }, {
        "spaces", "2:memory:/m\n",
        V1_MOUNT("31", "/my\\040cg/memory", "memory"),
        { "/my cg/memory/m" },
    }, {
        "colon", "2:memory:/a:b\n", V1_MOUNTS, { "/cg/memory/a:b" },
    }, {
        "unmounted", "2:memory:/m\n0::/\n", V1_MOUNT("1", "/cg/cpu", "cpu"),
        { NULL },
    }, {
        "garbage", "\n:\n2:memory\nx", "1 2 3\n - " "\n1 2 3 4 5 6 - cgroup\n",
        { NULL },
    },
};

static void test_cgroup(gconstpointer opaque)
{
    const CgroupCase *c = opaque;
    g_autoptr(GPtrArray) dirs = mm_cgroup_dirs(c->cgroups, c->mountinfo);
    int i;

    for (i = 0; i < dirs->len; i++) {
        g_assert_cmpstr(g_ptr_array_index(dirs, i), ==, c->dirs[i]);
    }
    g_assert_null(c->dirs[i]);
}

static void test_percentiles(void)
{
    uint64_t buckets[MM_LATENCY_BUCKETS] = {};

    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 0.5), ==, 0);

    /* 90 of about 16 us, 10 of about 1 ms */
    buckets[14] = 90;
    buckets[20] = 10;
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 0.45), ==,
                      1.5 * 16.384);
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 0.9), ==,
                      2 * 16.384);
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 0.95), ==,
                      1.5 * 1048.576);
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 1), ==,
                      2 * 1048.576);
}

static void test_percentiles_of_the_ends(void)
{
    uint64_t buckets[MM_LATENCY_BUCKETS] = {};

    buckets[0] = 1;
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 1), ==, 0.002);
    buckets[0] = 0;
    buckets[MM_LATENCY_BUCKETS - 1] = UINT64_MAX / 2;
    g_assert_cmpfloat(mm_latency_percentile_us(buckets, 1), >, 1e9);
}

static void test_working_set(void)
{
    static const struct {
        MmMsgSample sample;
        uint64_t bytes, error;
    } cases[] = {
        /* half: 1.96 * sqrt(0.25 / 404) */
        { { .touched = 200, .pages = 400, .size = 1000000 }, 500000, 48757 },
        /* none, and all: as likely to be wrong by 3 in 404 either way */
        { { .touched = 0, .pages = 400, .size = 1000000 }, 0, 11794 },
        { { .touched = 400, .pages = 400, .size = 1000000 }, 1000000, 11794 },
        /* hostile */
        { { .touched = 500, .pages = 400, .size = 1000000 }, 1000000, 11794 },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t bytes, error;

        mm_working_set(&cases[i].sample, &bytes, &error);
        g_assert_cmpint(bytes, ==, cases[i].bytes);
        g_assert_cmpint(ABS((int64_t)(error - cases[i].error)), <=, 1);
    }
}

/* Whatever is used, the truth lies within the error in 95 of 100 samples. */
static void test_coverage(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    int percent, trial, i;

    for (percent = 0; percent <= 100; percent += 10) {
        int within = 0;

        for (trial = 0; trial < 1000; trial++) {
            MmMsgSample sample = { .pages = 400, .size = 100000 };
            uint64_t bytes, error, truth = percent * 1000;

            for (i = 0; i < sample.pages; i++) {
                sample.touched += g_rand_int_range(rand, 0, 100) < percent;
            }
            mm_working_set(&sample, &bytes, &error);
            within += bytes <= truth + error && truth <= bytes + error;
        }
        g_assert_cmpint(within, >=, 940);
    }
}

#define DAY_MS (24 * 60 * 60 * 1000LL)
#define PER_DAY 1000000000ULL

/* Whatever is written, in whatever pieces: per day not more counts as left. */
static void test_account(void)
{
    uint64_t charged = 0;
    int64_t now = 1;
    MmWriteAccount a;

    mm_account_open(&a, PER_DAY, PER_DAY, now);
    while (now < 30 * DAY_MS) {
        uint64_t bytes = g_test_rand_int_range(0, 100000);

        now += g_test_rand_int_range(0, 5000);
        if (!a.exhausted) {
            mm_account_charge(&a, bytes, now);
            charged += bytes;
        } else {
            mm_account_charge(&a, 0, now);
        }
        g_assert_cmpfloat(a.left, <=, PER_DAY);
        g_assert_cmpfloat(a.left, >, -100000.0);
    }
    g_assert_cmpuint(charged, <=, 31 * PER_DAY + 100000);
    g_assert_cmpuint(charged, >=, 30 * PER_DAY);
}

/* Exhausted is so until there is a quarter of an hour's. */
static void test_account_exhausted(void)
{
    MmWriteAccount a;

    mm_account_open(&a, PER_DAY, PER_DAY, 0);
    g_assert_false(mm_account_charge(&a, PER_DAY - 1, 0));
    g_assert_false(a.exhausted);
    g_assert_true(mm_account_charge(&a, 1, 0));
    g_assert_true(a.exhausted);
    g_assert_false(mm_account_charge(&a, 0, DAY_MS / 96 - 1000));
    g_assert_true(a.exhausted);
    g_assert_true(mm_account_charge(&a, 0, DAY_MS / 96 + 1000));
    g_assert_false(a.exhausted);
    /* a pause of any length gives one day's */
    mm_account_charge(&a, 0, 100 * DAY_MS);
    g_assert_cmpfloat(a.left, ==, PER_DAY);
    /* the clock of the host was put back: nothing is lost, nothing is won */
    g_assert_false(mm_account_charge(&a, 1000, 50 * DAY_MS));
    g_assert_cmpfloat(a.left, ==, PER_DAY - 1000);
}

/* Another budget is no new day. */
static void test_account_set(void)
{
    MmWriteAccount a;

    mm_account_open(&a, 0, 0, 0);
    g_assert_false(mm_account_charge(&a, PER_DAY, 0));
    mm_account_set(&a, PER_DAY, 0);
    g_assert_cmpfloat(a.left, ==, PER_DAY);
    mm_account_charge(&a, PER_DAY / 2, 0);
    mm_account_set(&a, 2 * PER_DAY, 0);
    g_assert_cmpfloat(a.left, ==, 1.5 * PER_DAY);
    mm_account_set(&a, PER_DAY / 2, 0);
    g_assert_cmpfloat(a.left, ==, 0);
    g_assert_true(a.exhausted);
    /* nobody has to wait for more than two days, whatever happens */
    mm_account_charge(&a, 100 * PER_DAY, 0);
    g_assert_cmpfloat(a.left, ==, -0.5 * PER_DAY);
    mm_account_set(&a, PER_DAY / 4, 0);
    g_assert_cmpfloat(a.left, ==, 0);
    mm_account_set(&a, 0, 0);
    g_assert_false(a.exhausted);
}

static void test_device_paths(void)
{
    static const struct {
        const char *path, *name, *device;
    } cases[] = {
        { "/dev/vg0/swap-%n", "web", "/dev/vg0/swap-web" },
        { "/dev/%n/%n-1", "a.b_c+d-9", "/dev/a.b_c+d-9/a.b_c+d-9-1" },
        { "/dev/sdb", "../sda", "/dev/sdb" },
        { "/dev/sdb", "", "/dev/sdb" },
        { "/dev/vg0/%", "web", "/dev/vg0/%" },
        /* none of these may lead out of the folder, or to its other files */
        { "/dev/vg0/%n", "" }, { "/dev/vg0/%n", "." }, { "/dev/vg0/%n", ".." },
        { "/dev/vg0/%n", "../sda" }, { "/dev/vg0/%n", "a/b" },
        { "/dev/vg0/%n", ".hidden" }, { "/dev/vg0/%n", "a b" },
        { "/dev/vg0/%n", "a63-byte-name-may-have-been-cut-and-be-another-VM's-0"
                         "1234567890" },
        { "/dev/vg0/%n", "a%n" }, { "/dev/vg0/%n", "\xc3\xa4" },
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(cases); i++) {
        Error *err = NULL;
        g_autofree char *path = mm_device_path(cases[i].path, cases[i].name,
                                               &err);

        g_assert_cmpstr(path, ==, cases[i].device);
        g_assert_true(!path == !!err);
        error_free(err);
    }
}

int main(int argc, char **argv)
{
    int i;

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/manager/state/edges", test_states);
    g_test_add_func("/manager/state/no-dead-end", test_no_dead_end);
    for (i = 0; i < ARRAY_SIZE(cgroup_cases); i++) {
        g_autofree char *path = g_strdup_printf("/manager/cgroup/%s",
                                                cgroup_cases[i].name);

        g_test_add_data_func(path, &cgroup_cases[i], test_cgroup);
    }
    g_test_add_func("/manager/host-swap/in-use", test_host_swap_in_use);
    g_test_add_func("/manager/host-swap/excluded", test_host_swap_excluded);
    g_test_add_func("/manager/percentile/values", test_percentiles);
    g_test_add_func("/manager/percentile/ends", test_percentiles_of_the_ends);
    g_test_add_func("/manager/working-set/values", test_working_set);
    g_test_add_func("/manager/working-set/coverage", test_coverage);
    g_test_add_func("/manager/write-account/any", test_account);
    g_test_add_func("/manager/write-account/exhausted",
                    test_account_exhausted);
    g_test_add_func("/manager/write-account/set", test_account_set);
    g_test_add_func("/manager/device/paths", test_device_paths);
    return g_test_run();
}
