/* Snapshots: what is accepted, written again, is the same bytes. */
#include "wire/snapshot.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct cs_snapshot s;
    if (!cs_snapshot_read(cs_slice(data, size), &s)) {
        return 0;
    }
    struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
    cs_snapshot_write(&out, &s);
    if (out.bad || !cs_slice_eq(cs_buf_slice(&out), cs_slice(data, size))) {
        abort();
    }
    cs_buf_done(&out);
    return 0;
}
