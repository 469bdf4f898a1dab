/* What a check of evidence found: a verdict, the worst one wins, and for each finding where it is
 * and up to when all was intact. As text for a tired person, or as JSON. */
#ifndef CS_VERIFY_REPORT_H
#define CS_VERIFY_REPORT_H

#include "base/arena.h"
#include "base/attr.h"
#include "base/buf.h"
#include "base/id.h"

/* The worse, the smaller; zero is the worst. */
enum cs_verdict {
    CS_VERDICT_TAMPERED = 0,
    CS_VERDICT_MISSING,    /* evidence that must be there is not, or could not be read */
    CS_VERDICT_UNFINISHED, /* intact as far as it goes: a session that goes on, a crash */
    CS_VERDICT_INTACT
};
/* 1, 3, 2, 0. */
int cs_verdict_exit(enum cs_verdict v);
const char *cs_verdict_name(enum cs_verdict v);

struct cs_finding {
    struct cs_finding *next;
    enum cs_verdict verdict;
    const char *why;  /* a sentence without its end; printable */
    const char *file; /* "" where it is in none */
    struct cs_id session;
    uint64_t frame;   /* number of the frame; 0 none */
    uint64_t offset;  /* of that frame */
    uint64_t leaf;    /* number of the leaf, where has_leaf */
    uint64_t good_ms; /* up to this time all was intact; 0: not known */
    bool has_session, has_leaf;
};

enum { CS_REPORT_FINDINGS = 1000, CS_REPORT_NOTES = 8 };

struct cs_report {
    /* given */
    const struct cs_id *only; /* findings about other sessions are left out; NULL: all; borrowed */
    /* found */
    enum cs_verdict worst;
    struct cs_finding *first, *last; /* arena */
    uint64_t n, left_out;            /* findings kept; more than CS_REPORT_FINDINGS are counted */
    const char *what;                /* what was checked; borrowed */
    char log_name[160];              /* "" without a log */
    uint64_t log_size, log_last_ms;
    uint64_t complete, open; /* recordings that are intact */
    uint64_t frames, bytes;  /* of recordings that were read */
    struct {
        uint64_t frames, leaves; /* of those, what their files lack and the journal has */
    } in_journal;
    const char *note[CS_REPORT_NOTES];
    size_t n_notes;
    struct cs_arena arena; /* owned */
    struct cs_finding none;
};
void cs_report_init(struct cs_report *r, const char *what);
void cs_report_done(struct cs_report *r);
/* A finding; fill in where it is. Never NULL. `session` may be NULL. */
struct cs_finding *cs_report_add(struct cs_report *r, enum cs_verdict v,
                                 const struct cs_id *session, const char *fmt, ...)
    __attribute__((returns_nonnull)) CS_PRINTF(4, 5);
/* Something worth knowing that changes no verdict; static text, said once. */
void cs_report_note(struct cs_report *r, const char *text);
/* Takes back what was found since `before` (a copy). */
void cs_report_undo(struct cs_report *r, const struct cs_report *before);
/* A copy in which everything but printable ASCII is '?': names come from the evidence. */
const char *cs_report_safe(struct cs_report *r, struct cs_slice text)
    __attribute__((returns_nonnull));

void cs_report_text(const struct cs_report *r, struct cs_buf *out);
void cs_report_json(const struct cs_report *r, struct cs_buf *out);

#endif
