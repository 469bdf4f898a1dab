/* People and agents in the store: adding, changing, finding. Called by control. A token leaves here
 * once, when it is made; what is kept of it opens nothing. */
#include "identity/identity_internal.h"

#include "base/alloc.h"
#include "base/secret.h"

/* For what one call needs besides its result; freed at its end. */
static void arena_end(struct cs_arena *a)
{
    cs_arena_done(a);
}

enum cs_err cs_identity_new(struct cs_store *s, struct cs_identity **ret)
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 256, CS_ARENA_SMALL);
    struct cs_identity *i = cs_alloc(sizeof *i);
    if (i == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    uint8_t fresh[CS_SHA256];
    cs_random(fresh, sizeof fresh);
    struct cs_slice secret;
    enum cs_err err = cs_store_meta_init(s, CS_SLICE_LIT("scram-mock-secret"),
                                         cs_slice(fresh, sizeof fresh), &a, &secret);
    if (err == CS_OK && secret.n != sizeof i->mock_secret) {
        err = CS_ERR_CORRUPT;
    }
    if (err != CS_OK) {
        cs_free(i);
        return err;
    }
    i->store = s;
    memcpy(i->mock_secret, secret.p, secret.n);
    *ret = i;
    return CS_OK;
}

void cs_identity_free(struct cs_identity *i)
{
    if (i == NULL) {
        return;
    }
    for (size_t n = 0; n < CS_ATTEMPTS_MAX; n++) {
        cs_free(i->attempts[n]);
    }
    cs_wipe(i->mock_secret, sizeof i->mock_secret);
    cs_free(i);
}

/* ---- set-up ---- */

/* A new token, and what is kept of it in `p`. */
static enum cs_err token_make(char kind, struct cs_store_principal *p,
                              char ret_token[static CS_TOKEN_TEXT])
{
    char token[CS_TOKEN_TEXT];
    cs_token_new(kind, token);
    struct cs_slice text = cs_slice(token, CS_TOKEN_TEXT - 1);
    cs_sha256(text, p->token_sha256);
    uint8_t salt[CS_SCRAM_SALT];
    cs_random(salt, sizeof salt);
    struct cs_scram_verifier v;
    enum cs_err err = cs_scram_verifier_make(text, salt, CS_SCRAM_ROUNDS, &v);
    if (err == CS_OK) {
        memcpy(p->salt, v.salt, sizeof p->salt);
        p->iterations = v.iterations;
        memcpy(p->stored_key, v.stored_key, sizeof p->stored_key);
        memcpy(p->server_key, v.server_key, sizeof p->server_key);
        memcpy(ret_token, token, CS_TOKEN_TEXT);
    }
    cs_wipe(token, sizeof token);
    return err;
}

static enum cs_err add(struct cs_identity *i, struct cs_store_principal *p, struct cs_slice name,
                       const struct cs_slice *groups, size_t n_groups, struct cs_arena *a,
                       char ret_token[static CS_TOKEN_TEXT])
{
    if (!cs_identity_name_valid(name)) {
        return CS_ERR_INVALID;
    }
    if (!cs_identity_groups_join(groups, n_groups, a, &p->groups)) {
        return CS_ERR_INVALID;
    }
    p->name = name;
    p->id = cs_identity_id(name, a);
    if (p->id.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    char token[CS_TOKEN_TEXT];
    enum cs_err err = token_make(p->kind == CS_PRINCIPAL_AGENT ? 'a' : 'p', p, token);
    err = err != CS_OK ? err : cs_store_principal_add(i->store, p);
    if (err == CS_OK) {
        memcpy(ret_token, token, CS_TOKEN_TEXT);
    }
    cs_wipe(token, sizeof token);
    return err;
}

enum cs_err cs_identity_person_add(struct cs_identity *i, struct cs_slice name,
                                   const struct cs_slice *groups, size_t n_groups,
                                   char ret_token[static CS_TOKEN_TEXT])
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 1024, CS_ARENA_SMALL);
    struct cs_store_principal p = {.kind = CS_PRINCIPAL_PERSON};
    return add(i, &p, name, groups, n_groups, &a, ret_token);
}

enum cs_err cs_identity_agent_add(struct cs_identity *i, struct cs_slice name,
                                  struct cs_slice owner, const struct cs_slice *groups,
                                  size_t n_groups, char ret_token[static CS_TOKEN_TEXT])
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 1024, CS_ARENA_SMALL);
    if (!cs_identity_name_valid(owner)) {
        return CS_ERR_INVALID;
    }
    struct cs_store_principal p = {.kind = CS_PRINCIPAL_AGENT, .owner = cs_identity_id(owner, &a)};
    if (p.owner.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    return add(i, &p, name, groups, n_groups, &a, ret_token);
}

enum cs_err cs_identity_get(struct cs_identity *i, struct cs_slice name, struct cs_arena *a,
                            struct cs_store_principal *ret)
{
    if (!cs_identity_name_valid(name)) {
        return CS_ERR_NOT_FOUND;
    }
    struct cs_slice id = cs_identity_id(name, a);
    return id.p == NULL ? CS_ERR_NO_MEMORY : cs_store_principal_get(i->store, id, a, ret);
}

enum cs_err cs_identity_token_renew(struct cs_identity *i, struct cs_slice name,
                                    char ret_token[static CS_TOKEN_TEXT])
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 1024, CS_ARENA_SMALL);
    struct cs_store_principal p;
    enum cs_err err = cs_identity_get(i, name, &a, &p);
    if (err != CS_OK) {
        return err;
    }
    char token[CS_TOKEN_TEXT];
    err = token_make(p.kind == CS_PRINCIPAL_AGENT ? 'a' : 'p', &p, token);
    err = err != CS_OK ? err : cs_store_principal_set_token(i->store, &p);
    if (err == CS_OK) {
        memcpy(ret_token, token, CS_TOKEN_TEXT);
    }
    cs_wipe(token, sizeof token);
    return err;
}

enum cs_err cs_identity_groups_set(struct cs_identity *i, struct cs_slice name,
                                   const struct cs_slice *groups, size_t n_groups)
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 1024, CS_ARENA_SMALL);
    if (!cs_identity_name_valid(name)) {
        return CS_ERR_NOT_FOUND;
    }
    struct cs_slice joined;
    if (!cs_identity_groups_join(groups, n_groups, &a, &joined)) {
        return CS_ERR_INVALID;
    }
    struct cs_slice id = cs_identity_id(name, &a);
    return id.p == NULL ? CS_ERR_NO_MEMORY : cs_store_principal_set_groups(i->store, id, joined);
}

enum cs_err cs_identity_disable(struct cs_identity *i, struct cs_slice name)
{
    CS_CLEANUP(arena_end) struct cs_arena a;
    cs_arena_init(&a, 256, CS_ARENA_SMALL);
    if (!cs_identity_name_valid(name)) {
        return CS_ERR_NOT_FOUND;
    }
    struct cs_slice id = cs_identity_id(name, &a);
    return id.p == NULL ? CS_ERR_NO_MEMORY : cs_store_principal_disable(i->store, id);
}

enum cs_err cs_identity_list(struct cs_identity *i, struct cs_arena *a,
                             struct cs_store_principal **ret, size_t *ret_n)
{
    return cs_store_principal_list(i->store, a, ret, ret_n);
}

/* ---- who is this ---- */

static enum cs_err chain_of(struct cs_identity *i, const struct cs_store_principal *p,
                            struct cs_arena *a, struct cs_chain *ret)
{
    if (p->kind != CS_PRINCIPAL_AGENT) {
        return cs_identity_chain_build(p, NULL, a, ret);
    }
    struct cs_store_principal owner;
    enum cs_err err = cs_store_principal_get(i->store, p->owner, a, &owner);
    if (err != CS_OK) {
        return err == CS_ERR_NOT_FOUND ? CS_ERR_UNAUTHENTICATED : err;
    }
    return cs_identity_chain_build(p, &owner, a, ret);
}

enum cs_err cs_identity_chain(struct cs_identity *i, struct cs_slice principal_id,
                              struct cs_arena *a, struct cs_chain *ret)
{
    struct cs_store_principal p;
    enum cs_err err = cs_store_principal_get(i->store, principal_id, a, &p);
    if (err != CS_OK) {
        return err == CS_ERR_NOT_FOUND ? CS_ERR_UNAUTHENTICATED : err;
    }
    return chain_of(i, &p, a, ret);
}

enum cs_err cs_identity_by_token(struct cs_identity *i,
                                 const uint8_t token_sha256[static CS_SHA256], struct cs_arena *a,
                                 struct cs_chain *ret)
{
    struct cs_store_principal p;
    enum cs_err err = cs_store_principal_by_token(i->store, token_sha256, a, &p);
    if (err != CS_OK) {
        return err == CS_ERR_NOT_FOUND ? CS_ERR_UNAUTHENTICATED : err;
    }
    return chain_of(i, &p, a, ret);
}
