/* Makes evidence for tests (evidence.h). Called by unit tests and by make-evidence. */
#include "evidence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static void demand(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "make-evidence: %s\n", what);
        abort();
    }
}
#define DEMAND(x) demand((x), #x)

static void put_file(const char *dir, const char *name, struct cs_slice content)
{
    char path[600];
    DEMAND(snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        DEMAND(mkdir(path, 0755) == 0 || errno == EEXIST);
        *p = '/';
    }
    FILE *f = fopen(path, "we");
    DEMAND(f != NULL);
    DEMAND(content.n == 0 || fwrite(content.p, 1, content.n, f) == content.n);
    DEMAND(fclose(f) == 0);
}

static enum cs_err put(void *ctx, const char *path, struct cs_slice content)
{
    const struct evidence *e = ctx;
    char name[CS_AUDIT_PATH + 8];
    (void)snprintf(name, sizeof name, "log/%s", path);
    put_file(e->dir, name, content);
    return CS_OK;
}

void evidence_begin(struct evidence *e, const char *dir)
{
    uint8_t public[CS_ED25519_KEY];
    *e = (struct evidence){.private = {7}, .holder = {9}, .now_ms = 1763800000000};
    DEMAND(snprintf(e->dir, sizeof e->dir, "%s", dir) < (int)sizeof e->dir);
    DEMAND(cs_ed25519_public(e->private, public) == CS_OK);
    DEMAND(cs_audit_key_make(CS_SLICE_LIT("test/gw1"), public, &e->key) == CS_OK);
    struct cs_buf text = cs_buf(1024);
    cs_audit_key_write(&e->key, &text);
    cs_buf_u8(&text, '\n');
    put_file(dir, "log/log.pub", cs_buf_slice(&text));
    cs_buf_done(&text);
    e->log = cs_audit_writer_new((struct cs_audit_sink){put, e});
    DEMAND(e->log != NULL);
    struct cs_leaf l = {.kind = CS_LEAF_START};
    cs_leaf_set(&l, CS_KEY_WHAT, CS_SLICE_LIT("begin"));
    evidence_leaf(e, &l);
}

void evidence_sign(struct evidence *e, const char *name)
{
    struct cs_audit_checkpoint c = {.origin = cs_slice_str(e->key.name)};
    struct cs_buf text = cs_buf(1024), note = cs_buf(CS_AUDIT_NOTE_MAX);
    DEMAND(cs_audit_writer_flush(e->log, &c.size, &c.root) == CS_OK);
    cs_audit_checkpoint_write(&c, &text);
    DEMAND(cs_audit_note_sign(cs_buf_slice(&text), &e->key, e->private, &note) == CS_OK);
    put_file(e->dir, "log/checkpoint", cs_buf_slice(&note));
    if (name != NULL) {
        put_file(e->dir, name, cs_buf_slice(&note));
    }
    cs_buf_done(&text);
    cs_buf_done(&note);
}

void evidence_done(struct evidence *e)
{
    evidence_sign(e, NULL);
    cs_audit_writer_free(e->log);
}

void evidence_leaf(struct evidence *e, struct cs_leaf *l)
{
    struct cs_buf out = cs_buf(CS_AUDIT_LEAF_MAX);
    l->time_ms = e->now_ms++;
    DEMAND(cs_leaf_write(l, &out) == CS_OK);
    DEMAND(cs_audit_writer_add(e->log, cs_buf_slice(&out)) == CS_OK);
    cs_buf_done(&out);
    e->leaves++;
}

/* Sealed to a holder that nobody here is. */
static struct cs_buf who(const struct evidence *e, enum cs_leaf_kind kind)
{
    uint8_t public[1][CS_X25519];
    struct cs_buf out = cs_buf(CS_LEAF_SEALED_MAX);
    DEMAND(cs_x25519_public(e->holder, public[0]) == CS_OK);
    DEMAND(cs_leaf_seal(kind, CS_KEY_WHO, CS_SLICE_LIT("alice"),
                        (const uint8_t(*)[CS_X25519]) public, 1, &out) == CS_OK);
    return out;
}

void evidence_fill(struct evidence *e, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct cs_leaf l = {.kind = CS_LEAF_LOGIN};
        struct cs_buf b = who(e, CS_LEAF_LOGIN);
        cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&b));
        cs_leaf_set(&l, CS_KEY_WHAT, CS_SLICE_LIT("token"));
        cs_leaf_set_uint(&l, CS_KEY_OUTCOME, i % 2 * 2);
        evidence_leaf(e, &l);
        cs_buf_done(&b);
    }
}

/* ---- sessions ---- */

struct cs_id evidence_id(uint8_t number)
{
    struct cs_id id;
    memset(id.b, number, sizeof id.b);
    return id;
}

static uint8_t *room(struct evidence_session *s)
{
    uint8_t *p = cs_buf_room(&s->file, CS_CSR_FRAME_MAX);
    DEMAND(p != NULL);
    return p;
}

void evidence_open(struct evidence_session *s, struct evidence *e, uint8_t number)
{
    size_t n = 0;
    *s = (struct evidence_session){
        .e = e, .id = evidence_id(number), .to = {.n = 1}, .file = cs_buf((size_t)2 << 30)};
    memcpy(s->to.key[0].name, "recording/2026-11", 18);
    DEMAND(cs_x25519_public(e->holder, s->to.key[0].public) == CS_OK);
    s->gcm = cs_gcm_new();
    s->stream = cs_csr_stream_new();
    DEMAND(s->gcm != NULL && s->stream != NULL);
    DEMAND(cs_csr_begin(&s->w, &s->to, &s->id, 99, e->now_ms, room(s), CS_CSR_FRAME_MAX, &n) ==
           CS_OK);
    s->file.len += n;
    struct cs_leaf l = {.kind = CS_LEAF_SESSION_OPEN};
    struct cs_buf b = who(e, l.kind);
    cs_leaf_set(&l, CS_KEY_SESSION, cs_slice(s->id.b, CS_ID_BYTES));
    cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&b));
    cs_leaf_set(&l, CS_KEY_TARGET, CS_SLICE_LIT("orders"));
    cs_leaf_set_uint(&l, CS_KEY_POLICY, 11);
    evidence_leaf(e, &l);
    cs_buf_done(&b);
}

void evidence_frame(struct evidence_session *s, size_t bytes)
{
    size_t n = 0;
    uint8_t *event = malloc(bytes);
    DEMAND(event != NULL);
    cs_random(event, bytes);
    s->e->now_ms++;
    DEMAND(cs_csr_add(&s->w, s->stream, cs_slice(event, bytes), true, s->e->now_ms * 1000000) ==
           CS_OK);
    free(event);
    DEMAND(cs_csr_flush(&s->w, s->gcm, room(s), CS_CSR_FRAME_MAX, &n) == CS_OK);
    s->file.len += n;
    if (cs_csr_index_is_due(&s->w)) {
        DEMAND(cs_csr_index_frame(&s->w, s->gcm, room(s), CS_CSR_FRAME_MAX, &n) == CS_OK);
        s->file.len += n;
    }
}

void evidence_recover(struct evidence_session *s)
{
    struct cs_csr_tail tail;
    size_t n = 0;
    struct cs_slice file = cs_buf_slice(&s->file);
    DEMAND(cs_csr_find_tail(cs_csr_memory(&file), &tail) == CS_OK);
    cs_csr_writer_done(&s->w);
    DEMAND(cs_csr_resume(&s->w, s->gcm, &s->to, &tail, s->e->now_ms, room(s), CS_CSR_FRAME_MAX,
                         &n) == CS_OK);
    s->file.len += n;
}

static void chain_leaf(struct evidence_session *s, enum cs_leaf_kind kind)
{
    struct cs_leaf l = {.kind = kind};
    cs_leaf_set(&l, CS_KEY_SESSION, cs_slice(s->id.b, CS_ID_BYTES));
    cs_leaf_set(&l, CS_KEY_CHAIN, cs_slice(s->w.chain, CS_SHA256));
    cs_leaf_set_uint(&l, CS_KEY_FRAMES, s->w.seq);
    if (kind == CS_LEAF_SESSION_CLOSE) {
        cs_leaf_set(&l, CS_KEY_WHAT, CS_SLICE_LIT("closed"));
    }
    evidence_leaf(s->e, &l);
}

void evidence_anchor(struct evidence_session *s)
{
    chain_leaf(s, CS_LEAF_RECORDING);
}

static struct cs_slice bytes_of(uint8_t value, uint8_t out[static CS_SHA256], size_t n)
{
    memset(out, value, n);
    return cs_slice(out, n);
}

/* Session, number of the action, request, digest: what several kinds have. */
static void about(struct evidence_session *s, struct cs_leaf *l, const char *request)
{
    cs_leaf_set(l, CS_KEY_SESSION, cs_slice(s->id.b, CS_ID_BYTES));
    cs_leaf_set_uint(l, CS_KEY_N, s->n);
    cs_leaf_set(l, CS_KEY_REQUEST, cs_slice_str(request));
}

void evidence_held(struct evidence_session *s, const char *request, uint8_t digest)
{
    uint8_t d[CS_SHA256];
    struct cs_leaf l = {.kind = CS_LEAF_DECISION};
    s->n++;
    about(s, &l, request);
    cs_leaf_set(&l, CS_KEY_DIGEST, bytes_of(digest, d, CS_SHA256));
    cs_leaf_set_uint(&l, CS_KEY_OUTCOME, 1);
    cs_leaf_set_uint(&l, CS_KEY_POLICY, 11);
    evidence_leaf(s->e, &l);
}

void evidence_vote(struct evidence *e, const char *request, uint8_t digest, bool yes)
{
    uint8_t d[CS_SHA256];
    struct cs_leaf l = {.kind = CS_LEAF_VOTE};
    struct cs_buf b = who(e, l.kind);
    cs_leaf_set(&l, CS_KEY_REQUEST, cs_slice_str(request));
    cs_leaf_set(&l, CS_KEY_DIGEST, bytes_of(digest, d, CS_SHA256));
    cs_leaf_set_uint(&l, CS_KEY_OUTCOME, yes ? 2 : 0);
    cs_leaf_set(&l, CS_KEY_WHO, cs_buf_slice(&b));
    evidence_leaf(e, &l);
    cs_buf_done(&b);
}

void evidence_use(struct evidence_session *s, const char *request, uint8_t grant, uint8_t digest)
{
    uint8_t d[CS_SHA256], g[CS_SHA256];
    struct cs_leaf l = {.kind = CS_LEAF_GRANT_USE};
    about(s, &l, request);
    cs_leaf_set(&l, CS_KEY_DIGEST, bytes_of(digest, d, CS_SHA256));
    cs_leaf_set(&l, CS_KEY_GRANT, bytes_of(grant, g, CS_ID_BYTES));
    evidence_leaf(s->e, &l);
}

void evidence_result(struct evidence_session *s, const char *request, uint8_t grant)
{
    uint8_t g[CS_SHA256];
    struct cs_leaf l = {.kind = CS_LEAF_GRANT_RESULT};
    about(s, &l, request);
    cs_leaf_set(&l, CS_KEY_GRANT, bytes_of(grant, g, CS_ID_BYTES));
    cs_leaf_set_uint(&l, CS_KEY_OUTCOME, 2);
    evidence_leaf(s->e, &l);
}

void evidence_close(struct evidence_session *s, bool silent)
{
    size_t n = 0;
    if (s->w.n_entries > 0) {
        DEMAND(cs_csr_index_frame(&s->w, s->gcm, room(s), CS_CSR_FRAME_MAX, &n) == CS_OK);
        s->file.len += n;
    }
    DEMAND(cs_csr_end_frame(&s->w, s->gcm, CS_CSR_END_CLOSED, s->e->now_ms, room(s),
                            CS_CSR_FRAME_MAX, &n) == CS_OK);
    s->file.len += n;
    if (!silent) {
        chain_leaf(s, CS_LEAF_SESSION_CLOSE);
    }
}

void evidence_save(struct evidence_session *s)
{
    char name[CS_CSR_NAME];
    put_file(s->e->dir, cs_csr_name(&s->id, false, 0, name), cs_buf_slice(&s->file));
    cs_csr_writer_done(&s->w);
    cs_csr_stream_free(s->stream);
    cs_gcm_free(s->gcm);
    cs_buf_done(&s->file);
}

void evidence_usual(const char *dir, unsigned extra, bool finished)
{
    struct evidence e;
    struct evidence_session one, two, three;
    uint8_t hash[CS_SHA256];
    struct cs_leaf rules = {.kind = CS_LEAF_RULES};
    evidence_begin(&e, dir);
    cs_leaf_set_uint(&rules, CS_KEY_POLICY, 11);
    cs_leaf_set(&rules, CS_KEY_RULES, bytes_of(0x77, hash, CS_SHA256));
    evidence_leaf(&e, &rules);
    evidence_open(&one, &e, 1);
    evidence_open(&two, &e, 2);
    evidence_frame(&one, 100);
    evidence_held(&one, "7Q2KD4M9", 0xd1);
    evidence_frame(&two, 300);
    evidence_anchor(&two);
    evidence_fill(&e, extra / 2);
    evidence_sign(&e, "older");
    evidence_vote(&e, "7Q2KD4M9", 0xd1, true);
    evidence_use(&one, "7Q2KD4M9", 0x61, 0xd1);
    evidence_frame(&one, 50);
    evidence_result(&one, "7Q2KD4M9", 0x61);
    evidence_anchor(&one);
    evidence_open(&three, &e, 3);
    evidence_frame(&three, 80);
    evidence_anchor(&three);
    evidence_frame(&three, 20);
    evidence_frame(&two, 40);
    evidence_close(&one, false);
    evidence_fill(&e, extra - extra / 2);
    evidence_close(&two, false);
    if (finished) {
        evidence_close(&three, false);
    }
    evidence_save(&one);
    evidence_save(&two);
    evidence_save(&three);
    e.now_ms += 60000; /* the log goes on */
    evidence_fill(&e, 1);
    evidence_done(&e);
}

void evidence_indexed(const char *dir)
{
    struct evidence e;
    struct evidence_session s;
    evidence_begin(&e, dir);
    evidence_open(&s, &e, 1);
    for (unsigned i = 0; i < 150; i++) {
        e.now_ms += 11000; /* a RESET each time */
        evidence_frame(&s, 20);
        if (i % 40 == 0) {
            evidence_anchor(&s);
        }
        if (i == 20 || i == 21 || i == 80) {
            evidence_recover(&s);
        }
    }
    evidence_close(&s, false);
    evidence_save(&s);
    evidence_done(&e);
}
