#include "world.h"

#include "base/log.h"
#include "base/time.h"
#include "crypto/crypto.h"
#include "policy/rules.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define PATIENCE_NS (10 * CS_NS_PER_S)

static struct world *world_now; /* one per process: the protocol's serve() finds it here */

/* ---- the protocol ---- */

static void serve(struct cs_session *s)
{
    struct world *w = world_now;
    CS_CHECK(w->n_served < w->n_clients);
    struct world_client *c = &w->clients[w->n_served++];
    c->s = s;
    cs_session_set_state(s, CS_SESSION_STARTUP);
    cs_event_set(&w->accepted);
    for (;;) {
        struct cs_wait items[] = {CS_WAIT_ON(CS_WAIT_EVENT, &c->go),
                                  CS_WAIT_ON(CS_WAIT_EVENT, &s->kill),
                                  CS_WAIT_ON(CS_WAIT_HUP, &s->client.fd)};
        if (cs_wait(items, CS_ARRAY_LEN(items), CS_FOREVER) != CS_WOKE_READY) {
            s->end_why = "the gateway stopped";
            break;
        }
        if (c->go.set) {
            cs_event_clear(&c->go);
            c->fn(c);
            cs_event_set(&c->done);
        } else if (s->kill.set || s->client.fd.hup) {
            s->end_why = "the client closed the connection";
            break;
        }
    }
    c->s = NULL;
}

static void cancel(struct cs_gate *g, struct cs_slice key, struct cs_slice from)
{
    struct cs_session *s = cs_gate_cancel_find(g, key, from);
    if (s != NULL) {
        cs_event_set(&s->cancel);
    }
}

static const struct cs_protocol protocol = {"postgres", "postgresql", 16, serve, cancel};
const struct cs_protocol *const cs_protocols[] = {&protocol, NULL};

/* ---- configuration ---- */

static struct cs_slice condition(struct world *w, const char *text)
{
    struct cs_buf out = cs_buf(65536);
    struct cs_cel_mistake m;
    if (cs_cel_compile(cs_slice_str(text), &w->arena, &out, &m) != CS_OK) {
        CS_FAIL("%s: %s", text, m.text);
    }
    struct cs_slice kept = cs_arena_dup(&w->arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    return kept;
}

static struct cs_slice policy(struct world *w, bool hold)
{
    static struct cs_slice who = {(const uint8_t *)"engineers", 9};
    static struct cs_slice dba = {(const uint8_t *)"dba", 3};
    struct cs_rule_full rules[3];
    memset(rules, 0, sizeof rules);
    for (size_t i = 0; i < 3; i++) {
        rules[i].rule.title = CS_SLICE_LIT("A title");
        rules[i].rule.then = CS_ALLOW;
        rules[i].who.groups = (struct cs_names){&who, 1};
    }
    rules[0].rule.name = CS_SLICE_LIT("change-data");
    rules[0].code = condition(w, "sql.effects.exists(e, !(e in [\"session\", \"read\"]))");
    if (hold) {
        rules[0].rule.then = CS_HOLD;
        rules[0].rule.approvers = (struct cs_approvers){&dba, 1, 1, 900, 600, 600, 0};
    }
    rules[1].rule.name = CS_SLICE_LIT("read-orders");
    rules[1].code = condition(w, "sql.effects.all(e, e in [\"session\", \"read\"])");
    rules[2].rule.name = CS_SLICE_LIT("slow");
    rules[2].rule.then = CS_DENY;
    rules[2].code = condition(w, "sql.writes.exists(t, size(t) > 70)");
    struct cs_target target = {.name = CS_SLICE_LIT("orders"),
                               .kind = CS_SLICE_LIT("postgres"),
                               .address = CS_SLICE_LIT("127.0.0.1:1"),
                               .database = CS_SLICE_LIT("orders"),
                               .tls = CS_SLICE_LIT("off"),
                               .user = CS_SLICE_LIT("orders_ro"),
                               .password = CS_SLICE_LIT("orders-ro")};
    struct cs_policy_source src = {w->version, rules, w->slow ? 3 : 2, &target, 1};
    struct cs_buf out = cs_buf(1U << 20);
    cs_policy_build(&src, &out);
    CS_CHECK(!out.bad);
    struct cs_slice kept = cs_arena_dup(&w->arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    return kept;
}

void world_snapshot(struct world *w, bool hold)
{
    uint8_t hash[CS_SHA256];
    int fd = -1;
    w->version++;
    struct cs_snapshot s = {.version = w->version,
                            .url = CS_SLICE_LIT("https://gate.example:7443"),
                            .store = CS_SLICE_LIT("/nowhere"),
                            .master_key = {.source = CS_KEY_FILE, .what = CS_SLICE_LIT("/nowhere")},
                            .recordings = CS_SLICE_LIT("/nowhere"),
                            .policy = policy(w, hold),
                            .busy_poll_us = w->busy_poll_us};
    struct cs_buf out = cs_buf(1U << 20);
    cs_snapshot_write(&out, &s);
    CS_CHECK(!out.bad);
    cs_sha256(cs_buf_slice(&out), hash);
    CS_CHECK(cs_sealed_make("snapshot", cs_buf_slice(&out), &fd) == CS_OK);
    cs_buf_done(&out);
    struct cs_msg_snapshot m = {.version = w->version, .sha256 = cs_slice(hash, sizeof hash)};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_SNAPSHOT, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
}

/* ---- the other ends ---- */

static void nobody_gone(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
}

static void on_supervisor(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    if (in->type == CS_MSG_READY) {
        cs_channel_run_phase(c);
        cs_event_set(&w->ready);
    }
}

static void on_control(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    (void)c;
    cs_alloc_fail_after(-1); /* meant for the gate */
    uint8_t *bytes = cs_alloc(CS_LIMIT_IPC_BYTES);
    CS_CHECK(w->n_in < WORLD_MESSAGES && bytes != NULL);
    struct world_in *m = &w->in[w->n_in++];
    size_t n = cs_msg_encode(in->type, in->corr, in->msg, bytes, CS_LIMIT_IPC_BYTES);
    m->bytes = cs_alloc(n);
    memcpy(m->bytes, bytes, n);
    cs_free(bytes);
    CS_CHECK(
        cs_msg_decode(cs_slice(m->bytes, n), &m->type, &m->corr, m->msg.raw, sizeof m->msg.raw));
    m->fd = in->fd[0];
    m->control = w->controls;
    cs_event_set(&w->news);
}

void world_control_dies(struct world *w)
{
    cs_channel_close(w->control);
    w->control = NULL;
    while (w->gate->control != NULL) {
        CS_CHECK(cs_co_yield());
    }
}

void world_control_new(struct world *w)
{
    int pair[2];
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    struct cs_msg_peer m = {.role = CS_ROLE_CONTROL, .epoch = ++w->controls};
    uint64_t before = w->gate->control_generation;
    struct cs_channel *old = w->control;
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[1]);
    CS_CHECK(cs_channel_open(w->loop, pair[0], CS_ROLE_CONTROL, CS_ROLE_GATE, 0, on_control,
                             nobody_gone, w, &w->control) == CS_OK);
    cs_channel_run_phase(w->control);
    if (old != NULL) {
        cs_channel_close(old);
    }
    while (w->gate->control_generation == before) {
        CS_CHECK(cs_co_yield());
    }
}

static void patient(struct cs_event *on, uint64_t *until, const char *for_what)
{
    if (*until == 0) {
        *until = cs_mono_ns() + PATIENCE_NS;
    }
    struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, on);
    cs_event_clear(on);
    if (cs_wait(&wait, 1, *until) != CS_WOKE_READY) {
        CS_FAIL("waited in vain for %s", for_what);
    }
}

struct world_in *world_expect(struct world *w, enum cs_msg_type type)
{
    uint64_t until = 0;
    for (;;) {
        for (size_t i = 0; i < w->n_in; i++) {
            if (!w->in[i].taken && w->in[i].type == type) {
                w->in[i].taken = true;
                return &w->in[i];
            }
        }
        patient(&w->news, &until, cs_msg_name(type));
    }
}

size_t world_count(const struct world *w, enum cs_msg_type type)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_in; i++) {
        n += w->in[i].type == type;
    }
    return n;
}

void world_answer(struct world *w, const struct world_in *to, enum cs_msg_type type,
                  const void *msg)
{
    CS_CHECK(cs_channel_send(w->control, type, to->corr, msg, NULL, 0) == CS_OK);
}

void world_send(struct world *w, enum cs_msg_type type, const void *msg)
{
    CS_CHECK(cs_channel_send(w->control, type, 0, msg, NULL, 0) == CS_OK);
}

struct world_in *world_hold(struct world *w, struct world_client *c, const char *request,
                            struct cs_msg_held *ret)
{
    static const uint8_t nonce[CS_NONCE] = {7};
    struct world_in *in = world_expect(w, CS_MSG_HOLD);
    const struct cs_msg_hold *m = (const void *)in->msg.raw;
    struct cs_action *a = CS_NEW(&w->arena, struct cs_action);
    struct cs_slice map;
    uint8_t match[CS_DIGEST];
    CS_CHECK(cs_id_eq(&m->session, &c->id));
    CS_CHECK(cs_sealed_map(in->fd, CS_LIMIT_HELD_BYTES, &map) == CS_OK);
    struct cs_reader r = cs_reader(map);
    CS_CHECK(cs_action_decode(&r, &w->arena, a) && cs_reader_done(&r));
    CS_EQ_STR(a->bytes, c->sql);
    cs_action_match(a, c->s->chain, c->s->target_name, match);
    cs_action_digest(match, cs_slice_str(request), nonce, 1, a->tx, m->claimed, c->digest);
    cs_sealed_unmap(map);
    (void)snprintf(c->request, sizeof c->request, "%s", request);
    *ret = (struct cs_msg_held){.request = cs_slice_str(c->request),
                                .state = CS_REQUEST_PENDING,
                                .expires_ms = cs_wall_ms() + 900000,
                                .digest = cs_slice(c->digest, CS_DIGEST),
                                .nonce = cs_slice(nonce, CS_NONCE),
                                .policy = 1,
                                .attached = 1};
    return in;
}

void world_held(struct world *w, struct world_client *c, const char *request)
{
    struct cs_msg_held m;
    struct world_in *in = world_hold(w, c, request, &m);
    world_answer(w, in, CS_MSG_HELD, &m);
}

void world_state(struct world *w, const struct world_client *c, enum cs_request_state state,
                 const struct cs_id *grant)
{
    struct cs_msg_request_state m = {.session = c->id,
                                     .request = cs_slice_str(c->request),
                                     .state = (uint64_t)state,
                                     .expires_ms = cs_wall_ms() + 600000,
                                     .by = CS_SLICE_LIT("local:carol"),
                                     .words = CS_SLICE_LIT("her words")};
    if (grant != NULL) {
        m.grant = *grant;
    }
    world_send(w, CS_MSG_REQUEST_STATE, &m);
}

void world_consume(struct world *w, const struct world_client *c, enum cs_err e)
{
    struct world_in *in = world_expect(w, CS_MSG_CONSUME);
    const struct cs_msg_consume *m = (const void *)in->msg.raw;
    CS_CHECK(cs_id_eq(&m->session, &c->id) && cs_id_eq(&m->grant, &c->grant));
    CS_EQ_STR(m->request, c->request);
    CS_EQ_SLICE(m->digest, cs_slice(c->digest, CS_DIGEST));
    struct cs_msg_consumed out = {.err = (uint64_t)e};
    world_answer(w, in, CS_MSG_CONSUMED, &out);
}

/* ---- the recorder ---- */

static void record_one(struct world *w, struct cs_slice bytes)
{
    struct cs_frame_head head;
    union {
        uint8_t raw[CS_FRAME_STRUCT_MAX];
        uint64_t align;
    } frame;
    CS_CHECK(cs_frame_decode(bytes, &head, frame.raw));
    CS_CHECK(w->n_frames < WORLD_FRAMES);
    w->frame_session[w->n_frames] = head.session;
    w->frames[w->n_frames++] = head.kind;
}

static void recorder_run(void *arg)
{
    struct world *w = arg;
    uint8_t *mem = cs_alloc(CS_LIMIT_RECORD_FRAME_BYTES);
    enum cs_woke woke = CS_WOKE_READY;
    while (woke != CS_WOKE_CANCELLED) {
        size_t n = 0;
        uint64_t seq = 0;
        bool any = false;
        while (!w->unread &&
               cs_ring_read(&w->ring, mem, CS_LIMIT_RECORD_FRAME_BYTES, &n, &seq) == CS_OK) {
            record_one(w, cs_slice(mem, n));
            any = true;
        }
        if (!w->undurable && !w->unread) {
            cs_ring_set_durable(&w->ring, w->ring.seq);
        }
        if (any) {
            cs_event_set(&w->news);
        }
        if (!cs_ring_sleep(&w->ring) && !w->unread) {
            woke = cs_co_yield() ? CS_WOKE_READY : CS_WOKE_CANCELLED;
            continue;
        }
        struct cs_wait items[] = {CS_WAIT_ON(CS_WAIT_READ, &w->ring.kick),
                                  CS_WAIT_ON(CS_WAIT_EVENT, &w->recorder)};
        cs_event_clear(&w->recorder);
        woke = cs_wait(items, CS_ARRAY_LEN(items), CS_FOREVER);
        w->ring.kick.readable = false;
        uint64_t kicks;
        (void)!read(w->ring.kick.fd, &kicks, sizeof kicks);
    }
    cs_free(mem);
}

void world_health(struct world *w, enum cs_record_health h)
{
    cs_ring_set_health(&w->ring, h);
    cs_event_set(&w->recorder);
}

size_t world_frames(const struct world *w, enum cs_frame_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_frames; i++) {
        n += w->frames[i] == (unsigned)kind;
    }
    return n;
}

void world_frame(struct world *w, enum cs_frame_kind kind, size_t n)
{
    uint64_t until = 0;
    while (world_frames(w, kind) < n) {
        patient(&w->news, &until, cs_frame_name(kind));
    }
}

/* ---- start and end ---- */

static void give_listener(struct world *w)
{
    int fd = -1;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd) == CS_OK);
    w->port = cs_sock_port(fd);
    struct cs_msg_listener m = {.name = CS_SLICE_LIT("postgres"), .kind = CS_SLICE_LIT("postgres")};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_LISTENER, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
}

static void give_ring(struct world *w)
{
    int fds[3], ours[3];
    cs_handle co;
    CS_CHECK(cs_ring_make(WORLD_RING, fds) == CS_OK);
    struct cs_msg_ring m = {.gate = 0, .epoch = 1};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_RING, 0, &m, fds, 3) == CS_OK);
    memcpy(ours, fds, sizeof ours);
    CS_CHECK(cs_ring_open(w->loop, ours, false, &w->ring) == CS_OK);
    CS_CHECK(cs_co_spawn(w->loop, "recorder", recorder_run, w, &co) == CS_OK);
}

static void play(void *arg)
{
    struct world *w = arg;
    int pair[2];
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_gate_new(w->loop, pair[1], &w->gate) == CS_OK);
    CS_CHECK(cs_channel_open(w->loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_GATE, 0, on_supervisor,
                             nobody_gone, w, &w->supervisor) == CS_OK);
    struct cs_msg_boot m = {.role = CS_ROLE_GATE, .index = 3, .epoch = 1};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_BOOT, 0, &m, NULL, 0) == CS_OK);
    give_listener(w);
    give_ring(w);
    world_snapshot(w, true);
    world_control_new(w);
    cs_log_init("gate", CS_LEVEL_ERROR);
    uint64_t until = 0;
    while (!w->gate->ready) {
        patient(&w->ready, &until, "READY");
    }
    w->script(w);
    struct cs_msg_shutdown bye = {0};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_SHUTDOWN, 0, &bye, NULL, 0) == CS_OK);
    while (cs_co_sleep(CS_NS_PER_S)) { /* until the role stops the loop */
    }
}

static void clean_up(struct world *w)
{
    if (w->control != NULL) {
        cs_channel_close(w->control);
    }
    cs_channel_close(w->supervisor);
    cs_ring_close(&w->ring);
    for (size_t i = 0; i < w->n_in; i++) {
        cs_free(w->in[i].bytes);
        if (w->in[i].fd >= 0) {
            (void)close(w->in[i].fd);
        }
    }
    for (size_t i = 0; i < w->n_clients; i++) {
        world_hang_up(&w->clients[i]);
    }
    cs_arena_done(&w->arena);
}

void world_run(void (*script)(struct world *w))
{
    static struct world world;
    struct world *w = &world;
    cs_handle co;
    world_now = w;
    w->script = script;
    cs_log_init("gate", CS_LEVEL_ERROR);
    cs_arena_init(&w->arena, 65536, 64U << 20);
    w->loop = cs_loop_new();
    CS_CHECK(w->loop != NULL);
    CS_CHECK(cs_co_spawn(w->loop, "script", play, w, &co) == CS_OK);
    cs_loop_run(w->loop);
    CS_CHECK(w->gate != NULL && w->gate->sessions.live == 0);
    cs_gate_free(w->gate);
    clean_up(w);
    cs_loop_free(w->loop);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* ---- sessions ---- */

struct world_client *world_client(struct world *w)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(w->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CS_CHECK(w->n_clients < WORLD_CLIENTS);
    struct world_client *c = &w->clients[w->n_clients++];
    c->w = w;
    c->target = "orders";
    c->sql = "DROP TABLE t";
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CS_CHECK(c->fd >= 0 && connect(c->fd, (const struct sockaddr *)&sa, sizeof sa) == 0);
    uint64_t until = 0;
    while (c->s == NULL) {
        patient(&w->accepted, &until, "a session");
    }
    return c;
}

void world_do(struct world_client *c, void (*fn)(struct world_client *c))
{
    CS_CHECK(c->s != NULL);
    c->fn = fn;
    cs_event_clear(&c->done);
    cs_event_set(&c->go);
}

void world_wait(struct world_client *c)
{
    uint64_t until = 0;
    while (!c->done.set) {
        patient(&c->done, &until, "a session to do what it was told");
    }
}

void world_hang_up(struct world_client *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

static bool has_ended(struct world *w, void *arg)
{
    const struct world_client *c = arg;
    return c->s == NULL && w->gate->sessions.live < w->n_clients;
}

void world_ended(struct world_client *c)
{
    world_until(c->w, has_ended, c);
}

void world_until(struct world *w, bool (*ok)(struct world *w, void *arg), void *arg)
{
    uint64_t until = cs_mono_ns() + PATIENCE_NS;
    while (!ok(w, arg)) {
        if (cs_mono_ns() > until || !cs_co_sleep(CS_NS_PER_MS)) {
            CS_FAIL("waited in vain for a condition");
        }
    }
}

/* ---- things for a session to do ---- */

void do_auth_start(struct world_client *c)
{
    cs_session_set_state(c->s, CS_SESSION_AUTH);
    c->err = cs_gate_auth_start(c->s, CS_SLICE_LIT("alice"), cs_slice_str(c->target),
                                CS_SLICE_LIT("nonce"), &c->auth);
}

void do_auth_finish(struct world_client *c)
{
    uint8_t proof[CS_SHA256] = {1}, signature[CS_SHA256];
    c->err = cs_gate_auth_finish(c->s, &c->auth, CS_SLICE_LIT("n=,r=nonce"), CS_SLICE_LIT("n,,"),
                                 CS_SLICE_LIT("biws"), proof, signature);
}

void do_connect(struct world_client *c)
{
    c->err = cs_gate_connect(c->s, c->elevated, c->elevated ? &c->grant : NULL, &c->up, c->why,
                             sizeof c->why);
}

void do_opened(struct world_client *c)
{
    c->err = cs_gate_may_open(c->s, c->why, sizeof c->why);
    if (c->err == CS_OK) {
        cs_session_set_state(c->s, CS_SESSION_CONNECTING);
        c->err = cs_gate_opened(c->s, CS_SLICE_LIT("orders"), CS_SLICE_LIT("orders_ro"),
                                CS_SLICE_LIT("psql"));
        cs_session_set_state(c->s, CS_SESSION_READY);
    }
}

static void action_of(struct world_client *c, struct cs_action *ret)
{
    static struct cs_slice read = {(const uint8_t *)"read", 4}, ddl = {(const uint8_t *)"ddl", 3};
    bool reads = strncmp(c->sql, "SELECT", 6) == 0;
    memset(ret, 0, sizeof *ret);
    ret->protocol = CS_SLICE_LIT("postgres");
    ret->bytes = cs_slice_str(c->sql);
    ret->database = CS_SLICE_LIT("orders");
    ret->role = CS_SLICE_LIT("orders_ro");
    ret->settings = CS_SLICE_LIT("target=127.0.0.1:1 tls=off\n");
    ret->in_transaction = c->in_transaction;
    ret->changing = !reads;
    struct cs_fact *f = ret->facts.v;
    f[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_EFFECTS].u.strings.v = reads ? &read : &ddl;
    f[CS_FACT_SQL_EFFECTS].u.strings.n = 1;
    f[CS_FACT_SQL_TEXT].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_TEXT].u.string = ret->bytes;
}

void do_decide(struct world_client *c)
{
    struct cs_action *a = &c->action;
    action_of(c, a);
    cs_gate_decide(c->s, a, NULL, &c->v);
}

static void hold_notice(struct cs_session *s, bool first, struct cs_slice line)
{
    (void)first;
    CS_CHECK(cs_slice_starts(line, CS_SLICE_LIT("COUNTERSIGN held id=")));
    for (size_t i = 0; i < world_now->n_clients; i++) {
        if (world_now->clients[i].s == s) {
            world_now->clients[i].notices++;
            cs_event_set(&world_now->news);
        }
    }
}

static size_t hold_items(struct cs_session *s, struct cs_wait items[static 2])
{
    (void)s;
    (void)items;
    return 0;
}

static bool hold_pump(struct cs_session *s)
{
    (void)s;
    return true;
}

void do_hold(struct world_client *c)
{
    static const struct cs_hold_ops ops = {hold_notice, hold_items, hold_pump};
    struct cs_action *a = &c->action;
    action_of(c, a);
    cs_gate_decide(c->s, a, NULL, &c->v);
    if (c->v.outcome == CS_HOLD) {
        c->v.elevated = c->elevated;
        cs_gate_hold(c->s, a, &ops, &c->v);
    }
}

void do_result(struct world_client *c)
{
    struct cs_result r = {.ok = true, .tag = CS_SLICE_LIT("DROP TABLE")};
    c->err = cs_gate_result(c->s, c->v.n, &r);
}

struct world_client *world_login(struct world *w)
{
    struct world_client *c = world_client(w);
    world_do(c, do_auth_start);
    struct cs_msg_auth_challenge ch = {.attempt = 9,
                                       .salt = CS_SLICE_LIT("salt"),
                                       .iterations = 4096,
                                       .nonce = CS_SLICE_LIT("noncenonce")};
    world_answer(w, world_expect(w, CS_MSG_AUTH_START), CS_MSG_AUTH_CHALLENGE, &ch);
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    uint8_t mem[256], signature[CS_SHA256] = {0};
    struct cs_slice group = CS_SLICE_LIT("engineers");
    struct cs_chain chain = {.n = 1};
    chain.p[0] = (struct cs_principal){CS_PRINCIPAL_PERSON, CS_SLICE_LIT("local:alice"),
                                       CS_SLICE_LIT("alice"), &group, 1};
    struct cs_writer wr = cs_writer(mem, sizeof mem);
    cs_chain_encode(&wr, &chain);
    c->id = cs_id_new();
    struct cs_msg_auth_result r = {.attempt = 9,
                                   .server_signature = cs_slice(signature, sizeof signature),
                                   .session = c->id,
                                   .chain = cs_writer_done(&wr)};
    world_do(c, do_auth_finish);
    world_answer(w, world_expect(w, CS_MSG_AUTH_PROOF), CS_MSG_AUTH_RESULT, &r);
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    c->grant = cs_id_new();
    return c;
}

struct world_client *world_session(struct world *w)
{
    struct world_client *c = world_login(w);
    world_do(c, do_opened);
    world_wait(c);
    CS_EQ_U64(c->err, CS_OK);
    (void)world_expect(w, CS_MSG_SESSION_OPENED);
    return c;
}

void world_wait_for(struct world *w, struct world_client *c, const char *request)
{
    world_do(c, do_hold);
    world_held(w, c, request);
    uint64_t until = 0;
    unsigned before = c->notices;
    while (c->notices == before) {
        patient(&w->news, &until, "a wait line");
    }
}
