/* The gate's own parser, played by the test: whose turn it is, and whose answer is whose. */
#include "base/alloc.h"
#include "gate/gate.h"
#include "ipc/parcel.h"
#include "runtime/sock.h"
#include "sql/parsed.h"
#include "tap.h"

#include <unistd.h>

struct asker {
    struct cs_session s;
    const char *text;
    enum cs_parser_said how;
    const struct cs_sql_class *class;
    unsigned turn; /* which of them was done when, from 1 */
};
struct play {
    struct cs_loop *loop;
    struct cs_gate *g;
    struct cs_fd theirs;
    struct asker asker[3];
    unsigned n_askers, done;
    void (*play)(struct play *p);
};
static struct play *play_now;

static void ask(void *arg)
{
    struct asker *a = arg;
    a->how = cs_gate_parser_ask(&a->s, cs_slice_str(a->text), &a->class);
    a->turn = ++play_now->done;
}

/* The text that the gate has sent, and its number. */
static struct cs_slice next_text(struct play *p, uint64_t *ret_id)
{
    static uint8_t room[256];
    struct cs_slice in = CS_SLICE_NULL;
    while (cs_parcel_receive(p->theirs.fd, room, sizeof room, &in) == CS_PARCEL_NONE) {
        struct cs_wait w = CS_WAIT_ON(CS_WAIT_READ, &p->theirs);
        p->theirs.readable = false;
        CS_CHECK(cs_wait(&w, 1, cs_mono_ns() + 10 * CS_NS_PER_S) == CS_WOKE_READY);
    }
    struct cs_reader r = cs_reader(in);
    *ret_id = cs_reader_u64le(&r);
    return cs_reader_rest(&r);
}

static void say(struct play *p, uint64_t id, uint64_t mark, struct cs_slice text)
{
    struct cs_buf out = cs_buf(65536);
    struct cs_sql *sql = NULL;
    CS_CHECK(cs_sql_new(&sql) == CS_OK);
    const struct cs_sql_class *c = cs_sql_classify(sql, text);
    cs_sql_class_write(&out, c, text.n);
    CS_CHECK(cs_parcel_send_record(p->theirs.fd, id, mark, cs_buf_slice(&out)));
    cs_sql_release(sql, c);
    cs_sql_free(sql);
    cs_buf_done(&out);
}

static void answer_next(struct play *p)
{
    uint64_t id = 0;
    struct cs_slice text = next_text(p, &id);
    say(p, id, cs_parcel_mark(id, text), text);
}

static void wait_done(struct play *p, unsigned n)
{
    while (p->done < n) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
}

static void parser(void *arg)
{
    struct play *p = arg;
    p->play(p);
    wait_done(p, p->n_askers);
}

static void run(struct play *p, unsigned n_askers, void (*play)(struct play *p))
{
    static const char *const texts[] = {"SELECT 1", "DELETE FROM t", "DROP TABLE t"};
    int pair[2];
    cs_handle co;
    *p = (struct play){.n_askers = n_askers, .play = play};
    play_now = p;
    p->loop = cs_loop_new();
    p->g = cs_alloc(sizeof *p->g);
    CS_CHECK(p->loop != NULL && p->g != NULL && cs_sql_new(&p->g->sql) == CS_OK);
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_fd_open(p->loop, &p->g->parser.fd, pair[0]) == CS_OK);
    CS_CHECK(cs_fd_open(p->loop, &p->theirs, pair[1]) == CS_OK);
    p->g->parser.there = true;
    for (unsigned i = 0; i < n_askers; i++) {
        p->asker[i].s.gate = p->g;
        p->asker[i].text = texts[i];
        CS_CHECK(cs_co_spawn(p->loop, "asker", ask, &p->asker[i], &co) == CS_OK);
    }
    CS_CHECK(cs_co_spawn(p->loop, "parser", parser, p, &co) == CS_OK);
    cs_loop_run(p->loop);
    CS_CHECK(!p->g->parser.busy && p->g->parser.n_waiting == 0 && p->g->parser.first == NULL);
}

static void end(struct play *p)
{
    for (unsigned i = 0; i < p->n_askers; i++) {
        cs_sql_release(p->g->sql, p->asker[i].class);
    }
    cs_fd_close(&p->g->parser.fd);
    cs_fd_close(&p->theirs);
    cs_sql_free(p->g->sql);
    cs_free(p->g);
    cs_loop_free(p->loop);
}

static void three(struct play *p)
{
    for (int i = 0; i < 3; i++) {
        answer_next(p);
    }
}

CS_TEST(parser_answers_each_session_in_its_turn)
{
    static struct play p;
    static const uint8_t effects[] = {CS_SQL_READ, CS_SQL_WRITE, CS_SQL_DDL};
    run(&p, 3, three);
    for (unsigned i = 0; i < 3; i++) {
        CS_EQ_U64(p.asker[i].how, CS_PARSER_SAID);
        CS_EQ_U64(p.asker[i].turn, i + 1);
        CS_CHECK(p.asker[i].class != NULL && (p.asker[i].class->effects & effects[i]) != 0);
    }
    CS_CHECK(p.g->parser.there);
    end(&p);
}

/* The first is killed while the parser has its text, the second while it waits. */
static void kills(struct play *p)
{
    uint64_t id = 0;
    struct cs_slice text = next_text(p, &id);
    cs_event_set(&p->asker[1].s.kill);
    wait_done(p, 1);
    cs_event_set(&p->asker[0].s.kill);
    wait_done(p, 2);
    say(p, id, cs_parcel_mark(id, text), text);
    answer_next(p);
}

CS_TEST(parser_answer_for_a_session_that_was_killed_is_nobodys)
{
    static struct play p;
    run(&p, 3, kills);
    CS_EQ_U64(p.asker[0].how, CS_PARSER_AWAY);
    CS_EQ_U64(p.asker[1].how, CS_PARSER_AWAY);
    CS_CHECK(p.asker[0].class == NULL && p.asker[1].class == NULL);
    CS_EQ_U64(p.asker[2].how, CS_PARSER_SAID);
    CS_CHECK(p.asker[2].class != NULL && p.asker[2].class->effects == CS_SQL_DDL);
    CS_EQ_U64(p.g->parser.owed, 0);
    end(&p);
}

static void says_another_number(struct play *p)
{
    uint64_t id = 0;
    struct cs_slice text = next_text(p, &id);
    say(p, id + 1, cs_parcel_mark(id + 1, text), text);
}

static void says_another_mark(struct play *p)
{
    uint64_t id = 0;
    struct cs_slice text = next_text(p, &id);
    say(p, id, cs_parcel_mark(id, CS_SLICE_LIT("SELECT 2")), text);
}

static void says_a_record_of_another_length(struct play *p)
{
    uint64_t id = 0;
    struct cs_slice text = next_text(p, &id);
    say(p, id, cs_parcel_mark(id, text), CS_SLICE_LIT("SELECT 12"));
}

static void goes(struct play *p)
{
    uint64_t id = 0;
    (void)next_text(p, &id);
    cs_fd_close(&p->theirs);
}

static void hangs(struct play *p)
{
    uint64_t id = 0;
    (void)next_text(p, &id);
}

CS_TEST(parser_that_fails_fails_for_the_text_that_it_had_alone)
{
    static void (*const how[])(struct play *) = {says_another_number, says_another_mark,
                                                 says_a_record_of_another_length, goes, hangs};
    static struct play p;
    for (size_t i = 0; i < CS_ARRAY_LEN(how); i++) {
        run(&p, 2, how[i]);
        CS_EQ_U64(p.asker[0].how, CS_PARSER_FAILED);
        CS_EQ_U64(p.asker[1].how, CS_PARSER_AWAY);
        CS_CHECK(p.asker[0].class == NULL && p.asker[1].class == NULL);
        CS_CHECK(!p.g->parser.there && p.g->parser.failed.set);
        end(&p);
    }
}
