/* What a gate counts of its sessions (ipc/metrics.h). On the way of every action: no allocation, no
 * system call, and the clock is read for one decision in sixteen. Must never look at more of an
 * action than the kind of its statement: numbers are told without asking who reads them. */
#include "action/action.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "ipc/metrics.h"

enum { ONE_IN = 16 };
_Static_assert((unsigned)CS_DIM_OUTCOME == CS_ALLOW + 1, "the outcomes of metrics.def");
_Static_assert((unsigned)CS_DIM_STATE == CS_SESSION_STATES, "the states of metrics.def");

/* In the order of metrics.def. A verb of several words counts by the first. */
enum verb {
    VERB_OTHER,
    VERB_SELECT,
    VERB_INSERT,
    VERB_UPDATE,
    VERB_DELETE,
    VERB_MERGE,
    VERB_COPY,
    VERB_CREATE,
    VERB_ALTER,
    VERB_DROP,
    VERB_TRUNCATE,
    VERB_GRANT,
    VERB_REVOKE,
    VERB_TRANSACTION,
    VERB_SET,
    VERB_CALL,
    VERB_EXPLAIN,
    VERB_MAINTENANCE,
    VERB_OPAQUE,
    VERBS
};
_Static_assert((unsigned)VERBS == CS_DIM_VERB, "the verbs of metrics.def");

/* The usual ones first. */
#define WORD(word, verb)                                                                           \
    {                                                                                              \
        word, sizeof word - 1, verb                                                                \
    }
static const struct {
    char word[12];
    uint8_t n;
    uint8_t verb;
} verbs[] = {
    WORD("SELECT", VERB_SELECT),
    WORD("INSERT", VERB_INSERT),
    WORD("UPDATE", VERB_UPDATE),
    WORD("DELETE", VERB_DELETE),
    WORD("BEGIN", VERB_TRANSACTION),
    WORD("COMMIT", VERB_TRANSACTION),
    WORD("SET", VERB_SET),
    WORD("SHOW", VERB_SET),
    WORD("COPY", VERB_COPY),
    WORD("CREATE", VERB_CREATE),
    WORD("ALTER", VERB_ALTER),
    WORD("DROP", VERB_DROP),
    WORD("TRUNCATE", VERB_TRUNCATE),
    WORD("GRANT", VERB_GRANT),
    WORD("REVOKE", VERB_REVOKE),
    WORD("MERGE", VERB_MERGE),
    WORD("ROLLBACK", VERB_TRANSACTION),
    WORD("START", VERB_TRANSACTION),
    WORD("SAVEPOINT", VERB_TRANSACTION),
    WORD("RELEASE", VERB_TRANSACTION),
    WORD("PREPARE", VERB_TRANSACTION),
    WORD("RESET", VERB_SET),
    WORD("DISCARD", VERB_SET),
    WORD("CALL", VERB_CALL),
    WORD("DO", VERB_CALL),
    WORD("EXPLAIN", VERB_EXPLAIN),
    WORD("VACUUM", VERB_MAINTENANCE),
    WORD("ANALYZE", VERB_MAINTENANCE),
    WORD("REINDEX", VERB_MAINTENANCE),
    WORD("CLUSTER", VERB_MAINTENANCE),
    WORD("REFRESH", VERB_MAINTENANCE),
    WORD("CHECKPOINT", VERB_MAINTENANCE),
};

static enum verb verb_of(const struct cs_action *a)
{
    const struct cs_fact *f = &a->facts.v[CS_FACT_SQL_VERB];
    if (f->state != CS_FACT_KNOWN) {
        return VERB_OPAQUE;
    }
    size_t n = cs_slice_find(f->u.string, ' ');
    const uint8_t *p = f->u.string.p;
    for (size_t i = 0; n > 0 && i < CS_ARRAY_LEN(verbs); i++) {
        if (n == verbs[i].n && p[0] == verbs[i].word[0] && memcmp(p, verbs[i].word, n) == 0) {
            return (enum verb)verbs[i].verb;
        }
    }
    return VERB_OTHER;
}

uint64_t cs_count_begin(struct cs_gate *g)
{
    return g->decisions++ % ONE_IN == 0 ? cs_mono_ns() : 0;
}

/* What the streams have seen since the last time. */
static void count_bytes(struct cs_session *s)
{
    cs_metric_add(CS_SLOT_CLIENT_BYTES + CS_IN, s->client.bytes_in - s->counted[CS_IN]);
    cs_metric_add(CS_SLOT_CLIENT_BYTES + CS_OUT, s->client.bytes_out - s->counted[CS_OUT]);
    s->counted[CS_IN] = s->client.bytes_in;
    s->counted[CS_OUT] = s->client.bytes_out;
}

void cs_count_decision(struct cs_session *s, const struct cs_action *a, unsigned outcome,
                       uint64_t began_ns)
{
    cs_metric_add(CS_SLOT_DECISIONS + (size_t)outcome * CS_DIM_VERB + verb_of(a), 1);
    count_bytes(s);
    if (began_ns != 0) {
        cs_metric_fast(CS_SLOT_DECISION_TIME, cs_mono_ns() - began_ns);
    }
}

void cs_count_session_end(struct cs_session *s)
{
    count_bytes(s);
}

/* In the order of metrics.def. */
enum ended {
    ENDED_OTHER,
    ENDED_GRANTED,
    ENDED_DENIED,
    ENDED_EXPIRED,
    ENDED_CANCELLED,
    ENDED_VOID,
    ENDED_WAITING,
    ENDED_GONE,
    ENDS
};
_Static_assert((unsigned)ENDS == CS_DIM_ENDED, "the ends of metrics.def");

static enum ended ended_of(const struct cs_verdict *v)
{
    static const struct {
        enum cs_refusal refusal;
        enum ended ended;
    } table[] = {{CS_REFUSAL_PERSON, ENDED_DENIED},       {CS_REFUSAL_EXPIRED, ENDED_EXPIRED},
                 {CS_REFUSAL_CANCELLED, ENDED_CANCELLED}, {CS_REFUSAL_VOID, ENDED_VOID},
                 {CS_REFUSAL_WAITING, ENDED_WAITING},     {CS_REFUSAL_CLOSED, ENDED_GONE}};
    if (v->outcome == CS_ALLOW) {
        return ENDED_GRANTED;
    }
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        if (table[i].refusal == v->refusal) {
            return table[i].ended;
        }
    }
    return ENDED_OTHER;
}

void cs_count_hold(const struct cs_verdict *v, uint64_t began_ns)
{
    cs_metric_add(CS_SLOT_HOLDS + ended_of(v), 1);
    cs_metric_slow(CS_SLOT_HOLD_TIME, cs_mono_ns() - began_ns);
}
