/*
 * Fuzz targets: what they share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A target is a libFuzzer program.  Called with --seeds=FOLDER, it writes its
 * seed corpus there instead of fuzzing: the seeds are made from the structures
 * of the tree, so they are right whenever those change.
 */
#ifndef MM_FUZZ_H
#define MM_FUZZ_H

/* The fuzzer's interface. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** FuzzSeeds: writes the target's seeds with fuzz_seed(). */
typedef void FuzzSeeds(void);

/** fuzz_start: handle --seeds; from LLVMFuzzerInitialize(). */
void fuzz_start(int argc, char **argv, FuzzSeeds *seeds);

/** fuzz_seed: write one seed. */
void fuzz_seed(const char *name, const void *data, size_t size);

/* The input, consumed from its start; zeros once it is used up. */
typedef struct FuzzInput {
    const uint8_t *data;
    size_t size;
} FuzzInput;

/** fuzz_take: the next @size bytes. */
void fuzz_take(FuzzInput *in, void *to, size_t size);

static inline uint8_t fuzz_u8(FuzzInput *in)
{
    uint8_t value;

    fuzz_take(in, &value, sizeof(value));
    return value;
}

static inline uint16_t fuzz_u16(FuzzInput *in)
{
    uint16_t value;

    fuzz_take(in, &value, sizeof(value));
    return value;
}

static inline uint64_t fuzz_u64(FuzzInput *in)
{
    uint64_t value;

    fuzz_take(in, &value, sizeof(value));
    return value;
}

/** fuzz_next_fd: number of the next descriptor; tells leaks. */
int fuzz_next_fd(void);

#endif
