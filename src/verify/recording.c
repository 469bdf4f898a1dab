/* One recording against what the log says of it. Called for each file of a directory and for that
 * of a bundle. It must never end without a finding when the file is not, to its last byte, what an
 * intact log anchored as complete. */
#include "base/time.h"
#include "verify/verify.h"

#include <inttypes.h>

/* Frames are made before the leaf about them: between the two, others' leaves may be written. */
enum { SLACK_MS = 10000 };

struct state {
    struct cs_verify_recording *x;
    struct cs_report *report;
    struct cs_csr_scanner scan;
    struct cs_known_session *known; /* NULL: the log does not know it, or there is none */
    const struct cs_anchor *next;   /* the first one not reached yet */
    const struct cs_anchor *passed; /* the last one that fits */
    uint64_t odd_frame;             /* the one with other bytes than the journal's, if it is good */
};

static struct cs_finding *say(const struct state *s, enum cs_verdict v, const char *why)
{
    struct cs_finding *f = cs_report_add(s->report, v, &s->x->session, "%s", why);
    f->file = s->x->file;
    f->good_ms = s->scan.last_ns / CS_NS_PER_MS;
    return f;
}

/* At the frame behind the last good one. */
static struct cs_finding *say_frame(const struct state *s, enum cs_verdict v, const char *why)
{
    struct cs_finding *f = say(s, v, why);
    f->frame = s->scan.seq + 1;
    f->offset = s->scan.at;
    return f;
}

/* The leaves about the frame (0: the header) that was read last. */
static bool anchors_fit(struct state *s)
{
    for (; s->next != NULL && s->next->frames == s->scan.seq; s->next = s->next->next) {
        if (memcmp(s->next->chain, s->scan.chain, CS_SHA256) != 0) {
            struct cs_finding *f =
                say(s, CS_VERDICT_TAMPERED,
                    "the recording is well-formed, but is not the one that the log knows: its "
                    "chain differs at this frame; it was changed there or before");
            f->frame = s->scan.seq;
            f->offset = s->scan.frame_at;
            f->leaf = s->next->leaf;
            f->has_leaf = true;
            f->good_ms = s->passed != NULL ? s->passed->time_ms : 0;
            return false;
        }
        s->passed = s->next;
    }
    return true;
}

/* Frames that the log promises and the file does not have. */
static void cut_off(const struct state *s, const char *why)
{
    const struct cs_anchor *last = s->known->end;
    char when[CS_TIME_TEXT];
    struct cs_finding *f = cs_report_add(s->report, CS_VERDICT_TAMPERED, &s->x->session,
                                         "%s; the log has %" PRIu64
                                         " frames of it at %s: its end was cut off or changed",
                                         why, last->frames, cs_time_text(last->time_ms, when));
    f->file = s->x->file;
    f->frame = s->scan.seq + 1;
    f->offset = s->scan.at;
    f->leaf = last->leaf;
    f->has_leaf = true;
    f->good_ms = s->scan.last_ns / CS_NS_PER_MS;
    cs_report_note(s->report, "a recording is shorter than the log says, and no journal "
                              "(journal-*.csj) beside it has the rest; if this is a copy from "
                              "after a power loss, copy the journal, too, or start the gateway "
                              "once, and verify again");
}

/* Whether something of this time must be in the log, were it written by the gateway. */
static bool in_log_by(const struct cs_history *h, uint64_t ms)
{
    return h->last_ms >= SLACK_MS && ms <= h->last_ms - SLACK_MS;
}

static void unknown(const struct state *s)
{
    const struct cs_history *h = s->x->history;
    uint64_t began = s->scan.head.started_ms;
    if (h->leaves == 0 || began < h->first_ms) {
        (void)say(s, CS_VERDICT_MISSING,
                  "it began before the log did: nothing proves what was in it");
    } else if (in_log_by(h, began)) {
        (void)say(s, CS_VERDICT_TAMPERED,
                  "no leaf of the log knows this session, though the log goes on long after it "
                  "began: the file was put there");
    } else {
        (void)say(s, CS_VERDICT_UNFINISHED,
                  "the session is newer than the log's checkpoint; check again later");
        s->report->open++;
    }
}

static void whole(const struct state *s)
{
    const struct cs_history *h = s->x->history;
    if (s->known == NULL) {
        unknown(s);
    } else if (s->known->closed && s->passed != NULL && s->passed->last) {
        s->report->complete++;
    } else if (in_log_by(h, s->scan.end.wall_ms)) {
        (void)say(s, CS_VERDICT_TAMPERED,
                  "the recording has an end of which no leaf of the log knows, though the log goes "
                  "on long after it");
    } else {
        (void)say(s, CS_VERDICT_UNFINISHED,
                  "its end is newer than the log's checkpoint; check again later");
        s->report->open++;
    }
}

static void unfinished(const struct state *s, bool torn)
{
    if (s->known == NULL) {
        unknown(s);
        return;
    }
    struct cs_finding *f =
        torn ? say_frame(s, CS_VERDICT_UNFINISHED,
                         "the file ends inside a frame, as after a crash; nothing that the log "
                         "knows is lost")
             : say(s, CS_VERDICT_UNFINISHED,
                   "the session has no end yet: it goes on, or the gateway stopped without one");
    if (s->passed != NULL) {
        f->leaf = s->passed->leaf;
        f->has_leaf = true;
    }
    s->report->open++;
}

static void without_log(const struct state *s)
{
    if (!s->scan.ended) {
        (void)say(s, CS_VERDICT_UNFINISHED, "the recording has no end");
        s->report->open++;
    } else {
        s->report->complete++;
    }
}

static void at_end(struct state *s, enum cs_csr_scan got)
{
    bool torn = got == CS_CSR_SCAN_BAD && s->scan.torn && !s->scan.ended;
    bool more = s->known != NULL && s->next != NULL;
    if (got == CS_CSR_SCAN_BAD && !torn) {
        (void)say_frame(s, CS_VERDICT_TAMPERED, s->scan.why);
    } else if (more) {
        cut_off(s, torn ? s->scan.why : "the file ends");
    } else if (s->x->foreign) {
        cs_report_note(s->report, "there are files in which another gate wrote about a session; "
                                  "they are no part of its recording");
    } else if (s->x->history == NULL) {
        without_log(s);
    } else if (s->scan.ended) {
        whole(s);
    } else if (s->known != NULL && s->known->closed) {
        cut_off(s, "the recording has no end");
    } else {
        unfinished(s, torn);
    }
}

static bool head_fits(const struct state *s)
{
    const struct cs_csr_head *h = &s->scan.head;
    char id[CS_ID_TEXT];
    if (!cs_id_eq(&h->session, &s->x->session)) {
        struct cs_finding *f = cs_report_add(s->report, CS_VERDICT_TAMPERED, &s->x->session,
                                             "the file is the recording of another session: %s",
                                             cs_id_text(&h->session, id));
        f->file = s->x->file;
        return false;
    }
    if (s->x->foreign && h->gate_epoch != s->x->epoch) {
        (void)say(s, CS_VERDICT_TAMPERED,
                  "the file was written by another gate than its name says");
        return false;
    }
    return true;
}

/* A file whose header is not there: cut, or just made. */
static void no_head(struct state *s, enum cs_err err)
{
    bool short_file = s->x->in.size < CS_CSR_HEAD_LEAST;
    if (err == CS_ERR_NO_MEMORY) {
        (void)say(s, CS_VERDICT_MISSING, "there was no memory to read it");
    } else if (short_file && s->known == NULL && s->x->history != NULL) {
        (void)say(s, CS_VERDICT_UNFINISHED, "the file ends inside its header, as after a crash");
        s->report->open++;
    } else {
        (void)say(s, CS_VERDICT_TAMPERED, "its header is damaged");
    }
}

/* What a crash cannot leave: a sector that is neither as the journal has it nor empty. */
static void other_bytes(const struct state *s)
{
    struct cs_finding *f =
        say(s, CS_VERDICT_TAMPERED,
            "the file has other bytes than the journal, out of which it is written: one of the two "
            "was changed");
    f->frame = s->odd_frame > 0 ? s->odd_frame : s->scan.seq + 1;
    f->offset = s->x->overlay->odd;
}

void cs_verify_recording(struct cs_verify_recording *x, struct cs_report *report)
{
    uint64_t lacks = x->overlay != NULL ? x->overlay->lacks : UINT64_MAX;
    struct state s = {.x = x, .report = report};
    if (x->history != NULL && !x->foreign) {
        s.known = cs_history_session(x->history, &x->session);
        if (s.known != NULL) {
            s.known->seen = true;
            s.known = s.known->recorded ? s.known : NULL;
            s.next = s.known != NULL ? s.known->first : NULL;
        }
    }
    enum cs_err err = cs_csr_scan_start(&s.scan, x->in);
    if (err != CS_OK) {
        no_head(&s, err);
        return;
    }
    x->good = s.scan.at;
    if (head_fits(&s)) {
        enum cs_csr_scan got = CS_CSR_SCAN_FRAME;
        bool fits = anchors_fit(&s);
        while (fits && (got = cs_csr_scan_next(&s.scan)) == CS_CSR_SCAN_FRAME) {
            report->frames++;
            report->in_journal.frames += s.scan.at > lacks;
            fits = anchors_fit(&s);
            x->good = s.scan.at;
            if (x->overlay != NULL && x->overlay->odd >= s.scan.frame_at &&
                x->overlay->odd < s.scan.at) {
                s.odd_frame = s.scan.seq;
            }
        }
        report->bytes += s.scan.at;
        if (fits && x->overlay != NULL && x->overlay->odd != UINT64_MAX) {
            other_bytes(&s);
        } else if (fits) {
            at_end(&s, got);
        }
    }
    cs_csr_scan_done(&s.scan);
}
