/* Reads a session back (replay.h). Called by the replayer, a process of its own that lives for one
 * answer, so that neither control nor recorder ever parses what clients and targets sent. It must
 * never write to the directory, and never believe that what it reads was written by us. */
#include "record/replay.h"

#include "action/chain.h"
#include "action/frame.h"
#include "action/request.h"
#include "base/alloc.h"
#include "base/secret.h"
#include "base/time.h"
#include "record/csr_read.h"
#include "record/rows.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
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

static bool from_field(struct cs_json *j, const char *name, uint64_t v)
{
    if (v > 1) {
        return false;
    }
    cs_json_str(j, name, v == 1 ? "client" : "target");
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
    {"hash", digest_field, NULL},     {"from", NULL, from_field},
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

/* Rows instead of bytes; of each direction by itself. */
static void data_frame(struct cs_json *j, const struct cs_frame_data *f, struct cs_rows rows[2])
{
    cs_json_u64(j, "n", f->n);
    (void)from_field(j, "from", f->from);
    cs_json_u64(j, "at", f->at);
    cs_json_u64(j, "bytes", f->data.n);
    cs_rows_show(&rows[f->from], j, f->n, f->at, f->data);
}

static bool show_event(struct cs_json *j, struct cs_slice frame, struct cs_rows rows[2])
{
    union {
        uint8_t bytes[CS_FRAME_STRUCT_MAX];
        uint64_t align;
        struct cs_frame_data data;
        struct cs_frame_answer answer;
    } body = {{0}};
    struct cs_frame_head head;
    char when[CS_TIME_TEXT];
    if (!cs_frame_decode_head(frame, &head)) {
        return false;
    }
    bool whole = cs_frame_decode(frame, &head, &body);
    cs_json_begin(j, NULL, '{');
    cs_json_str(j, "t", cs_time_text(head.wall_ms, when));
    /* To a reader an answer is a result that has its data in it. */
    bool result = head.kind == CS_FRAME_ANSWER && rows != NULL;
    cs_json_str(j, "kind", cs_frame_name(result ? CS_FRAME_RESULT : (unsigned)head.kind));
    if (!whole) {
        cs_json_bool(j, "damaged", true);
    } else if (rows != NULL && head.kind == CS_FRAME_DATA && body.data.from <= 1) {
        data_frame(j, &body.data, rows);
    } else {
        bool answer = rows != NULL && head.kind == CS_FRAME_ANSWER;
        size_t n;
        const struct cs_field *f = cs_frame_fields((unsigned)head.kind, &n);
        for (size_t i = 0; i + answer < n; i++) {
            field(j, &f[i], body.bytes + f[i].offset);
        }
        if (answer) {
            cs_rows_show(&rows[0], j, body.answer.n, 0, body.answer.data);
        }
    }
    cs_json_end(j, '}');
    return true;
}

bool cs_replay_frame(struct cs_json *j, struct cs_slice frame)
{
    return show_event(j, frame, NULL);
}

/* ---- opening ---- */

struct cs_replay {
    int dir, fd; /* owned */
    struct cs_id session;
    struct cs_csr_source in;
    struct cs_csr_tail tail;
    struct cs_csr_reader *reader; /* owned */
    struct cs_buf rows;
    struct cs_csr_keys *epochs; /* owned; those of the rows */
    uint32_t *epoch_of;         /* owned */
    size_t n_epochs;
};

static bool keys_note(void *arg, uint32_t epoch, const struct cs_csr_recovered *x)
{
    struct cs_replay *r = arg;
    for (size_t i = 0; i < x->keys.n; i++) {
        uint8_t row[CS_WRAPPED_ROW];
        struct cs_wrapped w = {.epoch = epoch};
        memcpy(w.name, x->keys.to[i].name, sizeof w.name);
        memcpy(w.box, x->keys.to[i].wrapped, sizeof w.box);
        cs_wrapped_write(&w, row);
        if (r->rows.len / CS_WRAPPED_ROW < CS_WRAPPED_MAX) {
            cs_buf_add(&r->rows, cs_slice(row, sizeof row));
        }
    }
    struct cs_csr_keys *keys = cs_realloc(r->epochs, (r->n_epochs + 1) * sizeof *keys);
    if (keys != NULL) {
        r->epochs = keys;
    }
    uint32_t *of = cs_realloc(r->epoch_of, (r->n_epochs + 1) * sizeof *of);
    if (of != NULL) {
        r->epoch_of = of;
    }
    if (keys == NULL || of == NULL || r->rows.bad) {
        return false;
    }
    keys[r->n_epochs] = x->keys;
    of[r->n_epochs++] = epoch;
    return r->n_epochs < CS_WRAPPED_MAX;
}

static enum cs_err open_file(struct cs_replay *r, const char *directory)
{
    char name[CS_CSR_NAME];
    struct stat st;
    r->dir = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0) {
        return cs_err_from_errno(errno);
    }
    /* NONBLOCK: a FIFO put there under that name must not stop us. */
    r->fd = openat(r->dir, cs_csr_name(&r->session, false, 0, name),
                   O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (r->fd < 0) {
        return cs_err_from_errno(errno);
    }
    if (fstat(r->fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return CS_ERR_CORRUPT;
    }
    r->in = cs_csr_descriptor(&r->fd, (uint64_t)st.st_size);
    enum cs_err err = cs_csr_find_tail(r->in, &r->tail);
    if (err == CS_OK && !cs_id_eq(&r->tail.head.session, &r->session)) {
        err = CS_ERR_CORRUPT;
    }
    return err;
}

enum cs_err cs_replay_open(const char *directory, const struct cs_id *session,
                           struct cs_replay **ret)
{
    struct cs_replay *r = cs_alloc(sizeof *r);
    if (r == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    r->dir = r->fd = -1;
    r->session = *session;
    r->rows = cs_buf((size_t)CS_WRAPPED_ROW * CS_WRAPPED_MAX);
    r->reader = cs_csr_reader_new(session);
    enum cs_err err = r->reader != NULL ? open_file(r, directory) : CS_ERR_NO_MEMORY;
    if (err == CS_OK) {
        const struct cs_csr_recovered first = {.keys = r->tail.head.keys};
        /* A bad head on the way is found again, and told, when the recording is read. */
        if (keys_note(r, 1, &first) && r->tail.epoch > 1) {
            (void)cs_csr_each_recover(r->in, &r->tail, keys_note, r);
        }
        err = r->rows.bad ? CS_ERR_NO_MEMORY : CS_OK;
    }
    if (err != CS_OK) {
        cs_replay_close(r);
        return err;
    }
    *ret = r;
    return CS_OK;
}

void cs_replay_close(struct cs_replay *r)
{
    if (r == NULL) {
        return;
    }
    if (r->fd >= 0) {
        (void)close(r->fd);
    }
    if (r->dir >= 0) {
        (void)close(r->dir);
    }
    cs_csr_reader_free(r->reader);
    cs_buf_done(&r->rows);
    cs_free(r->epochs);
    cs_free(r->epoch_of);
    cs_free(r);
}

struct cs_slice cs_replay_rows(const struct cs_replay *r)
{
    return cs_buf_slice(&r->rows);
}

/* One row: true when it opened and is the key that the recording commits to. */
static bool use_row(struct cs_replay *r, const struct cs_wrapped *row, bool opened,
                    const uint8_t private[static CS_X25519])
{
    uint8_t mem[CS_WRAPPED_AAD], dek[CS_WRAPPED_KEY];
    bool ok = false;
    for (size_t i = 0; i < r->n_epochs && !ok; i++) {
        ok = r->epoch_of[i] == row->epoch &&
             cs_unseal_to(private, cs_wrapped_aad(opened, &r->session, row->epoch, mem),
                          cs_slice(row->box, sizeof row->box), dek) == CS_OK &&
             cs_csr_reader_key(r->reader, row->epoch, &r->epochs[i], dek) == CS_OK;
    }
    cs_wipe(dek, sizeof dek);
    return ok;
}

size_t cs_replay_keys(struct cs_replay *r, const uint8_t private[static CS_X25519],
                      struct cs_slice opened)
{
    struct cs_wrapped row;
    size_t n = 0;
    while (cs_opened_next(&opened, &row)) {
        n += use_row(r, &row, true, private);
    }
    return n;
}

size_t cs_replay_own_key(struct cs_replay *r, const uint8_t private[static CS_X25519])
{
    struct cs_slice rows = cs_replay_rows(r);
    struct cs_wrapped row;
    size_t n = 0;
    while (cs_wrapped_next(&rows, &row)) {
        n += use_row(r, &row, false, private);
    }
    return n;
}

/* ---- events ---- */

struct showing {
    const struct cs_replay_query *q;
    struct cs_json json;
    uint64_t from_ms; /* since 1970 */
    uint64_t unreadable;
    bool truncated;
    struct cs_rows rows[2]; /* of the target, of the client */
};

static bool has(struct cs_slice in, struct cs_slice what)
{
    for (size_t i = 0; what.n <= in.n && i <= in.n - what.n; i++) {
        if (cs_slice_eq_nocase(cs_slice(in.p + i, what.n), what)) {
            return true;
        }
    }
    return what.n == 0;
}

static bool wanted(const struct showing *s, struct cs_slice event)
{
    struct cs_frame_head h;
    if (!cs_frame_decode_head(event, &h) || h.wall_ms < s->from_ms) {
        return false;
    }
    bool shown = !s->q->actions || h.kind == CS_FRAME_ACTION || h.kind == CS_FRAME_HELD ||
                 h.kind == CS_FRAME_DECIDED || h.kind == CS_FRAME_EXECUTE ||
                 h.kind == CS_FRAME_RESULT || h.kind == CS_FRAME_ANSWER;
    return shown && has(cs_slice_from(event, CS_FRAME_HEAD), s->q->find);
}

static void show(struct showing *s, struct cs_slice event)
{
    struct cs_json before = s->json;
    size_t len = before.out->len;
    struct cs_frame_head h;
    bool shown = wanted(s, event);
    /* Data is read also where it is not shown: what comes next may go on in the middle of a row. */
    if (!shown && !(cs_frame_decode_head(event, &h) && h.kind == CS_FRAME_DATA)) {
        return;
    }
    (void)show_event(&s->json, event, s->rows);
    /* An event is shown whole or not at all. */
    if (!shown || s->json.out->len > s->q->cap || s->json.out->bad) {
        before.out->len = len;
        before.out->bad = false;
        s->json = before;
        s->truncated = shown;
    }
}

/* NULL, or why the rest cannot be read. */
static const char *show_frame(struct cs_replay *r, struct showing *s, struct cs_csr_scanner *scan)
{
    struct cs_slice plain, event;
    enum cs_err err = cs_csr_reader_open(r->reader, &scan->frame, scan->bytes, &plain);
    if (err == CS_ERR_DENIED) {
        s->unreadable += scan->frame.n_events;
        return NULL;
    }
    if (err != CS_OK) {
        return "a frame does not open with the recording's key";
    }
    while (!s->truncated && cs_csr_event_next(&plain, &event)) {
        show(s, event);
    }
    return NULL;
}

/* Foreign files are counted by what their frames' heads say, as long as those are whole. */
static uint64_t foreign_events(const struct cs_replay *r)
{
    uint64_t n = 0, epoch;
    struct cs_id id;
    bool foreign;
    int fd = openat(r->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) {
        return 0;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (!cs_csr_name_parse(e->d_name, &id, &foreign, &epoch) || !foreign ||
            !cs_id_eq(&id, &r->session)) {
            continue;
        }
        struct stat st;
        struct cs_csr_scanner scan;
        int file = openat(r->dir, e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (file >= 0 && fstat(file, &st) == 0 && S_ISREG(st.st_mode) &&
            cs_csr_scan_start(&scan, cs_csr_descriptor(&file, (uint64_t)st.st_size)) == CS_OK) {
            while (cs_csr_scan_next(&scan) == CS_CSR_SCAN_FRAME) {
                n += scan.frame.n_events;
            }
            cs_csr_scan_done(&scan);
        }
        if (file >= 0) {
            (void)close(file);
        }
    }
    (void)closedir(d);
    return n;
}

static const char *show_all(struct cs_replay *r, struct showing *s)
{
    struct cs_csr_scanner scan;
    const char *why = NULL;
    enum cs_csr_scan got = CS_CSR_SCAN_FRAME;
    if (cs_csr_scan_start(&scan, r->in) != CS_OK) {
        return "the file's header is damaged";
    }
    if (s->q->from_ms > 0) {
        uint64_t at = cs_csr_find_reset(r->in, &r->tail, s->from_ms * CS_NS_PER_MS);
        if (at == 0 || cs_csr_scan_seek(&scan, at) != CS_OK) {
            at = 0; /* then all of it is read */
        }
    }
    while (why == NULL && !s->truncated && (got = cs_csr_scan_next(&scan)) == CS_CSR_SCAN_FRAME) {
        why = show_frame(r, s, &scan);
    }
    /* The end of a recording that goes on may be a frame that is just being written. */
    if (got == CS_CSR_SCAN_BAD && !(scan.torn && !r->tail.ended)) {
        why = scan.why;
    }
    cs_csr_scan_done(&scan);
    return why;
}

enum cs_err cs_replay_json(struct cs_replay *r, const struct cs_replay_query *q, struct cs_buf *out)
{
    char id[CS_ID_TEXT], when[CS_TIME_TEXT];
    struct showing s = {.q = q, .json = {out, false}};
    uint64_t began = r->tail.head.started_ms;
    s.from_ms = q->from_ms > 0 && q->from_ms <= UINT64_MAX - began ? began + q->from_ms : 0;
    cs_json_begin(&s.json, NULL, '{');
    cs_json_str(&s.json, "session", cs_id_text(&r->session, id));
    cs_json_begin(&s.json, "frames", '[');
    const char *why = show_all(r, &s);
    cs_rows_done(&s.rows[0]);
    cs_rows_done(&s.rows[1]);
    cs_json_end(&s.json, ']');
    cs_json_str(&s.json, "began", cs_time_text(began, when));
    cs_json_bool(&s.json, "finished", r->tail.ended);
    if (s.truncated) {
        cs_json_bool(&s.json, "truncated", true);
    }
    if (s.unreadable > 0) {
        cs_json_u64(&s.json, "unreadable", s.unreadable);
    }
    uint64_t foreign = foreign_events(r);
    if (foreign > 0) {
        cs_json_u64(&s.json, "foreign", foreign);
    }
    if (why != NULL) {
        cs_json_str(&s.json, "damaged", why);
    }
    cs_json_end(&s.json, '}');
    return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
}
