/* Collects findings and says them. Called by every check of this folder and by job-verify. It must
 * never let a finding get lost that changes the verdict, nor print a byte of the evidence raw. */
#include "verify/report.h"

#include "base/time.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

enum { ARENA_CHUNK = 16 * 1024, ARENA_MAX = 8 * 1024 * 1024, WHY_MAX = 512 };

static const struct {
    const char *name, *title;
    int exit;
} verdicts[] = {
    [CS_VERDICT_TAMPERED] = {"tampered", "TAMPERED", 1},
    [CS_VERDICT_MISSING] = {"missing", "MISSING", 3},
    [CS_VERDICT_UNFINISHED] = {"unfinished", "UNFINISHED", 2},
    [CS_VERDICT_INTACT] = {"intact", "INTACT", 0},
};

int cs_verdict_exit(enum cs_verdict v)
{
    return verdicts[v].exit;
}

const char *cs_verdict_name(enum cs_verdict v)
{
    return verdicts[v].name;
}

void cs_report_init(struct cs_report *r, const char *what)
{
    *r = (struct cs_report){.worst = CS_VERDICT_INTACT, .what = what};
    cs_arena_init(&r->arena, ARENA_CHUNK, ARENA_MAX);
}

void cs_report_done(struct cs_report *r)
{
    cs_arena_done(&r->arena);
}

const char *cs_report_safe(struct cs_report *r, struct cs_slice text)
{
    char *copy = cs_arena_alloc(&r->arena, text.n + 1);
    for (size_t i = 0; copy != NULL && i < text.n; i++) {
        copy[i] = (char)(text.p[i] >= 0x20 && text.p[i] < 0x7f ? text.p[i] : '?');
    }
    return copy != NULL ? copy : "";
}

struct cs_finding *cs_report_add(struct cs_report *r, enum cs_verdict v,
                                 const struct cs_id *session, const char *fmt, ...)
{
    char why[WHY_MAX];
    va_list ap;
    r->none = (struct cs_finding){.file = ""};
    if (r->only != NULL && session != NULL && !cs_id_eq(r->only, session)) {
        return &r->none;
    }
    r->worst = CS_MIN(r->worst, v);
    struct cs_finding *f = r->n < CS_REPORT_FINDINGS ? CS_NEW(&r->arena, struct cs_finding) : NULL;
    if (f == NULL) {
        r->left_out++;
        return &r->none;
    }
    va_start(ap, fmt);
    (void)vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    *f = (struct cs_finding){.verdict = v, .why = cs_report_safe(r, cs_slice_str(why)), .file = ""};
    if (session != NULL) {
        f->session = *session;
        f->has_session = true;
    }
    if (r->last != NULL) {
        r->last->next = f;
    } else {
        r->first = f;
    }
    r->last = f;
    r->n++;
    return f;
}

void cs_report_note(struct cs_report *r, const char *text)
{
    for (size_t i = 0; i < r->n_notes; i++) {
        if (r->note[i] == text) {
            return;
        }
    }
    if (r->n_notes < CS_REPORT_NOTES) {
        r->note[r->n_notes++] = text;
    }
}

void cs_report_undo(struct cs_report *r, const struct cs_report *before)
{
    r->worst = before->worst;
    r->n = before->n;
    r->left_out = before->left_out;
    r->last = before->last;
    if (r->last != NULL) {
        r->last->next = NULL;
    } else {
        r->first = NULL;
    }
}

/* ---- text ---- */

static void finding_text(const struct cs_finding *f, struct cs_buf *out)
{
    char id[CS_ID_TEXT], when[CS_TIME_TEXT];
    cs_buf_printf(out, "%-10s  ", verdicts[f->verdict].title);
    if (f->file[0] != '\0') {
        cs_buf_str(out, f->file);
        if (f->frame > 0) {
            cs_buf_printf(out, ", frame %" PRIu64 " (at byte %" PRIu64 ")", f->frame, f->offset);
        }
        cs_buf_str(out, ": ");
    }
    cs_buf_printf(out, "%s\n", f->why);
    if (f->has_session) {
        cs_buf_printf(out, "            session %s\n", cs_id_text(&f->session, id));
    }
    if (f->has_leaf) {
        cs_buf_printf(out, "            leaf %" PRIu64 " of the log\n", f->leaf);
    }
    if (f->good_ms > 0) {
        cs_buf_printf(out, "            intact up to %s\n", cs_time_text(f->good_ms, when));
    }
}

void cs_report_text(const struct cs_report *r, struct cs_buf *out)
{
    char when[CS_TIME_TEXT];
    cs_buf_printf(out, "Checked: %s\n", r->what);
    if (r->log_name[0] != '\0') {
        cs_buf_printf(out, "Log: %s, %" PRIu64 " leaves, the last one of %s\n", r->log_name,
                      r->log_size, cs_time_text(r->log_last_ms, when));
    }
    cs_buf_printf(out,
                  "Recordings: %" PRIu64 " complete, %" PRIu64 " unfinished; %" PRIu64
                  " frames, %" PRIu64 " bytes\n",
                  r->complete, r->open, r->frames, r->bytes);
    if (r->in_journal.frames > 0 || r->in_journal.leaves > 0) {
        cs_buf_printf(out,
                      "Still in the journal: %" PRIu64 " frames of recordings, %" PRIu64
                      " leaves of the log; the gateway's next start writes them into their "
                      "files\n",
                      r->in_journal.frames, r->in_journal.leaves);
    }
    cs_buf_u8(out, '\n');
    for (unsigned v = CS_VERDICT_TAMPERED; v < CS_VERDICT_INTACT; v++) {
        for (const struct cs_finding *f = r->first; f != NULL; f = f->next) {
            if (f->verdict == v) {
                finding_text(f, out);
            }
        }
    }
    if (r->left_out > 0) {
        cs_buf_printf(out, "            … and %" PRIu64 " findings more\n", r->left_out);
    }
    for (size_t i = 0; i < r->n_notes; i++) {
        cs_buf_printf(out, "Note: %s.\n", r->note[i]);
    }
    cs_buf_printf(out, "%s%s\n", r->n + r->left_out + r->n_notes > 0 ? "\n" : "",
                  verdicts[r->worst].title);
}

/* ---- JSON: keys and values are printable ASCII of our own, or were made so ---- */

static void text_member(struct cs_buf *out, const char *key, const char *value)
{
    cs_buf_printf(out, ",\"%s\":\"", key);
    for (; *value != '\0'; value++) {
        if (*value == '"' || *value == '\\') {
            cs_buf_u8(out, '\\');
        }
        cs_buf_u8(out, (uint8_t)(*value >= 0x20 && *value < 0x7f ? *value : '?'));
    }
    cs_buf_u8(out, '"');
}

static void finding_json(const struct cs_finding *f, struct cs_buf *out)
{
    char id[CS_ID_TEXT], when[CS_TIME_TEXT];
    cs_buf_printf(out, "{\"verdict\":\"%s\"", verdicts[f->verdict].name);
    text_member(out, "why", f->why);
    if (f->file[0] != '\0') {
        text_member(out, "file", f->file);
    }
    if (f->has_session) {
        text_member(out, "session", cs_id_text(&f->session, id));
    }
    if (f->frame > 0) {
        cs_buf_printf(out, ",\"frame\":%" PRIu64 ",\"offset\":%" PRIu64, f->frame, f->offset);
    }
    if (f->has_leaf) {
        cs_buf_printf(out, ",\"leaf\":%" PRIu64, f->leaf);
    }
    if (f->good_ms > 0) {
        text_member(out, "intact_until", cs_time_text(f->good_ms, when));
    }
    cs_buf_u8(out, '}');
}

void cs_report_json(const struct cs_report *r, struct cs_buf *out)
{
    char when[CS_TIME_TEXT];
    cs_buf_printf(out, "{\"verdict\":\"%s\"", verdicts[r->worst].name);
    text_member(out, "checked", r->what);
    if (r->log_name[0] != '\0') {
        cs_buf_str(out, ",\"log\":{\"leaves\":");
        cs_buf_printf(out, "%" PRIu64, r->log_size);
        text_member(out, "name", r->log_name);
        text_member(out, "last", cs_time_text(r->log_last_ms, when));
        cs_buf_u8(out, '}');
    }
    cs_buf_printf(out,
                  ",\"recordings\":{\"complete\":%" PRIu64 ",\"unfinished\":%" PRIu64
                  ",\"frames\":%" PRIu64 ",\"bytes\":%" PRIu64
                  "},\"in_journal\":{\"frames\":%" PRIu64 ",\"leaves\":%" PRIu64 "},\"findings\":[",
                  r->complete, r->open, r->frames, r->bytes, r->in_journal.frames,
                  r->in_journal.leaves);
    for (const struct cs_finding *f = r->first; f != NULL; f = f->next) {
        finding_json(f, out);
        if (f->next != NULL) {
            cs_buf_u8(out, ',');
        }
    }
    cs_buf_printf(out, "],\"left_out\":%" PRIu64 ",\"notes\":[", r->left_out);
    for (size_t i = 0; i < r->n_notes; i++) {
        cs_buf_printf(out, "%s\"%s\"", i > 0 ? "," : "", r->note[i]);
    }
    cs_buf_str(out, "]}\n");
}
