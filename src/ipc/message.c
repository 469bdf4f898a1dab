/* The table of messages and their codec. Pure: no descriptor, no allocation, no state. */
#include "ipc/channel_internal.h"

/* ---- the table: messages.def as rows ---- */

/* A function per message, because only inside one can the rows name "their" struct. */
#define ROW(kind_, member)                                                                         \
    {CS_FIELD_KIND_##kind_, (uint16_t)offsetof(struct_type, member), #member},
#define CS_MSG(id, lower, from, to, phase, max, fds)                                               \
    static const struct cs_field *fields_##lower(size_t *ret_n)                                    \
    {                                                                                              \
        typedef struct cs_msg_##lower struct_type;                                                 \
        static const struct cs_field rows[] = {                                                    \
            CS_FIELDS_##id(ROW){CS_FIELD_KIND_U64, offsetof(struct_type, end_), ""}};              \
        *ret_n = CS_ARRAY_LEN(rows) - 1;                                                           \
        return rows;                                                                               \
    }                                                                                              \
    _Static_assert(sizeof(struct cs_msg_##lower) <= CS_MSG_STRUCT_MAX, "fits every buffer");       \
    _Static_assert((max) <= CS_LIMIT_IPC_BYTES && (fds) <= CS_MSG_FDS, "within the limits");
#include "ipc/messages.def"
#undef CS_MSG

#define CS_MSG(id, lower, from, to, phase, max, fds)                                               \
    [CS_MSG_##id] = {#lower,                                                                       \
                     fields_##lower,                                                               \
                     sizeof(struct cs_msg_##lower),                                                \
                     CS_ROLE_##from,                                                               \
                     CS_ROLE_##to,                                                                 \
                     CS_PHASE_##phase,                                                             \
                     max,                                                                          \
                     fds},
static const struct cs_msg_row table[] = {
#include "ipc/messages.def"
};
#undef CS_MSG
_Static_assert(CS_ARRAY_LEN(table) == CS_MSG_MAX, "one row per message");

const struct cs_msg_row *cs_msg_row(unsigned type)
{
    return type > CS_MSG_NONE && type < CS_MSG_MAX ? &table[type] : NULL;
}

const char *cs_msg_name(enum cs_msg_type t)
{
    const struct cs_msg_row *row = cs_msg_row(t);
    return row != NULL ? row->name : "none";
}

const char *cs_role_name(enum cs_role r)
{
    static const char *const names[] = {"any",      "supervisor", "gate",   "front",  "control",
                                        "recorder", "job",        "keeper", "dialer", "probe"};
    _Static_assert(CS_ARRAY_LEN(names) == CS_ROLE_MAX, "one name per role");
    return (unsigned)r < CS_ROLE_MAX ? names[r] : "none";
}

/* SECURITY: this is who may say what to whom, and when. */
bool cs_msg_may_pass(const struct cs_msg_row *row, enum cs_role from, enum cs_role to, bool run)
{
    bool sides = (row->from == CS_ROLE_ANY || row->from == from) &&
                 (row->to == CS_ROLE_ANY || row->to == to);
    switch (row->phase) {
    case CS_PHASE_BOOT:
        return sides && !run;
    case CS_PHASE_RUN:
        return sides && run;
    case CS_PHASE_EVER:
        return sides;
    case CS_PHASE_NEVER:
    default:
        return false;
    }
}

/* ---- codec ---- */

size_t cs_msg_encode(enum cs_msg_type t, uint32_t corr, const void *msg, void *out, size_t cap)
{
    const struct cs_msg_row *row = cs_msg_row(t);
    if (row == NULL) {
        return 0;
    }
    struct cs_writer w = cs_writer(out, CS_MIN(cap, (size_t)row->max_bytes));
    cs_writer_u16le(&w, (uint16_t)t);
    cs_writer_u16le(&w, 0);
    cs_writer_u32le(&w, corr);
    size_t n;
    const struct cs_field *fields = row->fields(&n);
    cs_fields_encode(&w, fields, n, msg);
    return cs_writer_done(&w).n;
}

void cs_msg_set_answer(uint8_t *encoded)
{
    encoded[2] = CS_MSG_FLAG_ANSWER;
}

bool cs_msg_decode_flags(struct cs_slice in, enum cs_msg_type *ret_type, uint32_t *ret_corr,
                         bool *ret_answer, void *ret, size_t ret_size)
{
    struct cs_reader r = cs_reader(in);
    uint16_t type = cs_reader_u16le(&r);
    uint16_t flags = cs_reader_u16le(&r);
    uint32_t corr = cs_reader_u32le(&r);
    const struct cs_msg_row *row = cs_msg_row(type);
    if (r.bad || row == NULL || in.n > row->max_bytes || ret_size < row->size) {
        return false;
    }
    if ((flags & ~(unsigned)CS_MSG_FLAG_ANSWER) != 0 || (flags != 0 && corr == 0)) {
        return false;
    }
    memset(ret, 0, row->size);
    size_t n;
    const struct cs_field *fields = row->fields(&n);
    cs_fields_decode(&r, fields, n, ret);
    if (!cs_reader_done(&r)) {
        return false;
    }
    *ret_type = (enum cs_msg_type)type;
    *ret_corr = corr;
    *ret_answer = flags != 0;
    return true;
}

bool cs_msg_decode(struct cs_slice in, enum cs_msg_type *ret_type, uint32_t *ret_corr, void *ret,
                   size_t ret_size)
{
    bool answer;
    return cs_msg_decode_flags(in, ret_type, ret_corr, &answer, ret, ret_size);
}
