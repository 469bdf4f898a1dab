/* Data of actions on its way into the record: how much of it, and what is said of the rest; and
 * what may have a password in it while there is no key to replace that with. */
#include "policy/policy.h"
#include "sql/sql.h"
#include "world.h"

static struct cs_answer answer;
static uint8_t bytes[CS_LIMIT_RECORD_HEAD_BYTES + 1000];
static uint8_t how;

static void do_answer(struct world_client *c)
{
    cs_answer_of(&answer, c->v.n, how);
    c->err = cs_answer_add(c->s, &answer, false, cs_slice(bytes, sizeof bytes));
    if (c->err == CS_OK) {
        c->err = cs_answer_end(c->s, &answer);
    }
    cs_answer_done(&answer);
}

static void answers(struct world *w)
{
    static const struct {
        enum cs_record how;
        unsigned data, rest;
    } rows[] = {{CS_RECORD_HEAD, 1, 1}, {CS_RECORD_FULL, 2, 0}, {CS_RECORD_NONE, 0, 0}};
    struct world_client *c = world_session(w);
    size_t data = 0, rest = 0;
    c->sql = "SELECT 1";
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        how = (uint8_t)rows[i].how;
        world_do(c, do_decide);
        world_wait(c);
        world_do(c, do_answer);
        world_wait(c);
        CS_EQ_U64(c->err, CS_OK);
        world_do(c, do_result);
        world_wait(c);
        world_frame(w, CS_FRAME_RESULT, i + 1);
        data += rows[i].data;
        rest += rows[i].rest;
        CS_EQ_U64(world_frames(w, CS_FRAME_DATA), data);
        CS_EQ_U64(world_frames(w, CS_FRAME_REST), rest);
    }
}
CS_TEST(an_answer_is_recorded_as_far_as_the_rules_say)
{
    world_run(answers);
}

static void stopped(struct world *w)
{
    struct world_client *c = world_session(w);
    c->sql = "SELECT 1";
    how = CS_RECORD_HEAD;
    world_do(c, do_decide);
    world_wait(c);
    world_health(w, CS_RECORD_STOPPED);
    world_do(c, do_answer);
    world_wait(c);
    CS_EQ_U64(c->err, CS_ERR_NO_SPACE);
}
CS_TEST(an_answer_that_cannot_be_recorded_is_an_error)
{
    world_run(stopped);
}

CS_TEST(an_answer_is_small_only_when_nothing_of_it_was_seen)
{
    struct cs_answer a = {0};
    cs_answer_of(&a, 1, CS_RECORD_HEAD);
    CS_CHECK(cs_answer_small(&a, cs_slice(bytes, 10)));
    CS_CHECK(!cs_answer_small(&a, CS_SLICE_NULL));
    CS_CHECK(!cs_answer_small(&a, cs_slice(bytes, sizeof bytes)));
    a.at[0] = 1;
    CS_CHECK(!cs_answer_small(&a, cs_slice(bytes, 10)));
    cs_answer_of(&a, 2, CS_RECORD_NONE);
    CS_CHECK(!cs_answer_small(&a, cs_slice(bytes, 10)));
    cs_answer_done(&a);
}

static void do_decide_unkeyed(struct world_client *c)
{
    static const struct cs_redact_span span = {0, 4, CS_REDACT_LITERAL};
    static const struct cs_sql_class class = {.secrets = &span, .n_secrets = 1};
    struct cs_buf mem = cs_buf(0);
    bool unkeyed = false;
    do_decide(c); /* fills the action */
    struct cs_slice shown = cs_gate_redact(c->s, &class, CS_SLICE_LIT("SELECT 1"), &mem, &unkeyed);
    CS_CHECK(unkeyed && cs_slice_eq_str(shown, "<redacted>"));
    c->action.unkeyed = unkeyed;
    cs_gate_decide(c->s, &c->action, NULL, &c->v);
    cs_buf_done(&mem);
}

static void unkeyed(struct world *w)
{
    struct world_client *c = world_session(w);
    c->sql = "SELECT 1";
    world_do(c, do_decide_unkeyed);
    world_wait(c);
    CS_EQ_U64(c->v.outcome, CS_DENY);
    CS_EQ_U64(c->v.refusal, CS_REFUSAL_RECORD);
}
CS_TEST(a_password_does_not_run_before_there_is_a_key_to_replace_it_with)
{
    world_run(unkeyed);
}
