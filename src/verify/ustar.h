/* The container of a bundle: ustar (POSIX.1-1988) with every byte of a header prescribed, so that
 * tar reads it and nothing can be hidden in it. Pure. */
#ifndef CS_VERIFY_USTAR_H
#define CS_VERIFY_USTAR_H

#include "base/slice.h"

enum { CS_USTAR_BLOCK = 512, CS_USTAR_NAME_MAX = 99 };

/* The header of a member: a plain file of `size` bytes. The name is ASCII of 1 to 99 bytes. */
void cs_ustar_write(const char *name, uint64_t size, uint8_t out[static CS_USTAR_BLOCK]);
/* False when it is not, to the byte, what cs_ustar_write writes. `name` needs NAME_MAX + 1. */
bool cs_ustar_read(const uint8_t in[static CS_USTAR_BLOCK], char *name, uint64_t *ret_size);
/* Zero bytes behind `size` bytes of content. */
static inline size_t cs_ustar_padding(uint64_t size)
{
    return (size_t)(-size & (CS_USTAR_BLOCK - 1));
}

#endif
