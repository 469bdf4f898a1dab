#include "action/chain.h"
#include "base/time.h"
#include "record/csr_read.h"
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

/* ---- recordings on disk ---- */

struct made {
    uint8_t private[CS_X25519];
    struct cs_csr_to to;
};

static void made_key(struct made *m)
{
    cs_random(m->private, sizeof m->private);
    m->to.n = 1;
    (void)cs_wrapped_key_name(cs_wall_ms(), m->to.key[0].name);
    CS_EQ_U64(cs_x25519_public(m->private, m->to.key[0].public), CS_OK);
}

enum { RESTART_EVERY = 60 };

/* A session's file with `n` notes "number I xxx…", one second apart; with restarts of the recorder
 * when `restarts`. */
static void made_file(const struct scratch *s, struct made *m, const struct cs_journal_file *f,
                      unsigned n, bool restarts, bool end)
{
    static uint8_t out[CS_CSR_FRAME_MAX], event[21000];
    static char text[20000];
    char name[CS_CSR_NAME], path[400];
    struct cs_csr_writer w;
    size_t len = 0;
    struct cs_gcm *gcm = cs_gcm_new();
    struct cs_csr_stream *stream = cs_csr_stream_new();
    uint64_t started = 1763806272000;
    scratch_path(s, cs_csr_name(&f->session, f->foreign, f->epoch, name), path);
    FILE *file = fopen(path, "w+b");
    CS_CHECK(file != NULL);
    CS_EQ_U64(cs_csr_begin(&w, &m->to, &f->session, f->epoch, started, out, sizeof out, &len),
              CS_OK);
    CS_CHECK(fwrite(out, 1, len, file) == len);
    for (unsigned i = 0; i < n; i++) {
        struct cs_frame_head head = {CS_FRAME_NOTE, started + 1000 * i, f->session};
        memset(text, 'x', sizeof text - 1);
        (void)snprintf(text, 20, "number %u ", i);
        text[strlen(text)] = 'x';
        struct cs_frame_note note = {.text = cs_slice_str(text)};
        struct cs_writer e = cs_writer(event, sizeof event);
        cs_frame_encode(&e, &head, &note);
        if (restarts && i > 0 && i % RESTART_EVERY == 0) {
            int fd = fileno(file);
            struct cs_csr_tail tail;
            CS_CHECK(fflush(file) == 0);
            CS_EQ_U64(cs_csr_find_tail(cs_csr_descriptor(&fd, w.offset), &tail), CS_OK);
            cs_csr_writer_done(&w);
            CS_EQ_U64(cs_csr_resume(&w, gcm, &m->to, &tail, started, out, sizeof out, &len), CS_OK);
            CS_CHECK(fwrite(out, 1, len, file) == len);
        }
        CS_EQ_U64(cs_csr_add(&w, stream, cs_writer_done(&e), false, head.wall_ms * 1000000), CS_OK);
        CS_EQ_U64(cs_csr_flush(&w, gcm, out, sizeof out, &len), CS_OK);
        CS_CHECK(fwrite(out, 1, len, file) == len);
        if (cs_csr_index_is_due(&w)) {
            CS_EQ_U64(cs_csr_index_frame(&w, gcm, out, sizeof out, &len), CS_OK);
            CS_CHECK(fwrite(out, 1, len, file) == len);
        }
    }
    if (end && w.n_entries > 0) {
        CS_EQ_U64(cs_csr_index_frame(&w, gcm, out, sizeof out, &len), CS_OK);
        CS_CHECK(fwrite(out, 1, len, file) == len);
    }
    if (end) {
        CS_EQ_U64(cs_csr_end_frame(&w, gcm, CS_CSR_END_CLOSED, 1, out, sizeof out, &len), CS_OK);
        CS_CHECK(fwrite(out, 1, len, file) == len);
    }
    CS_CHECK(fclose(file) == 0);
    cs_csr_writer_done(&w);
    cs_csr_stream_free(stream);
    cs_gcm_free(gcm);
}

static enum cs_err read_back(const struct scratch *s, const struct made *m, const struct cs_id *id,
                             const struct cs_replay_query *q, struct cs_buf *out)
{
    struct cs_replay *r = NULL;
    enum cs_err err = cs_replay_open(s->dir, id, &r);
    out->len = 0;
    if (err == CS_OK) {
        (void)cs_replay_own_key(r, m->private);
        err = cs_replay_json(r, q, out);
    }
    cs_replay_close(r);
    return err;
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

static const struct cs_replay_query everything = {.cap = 32 * 1024 * 1024};

CS_TEST(replay_shows_a_session_in_order_over_restarts_of_the_recorder)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(2), 9, false};
    struct cs_id nobody = id_of(3);
    made_key(&m);
    made_file(&s, &m, &f, 200, true, true);
    CS_EQ_U64(read_back(&s, &m, &f.session, &everything, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 200);
    CS_CHECK(holds(cs_buf_slice(&b), "\"finished\": true}"));
    CS_CHECK(cs_slice_starts(cs_buf_slice(&b), CS_SLICE_LIT("{\"session\": \"02020202")));
    const uint8_t *at = b.p;
    for (unsigned i = 0; i < 200; i++) {
        char part[32];
        (void)snprintf(part, sizeof part, "number %u x", i);
        at = memmem(at, (size_t)(b.p + b.len - at), part, strlen(part));
        CS_CHECK(at != NULL);
    }
    CS_EQ_U64(read_back(&s, &m, &nobody, &everything, &b), CS_ERR_NOT_FOUND);
    cs_buf_done(&b);
    scratch_done(&s);
    CS_EQ_U64(cs_alloc_live(), 0);
}

CS_TEST(replay_without_the_key_shows_nothing_and_says_how_much)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(1024 * 1024);
    struct made m, other;
    struct cs_journal_file f = {id_of(2), 9, false};
    made_key(&m);
    made_key(&other);
    made_file(&s, &m, &f, 5, false, true);
    CS_EQ_U64(read_back(&s, &other, &f.session, &everything, &b), CS_OK);
    CS_CHECK(holds(cs_buf_slice(&b), "\"frames\": []") &&
             holds(cs_buf_slice(&b), "\"unreadable\": 5"));
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_opens_what_keeper_sealed_for_it_and_for_no_other_session)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(8 * 1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(2), 9, false};
    struct cs_id other = id_of(3);
    uint8_t reader[CS_X25519], public[CS_X25519], mem[CS_WRAPPED_AAD], dek[CS_WRAPPED_KEY];
    made_key(&m);
    made_file(&s, &m, &f, 5, false, true);
    cs_random(reader, sizeof reader);
    CS_EQ_U64(cs_x25519_public(reader, public), CS_OK);
    for (int wrong = 0; wrong < 2; wrong++) {
        struct cs_replay *r = NULL;
        uint8_t row[CS_OPENED_ROW];
        struct cs_wrapped w;
        CS_EQ_U64(cs_replay_open(s.dir, &f.session, &r), CS_OK);
        struct cs_slice rows = cs_replay_rows(r);
        CS_CHECK(cs_wrapped_next(&rows, &w) && rows.n == 0 && w.epoch == 1);
        CS_CHECK(cs_wrapped_is_key_name(cs_slice_str(w.name)));
        CS_EQ_U64(cs_unseal_to(m.private, cs_wrapped_aad(false, &f.session, 1, mem),
                               cs_slice(w.box, sizeof w.box), dek),
                  CS_OK);
        CS_EQ_U64(cs_seal_to(public, cs_wrapped_aad(true, wrong ? &other : &f.session, 1, mem),
                             cs_slice(dek, sizeof dek), w.box),
                  CS_OK);
        cs_opened_write(&w, row);
        CS_EQ_U64(cs_replay_keys(r, reader, cs_slice(row, sizeof row)), !wrong);
        b.len = 0;
        CS_EQ_U64(cs_replay_json(r, &everything, &b), CS_OK);
        CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), wrong ? 0 : 5);
        cs_replay_close(r);
    }
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_begins_where_it_is_told_with_and_without_an_index)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct made m;
    made_key(&m);
    for (unsigned round = 0; round < 3; round++) { /* ended; going on; with restarts */
        struct cs_journal_file f = {id_of((uint8_t)(10 + round)), 9, false};
        made_file(&s, &m, &f, 1500, round == 2, round == 0);
        static const unsigned froms[] = {1, 700, 1499};
        for (size_t i = 0; i < CS_ARRAY_LEN(froms); i++) {
            struct cs_replay_query q = {.from_ms = 1000 * froms[i], .cap = 60 * 1024 * 1024};
            char part[32];
            CS_EQ_U64(read_back(&s, &m, &f.session, &q, &b), CS_OK);
            CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 1500 - froms[i]);
            (void)snprintf(part, sizeof part, "number %u x", froms[i]);
            CS_CHECK(holds(cs_buf_slice(&b), part) && !holds(cs_buf_slice(&b), "damaged"));
        }
    }
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_finds_text_in_upper_or_lower_case)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(8 * 1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(2), 9, false};
    struct cs_replay_query q = {.find = CS_SLICE_LIT("NUMBER 17 X"), .cap = 1024 * 1024};
    made_key(&m);
    made_file(&s, &m, &f, 50, false, true);
    CS_EQ_U64(read_back(&s, &m, &f.session, &q, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 1);
    q.find = CS_SLICE_LIT("number 50");
    CS_EQ_U64(read_back(&s, &m, &f.session, &q, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 0);
    q = (struct cs_replay_query){.actions = true, .cap = 1024 * 1024};
    CS_EQ_U64(read_back(&s, &m, &f.session, &q, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 0);
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_leaves_out_what_another_gate_says_of_the_session)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(1), 9, false}, forged = {id_of(1), 10, true};
    made_key(&m);
    made_file(&s, &m, &f, 2, false, true);
    made_file(&s, &m, &forged, 3, false, false);
    CS_EQ_U64(read_back(&s, &m, &f.session, &everything, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 2);
    CS_CHECK(holds(cs_buf_slice(&b), "\"foreign\": 3}"));
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_beyond_its_cap_says_truncated)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(1), 9, false};
    struct cs_replay_query q = {.cap = 100000};
    made_key(&m);
    made_file(&s, &m, &f, 20, false, true);
    CS_EQ_U64(read_back(&s, &m, &f.session, &q, &b), CS_OK);
    CS_EQ_U64(occurrences(cs_buf_slice(&b), "\"kind\": \"note\""), 4);
    CS_CHECK(holds(cs_buf_slice(&b), "\"truncated\": true}"));
    struct cs_buf small = cs_buf(50000); /* a ceiling that is reached inside an event */
    CS_EQ_U64(read_back(&s, &m, &f.session, &q, &small), CS_OK);
    CS_CHECK(holds(cs_buf_slice(&small), "\"truncated\": true}"));
    cs_buf_done(&small);
    cs_buf_done(&b);
    scratch_done(&s);
}

CS_TEST(replay_stops_at_damage_and_says_so)
{
    struct scratch s = scratch_make();
    struct cs_buf b = cs_buf(64 * 1024 * 1024);
    struct made m;
    struct cs_journal_file f = {id_of(1), 9, false};
    char path[400], name[CS_CSR_NAME];
    struct stat st;
    made_key(&m);
    made_file(&s, &m, &f, 200, false, true);
    scratch_path(&s, cs_csr_name(&f.session, false, 0, name), path);
    int fd = open(path, O_RDWR);
    CS_CHECK(fstat(fd, &st) == 0);
    CS_CHECK(pwrite(fd, "XXXX", 4, st.st_size / 2) == 4 && close(fd) == 0);
    CS_EQ_U64(read_back(&s, &m, &f.session, &everything, &b), CS_OK);
    CS_CHECK(holds(cs_buf_slice(&b), "\"damaged\": \""));
    CS_CHECK(holds(cs_buf_slice(&b), "number 10 x") && !holds(cs_buf_slice(&b), "number 198 x"));
    cs_buf_done(&b);
    scratch_done(&s);
}
