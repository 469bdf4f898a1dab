/* SCRAM proofs for targets: the password stays here, the gate gets a proof for one exchange. Called
 * by keeper when control asks for a gate that opens a connection. It must never prove anything for
 * an exchange whose parts do not belong together: a gate that was taken over could otherwise replay
 * or mix exchanges.
 */
#include "base/buf.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/writer.h"
#include "crypto/scram.h"
#include "vault/locked.h"
#include "vault/vault.h"

enum { ENTRIES = 64 };

struct entry {
    uint64_t used;          /* 0 = free */
    uint8_t key[CS_SHA256]; /* of password, salt and rounds, keyed per process */
    uint8_t salted[CS_SHA256];
};

struct cs_vault_prover {
    uint64_t clock;
    uint8_t key[CS_SHA256];
    struct entry entries[ENTRIES];
};

struct cs_vault_prover *cs_vault_prover_new(void)
{
    struct cs_vault_prover *p = cs_locked_alloc(sizeof *p);
    if (p != NULL) {
        cs_random(p->key, sizeof p->key);
    }
    return p;
}

void cs_vault_prover_free(struct cs_vault_prover *p)
{
    cs_locked_free(p, sizeof *p);
}

/* ---- salted passwords ---- */
static void key_of(const struct cs_vault_prover *p, struct cs_slice password,
                   const struct cs_scram_server_first *first, uint8_t ret[static CS_SHA256])
{
    uint8_t mem[4 + sizeof first->salt + 4 + CS_SHA256];
    struct cs_writer w = cs_writer(mem, sizeof mem);
    uint8_t hashed[CS_SHA256];
    cs_hmac_sha256(cs_slice(p->key, sizeof p->key), password, hashed);
    cs_writer_slice(&w, cs_slice(first->salt, first->salt_n));
    cs_writer_u32le(&w, first->iterations);
    cs_writer_bytes(&w, cs_slice(hashed, sizeof hashed));
    cs_hmac_sha256(cs_slice(p->key, sizeof p->key), cs_writer_done(&w), ret);
}

/* The entry of this key, or the one to be replaced: a free one or the longest unused. */
static struct entry *entry_of(struct cs_vault_prover *p, const uint8_t key[static CS_SHA256])
{
    struct entry *oldest = &p->entries[0];
    for (size_t i = 0; i < ENTRIES; i++) {
        struct entry *e = &p->entries[i];
        if (e->used != 0 && memcmp(e->key, key, CS_SHA256) == 0) {
            return e;
        }
        if (e->used < oldest->used) {
            oldest = e;
        }
    }
    return oldest;
}

static enum cs_err salted_password(struct cs_vault_prover *p, struct cs_slice password,
                                   const struct cs_scram_server_first *first,
                                   uint8_t ret[static CS_SHA256])
{
    uint8_t key[CS_SHA256];
    key_of(p, password, first, key);
    struct entry *e = entry_of(p, key);
    if (e->used == 0 || memcmp(e->key, key, sizeof key) != 0) {
        uint8_t salted[CS_SHA256];
        enum cs_err err = cs_scram_salted_password(password, cs_slice(first->salt, first->salt_n),
                                                   first->iterations, salted);
        if (err != CS_OK) {
            return err;
        }
        memcpy(e->key, key, sizeof key);
        memcpy(e->salted, salted, sizeof salted);
        cs_wipe(salted, sizeof salted);
    }
    e->used = ++p->clock;
    memcpy(ret, e->salted, CS_SHA256);
    return CS_OK;
}

/* ---- the exchange ---- */

/* What is wrong with the binding, "" when nothing: the mechanism's own, not below what the target
 * demands, to the certificate that it pins. *ret_denied: it is well formed and not enough.
 * SECURITY: control and gate choose the mechanism; whoever has taken one of them over, or sits
 * between gate and target, would choose the one without a binding. */
static const char *binding_wrong(const struct cs_credential_row *target, struct cs_slice mechanism,
                                 struct cs_slice binding, bool *ret_denied)
{
    const struct cs_slice header = CS_SLICE_LIT("p=tls-server-end-point,,");
    uint8_t raw[128];
    size_t n = 0;
    *ret_denied = false;
    if (cs_slice_eq_str(mechanism, "SCRAM-SHA-256")) {
        bool could = cs_slice_eq_str(binding, "eSws"); /* "y,,": we could, the server said not */
        if (!could && !cs_slice_eq_str(binding, "biws")) { /* "n,," */
            return "the channel binding is not the one of the SCRAM mechanism";
        }
        *ret_denied = target->binding != CS_BINDING_PREFER &&
                      (target->binding != CS_BINDING_DISABLE || could);
        return *ret_denied ? "the target demands channel binding, and this exchange has none" : "";
    }
    if (!cs_slice_eq_str(mechanism, "SCRAM-SHA-256-PLUS") ||
        !cs_base64_decode(binding, false, raw, sizeof raw, &n) ||
        !cs_slice_starts(cs_slice(raw, n), header) || n - header.n < CS_PIN_MIN ||
        n - header.n > CS_PIN_MAX) {
        return "the channel binding is not the one of the SCRAM mechanism";
    }
    if (target->pins.n > 0 &&
        !cs_credential_pinned(target, cs_slice(raw + header.n, n - header.n))) {
        *ret_denied = true;
        return "the server's certificate is not the one that the configuration names";
    }
    *ret_denied = target->binding != CS_BINDING_PREFER && target->binding != CS_BINDING_REQUIRE;
    return *ret_denied ? "the target's configuration rules channel binding out" : "";
}

/* "" when all parts belong to one exchange, else what is wrong. */
static const char *check(const struct cs_credential_row *target, const struct cs_vault_exchange *x,
                         struct cs_scram_server_first *first, bool *ret_denied)
{
    *ret_denied = false;
    struct cs_slice name, nonce, binding, final_nonce;
    if (!cs_scram_parse_client_first_bare(x->client_first_bare, &name, &nonce)) {
        return "our own first SCRAM message is malformed";
    }
    if (!cs_scram_parse_server_first(x->server_first, nonce, first)) {
        return "the target's SCRAM challenge is malformed, does not continue our nonce, or asks "
               "for a number of rounds outside the limits";
    }
    if (!cs_scram_parse_client_final_bare(x->client_final_bare, &binding, &final_nonce)) {
        return "our own final SCRAM message is malformed";
    }
    if (!cs_slice_eq(final_nonce, first->nonce)) {
        return "our final SCRAM message belongs to another challenge";
    }
    return binding_wrong(target, x->mechanism, binding, ret_denied);
}

enum cs_err cs_vault_scram_prove(struct cs_vault_prover *p, const struct cs_secret *password,
                                 const struct cs_credential_row *target,
                                 const struct cs_vault_exchange *x, struct cs_vault_proof *ret,
                                 const char **ret_why)
{
    struct cs_scram_server_first first;
    bool denied;
    *ret_why = check(target, x, &first, &denied);
    if ((*ret_why)[0] != 0) {
        return denied ? CS_ERR_DENIED : CS_ERR_PROTOCOL;
    }
    struct cs_buf message = cs_buf(3 * CS_LIMIT_SCRAM_MESSAGE_BYTES + 2);
    cs_buf_add(&message, x->client_first_bare);
    cs_buf_u8(&message, ',');
    cs_buf_add(&message, x->server_first);
    cs_buf_u8(&message, ',');
    cs_buf_add(&message, x->client_final_bare);
    uint8_t salted[CS_SHA256];
    enum cs_err e = message.bad ? CS_ERR_NO_MEMORY
                                : salted_password(p, cs_secret_reveal(password), &first, salted);
    if (e == CS_OK) {
        cs_scram_client_proof(salted, cs_buf_slice(&message), ret->proof, ret->server_signature);
        cs_wipe(salted, sizeof salted);
    } else {
        *ret_why = cs_err_text(e);
    }
    cs_buf_done(&message);
    return e;
}
