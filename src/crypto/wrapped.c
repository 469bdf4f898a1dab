/* Rows of wrapped keys (crypto/wrapped.h). Called by the recorder and the replayer (record), keeper
 * (vault) and control. It must never bind two uses of a key to the same data. */
#include "crypto/wrapped.h"

#include "base/assert.h"
#include "base/reader.h"
#include "base/time.h"
#include "base/writer.h"

#include <stdio.h>

void cs_wrapped_write(const struct cs_wrapped *row, uint8_t out[static CS_WRAPPED_ROW])
{
    struct cs_writer w = cs_writer(out, CS_WRAPPED_ROW);
    cs_writer_u32le(&w, row->epoch);
    cs_writer_bytes(&w, cs_slice(row->name, sizeof row->name));
    cs_writer_bytes(&w, cs_slice(row->box, sizeof row->box));
    cs_assert(!w.overflow && w.len == CS_WRAPPED_ROW);
}

void cs_opened_write(const struct cs_wrapped *row, uint8_t out[static CS_OPENED_ROW])
{
    struct cs_writer w = cs_writer(out, CS_OPENED_ROW);
    cs_writer_u32le(&w, row->epoch);
    cs_writer_bytes(&w, cs_slice(row->box, sizeof row->box));
    cs_assert(!w.overflow && w.len == CS_OPENED_ROW);
}

static bool next(struct cs_slice *rows, bool named, struct cs_wrapped *ret)
{
    struct cs_reader r = cs_reader(*rows);
    struct cs_wrapped row = {.epoch = cs_reader_u32le(&r)};
    if (named) {
        struct cs_slice name = cs_reader_take(&r, CS_WRAPPED_NAME);
        if (r.bad || name.p[CS_WRAPPED_NAME - 1] != 0) {
            return false;
        }
        memcpy(row.name, name.p, CS_WRAPPED_NAME);
    }
    struct cs_slice box = cs_reader_take(&r, CS_WRAPPED_BOX);
    if (r.bad) {
        return false;
    }
    memcpy(row.box, box.p, CS_WRAPPED_BOX);
    *rows = cs_reader_rest(&r);
    *ret = row;
    return true;
}

bool cs_wrapped_next(struct cs_slice *rows, struct cs_wrapped *ret)
{
    return next(rows, true, ret);
}

bool cs_opened_next(struct cs_slice *rows, struct cs_wrapped *ret)
{
    return next(rows, false, ret);
}

struct cs_slice cs_wrapped_aad(bool opened, const struct cs_id *session, uint32_t epoch,
                               uint8_t mem[static CS_WRAPPED_AAD])
{
    struct cs_writer w = cs_writer(mem, CS_WRAPPED_AAD);
    cs_writer_bytes(&w, opened ? CS_SLICE_LIT("countersign/csr1/replay")
                               : CS_SLICE_LIT("countersign/csr1/wrap"));
    cs_writer_bytes(&w, cs_slice(session->b, CS_ID_BYTES));
    cs_writer_u32le(&w, epoch);
    cs_assert(!w.overflow);
    return cs_writer_done(&w);
}

static const char prefix[] = "recording/";

char *cs_wrapped_key_name(uint64_t wall_ms, char out[static CS_WRAPPED_NAME])
{
    char when[CS_TIME_TEXT];
    (void)snprintf(out, CS_WRAPPED_NAME, "%s%.7s", prefix, cs_time_text(wall_ms, when));
    return out;
}

char *cs_wrapped_key_other(const char *month, unsigned nth, char out[static CS_WRAPPED_NAME])
{
    cs_assert(nth >= 2 && nth <= 9);
    (void)snprintf(out, CS_WRAPPED_NAME, "%.20s.%u", month, nth);
    return out;
}

bool cs_wrapped_is_key_name(struct cs_slice name)
{
    struct cs_slice month = cs_slice_from(name, sizeof prefix - 1);
    if (month.n == 9 && month.p[7] == '.' && month.p[8] >= '2' && month.p[8] <= '9') {
        month.n = 7; /* another one of that month */
    }
    if (!cs_slice_starts(name, cs_slice_str(prefix)) || month.n != 7) {
        return false;
    }
    for (size_t i = 0; i < month.n; i++) {
        if (i == 4 ? month.p[i] != '-' : month.p[i] < '0' || month.p[i] > '9') {
            return false;
        }
    }
    return true;
}
