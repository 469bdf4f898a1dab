/* A policy made of a few rules, and answers of a server, for the tests of check/. */
#ifndef CS_TEST_CHECK_WORLD_H
#define CS_TEST_CHECK_WORLD_H

#include "check/check.h"
#include "policy/rules.h"
#include "wire/rows.h"

struct line {
    const char *name;
    enum cs_outcome then;
    const char *groups; /* with blanks between */
    const char *when;   /* NULL: always */
    bool elevated;
    const char *except;
};

#define NOW 1800000000000ULL

extern struct cs_arena arena;
void arena_start(void);
/* Everything of the one before is void. */
struct cs_policy *policy_of(const struct line *lines, size_t n);
struct cs_target target_of(const char *user, const char *elevated);
/* Answers: every check's table is there and empty, and the certificate good for a year, but these.
 * Cells: '|' between columns. */
struct answer {
    const char *id;
    const char *rows[4];
    enum cs_rows_outcome outcome; /* FAILED, the zero, stands for COMPLETE here */
    bool failed, left_out;
    unsigned columns; /* 0: as many as fit the check */
};
struct cs_slice answers(const struct answer *list, size_t n);
const struct cs_check_finding *found(const struct cs_check_result *r, const char *id);
const struct cs_check_unseen *not_seen(const struct cs_check_result *r, const char *id);

#endif
