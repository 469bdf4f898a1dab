#include "crypto/crypto.h"
#include "support.h"
#include "wire/credentials.h"

#include <sys/stat.h>

static struct cs_slice read_source(struct cs_arena *a, const char *name)
{
    struct cs_slice path = cs_arena_printf(a, "%s/%s", CS_SOURCE_DIR, name);
    struct cs_slice text = CS_SLICE_NULL;
    CS_CHECK(cs_config_read_file(NULL, path, 1 << 20, a, &text) == CS_OK);
    return text;
}

static struct compiled compile_example(const char *name)
{
    static struct cs_arena a; /* slices of the report borrow from the text */
    cs_arena_init(&a, 1 << 16, 1 << 24);
    struct compiled c = compile_with(read_source(&a, name), NULL);
    if (c.err != CS_OK) {
        print_report(&c);
        CS_FAIL("%s does not compile", name);
    }
    return c;
}

CS_TEST(example_demo_compiles_without_a_warning)
{
    struct compiled c = compile_example("examples/demo.yaml");
    CS_EQ_U64(c.report.n, 0);
    CS_EQ_STR(c.snapshot.url, "http://127.0.0.1:7443");
    CS_EQ_STR(c.snapshot.store, "/etc/gate/state/state.db");
    CS_EQ_STR(c.snapshot.recordings, "/etc/gate/state/recordings");
    CS_EQ_STR(c.snapshot.master_key.what, "/etc/gate/state/master.key");
    CS_EQ_U64(c.snapshot.system_roots.n, 0);
    CS_EQ_U64(c.snapshot.n_listeners, 3);
    CS_EQ_STR(c.snapshot.listeners[0].kind, "control");
    CS_EQ_STR(c.snapshot.listeners[0].address, "127.0.0.1:7443");
    CS_EQ_U64(c.snapshot.listeners[0].tls, 0);
    CS_EQ_STR(c.snapshot.listeners[1].kind, "local");
    CS_EQ_STR(c.snapshot.listeners[1].address, "/etc/gate/run/control.sock");
    CS_EQ_STR(c.snapshot.listeners[2].name, "postgres");
    CS_EQ_U64(cs_policy_rule_count(c.policy), 4);
    CS_EQ_U64(cs_policy_version(c.policy), c.version);
    CS_EQ_U64(c.snapshot.version, c.version);
    const struct cs_target *t = cs_policy_target(c.policy, CS_SLICE_LIT("orders"));
    CS_CHECK(t != NULL && t->has_elevated);
    CS_EQ_STR(t->kind, "postgres");
    CS_EQ_STR(t->address, "127.0.0.1:5432");
    CS_EQ_STR(t->database, "orders");
    CS_EQ_STR(t->tls, "off");
    CS_EQ_STR(t->user, "orders_ro");
    CS_EQ_STR(t->password, "orders-ro");
    CS_EQ_STR(t->elevated_password, "orders-owner");
    CS_EQ_STR(t->label_keys[0], "env");
    CS_EQ_STR(t->label_values[0], "demo");
    const struct cs_rule *r = cs_policy_rule(c.policy, CS_SLICE_LIT("change-data"));
    CS_CHECK(r != NULL && r->then == CS_HOLD && r->elevated);
    CS_EQ_STR(r->title, "Changing data needs a countersign");
    CS_EQ_U64(r->approvers.within_s, 900);
    CS_EQ_U64(r->approvers.valid_s, 600);
    CS_EQ_U64(r->approvers.wait_s, 0);
    CS_EQ_U64(r->approvers.quorum, 1);
    compiled_done(&c);
}

CS_TEST(example_team_compiles_with_its_files)
{
    struct compiled c = compile_example("examples/team.yaml");
    CS_EQ_U64(c.report.n, 0);
    CS_EQ_U64(c.snapshot.listeners[0].tls, 1);
    CS_EQ_STR(c.snapshot.listeners[0].cert_pem, CERT);
    CS_EQ_STR(c.snapshot.listeners[2].key_pem, KEY);
    const struct cs_target *t = cs_policy_target(c.policy, CS_SLICE_LIT("orders"));
    CS_EQ_STR(t->tls, "verify-full");
    CS_EQ_STR(t->tls_roots, CERT "internal");
    CS_EQ_U64(c.snapshot.system_roots.n, 0); /* nobody needs them */
    const struct cs_rule *r = cs_policy_rule(c.policy, CS_SLICE_LIT("structure-production"));
    CS_EQ_U64(r->approvers.quorum, 2);
    CS_EQ_U64(r->approvers.within_s, 7200);
    CS_EQ_U64(r->approvers.wait_s, 300);
    compiled_done(&c);
}

/* The rules of the example decide as its comments say. */
CS_TEST(example_demo_decides_like_the_products_table)
{
    struct compiled c = compile_example("examples/demo.yaml");
    struct cs_slice agents = CS_SLICE_LIT("agents"), dba = CS_SLICE_LIT("dba");
    struct cs_chain chain = {.n = 2};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:dora"),
                                       CS_SLICE_LIT("dora"), &dba, 1};
    chain.p[1] = (struct cs_principal){CS_PRINCIPAL_AGENT, CS_SLICE_LIT("local:bot"),
                                       CS_SLICE_LIT("bot"), &agents, 1};
    const struct cs_policy_session *s =
        cs_policy_session_new(c.policy, &chain, cs_policy_target_at(c.policy, 0), &c.arena);
    struct cs_facts f;
    memset(&f, 0, sizeof f);
    struct cs_slice ddl = CS_SLICE_LIT("ddl");
    f.v[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.v = &ddl;
    f.v[CS_FACT_SQL_EFFECTS].u.strings.n = 1;
    struct cs_decision d;
    cs_policy_decide(s, &f, &d);
    CS_EQ_U64(d.outcome, CS_HOLD);
    CS_EQ_U64(d.n_rules, 2);
    CS_CHECK(d.elevated);
    compiled_done(&c);
}

#define BASE                                                                                       \
    "version: 1\n"                                                                                 \
    "listeners:\n"                                                                                 \
    "  control: { address: \"127.0.0.1:1\", url: \"https://g:1\" }\n"                              \
    "tls: { certificate: tls/gate.pem, key: tls/gate.key }\n"                                      \
    "store: { sqlite: /s }\nrecordings: { directory: /r }\nmaster_key: /k\n"

#define TARGET                                                                                     \
    "targets:\n"                                                                                   \
    "  - name: t\n"                                                                                \
    "    postgres: { address: \"db:1\", database: d }\n"                                           \
    "    credential: { user: u, password: \"secret:p\" }\n"

CS_TEST(master_keys_come_from_a_file_a_credential_or_a_command)
{
    static const struct {
        const char *yaml;
        enum cs_key_source source;
        struct {
            const char *p;
            size_t n;
        } what;
        uint64_t timeout_s;
    } rows[] = {{"key", CS_KEY_FILE, {"/etc/gate/key", 13}, 0},
                {"{ file: /k }", CS_KEY_FILE, {"/k", 2}, 0},
                {"{ credential: gate-key }", CS_KEY_CREDENTIAL, {"gate-key", 8}, 0},
                {"{ command: [/bin/k, -x, -x] }", CS_KEY_COMMAND, {"/bin/k\0-x\0-x\0", 13}, 10},
                {"{ command: [/bin/k], timeout: 20s }", CS_KEY_COMMAND, {"/bin/k\0", 7}, 20}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        char text[1000];
        (void)snprintf(text, sizeof text,
                       "version: 1\nlisteners:\n  local: { socket: /s }\nstore: { sqlite: /s }\n"
                       "recordings: { directory: /r }\nmaster_key: %s\n"
                       "previous_master_key: /old\n",
                       rows[i].yaml);
        struct compiled a = compile_text(text);
        CS_EQ_U64(a.err, CS_OK);
        CS_EQ_U64(a.snapshot.master_key.source, rows[i].source);
        CS_EQ_SLICE(a.snapshot.master_key.what, cs_slice(rows[i].what.p, rows[i].what.n));
        CS_EQ_U64(a.snapshot.master_key.timeout_s, rows[i].timeout_s);
        CS_EQ_STR(a.snapshot.previous_master_key.what, "/old");
        compiled_done(&a);
    }
}

CS_TEST(keeper_is_told_which_secret_is_for_which_target)
{
    struct compiled a = compile_text(
        BASE "targets:\n"
             "  - name: z\n"
             "    postgres: { address: \"db:1\", database: d, certificate: tls/both.pem }\n"
             "    credential: { user: u, password: \"secret:p\" }\n"
             "    elevated: { user: o, password: \"secret:q\" }\n"
             "    probe: { user: looker, password: \"secret:l\" }\n"
             "  - name: a\n"
             "    postgres: { address: \"db:1\", database: d, channel_binding: disable }\n"
             "    credential: { user: u, password: \"secret:p\" }\n"
             "  - name: m\n"
             "    postgres: { address: \"db:1\", database: d }\n"
             "    credential: { user: u, password: \"secret:r\" }\n");
    struct cs_credential_row row;
    CS_EQ_U64(a.err, CS_OK);
    CS_CHECK(cs_credentials_valid(a.snapshot.credentials));
    CS_CHECK(cs_credentials_find(a.snapshot.credentials, CS_SLICE_LIT("z"), &row));
    CS_EQ_STR(row.secret, "p");
    CS_EQ_STR(row.elevated, "q");
    CS_EQ_STR(row.probe, "l");
    const struct cs_target *z = cs_policy_target(a.policy, CS_SLICE_LIT("z"));
    CS_CHECK(z->has_probe);
    CS_EQ_STR(z->probe_user, "looker");
    CS_EQ_STR(z->probe_password, "l");
    CS_CHECK(row.binding == CS_BINDING_REQUIRE && row.pins.n == 2 * 33);
    CS_CHECK(cs_credential_pinned(&row, CS_SLICE_LIT(SERVER_SHA256)));
    CS_EQ_STR(cs_policy_target(a.policy, CS_SLICE_LIT("z"))->channel_binding, "require");
    CS_CHECK(cs_credentials_find(a.snapshot.credentials, CS_SLICE_LIT("a"), &row));
    CS_CHECK(row.binding == CS_BINDING_DISABLE && row.pins.n == 0 && row.elevated.n == 0);
    CS_CHECK(row.probe.n == 0 && !cs_policy_target(a.policy, CS_SLICE_LIT("a"))->has_probe);
    CS_CHECK(cs_credentials_find(a.snapshot.credentials, CS_SLICE_LIT("m"), &row));
    CS_CHECK(row.binding == CS_BINDING_PREFER);
    compiled_done(&a);
}

CS_TEST(the_version_is_the_contents)
{
    struct compiled a = compile_text(BASE TARGET);
    struct compiled b = compile_text("# a comment\n" BASE TARGET "\n\n");
    CS_EQ_U64(a.err, CS_OK);
    CS_CHECK(a.version != 0 && a.version == b.version);
    CS_EQ_U64(a.blob.len, b.blob.len); /* all the same but the hash of the file itself */
    bool none = true;
    struct compiled c = compile_with(CS_SLICE_LIT(BASE), &none);
    CS_EQ_U64(c.err, CS_OK);
    CS_CHECK(c.version != a.version);
    struct compiled d = compile_text(
        "version: 1\nlisteners:\n  control: { address: \"127.0.0.1:1\", url: \"https://g:1\" }\n"
        "tls: { certificate: tls/other.pem, key: tls/gate.key }\n"
        "store: { sqlite: /s }\nrecordings: { directory: /r }\nmaster_key: /k\n" TARGET);
    CS_EQ_U64(d.err, CS_OK);
    CS_CHECK(d.version != a.version); /* only the certificate's bytes differ */
    compiled_done(&a);
    compiled_done(&b);
    compiled_done(&c);
    compiled_done(&d);
}

CS_TEST(the_snapshot_names_the_file_by_its_bytes)
{
    static const char *const texts[] = {BASE TARGET, "# a comment\n" BASE TARGET};
    for (size_t i = 0; i < CS_ARRAY_LEN(texts); i++) {
        uint8_t hash[CS_SHA256];
        struct compiled a = compile_text(texts[i]);
        CS_EQ_U64(a.err, CS_OK);
        cs_sha256(cs_slice_str(texts[i]), hash);
        CS_EQ_SLICE(a.snapshot.file_sha256, cs_slice(hash, sizeof hash));
        compiled_done(&a);
    }
}

CS_TEST(system_roots_go_in_only_where_a_target_needs_them)
{
    struct compiled a = compile_text(BASE TARGET);
    CS_EQ_U64(a.err, CS_OK);
    CS_EQ_STR(a.snapshot.system_roots, CERT "system");
    CS_EQ_STR(cs_policy_target_at(a.policy, 0)->tls, "verify-full");
    CS_EQ_U64(cs_policy_target_at(a.policy, 0)->tls_roots.n, 0);
    bool none = true;
    struct compiled b = compile_with(CS_SLICE_LIT(BASE TARGET), &none);
    CS_EQ_U64(b.err, CS_ERR_INVALID);
    CS_EQ_U64(b.report.errors, 1);
    CS_EQ_U64(b.report.v[1].line, 10);
    compiled_done(&a);
    compiled_done(&b);
}

CS_TEST(order_of_rules_and_targets_does_not_matter)
{
#define RULE(n)                                                                                    \
    "  - { name: " n ", who: { groups: [g] }, target: { kind: postgres }, then: allow }\n"
    struct compiled a = compile_text(BASE TARGET "rules:\n" RULE("a") RULE("b"));
    struct compiled b = compile_text(BASE TARGET "rules:\n" RULE("b") RULE("a"));
    CS_EQ_U64(a.err, CS_OK);
    CS_EQ_U64(a.version, b.version);
#undef RULE
    compiled_done(&a);
    compiled_done(&b);
}

CS_TEST(users_become_identities)
{
    struct compiled c =
        compile_text(BASE TARGET "rules:\n  - { name: a, who: { users: [alice, \"local:bob\"] }, "
                                 "target: {}, then: allow }\n");
    CS_EQ_U64(c.err, CS_OK);
    struct cs_chain chain = {.n = 1};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:bob"),
                                       CS_SLICE_LIT("x"), NULL, 0};
    const struct cs_target *t = cs_policy_target_at(c.policy, 0);
    CS_CHECK(cs_policy_may_open(cs_policy_session_new(c.policy, &chain, t, &c.arena), NULL));
    chain.p[0].id = CS_SLICE_LIT("okta:alice");
    chain.p[0].name = CS_SLICE_LIT("alice");
    CS_CHECK(!cs_policy_may_open(cs_policy_session_new(c.policy, &chain, t, &c.arena), NULL));
    compiled_done(&c);
}

CS_TEST(compile_survives_a_lack_of_memory)
{
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena a;
        struct cs_buf out = cs_buf(CS_SNAPSHOT_MAX);
        struct cs_config_files files = {.read = memory_read,
                                        .directory = CS_SLICE_LIT("/etc/gate")};
        struct cs_config_report report;
        uint64_t version = 0;
        cs_arena_init(&a, 256, CS_CONFIG_ARENA);
        enum cs_err err = cs_config_compile(
            CS_SLICE_LIT(BASE TARGET "rules:\n  - name: a\n    who: { groups: [g] }\n"
                                     "    target: {}\n    when: |\n      sql.statements == 1\n"
                                     "    then: allow\n"),
            &files, &a, &out, &version, &report);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
        cs_arena_done(&a);
        cs_buf_done(&out);
    }
    CS_CHECK(done);
}

CS_TEST(docs_hold_the_table_of_keys)
{
    struct cs_arena a;
    cs_arena_init(&a, 1 << 16, 1 << 24);
    struct cs_slice docs = read_source(&a, "docs/configuration.md");
    struct cs_buf keys = cs_buf(1 << 20);
    cs_config_keys_text(&keys);
    CS_CHECK(!keys.bad);
    if (memmem(docs.p, docs.n, keys.p, keys.len) == NULL) {
        CS_FAIL("docs/configuration.md is not what `job-compile --keys` prints");
    }
    cs_buf_done(&keys);
    cs_arena_done(&a);
}

CS_TEST(read_file_refuses_what_is_not_a_file)
{
    struct cs_arena a;
    struct cs_slice s;
    char dir[] = "/tmp/cs-config-XXXXXX", path[64];
    cs_arena_init(&a, 1 << 16, 1 << 20);
    CS_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(path, sizeof path, "%s/fifo", dir);
    CS_CHECK(mkfifo(path, 0600) == 0);
    CS_CHECK(cs_config_read_file(NULL, cs_slice_str(path), 100, &a, &s) == CS_ERR_INVALID);
    CS_CHECK(cs_config_read_file(NULL, cs_slice_str(dir), 100, &a, &s) == CS_ERR_INVALID);
    (void)unlink(path);
    CS_CHECK(cs_config_read_file(NULL, cs_slice_str(path), 100, &a, &s) == CS_ERR_NOT_FOUND);
    FILE *f = fopen(path, "w");
    CS_CHECK(f != NULL);
    fputs("0123456789", f);
    fclose(f);
    CS_CHECK(cs_config_read_file(NULL, cs_slice_str(path), 9, &a, &s) == CS_ERR_TOO_LARGE);
    CS_CHECK(cs_config_read_file(NULL, cs_slice_str(path), 10, &a, &s) == CS_OK);
    CS_EQ_STR(s, "0123456789");
    (void)unlink(path);
    (void)rmdir(dir);
    cs_arena_done(&a);
}
