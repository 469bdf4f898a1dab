/* The compiler: reads the model, checks what concerns more than one value, fetches the files that
 * it names, compiles the conditions, and writes the snapshot. Called by the compile job. It must
 * never produce a snapshot when anything was wrong, and never stop at the first mistake. */
#include "config/compile.h"

#include "config/values.h"

#include "base/id.h"
#include "base/limits.h"
#include "crypto/crypto.h"

#include <stdlib.h>

enum { DRAIN_S = 3600, BUSY_POLL_US = 50 }; /* if the file says nothing */

/* ---- files ---- */

struct cs_slice cs_cfg_path(struct cs_compiler *c, struct cs_slice path)
{
    if (path.n == 0 || path.p[0] == '/') {
        return path;
    }
    struct cs_slice out = cs_arena_printf(c->arena, "%.*s/%.*s", CS_SLICE_FMT(c->files->directory),
                                          CS_SLICE_FMT(path));
    c->m->no_memory |= out.p == NULL;
    return out;
}

struct cs_slice cs_cfg_file(struct cs_compiler *c, const struct cs_cfg_text *path,
                            const char *must_hold, const char *what)
{
    struct cs_slice out = CS_SLICE_NULL;
    if (path->v.n == 0) {
        return out; /* reported by the reader */
    }
    struct cs_slice full = cs_cfg_path(c, path->v);
    enum cs_err err = c->files->read(c->files->arg, full, CS_CONFIG_FILE_BYTES, c->arena, &out);
    if (err == CS_ERR_NO_MEMORY) {
        c->m->no_memory = true;
    } else if (err != CS_OK) {
        cs_mistake(c->m, path->pos, "the file \"%s\" cannot be read: %s", cs_shown(full),
                   cs_config_file_problem(err));
    } else if (memmem(out.p, out.n, must_hold, strlen(must_hold)) == NULL) {
        cs_mistake(c->m, path->pos, "the file \"%s\" holds no %s in PEM form (\"%s\")",
                   cs_shown(full), what, must_hold);
    } else {
        return out;
    }
    return CS_SLICE_NULL;
}

/* ---- listeners ---- */

static struct cs_snapshot_listener *add_listener(struct cs_compiler *c, const char *name,
                                                 struct cs_slice address)
{
    struct cs_snapshot_listener *l = &c->snapshot.listeners[c->snapshot.n_listeners++];
    *l = (struct cs_snapshot_listener){
        .name = cs_slice_str(name), .kind = cs_slice_str(name), .address = address};
    return l;
}

/* SECURITY: an empty list would be no list: then any client could say that it is somebody else. */
static struct cs_slice networks(struct cs_compiler *c, const struct cs_cfg_texts *from)
{
    if (!from->set) {
        return CS_SLICE_NULL;
    }
    if (from->n == 0) {
        cs_mistake(c->m, from->pos,
                   "\"proxy_from\" is empty: name the load balancers, or leave it out");
        return CS_SLICE_NULL;
    }
    uint8_t *out = cs_arena_alloc(c->arena, from->n * CS_VALUE_NETWORK);
    if (out == NULL) {
        c->m->no_memory = true;
        return CS_SLICE_NULL;
    }
    for (size_t i = 0; i < from->n; i++) {
        const char *wrong = cs_value_network(from->v[i].v, out + i * CS_VALUE_NETWORK);
        if (wrong != NULL) {
            cs_mistake(c->m, from->v[i].pos, "\"%s\" must be %s", cs_shown(from->v[i].v), wrong);
        }
    }
    return cs_slice(out, from->n * CS_VALUE_NETWORK);
}

/* TLS is on unless "off" is written: a listener without a certificate is a mistake, not plain text.
 */
static void add_network_listener(struct cs_compiler *c, const char *name,
                                 const struct cs_cfg_listener *from)
{
    if (!from->head.set) {
        return;
    }
    struct cs_snapshot_listener *l = add_listener(c, name, from->address.v);
    l->proxy_from = networks(c, &from->proxy_from);
    const struct cs_cfg_tls *tls = from->tls.head.set ? &from->tls : &c->cfg->tls;
    if (tls->head.off && from->client_certificates.head.set) {
        cs_mistake(c->m, from->client_certificates.head.pos,
                   "\"client_certificates\" need TLS, which is \"off\"");
    }
    if (tls->head.off) {
        if (from->address.v.n > 0 && !cs_value_is_loopback(from->address.v)) {
            cs_warning(c->m, tls->head.pos,
                       "without TLS, tokens and data travel in clear to \"%s\"",
                       cs_shown(from->address.v));
        }
        return;
    }
    if (!tls->head.set) {
        cs_mistake(c->m, from->head.pos,
                   "listeners.%s has no certificate: name one under \"tls\", here or at the top "
                   "(certificate: FILE, key: FILE), or write \"tls: off\"",
                   name);
        return;
    }
    l->tls = 1;
    cs_cfg_client_certificates(c, &from->client_certificates, l);
    l->cert_pem = cs_cfg_file(c, &tls->certificate, "-----BEGIN CERTIFICATE-----", "certificate");
    l->key_pem = cs_cfg_file(c, &tls->key, "PRIVATE KEY-----", "private key");
    if (l->cert_pem.n > 0 && l->key_pem.n > 0 && c->files->fits != NULL &&
        !c->files->fits(l->cert_pem, l->key_pem)) {
        cs_mistake(c->m, tls->certificate.pos,
                   "the certificate in \"%s\" does not belong to the key in \"%s\", or one of them "
                   "cannot be read",
                   cs_shown(tls->certificate.v), cs_shown(tls->key.v));
    }
}

static void check_listeners(struct cs_compiler *c)
{
    const struct cs_cfg_listeners *l = &c->cfg->listeners;
    if (!l->head.set || l->head.bad) {
        return;
    }
    if (!l->control.head.set && !l->local.head.set) {
        cs_mistake(c->m, l->head.pos,
                   "neither listeners.control nor listeners.local is there: "
                   "nobody could approve anything");
    }
    if (l->control.address.v.n > 0 && cs_slice_eq(l->control.address.v, l->postgres.address.v)) {
        cs_mistake(c->m, l->postgres.address.pos, "\"%s\" is the address of listeners.control too",
                   cs_shown(l->postgres.address.v));
    }
    if (l->metrics.address.v.n > 0 && (cs_slice_eq(l->metrics.address.v, l->postgres.address.v) ||
                                       cs_slice_eq(l->metrics.address.v, l->control.address.v))) {
        cs_mistake(c->m, l->metrics.address.pos, "\"%s\" is the address of another listener too",
                   cs_shown(l->metrics.address.v));
    }
    add_network_listener(c, "control", &l->control);
    if (l->local.head.set) {
        struct cs_slice path = cs_cfg_path(c, l->local.socket.v);
        if (path.n > 107) { /* sockaddr_un */
            cs_mistake(c->m, l->local.socket.pos,
                       "the path of a socket has 107 bytes at most, "
                       "this one has %zu",
                       path.n);
        }
        (void)add_listener(c, "local", path);
    }
    add_network_listener(c, "postgres", &l->postgres);
    add_network_listener(c, "metrics", &l->metrics);
    bool off = l->control.tls.head.off;
    bool https = cs_slice_starts(l->control.url.v, CS_SLICE_LIT("https://"));
    if (l->control.url.v.n > 0 && !off && !https) {
        cs_mistake(c->m, l->control.url.pos,
                   "\"url\" is \"%s\", but the listener uses TLS: it must "
                   "start with https://",
                   cs_shown(l->control.url.v));
    }
    c->snapshot.url = l->control.url.v;
}

static void check_top(struct cs_compiler *c)
{
    const struct cs_cfg_top *t = c->cfg;
    if (t->version.set && t->version.v != 1) {
        cs_mistake(c->m, t->version.pos, "\"version\" is %llu, but this program knows version 1",
                   (unsigned long long)t->version.v);
    }
    const struct cs_cfg_identity *id = t->identity.v;
    if (t->identity.set && t->identity.n == 0) {
        cs_mistake(c->m, t->identity.pos, "\"identity\" is empty: nobody could log in");
    }
    for (size_t i = 1; i < t->identity.n; i++) {
        if (id[i].name.v.n > 0 && cs_slice_eq(id[i].name.v, id[0].name.v)) {
            cs_mistake(c->m, id[i].name.pos, "the identity provider \"%s\" is there twice",
                       cs_shown(id[i].name.v));
        }
    }
    c->snapshot.drain_s = t->upgrade.drain.set ? t->upgrade.drain.v : DRAIN_S;
    if (c->snapshot.drain_s > CS_LIMIT_DRAIN_S) {
        cs_mistake(c->m, t->upgrade.drain.pos, "\"drain\" is at most %d hours",
                   CS_LIMIT_DRAIN_S / 3600);
    }
    c->snapshot.busy_poll_us = t->busy_poll.set ? t->busy_poll.v : BUSY_POLL_US;
    if (c->snapshot.busy_poll_us > CS_LIMIT_BUSY_POLL_US) {
        cs_mistake(c->m, t->busy_poll.pos, "\"busy_poll\" is at most %d microseconds",
                   CS_LIMIT_BUSY_POLL_US);
    }
    c->snapshot.store = cs_cfg_path(c, t->store.sqlite.v);
    c->snapshot.recordings = cs_cfg_path(c, t->recordings.directory.v);
    cs_cfg_master_keys(c);
    uint8_t escrow[CS_X25519];
    c->snapshot.escrow = t->recordings.escrow.v;
    if (t->recordings.escrow.set && !cs_unhex(c->snapshot.escrow, escrow, sizeof escrow)) {
        cs_mistake(c->m, t->recordings.escrow.pos,
                   "\"escrow\" is not an X25519 public key of 64 hexadecimal digits");
    }
}

/* ---- targets ---- */

static struct cs_names names_of(struct cs_compiler *c, const struct cs_cfg_text *v, size_t n)
{
    struct cs_names out = {NULL, 0};
    if (n == 0) {
        return out;
    }
    out.v = CS_NEW_ARRAY(c->arena, struct cs_slice, n);
    if (out.v == NULL) {
        c->m->no_memory = true;
        return out;
    }
    for (; out.n < n; out.n++) {
        out.v[out.n] = v[out.n].v;
    }
    return out;
}

struct cs_names cs_cfg_names(struct cs_compiler *c, const struct cs_cfg_texts *from)
{
    return names_of(c, from->v, from->n);
}

void cs_cfg_labels(struct cs_compiler *c, const struct cs_cfg_labels *from, struct cs_names *keys,
                   struct cs_names *values)
{
    *keys = names_of(c, from->keys, from->n);
    *values = names_of(c, from->values, from->n);
}

static void check_target_tls(struct cs_compiler *c, const struct cs_cfg_target_pg *pg,
                             struct cs_target *t)
{
    bool verify = false;
    t->tls = pg->tls.set ? pg->tls.v : CS_SLICE_LIT("verify-full");
    if (cs_slice_eq_str(t->tls, "require")) {
        cs_warning(c->m, pg->tls.pos,
                   "\"tls: require\" encrypts without checking who answers: "
                   "whoever is in between can read along; verify-full checks");
    } else if (cs_slice_eq_str(t->tls, "off")) {
        if (!cs_value_is_loopback(pg->address.v)) {
            cs_warning(c->m, pg->tls.pos, "\"tls: off\": statements and rows travel in clear");
        }
    } else {
        verify = t->tls.n > 0;
    }
    if (pg->roots.set && !verify) {
        cs_warning(c->m, pg->roots.pos, "\"roots\" is not used with this \"tls\"");
    }
    if (pg->roots.set) {
        t->tls_roots = cs_cfg_file(c, &pg->roots, "-----BEGIN CERTIFICATE-----", "certificate");
    } else if (verify && !c->system_roots_tried) {
        static const struct cs_slice path = {(const uint8_t *)"/etc/ssl/certs/ca-certificates.crt",
                                             34};
        c->system_roots_tried = true;
        if (c->files->read(c->files->arg, path, 4 * CS_CONFIG_FILE_BYTES, c->arena,
                           &c->snapshot.system_roots) != CS_OK) {
            c->snapshot.system_roots = CS_SLICE_NULL;
        }
    }
    cs_cfg_channel_binding(c, pg, t);
    if (verify && !pg->roots.set && c->snapshot.system_roots.n == 0) {
        cs_mistake(c->m, pg->tls.set ? pg->tls.pos : pg->head.pos,
                   "the server's certificate cannot be checked: this machine has no trust anchors "
                   "of its own; name a file with \"roots\"");
    }
}

static void compile_target(struct cs_compiler *c, const struct cs_cfg_target *from,
                           struct cs_target *t)
{
    struct cs_names keys, values;
    cs_cfg_labels(c, &from->labels, &keys, &values);
    *t = (struct cs_target){.name = from->name.v,
                            .kind = CS_SLICE_LIT("postgres"),
                            .address = from->postgres.address.v,
                            .database = from->postgres.database.v,
                            .label_keys = keys.v,
                            .label_values = values.v,
                            .n_labels = keys.n,
                            .user = from->credential.user.v,
                            .password = from->credential.password.v,
                            .has_elevated = from->elevated.head.set,
                            .elevated_user = from->elevated.user.v,
                            .elevated_password = from->elevated.password.v,
                            .elevated_database = from->elevated.database.v,
                            .has_probe = from->probe.head.set,
                            .probe_user = from->probe.user.v,
                            .probe_password = from->probe.password.v};
    if (from->postgres.head.set && !from->postgres.head.bad) {
        check_target_tls(c, &from->postgres, t);
    }
    cs_cfg_authentication(c, from, t);
    if (t->has_elevated && t->user.n > 0 && cs_slice_eq(t->user, t->elevated_user)) {
        cs_warning(
            c->m, from->elevated.user.pos,
            "\"elevated\" is the same role as \"credential\": then what the rules hold could "
            "be done without approval, if the rules have a gap");
    }
    /* SECURITY: what reads a server's answers would have that role's rights without a grant. */
    if (t->has_probe && t->has_elevated && t->probe_user.n > 0 &&
        cs_slice_eq(t->probe_user, t->elevated_user)) {
        cs_mistake(c->m, from->probe.user.pos,
                   "\"probe\" is the same role as \"elevated\": what is looked at needs no such "
                   "rights, and would have them without approval");
    }
}

static int by_target_name(const void *a, const void *b)
{
    const struct cs_cfg_target *const *x = a, *const *y = b;
    int c = cs_slice_cmp((*x)->name.v, (*y)->name.v);
    return c != 0 ? c : (*x < *y ? -1 : *x > *y);
}

static void compile_targets(struct cs_compiler *c)
{
    const struct cs_cfg_list *list = &c->cfg->targets;
    const struct cs_cfg_target *from = list->v;
    if (list->n > CS_POLICY_TARGETS) {
        cs_mistake(c->m, list->pos, "more than %d targets", CS_POLICY_TARGETS);
        return;
    }
    c->targets = CS_NEW_ARRAY(c->arena, struct cs_target, list->n + 1);
    const struct cs_cfg_target **order =
        CS_NEW_ARRAY(c->arena, const struct cs_cfg_target *, list->n + 1);
    if (c->targets == NULL || order == NULL) {
        c->m->no_memory = true;
        return;
    }
    for (size_t i = 0; i < list->n; i++) {
        order[i] = &from[i];
    }
    qsort(order, list->n, sizeof(order[0]), by_target_name);
    for (size_t i = 0; i < list->n && !c->m->no_memory; i++) {
        if (i > 0 && order[i]->name.v.n > 0 &&
            cs_slice_eq(order[i]->name.v, order[i - 1]->name.v)) {
            cs_mistake(c->m, order[i]->name.pos, "the target name \"%s\" is taken, on line %u",
                       cs_shown(order[i]->name.v), order[i - 1]->name.pos.line);
        }
        compile_target(c, order[i], &c->targets[c->n_targets++]);
    }
    c->from = order;
}

/* ---- all of it ---- */

static enum cs_err write_snapshot(struct cs_compiler *c, struct cs_buf *out, uint64_t *ret_version)
{
    uint64_t version = 0;
    uint8_t file[CS_SHA256];
    cs_sha256(c->text, file);
    /* Twice: with version 0 for the hash, then with the hash as version. The version is of what the
     * configuration means: another comment in the file is no other version. */
    for (int round = 0; round < 2; round++) {
        struct cs_policy_source src = {version, c->rules, c->n_rules, c->targets, c->n_targets};
        struct cs_buf policy = cs_buf(CS_SNAPSHOT_MAX);
        struct cs_buf blob = cs_buf(CS_SNAPSHOT_MAX);
        uint8_t hash[CS_SHA256];
        cs_policy_build(&src, &policy);
        c->snapshot.version = version;
        c->snapshot.file_sha256 = round == 0 ? CS_SLICE_NULL : cs_slice(file, sizeof file);
        c->snapshot.credentials = cs_buf_slice(&c->credentials);
        c->snapshot.policy = cs_buf_slice(&policy);
        if (!policy.bad && !c->credentials.bad) {
            cs_snapshot_write(round == 0 ? &blob : out, &c->snapshot);
        }
        bool bad = policy.bad || c->credentials.bad || blob.bad || out->bad;
        cs_sha256(cs_buf_slice(&blob), hash);
        for (size_t i = 0; round == 0 && i < sizeof version; i++) {
            version = version << 8 | hash[i];
        }
        version += version == 0;
        cs_buf_done(&policy);
        cs_buf_done(&blob);
        if (bad) {
            return CS_ERR_NO_MEMORY;
        }
    }
    c->snapshot.file_sha256 = CS_SLICE_NULL;
    *ret_version = version;
    return CS_OK;
}

enum cs_err cs_config_compile(struct cs_slice text, const struct cs_config_files *files,
                              struct cs_arena *a, struct cs_buf *out, uint64_t *ret_version,
                              struct cs_config_report *ret_report)
{
    *ret_report = (struct cs_config_report){NULL, 0, 0, 0};
    struct cs_mistakes *m = CS_NEW(a, struct cs_mistakes);
    struct cs_cfg_top *cfg = CS_NEW(a, struct cs_cfg_top);
    struct cs_compiler *c = CS_NEW(a, struct cs_compiler);
    if (m == NULL || cfg == NULL || c == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    m->arena = a;
    *c = (struct cs_compiler){.m = m,
                              .arena = a,
                              .files = files,
                              .text = text,
                              .cfg = cfg,
                              .credentials = cs_buf(CS_CREDENTIALS_MAX)};
    const struct cs_yaml_node *root = cs_yaml_tree(text, m);
    if (root != NULL && cs_cfg_read(root, m, a, cfg) && !cfg->head.bad) {
        check_top(c);
        check_listeners(c);
        compile_targets(c);
        cs_cfg_credentials(c);
        if (!m->no_memory) {
            cs_cfg_compile_rules(c);
        }
    }
    enum cs_err e = CS_ERR_NO_MEMORY;
    if (!m->no_memory) {
        cs_mistakes_report(m, ret_report);
        e = m->errors > 0 ? CS_ERR_INVALID : write_snapshot(c, out, ret_version);
    }
    cs_buf_done(&c->credentials);
    return e;
}
