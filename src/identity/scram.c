/* SCRAM log-ins: open attempts and their end. Called by control on a gate's behalf. The auth
 * message is rebuilt here from what was kept and what is checked, so that a gate cannot have a
 * proof over one conversation accepted for another. Whether a name exists must show nowhere before
 * the proof. */
#include "identity/identity_internal.h"

#include "base/alloc.h"
#include "base/secret.h"

enum { SLOT_BITS = 12 };
_Static_assert(1 << SLOT_BITS == CS_ATTEMPTS_MAX, "the low bits of an attempt's id are its slot");

/* ---- attempts: a ring; a new one takes the place of the oldest ---- */

static void attempt_end(struct cs_identity *i, struct cs_attempt *t)
{
    if (t->id != 0) {
        i->open--;
    }
    cs_wipe(t, sizeof *t);
}

static struct cs_attempt *attempt_new(struct cs_identity *i, uint64_t owner)
{
    size_t slot = i->next_slot++ % CS_ATTEMPTS_MAX;
    struct cs_attempt *t = i->attempts[slot];
    if (t == NULL) {
        t = i->attempts[slot] = cs_alloc(sizeof *t);
        if (t == NULL) {
            return NULL;
        }
    }
    attempt_end(i, t);
    uint64_t r;
    cs_random(&r, sizeof r);
    t->id = (r | 1) << SLOT_BITS | slot; /* never 0 */
    t->owner = owner;
    t->deadline_ns = cs_mono_ns() + CS_ATTEMPT_S * CS_NS_PER_S;
    i->open++;
    return t;
}

static struct cs_attempt *attempt_find(const struct cs_identity *i, uint64_t id, uint64_t owner)
{
    struct cs_attempt *t = i->attempts[id % CS_ATTEMPTS_MAX];
    if (t == NULL || id == 0 || t->id != id || t->owner != owner || cs_mono_ns() > t->deadline_ns) {
        return NULL;
    }
    return t;
}

size_t cs_identity_attempts(const struct cs_identity *i)
{
    return i->open;
}

/* ---- start ---- */

/* RFC 5802: printable ASCII without the comma. */
static bool nonce_valid(struct cs_slice nonce)
{
    size_t ours = cs_base64_size(CS_SCRAM_NONCE_RAW);
    if (nonce.n == 0 || nonce.n >= CS_SCRAM_NONCE_MAX - ours) {
        return false;
    }
    for (size_t n = 0; n < nonce.n; n++) {
        if (nonce.p[n] < 0x21 || nonce.p[n] > 0x7e || nonce.p[n] == ',') {
            return false;
        }
    }
    return true;
}

/* The verifier that a name is checked against. The mock is computed in any case. */
static enum cs_err verifier_of(struct cs_identity *i, struct cs_slice name, struct cs_attempt *ret)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, CS_ARENA_SMALL);
    struct cs_scram_verifier mock;
    cs_scram_verifier_mock(cs_slice(i->mock_secret, sizeof i->mock_secret), name, &mock);
    mock.iterations = CS_SCRAM_ROUNDS;
    /* An impossible name is looked up as any other one: as a name that cannot be stored. */
    bool valid = cs_identity_name_valid(name);
    struct cs_slice id = valid ? cs_identity_id(name, &a) : CS_SLICE_LIT("local:");
    struct cs_store_principal p;
    enum cs_err err =
        id.p == NULL ? CS_ERR_NO_MEMORY : cs_store_principal_get(i->store, id, &a, &p);
    ret->verifier = mock;
    ret->known = false;
    if (err == CS_OK) {
        /* A disabled one keeps its salt: a change would tell. */
        memcpy(ret->verifier.salt, p.salt, sizeof p.salt);
        ret->verifier.iterations = (uint32_t)p.iterations;
        if (p.disabled_ms == 0) {
            memcpy(ret->verifier.stored_key, p.stored_key, sizeof p.stored_key);
            memcpy(ret->verifier.server_key, p.server_key, sizeof p.server_key);
            ret->known = true;
        }
        ret->principal_n = p.id.n;
        memcpy(ret->principal, p.id.p, CS_MIN(p.id.n, sizeof ret->principal));
        if (p.id.n > sizeof ret->principal) {
            ret->known = false;
            ret->principal_n = 0;
        }
    }
    cs_arena_done(&a);
    return err == CS_ERR_NOT_FOUND ? CS_OK : err;
}

static void nonce_join(struct cs_attempt *t, struct cs_slice client_nonce)
{
    uint8_t raw[CS_SCRAM_NONCE_RAW];
    cs_random(raw, sizeof raw);
    memcpy(t->nonce, client_nonce.p, client_nonce.n);
    t->client_n = client_nonce.n;
    t->nonce_n = client_nonce.n +
                 cs_base64_encode(cs_slice(raw, sizeof raw), false, t->nonce + client_nonce.n);
    t->nonce[t->nonce_n] = '\0';
}

enum cs_err cs_identity_scram_start(struct cs_identity *i, uint64_t owner, struct cs_slice name,
                                    struct cs_slice client_nonce, struct cs_identity_challenge *ret)
{
    if (!nonce_valid(client_nonce)) {
        return CS_ERR_INVALID;
    }
    struct cs_attempt found = {.id = 0};
    enum cs_err err = verifier_of(i, name, &found); /* waits: nothing is open before it returns */
    if (err != CS_OK) {
        return err;
    }
    struct cs_attempt *t = attempt_new(i, owner);
    if (t == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    t->known = found.known;
    t->verifier = found.verifier;
    t->principal_n = found.principal_n;
    memcpy(t->principal, found.principal, sizeof t->principal);
    nonce_join(t, client_nonce);
    cs_wipe(&found, sizeof found);
    *ret = (struct cs_identity_challenge){.attempt = t->id, .iterations = t->verifier.iterations};
    memcpy(ret->salt, t->verifier.salt, sizeof ret->salt);
    memcpy(ret->nonce, t->nonce, t->nonce_n + 1);
    return CS_OK;
}

/* ---- finish ---- */

/* SECURITY: the client's own copy of header and certificate's hash is under the proof. If it is
 * another certificate than the listener's, the client speaks to somebody in between; if it says
 * that we cannot bind ("y") although that was offered, somebody in between took the offer away. */
static enum cs_err binding_check(const struct cs_identity_proof *p)
{
    bool plus = cs_slice_eq_str(p->gs2_header, "p=tls-server-end-point,,");
    if (!plus && cs_slice_starts(p->gs2_header, CS_SLICE_LIT("p="))) {
        return CS_ERR_UNSUPPORTED;
    }
    bool can = cs_slice_eq_str(p->gs2_header, "y,,");
    if (!plus && !can && !cs_slice_eq_str(p->gs2_header, "n,,")) {
        return CS_ERR_PROTOCOL;
    }
    if ((can && p->end_point.n > 0) || (plus && p->end_point.n < CS_SHA256)) {
        return CS_ERR_PROTOCOL;
    }
    uint8_t bound[128];
    size_t n = 0;
    struct cs_slice rest = plus ? p->end_point : CS_SLICE_NULL;
    bool same = p->channel_binding.n <= sizeof bound &&
                cs_base64_decode(p->channel_binding, false, bound, sizeof bound, &n) &&
                cs_slice_starts(cs_slice(bound, n), p->gs2_header) &&
                cs_slice_eq(cs_slice_from(cs_slice(bound, n), p->gs2_header.n), rest);
    return same ? CS_OK : CS_ERR_PROTOCOL;
}

/* The messages must be those of this attempt and agree with each other. */
static enum cs_err messages_check(const struct cs_attempt *t, const struct cs_identity_proof *p,
                                  struct cs_arena *a)
{
    enum cs_err err = binding_check(p);
    if (err != CS_OK) {
        return err;
    }
    if (p->client_first_bare.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || p->proof.n != CS_SHA256) {
        return CS_ERR_PROTOCOL;
    }
    struct cs_slice whole = cs_arena_printf(a, "%.*s%.*s", CS_SLICE_FMT(p->gs2_header),
                                            CS_SLICE_FMT(p->client_first_bare));
    struct cs_scram_client_first first;
    if (whole.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    if (!cs_scram_parse_client_first(whole, &first) ||
        !cs_slice_eq(first.bare, p->client_first_bare) ||
        !cs_slice_eq(first.nonce, cs_slice(t->nonce, t->client_n))) {
        return CS_ERR_PROTOCOL;
    }
    return CS_OK;
}

static struct cs_slice auth_message(const struct cs_attempt *t, const struct cs_identity_proof *p,
                                    struct cs_arena *a)
{
    char salt[CS_SCRAM_SALT * 2];
    size_t salt_n = cs_base64_encode(cs_slice(t->verifier.salt, CS_SCRAM_SALT), false, salt);
    return cs_arena_printf(a, "%.*s,r=%s,s=%.*s,i=%u,c=%.*s,r=%s",
                           CS_SLICE_FMT(p->client_first_bare), t->nonce, (int)salt_n, salt,
                           (unsigned)t->verifier.iterations, CS_SLICE_FMT(p->channel_binding),
                           t->nonce);
}

/* The chain as it is now, the token's key, and the mark over both. */
static enum cs_err standing(struct cs_identity *i, struct cs_slice id, struct cs_arena *a,
                            uint8_t ret_key[static CS_SHA256], struct cs_chain *ret,
                            struct cs_identity_mark *ret_mark)
{
    struct cs_store_principal p;
    uint8_t *bytes = cs_arena_alloc(a, CS_LIMIT_IPC_BYTES);
    enum cs_err err =
        bytes != NULL ? cs_store_principal_get(i->store, id, a, &p) : CS_ERR_NO_MEMORY;
    err = err != CS_OK ? err : cs_identity_chain(i, id, a, ret);
    if (err != CS_OK) {
        return err == CS_ERR_NOT_FOUND ? CS_ERR_UNAUTHENTICATED : err;
    }
    struct cs_writer w = cs_writer(bytes, CS_LIMIT_IPC_BYTES);
    cs_chain_encode(&w, ret);
    if (w.overflow) {
        return CS_ERR_TOO_LARGE;
    }
    const struct cs_slice pieces[] = {cs_slice(p.stored_key, sizeof p.stored_key),
                                      cs_writer_done(&w)};
    cs_sha256_pieces(pieces, CS_ARRAY_LEN(pieces), ret_mark->of);
    memcpy(ret_key, p.stored_key, CS_SHA256);
    return CS_OK;
}

/* The proof was right at the start's verifier; is it still the principal's? */
static enum cs_err chain_now(struct cs_identity *i, const struct cs_attempt *t, struct cs_arena *a,
                             struct cs_chain *ret, struct cs_identity_mark *ret_mark)
{
    uint8_t key[CS_SHA256];
    struct cs_chain chain;
    enum cs_err err = standing(i, cs_slice(t->principal, t->principal_n), a, key, &chain, ret_mark);
    if (err == CS_OK && memcmp(key, t->verifier.stored_key, sizeof key) != 0) {
        err = CS_ERR_UNAUTHENTICATED; /* a new token voids the old one at once */
    }
    if (err == CS_OK) {
        *ret = chain;
    }
    return err;
}

static bool token_is_of(struct cs_slice user, const struct cs_chain *c)
{
    struct cs_slice suffix = CS_SLICE_LIT("+token");
    if (cs_slice_eq_str(user, "token")) {
        return true;
    }
    return user.n > suffix.n && cs_slice_eq(cs_slice_from(user, user.n - suffix.n), suffix) &&
           cs_slice_eq(cs_slice_head(user, user.n - suffix.n), c->p[c->n - 1].name);
}

enum cs_err cs_identity_token_login(struct cs_identity *i, struct cs_slice user,
                                    const uint8_t token_sha256[static CS_SHA256],
                                    struct cs_arena *a, struct cs_chain *ret,
                                    struct cs_identity_mark *ret_mark)
{
    uint8_t key[CS_SHA256];
    struct cs_chain first, again;
    enum cs_err err = cs_identity_by_token(i, token_sha256, a, &first);
    if (err != CS_OK || !token_is_of(user, &first)) {
        return err != CS_OK ? err : CS_ERR_UNAUTHENTICATED;
    }
    struct cs_slice id = first.p[first.n - 1].id;
    struct cs_chain chain;
    err = standing(i, id, a, key, &chain, ret_mark);
    /* SECURITY: a token that was renewed before the mark was made must not get the new one's mark.
     */
    err = err != CS_OK ? err : cs_identity_by_token(i, token_sha256, a, &again);
    if (err == CS_OK && !cs_slice_eq(again.p[again.n - 1].id, id)) {
        err = CS_ERR_UNAUTHENTICATED;
    }
    if (err == CS_OK) {
        *ret = chain;
    }
    return err;
}

enum cs_err cs_identity_named_login(struct cs_identity *i, struct cs_slice name, struct cs_arena *a,
                                    struct cs_chain *ret, struct cs_identity_mark *ret_mark)
{
    uint8_t key[CS_SHA256];
    if (!cs_identity_name_valid(name)) {
        return CS_ERR_UNAUTHENTICATED;
    }
    struct cs_slice id = cs_identity_id(name, a);
    return id.p != NULL ? standing(i, id, a, key, ret, ret_mark) : CS_ERR_NO_MEMORY;
}

enum cs_err cs_identity_still(struct cs_identity *i, struct cs_slice principal_id,
                              const struct cs_identity_mark *mark, struct cs_arena *a)
{
    uint8_t key[CS_SHA256];
    struct cs_chain chain;
    struct cs_identity_mark now;
    enum cs_err err = standing(i, principal_id, a, key, &chain, &now);
    if (err != CS_OK) {
        return err;
    }
    return memcmp(now.of, mark->of, sizeof now.of) == 0 ? CS_OK : CS_ERR_CONFLICT;
}

static enum cs_err proof_check(struct cs_identity *i, const struct cs_attempt *t,
                               const struct cs_identity_proof *p, struct cs_arena *a,
                               uint8_t ret_signature[static CS_SHA256], struct cs_chain *ret,
                               struct cs_identity_mark *ret_mark)
{
    enum cs_err err = messages_check(t, p, a);
    if (err != CS_OK) {
        return err;
    }
    struct cs_slice message = auth_message(t, p, a);
    if (message.p == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    uint8_t signature[CS_SHA256];
    bool right = cs_scram_server_check(&t->verifier, message, p->proof.p, signature);
    if (!right || !t->known) {
        return CS_ERR_UNAUTHENTICATED;
    }
    err = chain_now(i, t, a, ret, ret_mark);
    if (err == CS_OK) {
        memcpy(ret_signature, signature, sizeof signature);
    }
    return err;
}

enum cs_err cs_identity_scram_finish(struct cs_identity *i, uint64_t owner,
                                     const struct cs_identity_proof *p, struct cs_arena *a,
                                     uint8_t ret_signature[static CS_SHA256], struct cs_chain *ret,
                                     struct cs_identity_mark *ret_mark)
{
    struct cs_attempt *open = attempt_find(i, p->attempt, owner);
    if (open == NULL) {
        return CS_ERR_UNAUTHENTICATED;
    }
    struct cs_attempt t = *open; /* good for one try, whatever comes of it */
    attempt_end(i, open);
    enum cs_err err = proof_check(i, &t, p, a, ret_signature, ret, ret_mark);
    cs_wipe(&t, sizeof t);
    return err;
}
