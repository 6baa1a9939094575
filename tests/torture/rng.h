/*
 * Torture tests: pseudo-random numbers that a seed determines
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every thread has its own state, so that a seed gives each thread the same
 * decisions in every run, however the threads interleave.
 */
#ifndef TORTURE_RNG_H
#define TORTURE_RNG_H

/** rng_mix: the finalizer of splitmix64; every input bit counts. */
static inline uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/** rng_next: the next 64 bits of the sequence that @state stands in. */
static inline uint64_t rng_next(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return rng_mix(*state);
}

/** rng_below: a number in 0..@n-1; @n must not be 0. */
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
    return rng_next(state) % n;
}

/** rng_chance: true in @percent of the calls. */
static inline bool rng_chance(uint64_t *state, unsigned percent)
{
    return rng_below(state, 100) < percent;
}

#endif
