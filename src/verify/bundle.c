/* Checks a bundle: one session's recording with the leaves about it, each with its proof. Called by
 * job-verify. It must never call a bundle intact in which a byte was not looked at. */
#include "verify/bundle.h"
#include "audit/proof.h"
#include "base/alloc.h"
#include "verify/verify.h"

#include <inttypes.h>
#include <stdio.h>

struct open {
    struct cs_csr_source in;
    struct cs_report *report;
    uint64_t at; /* behind the last member */
    /* the member at hand */
    char name[CS_USTAR_NAME_MAX + 1];
    uint64_t from, size;
    /* what the first members say */
    struct cs_id session;
    struct cs_audit_key key;
    struct cs_buf note; /* owned; the checkpoint as it was signed */
    struct cs_audit_checkpoint head;
    struct cs_history h; /* of its leaves */
};

static bool bad(struct open *o, const char *file, const char *why)
{
    struct cs_finding *f = cs_report_add(o->report, CS_VERDICT_TAMPERED, NULL, "%s", why);
    f->file = cs_report_safe(o->report, cs_slice_str(file));
    return false;
}

static bool no_memory(struct open *o)
{
    (void)cs_report_add(o->report, CS_VERDICT_MISSING, NULL, "there was no memory to read it");
    return false;
}

/* The next member's head. */
static bool next(struct open *o)
{
    uint8_t block[CS_USTAR_BLOCK];
    if (o->in.read_at(o->in.arg, o->at, block, sizeof block) != sizeof block) {
        return bad(o, "the bundle", "it ends where a member must begin");
    }
    if (!cs_ustar_read(block, o->name, &o->size)) {
        return bad(o, "the bundle", "the head of a member is not as it must be");
    }
    o->from = o->at + sizeof block;
    uint64_t left = o->in.size - o->from;
    if (o->size > left || cs_ustar_padding(o->size) > left - o->size) {
        return bad(o, o->name, "the bundle ends inside it");
    }
    o->at = o->from + o->size;
    size_t padding = cs_ustar_padding(o->size);
    if (o->in.read_at(o->in.arg, o->at, block, padding) != padding) {
        return bad(o, o->name, "it could not be read");
    }
    for (size_t i = 0; i < padding; i++) {
        if (block[i] != 0) {
            return bad(o, o->name, "something stands in the gap behind it");
        }
    }
    o->at += padding;
    return true;
}

/* All of the member, appended. */
static bool content(struct open *o, struct cs_buf *out)
{
    if (o->size > out->max - out->len) {
        return bad(o, o->name, "it is longer than it can be");
    }
    uint8_t *p = cs_buf_room(out, (size_t)o->size);
    if (p == NULL) {
        return no_memory(o);
    }
    if (o->in.read_at(o->in.arg, o->from, p, (size_t)o->size) != o->size) {
        return bad(o, o->name, "it could not be read");
    }
    out->len += (size_t)o->size;
    return true;
}

static bool field(struct cs_slice *text, struct cs_slice word, struct cs_slice *ret)
{
    struct cs_slice line;
    if (!cs_audit_line(text, &line) || !cs_slice_starts(line, word)) {
        return false;
    }
    *ret = cs_slice_from(line, word.n);
    return true;
}

static bool manifest(struct open *o)
{
    struct cs_buf text = cs_buf(CS_BUNDLE_MANIFEST_MAX);
    struct cs_slice line, id, key;
    if (!next(o) || !content(o, &text)) {
        cs_buf_done(&text);
        return false;
    }
    struct cs_slice rest = cs_buf_slice(&text);
    bool good = strcmp(o->name, CS_BUNDLE_MANIFEST) == 0 && cs_audit_line(&rest, &line) &&
                cs_slice_eq_str(line, CS_BUNDLE_MAGIC) &&
                field(&rest, CS_SLICE_LIT("session "), &id) && cs_id_parse(id, &o->session) &&
                field(&rest, CS_SLICE_LIT("key "), &key) &&
                cs_audit_key_read(key, &o->key) == CS_OK && rest.n == 0;
    char is[CS_ID_TEXT];
    good = good && cs_slice_eq_str(id, cs_id_text(&o->session, is)); /* one spelling */
    cs_buf_done(&text);
    return good || bad(o, CS_BUNDLE_MANIFEST, "it is not the manifest of a bundle");
}

static bool checkpoint(struct open *o)
{
    if (!next(o)) {
        return false;
    }
    if (strcmp(o->name, CS_BUNDLE_CHECKPOINT) != 0) {
        return bad(o, o->name, "the checkpoint must stand here");
    }
    if (!content(o, &o->note)) {
        return false;
    }
    if (!cs_audit_checkpoint_open(cs_buf_slice(&o->note), &o->key, &o->head)) {
        return bad(o, o->name, "the checkpoint is not signed with this key");
    }
    (void)snprintf(o->report->log_name, sizeof o->report->log_name, "%s",
                   cs_report_safe(o->report, cs_slice_str(o->key.name)));
    o->report->log_size = o->head.size;
    return true;
}

/* One proof: NULL, or what is wrong. */
static const char *leaf_check(struct open *o, struct cs_slice text, uint64_t least,
                              struct cs_history *h, uint64_t *ret_index)
{
    struct cs_audit_proof p;
    struct cs_audit_hash hash;
    struct cs_leaf leaf;
    char name[CS_USTAR_NAME_MAX + 1];
    enum cs_err err = cs_audit_proof_read(text, &p);
    if (err != CS_OK) {
        return err == CS_ERR_NO_MEMORY ? "there was no memory to read it"
                                       : "the proof is malformed";
    }
    const char *why = NULL;
    cs_audit_leaf_hash(cs_buf_slice(&p.leaf), &hash);
    (void)snprintf(name, sizeof name, CS_BUNDLE_LEAF, p.index);
    if (!cs_slice_eq(p.checkpoint, cs_buf_slice(&o->note))) {
        why = "its checkpoint is not that of the bundle";
    } else if (!cs_audit_check_inclusion(p.index, o->head.size, &hash, &p.path, &o->head.root)) {
        why = "the leaf is not in the log that was signed";
    } else if (strcmp(name, o->name) != 0 || p.index < least) {
        why = "it has another leaf's name, or stands out of order";
    } else if (!cs_leaf_read(cs_buf_slice(&p.leaf), &leaf)) {
        why = "the leaf is malformed";
    } else {
        cs_history_add(h, p.index, &leaf);
        *ret_index = p.index;
    }
    cs_audit_proof_done(&p);
    return why;
}

/* The leaves, up to the head of the recording. */
static bool leaves(struct open *o, struct cs_history *h)
{
    struct cs_buf text = cs_buf(CS_AUDIT_PROOF_FILE_MAX);
    uint64_t least = 0, index = 0;
    bool good = true;
    while (good && (good = next(o)) &&
           cs_slice_starts(cs_slice_str(o->name), CS_SLICE_LIT("leaf-"))) {
        text.len = 0;
        good = content(o, &text);
        const char *why = good ? leaf_check(o, cs_buf_slice(&text), least, h, &index) : NULL;
        if (why != NULL) {
            good = bad(o, o->name, why);
        }
        least = index + 1;
    }
    cs_buf_done(&text);
    if (good && h->failed) {
        return no_memory(o);
    }
    return good;
}

/* A part of the file as a file. */
struct part {
    struct cs_csr_source in;
    uint64_t from, size;
};

static size_t part_read(void *arg, uint64_t at, void *into, size_t n)
{
    const struct part *p = arg;
    uint64_t left = at < p->size ? p->size - at : 0;
    return p->in.read_at(p->in.arg, p->from + at, into, (size_t)CS_MIN(n, left));
}

static void recording(struct open *o, const struct cs_history *h)
{
    char name[CS_CSR_NAME];
    if (strcmp(o->name, cs_csr_name(&o->session, false, 0, name)) != 0) {
        (void)bad(o, o->name, "the recording of the bundle's session must stand here");
        return;
    }
    struct part part = {o->in, o->from, o->size};
    struct cs_verify_recording x = {
        .in = {&part, o->size, part_read}, .session = o->session, .history = h};
    const struct cs_known_session *known = cs_history_session(h, &o->session);
    if (known == NULL || !known->recorded) {
        cs_report_add(o->report, CS_VERDICT_MISSING, &o->session,
                      "no leaf about this recording is in the bundle: nothing proves it")
            ->file = cs_report_safe(o->report, cs_slice_str(name));
        x.history = NULL;
    }
    x.file = cs_report_safe(o->report, cs_slice_str(name));
    cs_verify_recording(&x, o->report);
}

static void ending(struct open *o)
{
    static const uint8_t zeros[2 * CS_USTAR_BLOCK];
    uint8_t is[sizeof zeros];
    if (o->in.size - o->at != sizeof zeros ||
        o->in.read_at(o->in.arg, o->at, is, sizeof is) != sizeof is ||
        memcmp(is, zeros, sizeof is) != 0) {
        (void)bad(o, "the bundle", "it does not end behind the recording as it must");
    }
}

bool cs_verify_is_bundle(struct cs_csr_source in)
{
    uint8_t block[CS_USTAR_BLOCK];
    return in.read_at(in.arg, 0, block, sizeof block) == sizeof block &&
           memcmp(block, CS_BUNDLE_MANIFEST, sizeof CS_BUNDLE_MANIFEST) == 0;
}

static bool same_key(const struct cs_audit_key *a, const struct cs_audit_key *b)
{
    return strcmp(a->name, b->name) == 0 && memcmp(a->public, b->public, sizeof a->public) == 0;
}

void cs_verify_bundle(struct cs_csr_source in, const struct cs_audit_key *key,
                      struct cs_report *report)
{
    struct open *o = cs_alloc(sizeof *o);
    if (o == NULL) {
        (void)cs_report_add(report, CS_VERDICT_MISSING, NULL, "there was no memory to read it");
        return;
    }
    o->in = in;
    o->report = report;
    o->note = cs_buf(CS_AUDIT_NOTE_MAX);
    cs_history_init(&o->h, report);
    bool good = manifest(o);
    if (good && key == NULL) {
        cs_report_note(report, "the public key was taken from the bundle itself; compare it with "
                               "the one that was kept elsewhere, or give that with --key");
    } else if (good && !same_key(key, &o->key)) {
        good = bad(o, CS_BUNDLE_MANIFEST, "its key is not the one that was given");
    }
    good = good && checkpoint(o);
    good = good && leaves(o, &o->h);
    report->log_last_ms = o->h.last_ms;
    if (good) {
        recording(o, &o->h);
        ending(o);
        cs_report_note(report,
                       "a bundle proves what is in it; whether the log has more leaves about "
                       "this session, the whole log tells");
    }
    cs_history_done(&o->h);
    cs_buf_done(&o->note);
    cs_free(o);
}
