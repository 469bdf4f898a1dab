/* Inside approval/. Included by this folder only. */
#ifndef CS_APPROVAL_APPROVAL_INTERNAL_H
#define CS_APPROVAL_APPROVAL_INTERNAL_H

#include "approval/approval.h"

enum {
    CS_ASK_BYTES = 4 * 1024 * 1024, /* memory of one hold: the action and its encoding */
    CS_LIST_ACTION_BYTES = 4096,    /* of one action in a list; JSON may need eleven times that */
    CS_ID_TRIES = 8,
};

/* A hold whose caller has not got its answer yet. */
struct cs_placing {
    struct cs_placing *next;
    struct cs_id session;
    char request[CS_REQUEST_ID_TEXT]; /* "" until it has its place among the changes */
    bool later;                       /* a change came after that */
    struct cs_approval_change change; /* its plain fields; the words are in `arena` */
    struct cs_arena *arena;
    bool out_of_memory;
};

struct cs_approval {
    struct cs_store *store; /* borrowed */
    cs_approval_change_fn on_change;
    void *arg;
    cs_approval_witness_fn witness;
    void *witness_arg;
    struct cs_placing *placing;
};

/* card.c */
/* Store's row → card. CORRUPT when a blob does not decode. */
enum cs_err cs_card_fill(const struct cs_store_request *r, struct cs_arena *a,
                         struct cs_card *ret) CS_MUST_CHECK;
/* Names, each followed by '\n', in the arena; empty p when out of memory. */
struct cs_slice cs_names_join(const struct cs_slice *names, size_t n, struct cs_arena *a);

#endif
