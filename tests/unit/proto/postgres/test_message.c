#include "proto/postgres/message.h"
#include "tap.h"

static struct pg_frame frame(struct cs_slice in, bool client, enum pg_frame_result want)
{
    struct pg_frame f;
    memset(&f, 0, sizeof f);
    CS_EQ_U64(pg_frame_next(in, client, &f), want);
    return f;
}

CS_TEST(frame_needs_all_of_a_message_that_is_looked_at)
{
    struct cs_slice q = cs_slice("Q\0\0\0\x0dselect 1\0", 14);
    struct pg_frame f = frame(q, true, PG_FRAME_OK);
    CS_EQ_U64(f.total, 14);
    struct cs_slice text;
    CS_CHECK(pg_parse_query(f.body, &text));
    CS_EQ_STR(text, "select 1");
    for (size_t n = 0; n < q.n; n++) {
        f = frame(cs_slice_head(q, n), true, PG_FRAME_NEED);
        CS_EQ_U64(f.total, n < 5 ? 0 : 14);
    }
}

CS_TEST(frame_refuses_unknown_types_at_the_first_byte)
{
    for (int t = 0; t < 256; t++) {
        uint8_t b = (uint8_t)t;
        struct pg_frame f;
        bool known = pg_shape_frontend(b).handling != PG_UNKNOWN;
        CS_EQ_U64(pg_frame_next(cs_slice(&b, 1), true, &f), known ? PG_FRAME_NEED : PG_FRAME_BAD);
    }
}

CS_TEST(frame_refuses_impossible_lengths)
{
    (void)frame(cs_slice("Q\0\0\0\3", 5), true, PG_FRAME_BAD);
    (void)frame(cs_slice("Q\xff\xff\xff\xff", 5), true, PG_FRAME_BAD);
    (void)frame(cs_slice("Q\x7f\xff\xff\xff", 5), true, PG_FRAME_BAD);
    (void)frame(cs_slice("S\0\0\0\5", 5), true, PG_FRAME_BAD);
    (void)frame(cs_slice("d\xff\xff\xff\xff", 5), true, PG_FRAME_BAD);
    (void)frame(cs_slice("Z\0\0\0\6", 5), false, PG_FRAME_BAD);
    (void)frame(cs_slice("E\x7f\0\0\0", 5), false, PG_FRAME_BAD);
}

CS_TEST(stream_messages_pass_without_being_whole)
{
    struct pg_frame f = frame(cs_slice("d\x3f\0\0\0abc", 8), true, PG_FRAME_OK);
    CS_EQ_U64(f.handling, PG_STREAM);
    CS_EQ_U64(f.total, 0x3f000001);
    CS_EQ_STR(f.body, "abc");
}

CS_TEST(query_has_exactly_one_nul_at_its_end)
{
    struct cs_slice t;
    CS_CHECK(pg_parse_query(cs_slice("\0", 1), &t) && t.n == 0);
    CS_CHECK(!pg_parse_query(cs_slice("", 0), &t));
    CS_CHECK(!pg_parse_query(cs_slice("select 1", 8), &t));
    CS_CHECK(!pg_parse_query(cs_slice("select 1\0; drop table x\0", 24), &t));
}

CS_TEST(parse_counts_its_types)
{
    struct pg_parse m;
    CS_CHECK(pg_parse_parse(cs_slice("s\0select $1\0\0\1\0\0\0\x17", 18), &m));
    CS_EQ_STR(m.name, "s");
    CS_EQ_STR(m.text, "select $1");
    CS_EQ_U64(m.n_types, 1);
    CS_CHECK(!pg_parse_parse(cs_slice("s\0select $1\0\0\2\0\0\0\x17", 18), &m));
    CS_CHECK(!pg_parse_parse(cs_slice("s\0select $1\0\0\1\0\0\0\x17x", 19), &m));
    CS_CHECK(!pg_parse_parse(cs_slice("s\0select $1\0\xff\xff", 14), &m));
}

CS_TEST(bind_is_read_to_its_last_byte)
{
    static const char ok[] = "p\0s\0\0\1\0\0\0\2\0\0\0\1x\xff\xff\xff\xff\0\1\0\1";
    struct pg_bind m;
    CS_CHECK(pg_parse_bind(cs_slice(ok, sizeof ok - 1), &m));
    CS_EQ_STR(m.portal, "p");
    CS_EQ_STR(m.statement, "s");
    CS_EQ_U64(m.n_params, 2);
    CS_EQ_U64(m.params.n, 9);
    for (size_t n = 0; n < sizeof ok - 1; n++) {
        CS_CHECK(!pg_parse_bind(cs_slice(ok, n), &m));
    }
    CS_CHECK(!pg_parse_bind(cs_slice(ok, sizeof ok), &m)); /* one byte more */
    /* A parameter that claims more than there is. */
    CS_CHECK(!pg_parse_bind(cs_slice("\0\0\0\0\0\1\x7f\xff\xff\xff\0\0", 12), &m));
}

CS_TEST(error_of_a_hostile_server_may_lack_every_field)
{
    struct pg_error e;
    CS_CHECK(pg_parse_error(cs_slice("\0", 1), &e));
    CS_EQ_U64(e.sqlstate.n, 0);
    CS_CHECK(pg_parse_error(cs_slice("SERROR\0C42601\0Mbad\0zother\0\0", 27), &e));
    CS_EQ_STR(e.sqlstate, "42601");
    CS_CHECK(!pg_parse_error(cs_slice("", 0), &e));
    CS_CHECK(!pg_parse_error(cs_slice("Mbad", 4), &e));
    CS_CHECK(!pg_parse_error(cs_slice("Mbad\0", 5), &e));
    CS_CHECK(!pg_parse_error(cs_slice("Mbad\0\0x", 7), &e));
}

static bool count_key(struct cs_slice key, struct cs_slice value, void *arg)
{
    (void)key;
    (void)value;
    ++*(int *)arg;
    return true;
}

CS_TEST(startup_refuses_a_key_twice_and_bytes_behind_the_end)
{
    int n = 0;
    CS_CHECK(pg_parse_startup(cs_slice("user\0a\0database\0b\0\0", 19), count_key, &n) && n == 2);
    CS_CHECK(!pg_parse_startup(cs_slice("user\0a\0user\0b\0\0", 15), count_key, &n));
    CS_CHECK(!pg_parse_startup(cs_slice("user\0a\0\0x", 9), count_key, &n));
    CS_CHECK(!pg_parse_startup(cs_slice("user\0a\0", 7), count_key, &n));
    CS_CHECK(!pg_parse_startup(cs_slice("user\0", 5), count_key, &n));
}

CS_TEST(options_are_words_with_backslash_escapes)
{
    char mem[64];
    struct cs_slice k, v;
    size_t at = 0;
    struct cs_slice o = CS_SLICE_LIT("  -c a=b\\ c -cd=e --f=g ");
    CS_EQ_U64(pg_options_next(o, &at, mem, sizeof mem, &k, &v), 1);
    CS_EQ_STR(k, "a");
    CS_EQ_STR(v, "b c");
    CS_EQ_U64(pg_options_next(o, &at, mem, sizeof mem, &k, &v), 1);
    CS_EQ_STR(k, "d");
    CS_EQ_U64(pg_options_next(o, &at, mem, sizeof mem, &k, &v), 1);
    CS_EQ_STR(k, "f");
    CS_EQ_U64(pg_options_next(o, &at, mem, sizeof mem, &k, &v), 0);
    static const char *const bad[] = {"-c", "-c a", "a=b", "-x a=b", "-c =b", "-"};
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        at = 0;
        CS_CHECK(pg_options_next(cs_slice_str(bad[i]), &at, mem, sizeof mem, &k, &v) == -1);
    }
    at = 0;
    uint8_t longer[100];
    memset(longer, '-', sizeof longer);
    CS_CHECK(pg_options_next(cs_slice(longer, sizeof longer), &at, mem, sizeof mem, &k, &v) == -1);
}

CS_TEST(written_messages_read_back)
{
    struct cs_buf b = cs_buf(1024);
    pg_put_error(&b, 'E', "ERROR", "42501", CS_SLICE_LIT("no"), cs_slice("a\0b", 3), CS_SLICE_NULL);
    pg_put_ready(&b, 'T');
    struct pg_frame f = frame(cs_buf_slice(&b), false, PG_FRAME_OK);
    struct pg_error e;
    CS_CHECK(pg_parse_error(f.body, &e));
    CS_EQ_STR(e.sqlstate, "42501");
    CS_EQ_STR(e.detail, "ab"); /* a NUL inside would have shifted every later field */
    CS_EQ_U64(e.hint.n, 0);
    f = frame(cs_slice_from(cs_buf_slice(&b), f.total), false, PG_FRAME_OK);
    CS_EQ_U64(f.type, 'Z');
    cs_buf_done(&b);
    bool done = false;
    CS_OOM_LOOP(done)
    {
        b = cs_buf(1024);
        pg_put_error(&b, 'E', "ERROR", "42501", CS_SLICE_LIT("no"), CS_SLICE_NULL, CS_SLICE_NULL);
        done = !b.bad;
        cs_buf_done(&b);
    }
    CS_EQ_U64(cs_alloc_live(), 0);
}
