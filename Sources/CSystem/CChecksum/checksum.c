// CRC32C, polynomial 0x1EDC6F41 reflected (0x82F63B78). One lane of the SSE4.2 instruction, or
// slicing by eight (Kounavis and Berry, 2005) from tables made at first use.
#include "CChecksum.h"
#include <pthread.h>
#include <string.h>

static uint32_t table[8][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c & 1) ? (c >> 1) ^ 0x82F63B78u : c >> 1;
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 0xff];
}

uint32_t lockstep_crc32c_portable(uint32_t crc, const void *bytes, size_t length) {
    pthread_once(&once, make_table);
    const unsigned char *p = bytes;
    uint32_t c = ~crc;
    while (length >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w ^= c;
        c = table[7][w & 0xff] ^ table[6][(w >> 8) & 0xff] ^ table[5][(w >> 16) & 0xff] ^
            table[4][(w >> 24) & 0xff] ^ table[3][(w >> 32) & 0xff] ^ table[2][(w >> 40) & 0xff] ^
            table[1][(w >> 48) & 0xff] ^ table[0][w >> 56];
        p += 8;
        length -= 8;
    }
    while (length--) c = table[0][(c ^ *p++) & 0xff] ^ (c >> 8);
    return ~c;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static uint32_t with_instruction(
    uint32_t crc, const unsigned char *p, size_t length) {
    uint64_t c = ~crc;
    while (length >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        c = _mm_crc32_u64(c, w);
        p += 8;
        length -= 8;
    }
    uint32_t d = (uint32_t)c;
    while (length--) d = _mm_crc32_u8(d, *p++);
    return ~d;
}

uint32_t lockstep_crc32c(uint32_t crc, const void *bytes, size_t length) {
    static int known; // 0 unknown, 1 yes, 2 no: every thread computes the same answer
    int k = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!k) {
        k = __builtin_cpu_supports("sse4.2") ? 1 : 2;
        __atomic_store_n(&known, k, __ATOMIC_RELAXED);
    }
    return k == 1 ? with_instruction(crc, bytes, length)
                  : lockstep_crc32c_portable(crc, bytes, length);
}
#else
uint32_t lockstep_crc32c(uint32_t crc, const void *bytes, size_t length) {
    return lockstep_crc32c_portable(crc, bytes, length);
}
#endif
