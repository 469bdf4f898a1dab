/* make-evidence DIRECTORY WHAT: evidence for tests in Python. WHAT: "usual" (one session is still
 * open), "finished", "indexed", "long", or a row of the table below: a log that its writer signed,
 * though what it says must never have been. */
#include "evidence.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

static struct evidence_session s;
static struct evidence e;

#define R "7Q2KD4M9"

static void ran_without_a_vote(void)
{
    evidence_held(&s, R, 1);
    evidence_use(&s, R, 5, 1);
}

static void voted_afterwards(void)
{
    evidence_held(&s, R, 1);
    evidence_use(&s, R, 5, 1);
    evidence_vote(&e, R, 1, true);
}

static void ran_another_digest(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 2);
}

static void voted_another_digest(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 2, true);
    evidence_use(&s, R, 5, 2);
}

static void voted_two_digests(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_vote(&e, R, 2, true);
}

static void ran_though_refused(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_vote(&e, R, 1, false);
    evidence_use(&s, R, 5, 1);
}

static void ran_what_was_not_held(void)
{
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 1);
}

static void grant_twice(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 1);
    evidence_use(&s, R, 5, 1);
}

static void request_twice(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 1);
    evidence_use(&s, R, 6, 1);
}

static void result_without_use(void)
{
    evidence_result(&s, R, 5);
}

static void result_twice(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 1);
    evidence_result(&s, R, 5);
    evidence_result(&s, R, 5);
}

static void result_elsewhere(void)
{
    evidence_held(&s, R, 1);
    evidence_vote(&e, R, 1, true);
    evidence_use(&s, R, 5, 1);
    s.n++;
    evidence_result(&s, R, 5);
}

/* A recording that goes back: the second anchor is of fewer frames. */
static void anchor_back(void)
{
    evidence_frame(&s, 10);
    evidence_anchor(&s);
    s.w.seq--;
    evidence_anchor(&s);
    s.w.seq++;
}

static void anchor_twice(void)
{
    evidence_frame(&s, 10);
    evidence_anchor(&s);
    s.w.chain[0] ^= 1;
    evidence_anchor(&s);
    s.w.chain[0] ^= 1;
}

static void event_twice(void)
{
    static const struct cs_id event = {{7}};
    for (int i = 0; i < 2; i++) {
        struct cs_leaf l = {.kind = CS_LEAF_RULES};
        uint8_t hash[CS_SHA256] = {(uint8_t)i};
        cs_leaf_set_uint(&l, CS_KEY_POLICY, 1);
        cs_leaf_set(&l, CS_KEY_RULES, cs_slice(hash, sizeof hash));
        cs_leaf_set(&l, CS_KEY_EVENT, cs_slice(event.b, sizeof event.b));
        evidence_leaf(&e, &l);
    }
}

static const struct {
    const char *name;
    void (*fn)(void);
} rows[] = {
#define ROW(name)                                                                                  \
    {                                                                                              \
#name, name                                                                                \
    }
    ROW(ran_without_a_vote),    ROW(voted_afterwards),  ROW(ran_another_digest),
    ROW(voted_another_digest),  ROW(voted_two_digests), ROW(ran_though_refused),
    ROW(ran_what_was_not_held), ROW(grant_twice),       ROW(request_twice),
    ROW(result_without_use),    ROW(result_twice),      ROW(result_elsewhere),
    ROW(anchor_back),           ROW(anchor_twice),      ROW(event_twice),
};

static int strange(const char *dir, void (*fn)(void))
{
    evidence_begin(&e, dir);
    evidence_open(&s, &e, 1);
    fn();
    evidence_frame(&s, 10);
    evidence_close(&s, false);
    evidence_save(&s);
    evidence_done(&e);
    return 0;
}

/* One recording of more than 100 MB. */
static void long_one(const char *dir)
{
    evidence_begin(&e, dir);
    evidence_open(&s, &e, 1);
    for (unsigned i = 0; i < 120; i++) {
        evidence_frame(&s, 1024 * 1024);
    }
    evidence_close(&s, false);
    evidence_save(&s);
    evidence_done(&e);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
            (void)puts(rows[i].name);
        }
        return 0;
    }
    if (argc != 3) {
        (void)fprintf(stderr, "usage: make-evidence DIRECTORY WHAT, make-evidence --list\n");
        return 2;
    }
    (void)mkdir(argv[1], 0755);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (strcmp(argv[2], rows[i].name) == 0) {
            return strange(argv[1], rows[i].fn);
        }
    }
    if (strcmp(argv[2], "long") == 0) {
        long_one(argv[1]);
        return 0;
    }
    if (strcmp(argv[2], "indexed") == 0) {
        evidence_indexed(argv[1]);
        return 0;
    }
    bool finished = strcmp(argv[2], "finished") == 0;
    if (!finished && strcmp(argv[2], "usual") != 0) {
        (void)fprintf(stderr, "make-evidence: there is no %s\n", argv[2]);
        return 2;
    }
    evidence_usual(argv[1], 300, finished);
    return 0;
}
