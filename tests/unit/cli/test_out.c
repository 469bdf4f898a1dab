#include "cli/out.h"
#include "tap.h"

static struct cs_cli c;

static void start(void)
{
    c = (struct cs_cli){.colour = false};
    cs_arena_init(&c.arena, 4096, 1 << 24);
}

CS_TEST(out_text_from_the_api_is_made_safe)
{
    start();
    json_t *o = json_pack("{s:s, s:s, s:i, s:b, s:n, s:[s,s]}", "esc", "a\x1b[31mb", "bidi",
                          "x\xe2\x80\xaey", "n", 42, "yes", 1, "null", "list", "p", "q\r");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "esc")), "a\\x1b[31mb");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "bidi")), "x\\u{202e}y");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "n")), "42");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "yes")), "yes");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "null")), "");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "none")), "");
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "list")), "p, q\\x0d");
    json_decref(o);
}

CS_TEST(out_a_nul_inside_a_string_does_not_hide_the_rest)
{
    start();
    json_t *o = json_loads("{\"a\": \"x\\u0000y\"}", JSON_ALLOW_NUL, NULL);
    CS_EQ_STR(cs_slice_str(cs_cli_text(&c, o, "a")), "x\\x00y");
    json_decref(o);
}

CS_TEST(out_times_are_read_strictly)
{
    static const struct {
        const char *text;
        bool ok;
        uint64_t ms;
    } t[] = {
        {"1970-01-01T00:00:01Z", true, 1000}, {"2026-11-22T09:51:12.123Z", true, 1795341072123ULL},
        {"2026-11-22T09:51:12", false, 0},    {"2026-11-22T09:51:12+01:00", false, 0},
        {"2026-11-22T09:51:12.1Z", false, 0}, {"2026-11-22T09:51:12.xyzZ", false, 0},
        {"yesterday, perhaps....", false, 0}, {"", false, 0}};
    for (size_t i = 0; i < CS_ARRAY_LEN(t); i++) {
        uint64_t ms = 0;
        CS_CHECK(cs_cli_time(cs_slice_str(t[i].text), &ms) == t[i].ok);
        CS_EQ_U64(ms, t[i].ms);
    }
}

CS_TEST(out_spans_are_readable)
{
    start();
    CS_EQ_STR(cs_slice_str(cs_cli_span(&c, 999)), "999 ms");
    CS_EQ_STR(cs_slice_str(cs_cli_span(&c, 45000)), "45 s");
    CS_EQ_STR(cs_slice_str(cs_cli_span(&c, 15 * 60000)), "15 min");
    CS_EQ_STR(cs_slice_str(cs_cli_span(&c, 26 * 3600000ULL)), "26 h");
    CS_EQ_STR(cs_slice_str(cs_cli_span(&c, 72 * 3600000ULL)), "3 d");
}

CS_TEST(out_cuts_at_characters)
{
    start();
    CS_EQ_STR(cs_slice_str(cs_cli_cut(&c, "abc", 3)), "abc");
    CS_EQ_STR(cs_slice_str(cs_cli_cut(&c, "abcd", 3)), "ab…");
    CS_EQ_STR(cs_slice_str(cs_cli_cut(&c, "éééé", 3)), "éé…");
}

CS_TEST(out_chain_reads_from_the_acting_one_to_the_root)
{
    start();
    json_t *o = json_loads("[{\"kind\": \"person\", \"id\": \"local:alice\", \"name\": \"alice\"},"
                           " {\"kind\": \"agent\", \"id\": \"local:bot\", \"name\": \"\"}]",
                           0, NULL);
    CS_EQ_STR(cs_slice_str(cs_cli_chain(&c, o)), "agent local:bot on behalf of person alice");
    json_decref(o);
}
