#include "desk.h"

struct desk *desk;
static const char *why;

enum cs_err desk_witness(const struct cs_approval_said *v, void *arg)
{
    (void)arg;
    if (desk->log_away) {
        return CS_ERR_UNAVAILABLE;
    }
    desk->n_said++;
    memcpy(desk->said_digest, v->digest, sizeof desk->said_digest);
    return CS_OK;
}

static void person(const char *name, uint64_t kind, const char *owner, const char *groups)
{
    struct cs_store_principal p = {.kind = kind, .iterations = 4096};
    p.id = cs_arena_printf(&desk->w->arena, "local:%s", name);
    p.name = cs_slice_str(name);
    p.owner = cs_slice_str(owner);
    p.groups = cs_slice_str(groups);
    cs_random(p.token_sha256, sizeof p.token_sha256);
    CS_EQ_U64(cs_store_principal_add(desk->w->store, &p), CS_OK);
}

static void rule_make(size_t i, const char *name, const char *group, uint32_t quorum)
{
    struct cs_slice *groups = cs_arena_alloc(&desk->w->arena, sizeof *groups);
    *groups = cs_slice_str(group);
    desk->rule[i] = (struct cs_rule){.name = cs_slice_str(name),
                                     .title = CS_SLICE_LIT("Changing data"),
                                     .then = CS_HOLD,
                                     .approvers = {.groups = groups,
                                                   .n_groups = 1,
                                                   .quorum = quorum,
                                                   .within_s = 900,
                                                   .valid_s = 600,
                                                   .attach_s = 300}};
}

void desk_open(struct world *w)
{
    desk = cs_alloc(sizeof *desk);
    desk->w = w;
    desk->sql = "DROP TABLE orders";
    desk->chain = "alice bot";
    desk->policy_version = 7;
    person("alice", 1, "", "engineers\n");
    person("bot", 2, "local:alice", "agents\n");
    person("bot2", 2, "local:alice", "agents\n");
    person("dba1", 1, "", "dba\n");
    person("dba2", 1, "", "dba\n");
    person("dbot", 2, "local:dba1", "dba\n");
    person("sec", 1, "", "security\n");
    person("both", 1, "", "dba\nsecurity\n");
    person("eve", 1, "", "");
    rule_make(0, "change-data", "dba", 1);
    rule_make(1, "also-security", "security", 1);
    rule_make(2, "two-eyes-more", "dba", 2);
    desk->rules[0] = &desk->rule[0];
    desk->n_rules = 1;
    CS_EQ_U64(cs_approval_new(w->store, desk_change, NULL, &desk->a), CS_OK);
    cs_approval_witness(desk->a, desk_witness, NULL);
}

void desk_restart(void)
{
    cs_approval_free(desk->a);
    world_restart(desk->w);
    desk->n_changes = 0;
    CS_EQ_U64(cs_approval_new(desk->w->store, desk_change, NULL, &desk->a), CS_OK);
    cs_approval_witness(desk->a, desk_witness, NULL);
}

void desk_close(void)
{
    cs_approval_free(desk->a);
    cs_free(desk);
    desk = NULL;
}

void desk_change(const struct cs_approval_change *c, void *arg)
{
    (void)arg;
    CS_CHECK(desk->n_changes < DESK_CHANGES);
    struct desk_change *to = &desk->changes[desk->n_changes++];
    CS_CHECK(desk->n_changes < 2 || c->seq > to[-1].seq);
    *to = (struct desk_change){.seq = c->seq,
                               .state = c->state,
                               .grant = c->grant,
                               .grant_session = c->grant_session,
                               .n_sessions = c->n_sessions};
    memcpy(to->request, c->request.p, CS_REQUEST_ID_CHARS);
    (void)snprintf(to->words, sizeof to->words, "%.*s", CS_SLICE_FMT(c->words));
    for (size_t i = 0; i < c->n_sessions && i < CS_ARRAY_LEN(to->sessions); i++) {
        to->sessions[i] = c->sessions[i];
    }
}

static struct cs_chain chain_make(void)
{
    struct cs_chain c = {.n = 0};
    struct cs_slice left = cs_slice_str(desk->chain);
    while (left.n > 0) {
        size_t at = cs_slice_find(left, ' ');
        struct cs_slice name = cs_slice_head(left, at);
        left = cs_slice_from(left, at < left.n ? at + 1 : at);
        c.p[c.n].kind = c.n == 0 ? CS_PRINCIPAL_PERSON : CS_PRINCIPAL_AGENT;
        c.p[c.n].name = name;
        c.p[c.n++].id = cs_arena_printf(&desk->w->arena, "local:%.*s", CS_SLICE_FMT(name));
    }
    return c;
}

struct cs_id desk_session(void)
{
    struct cs_chain c = chain_make();
    uint8_t bytes[512];
    struct cs_writer w = cs_writer(bytes, sizeof bytes);
    cs_chain_encode(&w, &c);
    struct cs_store_session s = {.id = cs_id_new(),
                                 .chain = cs_writer_done(&w),
                                 .root = c.p[0].id,
                                 .actor = c.p[c.n - 1].id,
                                 .target = CS_SLICE_LIT("orders"),
                                 .address = CS_SLICE_LIT("10.1.1.1:5"),
                                 .gate = 2};
    CS_EQ_U64(cs_store_session_open(desk->w->store, &s), CS_OK);
    return s.id;
}

enum cs_err desk_try_hold(const struct cs_id *session, struct cs_approval_held *ret)
{
    struct cs_chain *c = CS_NEW(&desk->w->arena, struct cs_chain);
    struct cs_action *action = CS_NEW(&desk->w->arena, struct cs_action);
    *c = chain_make();
    action->protocol = CS_SLICE_LIT("postgres");
    action->bytes = cs_slice_str(desk->sql);
    action->database = CS_SLICE_LIT("orders");
    action->role = CS_SLICE_LIT("orders_owner");
    action->changing = true;
    struct cs_approval_ask ask = {.session = *session,
                                  .chain = c,
                                  .target = CS_SLICE_LIT("orders"),
                                  .address = CS_SLICE_LIT("10.1.1.1:5"),
                                  .action = action,
                                  .rules = desk->rules,
                                  .n_rules = desk->n_rules,
                                  .in_transaction = desk->in_transaction,
                                  .waiting = !desk->async,
                                  .elevated = desk->elevated,
                                  .policy_version = desk->policy_version};
    return cs_approval_hold(desk->a, &ask, &desk->w->arena, ret);
}

struct cs_approval_held desk_hold(const struct cs_id *session)
{
    struct cs_approval_held h;
    CS_EQ_U64(desk_try_hold(session, &h), CS_OK);
    return h;
}

enum cs_err desk_vote(const struct cs_approval_held *h, const char *who, bool approve)
{
    enum cs_request_state state;
    struct cs_slice id = cs_arena_printf(&desk->w->arena, "local:%s", who);
    return cs_approval_vote(desk->a, cs_slice_str(h->request), id, approve, h->digest,
                            CS_SLICE_LIT("because"), &state, &why);
}

const char *desk_why(void)
{
    return why;
}

struct cs_card *desk_card(const struct cs_approval_held *h, const char *viewer)
{
    struct cs_card *card = CS_NEW(&desk->w->arena, struct cs_card);
    struct cs_slice id =
        viewer[0] != '\0' ? cs_arena_printf(&desk->w->arena, "local:%s", viewer) : CS_SLICE_NULL;
    CS_EQ_U64(cs_approval_card(desk->a, cs_slice_str(h->request), id, &desk->w->arena, card),
              CS_OK);
    return card;
}

enum cs_request_state desk_state(const struct cs_approval_held *h)
{
    return desk_card(h, "")->state;
}

enum cs_err desk_consume(const struct cs_approval_held *h, const struct cs_id *session)
{
    return cs_approval_consume(desk->a, cs_slice_str(h->request), &desk_last(h)->grant, session,
                               h->digest);
}

const struct desk_change *desk_last(const struct cs_approval_held *h)
{
    for (size_t i = desk->n_changes; i-- > 0;) {
        if (strcmp(desk->changes[i].request, h->request) == 0) {
            return &desk->changes[i];
        }
    }
    CS_FAIL("no change of %s", h->request);
}

bool desk_told(const struct desk_change *c, const struct cs_id *session)
{
    for (size_t i = 0; i < c->n_sessions; i++) {
        if (cs_id_eq(&c->sessions[i], session)) {
            return true;
        }
    }
    return false;
}
