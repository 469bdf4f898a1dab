#include "action/chain.h"
#include "record/json.h"
#include "record/replay.h"
#include "scratch.h"

static struct cs_slice json_of(struct cs_buf *out, const struct cs_frame_head *head,
                               const void *frame)
{
    uint8_t bytes[4096];
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_frame_encode(&w, head, frame);
    CS_CHECK(!w.overflow);
    out->len = 0;
    struct cs_json j = {out, false};
    CS_CHECK(cs_replay_frame(&j, cs_writer_done(&w)));
    return cs_buf_slice(out);
}

static bool holds(struct cs_slice text, const char *part)
{
    return memmem(text.p, text.n, part, strlen(part)) != NULL;
}

CS_TEST(json_text_cannot_leave_its_quotes)
{
    struct cs_buf b = cs_buf(4096);
    struct cs_json j = {&b, false};
    cs_json_begin(&j, NULL, '[');
    cs_json_bytes(&j, NULL, CS_SLICE_LIT("a\"b\\c\nd\x7f</x>\xc3\xa9"));
    cs_json_bytes(&j, NULL, CS_SLICE_LIT("a\0b"));
    cs_json_bytes(&j, NULL, CS_SLICE_LIT("\xff\xfe"));
    cs_json_bytes(&j, NULL, CS_SLICE_NULL);
    cs_json_u64(&j, NULL, (1ULL << 53) - 1);
    cs_json_u64(&j, NULL, 1ULL << 53);
    cs_json_begin(&j, NULL, '{');
    cs_json_bool(&j, "a", true);
    cs_json_hex(&j, "b", CS_SLICE_LIT("\x01\xff"));
    cs_json_end(&j, '}');
    cs_json_end(&j, ']');
    CS_EQ_STR(cs_buf_slice(&b),
              "[\"a\\\"b\\\\c\\u000ad\\u007f\\u003c/x>\xc3\xa9\", {\"base64\": \"YQBi\"}, "
              "{\"base64\": \"//4=\"}, \"\", "
              "9007199254740991, \"9007199254740992\", {\"a\": true, \"b\": \"01ff\"}]");
    cs_buf_done(&b);
}

CS_TEST(replay_shows_an_action_by_its_field_table)
{
    struct cs_buf b = cs_buf(4096);
    struct cs_frame_head head = {CS_FRAME_ACTION, 1763806272123, id_of(1)};
    struct cs_frame_action a = {.n = 3,
                                .outcome = 1,
                                .rules = CS_SLICE_LIT("change-data"),
                                .policy = 0xfedcba9876543210,
                                .text = CS_SLICE_LIT("DROP TABLE \"x\"")};
    CS_EQ_STR(
        json_of(&b, &head, &a),
        "{\"t\": \"2025-11-22T10:11:12.123Z\", \"kind\": \"action\", \"n\": 3, \"outcome\": "
        "\"hold\", "
        "\"rules\": \"change-data\", \"why\": \"\", \"policy\": \"fedcba9876543210\", \"effects\": "
        "\"\", "
        "\"verb\": \"\", \"text\": \"DROP TABLE \\\"x\\\"\", \"params\": \"\", \"tx\": \"\"}");
    a.outcome = 99;
    CS_CHECK(holds(json_of(&b, &head, &a), "\"outcome\": 99"));
    cs_buf_done(&b);
}

CS_TEST(replay_shows_chain_digest_and_state_readably)
{
    struct cs_buf b = cs_buf(4096);
    uint8_t bytes[512], digest[32];
    struct cs_slice groups[] = {CS_SLICE_LIT("agents"), CS_SLICE_LIT("ops")};
    struct cs_chain chain = {.n = 2};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                       CS_SLICE_LIT("alice"), NULL, 0};
    chain.p[1] = (struct cs_principal){CS_PRINCIPAL_AGENT, CS_SLICE_LIT("local:bot"),
                                       CS_SLICE_LIT("bot"), groups, 2};
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_chain_encode(&w, &chain);
    struct cs_frame_head head = {CS_FRAME_SESSION_OPEN, 1, id_of(1)};
    struct cs_frame_session_open open = {.chain = cs_writer_done(&w)};
    CS_CHECK(holds(json_of(&b, &head, &open),
                   "\"chain\": [{\"kind\": \"person\", \"id\": \"local:alice\", \"name\": "
                   "\"alice\", \"groups\": []}, "
                   "{\"kind\": \"agent\", \"id\": \"local:bot\", \"name\": \"bot\", \"groups\": "
                   "[\"agents\", \"ops\"]}]"));
    open.chain = CS_SLICE_LIT("\x09garbage");
    CS_CHECK(holds(json_of(&b, &head, &open), "\"chain\": \"\\u0009garbage\""));
    memset(digest, 0xab, sizeof digest);
    head.kind = CS_FRAME_HELD;
    struct cs_frame_held held = {.digest = cs_slice(digest, 32), .attached = 1};
    CS_CHECK(holds(json_of(&b, &head, &held), "\"digest\": \"abababababababababab"));
    CS_CHECK(holds(json_of(&b, &head, &held), "\"attached\": true"));
    head.kind = CS_FRAME_DECIDED;
    struct cs_frame_decided decided = {.state = 2};
    CS_CHECK(holds(json_of(&b, &head, &decided), "\"state\": \"approved\""));
    head.kind = CS_FRAME_EXECUTE;
    struct cs_frame_execute execute = {.grant = id_of(0x5a)};
    CS_CHECK(
        holds(json_of(&b, &head, &execute), "\"grant\": \"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\""));
    cs_buf_done(&b);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(replay_refuses_what_is_no_frame)
{
    struct cs_buf b = cs_buf(4096);
    struct cs_json j = {&b, false};
    CS_CHECK(!cs_replay_frame(&j, CS_SLICE_NULL));
    CS_CHECK(!cs_replay_frame(&j, CS_SLICE_LIT("\xff 234567890123456789012345")));
    CS_EQ_U64(b.len, 0);
    /* A known kind with a broken body is shown as such: it was recorded, that is a fact. */
    CS_CHECK(cs_replay_frame(&j, CS_SLICE_LIT("\x08"
                                              "12345678"
                                              "1234567890123456"
                                              "\xff\xff\xff\xff")));
    CS_CHECK(holds(cs_buf_slice(&b), "\"kind\": \"note\", \"damaged\": true}"));
    cs_buf_done(&b);
}

static void fill(const struct scratch *s, unsigned frames)
{
    struct cs_journal j;
    struct cs_journal_recovery found = {0, 0, 0};
    static char text[20000];
    CS_EQ_U64(cs_journal_open(&j, s->dir, TEST_SEGMENT, &found), CS_OK);
    for (unsigned i = 0; i < frames; i++) {
        memset(text, 'x', sizeof text - 1);
        (void)snprintf(text, 20, "number %u ", i);
        text[strlen(text)] = 'x';
        journal_note(&j, 9, 1 + i, (uint8_t)(1 + i % 2), text);
    }
    CS_EQ_U64(cs_journal_sync(&j), CS_OK);
    cs_journal_close(&j);
}

static unsigned occurrences(struct cs_slice s, const char *part)
{
    unsigned n = 0;
    const uint8_t *end = s.p + s.n;
    for (const uint8_t *p = s.p; (p = memmem(p, (size_t)(end - p), part, strlen(part))) != NULL;
         p++) {
        n++;
    }
    return n;
}

CS_TEST(replay_collects_one_session_in_order_over_segments)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct cs_id id = id_of(2), nobody = id_of(3);
    fill(&s, 200);
    CS_CHECK(scratch_count(&s, ".csj") > 2);
    CS_EQ_U64(cs_replay_session(s.dir, &id, 32 * 1024 * 1024, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 100);
    CS_CHECK(!holds(cs_buf_slice(&b), "truncated") && !holds(cs_buf_slice(&b), "damaged"));
    CS_CHECK(cs_slice_starts(cs_buf_slice(&b), CS_SLICE_LIT("{\"session\": \"02020202")));
    const uint8_t *at = b.p;
    for (unsigned i = 1; i < 200; i += 2) {
        char part[32];
        (void)snprintf(part, sizeof part, "number %u x", i);
        at = memmem(at, (size_t)(b.p + b.len - at), part, strlen(part));
        CS_CHECK(at != NULL);
    }
    b.len = 0;
    CS_EQ_U64(cs_replay_session(s.dir, &nobody, 1024, &b), CS_ERR_NOT_FOUND);
    b.len = 0;
    CS_EQ_U64(cs_replay_session("/no/such/directory", &id, 1024, &b), CS_ERR_NOT_FOUND);
    cs_buf_done(&b);
    scratch_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(replay_leaves_out_what_another_gate_says_of_the_session)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(1024 * 1024);
    struct cs_id id = id_of(1);
    struct cs_journal j;
    struct cs_journal_recovery found = {0, 0, 0};
    CS_EQ_U64(cs_journal_open(&j, s.dir, TEST_SEGMENT, &found), CS_OK);
    journal_note(&j, 9, 1, 1, "genuine one");
    journal_note(&j, 10, 1, 1, "forged");
    journal_note(&j, 10, 2, 2, "of its own");
    journal_note(&j, 9, 2, 1, "genuine two");
    CS_EQ_U64(cs_journal_sync(&j), CS_OK);
    cs_journal_close(&j);
    CS_EQ_U64(cs_replay_session(s.dir, &id, 1024 * 1024, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 2);
    CS_CHECK(holds(cs_buf_slice(&b), "genuine two") && !holds(cs_buf_slice(&b), "forged"));
    CS_CHECK(cs_slice_ends(cs_buf_slice(&b), CS_SLICE_LIT("], \"foreign\": 1}")));
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_beyond_its_cap_says_truncated)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct cs_id id = id_of(1);
    fill(&s, 20);
    CS_EQ_U64(cs_replay_session(s.dir, &id, 100000, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 4);
    CS_CHECK(cs_slice_ends(cs_buf_slice(&b), CS_SLICE_LIT("], \"truncated\": true}")));
    b.len = 0;
    struct cs_buf small = cs_buf(50000); /* a ceiling that is reached inside a frame */
    CS_EQ_U64(cs_replay_session(s.dir, &id, 100000, &small), CS_OK);
    CS_CHECK(cs_slice_ends(cs_buf_slice(&small), CS_SLICE_LIT("], \"truncated\": true}")));
    cs_buf_done(&small);
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_reads_around_damage_and_says_so)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct cs_id id = id_of(1);
    char path[400];
    fill(&s, 200);
    scratch_path(&s, "journal-00000001.csj", path);
    int fd = open(path, O_RDWR);
    CS_CHECK(pwrite(fd, "XXXX", 4, 200000) == 4 && close(fd) == 0);
    CS_EQ_U64(cs_replay_session(s.dir, &id, 32 * 1024 * 1024, &b), CS_OK);
    CS_CHECK(cs_slice_ends(cs_buf_slice(&b), CS_SLICE_LIT("], \"damaged\": 1}")));
    CS_CHECK(holds(cs_buf_slice(&b), "number 198 x"));
    cs_buf_done(&b);
    scratch_done(&s);
}
