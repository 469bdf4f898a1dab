/* Sessions: birth, state, configuration in force, end. The protocol's serve() runs in between.
 * Never decides anything: that is decide.c. */
#include "gate/session.h"

#include "action/frame.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/limits.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"
#include "ipc/metrics.h"
#include "runtime/proxy.h"

static const char *const state_names[] = {
#define CS_STATE(id, name, text) name,
#include "gate/session_state.def"
#undef CS_STATE
};
_Static_assert(CS_ARRAY_LEN(state_names) == CS_SESSION_STATES, "one name per state");

#define BIT(s) (1U << CS_SESSION_##s)
static const unsigned may_follow[CS_SESSION_STATES] = {
    [CS_SESSION_ACCEPTED] = BIT(STARTUP) | BIT(CLOSING),
    [CS_SESSION_STARTUP] = BIT(AUTH) | BIT(CLOSING),
    [CS_SESSION_AUTH] = BIT(CONNECTING) | BIT(CLOSING),
    [CS_SESSION_CONNECTING] = BIT(READY) | BIT(CLOSING),
    [CS_SESSION_READY] = BIT(HELD) | BIT(CLOSING),
    [CS_SESSION_HELD] = BIT(READY) | BIT(CLOSING),
    [CS_SESSION_CLOSING] = 0,
};

const char *cs_session_state_name(enum cs_session_state s)
{
    return (unsigned)s < CS_SESSION_STATES ? state_names[s] : "?";
}

static void list_add(struct cs_session *s)
{
    struct cs_session **head = &s->gate->by_state[s->state];
    s->prev = NULL;
    s->next = *head;
    if (*head != NULL) {
        (*head)->prev = s;
    }
    *head = s;
    cs_metric_set(CS_SLOT_SESSIONS + s->state, ++s->gate->state_count[s->state]);
}

static void list_remove(struct cs_session *s)
{
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        s->gate->by_state[s->state] = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    cs_metric_set(CS_SLOT_SESSIONS + s->state, --s->gate->state_count[s->state]);
}

void cs_session_set_state(struct cs_session *s, enum cs_session_state to)
{
    if (s->state == to) {
        return;
    }
    cs_assert((may_follow[s->state] & (1U << to)) != 0);
    bool opened = s->state == CS_SESSION_CONNECTING;
    list_remove(s);
    s->state = to;
    list_add(s);
    if (opened || to == CS_SESSION_CLOSING) {
        cs_gate_exchange(s, false);
    }
}

struct cs_session *cs_session_by_id(struct cs_gate *g, const struct cs_id *id)
{
    static const enum cs_session_state where[] = {CS_SESSION_HELD, CS_SESSION_READY,
                                                  CS_SESSION_CONNECTING};
    for (size_t i = 0; i < CS_ARRAY_LEN(where); i++) {
        for (struct cs_session *s = g->by_state[where[i]]; s != NULL; s = s->next) {
            if (cs_id_eq(&s->id, id)) {
                return s;
            }
        }
    }
    return NULL;
}

void cs_session_kill(struct cs_session *s, struct cs_slice why)
{
    size_t n = CS_MIN(why.n, sizeof s->kill_why - 1);
    if (n > 0) {
        memcpy(s->kill_why, why.p, n);
    }
    s->kill_why[n] = 0;
    cs_event_set(&s->kill);
}

bool cs_session_refresh(struct cs_session *s)
{
    struct cs_gate_config *now = s->gate->config;
    if (s->config == now) {
        return s->target != NULL && s->policy != NULL;
    }
    struct cs_gate_config *old = s->config;
    s->config = cs_gate_config_ref(now);
    cs_arena_reset(&s->policy_arena);
    s->target = cs_policy_target(now->policy, s->target_name);
    s->policy = NULL;
    s->policy_generation++;
    if (s->target != NULL && s->chain != NULL) {
        s->policy = cs_policy_session_new(now->policy, s->chain, s->target, &s->policy_arena);
    }
    s->reads_params = s->policy != NULL && cs_policy_reads(s->policy, CS_FACT_SQL_PARAMS);
    cs_gate_config_unref(old);
    return s->target != NULL && s->policy != NULL;
}

static bool session_begin(struct cs_session *s)
{
    cs_arena_init(&s->arena, 768, 256 * 1024);
    cs_arena_init(&s->policy_arena, 768, 4 * 1024 * 1024);
    cs_random(&s->cancel_secret, sizeof s->cancel_secret);
    s->opened_ms = cs_wall_ms();
    s->end_why = "";
    s->proto = cs_alloc(s->protocol->state_size);
    return s->proto != NULL;
}

/* Who is behind the load balancer, before anything else that the client says is read. */
static bool know_address(struct cs_session *s)
{
    struct sockaddr_storage client = {.ss_family = AF_UNSPEC};
    if (!s->behind_proxy) {
        return true;
    }
    enum cs_err e =
        cs_proxy_read(&s->client.fd, cs_mono_ns() + CS_LIMIT_PROXY_S * CS_NS_PER_S, &client);
    const char *why = e == CS_OK ? NULL : "no PROXY protocol header, version 2";
    if (e == CS_OK && client.ss_family != AF_UNSPEC) {
        (void)cs_addr_text((const struct sockaddr *)&client, s->address);
        s->net = cs_addr_net((const struct sockaddr *)&client);
        /* It counts itself now. */
        if (cs_gate_unknown_of(s->gate, &s->net) > CS_LIMIT_PREAUTH_PER_ADDRESS) {
            why = "too many unauthenticated connections";
        }
    }
    if (why != NULL) {
        cs_log(CS_EV_SESSION_REFUSED, NULL, "address=%s why=\"%s\" error=%s", s->address, why,
               cs_err_name(e));
    }
    return why == NULL;
}

static void report_end(struct cs_session *s, const char *why)
{
    if (cs_id_is_zero(&s->id)) {
        return;
    }
    if (s->recorded) {
        struct cs_frame_session_close f = {.why = cs_slice_str(why),
                                           .actions = s->actions,
                                           .bytes_in = s->client.bytes_in,
                                           .bytes_out = s->client.bytes_out};
        cs_gate_append_end(s, &f);
    }
    cs_tell_closed(s, cs_slice_str(why));
    cs_log(CS_EV_SESSION_CLOSE, &s->id, "why=%s actions=%llu", cs_log_quote(cs_slice_str(why)).text,
           (unsigned long long)s->actions);
}

void cs_session_run(void *session)
{
    struct cs_session *s = session;
    struct cs_gate *g = s->gate;
    s->co = cs_co_self();
    list_add(s);
    if (session_begin(s) && know_address(s)) {
        s->protocol->serve(s);
    }
    report_end(s, s->kill.set ? s->kill_why : s->end_why);
    cs_count_session_end(s);
    cs_gate_define_lost(s);
    cs_session_set_state(s, CS_SESSION_CLOSING);
    cs_stream_close(&s->client);
    list_remove(s);
    cs_free(s->proto);
    cs_arena_done(&s->arena);
    cs_arena_done(&s->policy_arena);
    cs_gate_config_unref(s->config);
    cs_pool_give(&g->sessions, s->handle);
    cs_event_set(&g->emptied);
}
