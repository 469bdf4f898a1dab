/* Checks of a target: how well do its two roles keep what the rules hold from being done by other
 * ways? The questions are queries that the probe asks (checks.def); here their answers are judged,
 * and the SQL is written that makes roles with which nothing is found. Pure.
 *
 * The answers come from a server that may lie: a check that finds nothing proves nothing against a
 * hostile server, it finds mistakes at an honest one. */
#ifndef CS_CHECK_CHECK_H
#define CS_CHECK_CHECK_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "policy/policy.h"

enum { CS_CHECK_SCHEMAS_MAX = 16, CS_CHECK_RIGHTS_MAX = 6 };

/* Zero is the worst. */
enum cs_check_severity {
    CS_CHECK_SERIOUS, /* the wall behind the rules has a hole */
    CS_CHECK_WARNING, /* it is weaker than it should be */
    CS_CHECK_NOTE,    /* worth knowing */
    CS_CHECK_SEVERITY_MAX
};
const char *cs_check_severity_name(enum cs_check_severity s);

/* How the rows of an answer are judged; see checks.def. */
enum cs_check_how {
    CS_CHECK_ROWS,
    CS_CHECK_READ_ONLY,
    CS_CHECK_RIGHTS,
    CS_CHECK_HERE, /* no query */
    CS_CHECK_OPTIONAL,
    CS_CHECK_TLS
};

struct cs_check {
    const char *id;
    enum cs_check_severity severity;
    enum cs_check_how how;
    const char *title, *means, *fix;
    bool asked; /* there is a query of this name */
};
size_t cs_check_count(void);
const struct cs_check *cs_check_at(size_t i);

struct cs_check_finding {
    const struct cs_check *check;
    struct cs_slice *details; /* the server's words: unsafe to show as they are */
    size_t n_details;
    bool more;           /* than these */
    struct cs_slice fix; /* check->fix with the names of this target */
};
/* A check that could not be made. */
struct cs_check_unseen {
    const struct cs_check *check;
    struct cs_slice why; /* the server's words, or ours */
};
struct cs_check_result {
    struct cs_check_finding *findings; /* the most serious first */
    size_t n_findings;
    struct cs_check_unseen *unseen;
    size_t n_unseen;
    size_t count[CS_CHECK_SEVERITY_MAX];
    size_t failed;               /* of the unseen, those that a server should have answered */
    struct cs_slice certificate; /* whom the server's is for: its words; empty without TLS */
    uint64_t certificate_until_ms;
};

/* `rows`: answers as the probe hands them on (wire/rows.h); what is no such thing is
 * CS_ERR_CORRUPT. The result is all in the arena. */
enum cs_err cs_check_evaluate(const struct cs_policy *policy, const struct cs_target *target,
                              struct cs_slice rows, uint64_t now_ms, struct cs_arena *a,
                              struct cs_check_result *ret) CS_MUST_CHECK;

/* Could the rules let this change run with the everyday credential? `right` as the server calls
 * it (cs_check_right_name); another one is FALSE. An empty relation stands for any: what is TRUE or
 * FALSE for any is so for each. */
enum cs_tri cs_check_right(const struct cs_policy *policy, const struct cs_target *target,
                           struct cs_slice right, struct cs_slice schema, struct cs_slice relation);
/* INSERT, UPDATE, …; NULL behind the last one. */
const char *cs_check_right_name(size_t i);
/* They let no change run with it, on any table. */
bool cs_check_reads_only(const struct cs_policy *policy, const struct cs_target *target);

/* The SQL (for psql, run by a superuser) that makes the target's roles well, or makes them well
 * again. Schemas: where the everyday role may read; none = public. CS_ERR_INVALID with `why` when a
 * name cannot be written. */
enum cs_err cs_check_sql(const struct cs_policy *policy, const struct cs_target *target,
                         const struct cs_slice *schemas, size_t n_schemas, struct cs_buf *out,
                         char *why, size_t why_size) CS_MUST_CHECK;
/* A name as an SQL identifier, always in quotes; a text as an SQL string. */
void cs_check_ident(struct cs_buf *out, struct cs_slice name);
void cs_check_literal(struct cs_buf *out, struct cs_slice text);

#endif
