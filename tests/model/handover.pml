/*
 * Model: which host has a guest whose memory is partly on shared storage
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A source that migrates up to TRIPS times, each time to another target, with
 * what may happen in between: a migration fails at any time, somebody says
 * "cont" on either side, processes die.  What is modelled is the name of the
 * file (memory-manager/handover.c), who runs (migration/managed-ram-owner.c),
 * and whether places are kept for the other host.
 *
 * Checked in every state, by tests/scripts/test-model:
 *
 *   one       at most one guest runs
 *   latest    a guest that runs has the memory of the last one that ran
 *   kept      what a target that runs was told of is still there
 *
 * Each of the following breaks it, which is checked as well:
 *
 *   NO_NUMBER     a released file's name has no number of the migration
 *   ANY_NAME      a target takes the file also under the source's name
 *   ANYWAY        the guest runs though the file cannot be claimed
 *   UNPIN_EARLY   places are free as soon as a migration has failed
 */
#define TRIPS 2
#define SOURCE 100              /* names of the file; a target's is its trip */
#define RELEASED(trip) (200 + (trip))

byte name = SOURCE;
byte version = 0;               /* of the guest's memory, by who ran last */
byte memory[TRIPS + 1];         /* version that each has; [0]: the source */
bool arrived[TRIPS + 1];        /* the target has all of it */
bool dead[TRIPS + 1];
bool runs[TRIPS + 1];
bool pinned;
bool overwritten[TRIPS + 1];    /* some place that this target was told of */

#ifdef NO_NUMBER
#define FREE_NAME(trip) RELEASED(0)
#else
#define FREE_NAME(trip) RELEASED(trip)
#endif

inline check()
{
    assert(runs[0] + runs[1] + runs[2] <= 1);               /* one */
    assert(!(runs[1] && overwritten[1]));                   /* kept */
    assert(!(runs[2] && overwritten[2]))
}

/* Who runs changes the guest's memory. */
inline go(who)
{
    atomic {
        assert(memory[who] == version);                     /* latest */
        version++;
        memory[who] = version;
        runs[who] = true;
        check()
    }
}

active proctype source()
{
    byte trip = 0;
    bool released = false;

    go(0);
    do
    :: !dead[0] && !released && runs[0] && trip < TRIPS ->
        /* a migration: places are told of, then the guest stands still */
        trip++;
        pinned = true;
        overwritten[trip] = false;
        atomic { runs[0] = false; memory[trip] = memory[0] }
        if
        :: /* all is sent, and the file is released */
            atomic { name == SOURCE -> name = FREE_NAME(trip) };
            released = true;
            arrived[trip] = true
        :: /* it fails before */
            pinned = false;
            go(0)
        fi
    :: !dead[0] && released ->
        /* the migration fails after all, or somebody says "cont" */
#ifdef UNPIN_EARLY
        pinned = false;
#endif
        if
        :: atomic { name == FREE_NAME(trip) -> name = SOURCE };
            released = false;
            pinned = false;
            go(0)
#ifdef ANYWAY
        :: name != FREE_NAME(trip) -> released = false; go(0)
#else
        :: name != FREE_NAME(trip) -> skip
#endif
        :: skip
        fi
    :: !dead[0] && !pinned ->
        /* its pager writes where it likes */
        atomic { overwritten[1] = true; overwritten[2] = true; check() }
    :: !dead[0] -> dead[0] = true; runs[0] = false; break
    od
}

proctype target(byte trip)
{
    do
    :: !dead[trip] && arrived[trip] && !runs[trip] ->
        /* when all has come, or by "cont" */
        if
        :: atomic { name == FREE_NAME(trip) -> name = trip }; go(trip)
#ifdef ANY_NAME
        :: atomic { name == SOURCE -> name = trip }; go(trip)
#endif
        :: name != FREE_NAME(trip) -> skip
        :: skip
        fi
    :: !dead[trip] -> dead[trip] = true; runs[trip] = false; break
    od
}

init
{
    atomic { run target(1); run target(2) }
}
