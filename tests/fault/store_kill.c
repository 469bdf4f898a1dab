/* kill -9 at random moments: what was acknowledged is there, and no grant is ever consumed twice.
 *
 * A child runs many agents at once: each opens a session, asks, is approved, consumes its grant. It
 * notes every acknowledgement in shared memory (which outlives it). The parent kills it, and a
 * fresh process checks every note against the file. CS_KILLS sets the number of rounds (default
 * 200).
 *
 * A killed process loses nothing that the kernel has: this is about what is in which transaction
 * and about recovery, not about the disk's cache. */
#include "store/world.h"

#include <signal.h>
#include <sys/mman.h>
#include <time.h>

enum { NOTES = 200000, AGENTS = 24 };
enum note_kind { NOTE_ASKED = 1, NOTE_APPROVED, NOTE_CONSUMED, NOTE_DONE };
struct note {
    uint32_t kind;
    char request[CS_REQUEST_ID_TEXT];
    struct cs_id grant, session;
    uint8_t digest[CS_STORE_DIGEST];
};
struct notes {
    _Atomic uint32_t n;
    uint32_t checked;
    struct note v[NOTES];
};
static struct notes *notes;

static struct cs_store_principal approver(void)
{
    struct cs_store_principal p = {.id = CS_SLICE_LIT("local:dba"),
                                   .name = CS_SLICE_LIT("dba"),
                                   .groups = CS_SLICE_LIT("dba\n"),
                                   .kind = 1,
                                   .iterations = 4096,
                                   .token_sha256 = {1}};
    return p;
}

static void note(enum note_kind kind, const struct cs_store_held *h, const struct cs_id *grant,
                 const struct cs_id *session)
{
    uint32_t at = atomic_load(&notes->n);
    if (at >= NOTES) {
        return;
    }
    struct note *n = &notes->v[at];
    n->kind = kind;
    memcpy(n->request, h->request, sizeof n->request);
    memcpy(n->digest, h->digest, sizeof n->digest);
    n->grant = *grant;
    n->session = *session;
    atomic_store(&notes->n, at + 1);
}

static struct cs_store_request ask(const struct cs_id *session, struct cs_store_rule *rule)
{
    *rule = (struct cs_store_rule){.name = CS_SLICE_LIT("change"),
                                   .title = CS_SLICE_LIT("t"),
                                   .groups = CS_SLICE_LIT("dba\n"),
                                   .quorum = 1};
    struct cs_store_request r = {.session = *session,
                                 .chain = CS_SLICE_LIT("c"),
                                 .target = CS_SLICE_LIT("orders"),
                                 .action = CS_SLICE_LIT("DROP TABLE t"),
                                 .within_ms = 900000,
                                 .valid_ms = 600000,
                                 .attach_ms = 600000,
                                 .rules = rule,
                                 .n_rules = 1};
    cs_request_id_new(r.id);
    cs_random(r.match, sizeof r.match);
    cs_random(r.digest, sizeof r.digest);
    /* An actor of its own for each: what the kills leave pending must not fill up one's share. */
    static char parties[64]; /* read before the next wait, or another's: as good */
    (void)snprintf(parties, sizeof parties, "local:alice\nlocal:bot-%s\n", r.id);
    r.parties = cs_slice_str(parties);
    return r;
}

/* One life of an agent; false when the store says no. */
static bool agent_once(struct world *w, struct cs_arena *a)
{
    static const struct cs_id none;
    struct cs_store_session s = {.id = cs_id_new(),
                                 .chain = CS_SLICE_LIT("c"),
                                 .root = CS_SLICE_LIT("local:alice"),
                                 .actor = CS_SLICE_LIT("local:bot"),
                                 .target = CS_SLICE_LIT("orders"),
                                 .address = CS_SLICE_LIT("x")};
    struct cs_store_rule rule;
    struct cs_store_request r = ask(&s.id, &rule), *got = cs_arena_alloc(a, sizeof *got);
    struct cs_store_held held;
    uint64_t state = 0;
    enum cs_store_vote_refusal refusal;
    if (cs_store_session_open(w->store, &s) != CS_OK ||
        cs_store_request_hold(w->store, &r, true, NULL, NULL, a, &held) != CS_OK) {
        return false;
    }
    note(NOTE_ASKED, &held, &none, &s.id);
    struct cs_slice id = cs_slice_str(held.request);
    if (cs_store_vote(w->store, id, CS_SLICE_LIT("local:dba"), true, held.digest, CS_SLICE_NULL,
                      &state, &refusal) != CS_OK ||
        cs_store_vote_logged(w->store, id, CS_SLICE_LIT("local:dba"), CS_SLICE_NULL, &state) !=
            CS_OK ||
        state != CS_STORE_APPROVED) {
        return false;
    }
    note(NOTE_APPROVED, &held, &none, &s.id);
    if (cs_store_request_get(w->store, id, CS_SLICE_NULL, a, got) != CS_OK ||
        cs_store_grant_consume(w->store, id, &got->grant, &s.id, held.digest) != CS_OK) {
        return false;
    }
    note(NOTE_CONSUMED, &held, &got->grant, &s.id);
    if (cs_store_grant_finish(w->store, &got->grant, &s.id, CS_STORE_DONE, CS_SLICE_LIT("DROP")) !=
        CS_OK) {
        return false;
    }
    note(NOTE_DONE, &held, &got->grant, &s.id);
    return true;
}

static void agent(void *arg)
{
    struct world *w = arg;
    struct cs_arena a;
    cs_arena_init(&a, 8192, 1 << 20);
    while (agent_once(w, &a)) {
        cs_arena_reset(&a);
    }
    _exit(3); /* nothing may fail before the kill */
}

static void child_body(struct world *w)
{
    uint64_t n = 0;
    struct cs_store_principal p = approver();
    enum cs_err err = cs_store_principal_add(w->store, &p);
    if ((err != CS_OK && err != CS_ERR_EXISTS) || cs_store_recover(w->store, &n) != CS_OK) {
        _exit(4);
    }
    cs_handle co;
    for (int i = 0; i < AGENTS; i++) {
        if (cs_co_spawn(w->loop, "agent", agent, w, &co) != CS_OK) {
            _exit(5);
        }
    }
    (void)cs_co_sleep(60 * CS_NS_PER_S);
    _exit(6);
}

/* ---- checking, in a process of its own ---- */

static uint64_t least_state(uint32_t kind)
{
    switch (kind) {
    case NOTE_ASKED:
        return CS_STORE_PENDING;
    case NOTE_APPROVED:
        return CS_STORE_APPROVED;
    case NOTE_CONSUMED:
        return CS_STORE_EXECUTING;
    default:
        return CS_STORE_DONE;
    }
}

static void note_check(struct world *w, const struct note *n, struct cs_arena *a)
{
    struct cs_store_request *r = cs_arena_alloc(a, sizeof *r);
    struct cs_slice id = cs_slice_str(n->request);
    CS_EQ_U64(cs_store_request_get(w->store, id, CS_SLICE_NULL, a, r), CS_OK);
    CS_CHECK(memcmp(r->digest, n->digest, sizeof n->digest) == 0);
    CS_CHECK(r->state >= least_state(n->kind));
    if (n->kind == NOTE_CONSUMED || n->kind == NOTE_DONE) {
        CS_CHECK(n->kind == NOTE_DONE ? r->state == CS_STORE_DONE
                                      : r->state == CS_STORE_DONE || r->state == CS_STORE_UNKNOWN);
        CS_CHECK(cs_id_eq(&r->grant, &n->grant));
        CS_EQ_U64(cs_store_grant_consume(w->store, id, &n->grant, &n->session, n->digest),
                  CS_ERR_CONFLICT);
    }
}

static void check_body(struct world *w)
{
    uint64_t n = 0;
    CS_EQ_U64(cs_store_recover(w->store, &n), CS_OK);
    struct cs_arena a;
    cs_arena_init(&a, 8192, 1 << 20);
    for (uint32_t i = notes->checked; i < atomic_load(&notes->n); i++) {
        note_check(w, &notes->v[i], &a);
        cs_arena_reset(&a);
    }
    notes->checked = atomic_load(&notes->n);
    cs_arena_done(&a);
}

static void body_start(void *arg)
{
    struct world *w = arg;
    world_open(w);
    w->body(w);
    cs_store_close(w->store);
}

static void process(const char *path, void (*body)(struct world *w))
{
    struct world w = {.body = body};
    (void)snprintf(w.path, sizeof w.path, "%s", path);
    w.loop = cs_loop_new();
    cs_handle co;
    if (w.loop == NULL || cs_co_spawn(w.loop, "body", body_start, &w, &co) != CS_OK) {
        _exit(7);
    }
    cs_loop_run(w.loop);
    cs_loop_free(w.loop);
    _exit(0);
}

static pid_t start(const char *path, void (*body)(struct world *w))
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        process(path, body);
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status = 0;
    CS_CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static bool no_grant_twice(void)
{
    uint32_t n = atomic_load(&notes->n);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = i + 1; notes->v[i].kind == NOTE_CONSUMED && j < n; j++) {
            if (notes->v[j].kind == NOTE_CONSUMED &&
                cs_id_eq(&notes->v[i].grant, &notes->v[j].grant)) {
                return false;
            }
        }
    }
    return true;
}

CS_TEST(killed_at_any_moment_it_keeps_its_word)
{
    const char *kills = getenv("CS_KILLS");
    unsigned long rounds = kills != NULL ? strtoul(kills, NULL, 10) : 200;
    alarm(280);
    struct world w = {.body = NULL};
    world_begin(&w);
    notes = mmap(NULL, sizeof *notes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CS_CHECK(notes != MAP_FAILED);
    /* On a machine that is busy with other things they get longer, and more of them. */
    unsigned long most = rounds < 20 ? rounds : 4 * rounds;
    unsigned long killed = 0;
    for (unsigned long i = 0; i < most && (i < rounds || atomic_load(&notes->n) <= 100); i++) {
        pid_t pid = start(w.path, child_body);
        uint16_t r;
        cs_random(&r, sizeof r);
        struct timespec t = {0, 2000000 + (r % 60000) * (i < rounds ? 1000L : 4000L)};
        (void)nanosleep(&t, NULL);
        (void)kill(pid, SIGKILL);
        int status = wait_for(pid);
        CS_CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        /* Half of the time the next child finds what the kill left, without a check between. */
        if (i % 2 == 1 || i + 1 == rounds) {
            CS_EQ_U64(wait_for(start(w.path, check_body)), 0);
        }
        killed++;
    }
    CS_EQ_U64(wait_for(start(w.path, check_body)), 0);
    printf("# %lu kills, %u acknowledgements\n", killed, (unsigned)atomic_load(&notes->n));
    CS_CHECK(rounds < 20 || atomic_load(&notes->n) > 100);
    CS_CHECK(no_grant_twice());
    world_end(&w);
}
