#pragma once
#include <stdint.h>

/// A bit for each probe that the thread has reached since it was last asked.
extern _Thread_local uint64_t lockstep_probes_of_thread;

/// Marks probes as reached by the calling thread. `bits` has a bit for each.
static inline void lockstep_reach_probes(uint64_t bits) { lockstep_probes_of_thread |= bits; }

/// What the calling thread has reached since its last call, and nothing from now on.
static inline uint64_t lockstep_take_probes(void) {
    uint64_t bits = lockstep_probes_of_thread;
    lockstep_probes_of_thread = 0;
    return bits;
}
