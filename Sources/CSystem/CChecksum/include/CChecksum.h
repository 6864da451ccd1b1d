#pragma once
#include <stddef.h>
#include <stdint.h>

/// CRC32C (Castagnoli, reflected, initial and final inversion) of `length` bytes, continued from
/// `crc` (0 to start). Uses the SSE4.2 instruction where the processor has it.
uint32_t lockstep_crc32c(uint32_t crc, const void *_Nonnull bytes, size_t length);

/// The same result from tables alone: what a processor without the instruction gets, and an oracle
/// for tests.
uint32_t lockstep_crc32c_portable(uint32_t crc, const void *_Nonnull bytes, size_t length);
