/* Reads a session back (replay.h). Called by the replayer, a process of its own that lives for one
 * answer, so that neither control nor recorder ever parses what clients and targets sent. It must
 * never write to the directory, and never believe that what it reads was written by us. */
#include "record/replay.h"

#include "action/chain.h"
#include "action/frame.h"
#include "action/request.h"
#include "base/alloc.h"
#include "base/time.h"
#include "record/files.h"
#include "record/json.h"
#include "record/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* ---- one field ---- */

/* Decodes into an arena, so a hostile count costs no more than this. */
enum { CHAIN_ARENA = 64 * 1024 };

static bool chain_field(struct cs_json *j, const char *name, struct cs_slice bytes)
{
    struct cs_arena a;
    struct cs_chain chain = {.n = 0};
    cs_arena_init(&a, 4096, CHAIN_ARENA);
    struct cs_reader r = cs_reader(bytes);
    bool ok = cs_chain_decode(&r, &a, &chain) && cs_reader_done(&r);
    if (ok) {
        cs_json_begin(j, name, '[');
        for (size_t i = 0; i < chain.n; i++) {
            const struct cs_principal *p = &chain.p[i];
            cs_json_begin(j, NULL, '{');
            cs_json_str(j, "kind", cs_principal_kind_name(p->kind));
            cs_json_bytes(j, "id", p->id);
            cs_json_bytes(j, "name", p->name);
            cs_json_begin(j, "groups", '[');
            for (size_t g = 0; g < p->n_groups; g++) {
                cs_json_bytes(j, NULL, p->groups[g]);
            }
            cs_json_end(j, ']');
            cs_json_end(j, '}');
        }
        cs_json_end(j, ']');
    }
    cs_arena_done(&a);
    return ok;
}

static bool digest_field(struct cs_json *j, const char *name, struct cs_slice bytes)
{
    if (bytes.n != 32) {
        return false;
    }
    cs_json_hex(j, name, bytes);
    return true;
}

static bool outcome_field(struct cs_json *j, const char *name, uint64_t v)
{
    /* enum cs_outcome (policy/policy.h), which this folder does not see; frames keep its numbers
     * for ever. */
    static const char *const names[] = {"deny", "hold", "allow"};
    if (v >= CS_ARRAY_LEN(names)) {
        return false;
    }
    cs_json_str(j, name, names[v]);
    return true;
}

static bool state_field(struct cs_json *j, const char *name, uint64_t v)
{
    if (v >= CS_REQUEST_MAX) {
        return false;
    }
    cs_json_str(j, name, cs_request_state_name((enum cs_request_state)v));
    return true;
}

/* A version is a name, not a quantity: hex, as everywhere else it is shown. */
static bool version_field(struct cs_json *j, const char *name, uint64_t v)
{
    char text[20];
    (void)snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    cs_json_str(j, name, text);
    return true;
}

static bool truth_field(struct cs_json *j, const char *name, uint64_t v)
{
    if (v > 1) {
        return false;
    }
    cs_json_bool(j, name, v == 1);
    return true;
}

/* Fields that mean more than their type says. A function that returns false has written nothing:
 * the field is then shown as its type. */
static const struct special {
    const char *name;
    bool (*slice)(struct cs_json *j, const char *name, struct cs_slice v);
    bool (*number)(struct cs_json *j, const char *name, uint64_t v);
} specials[] = {
    {"chain", chain_field, NULL},     {"digest", digest_field, NULL},
    {"outcome", NULL, outcome_field}, {"state", NULL, state_field},
    {"policy", NULL, version_field},  {"ok", NULL, truth_field},
    {"elevated", NULL, truth_field},  {"attached", NULL, truth_field},
};

static bool special_field(struct cs_json *j, const struct cs_field *f, const void *at)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(specials); i++) {
        const struct special *s = &specials[i];
        if (strcmp(s->name, f->name) != 0) {
            continue;
        }
        if (f->kind == CS_FIELD_KIND_SLICE && s->slice != NULL) {
            return s->slice(j, f->name, *(const struct cs_slice *)at);
        }
        if (f->kind == CS_FIELD_KIND_U64 && s->number != NULL) {
            return s->number(j, f->name, *(const uint64_t *)at);
        }
    }
    return false;
}

static void field(struct cs_json *j, const struct cs_field *f, const void *at)
{
    if (special_field(j, f, at)) {
        return;
    }
    switch (f->kind) {
    case CS_FIELD_KIND_U64:
        cs_json_u64(j, f->name, *(const uint64_t *)at);
        break;
    case CS_FIELD_KIND_ID:
        cs_json_hex(j, f->name, cs_slice(((const struct cs_id *)at)->b, CS_ID_BYTES));
        break;
    case CS_FIELD_KIND_SLICE:
        cs_json_bytes(j, f->name, *(const struct cs_slice *)at);
        break;
    default:
        break;
    }
}

bool cs_replay_frame(struct cs_json *j, struct cs_slice frame)
{
    union {
        uint8_t bytes[CS_FRAME_STRUCT_MAX];
        uint64_t align;
    } body = {{0}};
    struct cs_frame_head head;
    char when[CS_TIME_TEXT];
    if (!cs_frame_decode_head(frame, &head)) {
        return false;
    }
    bool whole = cs_frame_decode(frame, &head, &body);
    cs_json_begin(j, NULL, '{');
    cs_json_str(j, "t", cs_time_text(head.wall_ms, when));
    cs_json_str(j, "kind", cs_frame_name((unsigned)head.kind));
    if (!whole) {
        cs_json_bool(j, "damaged", true);
    } else {
        size_t n;
        const struct cs_field *f = cs_frame_fields((unsigned)head.kind, &n);
        for (size_t i = 0; i < n; i++) {
            field(j, &f[i], body.bytes + f[i].offset);
        }
    }
    cs_json_end(j, '}');
    return true;
}

/* ---- all segments ---- */

struct replay {
    int dir;
    struct cs_id session;
    size_t cap;
    struct cs_json json;
    uint64_t epoch; /* of the gate that carried the session; counts when met */
    uint64_t frames, foreign, damaged;
    bool met, truncated;
};

static void one_frame(struct replay *r, const struct cs_journal_frame *f)
{
    struct cs_frame_head head;
    struct cs_slice bytes = f->bytes;
    if (!cs_frame_decode_head(bytes, &head) || !cs_id_eq(&head.session, &r->session)) {
        return;
    }
    /* SECURITY: a gate may write any session's id into a frame, but the epoch is the recorder's. A
     * session lives in one gate, which is the first to know its id: what others say of it is not
     * part of it. */
    if (r->met && f->epoch != r->epoch) {
        r->foreign++;
        return;
    }
    r->met = true;
    r->epoch = f->epoch;
    struct cs_json before = r->json;
    size_t len = before.out->len;
    (void)cs_replay_frame(&r->json, bytes);
    /* A frame is shown whole or not at all. */
    if (r->json.out->len > r->cap || r->json.out->bad) {
        before.out->len = len;
        before.out->bad = false;
        r->json = before;
        r->truncated = true;
        return;
    }
    r->frames++;
}

static enum cs_err one_segment(struct replay *r, uint32_t number, bool last)
{
    char name[CS_SEGMENT_NAME];
    uint8_t *bytes = NULL;
    size_t n = 0;
    enum cs_err err = cs_file_read(r->dir, cs_segment_name(number, name), &bytes, &n);
    if (err == CS_ERR_NO_MEMORY) {
        return err;
    }
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    struct cs_journal_frame f;
    enum cs_scan got = CS_SCAN_BAD;
    if (err == CS_OK && cs_segment_scan_start(cs_slice(bytes, n), &scan, &head) &&
        head.number == number) {
        while (!r->truncated && (got = cs_segment_scan_next(&scan, &f)) == CS_SCAN_FRAME) {
            one_frame(r, &f);
        }
        /* The end of the last segment may be a frame that is just being written. */
        r->damaged += got == CS_SCAN_BAD && !last && !r->truncated;
    } else {
        r->damaged++;
    }
    cs_free(bytes);
    return CS_OK;
}

static enum cs_err all_segments(struct replay *r)
{
    struct cs_segment_list l = {NULL, 0, 0};
    enum cs_err err = cs_segments_list(r->dir, &l);
    for (size_t i = 0; i < l.n && err == CS_OK && !r->truncated; i++) {
        err = one_segment(r, l.numbers[i], i + 1 == l.n);
    }
    cs_segments_done(&l);
    return err;
}

enum cs_err cs_replay_session(const char *directory, const struct cs_id *session, size_t cap,
                              struct cs_buf *out)
{
    struct replay r = {.dir = -1, .session = *session, .cap = cap, .json = {out, false}};
    char id[CS_ID_TEXT];
    r.dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r.dir < 0) {
        return cs_err_from_errno(errno);
    }
    cs_json_begin(&r.json, NULL, '{');
    cs_json_str(&r.json, "session", cs_id_text(session, id));
    cs_json_begin(&r.json, "frames", '[');
    enum cs_err err = all_segments(&r);
    cs_json_end(&r.json, ']');
    if (r.truncated) {
        cs_json_bool(&r.json, "truncated", true);
    }
    if (r.foreign > 0) {
        cs_json_u64(&r.json, "foreign", r.foreign);
    }
    if (r.damaged > 0) {
        cs_json_u64(&r.json, "damaged", r.damaged);
    }
    cs_json_end(&r.json, '}');
    (void)close(r.dir);
    if (err == CS_OK && out->bad) {
        err = CS_ERR_NO_MEMORY;
    }
    return err == CS_OK && r.frames == 0 && !r.truncated ? CS_ERR_NOT_FOUND : err;
}
