/* CRC-32C by the processor's own instruction where it has one, else by a table made at compile time
 * of the first call. Called for every frame that is written, recovered or replayed. It must never
 * give different results on different machines: the journal may be moved. */
#include "record/crc32c.h"

#include "base/attr.h"

#define POLYNOMIAL_REFLECTED 0x82f63b78U

static uint32_t by_table(uint32_t crc, struct cs_slice s)
{
    static uint32_t table[256];
    if (table[1] == 0) { /* one thread a process: no race */
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) {
                c = (c & 1) != 0 ? (c >> 1) ^ POLYNOMIAL_REFLECTED : c >> 1;
            }
            table[i] = c;
        }
    }
    for (size_t i = 0; i < s.n; i++) {
        crc = table[(crc ^ s.p[i]) & 0xff] ^ (crc >> 8);
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, struct cs_slice s)
{
    uint64_t wide = crc;
    size_t i = 0;
    for (; s.n - i >= 8; i += 8) {
        uint64_t word = 0;
        memcpy(&word, s.p + i, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; i < s.n; i++) {
        crc = __builtin_ia32_crc32qi(crc, s.p[i]);
    }
    return crc;
}
#endif

uint32_t cs_crc32c(uint32_t crc, struct cs_slice s)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~by_instruction(crc, s);
    }
#endif
    return ~by_table(crc, s);
}
