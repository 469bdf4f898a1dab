/* The codec of a probe's task (probe_task.h): magic and the fields of one table. Control writes,
 * probe reads. Strict: a missing or a trailing byte, or a tls mode that is none, makes it void. */
#include "wire/probe_task.h"

#include "base/fields.h"

static const uint8_t magic[8] = {'C', 'S', 'T', 'A', 'S', 'K', 0, 2};

#define FIELD(name)                                                                                \
    {                                                                                              \
        CS_FIELD_KIND_SLICE, offsetof(struct cs_probe_task, name), #name                           \
    }
static const struct cs_field fields[] = {
    FIELD(target),          FIELD(host),           FIELD(tls),      FIELD(roots),
    FIELD(channel_binding), FIELD(authentication), FIELD(database), FIELD(everyday),
    FIELD(elevated),        FIELD(text),           FIELD(names),
};
_Static_assert(sizeof(struct cs_probe_task) == CS_ARRAY_LEN(fields) * sizeof(struct cs_slice),
               "table");

void cs_probe_task_write(struct cs_buf *out, const struct cs_probe_task *t)
{
    size_t size = sizeof magic;
    for (size_t i = 0; i < CS_ARRAY_LEN(fields); i++) {
        struct cs_slice s;
        memcpy(&s, (const uint8_t *)t + fields[i].offset, sizeof s);
        if (s.n > CS_PROBE_TASK_MAX) {
            out->bad = true;
            return;
        }
        size += 4 + s.n;
    }
    uint8_t *at = cs_buf_room(out, size);
    if (at == NULL) {
        return;
    }
    struct cs_writer w = cs_writer(at, size);
    cs_writer_bytes(&w, cs_slice(magic, sizeof magic));
    cs_fields_encode(&w, fields, CS_ARRAY_LEN(fields), t);
    out->len += cs_writer_done(&w).n;
}

bool cs_probe_task_read(struct cs_slice in, struct cs_probe_task *ret)
{
    static const char *const modes[] = {"off", "require", "verify-ca", "verify-full"};
    struct cs_reader r = cs_reader(in);
    struct cs_probe_task t;
    if (!cs_slice_eq(cs_reader_take(&r, sizeof magic), cs_slice(magic, sizeof magic))) {
        return false;
    }
    cs_fields_decode(&r, fields, CS_ARRAY_LEN(fields), &t);
    if (!cs_reader_done(&r) || t.target.n == 0 || t.database.n == 0) {
        return false;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(modes); i++) {
        if (cs_slice_eq_str(t.tls, modes[i])) {
            *ret = t;
            return true;
        }
    }
    return false;
}
