/* Rows out of recorded bytes: whole, in pieces, and bytes that are none. */
#include "record/rows.h"
#include "tap.h"

static struct cs_buf out;

/* What is shown of data in pieces of `step` bytes. */
static const char *shown(const char *data, size_t n, size_t step)
{
    struct cs_rows r = {0};
    cs_buf_done(&out);
    out = cs_buf(1 << 20);
    struct cs_json j = {&out, false};
    for (size_t at = 0; at < n; at += step) {
        cs_json_begin(&j, NULL, '{');
        cs_rows_show(&r, &j, 1, at, cs_slice_head(cs_slice(data + at, n - at), step));
        cs_json_end(&j, '}');
    }
    cs_rows_done(&r);
    printf("# %s\n", cs_buf_cstr(&out));
    return cs_buf_cstr(&out);
}

#define ROW "D\0\0\0\x14\0\3\0\0\0\1x\xff\xff\xff\xff\0\0\0\1\1"
static const char rows[] = "T\0\0\0\x1b\0\1id\0"
                           "123456789012345678" ROW "d\0\0\0\6a\n";

CS_TEST(rows_are_shown_with_their_values)
{
    CS_EQ_STR(cs_slice_str(shown(rows, sizeof rows - 1, 4096)),
              "{\"said\": [{\"columns\": [\"id\"]}, {\"row\": [\"x\", null, {\"hex\": \"01\", "
              "\"bytes\": 1}]}, {\"copy\": \"a\\u000a\"}]}");
}

CS_TEST(rows_in_pieces_are_put_together)
{
    for (size_t step = 1; step < sizeof rows; step++) {
        const char *s = shown(rows, sizeof rows - 1, step);
        CS_CHECK(strstr(s, "{\"columns\": [\"id\"]}") != NULL);
        CS_CHECK(strstr(s, "{\"row\": [\"x\", null,") != NULL &&
                 strstr(s, "{\"copy\": \"a\\u000a\"}") != NULL);
        CS_CHECK(strstr(s, "\"data\"") == NULL);
    }
}

CS_TEST(rows_that_are_none_are_shown_as_bytes)
{
    static const struct {
        const char *p;
        size_t n;
    } bad[] = {
        {"D\0\0\0\3", 5},                 /* a length below four */
        {"D\xff\xff\xff\xff", 5},         /* beyond any */
        {"x\0\0\0\4", 5},                 /* no such message */
        {"D\0\0\0\x0a\0\1\0\0\0\5", 11},  /* a value longer than its message */
        {"D\0\0\0\x0b\0\1\0\0\0\0z", 12}, /* bytes behind the last value */
        {"T\0\0\0\x08\0\1id", 9},         /* a name without an end */
    };
    for (size_t i = 0; i < CS_ARRAY_LEN(bad); i++) {
        CS_CHECK(strstr(shown(bad[i].p, bad[i].n, 4096), "\"data\":") != NULL);
    }
}

CS_TEST(rows_behind_a_gap_are_not_guessed)
{
    struct cs_rows r = {0};
    struct cs_buf b = cs_buf(1 << 16);
    struct cs_json j = {&b, false};
    cs_json_begin(&j, NULL, '{');
    cs_rows_show(&r, &j, 1, 10, cs_slice(rows, sizeof rows - 1));
    cs_json_end(&j, '}');
    CS_CHECK(strstr(cs_buf_cstr(&b), "row") == NULL);
    cs_rows_done(&r);
    cs_buf_done(&b);
}

CS_TEST(rows_too_large_to_be_shown_are_counted)
{
    const char *s = shown("D\0\x20\0\0", 5, 4096);
    CS_CHECK(strstr(s, "{\"bytes\": 2097153}") != NULL);
}
