/* What concerns keeper: where the master keys come from, and the table of which secret is which
 * target's. Called by compile.c. It must never let one secret be both an everyday and an elevated
 * one: keeper could then not tell who needs a grant. */
#include "config/compile.h"
#include "crypto/client_certificate.h"
#include "crypto/crypto.h"

#include <stdlib.h>

enum { TIMEOUT_S = 10, TIMEOUT_MAX_S = 20 };

/* ---- master keys ---- */

static struct cs_slice command_line(struct cs_compiler *c, const struct cs_cfg_texts *words)
{
    struct cs_slice out = CS_SLICE_NULL;
    size_t size = 0, at = 0;
    for (size_t i = 0; i < words->n; i++) {
        size += words->v[i].v.n + 1;
    }
    uint8_t *p = cs_arena_alloc(c->arena, size + 1);
    if (p == NULL) {
        c->m->no_memory = true;
        return out;
    }
    for (size_t i = 0; i < words->n; i++) {
        memcpy(p + at, words->v[i].v.p, words->v[i].v.n);
        at += words->v[i].v.n;
        p[at++] = 0;
    }
    return cs_slice(p, at);
}

static void check_timeout(struct cs_compiler *c, const struct cs_cfg_master_key *k)
{
    if (k->timeout.set && !k->command.set) {
        cs_mistake(c->m, k->timeout.pos, "\"timeout\" belongs to \"command\"");
    } else if (k->timeout.set && k->timeout.v > TIMEOUT_MAX_S) {
        cs_mistake(c->m, k->timeout.pos, "\"timeout\" is %llus, but must be at most %ds",
                   (unsigned long long)k->timeout.v, TIMEOUT_MAX_S);
    }
}

static void master_key(struct cs_compiler *c, const char *name, const struct cs_cfg_master_key *k,
                       struct cs_snapshot_key *ret)
{
    if (!k->head.set || k->head.bad) {
        return;
    }
    if (k->file.set + k->credential.set + k->command.set != 1) {
        cs_mistake(c->m, k->head.pos,
                   "\"%s\" must have one of \"file\", \"credential\" and \"command\"", name);
        return;
    }
    check_timeout(c, k);
    if (k->file.set) {
        *ret = (struct cs_snapshot_key){.source = CS_KEY_FILE, .what = cs_cfg_path(c, k->file.v)};
    } else if (k->credential.set) {
        *ret = (struct cs_snapshot_key){.source = CS_KEY_CREDENTIAL, .what = k->credential.v};
        /* SECURITY: it becomes a part of a path. */
        if (cs_slice_eq_str(k->credential.v, ".") || cs_slice_eq_str(k->credential.v, "..")) {
            cs_mistake(c->m, k->credential.pos, "\"%s\" is no name of a credential",
                       cs_shown(k->credential.v));
        }
    } else if (k->command.n > 0) {
        *ret = (struct cs_snapshot_key){.source = CS_KEY_COMMAND,
                                        .what = command_line(c, &k->command),
                                        .timeout_s = k->timeout.set ? k->timeout.v : TIMEOUT_S};
        if (k->command.v[0].v.p[0] != '/') { /* nothing is looked up in a PATH */
            cs_mistake(
                c->m, k->command.v[0].pos,
                "\"command\" starts with \"%s\", but must start with the program's full path",
                cs_shown(k->command.v[0].v));
        }
    }
}

void cs_cfg_master_keys(struct cs_compiler *c)
{
    const struct cs_cfg_top *t = c->cfg;
    struct cs_snapshot *s = &c->snapshot;
    master_key(c, "master_key", &t->master_key, &s->master_key);
    master_key(c, "previous_master_key", &t->previous_master_key, &s->previous_master_key);
    if (s->master_key.source != CS_KEY_NONE &&
        s->master_key.source == s->previous_master_key.source &&
        cs_slice_eq(s->master_key.what, s->previous_master_key.what)) {
        cs_mistake(c->m, t->previous_master_key.head.pos,
                   "\"previous_master_key\" is the same as \"master_key\"");
    }
}

/* ---- client certificates ---- */

_Static_assert((int)CS_SNAPSHOT_FORMS == (int)CS_SAN_MAX, "forms of names");

void cs_cfg_client_certificates(struct cs_compiler *c,
                                const struct cs_cfg_client_certificates *from,
                                struct cs_snapshot_listener *l)
{
    const struct cs_cfg_text *const forms[CS_SAN_MAX] = {
        [CS_SAN_EMAIL] = &from->email, [CS_SAN_URI] = &from->uri, [CS_SAN_DNS] = &from->dns};
    if (!from->head.set || from->head.bad) {
        return;
    }
    if (from->email.set + from->uri.set + from->dns.set != 1) {
        cs_mistake(c->m, from->head.pos,
                   "\"client_certificates\" must have one of \"email\", \"uri\" and \"dns\": which "
                   "name of a certificate says whose it is");
        return;
    }
    for (unsigned i = CS_SAN_NONE + 1; i < CS_SAN_MAX; i++) {
        if (forms[i]->set) {
            l->client_form = i;
            l->client_pattern = forms[i]->v;
        }
    }
    const char *wrong = cs_san_pattern_wrong((enum cs_san_form)l->client_form, l->client_pattern);
    if (wrong != NULL && l->client_pattern.n > 0) {
        cs_mistake(c->m, forms[l->client_form]->pos, "\"%s\" must be %s",
                   cs_shown(l->client_pattern), wrong);
    }
    l->client_authorities =
        cs_cfg_file(c, &from->authorities, "-----BEGIN CERTIFICATE-----", "certificate");
    /* SECURITY: a certificate that is no authority would be accepted for itself alone, which is
     * hardly what was meant; a server's own, put here by mistake, would make a client of it. */
    if (l->client_authorities.n > 0 && !cs_certificate_authorities(l->client_authorities)) {
        cs_mistake(
            c->m, from->authorities.pos,
            "the file \"%s\" holds a certificate that is no authority (CA), or cannot be read",
            cs_shown(from->authorities.v));
    }
}

/* ---- channel binding ---- */

void cs_cfg_channel_binding(struct cs_compiler *c, const struct cs_cfg_target_pg *pg,
                            struct cs_target *t)
{
    bool tls = !cs_slice_eq_str(t->tls, "off");
    t->channel_binding = pg->channel_binding.set ? pg->channel_binding.v
                         : pg->certificate.set   ? CS_SLICE_LIT("require")
                                                 : CS_SLICE_LIT("prefer");
    enum cs_channel_binding word = cs_channel_binding_of(t->channel_binding);
    if (word == CS_BINDING_REQUIRE && !tls) {
        cs_mistake(c->m, pg->channel_binding.set ? pg->channel_binding.pos : pg->certificate.pos,
                   "\"channel_binding: require\" and \"certificate\" need TLS, which is \"off\"");
    }
    if (pg->certificate.set && word != CS_BINDING_REQUIRE && word != CS_BINDING_NONE) {
        cs_mistake(c->m, pg->channel_binding.pos,
                   "with \"certificate\", \"channel_binding\" must be \"require\": without it the "
                   "certificate would not be looked at");
    }
}

static void weaker(struct cs_compiler *c, const struct cs_cfg_text *word, struct cs_target *t)
{
    enum cs_way way = cs_way_of(word->v);
    if (!word->set || way == CS_WAY_SCRAM) {
        return;
    }
    /* SECURITY: whoever answers gets the password, or what it can be guessed from. */
    if (!cs_slice_starts(t->tls, CS_SLICE_LIT("verify-"))) {
        cs_mistake(c->m, word->pos,
                   "\"authentication: %s\" needs a server whose certificate is checked: "
                   "\"tls: verify-full\"",
                   cs_way_name(way));
    } else if (cs_channel_binding_of(t->channel_binding) == CS_BINDING_REQUIRE) {
        cs_mistake(c->m, word->pos,
                   "\"authentication: %s\" is bound to no certificate, which \"channel_binding: "
                   "require\" or \"certificate\" demands",
                   cs_way_name(way));
    } else {
        cs_warning(
            c->m, word->pos,
            way == CS_WAY_MD5
                ? "\"authentication: md5\": a weak password can be guessed from what the "
                  "server is answered; scram-sha-256 gives nothing away"
                : "\"authentication: cleartext\": the gate that speaks to the server sees the "
                  "password, and so does the server; scram-sha-256 shows it to nobody");
    }
}

void cs_cfg_authentication(struct cs_compiler *c, const struct cs_cfg_target *from,
                           struct cs_target *t)
{
    t->authentication = from->credential.authentication.v;
    t->probe_authentication = from->probe.authentication.v;
    weaker(c, &from->credential.authentication, t);
    weaker(c, &from->probe.authentication, t);
    /* SECURITY: a hash or a password that was seen could be used again, without a grant. */
    if (cs_way_of(from->elevated.authentication.v) != CS_WAY_SCRAM) {
        cs_mistake(
            c->m, from->elevated.authentication.pos,
            "an elevated credential is proved by scram-sha-256 only: what a weaker way shows "
            "could be used again without approval");
    }
}

static void pins_of(struct cs_compiler *c, const struct cs_cfg_text *path, struct cs_buf *out)
{
    uint8_t hash[CS_END_POINT_MAX];
    size_t n = 0;
    struct cs_slice pem = cs_cfg_file(c, path, "-----BEGIN CERTIFICATE-----", "certificate");
    for (size_t i = 0; pem.n > 0; i++) {
        enum cs_err e = cs_certificate_end_point(pem, i, hash, &n);
        if (e == CS_ERR_NOT_FOUND && i > 0) {
            return;
        }
        if (e == CS_ERR_NO_MEMORY) {
            c->m->no_memory = true;
            return;
        }
        if (e != CS_OK || i >= CS_PINS_MAX || !cs_credential_pin_add(out, cs_slice(hash, n))) {
            cs_mistake(c->m, path->pos,
                       i >= CS_PINS_MAX ? "the file \"%s\" holds more than four certificates"
                       : e == CS_ERR_UNSUPPORTED
                           ? "a certificate in \"%s\" has a signature (such as Ed25519) for which "
                             "channel binding is not defined"
                           : "the file \"%s\" holds a certificate that cannot be read",
                       cs_shown(path->v));
            return;
        }
    }
}

/* ---- the table ---- */

struct use {
    struct cs_slice secret;
    const struct cs_cfg_text *at;
    bool elevated;
};

static int by_secret(const void *a, const void *b)
{
    const struct use *x = a, *y = b;
    int c = cs_slice_cmp(x->secret, y->secret);
    return c != 0 ? c : x->elevated - y->elevated;
}

/* SECURITY: an everyday proof of the same secret would be the elevated one without a grant. */
static void check_uses(struct cs_compiler *c)
{
    struct use *uses = CS_NEW_ARRAY(c->arena, struct use, 3 * c->n_targets + 1);
    size_t n = 0;
    if (uses == NULL) {
        c->m->no_memory = true;
        return;
    }
    for (size_t i = 0; i < c->n_targets; i++) {
        const struct cs_cfg_target *t = c->from[i];
        uses[n++] = (struct use){t->credential.password.v, &t->credential.password, false};
        if (t->probe.head.set) { /* nobody approves what is looked at either */
            uses[n++] = (struct use){t->probe.password.v, &t->probe.password, false};
        }
        if (t->elevated.head.set) {
            uses[n++] = (struct use){t->elevated.password.v, &t->elevated.password, true};
        }
    }
    qsort(uses, n, sizeof *uses, by_secret);
    for (size_t i = 1; i < n; i++) {
        if (uses[i].secret.n > 0 && uses[i].elevated && !uses[i - 1].elevated &&
            cs_slice_eq(uses[i].secret, uses[i - 1].secret)) {
            cs_mistake(
                c->m, uses[i].at->pos,
                "the secret \"%s\" is an everyday or probe credential's too, on line %u: then it "
                "could be used without approval",
                cs_shown(uses[i].secret), uses[i - 1].at->pos.line);
        }
    }
}

void cs_cfg_credentials(struct cs_compiler *c)
{
    check_uses(c);
    for (size_t i = 0; i < c->n_targets && !c->m->no_memory; i++) {
        const struct cs_target *t = &c->targets[i];
        const struct cs_cfg_text *certificate = &c->from[i]->postgres.certificate;
        struct cs_buf pins = cs_buf(CS_PINS_MAX * (1 + CS_PIN_MAX));
        if (certificate->set) {
            pins_of(c, certificate, &pins);
        }
        const struct cs_credential_row row = {
            .target = t->name,
            .secret = t->password,
            .elevated = t->has_elevated ? t->elevated_password : CS_SLICE_NULL,
            .probe = t->has_probe ? t->probe_password : CS_SLICE_NULL,
            .binding = cs_channel_binding_of(t->channel_binding),
            .way = cs_way_of(t->authentication),
            .probe_way = cs_way_of(t->probe_authentication),
            .user = cs_way_of(t->authentication) != CS_WAY_SCRAM ? t->user : CS_SLICE_NULL,
            .probe_user =
                cs_way_of(t->probe_authentication) != CS_WAY_SCRAM ? t->probe_user : CS_SLICE_NULL,
            .pins = cs_buf_slice(&pins)};
        cs_credentials_write(&c->credentials, &row);
        cs_buf_done(&pins);
    }
}
