/* Heads of the container: what tar reads, and no second spelling of it. */
#include "tap.h"
#include "verify/ustar.h"

CS_TEST(a_head_is_read_as_it_was_written_at_every_size)
{
    static const uint64_t sizes[] = {
        0, 1, 511, 512, UINT64_C(8589934591), UINT64_C(8589934592), (uint64_t)INT64_MAX};
    uint8_t block[CS_USTAR_BLOCK];
    char name[CS_USTAR_NAME_MAX + 1];
    for (size_t i = 0; i < CS_ARRAY_LEN(sizes); i++) {
        uint64_t size = 0;
        cs_ustar_write("manifest", sizes[i], block);
        CS_CHECK(cs_ustar_read(block, name, &size));
        CS_EQ_U64(size, sizes[i]);
        CS_EQ_STR(cs_slice_str(name), "manifest");
    }
    CS_EQ_U64(cs_ustar_padding(0), 0);
    CS_EQ_U64(cs_ustar_padding(1), 511);
    CS_EQ_U64(cs_ustar_padding(512), 0);
}

CS_TEST(a_head_with_any_byte_changed_is_refused_or_says_something_else)
{
    uint8_t block[CS_USTAR_BLOCK];
    char name[CS_USTAR_NAME_MAX + 1];
    cs_ustar_write("manifest", 1234, block);
    for (size_t at = 0; at < sizeof block; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint64_t size = 0;
            block[at] ^= (uint8_t)(1 << bit);
            CS_CHECK(!cs_ustar_read(block, name, &size)); /* the sum is wrong at the least */
            block[at] ^= (uint8_t)(1 << bit);
        }
    }
}

CS_TEST(sizes_in_the_other_spelling_are_refused)
{
    uint8_t block[CS_USTAR_BLOCK];
    char name[CS_USTAR_NAME_MAX + 1];
    uint64_t size = 0;
    cs_ustar_write("manifest", UINT64_C(1) << 33, block);
    CS_CHECK(cs_ustar_read(block, name, &size));
    memset(block + 128, 0, 8); /* base 256 for a small number */
    CS_CHECK(!cs_ustar_read(block, name, &size));
    memset(block + 125, 0xff, 11);
    CS_CHECK(!cs_ustar_read(block, name, &size));
}
