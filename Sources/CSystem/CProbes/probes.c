#include "CProbes.h"

_Thread_local uint64_t lockstep_probes_of_thread;
