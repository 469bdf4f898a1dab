#include "world.h"

#include "audit/leaf.h"
#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "dialer/dialer.h"
#include "policy/rules.h"
#include "runtime/sock.h"
#include "runtime/stream_filter.h"
#include "vault/keeper.h"
#include "wire/credentials.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>

/* ---- configuration ---- */

static struct cs_names one(const char *s)
{
    static struct cs_slice mem[64];
    static size_t used;
    struct cs_slice *v = &mem[used++ % 64];
    *v = cs_slice_str(s);
    return (struct cs_names){v, 1};
}

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

static struct cs_rule_full rule(struct world *w, const char *name, struct cs_names who,
                                const char *when, const char *approvers)
{
    struct cs_rule_full r;
    memset(&r, 0, sizeof r);
    r.rule.name = cs_slice_str(name);
    r.rule.title = CS_SLICE_LIT("A title");
    r.rule.then = approvers != NULL ? CS_HOLD : CS_ALLOW;
    r.who.groups = who;
    r.code = condition(w, when);
    if (approvers != NULL) {
        struct cs_names g = one(approvers);
        r.rule.elevated = true;
        r.rule.approvers = (struct cs_approvers){g.v, g.n, 1, 900, 600, 600, 0};
    }
    return r;
}

static struct cs_slice policy(struct world *w, enum world_rules kind)
{
    static struct cs_slice both[2];
    both[0] = CS_SLICE_LIT("agents");
    both[1] = CS_SLICE_LIT("engineers");
    struct cs_names makers = {both, 2};
    const char *changing = "sql.effects.exists(e, !(e in [\"session\", \"read\"]))";
    const char *reading = "sql.effects.all(e, e in [\"session\", \"read\"])";
    struct cs_rule_full rules[] = {
        rule(w, "change-data", makers, changing, kind == WORLD_OTHER_APPROVERS ? "owners" : "dba"),
        rule(w, "dba-change", one("dba"), changing, "dba"),
        rule(w, "dba-read", one("dba"), reading, NULL),
        rule(w, "read-orders", makers, reading, NULL),
    };
    char *orders = cs_arena_alloc(&w->arena, 32), *closed = cs_arena_alloc(&w->arena, 32);
    (void)snprintf(orders, 32, "127.0.0.1:%u", w->port);
    (void)snprintf(closed, 32, "127.0.0.1:%u", w->closed_port);
    struct cs_target base = {.kind = CS_SLICE_LIT("postgres"),
                             .database = CS_SLICE_LIT("orders"),
                             .tls = CS_SLICE_LIT("off"),
                             .user = CS_SLICE_LIT("orders_ro"),
                             .password = CS_SLICE_LIT("orders-ro"),
                             .has_elevated = true,
                             .elevated_user = CS_SLICE_LIT("orders_owner"),
                             .elevated_password = CS_SLICE_LIT("orders-owner"),
                             .elevated_database = CS_SLICE_LIT("orders")};
    struct cs_target targets[] = {base, base};
    targets[0].name = CS_SLICE_LIT("closed");
    targets[0].address = cs_slice_str(closed);
    targets[0].has_elevated = false;
    targets[1].name = CS_SLICE_LIT("orders");
    targets[1].address = cs_slice_str(orders);
    struct cs_policy_source src = {w->version, rules, 4, targets, 2};
    struct cs_buf out = cs_buf(1U << 20);
    cs_policy_build(&src, &out);
    CS_CHECK(!out.bad);
    struct cs_slice kept = cs_arena_dup(&w->arena, cs_buf_slice(&out));
    cs_buf_done(&out);
    return kept;
}

void world_snapshot(struct world *w, enum world_rules kind)
{
    char store[100], key[100];
    uint8_t hash[CS_SHA256];
    int fd = -1;
    w->version++;
    (void)snprintf(store, sizeof store, "%s/state.db", w->dir);
    (void)snprintf(key, sizeof key, "%s/master.key", w->dir);
    struct cs_snapshot s = {.version = w->version,
                            .url = CS_SLICE_LIT("https://gate.example:7443"),
                            .store = cs_slice_str(store),
                            .master_key = {.source = CS_KEY_FILE, .what = cs_slice_str(key)},
                            .recordings = CS_SLICE_LIT("/nowhere"),
                            .policy = policy(w, kind)};
    struct cs_buf out = cs_buf(1U << 20);
    cs_snapshot_write(&out, &s);
    CS_CHECK(!out.bad);
    cs_sha256(cs_buf_slice(&out), hash);
    CS_CHECK(cs_sealed_make("snapshot", cs_buf_slice(&out), &fd) == CS_OK);
    cs_buf_done(&out);
    struct cs_msg_snapshot m = {.version = w->version, .sha256 = cs_slice(hash, sizeof hash)};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_SNAPSHOT, 0, &m, &fd, 1) == CS_OK);
    if (w->to_dialer != NULL) {
        CS_CHECK(cs_channel_send(w->to_dialer, CS_MSG_SNAPSHOT, 0, &m, &fd, 1) == CS_OK);
    }
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
    } else if (in->type == CS_MSG_STATUS) {
        struct cs_msg_status_is m = {.json = CS_SLICE_LIT("{\"roles\":[],\"pid\":7}")};
        CS_CHECK(cs_channel_send(c, CS_MSG_STATUS_IS, in->corr, &m, NULL, 0) == CS_OK);
    } else if (in->type == CS_MSG_RELOAD) {
        struct cs_msg_reloaded m = {
            .err = w->reload_mistakes != NULL ? CS_ERR_INVALID : CS_OK,
            .version = w->version,
            .text =
                cs_slice_str(w->reload_mistakes != NULL ? w->reload_mistakes : "one warning\n")};
        CS_CHECK(cs_channel_send(c, CS_MSG_RELOADED, in->corr, &m, NULL, 0) == CS_OK);
    } else if (in->type == CS_MSG_REPLAY) {
        int fd = -1;
        struct cs_msg_replayed m = {.err = CS_OK};
        CS_CHECK(cs_sealed_make("replay", CS_SLICE_LIT("{\"session\":\"x\",\"frames\":[]}"), &fd) ==
                 CS_OK);
        CS_CHECK(cs_channel_send(c, CS_MSG_REPLAYED, in->corr, &m, &fd, 1) == CS_OK);
        (void)close(fd);
    }
}

static void keep_text(char *out, size_t n, struct cs_slice s)
{
    (void)snprintf(out, n, "%.*s", CS_SLICE_FMT(s));
}

static void catalogue_came(struct world *w, unsigned gate, const struct cs_channel_in *in)
{
    const struct cs_msg_catalogue *m = in->msg;
    struct world_catalogue *k = &w->catalogues[w->n_catalogues++ % WORLD_NEWS];
    struct cs_slice map = CS_SLICE_NULL;
    CS_CHECK(cs_sealed_map(in->fd[0], 1024, &map) == CS_OK);
    *k = (struct world_catalogue){.gate = gate, .taken = m->taken};
    keep_text(k->target, sizeof k->target, m->target);
    keep_text(k->address, sizeof k->address, m->address);
    keep_text(k->bytes, sizeof k->bytes, map);
    cs_sealed_unmap(map);
}

static void on_gate(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    if (in->type == CS_MSG_REQUEST_STATE && w->n_seen < WORLD_NEWS) {
        const struct cs_msg_request_state *m = in->msg;
        struct world_news *n = &w->seen[w->n_seen++];
        *n = (struct world_news){.gate = c == w->gate[0] ? 0 : 1,
                                 .session = m->session,
                                 .grant = m->grant,
                                 .state = (enum cs_request_state)m->state};
        keep_text(n->request, sizeof n->request, m->request);
        keep_text(n->words, sizeof n->words, m->words);
        keep_text(n->by, sizeof n->by, m->by);
    } else if (in->type == CS_MSG_SESSION_KILL && w->n_killed < WORLD_NEWS) {
        w->killed[w->n_killed++] = ((const struct cs_msg_session_kill *)in->msg)->session;
    }
    unsigned gate = c == w->gate[0] ? 0 : 1;
    if (in->type == CS_MSG_CANCEL_TO) {
        w->n_cancels[gate]++;
    } else if (in->type == CS_MSG_CATALOGUE) {
        catalogue_came(w, gate, in);
    } else if (in->type == CS_MSG_CATALOGUE_OLD) {
        w->n_old[gate]++;
    }
    cs_event_set(&w->news);
}

static void on_front(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)c; /* answers that nobody waits for any more */
    (void)in;
    (void)arg;
}

static struct cs_channel *join(struct world *w, enum cs_role role, uint64_t index, cs_channel_fn fn)
{
    int pair[2];
    struct cs_channel *c = NULL;
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    struct cs_msg_peer m = {.role = (uint64_t)role, .index = index, .epoch = 4711 + index};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[1]);
    CS_CHECK(cs_channel_open(w->loop, pair[0], role, CS_ROLE_CONTROL, 0, fn, nobody_gone, w, &c) ==
             CS_OK);
    cs_channel_run_phase(c);
    return c;
}

static void on_probe(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    struct cs_msg_probed m = {.err = w->probe_says != NULL ? CS_OK : CS_ERR_TIMEOUT};
    int fd = -1;
    if (in->type != CS_MSG_PROBE) {
        return;
    }
    w->n_looks++;
    const char *says = w->probe_says != NULL ? w->probe_says : "";
    CS_CHECK(cs_sealed_make("probed", cs_slice_str(says), &fd) == CS_OK);
    CS_CHECK(cs_channel_send(c, CS_MSG_PROBED, in->corr, &m, &fd, 1) == CS_OK);
    (void)close(fd);
    cs_event_set(&w->news);
}

static void keep_channel(struct world *w, struct cs_channel *c)
{
    CS_CHECK(w->n_more < CS_ARRAY_LEN(w->more));
    w->more[w->n_more++] = c;
}

void world_probe(struct world *w)
{
    keep_channel(w, join(w, CS_ROLE_PROBE, 0, on_probe));
}

void world_gate(struct world *w, unsigned g)
{
    keep_channel(w, join(w, CS_ROLE_GATE, g, on_gate));
}

/* A recorder whose disk is as the test wants it. */
static void on_recorder(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    if (in->type == CS_MSG_AUDIT) {
        const struct cs_msg_audit *m = in->msg;
        const struct cs_msg_audited out = {.err = (uint64_t)w->log_err};
        struct world_audit *a = &w->audits[w->n_audits++ % CS_ARRAY_LEN(w->audits)];
        *a = (struct world_audit){.event = m->event,
                                  .session = m->session,
                                  .kind = m->kind,
                                  .outcome = m->outcome,
                                  .has_outcome = (m->has >> CS_KEY_OUTCOME & 1) != 0};
        keep_text(a->subject, sizeof a->subject, m->subject);
        keep_text(a->request, sizeof a->request, m->request);
        keep_text(a->what, sizeof a->what, m->what);
        keep_text(a->who, sizeof a->who, m->who);
        CS_CHECK(cs_channel_send(c, CS_MSG_AUDITED, in->corr, &out, NULL, 0) == CS_OK);
    } else if (in->type == CS_MSG_LOG_SETTLE) {
        const struct cs_msg_log_settled out = {.err = CS_OK};
        CS_CHECK(cs_channel_send(c, CS_MSG_LOG_SETTLED, in->corr, &out, NULL, 0) == CS_OK);
    }
}

size_t world_said_n(const struct world *w, unsigned kind)
{
    size_t n = 0;
    for (size_t i = 0; i < CS_MIN(w->n_audits, CS_ARRAY_LEN(w->audits)); i++) {
        n += w->audits[i].kind == kind;
    }
    return n;
}

const struct world_audit *world_said(const struct world *w, unsigned kind)
{
    for (size_t i = w->n_audits; i > w->n_audits - CS_MIN(w->n_audits, CS_ARRAY_LEN(w->audits));
         i--) {
        const struct world_audit *a = &w->audits[(i - 1) % CS_ARRAY_LEN(w->audits)];
        if (a->kind == kind) {
            return a;
        }
    }
    return NULL;
}

static void on_helper(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    if (in->type == CS_MSG_READY) {
        cs_channel_run_phase(c);
    }
}

/* A channel between control and that helper. */
static void join_helper(struct world *w, enum cs_role role, struct cs_channel *helper)
{
    int pair[2];
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    struct cs_msg_peer m = {.role = (uint64_t)role, .epoch = 99};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_PEER, 0, &m, &pair[0], 1) == CS_OK);
    m.role = CS_ROLE_CONTROL;
    CS_CHECK(cs_channel_send(helper, CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

/* Keys are of one repeated byte. previous 0: none. */
void world_keeper_keys(struct world *w, uint8_t present, uint8_t previous)
{
    for (unsigned i = 0; i < (previous != 0 ? 2 : 1); i++) {
        int ends[2];
        uint8_t key[CS_SEAL_KEY];
        const struct cs_msg_master_key m = {.previous = i, .last = i == 1 || previous == 0};
        memset(key, i == 0 ? present : previous, sizeof key);
        CS_CHECK(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
        CS_CHECK(write(ends[1], key, sizeof key) == (ssize_t)sizeof key);
        CS_CHECK(cs_channel_send(w->to_keeper, CS_MSG_MASTER_KEY, 0, &m, &ends[0], 1) == CS_OK);
        (void)close(ends[0]);
        (void)close(ends[1]);
    }
}

static void keeper_table(struct world *w)
{
    const struct cs_credential_row rows[] = {{.target = CS_SLICE_LIT("closed"),
                                              .secret = CS_SLICE_LIT("orders-ro"),
                                              .binding = CS_BINDING_PREFER},
                                             {.target = CS_SLICE_LIT("orders"),
                                              .secret = CS_SLICE_LIT("orders-ro"),
                                              .elevated = CS_SLICE_LIT("orders-owner"),
                                              .binding = CS_BINDING_PREFER}};
    struct cs_buf out = cs_buf(4096);
    uint8_t hash[CS_SHA256];
    int fd = -1;
    for (size_t i = 0; i < CS_ARRAY_LEN(rows); i++) {
        cs_credentials_write(&out, &rows[i]);
    }
    cs_sha256(cs_buf_slice(&out), hash);
    CS_CHECK(cs_sealed_make("table", cs_buf_slice(&out), &fd) == CS_OK);
    const struct cs_msg_credentials m = {.version = 1, .sha256 = cs_slice(hash, sizeof hash)};
    CS_CHECK(cs_channel_send(w->to_keeper, CS_MSG_CREDENTIALS, 0, &m, &fd, 1) == CS_OK);
    (void)close(fd);
    cs_buf_done(&out);
}

/* Before the snapshot, which the dialer gets too. */
static void helpers_begin(struct world *w)
{
    int pair[2];
    struct cs_msg_boot m = {.role = CS_ROLE_KEEPER, .epoch = 2};
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_keeper_new(w->loop, pair[1], &w->keeper) == CS_OK);
    CS_CHECK(cs_channel_open(w->loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_KEEPER, 0, on_helper,
                             nobody_gone, w, &w->to_keeper) == CS_OK);
    CS_CHECK(cs_channel_send(w->to_keeper, CS_MSG_BOOT, 0, &m, NULL, 0) == CS_OK);
    world_keeper_keys(w, 1, 0);
    keeper_table(w);
    m = (struct cs_msg_boot){.role = CS_ROLE_DIALER, .epoch = 3};
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_dialer_new(w->loop, pair[1], &w->dialer) == CS_OK);
    CS_CHECK(cs_channel_open(w->loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_DIALER, 0, on_helper,
                             nobody_gone, w, &w->to_dialer) == CS_OK);
    CS_CHECK(cs_channel_send(w->to_dialer, CS_MSG_BOOT, 0, &m, NULL, 0) == CS_OK);
}

static void helpers_join(struct world *w)
{
    join_helper(w, CS_ROLE_KEEPER, w->to_keeper);
    join_helper(w, CS_ROLE_DIALER, w->to_dialer);
}

static void boot(struct world *w)
{
    int pair[2];
    CS_CHECK(cs_socketpair(pair) == CS_OK);
    CS_CHECK(cs_control_new(w->loop, pair[1], &w->control) == CS_OK);
    CS_CHECK(cs_channel_open(w->loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_CONTROL, 0,
                             on_supervisor, nobody_gone, w, &w->supervisor) == CS_OK);
    struct cs_msg_boot m = {.role = CS_ROLE_CONTROL,
                            .epoch = 1,
                            .params = w->keep ? CS_SLICE_LIT("gates=keep\n") : CS_SLICE_NULL};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_BOOT, 0, &m, NULL, 0) == CS_OK);
    helpers_begin(w);
    world_snapshot(w, w->rules[w->again ? 1 : 0]);
    helpers_join(w);
    w->n_audits = 0;
    w->recorder = join(w, CS_ROLE_RECORDER, 0, on_recorder);
    w->gate[0] = join(w, CS_ROLE_GATE, 0, on_gate);
    w->gate[1] = join(w, CS_ROLE_GATE, 1, on_gate);
    w->front = join(w, CS_ROLE_FRONT, 0, on_front);
    struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, &w->ready);
    CS_CHECK(cs_wait(&wait, 1, cs_mono_ns() + 10 * CS_NS_PER_S) == CS_WOKE_READY);
}

/* Its own memory lives on until the loop has ended: its coroutines do. Here its channels end. */
void world_helpers_die(struct world *w)
{
    int pair[2];
    const struct cs_msg_peer m = {.role = CS_ROLE_CONTROL, .epoch = 1};
    struct cs_channel *to[] = {w->to_keeper, w->to_dialer};
    for (size_t i = 0; i < CS_ARRAY_LEN(to); i++) {
        /* A new control closes the channel to the one before. */
        CS_CHECK(cs_socketpair(pair) == CS_OK);
        CS_CHECK(cs_channel_send(to[i], CS_MSG_PEER, 0, &m, &pair[1], 1) == CS_OK);
        (void)close(pair[0]);
        (void)close(pair[1]);
    }
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
}

void world_helpers_start(struct world *w)
{
    helpers_join(w);
    CS_CHECK(cs_co_sleep(50 * CS_NS_PER_MS));
}

static void add(struct world *w, const char *path, const char *body, char *token)
{
    json_t *o = NULL;
    struct world_call call = {
        .method = "POST", .path = path, .body = body, .local = true, .uid = 0};
    CS_EQ_U64(world_api(w, &call, &o), 201);
    (void)snprintf(token, CS_TOKEN_TEXT, "%s", world_text(o, "token"));
    json_decref(o);
}

static void people(struct world *w)
{
    add(w, "/v1/users", "{\"name\":\"alice\",\"groups\":[\"engineers\"]}", w->alice);
    add(w, "/v1/users", "{\"name\":\"carol\",\"groups\":[\"dba\"]}", w->carol);
    add(w, "/v1/users", "{\"name\":\"dan\",\"groups\":[\"dba\"]}", w->dan);
    add(w, "/v1/agents", "{\"name\":\"bot\",\"owner\":\"alice\",\"groups\":[\"agents\"]}", w->bot);
}

static void play(void *arg)
{
    struct world *w = arg;
    boot(w);
    if (!w->again) {
        people(w);
    }
    w->script(w);
    struct cs_msg_shutdown m = {0};
    CS_CHECK(cs_channel_send(w->supervisor, CS_MSG_SHUTDOWN, 0, &m, NULL, 0) == CS_OK);
    while (cs_co_sleep(CS_NS_PER_S)) { /* until the role stops the loop */
    }
}
static int listen_on(uint16_t *ret_port)
{
    int fd = -1;
    CS_CHECK(cs_listen_tcp(CS_SLICE_LIT("127.0.0.1:0"), &fd) == CS_OK);
    *ret_port = cs_sock_port(fd);
    return fd;
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = {"state.db", "state.db-wal", "state.db-shm", "state.db.lock",
                                        "master.key"};
    char path[128];
    for (size_t i = 0; i < CS_ARRAY_LEN(names); i++) {
        (void)snprintf(path, sizeof path, "%.63s/%.30s", dir, names[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

static void close_channels(struct world *w)
{
    while (w->n_more > 0) {
        cs_channel_close(w->more[--w->n_more]);
    }
    cs_channel_close(w->supervisor);
    cs_channel_close(w->gate[0]);
    cs_channel_close(w->gate[1]);
    cs_channel_close(w->front);
    cs_channel_close(w->recorder);
    cs_channel_close(w->to_keeper);
    cs_channel_close(w->to_dialer);
    w->to_dialer = NULL;
}

static void one_life(struct world *w, void (*script)(struct world *w))
{
    cs_handle co;
    w->script = script;
    w->version = 0;
    cs_event_clear(&w->ready);
    w->loop = cs_loop_new();
    CS_CHECK(w->loop != NULL);
    CS_CHECK(cs_co_spawn(w->loop, "script", play, w, &co) == CS_OK);
    cs_loop_run(w->loop);
    CS_CHECK(!w->control->failed);
    cs_control_free(w->control);
    cs_keeper_free(w->keeper);
    cs_dialer_free(w->dialer);
    close_channels(w);
    cs_loop_free(w->loop);
}

void world_run_twice(void (*first)(struct world *w), void (*second)(struct world *w), bool keep)
{
    static struct world world;
    struct world *w = &world;
    cs_log_init("control", CS_LEVEL_ERROR);
    cs_arena_init(&w->arena, 65536, 64U << 20);
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/cs-control-XXXXXX");
    CS_CHECK(mkdtemp(w->dir) != NULL);
    w->listener = listen_on(&w->port);
    (void)close(listen_on(&w->closed_port));
    one_life(w, first);
    if (second != NULL) {
        w->again = true;
        w->keep = keep;
        one_life(w, second);
    }
    cs_arena_done(&w->arena);
    (void)close(w->listener);
    remove_dir(w->dir);
    cs_iobuf_trim();
    CS_EQ_U64(cs_alloc_live(), 0);
}

void world_run(void (*script)(struct world *w))
{
    world_run_twice(script, NULL, false);
}

/* ---- front ---- */

const char *world_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

unsigned world_api(struct world *w, const struct world_call *call, json_t **ret)
{
    uint8_t hash[CS_SHA256];
    if (call->token != NULL) {
        cs_sha256(cs_slice_str(call->token), hash);
    }
    struct cs_msg_api m = {.method = cs_slice_str(call->method),
                           .path = cs_slice_str(call->path),
                           .query = cs_slice_str(call->query),
                           .token_sha256 = cs_slice(hash, call->token != NULL ? sizeof hash : 0),
                           .local = call->local ? 1 : 0,
                           .uid = call->uid,
                           .address = CS_SLICE_LIT("127.0.0.1:9"),
                           .body = cs_slice_str(call->body)};
    struct cs_call answer;
    memset(&answer, 0, sizeof answer);
    answer.fd[0] = answer.fd[1] = answer.fd[2] = -1;
    CS_CHECK(cs_channel_call(w->front, CS_MSG_API, &m, NULL, 0, cs_mono_ns() + 60 * CS_NS_PER_S,
                             &answer) == CS_OK);
    unsigned status = 0;
    *ret = NULL;
    if (answer.type == CS_MSG_API_REPLY) {
        const struct cs_msg_api_reply *r = (const void *)answer.msg.raw;
        status = (unsigned)r->status;
        *ret = json_loadb((const char *)r->body.p, r->body.n, JSON_REJECT_DUPLICATES, NULL);
    } else {
        const struct cs_msg_api_reply_large *r = (const void *)answer.msg.raw;
        struct cs_slice map;
        CS_CHECK(answer.type == CS_MSG_API_REPLY_LARGE);
        status = (unsigned)r->status;
        CS_CHECK(cs_sealed_map(answer.fd[0], CS_LIMIT_IPC_BLOB_BYTES, &map) == CS_OK);
        *ret = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES, NULL);
        cs_sealed_unmap(map);
    }
    cs_call_done(&answer);
    CS_CHECK(*ret != NULL);
    return status;
}

unsigned world_setup(struct world *w, const char *method, const char *path, const char *body)
{
    json_t *o = NULL;
    struct world_call call = {
        .method = method, .path = path, .body = body, .local = true, .uid = 0};
    unsigned status = world_api(w, &call, &o);
    json_decref(o);
    return status;
}

unsigned world_secret(struct world *w, const char *name, const char *value)
{
    uint8_t key[CS_X25519], box[1000];
    char path[100], aad[100], body[2000];
    json_t *o = NULL;
    size_t n = 0;
    struct world_call get = {.method = "GET", .path = "/v1/secrets/key", .local = true};
    CS_EQ_U64(world_api(w, &get, &o), 200);
    CS_CHECK(cs_base64_decode(cs_slice_str(world_text(o, "key")), true, key, sizeof key, &n));
    CS_EQ_U64(n, sizeof key);
    json_decref(o);
    (void)snprintf(path, sizeof path, "/v1/secrets/%s", name);
    (void)snprintf(aad, sizeof aad, "countersign/secret-put/1%s", name);
    CS_CHECK(cs_seal_to(key, cs_slice_str(aad), cs_slice_str(value), box) == CS_OK);
    n = (size_t)snprintf(body, sizeof body, "{\"sealed\":\"");
    n += cs_base64_encode(cs_slice(box, strlen(value) + CS_SEAL_TO_OVERHEAD), true, body + n);
    (void)snprintf(body + n, sizeof body - n, "\"}");
    return world_setup(w, "PUT", path, body);
}

unsigned world_vote(struct world *w, const char *token, const char *verb, const char *request,
                    const char *digest, const char *reason)
{
    char path[100], body[400];
    json_t *o = NULL;
    (void)snprintf(path, sizeof path, "/v1/requests/%s/%s", request, verb);
    (void)snprintf(body, sizeof body, "{\"digest\":\"%s\",\"reason\":\"%s\"}", digest, reason);
    struct world_call call = {.method = "POST",
                              .path = path,
                              .body = body,
                              .token = token,
                              .local = token == NULL,
                              .uid = 0};
    unsigned status = world_api(w, &call, &o);
    json_decref(o);
    return status;
}

/* ---- a gate ---- */

static void call_gate(struct world *w, unsigned g, enum cs_msg_type t, const void *msg,
                      const int *fd, struct cs_call *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->fd[0] = ret->fd[1] = ret->fd[2] = -1;
    CS_CHECK(cs_channel_call(w->gate[g], t, msg, fd, fd != NULL ? 1 : 0,
                             cs_mono_ns() + 20 * CS_NS_PER_S, ret) == CS_OK);
}

static enum cs_err take_result(const struct cs_call *call, const uint8_t want[static CS_SHA256],
                               struct cs_id *ret)
{
    const struct cs_msg_auth_result *r = (const void *)call->msg.raw;
    CS_CHECK(call->type == CS_MSG_AUTH_RESULT);
    if (r->err != CS_OK) {
        CS_CHECK(r->server_signature.n == 0 && cs_id_is_zero(&r->session) && r->chain.n == 0);
        return (enum cs_err)r->err;
    }
    CS_CHECK(cs_slice_eq(r->server_signature, cs_slice(want, CS_SHA256)));
    CS_CHECK(r->chain.n > 0 && !cs_id_is_zero(&r->session));
    *ret = r->session;
    return CS_OK;
}

enum cs_err world_login(struct world *w, unsigned g, const char *user, const char *token,
                        const char *target, struct cs_id *ret)
{
    struct cs_msg_auth_start start = {.protocol = CS_SLICE_LIT("postgres"),
                                      .user = cs_slice_str(user),
                                      .target = cs_slice_str(target),
                                      .address = CS_SLICE_LIT("127.0.0.1:50000"),
                                      .tls = 1,
                                      .client_nonce = CS_SLICE_LIT("rOprNGfwEbeRWgbNEkqO")};
    struct cs_call call;
    call_gate(w, g, CS_MSG_AUTH_START, &start, NULL, &call);
    CS_CHECK(call.type == CS_MSG_AUTH_CHALLENGE);
    const struct cs_msg_auth_challenge *ch = (const void *)call.msg.raw;
    uint8_t salted[CS_SHA256], proof[CS_SHA256], signature[CS_SHA256];
    char salt[64];
    CS_EQ_U64(ch->salt.n, CS_SCRAM_SALT);
    size_t salt_n = cs_base64_encode(ch->salt, false, salt);
    struct cs_slice message =
        cs_arena_printf(&w->arena, "n=,r=rOprNGfwEbeRWgbNEkqO,r=%.*s,s=%.*s,i=%u,c=biws,r=%.*s",
                        CS_SLICE_FMT(ch->nonce), (int)salt_n, salt, (unsigned)ch->iterations,
                        CS_SLICE_FMT(ch->nonce));
    CS_CHECK(cs_scram_salted_password(cs_slice_str(token), ch->salt, (uint32_t)ch->iterations,
                                      salted) == CS_OK);
    cs_scram_client_proof(salted, message, proof, signature);
    struct cs_msg_auth_proof p = {.attempt = ch->attempt,
                                  .client_first_bare = CS_SLICE_LIT("n=,r=rOprNGfwEbeRWgbNEkqO"),
                                  .gs2_header = CS_SLICE_LIT("n,,"),
                                  .channel_binding = CS_SLICE_LIT("biws"),
                                  .proof = cs_slice(proof, sizeof proof)};
    cs_call_done(&call);
    call_gate(w, g, CS_MSG_AUTH_PROOF, &p, NULL, &call);
    enum cs_err e = take_result(&call, signature, ret);
    cs_call_done(&call);
    return e;
}

void world_action(struct world *w, const struct world_hold *h, struct cs_action *ret)
{
    struct cs_slice *effect = CS_NEW(&w->arena, struct cs_slice);
    *effect = strncmp(h->sql, "SELECT", 6) == 0 ? CS_SLICE_LIT("read") : CS_SLICE_LIT("ddl");
    memset(ret, 0, sizeof *ret);
    ret->protocol = CS_SLICE_LIT("postgres");
    ret->bytes = cs_slice_str(h->sql);
    ret->database = CS_SLICE_LIT("orders");
    ret->role = CS_SLICE_LIT("orders_owner");
    ret->settings = cs_arena_printf(&w->arena, "target=127.0.0.1:%u tls=off\n", w->port);
    ret->in_transaction = h->in_transaction;
    ret->changing = true;
    struct cs_fact *f = ret->facts.v;
    f[CS_FACT_SQL_EFFECTS].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_EFFECTS].u.strings.v = effect;
    f[CS_FACT_SQL_EFFECTS].u.strings.n = 1;
    f[CS_FACT_SQL_VERB].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_VERB].u.string = CS_SLICE_LIT("DROP TABLE");
    f[CS_FACT_SQL_TEXT].state = CS_FACT_KNOWN;
    f[CS_FACT_SQL_TEXT].u.string = ret->bytes;
}

static int seal_action(const struct cs_action *a)
{
    int fd = -1;
    size_t cap = cs_action_encoded_size(a);
    uint8_t *mem = cs_alloc(cap);
    struct cs_writer wr = cs_writer(mem, cap);
    cs_action_encode(&wr, a);
    CS_CHECK(!wr.overflow);
    CS_CHECK(cs_sealed_make("action", cs_writer_done(&wr), &fd) == CS_OK);
    cs_free(mem);
    return fd;
}

void world_hold(struct world *w, const struct world_hold *h, struct world_held *ret)
{
    struct cs_action *a = CS_NEW(&w->arena, struct cs_action);
    world_action(w, h, a);
    int fd = seal_action(a);
    struct cs_msg_hold m = {.session = h->session,
                            .waiting = h->async ? 0 : 1,
                            .in_transaction = h->in_transaction ? 1 : 0,
                            .rules = cs_slice_str(h->rules != NULL ? h->rules : "change-data"),
                            .elevated = h->everyday ? 0 : 1,
                            .snapshot = h->snapshot != 0 ? h->snapshot : w->version,
                            .again = h->again != NULL ? cs_slice_str(h->again) : CS_SLICE_NULL};
    struct cs_call call;
    call_gate(w, h->gate, CS_MSG_HOLD, &m, &fd, &call);
    (void)close(fd);
    CS_CHECK(call.type == CS_MSG_HELD);
    const struct cs_msg_held *r = (const void *)call.msg.raw;
    memset(ret, 0, sizeof *ret);
    ret->err = (enum cs_err)r->err;
    keep_text(ret->text, sizeof ret->text, r->text);
    if (ret->err == CS_OK) {
        keep_text(ret->request, sizeof ret->request, r->request);
        keep_text(ret->url, sizeof ret->url, r->url);
        keep_text(ret->by, sizeof ret->by, r->by);
        CS_EQ_U64(r->digest.n, CS_DIGEST);
        CS_EQ_U64(r->nonce.n, CS_NONCE);
        memcpy(ret->raw_digest, r->digest.p, CS_DIGEST);
        memcpy(ret->nonce, r->nonce.p, CS_NONCE);
        cs_hex(r->digest, ret->digest);
        ret->state = (enum cs_request_state)r->state;
        ret->grant = r->grant;
        ret->attached = r->attached != 0;
    }
    cs_call_done(&call);
}

const struct world_news *world_news(struct world *w, const struct cs_id *session,
                                    const char *request, enum cs_request_state state)
{
    uint64_t deadline = cs_mono_ns() + 20 * CS_NS_PER_S;
    for (;;) {
        for (size_t i = 0; i < w->n_seen; i++) {
            const struct world_news *n = &w->seen[i];
            if (cs_id_eq(&n->session, session) && strcmp(n->request, request) == 0 &&
                n->state == state) {
                return n;
            }
        }
        struct cs_wait wait = CS_WAIT_ON(CS_WAIT_EVENT, &w->news);
        cs_event_clear(&w->news);
        if (cs_wait(&wait, 1, deadline) != CS_WOKE_READY) {
            return NULL;
        }
    }
}

enum cs_err world_consume(struct world *w, unsigned g, const struct cs_id *session,
                          const struct world_held *held, const struct cs_id *grant)
{
    struct cs_msg_consume m = {.session = *session,
                               .request = cs_slice_str(held->request),
                               .grant = *grant,
                               .digest = cs_slice(held->raw_digest, CS_DIGEST)};
    struct cs_call call;
    call_gate(w, g, CS_MSG_CONSUME, &m, NULL, &call);
    CS_CHECK(call.type == CS_MSG_CONSUMED);
    enum cs_err e = (enum cs_err)((const struct cs_msg_consumed *)(const void *)call.msg.raw)->err;
    cs_call_done(&call);
    return e;
}

int world_connect(struct world *w, unsigned g, const struct cs_id *session, const char *target,
                  enum cs_credential which, const struct cs_id *grant, uint64_t *ret_connection,
                  char *ret_user, char *text, enum cs_err *ret_err)
{
    struct cs_msg_connect m = {.session = *session,
                               .target = cs_slice_str(target),
                               .which = (uint64_t)which,
                               .snapshot = w->version};
    struct cs_call call;
    int fd = -1;
    if (grant != NULL) {
        m.grant = *grant;
    }
    call_gate(w, g, CS_MSG_CONNECT, &m, NULL, &call);
    if (call.type == CS_MSG_CONNECTED) {
        const struct cs_msg_connected *r = (const void *)call.msg.raw;
        fd = call.fd[0];
        call.fd[0] = -1;
        *ret_connection = r->connection;
        *ret_err = CS_OK;
        keep_text(ret_user, 64, r->user);
        CS_CHECK(fd >= 0);
    } else {
        const struct cs_msg_not_connected *r = (const void *)call.msg.raw;
        CS_CHECK(call.type == CS_MSG_NOT_CONNECTED && r->err != CS_OK);
        *ret_err = (enum cs_err)r->err;
        keep_text(text, 256, r->text);
    }
    cs_call_done(&call);
    return fd;
}
