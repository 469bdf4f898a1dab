#include "support.h"

/* ---- ten mistakes in one file ---- */

CS_TEST(a_file_with_ten_mistakes_reports_all_ten)
{
    static const char text[] =
        "version: 2\n"                                                            /* 1 */
        "listeners:\n"                                                            /* 2 */
        "  control:  { address: \"0.0.0.0\", url: \"https://gate:7443\" }\n"      /* 3 */
        "  postgres: { address: \"0.0.0.0:7432\", tls: of }\n"                    /* 4 */
        "tls: { certificate: tls/gate.pem, key: tls/missing.key }\n"              /* 5 */
        "store: { sqlite: /s }\n"                                                 /* 6 */
        "recordings: { directory: /r }\n"                                         /* 7 */
        "master_key: /k\n"                                                        /* 8 */
        "targets:\n"                                                              /* 9 */
        "  - name: orders\n"                                                      /* 10 */
        "    postgres: { address: \"db:5432\", database: o, tls: verify-full }\n" /* 11 */
        "    credential: { user: u, password: hunter2 }\n"                        /* 12 */
        "rules:\n"                                                                /* 13 */
        "  - name: read\n"                                                        /* 14 */
        "    who: { groups: [agents] }\n"                                         /* 15 */
        "    target: { kind: postgres }\n"                                        /* 16 */
        "    when: |\n"                                                           /* 17 */
        "      sql.effects.all(e,\n"                                              /* 18 */
        "        e in [\"session\", \"raed\"])\n"                                 /* 19 */
        "    then: allow\n"                                                       /* 20 */
        "    mask: []\n"                                                          /* 21 */
        "  - name: read\n"                                                        /* 22 */
        "    who: { groups: [dba] }\n"                                            /* 23 */
        "    target: { kind: postgres }\n"                                        /* 24 */
        "    then: hold\n"                                                        /* 25 */
        "    run_as: elevated\n"                                                  /* 26 */
        "    approvers: { groups: [dba], quorm: 2 }\n";                           /* 27 */
    static const struct {
        uint32_t line, column;
        const char *says;
    } want[] = {
        {1, 10, "\"version\" is 2"},
        {3, 24, "\"address\" is \"0.0.0.0\", but must be host:port"},
        {4, 45, "\"tls\" must be \"off\""},
        {5, 40, "the file \"/etc/gate/tls/missing.key\" cannot be read: there is no such file"},
        {12, 38, "\"password\" must be \"secret:NAME\""},
        {19, 26, "\"raed\" is never one of these values"},
        {21, 5, "not in this version: \"mask\""},
        {22, 11, "the rule name \"read\" is taken, on line 14"},
        {26, 13, "there is no \"elevated\" credential for \"orders\""},
        {27, 33, "unknown key \"quorm\" in rules[].approvers; did you mean \"quorum\"?"},
    };
    struct compiled c = compile_text(text);
    CS_EQ_U64(c.err, CS_ERR_INVALID);
    if (c.report.n != CS_ARRAY_LEN(want)) {
        print_report(&c);
    }
    CS_EQ_U64(c.report.n, CS_ARRAY_LEN(want));
    CS_EQ_U64(c.report.errors, CS_ARRAY_LEN(want));
    for (size_t i = 0; i < CS_ARRAY_LEN(want); i++) {
        const struct cs_config_mistake *m = &c.report.v[i];
        CS_EQ_U64(m->line, want[i].line);
        CS_EQ_U64(m->column, want[i].column);
        CS_CHECK(memmem(m->text.p, m->text.n, want[i].says, strlen(want[i].says)) != NULL);
        /* A password written in clear is not repeated in a message. */
        CS_CHECK(memmem(m->text.p, m->text.n, "hunter2", 7) == NULL);
    }
    struct cs_buf out = cs_buf(1 << 16);
    cs_config_report_text(&c.report, CS_SLICE_LIT("gate.yaml"), 1 << 16, &out);
    CS_CHECK(cs_slice_starts(cs_buf_slice(&out),
                             CS_SLICE_LIT("gate.yaml:1:10: error: \"version\" is 2, but")));
    out.len = 0;
    cs_config_report_text(&c.report, CS_SLICE_LIT("gate.yaml"), 200, &out);
    CS_CHECK(out.len <= 200 && out.p[out.len - 1] == '\n');
    cs_buf_done(&out);
    compiled_done(&c);
}

/* ---- one mistake at a time: replace a piece of a good file; "@" marks the place expected ---- */

static const char good[] =
    "version: 1\n"
    "listeners:\n"
    "  control:  { address: \"127.0.0.1:1\", url: \"https://g:1\" }\n"
    "  local:    { socket: run/sock }\n"
    "  postgres: { address: \"127.0.0.1:2\" }\n"
    "tls: { certificate: tls/gate.pem, key: tls/gate.key }\n"
    "store: { sqlite: /s }\n"
    "recordings: { directory: /r }\n"
    "master_key: /k\n"
    "identity: [ { name: local } ]\n"
    "targets:\n"
    "  - name: orders\n"
    "    labels: { env: prod }\n"
    "    postgres: { address: \"db:1\", database: d, tls: verify-full }\n"
    "    credential: { user: u, password: \"secret:p\" }\n"
    "    elevated: { user: o, password: \"secret:q\" }\n"
    "rules:\n"
    "  - name: read\n"
    "    who: { groups: [agents], except: { groups: [dba] } }\n"
    "    target: { kind: postgres, labels: { env: prod } }\n"
    "    when: |\n"
    "      sql.statements == 1\n"
    "    then: hold\n"
    "    run_as: elevated\n"
    "    approvers: { groups: [dba], quorum: 1, assurance: token, within: 15m }\n";

struct row {
    const char *find, *replace, *says;
};

/* The good file with one piece replaced; the "@" is taken out and its place returned. */
static struct cs_slice edited(const struct row *r, struct cs_buf *out, uint32_t *line,
                              uint32_t *column)
{
    const char *at = strstr(good, r->find);
    if (at == NULL) {
        CS_FAIL("no \"%s\" in the good file", r->find);
    }
    out->len = 0;
    cs_buf_add(out, cs_slice(good, (size_t)(at - good)));
    const char *mark = strchr(r->replace, '@');
    cs_buf_add(
        out, cs_slice(r->replace, mark != NULL ? (size_t)(mark - r->replace) : strlen(r->replace)));
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < out->len; i++) {
        bool newline = out->p[i] == '\n';
        *line += newline;
        *column = newline ? 1 : *column + ((out->p[i] & 0xc0) != 0x80);
    }
    cs_buf_str(out, mark != NULL ? mark + 1 : "");
    cs_buf_str(out, at + strlen(r->find));
    return cs_buf_slice(out);
}

static void check_rows(const struct row *rows, size_t n, bool warning)
{
    struct cs_buf text = cs_buf(1 << 20);
    for (size_t i = 0; i < n; i++) {
        uint32_t line = 0, column = 0;
        struct compiled c = compile_with(edited(&rows[i], &text, &line, &column), NULL);
        const struct cs_config_mistake *m = c.report.v;
        if (c.err != (warning ? CS_OK : CS_ERR_INVALID) || c.report.n != 1 || m->line != line ||
            m->column != column || m->warning != warning ||
            memmem(m->text.p, m->text.n, rows[i].says, strlen(rows[i].says)) == NULL) {
            print_report(&c);
            CS_FAIL("row %zu (%s): expected one at %u:%u that says %s", i, rows[i].replace, line,
                    column, rows[i].says);
        }
        compiled_done(&c);
    }
    cs_buf_done(&text);
}

CS_TEST(the_good_file_is_good)
{
    struct compiled c = compile_text(good);
    print_report(&c);
    CS_EQ_U64(c.err, CS_OK);
    CS_EQ_U64(c.report.n, 0);
    compiled_done(&c);
}

CS_TEST(yaml_is_strict)
{
    static const struct row rows[] = {
        {"when: |\n      sql.statements == 1", "when: @!has(sql.verb)", "is a tag to YAML"},
        {"when: |\n      sql.statements == 1", "when: @!sql.effects.exists(e, true)",
         "starts a tag to YAML"},
        {"when: |\n      sql.statements == 1", "when: @!!str |\n      true", "is a tag to YAML"},
        {"when: |\n      sql.statements == 1", "when: @&x |\n      true", "is an anchor"},
        {"when: |\n      sql.statements == 1", "when: @sql.statements == 1", "as a block"},
        {"when: |\n      sql.statements == 1", "when: @\"sql.statements == 1\"", "as a block"},
        {"when: |\n      sql.statements == 1", "when: @>\n      sql.statements == 1", "as a block"},
        {"when: |\n      sql.statements == 1", "when: @|\n\n", "condition is empty"},
        {"when: |\n      sql.statements == 1\n", "when:@\n", "as a block"},
        {"{ groups: [agents]", "{ groups: @*x", "is an alias"},
        {"version: 1", "version: 1\n@<<: { a: b }", "merge keys"},
        {"version: 1", "version: 1\n@version: 1", "a second time; the first one is on line 1"},
        {"{ env: prod }\n", "{ env: prod, @env: test }\n", "a second time"},
        {"version: 1", "@%YAML 1.1\n---\nversion: 1", "directives"},
        {"within: 15m }\n", "within: 15m }\n@---\nversion: 1\n", "second document"},
        {"version: 1", "version: 1\n? @[a]\n: 1", "a key must be a word"},
        {"version: 1", "version: 1\nx: [[[[[[[[[[[@[[[[]]]]]]]]]]]]]]]", "levels deep"},
        {"version: 1", "version: 1\nx: \"@\xff\"", "not UTF-8"},
        {"version: 1", "version: 1\nx: \"\xc3\xa9@\xed\xa0\x80\"", "not UTF-8"},
        {"version: 1", "version: 1\nx: \"@\x01\"", "not valid YAML"},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), false);
    /* Where libyaml sees the end of an open bracket is its own affair. */
    struct compiled c = compile_text("version: 1\nlisteners: [a\nstore: 1\n");
    CS_EQ_U64(c.err, CS_ERR_INVALID);
    CS_EQ_U64(c.report.n, 1);
    compiled_done(&c);
}

CS_TEST(a_whole_file_can_be_wrong)
{
    static const struct {
        const char *text, *says;
    } rows[] = {{"", "empty"},
                {"# nothing\n", "empty"},
                {"- a\n", "must be a mapping"},
                {"just words\n", "must be a mapping"},
                {"null\n", "must be a mapping"}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        struct compiled c = compile_text(rows[i].text);
        CS_EQ_U64(c.err, CS_ERR_INVALID);
        CS_EQ_U64(c.report.n, 1);
        CS_EQ_U64(c.report.v[0].line, 1);
        CS_CHECK(memmem(c.report.v[0].text.p, c.report.v[0].text.n, rows[i].says,
                        strlen(rows[i].says)) != NULL);
        compiled_done(&c);
    }
    struct compiled nul = compile_with(CS_SLICE_LIT("version: 1\0"), NULL);
    CS_EQ_U64(nul.err, CS_ERR_INVALID);
    compiled_done(&nul);
    struct compiled utf16 = compile_with(CS_SLICE_LIT("\xff\xfev\0e\0"), NULL);
    CS_EQ_U64(utf16.err, CS_ERR_INVALID);
    compiled_done(&utf16);
}

CS_TEST(values_are_checked)
{
    static const struct row rows[] = {
        {"version: 1", "version: @one", "\"version\" is \"one\""},
        {"version: 1", "version: @\"1\"", "must be a number"},
        {"version: 1", "version: @[1]", "not a list"},
        {"version: 1", "version:@", "\"version\" is empty"},
        {"version: 1", "version: 1\nbusy_poll: @1001", "at most 1000 microseconds"},
        {"version: 1", "version: 1\nbusy_poll: @50us", "must be a number"},
        {"master_key: /k", "master_key: @~", "is empty"},
        {"master_key: /k", "master_key: @\"\"", "is empty"},
        {"master_key: /k", "master_key: { file: /k, @a: b }", "unknown key \"a\""},
        {"master_key: /k", "master_key: @{ file: a, credential: b }", "one of"},
        {"master_key: /k", "master_key: @{ timeout: 3s }", "one of"},
        {"master_key: /k", "master_key: { file: a, timeout: @3s }", "belongs to"},
        {"master_key: /k", "master_key: { command: [/k], timeout: @21s }", "at most 20s"},
        {"master_key: /k", "master_key: { command: [@k] }", "full path"},
        {"master_key: /k", "master_key: { command: @[] }", "at least one"},
        {"master_key: /k", "master_key: { credential: @a/b }", "must be"},
        {"master_key: /k", "master_key: { credential: @.. }", "no name of a credential"},
        {"master_key: /k", "master_key: @[/k]", "must be a mapping"},
        {"master_key: /k", "master_key: /k\nprevious_master_key: @/k", "the same as"},
        {"\"127.0.0.1:1\"", "@\"127.0.0.1:65536\"", "host:port"},
        {"\"127.0.0.1:1\"", "@\":1\"", "host:port"},
        {"\"127.0.0.1:1\"", "@\"a b:1\"", "host:port"},
        {"\"127.0.0.1:1\"", "@\"::1:1\"", "host:port"},
        {"\"https://g:1\"", "@\"ftp://g\"", "https://host:port"},
        {"\"https://g:1\"", "@\"https://\"", "https://host:port"},
        {"\"https://g:1\"", "@\"https://g/ x\"", "https://host:port"},
        {"\"https://g:1\"", "@\"http://g:1\"", "must start with https://"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", tls: off, client_certificates: @{ authorities: tls/server.pem, uri: "
         "\"x:{name}\" }",
         "need TLS"},
        {"\"127.0.0.1:2\"", "@\"127.0.0.1:1\"", "address of listeners.control too"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: @{ authorities: tls/server.pem }",
         "must have one of"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: @{ authorities: tls/server.pem, dns: \"{name}.x\", "
         "uri: \"x:{name}\" }",
         "must have one of"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: { authorities: tls/server.pem, dns: @\"{name}\" }",
         "like {name}.agents"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: { authorities: tls/server.pem, email: "
         "@\"bot@example.com\" }",
         "with {name} in it once"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: { authorities: @tls/gate.pem, uri: \"x:{name}\" }",
         "is no authority (CA)"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: { authorities: @tls/none.pem, uri: \"x:{name}\" }",
         "no such file"},
        {"\"127.0.0.1:2\"", "\"127.0.0.1:2\", client_certificates: @{ uri: \"x:{name}\" }",
         "authorities"},
        {"\"127.0.0.1:2\"",
         "\"127.0.0.1:2\", client_certificates: { authorities: tls/server.pem, uri: \"x:{name}\", "
         "@crl: x }",
         "unknown key"},
        {"name: local", "name: @okta", "must be \"local\""},
        {"identity: [ { name: local } ]", "identity: @[]", "nobody could log in"},
        {"[ { name: local } ]", "[ { name: local }, { name: @local } ]", "there twice"},
        {"name: orders", "name: @\"or ders\"", "letters, digits"},
        {"labels: { env: prod } }", "labels: @[prod] }", "mapping of words"},
        {"tls: verify-full", "tls: verify-full, channel_binding: @yes", "\"disable\" or"},
        {"\"db:1\", database: d, tls: verify-full",
         "\"127.0.0.1:1\", database: d, tls: off, channel_binding: @require", "need TLS"},
        {"\"db:1\", database: d, tls: verify-full",
         "\"127.0.0.1:1\", database: d, tls: off, certificate: @tls/server.pem", "need TLS"},
        {"tls: verify-full",
         "tls: verify-full, certificate: tls/server.pem, channel_binding: @prefer",
         "must be \"require\""},
        {"tls: verify-full", "tls: verify-full, certificate: @tls/empty.pem", "holds no cert"},
        {"tls: verify-full", "tls: verify-full, certificate: @tls/gate.pem", "cannot be read"},
        {"tls: verify-full", "tls: verify-full, certificate: @tls/five.pem", "more than four"},
        {"tls: verify-full", "tls: verify-full, certificate: @tls/ed25519.pem", "not defined"},
        {"\"secret:q\"", "@\"secret:p\"", "is an everyday or probe credential's too, on line 15"},
        {"elevated: {", "probe: { user: @o, password: \"secret:z\" }\n    elevated: {",
         "same role as \"elevated\""},
        {"elevated: { user: o, password: ",
         "probe: { user: x, password: \"secret:q\" }\n    elevated: { user: o, password: @",
         "or probe credential's too"},
        {"elevated: {", "probe: @{ user: x }\n    elevated: {", "password"},
        {"password: \"secret:p\"", "password: \"secret:p\", authentication: @plain",
         "\"scram-sha-256\" or"},
        {"password: \"secret:q\"", "password: \"secret:q\", authentication: @md5",
         "proved by scram-sha-256 only"},
        {"\"db:1\", database: d, tls: verify-full }\n    credential: { user: u, password: "
         "\"secret:p\"",
         "\"127.0.0.1:1\", database: d, tls: off }\n    credential: { user: u, password: "
         "\"secret:p\", authentication: @md5",
         "certificate is checked"},
        {"verify-full }\n    credential: { user: u, password: \"secret:p\"",
         "verify-full, channel_binding: require }\n    credential: { user: u, password: "
         "\"secret:p\", authentication: @cleartext",
         "bound to no certificate"},
        {"elevated: {",
         "probe: { user: x, password: \"secret:z\", authentication: @nothing }\n    elevated: {",
         "\"md5\""},
        {"tls: verify-full", "tls: @on", "\"off\" or \"require\" or"},
        {"tls: verify-full", "tls: verify-full, roots: @tls/empty.pem", "holds no certificate"},
        {"tls: verify-full", "tls: verify-full, roots: @nope.pem", "no such file"},
        {"password: \"secret:p\"", "password: @\"p\"", "secret:NAME"},
        {"password: \"secret:p\"", "password: @\"secret:\"", "secret:NAME"},
        {"password: \"secret:p\"", "password: @\"secret:a b\"", "secret:NAME"},
        {"name: read", "name: @Read", "1 to 64 of a-z"},
        {"name: read", "name:@", "is empty"},
        {"[agents]", "@agents", "must be a list"},
        {"[agents]", "@[]", "an empty list"},
        {"[agents]", "[agents, @agents]", "twice"},
        {"[agents]", "[agents, @[x]]", "not a list"},
        {"[agents]", "[agents, @\"a\\u202eb\"]", "invisible"},
        {"who: { groups: [agents], except: { groups: [dba] } }", "who: @{}", "names nobody"},
        {"except: { groups: [dba] }", "except: @{}", "names nobody"},
        {"then: hold", "then: @maybe", "\"allow\" or \"hold\" or \"deny\""},
        {"quorum: 1", "quorum: @0", "from 1 to 16"},
        {"quorum: 1", "quorum: @17", "from 1 to 16"},
        {"within: 15m", "within: @15", "a time such as"},
        {"within: 15m", "within: @0s", "a time such as"},
        {"within: 15m", "within: @31d", "a time such as"},
        {"within: 15m", "within: @-5m", "a time such as"},
        {"within: 15m", "within: @1.5h", "a time such as"},
        {"run_as: elevated", "run_as: elevated\n    record: @most",
         "\"none\" or \"head\" or \"full\""},
        {"run_as: elevated", "run_as: elevated\n    durability: @never", "\"async\""},
        {"run_as: elevated", "run_as: elevated\n    copy: @maybe", "\"covered\" or \"uncovered\""},
        {"run_as: elevated", "run_as: @root", "\"credential\" or \"elevated\""},
        {"sql.statements == 1", "@sql.statement == 1", "no fact"},
        {"sql.statements == 1", "sql.statements ==@", "the condition ends"},
        {"      sql.statements == 1", "      true &&\n\n        (@1 || true)", "joins conditions"},
        {"sql.statements == 1", "@false", "can never apply"},
        {"when: |\n      sql.statements == 1", "when: |2\n      @1", "must be true or false"},
        {"when: |\n      sql", "when: |-  # why\n      '\xc3\xa9' == 'x' || 1 + @'x' == sql",
         "needs an int"},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), false);
}

CS_TEST(keys_are_checked)
{
    static const struct row rows[] = {
        {"version: 1", "version: 1\n@verison: 1", "did you mean \"version\"?"},
        {"quorum: 1", "@quorom: 1", "did you mean \"quorum\"?"},
        {"quorum: 1", "@votes: 1", "known are: groups, quorum"},
        {"master_key: /k\n", "", "\"master_key\" is missing"},
        {"socket: run/sock", "@path: run/sock", "unknown key \"path\""},
        {"then: hold\n    run_as: elevated\n"
         "    approvers: { groups: [dba], quorum: 1, assurance: token, within: 15m }",
         "then: @hold", "who may approve?"},
        {"then: hold\n    run_as: elevated\n", "then: allow\n", "\"approvers\" means nothing"},
        {"then: hold\n    run_as: elevated\n"
         "    approvers: { groups: [dba], quorum: 1, assurance: token, within: 15m }",
         "then: deny\n    record: @full", "what is denied has no answer"},
        {"then: hold\n    run_as: elevated\n"
         "    approvers: { groups: [dba], quorum: 1, assurance: token, within: 15m }",
         "then: allow\n    copy: @covered", "it belongs to a hold"},
        {"groups: [dba], quorum", "quorum", "\"groups\" is missing"},
        {"    elevated: { user: o, password: \"secret:q\" }\n", "", "no \"elevated\" credential"},
        {"rules:\n",
         "  - { name: @orders, postgres: { address: \"x:1\", database: d, tls: "
         "verify-full }, credential: { user: u, password: \"secret:p\" }, elevated: { "
         "user: o, password: \"secret:q\" } }\nrules:\n",
         "is taken, on line 12"},
        {"tls: { certificate: tls/gate.pem, key: tls/gate.key }\n", "", "has no certificate"},
        {"key: tls/gate.key", "key: @tls/gate.pem", "holds no private key"},
    };
    struct cs_buf text = cs_buf(1 << 20);
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        if (strchr(rows[i].replace, '@') != NULL) {
            bool two = i == 4; /* unknown, and the right one is missing */
            if (!two) {
                check_rows(&rows[i], 1, false);
                continue;
            }
        }
        uint32_t line = 0, column = 0;
        struct compiled c = compile_with(edited(&rows[i], &text, &line, &column), NULL);
        bool said = false;
        for (size_t k = 0; k < c.report.n; k++) {
            said |= memmem(c.report.v[k].text.p, c.report.v[k].text.n, rows[i].says,
                           strlen(rows[i].says)) != NULL;
        }
        if (c.err != CS_ERR_INVALID || !said || c.report.n > 2) {
            print_report(&c);
            CS_FAIL("row %zu: nothing says %s", i, rows[i].says);
        }
        compiled_done(&c);
    }
    cs_buf_done(&text);
}

CS_TEST(what_this_version_lacks_is_an_error)
{
    static const struct row rows[] = {
        {"then: hold", "then: hold\n    @mask: [ { column: a.b.c, as: partial } ]", "\"mask\""},
        {"then: hold", "then: hold\n    @mode: observe", "\"mode\""},
        {"then: hold", "then: hold\n    @limits: { rows: 5 }", "\"limits\""},
        {"assurance: token", "assurance: @passkey", "\"assurance: passkey\""},
        {"kind: postgres", "kind: @ssh", "\"kind: ssh\""},
        {"groups: [agents]", "groups: [agents], @kind: agent", "\"kind\" in rules[].who"},
        {"groups: [agents]", "groups: [agents], users: [@\"okta:eve\"]",
         "identity provider \"okta\""},
        {"{ sqlite: /s }", "{ @postgres: x, sqlite: /s }", "\"postgres\" in store"},
        {"{ directory: /r }", "{ directory: /r, @s3: x }", "\"s3\""},
        {"{ name: local }", "{ name: local, @oidc: { issuer: x } }", "\"oidc\""},
        {"{ name: local }", "{ name: local, @saml: { } }", "\"saml\""},
        {"    labels: { env: prod }\n    postgres: { address: \"db:1\", database: d, tls: "
         "verify-full }",
         "    labels: { env: prod }\n    @mysql: { address: \"db:1\" }", "\"mysql\" in targets[]"},
        {"  local:  ", "  @ssh: { address: \"1.1.1.1:1\" }\n  local:  ", "\"ssh\" in listeners"},
        {"version: 1", "version: 1\n@metrics: { }", "\"metrics\""},
        {"sql.statements == 1", "sql.verb.@matches('x')", "not in this version: the method"},
    };
    check_rows(rows, CS_ARRAY_LEN(rows), false);
}

CS_TEST(doubtful_things_are_warnings)
{
    static const struct row rows[] = {
        {"tls: verify-full", "tls: @require", "without checking who answers"},
        {"tls: verify-full", "tls: @off", "in clear"},
        {"{ address: \"127.0.0.1:2\" }", "{ address: \"0.0.0.0:2\", tls: @off }", "in clear"},
        {"{ user: o, ", "{ user: @u, ", "same role"},
        {"labels: { env: prod } }", "labels: { env: test } }", "concerns no target"},
    };
    check_rows(rows, 4, true);
    struct cs_buf text = cs_buf(1 << 20);
    uint32_t line = 0, column = 0;
    struct compiled c = compile_with(edited(&rows[4], &text, &line, &column), NULL);
    CS_EQ_U64(c.err, CS_OK);
    CS_EQ_U64(c.report.n, 1);
    CS_EQ_U64(c.report.v[0].line, 20);
    CS_EQ_U64(c.report.v[0].column, 13);
    CS_CHECK(c.report.v[0].warning);
    compiled_done(&c);
    struct compiled none =
        compile_text("version: 1\nlisteners: { local: { socket: s } }\nstore: { sqlite: /s }\n"
                     "recordings: { directory: /r }\nmaster_key: /k\n");
    CS_EQ_U64(none.err, CS_OK);
    CS_EQ_U64(none.report.n, 1);
    CS_CHECK(none.report.v[0].warning);
    compiled_done(&none);
    cs_buf_done(&text);
}

CS_TEST(mistakes_beyond_a_hundred_are_counted)
{
    struct cs_buf text = cs_buf(1 << 20);
    cs_buf_str(&text, good);
    for (int i = 0; i < 300; i++) {
        cs_buf_printf(&text, "zzz%d: 1\n", i);
    }
    struct compiled c = compile_with(cs_buf_slice(&text), NULL);
    CS_EQ_U64(c.err, CS_ERR_INVALID);
    CS_EQ_U64(c.report.errors, 300);
    CS_EQ_U64(c.report.n, CS_CONFIG_MISTAKES);
    CS_EQ_U64(c.report.left_out, 200);
    CS_EQ_U64(c.report.v[0].line, 26);
    CS_EQ_U64(c.report.v[99].line, 125);
    struct cs_buf out = cs_buf(1 << 20);
    cs_config_report_text(&c.report, CS_SLICE_LIT("f"), 1 << 20, &out);
    CS_CHECK(cs_slice_ends(cs_buf_slice(&out), CS_SLICE_LIT("f: and 200 more\n")));
    cs_buf_done(&out);
    cs_buf_done(&text);
    compiled_done(&c);
}

CS_TEST(a_file_over_the_limit_is_refused)
{
    struct cs_buf text = cs_buf(2 << 20);
    cs_buf_str(&text, good);
    while (text.len <= 1 << 20) {
        cs_buf_str(&text, "# comment comment comment comment comment comment comment\n");
    }
    struct compiled c = compile_with(cs_buf_slice(&text), NULL);
    CS_EQ_U64(c.err, CS_ERR_INVALID);
    CS_CHECK(memmem(c.report.v[0].text.p, c.report.v[0].text.n, "larger than", 11) != NULL);
    cs_buf_done(&text);
    compiled_done(&c);
}

CS_TEST(config_escrow_is_a_public_key_in_hex)
{
    static const char head[] =
        "version: 1\nlisteners: { local: { socket: s } }\nstore: { sqlite: /s }\n"
        "master_key: /k\nrecordings: { directory: /r, escrow: \"%s\" }\n";
    static const char key[] = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    static const char *const bad[] = {
        "", "85", "zz20f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"};
    char text[400];
    (void)snprintf(text, sizeof text, head, key);
    struct compiled c = compile_text(text);
    CS_EQ_U64(c.err, CS_OK);
    CS_EQ_STR(c.snapshot.escrow, key);
    compiled_done(&c);
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        (void)snprintf(text, sizeof text, head, bad[i]);
        c = compile_text(text);
        CS_CHECK(c.err != CS_OK && c.report.n > 0);
        compiled_done(&c);
    }
}
