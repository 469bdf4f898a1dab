/* The store on a disk that loses power, over thousands of seeds (crash_disk.h): its own code and
 * SQLite's over a file layer in memory (crash_vfs.h). Agents open sessions, ask, are approved,
 * consume their grants and finish, several in one commit; somewhere the machine or the process goes
 * down, or a call fails; the next process recovers and goes on.
 *
 * What must hold: what was acknowledged is there; a grant that was consumed is never consumed
 * again; NO_SPACE has changed nothing, so that the same call works when there is room.
 *
 * CS_CRASH_SEEDS says how many (default 500; `make check` 5000), CS_CRASH_FIRST from which on. A
 * seed that fails is printed, and CS_CRASH_SEEDS=1 CS_CRASH_FIRST=it does the same again. */
#include "base/log.h"
#include "crash_disk.h"
#include "crash_vfs.h"
#include "store/store.h"
#include "tap.h"

#include <sqlite3.h>

CS_TEST_MAIN()

enum { AGENTS = 5, NOTES = 1024, LIVES = 3, PATIENCE = 200, IMAGE = 1024 * 1024 };

/* What an agent was told about its request, the last thing. */
enum told { TOLD_ASKED = 1, TOLD_APPROVED, TOLD_CONSUMED, TOLD_DONE };
struct note {
    enum told told;
    char request[CS_REQUEST_ID_TEXT];
    struct cs_id grant, session;
    uint8_t digest[CS_STORE_DIGEST];
};

static struct {
    struct cs_loop *loop;
    struct cs_store *store;
    struct cs_arena arena;
    struct note notes[NOTES];
    size_t n_notes;
    unsigned agents; /* that are not done */
    uint64_t lives;  /* of agents, in this process */
    uint64_t seed, wall_ms;
    uint8_t image[IMAGE]; /* of an installation that was just made */
    size_t image_n;
    bool ok;
} w;

#define DEMAND(e)                                                                                  \
    do {                                                                                           \
        if (!(e)) {                                                                                \
            CS_FAIL("seed %" PRIu64 ": not true: %s", w.seed, #e);                                 \
        }                                                                                          \
    } while (0)

/* ---- in place of clocks and chance (meson.build) ---- */

uint64_t __wrap_cs_wall_ms(void);
void __wrap_cs_random(void *p, size_t n);

/* It goes on, and is set back by hours now and then (the store's clock must not follow). */
uint64_t __wrap_cs_wall_ms(void)
{
    w.wall_ms += disk_any(5);
    if (disk_any(200) == 0) {
        w.wall_ms -= disk_any((uint64_t)5 * 3600 * 1000);
    }
    return w.wall_ms;
}

void __wrap_cs_random(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((uint8_t *)p)[i] = (uint8_t)disk_any(256);
    }
}

static uint64_t clock_of_the_machine(void)
{
    return __wrap_cs_wall_ms();
}

/* ---- agents ---- */

/* Again while there is no space: a call that said so has changed nothing. */
#define PATIENTLY(err, call)                                                                       \
    do {                                                                                           \
        for (int i_ = 0; ((err) = (call)) == CS_ERR_NO_SPACE && i_ < PATIENCE; i_++) {             \
        }                                                                                          \
    } while (0)

/* Whether the store did it. When it did not, it must have been for the disk's sake. */
static bool done(enum cs_err err)
{
    if (err != CS_OK && err != CS_ERR_IO && err != CS_ERR_UNAVAILABLE && err != CS_ERR_NO_SPACE) {
        CS_FAIL("seed %" PRIu64 ": the store says %s", w.seed, cs_err_name(err));
    }
    if (err != CS_OK && !disk_struck()) {
        CS_FAIL("seed %" PRIu64 ": %s, and the disk was well", w.seed, cs_err_name(err));
    }
    return err == CS_OK;
}

struct life {
    struct cs_store_session session;
    struct cs_store_rule rule;
    struct cs_store_request request, got;
    struct cs_store_held held;
    char parties[64];
};

static void life_make(struct life *l)
{
    *l = (struct life){.session = {.id = cs_id_new(),
                                   .chain = CS_SLICE_LIT("c"),
                                   .root = CS_SLICE_LIT("local:alice"),
                                   .actor = CS_SLICE_LIT("local:bot"),
                                   .target = CS_SLICE_LIT("orders"),
                                   .address = CS_SLICE_LIT("x")},
                       .rule = {.name = CS_SLICE_LIT("change"),
                                .title = CS_SLICE_LIT("t"),
                                .groups = CS_SLICE_LIT("dba\n"),
                                .quorum = 1},
                       .request = {.chain = CS_SLICE_LIT("c"),
                                   .target = CS_SLICE_LIT("orders"),
                                   .action = CS_SLICE_LIT("DROP TABLE t"),
                                   .within_ms = 90000000,
                                   .valid_ms = 60000000,
                                   .attach_ms = 60000000,
                                   .n_rules = 1}};
    struct cs_store_request *r = &l->request;
    r->session = l->session.id;
    r->rules = &l->rule;
    cs_request_id_new(r->id);
    cs_random(r->match, sizeof r->match);
    cs_random(r->digest, sizeof r->digest);
    (void)snprintf(l->parties, sizeof l->parties, "local:alice\nlocal:bot-%s\n", r->id);
    r->parties = cs_slice_str(l->parties);
}

static void told(struct note *n, enum told what)
{
    DEMAND(n->told == what - 1);
    n->told = what;
}

static bool agent_once(struct cs_arena *a)
{
    struct life *l = cs_arena_alloc(a, sizeof *l);
    enum cs_err err = CS_OK;
    uint64_t state = 0;
    enum cs_store_vote_refusal refusal;
    life_make(l);
    PATIENTLY(err, cs_store_session_open(w.store, &l->session));
    if (!done(err)) {
        return false;
    }
    PATIENTLY(err, cs_store_request_hold(w.store, &l->request, true, NULL, NULL, a, &l->held));
    if (!done(err)) {
        return false;
    }
    DEMAND(w.n_notes < NOTES);
    struct note *n = &w.notes[w.n_notes++];
    *n = (struct note){.session = l->session.id};
    memcpy(n->request, l->held.request, sizeof n->request);
    memcpy(n->digest, l->held.digest, sizeof n->digest);
    told(n, TOLD_ASKED);
    struct cs_slice id = cs_slice_str(n->request);
    PATIENTLY(err, cs_store_vote(w.store, id, CS_SLICE_LIT("local:dba"), true, n->digest,
                                 CS_SLICE_NULL, &state, &refusal));
    if (!done(err)) {
        return false;
    }
    DEMAND(state == CS_STORE_PENDING); /* it counts when the audit log has it */
    PATIENTLY(err,
              cs_store_vote_logged(w.store, id, CS_SLICE_LIT("local:dba"), CS_SLICE_NULL, &state));
    if (!done(err)) {
        return false;
    }
    DEMAND(state == CS_STORE_APPROVED);
    told(n, TOLD_APPROVED);
    PATIENTLY(err, cs_store_request_get(w.store, id, CS_SLICE_NULL, a, &l->got));
    if (!done(err)) {
        return false;
    }
    n->grant = l->got.grant;
    PATIENTLY(err, cs_store_grant_consume(w.store, id, &n->grant, &n->session, n->digest));
    if (!done(err)) {
        return false;
    }
    told(n, TOLD_CONSUMED);
    PATIENTLY(err, cs_store_grant_finish(w.store, &n->grant, &n->session, CS_STORE_DONE,
                                         CS_SLICE_LIT("DROP")));
    if (!done(err)) {
        return false;
    }
    told(n, TOLD_DONE);
    return true;
}

static void agent(void *arg)
{
    struct cs_arena a;
    (void)arg;
    cs_arena_init(&a, 8192, 1 << 20);
    while (w.lives > 0 && w.lives-- > 0 && agent_once(&a)) {
        cs_arena_reset(&a);
    }
    cs_arena_done(&a);
    w.agents--;
}

/* ---- one process ---- */

static bool store_opens(void)
{
    char why[200] = "";
    struct cs_store_options opt = {.wall_ms = clock_of_the_machine};
    enum cs_err err = CS_ERR_NO_SPACE;
    for (int i = 0; i < PATIENCE && err == CS_ERR_NO_SPACE; i++) {
        err = cs_store_open(w.loop, "/sim/state.db", &opt, why, sizeof why, &w.store);
    }
    if (err != CS_OK && !disk_struck()) {
        CS_FAIL("seed %" PRIu64 ": the store does not open: %s", w.seed, why);
    }
    return err == CS_OK;
}

static void (*task_fn)(void);

static void task(void *arg)
{
    (void)arg;
    task_fn();
    w.agents--;
}

/* Runs it, or so many agents, while the writer has its turns. */
static void with_writer(void (*fn)(void), unsigned agents)
{
    cs_handle co;
    task_fn = fn;
    w.agents = agents;
    for (unsigned i = 0; i < agents; i++) {
        DEMAND(cs_co_spawn(w.loop, "agent", fn != NULL ? task : agent, NULL, &co) == CS_OK);
    }
    while (w.agents > 0) {
        (void)cs_co_yield();
        disk_thread();
    }
}

static void begin(void)
{
    struct cs_store_principal p = {.id = CS_SLICE_LIT("local:dba"),
                                   .name = CS_SLICE_LIT("dba"),
                                   .groups = CS_SLICE_LIT("dba\n"),
                                   .kind = 1,
                                   .iterations = 4096,
                                   .token_sha256 = {1}};
    uint64_t n = 0;
    enum cs_err err = CS_OK;
    PATIENTLY(err, cs_store_principal_add(w.store, &p));
    if (err != CS_ERR_EXISTS && !done(err)) {
        w.lives = 0;
        return;
    }
    PATIENTLY(err, cs_store_recover(w.store, &n));
    if (!done(err)) {
        w.lives = 0;
    }
}

static void store_ends(void)
{
    cs_store_close(w.store);
    w.store = NULL;
    (void)cs_co_yield();
    (void)cs_co_yield();
}

static void process(void)
{
    if (!store_opens()) {
        return;
    }
    w.lives = disk_any(24);
    with_writer(begin, 1);
    with_writer(NULL, AGENTS);
    store_ends();
}

/* ---- checking ---- */

static void note_check(const struct note *n)
{
    static const uint64_t least[] = {0, CS_STORE_PENDING, CS_STORE_APPROVED, CS_STORE_EXECUTING,
                                     CS_STORE_DONE};
    struct cs_store_request *r = cs_arena_alloc(&w.arena, sizeof *r);
    struct cs_slice id = cs_slice_str(n->request);
    enum cs_err err = cs_store_request_get(w.store, id, CS_SLICE_NULL, &w.arena, r);
    if (err != CS_OK) {
        CS_FAIL("seed %" PRIu64 ": an acknowledged request is gone: %s", w.seed, cs_err_name(err));
    }
    DEMAND(memcmp(r->digest, n->digest, sizeof n->digest) == 0);
    DEMAND(r->state >= least[n->told]);
    if (n->told < TOLD_CONSUMED) {
        return;
    }
    DEMAND(n->told == TOLD_DONE ? r->state == CS_STORE_DONE
                                : r->state == CS_STORE_DONE || r->state == CS_STORE_UNKNOWN);
    DEMAND(cs_id_eq(&r->grant, &n->grant));
    DEMAND(cs_store_grant_consume(w.store, id, &n->grant, &n->session, n->digest) ==
           CS_ERR_CONFLICT);
}

static void check_all(void)
{
    uint64_t n = 0;
    DEMAND(cs_store_recover(w.store, &n) == CS_OK);
    for (size_t i = 0; i < w.n_notes; i++) {
        note_check(&w.notes[i]);
        for (size_t k = i + 1; k < w.n_notes && w.notes[i].told >= TOLD_CONSUMED; k++) {
            DEMAND(w.notes[k].told < TOLD_CONSUMED ||
                   !cs_id_eq(&w.notes[i].grant, &w.notes[k].grant));
        }
    }
    cs_arena_reset(&w.arena);
}

/* ---- seeds ---- */

static uint64_t counts[CRASH_KINDS], acknowledged;

static void run_seed(uint64_t seed)
{
    disk_reset(seed);
    w.seed = seed;
    w.n_notes = 0;
    w.wall_ms = 1795000000000;
    if (disk_any(10) > 0) { /* else it is made on the way */
        disk_put("state.db", cs_slice(w.image, w.image_n));
    }
    for (int n = 1; n < LIVES && (n == 1 || disk_any(3) == 0); n++) {
        enum crash kind = (enum crash)(1 + disk_any(CRASH_KINDS - 1));
        disk_plan(kind, 1 + disk_any(disk_any(4) == 0 ? 60 : 500), 1 + disk_any(60));
        process();
        counts[kind] += disk_struck();
        disk_up(kind == CRASH_POWER || disk_any(8) == 0);
    }
    DEMAND(store_opens());
    with_writer(check_all, 1);
    store_ends();
    acknowledged += w.n_notes;
}

static uint64_t number(const char *name, uint64_t usual)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : usual;
}

/* An installation's file, for most seeds to begin with. */
static void image_make(void)
{
    const char *name;
    struct cs_slice bytes;
    disk_reset(1);
    w.wall_ms = 1795000000000;
    DEMAND(store_opens());
    with_writer(begin, 1);
    store_ends();
    for (size_t i = 0; disk_file(i, &name, &bytes); i++) {
        if (strcmp(name, "state.db") == 0) {
            DEMAND(bytes.n > 0 && bytes.n <= IMAGE);
            memcpy(w.image, bytes.p, bytes.n);
            w.image_n = bytes.n;
        }
    }
}

static void script(void *arg)
{
    (void)arg;
    uint64_t first = number("CS_CRASH_FIRST", 1), n = number("CS_CRASH_SEEDS", 500);
    image_make();
    for (uint64_t i = 0; i < n; i++) {
        run_seed(first + i);
    }
    printf("# seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " power cuts, %" PRIu64 " kills, %" PRIu64
           " errors, %" PRIu64 " full disks struck; %" PRIu64 " requests\n",
           first, first + n - 1, counts[CRASH_POWER], counts[CRASH_KILL], counts[CRASH_ERROR],
           counts[CRASH_FULL], acknowledged);
    w.ok = n < 100 || (counts[CRASH_POWER] > n / 20 && counts[CRASH_KILL] > n / 20 &&
                       counts[CRASH_ERROR] > n / 20 && counts[CRASH_FULL] > n / 20);
    cs_loop_stop(w.loop);
}

CS_TEST(wherever_the_store_goes_down_it_keeps_its_word)
{
    cs_handle co;
    alarm(0); /* meson has a limit of its own */
    CS_CHECK(getenv("CS_CRASH_LOG") != NULL || freopen("/dev/null", "w", stderr) != NULL);
    crash_vfs_use();
    cs_arena_init(&w.arena, 65536, 16 << 20);
    w.loop = cs_loop_new();
    CS_CHECK(w.loop != NULL);
    CS_EQ_U64(cs_co_spawn(w.loop, "script", script, NULL, &co), CS_OK);
    cs_loop_run(w.loop);
    CS_CHECK(w.ok);
}
