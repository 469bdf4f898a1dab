/* Data of actions on its way into the record: rows and their descriptions, COPY both ways. Called
 * by backend.c and frontend.c with pieces of their buffers, which lie there until they are sent on:
 * what lies side by side is recorded in one piece. It must never let a piece be sent that is not
 * recorded: pg_record_flush() comes before each write. */
#include "base/log.h"
#include "proto/postgres/postgres_internal.h"

static bool fail(struct pg *p)
{
    cs_log(CS_EV_RECORD_FAILED, &p->s->id, "frame=data");
    p->passing[0] = p->passing[1] = CS_SLICE_NULL;
    p->lost = p->unrecorded = true;
    pg_end(p, "the record cannot be written");
    return false;
}

bool pg_record_flush(struct pg *p)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(p->passing); i++) {
        struct cs_slice bytes = p->passing[i];
        p->passing[i] = CS_SLICE_NULL;
        if (bytes.n > 0 && cs_answer_add(p->s, &p->answer, i == 1, bytes) != CS_OK) {
            return fail(p);
        }
    }
    return !p->lost;
}

void pg_record(struct pg *p, const struct pg_reply *r, bool from_client, struct cs_slice bytes)
{
    struct cs_slice *so_far = &p->passing[from_client];
    if (r != NULL && r->of != p->answer.n) {
        if (!pg_record_flush(p)) {
            return;
        }
        cs_answer_of(&p->answer, r->of, r->record);
    }
    if (so_far->n > 0 && so_far->p + so_far->n != bytes.p && !pg_record_flush(p)) {
        return;
    }
    *so_far = so_far->n > 0 ? cs_slice(so_far->p, so_far->n + bytes.n) : bytes;
}

bool pg_record_result(struct pg *p, uint64_t n, struct cs_result *res)
{
    struct cs_slice *data = &p->passing[0];
    if (p->answer.n == n && p->passing[1].n == 0 && cs_answer_small(&p->answer, *data)) {
        res->data = *data;
        *data = CS_SLICE_NULL;
    } else if (!pg_record_flush(p) || cs_answer_end(p->s, &p->answer) != CS_OK) {
        return fail(p);
    }
    if (cs_gate_result(p->s, n, res) != CS_OK) {
        return res->data.n > 0 ? fail(p) : false;
    }
    return true;
}
