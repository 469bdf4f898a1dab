/* The action codec, match, digest, request words. The golden hashes were computed by an independent
 * program from the definition in action/action.h. */
#include "action/action.h"
#include "action/request.h"
#include "tap.h"

static const struct cs_param params[] = {{false, 0, 23, {(const uint8_t *)"42", 2}},
                                         {true, 1, 25, {NULL, 0}}};

static struct cs_action sample(void)
{
    return (struct cs_action){
        .protocol = CS_SLICE_LIT("postgres"),
        .bytes = CS_SLICE_LIT("DELETE FROM orders WHERE id = $1 AND note = $2"),
        .params = params,
        .n_params = 2,
        .database = CS_SLICE_LIT("orders"),
        .role = CS_SLICE_LIT("orders_owner"),
        .settings = CS_SLICE_LIT("TimeZone=UTC\n"),
        .changing = true,
    };
}

static struct cs_chain chain(void)
{
    struct cs_chain c = {.n = 2};
    c.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                   CS_SLICE_LIT("alice"), NULL, 0};
    c.p[1] = (struct cs_principal){CS_PRINCIPAL_AGENT, CS_SLICE_LIT("local:bot"),
                                   CS_SLICE_LIT("bot"), NULL, 0};
    return c;
}

static const char *hex_of(const uint8_t digest[static CS_DIGEST])
{
    static char text[2 * CS_DIGEST + 1];
    cs_hex(cs_slice(digest, CS_DIGEST), text);
    return text;
}

static const char *match_hex(const struct cs_action *a, const struct cs_chain *c,
                             const char *target)
{
    uint8_t m[CS_DIGEST];
    cs_action_match(a, c, cs_slice_str(target), m);
    return hex_of(m);
}

#define GOLDEN "625a058d5a940825a62fce82a19b0f61162cf4ca832f20d8f38ba5128408cb9d"

CS_TEST(match_and_digest_equal_the_golden_vectors)
{
    struct cs_action a = sample();
    struct cs_chain c = chain();
    uint8_t m[CS_DIGEST], d[CS_DIGEST], nonce[CS_NONCE];
    char code[9];
    for (unsigned i = 0; i < CS_NONCE; i++) {
        nonce[i] = (uint8_t)i;
    }
    cs_action_match(&a, &c, CS_SLICE_LIT("orders"), m);
    CS_EQ_STR(cs_slice_str(hex_of(m)), GOLDEN);
    cs_action_digest(m, CS_SLICE_LIT("7Q2KD4M9"), nonce, 0x0123456789abcdefULL, CS_SLICE_NULL,
                     CS_SLICE_LIT("why"), d);
    CS_EQ_STR(cs_slice_str(hex_of(d)),
              "b972b9a029ce2cb9bdfc6c6f41ec14005f75bd88564c0c24860be85350545308");
    cs_digest_short(d, code);
    CS_EQ_STR(cs_slice_str(code), "Q5SBK819");
}

CS_TEST(match_of_nothing_and_of_much_equal_the_golden_vectors)
{
    struct cs_action a = {0};
    struct cs_chain c = {0};
    CS_EQ_STR(cs_slice_str(match_hex(&a, &c, "")),
              "e4e2c454848b8debb7fad60c57e3dffa06445a8eb65096649038ef065d8119df");
    uint8_t *big = malloc(70000);
    CS_CHECK(big != NULL);
    memset(big, 'x', 70000);
    a.bytes = cs_slice(big, 70000);
    c.n = 1;
    c.p[0] = (struct cs_principal){CS_PRINCIPAL_WORKLOAD, CS_SLICE_LIT("ci:1"), CS_SLICE_LIT("x"),
                                   NULL, 0};
    CS_EQ_STR(cs_slice_str(match_hex(&a, &c, "t")),
              "13f7723036b7bebdcac5adc8096aaa0d314745099691224d1431950f16af464e");
    free(big);
}

CS_TEST(match_changes_with_everything_that_is_approved)
{
    struct cs_param other[2];
    struct cs_chain c = chain();
    for (unsigned what = 0; what < 12; what++) {
        struct cs_action a = sample();
        const char *target = what == 0 ? "orders2" : "orders";
        c = chain();
        memcpy(other, params, sizeof other);
        a.params = other;
        switch (what) {
        case 1:
            a.bytes = CS_SLICE_LIT("DELETE FROM orders WHERE id = $1 AND note = $2 ");
            break;
        case 2:
            a.database = CS_SLICE_LIT("order");
            break;
        case 3:
            a.role = CS_SLICE_LIT("orders_ro");
            break;
        case 4:
            a.settings = CS_SLICE_NULL;
            break;
        case 5:
            other[0].format = 1;
            break;
        case 6:
            other[0].type = 20;
            break;
        case 7:
            other[0].bytes = CS_SLICE_LIT("43");
            break;
        case 8:
            other[1].null = false;
            break;
        case 9:
            a.n_params = 1;
            break;
        case 10:
            c.n = 1;
            break;
        case 11:
            c.p[1].kind = CS_PRINCIPAL_WORKLOAD;
            break;
        default:
            break;
        }
        CS_CHECK(strcmp(match_hex(&a, &c, target), GOLDEN) != 0);
    }
}

/* Moving a byte over a border between two fields must not give the same hash. */
CS_TEST(match_has_borders_between_its_fields)
{
    struct cs_action a = sample();
    struct cs_chain c = chain();
    a.database = CS_SLICE_LIT("orderso");
    a.role = CS_SLICE_LIT("rders_owner");
    CS_CHECK(strcmp(match_hex(&a, &c, "orders"), GOLDEN) != 0);
}

CS_TEST(match_ignores_names_groups_and_the_transaction)
{
    struct cs_action a = sample();
    struct cs_chain c = chain();
    struct cs_slice group = CS_SLICE_LIT("dba");
    c.p[0].name = CS_SLICE_LIT("Alice A.");
    c.p[0].groups = &group;
    c.p[0].n_groups = 1;
    a.tx = CS_SLICE_LIT("INSERT");
    a.in_transaction = true;
    CS_EQ_STR(cs_slice_str(match_hex(&a, &c, "orders")), GOLDEN);
}

CS_TEST(digest_changes_with_each_of_its_parts)
{
    uint8_t m[CS_DIGEST] = {1}, nonce[CS_NONCE] = {2}, first[CS_DIGEST], d[CS_DIGEST];
    cs_action_digest(m, CS_SLICE_LIT("A"), nonce, 3, CS_SLICE_LIT("tx"), CS_SLICE_LIT("r"), first);
    for (unsigned what = 0; what < 6; what++) {
        m[0] = what == 0 ? 9 : 1;
        nonce[0] = what == 1 ? 9 : 2;
        cs_action_digest(m, what == 2 ? CS_SLICE_LIT("B") : CS_SLICE_LIT("A"), nonce,
                         what == 3 ? 9 : 3, what == 4 ? CS_SLICE_NULL : CS_SLICE_LIT("tx"),
                         what == 5 ? CS_SLICE_NULL : CS_SLICE_LIT("r"), d);
        CS_CHECK(memcmp(d, first, sizeof d) != 0);
    }
    m[0] = 1;
    nonce[0] = 2;
    cs_action_digest(m, CS_SLICE_LIT("A"), nonce, 3, CS_SLICE_LIT("tx"), CS_SLICE_LIT("r"), d);
    CS_CHECK(memcmp(d, first, sizeof d) == 0);
}

static struct cs_slice effects[] = {{(const uint8_t *)"write", 5}, {(const uint8_t *)"ddl", 3}};

static struct cs_action with_facts(void)
{
    struct cs_action a = sample();
    a.facts.v[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
    a.facts.v[CS_FACT_SQL_VERB].u.string = CS_SLICE_LIT("DELETE");
    a.facts.v[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    a.facts.v[CS_FACT_SQL_EFFECTS].u.strings.v = effects;
    a.facts.v[CS_FACT_SQL_EFFECTS].u.strings.n = 2;
    a.facts.v[CS_FACT_SQL_READS].state = CS_FACT_UNKNOWN;
    a.facts.v[CS_FACT_SQL_WRITES].state = CS_FACT_KNOWN;
    a.facts.v[CS_FACT_SQL_STATEMENTS].state = CS_FACT_KNOWN;
    a.facts.v[CS_FACT_SQL_STATEMENTS].u.integer = -3;
    return a;
}

CS_TEST(action_survives_the_trip_and_every_cut_fails)
{
    struct cs_arena arena;
    uint8_t mem[1024], again[1024];
    struct cs_action a = with_facts(), b;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_arena_init(&arena, 4096, 1 << 20);
    cs_action_encode(&w, &a);
    struct cs_slice all = cs_writer_done(&w);
    CS_CHECK(all.n > 0 && all.n <= cs_action_encoded_size(&a));
    struct cs_reader r = cs_reader(all);
    CS_CHECK(cs_action_decode(&r, &arena, &b) && cs_reader_done(&r));
    CS_EQ_SLICE(b.bytes, a.bytes);
    CS_EQ_U64(b.n_params, 2);
    CS_CHECK(b.params[1].null && b.changing && !b.only_rollback);
    CS_EQ_STR(b.facts.v[CS_FACT_SQL_EFFECTS].u.strings.v[1], "ddl");
    CS_EQ_U64(b.facts.v[CS_FACT_SQL_READS].state, CS_FACT_UNKNOWN);
    CS_EQ_U64(b.facts.v[CS_FACT_SQL_WRITES].u.strings.n, 0);
    CS_EQ_U64(b.facts.v[CS_FACT_SQL_TEXT].state, CS_FACT_ABSENT);
    CS_CHECK(b.facts.v[CS_FACT_SQL_STATEMENTS].u.integer == -3);
    w = cs_writer(again, sizeof again);
    cs_action_encode(&w, &b);
    CS_EQ_SLICE(cs_writer_done(&w), all);
    for (size_t n = 0; n < all.n; n++) {
        r = cs_reader(cs_slice_head(all, n));
        CS_CHECK(!cs_action_decode(&r, &arena, &b));
    }
    cs_arena_done(&arena);
}

CS_TEST(action_decoder_refuses_a_second_encoding)
{
    struct cs_arena arena;
    uint8_t mem[1024], bad[1024];
    struct cs_action a = sample(), b;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_arena_init(&arena, 4096, 1 << 20);
    a.n_params = 0;
    cs_action_encode(&w, &a);
    size_t n = cs_writer_done(&w).n;
    CS_CHECK(n > 8 && n < sizeof bad);
    static const struct {
        size_t from_end; /* byte to change */
        uint8_t to;
    } rows[] = {{0, 1}, {4, 1}};
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) { /* facts or parameters that do not follow */
        memcpy(bad, mem, n);
        bad[n - 4 - rows[i].from_end] = rows[i].to;
        struct cs_reader r = cs_reader(cs_slice(bad, n));
        CS_CHECK(!cs_action_decode(&r, &arena, &b));
    }
    memcpy(bad, mem, n);
    bad[0] = 1; /* another form */
    struct cs_reader r = cs_reader(cs_slice(bad, n));
    CS_CHECK(!cs_action_decode(&r, &arena, &b));
    bad[0] = mem[0];
    bad[1] = 0x12; /* a flag that does not exist */
    r = cs_reader(cs_slice(bad, n));
    CS_CHECK(!cs_action_decode(&r, &arena, &b));
    /* facts out of order, twice, unknown, absent */
    const struct cs_slice facts[] = {
        CS_SLICE_LIT("\x02\0\0\0\x0b\0\0\0sql.effects\x01\x08\0\0\0sql.verb\x01"),
        CS_SLICE_LIT("\x02\0\0\0\x08\0\0\0sql.verb\x01\x08\0\0\0sql.verb\x01"),
        CS_SLICE_LIT("\x01\0\0\0\x08\0\0\0sql.VERB\x01"),
        CS_SLICE_LIT("\x01\0\0\0\x08\0\0\0sql.verb\0"),
        CS_SLICE_LIT("\x01\0\0\0\x0b\0\0\0sql.effects\x02\xff\xff\xff\x7f"),
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(facts); i++) {
        w = cs_writer(bad, sizeof bad);
        cs_writer_bytes(&w, cs_slice(mem, n - 4));
        cs_writer_bytes(&w, facts[i]);
        r = cs_reader(cs_writer_done(&w));
        CS_CHECK(!cs_action_decode(&r, &arena, &b));
    }
    cs_arena_done(&arena);
}

static struct cs_action with_text(struct cs_slice bytes, struct cs_slice fact)
{
    struct cs_action a = with_facts();
    a.bytes = bytes;
    a.facts.v[CS_FACT_SQL_TEXT].state = CS_FACT_KNOWN;
    a.facts.v[CS_FACT_SQL_TEXT].u.string = fact;
    return a;
}

CS_TEST(action_text_travels_once_and_is_what_the_match_covers)
{
    struct cs_arena arena;
    struct cs_chain nobody = {.n = 0};
    uint8_t text[700], mem[2048], was[CS_DIGEST], is[CS_DIGEST];
    memset(text, 'q', sizeof text);
    struct cs_action a = with_text(cs_slice(text, sizeof text), cs_slice(text, sizeof text)), b;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_arena_init(&arena, 4096, 1 << 20);
    cs_action_encode(&w, &a);
    struct cs_slice all = cs_writer_done(&w);
    CS_CHECK(all.n > sizeof text && cs_action_encoded_size(&a) <= sizeof mem);
    struct cs_reader r = cs_reader(all);
    CS_CHECK(cs_action_decode(&r, &arena, &b) && cs_reader_done(&r));
    CS_EQ_U64(b.facts.v[CS_FACT_SQL_TEXT].state, CS_FACT_KNOWN);
    CS_EQ_SLICE(b.facts.v[CS_FACT_SQL_TEXT].u.string, a.bytes);
    cs_action_match(&a, &nobody, CS_SLICE_LIT("orders"), was);
    cs_action_match(&b, &nobody, CS_SLICE_LIT("orders"), is);
    CS_EQ_SLICE(cs_slice(is, sizeof is), cs_slice(was, sizeof was));
    /* whatever byte of the text changes, on its way or before: another match, and the fact follows
     */
    for (size_t i = 0; i < all.n; i++) {
        if (mem[i] != 'q') {
            continue;
        }
        mem[i] = 'z';
        r = cs_reader(all);
        if (cs_action_decode(&r, &arena, &b) && !cs_slice_eq(b.bytes, a.bytes)) {
            CS_EQ_SLICE(b.facts.v[CS_FACT_SQL_TEXT].u.string, b.bytes);
            cs_action_match(&b, &nobody, CS_SLICE_LIT("orders"), is);
            CS_CHECK(!cs_slice_eq(cs_slice(is, sizeof is), cs_slice(was, sizeof was)));
        }
        mem[i] = 'q';
    }
    cs_arena_done(&arena);
}

CS_TEST(action_whose_text_is_another_than_its_bytes_is_not_written)
{
    uint8_t mem[1024];
    struct cs_action a = with_text(CS_SLICE_LIT("drop table a"), CS_SLICE_LIT("select 1"));
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_action_encode(&w, &a);
    CS_CHECK(w.overflow);
    a.facts.v[CS_FACT_SQL_TEXT].state = CS_FACT_UNKNOWN; /* nobody is shown another text then */
    w = cs_writer(mem, sizeof mem);
    cs_action_encode(&w, &a);
    CS_CHECK(!w.overflow);
}

/* ---- the values of parameters, as rules see them ---- */

static const struct {
    struct cs_param param;
    const char *words; /* NULL: none that is certain */
} values[] = {
#define TEXT(x)                                                                                    \
    {                                                                                              \
        .bytes = {(const uint8_t *)(x), sizeof x - 1 }                                             \
    }
#define BINARY(oid, x)                                                                             \
    {                                                                                              \
        .format = 1, .type = (oid), .bytes = {(const uint8_t *)(x), sizeof x - 1 }                 \
    }
    {TEXT("42"), "42"},
    {TEXT(" 042"), " 042"},
    {TEXT(""), ""},
    {{.null = true}, ""},
    {{.null = true, .format = 1, .type = 1700}, ""},
    {TEXT("a\xff"), NULL},
    {BINARY(16, "\1"), "t"},
    {BINARY(16, "\0"), "f"},
    {BINARY(16, "\0\1"), NULL},
    {BINARY(16, ""), NULL},
    {BINARY(21, "\xff\xfe"), "-2"},
    {BINARY(21, "\x7f\xff"), "32767"},
    {BINARY(23, "\0\0\0\x2a"), "42"},
    {BINARY(23, "\x80\0\0\0"), "-2147483648"},
    {BINARY(23, "\0\0\x2a"), NULL},
    {BINARY(20, "\x80\0\0\0\0\0\0\0"), "-9223372036854775808"},
    {BINARY(20, "\0\0\0\1\0\0\0\0"), "4294967296"},
    {BINARY(26, "\xff\xff\xff\xff"), "4294967295"},
    {BINARY(25, "abc"), "abc"},
    {BINARY(25, "\xc3"), NULL},
    {BINARY(2950, "\0\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff"),
     "00112233-4455-6677-8899-aabbccddeeff"},
    {BINARY(2950, "\0\x11"), NULL},
    {BINARY(1700, "\0\1\0\0\0\0\0\0\0\1"), NULL}, /* numeric */
    {BINARY(0, "\0\0\0\x2a"), NULL},              /* a type that the server chooses */
    {{.format = 2, .type = 25, .bytes = {(const uint8_t *)"a", 1}}, NULL},
};

CS_TEST(params_have_the_text_that_the_server_would_write_or_none)
{
    struct cs_arena arena;
    cs_arena_init(&arena, 1024, 1 << 20);
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        struct cs_param two[2] = {values[0].param, values[i].param};
        struct cs_fact f = {0};
        CS_EQ_U64(cs_params_fact(two, 2, &arena, &f), values[i].words != NULL);
        CS_EQ_U64(f.state, values[i].words != NULL ? CS_FACT_KNOWN : CS_FACT_UNKNOWN);
        if (values[i].words != NULL) {
            CS_EQ_U64(f.u.strings.n, 2);
            CS_EQ_SLICE(f.u.strings.v[0], CS_SLICE_LIT("42"));
            CS_EQ_SLICE(f.u.strings.v[1], cs_slice_str(values[i].words));
        }
    }
    struct cs_fact none = {0};
    CS_CHECK(cs_params_fact(NULL, 0, &arena, &none));
    CS_EQ_U64(none.state, CS_FACT_KNOWN);
    CS_EQ_U64(none.u.strings.n, 0);
    cs_arena_done(&arena);
}

CS_TEST(params_as_a_fact_are_those_that_the_form_has)
{
    struct cs_arena arena;
    uint8_t mem[2048];
    cs_arena_init(&arena, 4096, 1 << 20);
    for (size_t i = 0; i < CS_ARRAY_LEN(values); i++) {
        struct cs_action a = with_facts(), b;
        a.params = &values[i].param;
        a.n_params = 1;
        /* of a gate that says so, whatever it is: what the list says does not travel */
        a.facts.v[CS_FACT_SQL_PARAMS] = (struct cs_fact){.state = CS_FACT_KNOWN};
        struct cs_writer w = cs_writer(mem, sizeof mem);
        cs_action_encode(&w, &a);
        CS_CHECK(!w.overflow && w.len <= cs_action_encoded_size(&a));
        struct cs_reader r = cs_reader(cs_writer_done(&w));
        bool read = cs_action_decode(&r, &arena, &b);
        CS_EQ_U64(read, values[i].words != NULL);
        if (read) {
            CS_EQ_U64(b.facts.v[CS_FACT_SQL_PARAMS].u.strings.n, 1);
            CS_EQ_SLICE(b.facts.v[CS_FACT_SQL_PARAMS].u.strings.v[0],
                        cs_slice_str(values[i].words));
        }
        a.facts.v[CS_FACT_SQL_PARAMS].state = CS_FACT_UNKNOWN;
        w = cs_writer(mem, sizeof mem);
        cs_action_encode(&w, &a);
        r = cs_reader(cs_writer_done(&w));
        CS_CHECK(cs_action_decode(&r, &arena, &b));
        CS_EQ_U64(b.facts.v[CS_FACT_SQL_PARAMS].state, CS_FACT_UNKNOWN);
    }
    cs_arena_done(&arena);
}

CS_TEST(action_fits_up_to_the_documented_size_with_its_parameters)
{
    static uint8_t mem[CS_LIMIT_HELD_FORM_BYTES];
    struct cs_param p = {.bytes = CS_SLICE_LIT("0123456789")};
    struct cs_slice text = cs_slice(mem, CS_LIMIT_HELD_BYTES);
    struct cs_action a = with_text(text, text);
    a.params = &p;
    a.n_params = 0;
    CS_CHECK(cs_action_fits(&a));
    a.n_params = 1;
    CS_CHECK(!cs_action_fits(&a));
    text.n -= 10;
    a = with_text(text, text);
    a.params = &p;
    a.n_params = 1;
    CS_CHECK(cs_action_fits(&a));
    text.n++;
    a = with_text(text, text);
    a.params = &p;
    a.n_params = 1;
    CS_CHECK(!cs_action_fits(&a));
    a = with_text(CS_SLICE_LIT("x"), CS_SLICE_LIT("x")); /* and what else is approved with it */
    a.n_params = 0;
    a.settings = cs_slice(mem, sizeof mem);
    CS_CHECK(!cs_action_fits(&a));
}

CS_TEST(action_with_too_many_parameters_is_not_written)
{
    uint8_t mem[64];
    struct cs_action a = sample();
    struct cs_writer w = cs_writer(mem, sizeof mem);
    a.n_params = CS_PARAMS_MAX + 1;
    cs_action_encode(&w, &a);
    CS_CHECK(w.overflow);
}

CS_TEST(action_survives_a_lack_of_memory)
{
    uint8_t mem[1024];
    struct cs_action a = with_facts(), b;
    struct cs_writer w = cs_writer(mem, sizeof mem);
    cs_action_encode(&w, &a);
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena arena;
        struct cs_reader r = cs_reader(cs_writer_done(&w));
        cs_arena_init(&arena, 16, 65536);
        done = cs_action_decode(&r, &arena, &b);
        cs_arena_done(&arena);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(facts_are_found_by_name)
{
    for (unsigned i = 0; i < CS_FACT_MAX; i++) {
        const char *name = cs_fact_info((enum cs_fact_id)i)->name;
        CS_EQ_U64(cs_fact_by_name(cs_slice_str(name)), i);
    }
    CS_EQ_U64(cs_fact_by_name(CS_SLICE_LIT("sql.")), CS_FACT_MAX);
    CS_EQ_U64(cs_fact_by_name(CS_SLICE_NULL), CS_FACT_MAX);
    CS_EQ_U64(cs_fact_info(CS_FACT_SQL_EFFECTS)->type, CS_FACT_STRINGS);
    CS_EQ_U64(cs_fact_info(CS_FACT_SQL_VERB)->family, CS_FAMILY_SQL);
}

CS_TEST(request_states_have_names_that_lead_back)
{
    for (unsigned i = 0; i < CS_REQUEST_MAX; i++) {
        const char *name = cs_request_state_name((enum cs_request_state)i);
        CS_EQ_U64(cs_request_state_parse(cs_slice_str(name)), i);
    }
    CS_EQ_U64(cs_request_state_parse(CS_SLICE_LIT("Pending")), CS_REQUEST_NONE);
    CS_CHECK(cs_request_state_final(CS_REQUEST_VOID) &&
             !cs_request_state_final(CS_REQUEST_APPROVED));
    CS_CHECK(!cs_request_state_final((enum cs_request_state)99));
}

CS_TEST(wait_line_is_exactly_the_contract)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 65536);
    CS_EQ_STR(cs_wait_line(&a, CS_SLICE_LIT("7Q2KD4M9"), CS_REQUEST_PENDING, 50, 890,
                           CS_SLICE_LIT("https://gate.example.com:7443/r/7Q2KD4M9"),
                           CS_SLICE_LIT("change-data")),
              "COUNTERSIGN held id=7Q2KD4M9 state=pending wait=50s expires=890s retry=same-request "
              "url=https://gate.example.com:7443/r/7Q2KD4M9 rule=change-data");
    cs_arena_done(&a);
}

CS_TEST(wait_line_has_no_holes_without_memory)
{
    struct cs_arena a;
    cs_arena_init(&a, 16, 200);
    CS_CHECK(cs_wait_line(&a, CS_SLICE_LIT("A"), CS_REQUEST_PENDING, 0, 0, CS_SLICE_LIT("u"),
                          CS_SLICE_LIT("r"))
                 .p != NULL);
    cs_arena_done(&a);
    cs_arena_init(&a, 16, 2);
    CS_CHECK(cs_wait_line(&a, CS_SLICE_LIT("A"), CS_REQUEST_PENDING, 0, 0, CS_SLICE_LIT("u u"),
                          CS_SLICE_LIT("r"))
                 .p == NULL);
    cs_arena_done(&a);
}

CS_TEST(wait_line_lets_no_value_forge_a_key_or_a_line)
{
    struct cs_arena a;
    cs_arena_init(&a, 1024, 65536);
    CS_EQ_STR(cs_wait_line(&a, CS_SLICE_LIT("A"), CS_REQUEST_PENDING, 0, 0,
                           CS_SLICE_LIT("u state=approved"), CS_SLICE_LIT("r\nx\xc3\xa4")),
              "COUNTERSIGN held id=A state=pending wait=0s expires=0s retry=same-request "
              "url=u%20state=approved rule=r%0Ax%C3%A4");
    cs_arena_done(&a);
}
