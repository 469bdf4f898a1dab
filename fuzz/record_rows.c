/* Rows out of recorded bytes: any bytes, in any pieces; what comes out is the same however they
 * were cut, but for where the pieces end. */
#include "record/rows.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool lost[2];
    if (size < 1) {
        return 0;
    }
    size_t step = (size_t)data[0] % 32 + 1;
    for (int i = 0; i < 2; i++, step = size) {
        struct cs_rows r = {0};
        struct cs_buf out = cs_buf(16 << 20);
        struct cs_json j = {&out, false};
        cs_json_begin(&j, NULL, '[');
        for (size_t at = 0; at < size - 1; at += step) {
            cs_json_begin(&j, NULL, '{');
            cs_rows_show(&r, &j, 1, at,
                         cs_slice_head(cs_slice(data + 1 + at, size - 1 - at), step));
            cs_json_end(&j, '}');
        }
        cs_json_end(&j, ']');
        lost[i] = r.lost;
        cs_rows_done(&r);
        cs_buf_done(&out);
    }
    if (lost[0] != lost[1]) {
        abort();
    }
    return 0;
}
