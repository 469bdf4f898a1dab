/* Principals, secrets, sessions; group commit; waiters that are cancelled; lack of memory. */
#include "store/world.h"

#include <sys/stat.h>

static struct cs_store_principal principal(struct world *w, const char *name, uint64_t kind,
                                           const char *owner, const char *groups)
{
    struct cs_store_principal p = {.kind = kind, .iterations = 4096};
    p.id = cs_arena_printf(&w->arena, "local:%s", name);
    p.name = world_text(w, name);
    p.owner = world_text(w, owner);
    p.groups = world_text(w, groups);
    cs_random(p.token_sha256, sizeof p.token_sha256);
    memset(p.salt, 7, sizeof p.salt);
    return p;
}

static void principals(struct world *w)
{
    struct cs_store_principal alice = principal(w, "alice", 1, "", "dba\nops\n"), got, *list;
    struct cs_store_principal bot = principal(w, "bot", 2, "local:alice", "agents\n");
    struct cs_store_principal orphan = principal(w, "orphan", 2, "local:nobody", "");
    struct cs_store_principal of_bot = principal(w, "sub", 2, "local:bot", "");
    size_t n = 0;
    CS_EQ_U64(cs_store_principal_add(w->store, &alice), CS_OK);
    CS_EQ_U64(cs_store_principal_add(w->store, &alice), CS_ERR_EXISTS);
    CS_EQ_U64(cs_store_principal_add(w->store, &bot), CS_OK);
    CS_EQ_U64(cs_store_principal_add(w->store, &orphan), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_store_principal_add(w->store, &of_bot), CS_ERR_CONFLICT);
    world_restart(w);
    CS_EQ_U64(cs_store_principal_get(w->store, alice.id, &w->arena, &got), CS_OK);
    CS_EQ_STR(got.groups, "dba\nops\n");
    CS_EQ_U64(got.created_ms, world_now);
    CS_CHECK(memcmp(got.salt, alice.salt, sizeof got.salt) == 0);
    CS_EQ_U64(cs_store_principal_by_token(w->store, bot.token_sha256, &w->arena, &got), CS_OK);
    CS_EQ_STR(got.owner, "local:alice");
    CS_EQ_U64(cs_store_principal_get(w->store, CS_SLICE_LIT("local:x"), &w->arena, &got),
              CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_principal_get(w->store, CS_SLICE_NULL, &w->arena, &got), CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_principal_set_groups(w->store, alice.id, CS_SLICE_LIT("x\n")), CS_OK);
    CS_EQ_U64(cs_store_principal_set_groups(w->store, CS_SLICE_LIT("local:x"), CS_SLICE_LIT("x\n")),
              CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_principal_disable(w->store, alice.id), CS_OK);
    uint64_t first = world_now;
    world_now += 1000;
    CS_EQ_U64(cs_store_principal_disable(w->store, alice.id), CS_OK);
    CS_EQ_U64(cs_store_principal_disable(w->store, CS_SLICE_LIT("local:x")), CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_principal_list(w->store, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 2);
    CS_EQ_STR(list[0].groups, "x\n");
    CS_EQ_U64(list[0].disabled_ms, first);
    CS_EQ_U64(list[0].token_sha256[0] | list[0].salt[0], 0);
    struct cs_store_principal late = principal(w, "late", 2, "local:alice", "");
    CS_EQ_U64(cs_store_principal_add(w->store, &late), CS_ERR_CONFLICT);
}
CS_TEST(principals_are_kept_with_their_rules)
{
    world_run(principals);
}

static void token_renewed(struct world *w)
{
    struct cs_store_principal p = principal(w, "alice", 1, "", ""), got, other = p;
    CS_EQ_U64(cs_store_principal_add(w->store, &p), CS_OK);
    cs_random(other.token_sha256, sizeof other.token_sha256);
    CS_EQ_U64(cs_store_principal_set_token(w->store, &other), CS_OK);
    CS_EQ_U64(cs_store_principal_by_token(w->store, p.token_sha256, &w->arena, &got),
              CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_principal_by_token(w->store, other.token_sha256, &w->arena, &got), CS_OK);
}
CS_TEST(a_new_token_voids_the_old_one)
{
    world_run(token_renewed);
}

static void secrets(struct world *w)
{
    struct cs_slice name = CS_SLICE_LIT("orders-ro");
    struct cs_store_secret got, *list;
    size_t n = 0;
    CS_EQ_U64(cs_store_secret_get(w->store, name, &w->arena, &got), CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_secret_put(w->store, name, 2, CS_SLICE_LIT("x")), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_store_secret_put(w->store, name, 1, CS_SLICE_LIT("a\0b")), CS_OK);
    CS_EQ_U64(cs_store_secret_put(w->store, name, 1, CS_SLICE_LIT("x")), CS_ERR_CONFLICT);
    CS_EQ_U64(cs_store_secret_put(w->store, name, 2, CS_SLICE_LIT("second")), CS_OK);
    CS_EQ_U64(cs_store_secret_get(w->store, name, &w->arena, &got), CS_OK);
    CS_EQ_STR(got.box, "second");
    CS_EQ_U64(got.version, 2);
    CS_EQ_U64(cs_store_secret_list(w->store, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 1);
    CS_EQ_U64(list[0].box.n, 0);
}
CS_TEST(a_secret_changes_by_one_version_at_a_time)
{
    world_run(secrets);
}

static struct cs_store_session session(void)
{
    return (struct cs_store_session){.id = cs_id_new(),
                                     .chain = CS_SLICE_LIT("\1"),
                                     .root = CS_SLICE_LIT("local:alice"),
                                     .actor = CS_SLICE_LIT("local:bot"),
                                     .target = CS_SLICE_LIT("orders"),
                                     .address = CS_SLICE_LIT("10.0.0.1:1"),
                                     .gate = 3};
}

static void sessions(struct world *w)
{
    struct cs_store_session one = session(), two = session(), zero = session(), got, *list;
    struct cs_store_session_query q = {.closed_too = false};
    size_t n = 0;
    uint64_t closed = 0;
    zero.id = (struct cs_id){{0}};
    CS_EQ_U64(cs_store_session_open(w->store, &zero), CS_ERR_INVALID);
    CS_EQ_U64(cs_store_session_open(w->store, &one), CS_OK);
    CS_EQ_U64(cs_store_session_open(w->store, &one), CS_ERR_EXISTS);
    world_now += 5;
    two.root = two.actor = CS_SLICE_LIT("local:eve");
    CS_EQ_U64(cs_store_session_open(w->store, &two), CS_OK);
    CS_EQ_U64(cs_store_session_update(w->store, &one.id, CS_SLICE_LIT("db"), CS_SLICE_LIT("psql")),
              CS_OK);
    CS_EQ_U64(cs_store_session_update(w->store, &zero.id, CS_SLICE_LIT("d"), CS_SLICE_LIT("a")),
              CS_ERR_NOT_FOUND);
    CS_EQ_U64(cs_store_session_list(w->store, &q, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 2);
    CS_EQ_STR(list[0].root, "local:eve");
    CS_EQ_U64(cs_store_session_close(w->store, &two.id, CS_SLICE_LIT("client left")), CS_OK);
    CS_EQ_U64(cs_store_session_close(w->store, &two.id, CS_SLICE_LIT("again")), CS_OK);
    CS_EQ_U64(cs_store_session_list(w->store, &q, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 1);
    q.closed_too = true;
    q.principal = CS_SLICE_LIT("local:bot");
    CS_EQ_U64(cs_store_session_list(w->store, &q, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 1);
    CS_EQ_STR(list[0].database, "db");
    CS_EQ_U64(cs_store_session_get(w->store, &two.id, &w->arena, &got), CS_OK);
    CS_EQ_STR(got.why, "client left");
    CS_EQ_U64(cs_store_sessions_close_gate(w->store, 4, CS_SLICE_LIT("gate died"), &closed), CS_OK);
    CS_EQ_U64(closed, 0);
    CS_EQ_U64(cs_store_sessions_close_gate(w->store, 3, CS_SLICE_LIT("gate died"), &closed), CS_OK);
    CS_EQ_U64(closed, 1);
}
CS_TEST(sessions_are_listed_and_closed)
{
    world_run(sessions);
}

static void recovered(struct world *w)
{
    struct cs_store_session one = session(), got;
    uint64_t n = 0;
    CS_EQ_U64(cs_store_session_open(w->store, &one), CS_OK);
    world_restart(w);
    CS_EQ_U64(cs_store_recover(w->store, &n), CS_OK);
    CS_EQ_U64(n, 1);
    CS_EQ_U64(cs_store_session_get(w->store, &one.id, &w->arena, &got), CS_OK);
    CS_EQ_STR(got.why, "gateway restarted");
}
CS_TEST(a_restart_closes_every_session)
{
    world_run(recovered);
}

/* ---- many at once ---- */

struct crowd {
    struct world *w;
    int left, ok, cancelled;
};
static struct crowd crowd;

static void put_one(void *arg)
{
    char name[32];
    (void)snprintf(name, sizeof name, "n%zu", (size_t)(uintptr_t)arg);
    enum cs_err err =
        cs_store_secret_put(crowd.w->store, cs_slice_str(name), 1, CS_SLICE_LIT("box"));
    crowd.ok += err == CS_OK;
    crowd.cancelled += err == CS_ERR_CANCELLED;
    crowd.left--;
}

static void crowd_start(struct world *w, size_t n, cs_handle *handles)
{
    crowd = (struct crowd){.w = w, .left = (int)n};
    for (size_t i = 0; i < n; i++) {
        CS_EQ_U64(cs_co_spawn(w->loop, "put", put_one, (void *)(uintptr_t)i, &handles[i]), CS_OK);
    }
}

static void group_commit(struct world *w)
{
    static cs_handle handles[500];
    struct cs_store_stats before = cs_store_stats(w->store);
    crowd_start(w, 500, handles);
    while (crowd.left > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    struct cs_store_stats after = cs_store_stats(w->store);
    CS_EQ_U64(crowd.ok, 500);
    CS_EQ_U64(after.operations - before.operations, 500);
    CS_CHECK(after.commits - before.commits < 100);
    CS_CHECK(after.batch_max > 5);
}
CS_TEST(operations_that_wait_together_share_commits)
{
    world_run(group_commit);
}

static void one_fails(struct world *w)
{
    static cs_handle handles[50];
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("n7"), 1, CS_SLICE_LIT("x")), CS_OK);
    crowd_start(w, 50, handles);
    while (crowd.left > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    CS_EQ_U64(crowd.ok, 49); /* n7 is there already: it alone is refused */
}
CS_TEST(a_refused_operation_does_not_take_its_batch_along)
{
    world_run(one_fails);
}

static void cancelled_waiters(struct world *w)
{
    static cs_handle handles[200];
    struct cs_store_secret *list;
    size_t n = 0;
    crowd_start(w, 200, handles);
    CS_CHECK(cs_co_yield()); /* they have queued their operations */
    for (size_t i = 0; i < 200; i += 2) {
        cs_co_cancel(w->loop, handles[i]);
    }
    while (crowd.left > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    CS_EQ_U64(crowd.ok + crowd.cancelled, 200);
    CS_CHECK(crowd.cancelled > 0);
    CS_EQ_U64(cs_store_secret_list(w->store, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 200); /* queued is done, whoever waits */
}
CS_TEST(a_cancelled_waiter_leaves_the_operation_whole)
{
    world_run(cancelled_waiters);
}

static void closing(struct world *w)
{
    static cs_handle handles[20];
    crowd_start(w, 20, handles);
    CS_CHECK(cs_co_yield());
    cs_store_close(w->store);
    while (crowd.left > 0) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
    CS_EQ_U64(crowd.ok, 20);
    world_open(w);
    struct cs_store_secret *list;
    size_t n = 0;
    CS_EQ_U64(cs_store_secret_list(w->store, &w->arena, &list, &n), CS_OK);
    CS_EQ_U64(n, 20);
}
CS_TEST(closing_answers_what_was_queued)
{
    world_run(closing);
}

static void memory(struct world *w)
{
    struct cs_store_principal p = principal(w, "alice", 1, "", "a\nb\n"), got;
    bool done = false;
    CS_OOM_LOOP(done)
    {
        enum cs_err err = cs_store_principal_add(w->store, &p);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
    }
    done = false;
    CS_OOM_LOOP(done)
    {
        struct cs_arena a;
        cs_arena_init(&a, 64, 65536);
        enum cs_err err = cs_store_principal_get(w->store, p.id, &a, &got);
        CS_CHECK(err == CS_OK || err == CS_ERR_NO_MEMORY);
        done = err == CS_OK;
        cs_arena_done(&a);
    }
    CS_CHECK(done);
}
CS_TEST(a_lack_of_memory_is_an_error_and_nothing_else)
{
    world_run(memory);
}

/* ---- a copy while it is in use ---- */

static void backs_up(struct world *w)
{
    const char *path = "";
    char copy[160], why[200] = "";
    struct stat st;
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("one"), 1, CS_SLICE_LIT("box")), CS_OK);
    CS_EQ_U64(cs_store_backup(w->store, &path), CS_OK);
    CS_CHECK(strncmp(path, w->path, strlen(w->path)) == 0 && stat(path, &st) == 0);
    CS_EQ_U64(st.st_mode & 0777, 0600);
    (void)snprintf(copy, sizeof copy, "%s", path);
    /* The next one replaces it, with what came meanwhile. */
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("two"), 1, CS_SLICE_LIT("box")), CS_OK);
    CS_EQ_U64(cs_store_backup(w->store, &path), CS_OK);
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("three"), 1, CS_SLICE_LIT("box")), CS_OK);
    struct cs_store *other = NULL;
    struct cs_store_secret got;
    CS_EQ_U64(cs_store_open(w->loop, copy, NULL, why, sizeof why, &other), CS_OK);
    CS_EQ_U64(cs_store_secret_get(other, CS_SLICE_LIT("two"), &w->arena, &got), CS_OK);
    CS_EQ_U64(cs_store_secret_get(other, CS_SLICE_LIT("three"), &w->arena, &got), CS_ERR_NOT_FOUND);
    cs_store_close(other);
    (void)unlink(copy);
    (void)snprintf(copy, sizeof copy, "%s.backup.lock", w->path);
    (void)unlink(copy);
}

CS_TEST(a_backup_is_a_store_of_its_own)
{
    world_run(backs_up);
}

static void changes_meanwhile(struct world *w)
{
    static uint8_t box[3000];
    char name[32], why[200] = "";
    const char *path = "";
    struct cs_store *other = NULL;
    struct cs_store_secret got;
    for (unsigned i = 0; i < 600; i++) { /* more pages than one turn copies */
        (void)snprintf(name, sizeof name, "s%u", i);
        CS_EQ_U64(cs_store_secret_put(w->store, cs_slice_str(name), 1, cs_slice(box, sizeof box)),
                  CS_OK);
    }
    CS_EQ_U64(cs_store_backup(w->store, &path), CS_OK);
    char copy[160];
    (void)snprintf(copy, sizeof copy, "%s", path);
    CS_EQ_U64(cs_store_open(w->loop, copy, NULL, why, sizeof why, &other), CS_OK);
    CS_EQ_U64(cs_store_secret_get(other, CS_SLICE_LIT("s599"), &w->arena, &got), CS_OK);
    cs_store_close(other);
    (void)unlink(copy);
    (void)snprintf(copy, sizeof copy, "%s.backup.lock", w->path);
    (void)unlink(copy);
}

CS_TEST(a_backup_of_many_pages_is_whole)
{
    world_run(changes_meanwhile);
}

static void cannot_be_made(struct world *w)
{
    const char *path = "untouched";
    char dir[160];
    (void)snprintf(dir, sizeof dir, "%s.backup", w->path);
    CS_CHECK(mkdir(dir, 0700) == 0); /* in the way, and not for us to remove */
    CS_EQ_U64(cs_store_backup(w->store, &path), CS_ERR_IO);
    CS_CHECK(strcmp(path, "untouched") == 0 && !cs_store_failure(w->store)->set);
    CS_CHECK(rmdir(dir) == 0);
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("one"), 1, CS_SLICE_LIT("box")), CS_OK);
    CS_EQ_U64(cs_store_touch(w->store), CS_OK);
    CS_EQ_U64(cs_store_touch(w->store), CS_OK);
}

CS_TEST(a_backup_that_cannot_be_made_harms_nothing)
{
    world_run(cannot_be_made);
}
