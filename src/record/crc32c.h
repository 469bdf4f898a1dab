/* CRC-32C (Castagnoli): finds torn and rotten frames. It is no proof against people: whoever can
 * write the file can compute it. Proof comes with the hash chain of the final format. */
#ifndef CS_RECORD_CRC32C_H
#define CS_RECORD_CRC32C_H

#include "base/slice.h"

/* Goes on from `crc` (0 at the start). */
uint32_t cs_crc32c(uint32_t crc, struct cs_slice s);

#endif
