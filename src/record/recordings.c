/* Open recordings (recordings.h): a table by session, compressors lent to those that are written
 * now, and the rule how much of the batch they will need. Called by the recorder's pump.
 *
 * It must never mix two sessions in a file or two gates in one, begin an epoch without a new key,
 * or take a frame that the batch might have no room for. */
#include "record/recordings.h"

#include "action/frame.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/time.h"
#include "base/writer.h"
#include "record/helper.h"

#include <stdio.h>

enum {
    /* So many sessions may be written to in turn without beginning their compression anew, which
     * costs twice the time and most of the ratio. One takes up as much memory as its session wrote
     * since its last reset, at most 1.3 MB. */
    STREAMS = 256,
    BUCKETS = 4096, /* a power of two */
    PER_GATE = CS_LIMIT_SESSIONS_PER_GATE + 1024,
    /* A recording's header or RECOVER, an INDEX, an END and four heads of entries at most. */
    AROUND = 12 * 1024,
    COMMIT_ROOM = CS_JOURNAL_HEAD + 16 * CS_RECORDINGS_ROWS,
    FRAME_ROOM = CS_CSR_FRAME_MAX + AROUND + CS_LEDGER_ROOM, /* and a leaf */
    SAY_FRAMES = 1024, /* then the log hears how far a recording has come, or after SAY_NS */
    LIST_ROWS = 512,   /* files in one OPEN entry */
    TOGETHER = 16,     /* so many are usually worth waking another thread */
};

#define SAY_NS (60 * CS_NS_PER_S)

struct recording {
    struct cs_journal_file file;
    struct cs_csr_writer w;     /* without a key (epoch 0) until it is written to */
    struct recording *next;     /* of its bucket */
    uint64_t said_ns, said_seq; /* when the log heard of it last, and up to which frame */
    uint64_t recovered;         /* up to here the journal's last entry about it reaches */
    size_t lent;                /* the place of its stream, if w.stream is one */
    bool found;                 /* by recovery; nothing was written to it since */
    bool ended;                 /* takes nothing more */
    bool handed;                /* its end is being copied: goes when that is in its file */
};

struct cs_recordings {
    struct cs_journal *journal; /* borrowed */
    struct cs_copier *copier;   /* borrowed */
    struct cs_gcm *gcm;
    struct cs_csr_to to; /* n 0 = none yet */
    struct cs_leaves leaves;
    struct recording *buckets[BUCKETS];
    struct cs_csr_stream *streams[STREAMS]; /* owned; NULL = not made yet */
    size_t n_streams;                       /* made so far */
    uint64_t used[STREAMS], turn;           /* 0 = by no recording that is open */
    size_t waiting[STREAMS], n_waiting;     /* places of those that something waits in */
    bool listed[STREAMS];                   /* there */
    size_t needs;                           /* of the batch, for what waits in streams */
    size_t pending;                         /* plain bytes of it */
    bool any_ended, any_handed;
    struct cs_helper *helper; /* owned; NULL = none */
    size_t help_from;         /* so many are worth waking it */
    struct cs_csr_stream *together[STREAMS];
};

/* ---- the table ---- */

static struct recording **bucket(struct cs_recordings *r, const struct cs_id *session)
{
    size_t h = (size_t)session->b[0] | (size_t)session->b[1] << 8;
    return &r->buckets[h & (BUCKETS - 1)];
}

static struct recording *find(struct cs_recordings *r, const struct cs_journal_file *f)
{
    struct recording *x = *bucket(r, &f->session);
    while (x != NULL &&
           !(cs_id_eq(&x->file.session, &f->session) && x->file.foreign == f->foreign &&
             (!f->foreign || x->file.epoch == f->epoch))) {
        x = x->next;
    }
    return x;
}

static struct recording *insert(struct cs_recordings *r, const struct cs_journal_file *f)
{
    struct recording **at = bucket(r, &f->session), *x = cs_alloc(sizeof *x);
    if (x != NULL) {
        x->file = *f;
        x->next = *at;
        *at = x;
    }
    return x;
}

static void drop(struct cs_recordings *r, struct recording **at)
{
    struct recording *x = *at;
    if (x->w.stream != NULL) {
        r->used[x->lent] = 0;
    }
    *at = x->next;
    cs_csr_writer_done(&x->w);
    cs_free(x);
}

struct cs_recordings *cs_recordings_new(struct cs_journal *journal, struct cs_copier *copier,
                                        struct cs_ledger *ledger)
{
    struct cs_recordings *r = cs_alloc(sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    r->journal = journal;
    r->copier = copier;
    r->leaves = (struct cs_leaves){ledger, journal, &r->to};
    r->gcm = cs_gcm_new();
    if (r->gcm == NULL) {
        cs_recordings_free(r);
        return NULL;
    }
    return r;
}

void cs_recordings_free(struct cs_recordings *r)
{
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        while (r->buckets[i] != NULL) {
            drop(r, &r->buckets[i]);
        }
    }
    for (size_t i = 0; i < r->n_streams; i++) {
        cs_csr_stream_free(r->streams[i]);
    }
    cs_gcm_free(r->gcm);
    cs_helper_free(r->helper);
    cs_free(r);
}

void cs_recordings_help(struct cs_recordings *r, size_t least)
{
    r->helper = r->helper == NULL ? cs_helper_new() : r->helper;
    r->help_from = least > 0 ? least : (size_t)TOGETHER;
}

void cs_recordings_keys(struct cs_recordings *r, const struct cs_csr_to *to)
{
    r->to = *to;
}

const struct cs_leaves *cs_recordings_leaves(const struct cs_recordings *r)
{
    return &r->leaves;
}

bool cs_recordings_has_keys(const struct cs_recordings *r)
{
    return r->to.n > 0;
}

/* ---- the batch ---- */

bool cs_recordings_have_room(const struct cs_recordings *r)
{
    size_t room = cs_journal_room(r->journal);
    return !cs_journal_full(r->journal) && room >= COMMIT_ROOM &&
           room - COMMIT_ROOM >= r->needs + FRAME_ROOM + AROUND;
}

size_t cs_recordings_pending(const struct cs_recordings *r)
{
    return r->pending;
}

/* Where the next bytes of the file go, behind the file's name in the slot. */
static uint8_t *slot_for(struct cs_recordings *r, const struct recording *x, size_t *ret_cap)
{
    uint8_t *p = cs_journal_slot(r->journal);
    cs_journal_file_write(&x->file, p);
    *ret_cap = CS_MIN(cs_journal_room(r->journal) - CS_JOURNAL_HEAD - CS_JOURNAL_FILE,
                      (size_t)CS_CSR_FRAME_MAX);
    return p + CS_JOURNAL_FILE;
}

static void add_bytes(struct cs_recordings *r, uint64_t offset, size_t n)
{
    cs_journal_add(r->journal, CS_JOURNAL_BYTES, offset, CS_JOURNAL_FILE + n);
}

/* A long session is in the log before its end, too. */
static enum cs_err say_how_far(struct cs_recordings *r, struct recording *x)
{
    uint64_t now = cs_mono_ns();
    if (x->said_ns == 0) {
        x->said_ns = now;
        x->said_seq = x->w.seq;
    }
    if (x->file.foreign || (x->w.seq - x->said_seq < SAY_FRAMES && now - x->said_ns < SAY_NS)) {
        return CS_OK;
    }
    x->said_ns = now;
    x->said_seq = x->w.seq;
    return cs_leaf_of_recording(&r->leaves, &x->w, NULL);
}

static enum cs_err flush(struct cs_recordings *r, struct recording *x)
{
    size_t cap = 0, n = 0;
    uint64_t offset = x->w.offset;
    uint8_t *p = slot_for(r, x, &cap);
    enum cs_err err = cs_csr_flush(&x->w, r->gcm, p, cap, &n);
    if (err == CS_OK) {
        add_bytes(r, offset, n);
    }
    if (err == CS_OK && cs_csr_index_is_due(&x->w)) {
        offset = x->w.offset;
        p = slot_for(r, x, &cap);
        err = cs_csr_index_frame(&x->w, r->gcm, p, cap, &n);
        if (err == CS_OK) {
            add_bytes(r, offset, n);
        }
    }
    return err == CS_OK ? say_how_far(r, x) : err;
}

static const char *end_text(enum cs_csr_end reason)
{
    return reason == CS_CSR_END_CLOSED ? "closed"
           : reason == CS_CSR_END_GATE ? "its gate ended"
                                       : "lost over a restart of the recorder";
}

static enum cs_err end(struct cs_recordings *r, struct recording *x, enum cs_csr_end reason)
{
    size_t cap = 0, n = 0;
    enum cs_err err = CS_OK;
    if (x->w.stream != NULL && cs_csr_is_pending(x->w.stream)) {
        err = flush(r, x);
    }
    if (err == CS_OK && x->w.n_entries > 0) {
        uint64_t offset = x->w.offset;
        uint8_t *p = slot_for(r, x, &cap);
        err = cs_csr_index_frame(&x->w, r->gcm, p, cap, &n);
        if (err == CS_OK) {
            add_bytes(r, offset, n);
        }
    }
    if (err == CS_OK) {
        uint64_t offset = x->w.offset;
        uint8_t *p = slot_for(r, x, &cap);
        err = cs_csr_end_frame(&x->w, r->gcm, reason, cs_wall_ms(), p, cap, &n);
        if (err == CS_OK) {
            add_bytes(r, offset, n);
        }
    }
    x->ended = true;
    r->any_ended = true;
    if (err == CS_OK && !x->file.foreign) {
        err = cs_leaf_of_recording(&r->leaves, &x->w, end_text(reason));
    }
    return err;
}

/* ---- opening ---- */

/* The log has it, too: whoever finds the recording shorter than older leaves say shall find why.
 * SECURITY: not of a session that another gate carries; of those the log knows nothing. */
static enum cs_err say_repaired(struct cs_recordings *r, const struct recording *x,
                                const char *what)
{
    return x->file.foreign ? CS_OK : cs_leaf_of_repair(&r->leaves, &x->file.session, what);
}

/* `aside`: something else was there under its name, and is not any more. */
static enum cs_err begin(struct cs_recordings *r, struct recording *x, bool aside)
{
    size_t cap = 0, n = 0;
    uint8_t *p = slot_for(r, x, &cap);
    enum cs_err err =
        cs_csr_begin(&x->w, &r->to, &x->file.session, x->file.epoch, cs_wall_ms(), p, cap, &n);
    if (err != CS_OK) {
        return err;
    }
    add_bytes(r, 0, n);
    return aside ? say_repaired(r, x, "a file that was no recording was set aside") : CS_OK;
}

static enum cs_err resume(struct cs_recordings *r, struct recording *x,
                          const struct cs_csr_tail *tail)
{
    size_t cap = 0, n = 0;
    char what[80];
    enum cs_err err = tail->cut > 0 ? cs_copier_cut(r->copier, &x->file, tail->size) : CS_OK;
    if (err != CS_OK) {
        return err;
    }
    uint8_t *p = slot_for(r, x, &cap);
    err = cs_csr_resume(&x->w, r->gcm, &r->to, tail, cs_wall_ms(), p, cap, &n);
    if (err != CS_OK) {
        return err;
    }
    add_bytes(r, tail->size, n);
    (void)snprintf(what, sizeof what, "%llu bytes behind frame %llu were cut off",
                   (unsigned long long)tail->cut, (unsigned long long)tail->seq);
    return tail->cut > 0 ? say_repaired(r, x, what) : CS_OK;
}

/* What is on disk under this name: nothing, something of this gate's to go on with, or another
 * gate's (CS_ERR_EXISTS). */
static enum cs_err look(struct cs_recordings *r, const struct cs_journal_file *f,
                        struct cs_csr_tail *ret, const char **ret_look)
{
    enum cs_err err = cs_copier_look(r->copier, f, ret);
    if (err == CS_ERR_CORRUPT) {
        *ret_look = "a file under a recording's name is none, or was changed: set aside";
        err = cs_copier_set_aside(r->copier, f);
        return err == CS_OK ? CS_ERR_NOT_FOUND : err;
    }
    return err == CS_OK && ret->head.gate_epoch != f->epoch ? CS_ERR_EXISTS : err;
}

static enum cs_err open_on_disk(struct cs_recordings *r, struct cs_journal_file *f,
                                struct recording **ret, const char **ret_look)
{
    struct cs_csr_tail tail;
    enum cs_err err = look(r, f, &tail, ret_look);
    if (err == CS_ERR_EXISTS && !f->foreign) {
        f->foreign = true;
        *ret = find(r, f);
        if (*ret != NULL) {
            return CS_OK;
        }
        err = look(r, f, &tail, ret_look);
    }
    if (err == CS_OK && tail.ended) {
        return CS_ERR_CONFLICT;
    }
    if (err != CS_OK && err != CS_ERR_NOT_FOUND) {
        return err == CS_ERR_EXISTS ? CS_ERR_CORRUPT : err;
    }
    struct recording *x = insert(r, f);
    if (x == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    *ret = x;
    return err == CS_OK ? resume(r, x, &tail) : begin(r, x, *ret_look != NULL);
}

static size_t count_of(const struct cs_recordings *r, uint64_t epoch)
{
    size_t n = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (const struct recording *x = r->buckets[i]; x != NULL; x = x->next) {
            n += x->file.epoch == epoch;
        }
    }
    return n;
}

/* A recording that recovery found, written to for the first time. */
static enum cs_err take_up(struct cs_recordings *r, struct recording *x, const char **ret_look)
{
    struct cs_csr_tail tail;
    enum cs_err err = look(r, &x->file, &tail, ret_look);
    if (err == CS_OK && tail.ended) {
        return CS_ERR_CONFLICT;
    }
    if (err == CS_OK) {
        err = resume(r, x, &tail);
    } else if (err == CS_ERR_NOT_FOUND) {
        err = begin(r, x, *ret_look != NULL);
    }
    x->found = false;
    return err;
}

static enum cs_err open_for(struct cs_recordings *r, uint64_t epoch, const struct cs_id *session,
                            struct recording **ret, const char **ret_look)
{
    struct cs_journal_file f = {*session, epoch, false};
    struct recording *x = find(r, &f);
    if (x != NULL && x->file.epoch != epoch) {
        f.foreign = true;
        x = find(r, &f);
    }
    if (x == NULL) {
        /* Counted only now and then: a walk over the table for each new session would be dear. */
        if ((r->turn++ & 1023) == 0 && count_of(r, epoch) > PER_GATE) {
            return CS_ERR_LIMIT;
        }
        return open_on_disk(r, &f, ret, ret_look);
    }
    *ret = x;
    if (x->ended) {
        return CS_ERR_CONFLICT;
    }
    return x->found ? take_up(r, x, ret_look) : CS_OK;
}

/* ---- compressors ---- */

static struct recording *recording_of(struct cs_csr_writer *w)
{
    return (struct recording *)(void *)((uint8_t *)w - offsetof(struct recording, w));
}

/* One that nobody has, one more while there may be more, or the one unused for longest. */
static enum cs_err lend(struct cs_recordings *r, size_t *ret)
{
    size_t best = 0;
    for (size_t i = 1; i < r->n_streams; i++) {
        if (r->used[i] < r->used[best]) {
            best = i;
        }
    }
    if (r->n_streams < STREAMS && (r->n_streams == 0 || r->used[best] > 0)) {
        best = r->n_streams;
        r->streams[best] = cs_csr_stream_new();
        if (r->streams[best] == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        r->n_streams++;
    }
    *ret = best;
    return CS_OK;
}

/* One for this recording: its own, or another, emptied of what waits in it. */
static enum cs_err stream_for(struct cs_recordings *r, struct recording *x,
                              struct cs_csr_stream **ret)
{
    if (x->w.stream == NULL) {
        enum cs_err err = lend(r, &x->lent);
        if (err != CS_OK) {
            return err;
        }
    }
    struct cs_csr_stream *s = r->streams[x->lent];
    cs_assert(x->w.stream == NULL || x->w.stream == s);
    r->used[x->lent] = ++r->turn;
    *ret = s;
    if (x->w.stream == NULL && cs_csr_is_pending(s)) {
        return flush(r, recording_of(cs_csr_owner(s)));
    }
    return CS_OK;
}

enum cs_err cs_recordings_add(struct cs_recordings *r, uint64_t epoch,
                              const struct cs_frame_head *head, struct cs_slice frame,
                              const char **ret_look)
{
    struct recording *x = NULL;
    struct cs_csr_stream *s = NULL;
    *ret_look = NULL;
    cs_assert(cs_recordings_has_keys(r) && cs_recordings_have_room(r));
    enum cs_err err = open_for(r, epoch, &head->session, &x, ret_look);
    /* SECURITY: what a gate says of a session that another one carries is no leaf. */
    if (err == CS_OK && !x->file.foreign) {
        err = cs_leaf_of_frame(&r->leaves, head, frame);
    }
    if (err == CS_OK) {
        err = stream_for(r, x, &s);
    }
    if (err == CS_OK && cs_csr_is_full(s, frame.n)) {
        err = flush(r, x);
    }
    if (err != CS_OK) {
        return err;
    }
    size_t plain = frame.n + CS_CSR_EVENT_HEAD;
    /* What it may take when it is sealed; each flush frees less than was set aside for it. */
    r->needs += plain + plain / 128 + 1 + (cs_csr_is_pending(s) ? 0 : AROUND);
    r->pending += plain;
    if (!r->listed[x->lent]) {
        r->listed[x->lent] = true;
        r->waiting[r->n_waiting++] = x->lent;
    }
    err = cs_csr_add(&x->w, s, frame, head->kind == CS_FRAME_ACTION, cs_wall_ms() * CS_NS_PER_MS);
    if (err == CS_OK && head->kind == CS_FRAME_SESSION_CLOSE) {
        err = end(r, x, CS_CSR_END_CLOSED);
    }
    return err;
}

static void compress_together(struct cs_recordings *r)
{
    struct cs_csr_stream **all = r->together;
    size_t n = 0;
    for (size_t i = 0; i < r->n_waiting; i++) {
        struct cs_csr_stream *s = r->streams[r->waiting[i]];
        if (cs_csr_is_pending(s)) {
            all[n++] = s;
        }
    }
    if (n >= r->help_from) {
        cs_helper_compress(r->helper, all, n);
    }
}

enum cs_err cs_recordings_finish(struct cs_recordings *r, struct cs_slice rows)
{
    if (r->helper != NULL && r->n_waiting >= r->help_from) {
        compress_together(r);
    }
    while (r->n_waiting > 0) {
        size_t place = r->waiting[--r->n_waiting];
        struct cs_csr_stream *s = r->streams[place];
        r->listed[place] = false;
        if (cs_csr_is_pending(s)) {
            enum cs_err err = flush(r, recording_of(cs_csr_owner(s)));
            if (err != CS_OK) {
                return err;
            }
        }
    }
    cs_assert(rows.n > 0 && rows.n <= (size_t)16 * CS_RECORDINGS_ROWS);
    memcpy(cs_journal_slot(r->journal), rows.p, rows.n);
    cs_journal_add(r->journal, CS_JOURNAL_COMMIT, 0, rows.n);
    r->needs = r->pending = 0;
    return CS_OK;
}

void cs_recordings_handed(struct cs_recordings *r)
{
    for (size_t i = 0; r->any_ended && i < BUCKETS; i++) {
        for (struct recording *x = r->buckets[i]; x != NULL; x = x->next) {
            x->handed = x->ended;
        }
    }
    r->any_handed |= r->any_ended;
    r->any_ended = false;
}

void cs_recordings_copied(struct cs_recordings *r)
{
    for (size_t i = 0; r->any_handed && i < BUCKETS; i++) {
        struct recording **at = &r->buckets[i];
        while (*at != NULL) {
            if ((*at)->handed) {
                drop(r, at); /* its file says from now on that it has ended */
            } else {
                at = &(*at)->next;
            }
        }
    }
    r->any_handed = false;
}

void cs_recordings_cleared(struct cs_recordings *r)
{
    cs_recordings_handed(r);
    cs_recordings_copied(r);
}

/* ---- recovery ---- */

static enum cs_err note_found(struct cs_recordings *r, const struct cs_journal_file *f,
                              struct recording **ret)
{
    struct recording *x = find(r, f);
    if (x == NULL) {
        x = insert(r, f);
        if (x == NULL) {
            return CS_ERR_NO_MEMORY;
        }
        x->found = true;
    }
    x->file = *f; /* set aside, and begun anew by another gate: it is that one's */
    x->ended = false;
    *ret = x;
    return CS_OK;
}

static enum cs_err recover_bytes(struct cs_recordings *r, const struct cs_journal_entry *e)
{
    struct cs_slice bytes = e->body;
    struct cs_journal_file f;
    struct cs_csr_frame_head h;
    struct recording *x = NULL;
    if (!cs_journal_file_read(&bytes, &f) || bytes.n == 0) {
        return CS_ERR_CORRUPT;
    }
    enum cs_err err = note_found(r, &f, &x);
    /* A recording only grows. Here it was cut, or set aside and begun anew, and what earlier
     * entries had behind this place is not its own: left there it would stand behind an END, or be
     * taken for the end that the recording goes on from. */
    if (err == CS_OK && e->offset < x->recovered) {
        err = cs_copier_void(r->copier, &f, e->offset, x->recovered);
    }
    if (err == CS_OK) {
        err = cs_copier_put(r->copier, &f, e->offset, bytes);
    }
    if (err != CS_OK) {
        return err;
    }
    x->recovered = e->offset + bytes.n;
    if (cs_csr_frame_head_read(bytes, &h) && h.type == CS_CSR_END) {
        x->ended = true;
        r->any_ended = true;
    }
    return CS_OK;
}

enum cs_err cs_recordings_recover(struct cs_recordings *r, const struct cs_journal_entry *e)
{
    struct cs_slice rows = e->body;
    struct cs_journal_file f;
    struct recording *x = NULL;
    enum cs_err err = CS_OK;
    switch (e->kind) {
    case CS_JOURNAL_BYTES:
        return recover_bytes(r, e);
    case CS_JOURNAL_OPEN:
        while (err == CS_OK && cs_journal_file_read(&rows, &f)) {
            err = note_found(r, &f, &x);
        }
        return err;
    case CS_JOURNAL_COMMIT:
    case CS_JOURNAL_LEAF: /* the ledger's */
    default:
        return CS_OK;
    }
}

static bool is_in(uint64_t epoch, const uint64_t *live, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (live[i] == epoch) {
            return true;
        }
    }
    return false;
}

enum cs_err cs_recordings_end(struct cs_recordings *r, uint64_t epoch, const uint64_t *live,
                              size_t n_live, enum cs_csr_end reason, bool *ret_more)
{
    *ret_more = false;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct recording *next;
        for (struct recording *x = r->buckets[i]; x != NULL; x = next) {
            next = x->next;
            bool mine = epoch != 0 ? x->file.epoch == epoch
                                   : x->found && !is_in(x->file.epoch, live, n_live);
            if (!mine || x->ended) {
                continue;
            }
            if (!cs_recordings_have_room(r)) {
                *ret_more = true;
                return CS_OK;
            }
            const char *look_text = NULL;
            enum cs_err err = x->found ? take_up(r, x, &look_text) : CS_OK;
            if (err == CS_ERR_CONFLICT) { /* it has an end */
                x->ended = r->any_ended = true;
                continue;
            }
            err = err == CS_OK ? end(r, x, reason) : err;
            if (err != CS_OK) {
                return err;
            }
        }
    }
    return CS_OK;
}

void cs_recordings_list(struct cs_recordings *r)
{
    size_t n = 0;
    uint8_t *p = NULL;
    for (size_t i = 0; i < BUCKETS; i++) {
        for (const struct recording *x = r->buckets[i]; x != NULL; x = x->next) {
            if (p == NULL && cs_journal_room(r->journal) < COMMIT_ROOM + FRAME_ROOM + 2 * AROUND +
                                                               CS_JOURNAL_HEAD +
                                                               LIST_ROWS * CS_JOURNAL_FILE) {
                return; /* the rest is found by their files, or stays unfinished */
            }
            if (p == NULL) {
                p = cs_journal_slot(r->journal);
            }
            cs_journal_file_write(&x->file, p + n);
            n += CS_JOURNAL_FILE;
            if (n == (size_t)LIST_ROWS * CS_JOURNAL_FILE) {
                cs_journal_add(r->journal, CS_JOURNAL_OPEN, 0, n);
                n = 0;
                p = NULL;
            }
        }
    }
    if (n > 0) {
        cs_journal_add(r->journal, CS_JOURNAL_OPEN, 0, n);
    }
}
