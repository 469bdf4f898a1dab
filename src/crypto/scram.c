/* SCRAM-SHA-256: arithmetic for both sides and strict parsers. Pure. Called by identity and control
 * (verifiers, proofs of clients), by vault (proofs for targets) and by protocol folders (messages).
 * A parser here must never accept two spellings of the same thing: the messages are part of what
 * both sides sign. */
#include "crypto/scram.h"

#include "base/id.h"
#include "base/limits.h"
#include "base/secret.h"

/* ---- arithmetic ---- */
static void keys(const uint8_t salted[static CS_SHA256], uint8_t client_key[static CS_SHA256],
                 uint8_t stored_key[static CS_SHA256], uint8_t server_key[static CS_SHA256])
{
    struct cs_slice s = cs_slice(salted, CS_SHA256);
    cs_hmac_sha256(s, CS_SLICE_LIT("Client Key"), client_key);
    cs_hmac_sha256(s, CS_SLICE_LIT("Server Key"), server_key);
    cs_sha256(cs_slice(client_key, CS_SHA256), stored_key);
}

enum cs_err cs_scram_salted_password(struct cs_slice password, struct cs_slice salt,
                                     uint32_t iterations, uint8_t ret[static CS_SHA256])
{
    return cs_pbkdf2_sha256(password, salt, iterations, ret);
}

enum cs_err cs_scram_verifier_make(struct cs_slice password,
                                   const uint8_t salt[static CS_SCRAM_SALT], uint32_t iterations,
                                   struct cs_scram_verifier *ret)
{
    uint8_t salted[CS_SHA256], client_key[CS_SHA256];
    enum cs_err e =
        cs_scram_salted_password(password, cs_slice(salt, CS_SCRAM_SALT), iterations, salted);
    if (e != CS_OK) {
        return e;
    }
    memcpy(ret->salt, salt, CS_SCRAM_SALT);
    ret->iterations = iterations;
    keys(salted, client_key, ret->stored_key, ret->server_key);
    cs_wipe(salted, sizeof salted);
    cs_wipe(client_key, sizeof client_key);
    return CS_OK;
}

void cs_scram_verifier_mock(struct cs_slice secret_key, struct cs_slice name,
                            struct cs_scram_verifier *ret)
{
    uint8_t mac[CS_SHA256];
    cs_hmac_sha256(secret_key, name, mac);
    memcpy(ret->salt, mac, CS_SCRAM_SALT);
    ret->iterations = CS_LIMIT_SCRAM_ITERATIONS_MIN;
    /* Random stored key: a proof would need a preimage of it under SHA-256. */
    cs_random(ret->stored_key, CS_SHA256);
    cs_random(ret->server_key, CS_SHA256);
}

bool cs_scram_server_check(const struct cs_scram_verifier *v, struct cs_slice auth_message,
                           const uint8_t proof[static CS_SHA256],
                           uint8_t ret_signature[static CS_SHA256])
{
    uint8_t client_key[CS_SHA256], hash[CS_SHA256];
    cs_hmac_sha256(cs_slice(v->stored_key, CS_SHA256), auth_message, client_key);
    for (size_t i = 0; i < CS_SHA256; i++) {
        client_key[i] ^= proof[i];
    }
    cs_sha256(cs_slice(client_key, CS_SHA256), hash);
    bool ok = cs_slice_eq_secret(cs_slice(hash, CS_SHA256), cs_slice(v->stored_key, CS_SHA256));
    cs_wipe(client_key, sizeof client_key);
    if (ok) {
        cs_hmac_sha256(cs_slice(v->server_key, CS_SHA256), auth_message, ret_signature);
    }
    return ok;
}

void cs_scram_client_proof(const uint8_t salted[static CS_SHA256], struct cs_slice auth_message,
                           uint8_t ret_proof[static CS_SHA256],
                           uint8_t ret_server_signature[static CS_SHA256])
{
    uint8_t client_key[CS_SHA256], stored_key[CS_SHA256], server_key[CS_SHA256];
    keys(salted, client_key, stored_key, server_key);
    cs_hmac_sha256(cs_slice(stored_key, CS_SHA256), auth_message, ret_proof);
    for (size_t i = 0; i < CS_SHA256; i++) {
        ret_proof[i] ^= client_key[i];
    }
    cs_hmac_sha256(cs_slice(server_key, CS_SHA256), auth_message, ret_server_signature);
    cs_wipe(client_key, sizeof client_key);
    cs_wipe(stored_key, sizeof stored_key);
    cs_wipe(server_key, sizeof server_key);
}

/* ---- messages ---- */

/* Takes "x=value" up to the next comma (eaten) or the end off the front; false when it is not `x`.
 */
static bool attribute(struct cs_slice *in, char x, struct cs_slice *ret)
{
    if (in->n < 2 || in->p[0] != (uint8_t)x || in->p[1] != '=') {
        return false;
    }
    size_t end = cs_slice_find(*in, ',');
    if (end == in->n - 1) {
        return false; /* a comma with nothing behind it */
    }
    *ret = cs_slice(in->p + 2, end - 2);
    *in = cs_slice_from(*in, end < in->n ? end + 1 : end);
    return true;
}

/* RFC 5802: printable = %x21-2B / %x2D-7E, at least one. */
static bool nonce_valid(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x21 || s.p[i] > 0x7e || s.p[i] == ',') {
            return false;
        }
    }
    return s.n > 0 && s.n <= CS_SCRAM_NONCE_MAX;
}

/* "=" only as "=2C" or "=3D"; no NUL. May be empty: PostgreSQL's clients send the name elsewhere.
 */
static bool name_valid(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == 0) {
            return false;
        }
        if (s.p[i] == '=') {
            struct cs_slice rest = cs_slice_from(s, i + 1);
            if (!cs_slice_starts(rest, CS_SLICE_LIT("2C")) &&
                !cs_slice_starts(rest, CS_SLICE_LIT("3D"))) {
                return false;
            }
        }
    }
    return cs_utf8_valid(s);
}

/* cb-name = 1*(ALPHA / DIGIT / "." / "-") */
static bool binding_name_valid(struct cs_slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '-') {
            return false;
        }
    }
    return s.n > 0;
}

bool cs_scram_parse_client_first_bare(struct cs_slice in, struct cs_slice *ret_name,
                                      struct cs_slice *ret_nonce)
{
    struct cs_slice rest = in, name, nonce;
    if (in.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || !attribute(&rest, 'n', &name) || !name_valid(name) ||
        !attribute(&rest, 'r', &nonce) || !nonce_valid(nonce) || rest.n != 0) {
        return false; /* also "m=" in front and extensions behind */
    }
    *ret_name = name;
    *ret_nonce = nonce;
    return true;
}

bool cs_scram_parse_client_first(struct cs_slice in, struct cs_scram_client_first *ret)
{
    struct cs_scram_client_first m = {0};
    if (in.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || in.n < 3) {
        return false;
    }
    struct cs_slice rest = in;
    m.binding = (char)in.p[0];
    if (m.binding == 'p') {
        if (!attribute(&rest, 'p', &m.binding_name) || !binding_name_valid(m.binding_name)) {
            return false;
        }
    } else if (m.binding == 'n' || m.binding == 'y') {
        if (in.p[1] != ',') {
            return false;
        }
        rest = cs_slice_from(in, 2);
    } else {
        return false;
    }
    if (rest.n == 0 || rest.p[0] != ',') {
        return false; /* an authorisation identity: a second name that nobody authenticated */
    }
    m.bare = cs_slice_from(rest, 1);
    m.gs2_header = cs_slice_head(in, in.n - m.bare.n);
    if (!cs_scram_parse_client_first_bare(m.bare, &m.name, &m.nonce)) {
        return false;
    }
    *ret = m;
    return true;
}

/* Exactly 32 bytes in padded base 64. */
static bool decode_32(struct cs_slice s, uint8_t out[static CS_SHA256])
{
    size_t n;
    return cs_base64_decode(s, false, out, CS_SHA256, &n) && n == CS_SHA256;
}

/* "c=…,r=…" off the front of *in. */
static bool final_bare(struct cs_slice *in, struct cs_slice *binding, struct cs_slice *nonce)
{
    return attribute(in, 'c', binding) && binding->n > 0 && attribute(in, 'r', nonce) &&
           nonce_valid(*nonce);
}

bool cs_scram_parse_client_final_bare(struct cs_slice in, struct cs_slice *ret_channel_binding,
                                      struct cs_slice *ret_nonce)
{
    struct cs_slice rest = in, binding, nonce;
    if (in.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || !final_bare(&rest, &binding, &nonce) ||
        rest.n != 0) {
        return false;
    }
    *ret_channel_binding = binding;
    *ret_nonce = nonce;
    return true;
}

bool cs_scram_parse_client_final(struct cs_slice in, struct cs_scram_client_final *ret)
{
    struct cs_scram_client_final m = {0};
    struct cs_slice rest = in, proof;
    if (in.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || !final_bare(&rest, &m.channel_binding, &m.nonce) ||
        rest.n == 0) {
        return false;
    }
    m.without_proof = cs_slice_head(in, in.n - rest.n - 1);
    if (!attribute(&rest, 'p', &proof) || rest.n != 0 || !decode_32(proof, m.proof)) {
        return false;
    }
    *ret = m;
    return true;
}

bool cs_scram_parse_server_first(struct cs_slice in, struct cs_slice client_nonce,
                                 struct cs_scram_server_first *ret)
{
    struct cs_scram_server_first m = {0};
    struct cs_slice rest = in, salt, rounds;
    uint64_t iterations;
    if (in.n > CS_LIMIT_SCRAM_MESSAGE_BYTES || !attribute(&rest, 'r', &m.nonce) ||
        !nonce_valid(m.nonce) || !attribute(&rest, 's', &salt) ||
        !cs_base64_decode(salt, false, m.salt, sizeof m.salt, &m.salt_n) || m.salt_n == 0 ||
        !attribute(&rest, 'i', &rounds) || rest.n != 0 || rounds.n == 0 || rounds.p[0] == '0' ||
        !cs_slice_to_u64(rounds, &iterations)) {
        return false;
    }
    /* SECURITY: a server that does not add to our nonce replays an old exchange. */
    if (client_nonce.n == 0 || m.nonce.n <= client_nonce.n ||
        !cs_slice_starts(m.nonce, client_nonce)) {
        return false;
    }
    if (iterations < CS_LIMIT_SCRAM_ITERATIONS_MIN || iterations > CS_LIMIT_SCRAM_ITERATIONS_MAX) {
        return false;
    }
    m.iterations = (uint32_t)iterations;
    *ret = m;
    return true;
}

bool cs_scram_parse_server_final(struct cs_slice in, uint8_t ret[static CS_SHA256])
{
    struct cs_slice rest = in, v;
    uint8_t signature[CS_SHA256];
    if (!attribute(&rest, 'v', &v) || rest.n != 0 || !decode_32(v, signature)) {
        return false;
    }
    memcpy(ret, signature, sizeof signature);
    return true;
}
