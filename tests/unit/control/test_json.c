#include "control/json.h"
#include "tap.h"

static const struct cs_json_field fields[] = {
    {.name = "name", .kind = CS_JSON_STRING, .required = true, .max = 8},
    {.name = "words", .kind = CS_JSON_STRING, .lines = true, .max = 16},
    {.name = "groups", .kind = CS_JSON_STRINGS, .max = 4, .max_n = 2},
};

static enum cs_err read_body(const char *body, struct cs_json_value *v, json_t **root)
{
    char why[200] = "";
    cs_json_init();
    enum cs_err e = cs_json_read(cs_slice_str(body), fields, 3, v, root, why, sizeof why);
    CS_CHECK((e == CS_OK) == (why[0] == 0));
    return e;
}

static void refused(const char *body)
{
    struct cs_json_value v[3];
    json_t *root = NULL;
    if (read_body(body, v, &root) == CS_OK) {
        CS_FAIL("accepted: %s", body);
    }
    CS_CHECK(root == NULL);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(json_reads_what_the_table_names)
{
    struct cs_json_value v[3];
    json_t *root = NULL;
    CS_CHECK(read_body("{\"name\":\"al\\u00e9\",\"words\":\"a\\nb\",\"groups\":[\"x\",\"y\"]}", v,
                       &root) == CS_OK);
    CS_EQ_STR(v[0].string, "al\xc3\xa9");
    CS_EQ_STR(v[1].string, "a\nb");
    struct cs_arena a;
    struct cs_slice *groups = NULL;
    size_t n = 0;
    cs_arena_init(&a, 256, 4096);
    CS_CHECK(cs_json_strings(&v[2], &a, &groups, &n));
    CS_EQ_U64(n, 2);
    CS_EQ_STR(groups[1], "y");
    cs_arena_done(&a);
    json_decref(root);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(json_leaves_out_what_is_optional)
{
    struct cs_json_value v[3];
    json_t *root = NULL;
    CS_CHECK(read_body("{\"name\":\"a\"}", v, &root) == CS_OK);
    CS_CHECK(v[0].has && !v[1].has && !v[2].has);
    json_decref(root);
}

CS_TEST(json_refuses_duplicate_keys)
{
    refused("{\"name\":\"a\",\"name\":\"b\"}");
}

CS_TEST(json_refuses_unknown_keys)
{
    refused("{\"name\":\"a\",\"admin\":true}");
}

CS_TEST(json_refuses_wrong_types)
{
    refused("{\"name\":1}");
    refused("{\"name\":null}");
    refused("{\"name\":[\"a\"]}");
    refused("{\"name\":\"a\",\"groups\":\"x\"}");
    refused("{\"name\":\"a\",\"groups\":[1]}");
    refused("[]");
    refused("\"name\"");
}

CS_TEST(json_refuses_what_is_missing_or_too_long)
{
    refused("{}");
    refused("");
    refused("{\"name\":\"123456789\"}");
    refused("{\"name\":\"a\",\"groups\":[\"12345\"]}");
    refused("{\"name\":\"a\",\"groups\":[\"\"]}");
    refused("{\"name\":\"a\",\"groups\":[\"1\",\"2\",\"3\"]}");
}

CS_TEST(json_refuses_broken_text)
{
    refused("{\"name\":\"a\"");
    refused("{\"name\":\"a\"} x");
    refused("{\"name\":\"a\\u0000b\"}");
    refused("{\"name\":\"a\\nb\"}");
    refused("{\"name\":\"\\ud800\"}");
    refused("{\"name\":\"\xff\"}");
    refused("{\"name\":\"\xc0\xaf\"}");
}

CS_TEST(json_refuses_deep_nesting_before_it_recurses)
{
    static char body[60001];
    memset(body, '[', sizeof body - 1);
    refused(body);
    refused("{\"name\":[[[[[[[[[[[]]]]]]]]]]]}");
    /* Brackets inside strings are only text. */
    struct cs_json_value v[3];
    json_t *root = NULL;
    CS_CHECK(read_body("{\"name\":\"\\\"[[{\",\"words\":\"[[[[[[[[[[[[\"}", v, &root) == CS_OK);
    json_decref(root);
}

CS_TEST(json_refuses_oversize_bodies)
{
    static char body[70000];
    struct cs_json_value v[3];
    json_t *root = NULL;
    memset(body, ' ', sizeof body - 1);
    CS_CHECK(read_body(body, v, &root) == CS_ERR_TOO_LARGE);
}

CS_TEST(json_survives_a_lack_of_memory)
{
    bool done = false;
    cs_json_init();
    CS_OOM_LOOP(done)
    {
        struct cs_json_value v[3];
        json_t *root = NULL;
        char why[200];
        done = cs_json_read(CS_SLICE_LIT("{\"name\":\"a\",\"groups\":[\"x\"]}"), fields, 3, v,
                            &root, why, sizeof why) == CS_OK;
        json_decref(root);
    }
    CS_CHECK(done);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(json_shows_what_is_not_utf8_as_escapes)
{
    struct cs_arena a;
    cs_json_init();
    cs_arena_init(&a, 256, 4096);
    json_t *v = cs_json_text(CS_SLICE_LIT("a\xff"), &a);
    CS_EQ_STR(cs_slice_str(json_string_value(v)), "a\\xff");
    json_decref(v);
    cs_arena_done(&a);
}
