/* What a server that asks for less than SCRAM is answered: an MD5 hash, or the password itself.
 * Called by proofs.c. It must never answer where the configuration does not say so for that
 * credential, nor with an elevated one, nor in a form that control could read.
 *
 * SECURITY: the answer is sealed to a key that the process which speaks to the server made for this
 * log-in; control carries it closed. */
#include "base/limits.h"
#include "vault/keeper_internal.h"

static const char *answer_wrong(const struct cs_msg_prove_for *m, enum cs_way asked,
                                enum cs_way may, struct cs_slice password)
{
    if (m->which == CS_CREDENTIAL_ELEVATED) {
        return "an elevated credential is proved by SCRAM only";
    }
    if (asked > may) {
        return "the configuration does not permit this way of proving the credential";
    }
    if (m->client_first_bare.n != CS_X25519 ||
        m->server_first.n != (asked == CS_WAY_MD5 ? (size_t)CS_MD5_SALT : 0) ||
        m->client_final_bare.n != 0) {
        return "the question for an answer is malformed";
    }
    if (password.n == 0 || password.n > CS_LIMIT_CLEARTEXT_BYTES ||
        cs_slice_find(password, 0) != password.n) {
        return "the secret cannot be sent as a password";
    }
    return "";
}

enum cs_way cs_keeper_way_asked(const struct cs_msg_prove_for *m)
{
    return cs_way_of(m->mechanism);
}

enum cs_err cs_keeper_answer_make(const struct cs_msg_prove_for *m,
                                  const struct cs_credential_row *row,
                                  const struct cs_secret *password, struct cs_keeper_box *ret,
                                  const char **ret_why)
{
    bool probe = m->which == CS_CREDENTIAL_PROBE;
    enum cs_way asked = cs_keeper_way_asked(m);
    struct cs_slice plain = cs_secret_reveal(password);
    char hash[CS_MD5_ANSWER];
    *ret_why = answer_wrong(m, asked, (enum cs_way)(probe ? row->probe_way : row->way), plain);
    if ((*ret_why)[0] != 0) {
        return CS_ERR_DENIED;
    }
    enum cs_err e = CS_OK;
    if (asked == CS_WAY_MD5) {
        e = cs_md5_answer(plain, probe ? row->probe_user : row->user, m->server_first.p, hash);
        plain = cs_slice(hash, sizeof hash);
    }
    if (e == CS_OK) {
        e = cs_seal_to(m->client_first_bare.p, CS_SLICE_LIT(CS_LOGIN_ANSWER), plain, ret->bytes);
        ret->n = plain.n + CS_SEAL_TO_OVERHEAD;
    }
    cs_wipe(hash, sizeof hash);
    *ret_why = e == CS_OK ? "" : cs_err_text(e);
    return e;
}
