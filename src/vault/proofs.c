/* PROVE_FOR: a SCRAM proof on control's word, and how far that word is believed. Called by
 * keeper.c.
 *
 * SECURITY: what is asked for is checked as if control were hostile, as far as keeper can know:
 * that the target is in the configuration and the secret is that very credential of it (from the
 * supervisor, not from control), that an elevated proof names a grant, that no grant is used twice
 * nor was consumed before this process began, that the row belongs to its name and version, that
 * the exchange is bound to what the configuration demands. That the grant was consumed for this
 * session and target is control's word. */
#include "base/log.h"
#include "base/time.h"
#include "ipc/metrics.h"
#include "vault/keeper_internal.h"

enum { TARGET_MAX = 128 };
/* A grant lives for minutes: after this long nobody asks for it again. */
#define GRANT_NS (3600 * CS_NS_PER_S)
/* From a grant's use in the store to the proof: a connection is made and a log-in begun. */
#define TICKET_NS (CS_LIMIT_KEEPER_TICKET_S * CS_NS_PER_S)

struct proving {
    struct cs_keeper *k;
    const struct cs_msg_prove_for *m;
    struct cs_credential_row target;
    struct cs_vault_proof proof;
    struct cs_keeper_box box; /* instead of a proof: an answer by a weaker way */
    const char *why;
    enum cs_err err;
};

static bool elevated(const struct cs_msg_prove_for *m)
{
    return m->which == CS_CREDENTIAL_ELEVATED;
}

/* "" when its fields are there, else what is wrong. */
static const char *ticket_check(const struct cs_msg_prove_for *m)
{
    if (m->which != CS_CREDENTIAL_EVERYDAY && m->which != CS_CREDENTIAL_ELEVATED &&
        m->which != CS_CREDENTIAL_PROBE) {
        return "there is no such credential";
    }
    if (cs_id_is_zero(&m->session) || m->target.n == 0 || m->target.n > TARGET_MAX ||
        m->connection == 0) {
        return "session, target or connection is missing";
    }
    if (elevated(m) && cs_id_is_zero(&m->grant)) {
        return "an elevated proof needs a consumed grant";
    }
    if (!elevated(m) && (!cs_id_is_zero(&m->grant) || m->consumed != 0)) {
        return "such a proof has no grant";
    }
    if (m->name.n == 0 || m->name.n > CS_VAULT_NAME_MAX || m->version == 0) {
        return "the secret's name or version is missing";
    }
    return "";
}

static enum cs_err refuse(struct proving *p, enum cs_err e, const char *why)
{
    p->why = why;
    return e;
}

/* SECURITY: control cannot have one target's credential proved as another's, nor the elevated one
 * as the everyday one, for which no grant is asked. */
static enum cs_err find_target(struct proving *p)
{
    const struct cs_msg_prove_for *m = p->m;
    if (!cs_credentials_find(p->k->credentials, m->target, &p->target)) {
        return refuse(p, CS_ERR_DENIED, "the target is not in the configuration");
    }
    struct cs_slice secret = elevated(m)                       ? p->target.elevated
                             : m->which == CS_CREDENTIAL_PROBE ? p->target.probe
                                                               : p->target.secret;
    if (secret.n == 0 || !cs_slice_eq(secret, m->name)) {
        return refuse(p, CS_ERR_DENIED,
                      "in the configuration, this secret is not that credential of the target");
    }
    return CS_OK;
}

/* SECURITY: which grants had their proof is known since this process began, no longer: one that was
 * consumed before may have had it. So a restart of keeper never gives a grant a second proof. */
static enum cs_err grant_age(struct proving *p)
{
    uint64_t now = cs_mono_ns(), consumed = p->m->consumed;
    if (consumed == 0 || consumed > now) {
        return refuse(p, CS_ERR_INVALID, "when the grant was consumed is not said");
    }
    if (consumed < p->k->started_ns) {
        return refuse(
            p, CS_ERR_DENIED,
            "the grant was consumed before the keeper started: it may have had its proof");
    }
    if (now - consumed > TICKET_NS) {
        return refuse(p, CS_ERR_TIMEOUT, "the grant was consumed too long ago");
    }
    return CS_OK;
}

/* Whatever becomes of this try, the grant has had its proof. */
static enum cs_err grant_use(struct proving *p)
{
    struct cs_keeper *k = p->k;
    uint64_t now = cs_mono_ns();
    for (size_t i = 0; i < CS_LIMIT_KEEPER_GRANTS; i++) {
        if (k->used[i].ns != 0 && cs_id_eq(&k->used[i].id, &p->m->grant)) {
            return refuse(p, CS_ERR_DENIED, "this grant has had its proof");
        }
    }
    struct cs_used_grant *oldest = &k->used[k->next_used];
    if (oldest->ns != 0 && now - oldest->ns < GRANT_NS) {
        /* Forgetting it would let it be used again. */
        return refuse(p, CS_ERR_LIMIT, "too many elevated proofs within an hour");
    }
    *oldest = (struct cs_used_grant){p->m->grant, now};
    k->next_used = (k->next_used + 1) % CS_LIMIT_KEEPER_GRANTS;
    return CS_OK;
}

static enum cs_err prove_unsealed(struct proving *p)
{
    const struct cs_msg_prove_for *m = p->m;
    struct cs_secret password;
    const struct cs_vault_exchange x = {.mechanism = m->mechanism,
                                        .client_first_bare = m->client_first_bare,
                                        .server_first = m->server_first,
                                        .client_final_bare = m->client_final_bare};
    enum cs_err e = cs_vault_unseal(p->k->vault, m->name, m->version, m->box, &password);
    if (e == CS_OK && cs_keeper_way_asked(m) != CS_WAY_SCRAM) {
        e = cs_keeper_answer_make(m, &p->target, &password, &p->box, &p->why);
    } else if (e == CS_OK) {
        e = cs_vault_scram_prove(p->k->prover, &password, &p->target, &x, &p->proof, &p->why);
    } else {
        p->why = e == CS_ERR_NOT_FOUND
                     ? "the secret is sealed under a master key that is not configured"
                     : "the stored secret does not open under the master key";
    }
    cs_vault_forget(p->k->vault);
    return e;
}

static enum cs_err checks(struct proving *p)
{
    const char *wrong = ticket_check(p->m);
    if (wrong[0] != 0) {
        return refuse(p, CS_ERR_INVALID, wrong);
    }
    if (p->m->deadline <= cs_mono_ns()) {
        return refuse(p, CS_ERR_TIMEOUT, "it was asked too late: nobody waits for the answer");
    }
    if (!cs_vault_has_key(p->k->vault)) {
        return refuse(p, CS_ERR_UNAVAILABLE, "there is no master key");
    }
    enum cs_err e = find_target(p);
    if (e == CS_OK && elevated(p->m)) {
        e = grant_age(p);
        e = e == CS_OK ? grant_use(p) : e;
    }
    return e;
}

/* On the process's own stack: libcrypto's needs are its own affair. */
static void prove(void *arg)
{
    struct proving *p = arg;
    p->err = checks(p);
    if (p->err == CS_OK) {
        p->err = prove_unsealed(p);
    }
}

void cs_keeper_prove(struct cs_keeper *k, uint32_t corr, const struct cs_msg_prove_for *m)
{
    struct proving p = {.k = k, .m = m, .why = "", .err = CS_ERR_INTERNAL};
    char grant[CS_ID_TEXT];
    cs_big_stack_call(prove, &p);
    /* Elevated ones are few (CS_LIMIT_KEEPER_GRANTS an hour) and each has its line. */
    bool must = elevated(m) && p.err == CS_OK;
    if (cs_use_may_log(&k->uses, p.err == CS_OK ? CS_USE_DONE : CS_USE_REFUSED, must)) {
        cs_log(p.err == CS_OK ? CS_EV_SECRET_USED : CS_EV_SECRET_REFUSED, &m->session,
               "for=proof target=%s connection=%llu which=%s grant=%s secret=%s version=%llu "
               "by=%s bound=%s result=%s%s%s",
               cs_log_quote(m->target).text, (unsigned long long)m->connection,
               elevated(m) ? "elevated" : "everyday",
               elevated(m) ? cs_id_text(&m->grant, grant) : "-", cs_log_quote(m->name).text,
               (unsigned long long)m->version, cs_way_name(cs_keeper_way_asked(m)),
               cs_slice_eq_str(m->mechanism, "SCRAM-SHA-256-PLUS") ? "yes" : "no",
               cs_err_name(p.err), p.why[0] != 0 ? " why=" : "",
               p.why[0] != 0 ? cs_log_quote(cs_slice_str(p.why)).text : "");
    }
    cs_metric_add(CS_SLOT_SECRETS + CS_USED_PROOF * CS_DIM_TAKEN +
                      (p.err == CS_OK ? CS_TAKEN_OK : CS_TAKEN_REFUSED),
                  1);
    struct cs_msg_proof_for out = {.err = (uint64_t)p.err};
    if (p.err == CS_OK && p.box.n > 0) {
        out.proof = cs_slice(p.box.bytes, p.box.n);
    } else if (p.err == CS_OK) {
        out.proof = cs_slice(p.proof.proof, sizeof p.proof.proof);
        out.server_signature = cs_slice(p.proof.server_signature, sizeof p.proof.server_signature);
    } else {
        out.text = cs_slice_str(p.why);
    }
    cs_keeper_answer(k, CS_MSG_PROOF_FOR, corr, &out);
    cs_wipe(&p.proof, sizeof p.proof);
}
