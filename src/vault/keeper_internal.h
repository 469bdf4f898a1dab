/* The keeper role's own structures: for keeper.c, proofs.c and uses.c, nobody else. */
#ifndef CS_VAULT_KEEPER_INTERNAL_H
#define CS_VAULT_KEEPER_INTERNAL_H

#include "base/limits.h"
#include "ipc/ipc.h"
#include "runtime/loop.h"
#include "vault/keeper.h"
#include "vault/log_key.h"
#include "vault/vault.h"

struct cs_used_grant {
    struct cs_id id;
    uint64_t ns; /* when; 0 = free */
};

/* What was done with secrets and is not in the log yet, line by line: it is told as a number. */
enum cs_use { CS_USE_DONE, CS_USE_REFUSED, CS_USE_KINDS };
struct cs_uses {
    uint64_t window_ns; /* when the present second began */
    unsigned lines[CS_USE_KINDS];
    uint64_t more[CS_USE_KINDS];
    struct cs_event pending;
};

struct cs_keeper {
    struct cs_loop *loop;
    struct cs_channel *supervisor, *control; /* NULL = none */
    struct cs_vault *vault;                  /* NULL: no key was given yet */
    struct cs_vault *next;                   /* the keys of a set that is not complete */
    struct cs_vault_prover *prover;
    struct cs_slice credentials; /* sealed memory: which secret is which target's */
    bool booted, ready, stopping, failed;
    bool alone; /* a process of its own, which confines itself; not so in unit tests */
    uint64_t started_ns;
    struct cs_used_grant used[CS_LIMIT_KEEPER_GRANTS]; /* a ring, oldest at next_used */
    size_t next_used;
    struct cs_uses uses;
    struct cs_log_signed log; /* the audit log as it was signed last */
};

/* In the channel's own reading coroutine: while control does not take answers, no further question
 * is read. One that does not read for so long has hung. */
void cs_keeper_answer(struct cs_keeper *k, enum cs_msg_type t, uint32_t corr, const void *msg);

/* ---- proofs.c ---- */
void cs_keeper_prove(struct cs_keeper *k, uint32_t corr, const struct cs_msg_prove_for *m);

/* ---- answer.c: what is weaker than SCRAM ---- */
struct cs_keeper_box {
    uint8_t bytes[CS_LIMIT_CLEARTEXT_BYTES + CS_SEAL_TO_OVERHEAD];
    size_t n;
};
/* CS_WAY_SCRAM: a SCRAM mechanism, or none that there is. */
enum cs_way cs_keeper_way_asked(const struct cs_msg_prove_for *m);
/* DENIED unless `row` permits it for this credential; *ret_why is a sentence then. */
enum cs_err cs_keeper_answer_make(const struct cs_msg_prove_for *m,
                                  const struct cs_credential_row *row,
                                  const struct cs_secret *password, struct cs_keeper_box *ret,
                                  const char **ret_why) CS_MUST_CHECK;

/* ---- uses.c: every use of a secret is in the log, by itself or counted ---- */
/* True when this one may have a line of its own. One that must have it is counted too. */
bool cs_use_may_log(struct cs_uses *u, enum cs_use kind, bool must);
/* A line with what had none; also when the role ends. */
void cs_uses_tell(struct cs_uses *u);
/* Coroutine: tells within a second. arg is the struct. */
void cs_uses_run(void *arg);

#endif
