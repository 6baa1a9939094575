/*
 * Torture tests of the pager: a fake QEMU with stamped pages against it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every test starts the real pager, as the manager would, and plays a VM that
 * knows what each of its pages must contain.  A run with --seed SEED, as
 * printed, makes the same decisions again; the interleaving is the kernel's.
 *
 * See torture.h for the environment.
 */
#include "qemu/osdep.h"
#include "torture.h"
#include "without-uring.h"

static char *build_path(const char *variable, const char *name)
{
    const char *path = g_getenv(variable);

    return path ? g_strdup(path)
                : g_strdup_printf("memory-manager/pager/%s", name);
}

int64_t torture_now_us(void)
{
    return g_get_monotonic_time();
}

const char *torture_dir(void)
{
    return g_getenv("MM_TORTURE_DIR") ?: g_get_tmp_dir();
}

const char *torture_pager(void)
{
    static char *path;

    if (!path) {
        path = build_path("MM_PAGER", "qemu-memory-pager");
    }
    return path;
}

const char *torture_test_pager(void)
{
    static char *path;

    if (!path) {
        path = build_path("MM_TEST_PAGER", "qemu-memory-pager-test");
    }
    return path;
}

bool torture_is_long(void)
{
    return !g_strcmp0(g_getenv("MM_LONG"), "1");
}

static unsigned tunable(const char *variable, unsigned normal,
                        unsigned long_run)
{
    const char *text = g_getenv(variable);

    if (text) {
        return MAX(atoi(text), 1);
    }
    return torture_is_long() ? long_run : normal;
}

unsigned torture_seconds(unsigned normal, unsigned long_run)
{
    return tunable("MM_TORTURE_SECONDS", normal, long_run);
}

unsigned torture_trials(unsigned normal, unsigned long_run)
{
    return tunable("MM_TORTURE_TRIALS", normal, long_run);
}

unsigned torture_slowness(void)
{
    return tunable("MM_TORTURE_SLOWNESS", 1, 1);
}

uint64_t torture_seed(void)
{
    return (uint64_t)(uint32_t)g_test_rand_int() << 32 |
           (uint32_t)g_test_rand_int();
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], WITHOUT_URING_OPTION)) {
        without_uring_exec(argv + 2);
        return EXIT_FAILURE;
    }
    g_test_init(&argc, &argv, NULL);
    /* one failure does not make the other tests worthless */
    g_test_set_nonfatal_assertions();
    torture_add_steady();
    torture_add_kill();
    torture_add_failpoints();
    torture_add_mutations();
    torture_add_tier_errors();
    torture_add_pressure();
    torture_add_commands();
    torture_add_tiers();
    torture_add_sample();
    torture_add_huge();
    torture_add_hostile();
    torture_add_hostile_resume();
    torture_add_death();
    torture_add_jail();
    torture_add_scale();
    return g_test_run();
}
