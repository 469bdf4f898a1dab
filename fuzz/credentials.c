/* Keeper's table: what is valid, written again row by row, is the same bytes, and each row is found
 * by its name. */
#include "wire/credentials.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cs_slice table = cs_slice(data, size);
    struct cs_credential_row row;
    if (!cs_credentials_valid(table)) {
        (void)cs_credentials_find(table, CS_SLICE_LIT("orders"), &row); /* stays in bounds */
        return 0;
    }
    struct cs_buf out = cs_buf(CS_CREDENTIALS_MAX);
    while (out.len < size) {
        /* The next row's name is in front: u32le length, bytes. */
        size_t n = data[out.len];
        struct cs_slice name = cs_slice_head(cs_slice_from(table, out.len + 4), n);
        size_t before = out.len;
        if (!cs_credentials_find(table, name, &row) || row.target.p != name.p) {
            abort();
        }
        (void)cs_credential_pinned(&row, name);
        cs_credentials_write(&out, &row);
        if (out.bad || out.len <= before) {
            abort();
        }
    }
    if (!cs_slice_eq(cs_buf_slice(&out), table)) {
        abort();
    }
    cs_buf_done(&out);
    return 0;
}
