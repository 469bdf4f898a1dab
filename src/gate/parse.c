/* Texts that a gate's loop does not parse itself, so that one session's does not keep the others
 * waiting. Those over 64 KiB, and those over which the gate's own parser has died or hung, get a
 * process each, by way of the supervisor; the others that take the grammar longer than a moment go
 * to the gate's own parser (parser.c). The session's coroutine waits. Called by the protocols
 * before anything is decided about the text.
 *
 * SECURITY: the answer comes from a process that a client's text may have taken over. It is read
 * strictly (sql/parsed.h). Without one, a text over 64 KiB is opaque, and so is one that a process
 * of its own could not parse either; one that nobody has seen yet is parsed here. */
#include "gate/gate.h"
#include "gate/protocol.h"
#include "sql/parsed.h"

#include <unistd.h>

#define WAIT_NS  (CS_LIMIT_PARSER_WAIT_MS * CS_NS_PER_MS)
#define AGAIN_NS (50 * CS_NS_PER_MS)

/* ---- a process of its own ---- */

static const struct cs_sql_class *read_answer(struct cs_gate *g, const struct cs_call *call,
                                              size_t text_n)
{
    struct cs_slice said;
    if (call->type != CS_MSG_PARSED ||
        cs_sealed_map(call->fd[0], CS_LIMIT_PARSED_BYTES, &said) != CS_OK) {
        return NULL;
    }
    const struct cs_sql_class *class = cs_sql_class_read(g->sql, said, text_n);
    cs_sealed_unmap(said);
    return class;
}

/* True: the supervisor is being replaced, and the next may take it. */
static bool is_away(const struct cs_call *call)
{
    return call->type == CS_MSG_NOT_PARSED &&
           ((const struct cs_msg_not_parsed *)(const void *)&call->msg)->err == CS_ERR_UNAVAILABLE;
}

static const struct cs_sql_class *ask(struct cs_session *s, int fd, size_t text_n)
{
    struct cs_gate *g = s->gate;
    const struct cs_msg_parse m = {.end_ = 0};
    const struct cs_sql_class *class = NULL;
    uint64_t deadline = cs_mono_ns() + WAIT_NS;
    for (bool again = true; again;) {
        struct cs_call call;
        enum cs_err err = cs_channel_call(g->supervisor, CS_MSG_PARSE, &m, &fd, 1, deadline, &call);
        again = false;
        if (err == CS_OK) {
            class = read_answer(g, &call, text_n);
            again = is_away(&call) && cs_mono_ns() + AGAIN_NS < deadline;
        }
        cs_call_done(&call);
        again = again && cs_co_sleep(AGAIN_NS) && !s->kill.set;
    }
    return class;
}

static const struct cs_sql_class *by_job(struct cs_session *s, struct cs_slice text)
{
    struct cs_gate *g = s->gate;
    const struct cs_sql_class *class = NULL;
    int fd = -1;
    if (text.n > CS_LIMIT_PG_QUERY_BYTES || g->supervisor == NULL ||
        g->parsing >= CS_LIMIT_PARSES_PER_GATE || cs_sealed_make("text", text, &fd) != CS_OK) {
        return NULL;
    }
    g->parsing++;
    class = ask(s, fd, text.n);
    g->parsing--;
    (void)close(fd);
    return class;
}

/* ---- which ---- */

/* SECURITY: a text over which a process has died or hung is not parsed in this one. */
static const struct cs_sql_class *after_failure(struct cs_session *s, struct cs_slice text)
{
    const struct cs_sql_class *class = by_job(s, text);
    return class != NULL ? class : cs_sql_unparsed(s->gate->sql, text);
}

const struct cs_sql_class *cs_gate_parse(struct cs_session *s, struct cs_slice text)
{
    const struct cs_sql_class *class = NULL;
    if (text.n > CS_LIMIT_SQL_INLINE_BYTES) {
        return by_job(s, text);
    }
    class = cs_sql_cached(s->gate->sql, text);
    if (class != NULL || cs_sql_is_quick(text)) {
        return class;
    }
    enum cs_parser_said how = cs_gate_parser_ask(s, text, &class);
    return how == CS_PARSER_FAILED ? after_failure(s, text) : class;
}
