/* What people are shown. */
#include "action/action.h"
#include "tap.h"

static void expect(struct cs_slice in, bool multiline, const char *out)
{
    struct cs_arena a;
    cs_arena_init(&a, 4096, 1 << 20);
    CS_EQ_STR(cs_sanitise(in, multiline, &a), out);
    cs_arena_done(&a);
}

CS_TEST(sanitise_keeps_ordinary_text)
{
    expect(CS_SLICE_LIT("SELECT 'Größe' FROM t -- 漢字 ñ"), false,
           "SELECT 'Größe' FROM t -- 漢字 ñ");
    expect(CS_SLICE_LIT(""), false, "");
    expect(CS_SLICE_LIT("a\n\tb"), true, "a\n\tb");
}

CS_TEST(sanitise_shows_control_characters)
{
    expect(CS_SLICE_LIT("a\n\tb"), false, "a\\x0a\\x09b");
    expect(CS_SLICE_LIT("\x1b[2J\r\x7f\b"), true, "\\x1b[2J\\x0d\\x7f\\x08");
    expect(cs_slice("\0", 1), true, "\\x00");
    expect(CS_SLICE_LIT("\xc2\x9b"
                        "31m"),
           true, "\\u{9b}31m"); /* the one-character form of ESC [ */
}

CS_TEST(sanitise_shows_what_reorders_or_hides)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"\u202e", "\\u{202e}"}, {"\u202a", "\\u{202a}"},      {"\u2066", "\\u{2066}"},
        {"\u2069", "\\u{2069}"}, {"\u200e", "\\u{200e}"},      {"\u200f", "\\u{200f}"},
        {"\u061c", "\\u{61c}"},  {"\u200b", "\\u{200b}"},      {"\u200d", "\\u{200d}"},
        {"\u2060", "\\u{2060}"}, {"\ufeff", "\\u{feff}"},      {"\u00ad", "\\u{ad}"},
        {"\u2028", "\\u{2028}"}, {"\u2029", "\\u{2029}"},      {"\U000e0041", "\\u{e0041}"},
        {"\ufe0f", "\\u{fe0f}"}, {"\U000e0100", "\\u{e0100}"}, {"\u00a0", "\\u{a0}"},
        {"\u3000", "\\u{3000}"}, {"\ue000", "\\u{e000}"},      {"\U0010ffff", "\\u{10ffff}"},
        {"\u115f", "\\u{115f}"}, {"\u3164", "\\u{3164}"},      {"\u180e", "\\u{180e}"},
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        expect(cs_slice_str(rows[i].in), true, rows[i].out);
    }
}

CS_TEST(sanitise_shows_bytes_that_are_no_utf_8)
{
    expect(CS_SLICE_LIT("a\xff\xfez"), true, "a\\xff\\xfez");
    expect(CS_SLICE_LIT("\xc0\xaf"), true, "\\xc0\\xaf");          /* overlong */
    expect(CS_SLICE_LIT("\xed\xa0\x80"), true, "\\xed\\xa0\\x80"); /* surrogate */
    expect(CS_SLICE_LIT("\xe2\x80"), true, "\\xe2\\x80");          /* cut */
}

CS_TEST(sanitise_doubles_a_backslash_only_where_it_would_lie)
{
    expect(CS_SLICE_LIT("'\\d+\\.'"), false, "'\\d+\\.'");
    expect(CS_SLICE_LIT("\\x0a"), false, "\\\\x0a");
    expect(CS_SLICE_LIT("\\u{202e}"), false, "\\\\u{202e}");
    expect(CS_SLICE_LIT("\\\n"), false, "\\\\\\x0a");
    expect(CS_SLICE_LIT("\\\n"), true, "\\\n");
    expect(CS_SLICE_LIT("\\\\"), false, "\\\\\\");
    expect(CS_SLICE_LIT("\\"), false, "\\");
}

CS_TEST(sanitise_survives_a_lack_of_memory)
{
    bool done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena a;
        cs_arena_init(&a, 16, 4096);
        done = cs_sanitise(CS_SLICE_LIT("a\x01"), false, &a).p != NULL;
        cs_arena_done(&a);
    }
    CS_CHECK(done);
    struct cs_arena a;
    cs_arena_init(&a, 16, 3);
    CS_CHECK(cs_sanitise(CS_SLICE_LIT("\x01"), false, &a).p == NULL);
    cs_arena_done(&a);
}
