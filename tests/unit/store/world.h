/* A scratch store in a scratch directory, and a coroutine to use it from. For the unit tests of
 * store, identity, approval and control.
 *
 * world_run(body) calls body(w) in a coroutine and fails the test when something is left over. The
 * store's clock is world_now (ms), which stands still unless a test moves it. */
#ifndef CS_TEST_WORLD_H
#define CS_TEST_WORLD_H

#include "store/store.h"
#include "tap.h"

#include <dirent.h>
#include <stdatomic.h>

struct world {
    struct cs_loop *loop;
    struct cs_store *store;
    struct cs_arena arena;
    char dir[64];
    char path[96];
    void (*body)(struct world *w);
};

extern _Atomic uint64_t world_now;

#define CS_WORLD                                                                                   \
    _Atomic uint64_t world_now = 1700000000000;                                                    \
    static uint64_t world_wall(void)                                                               \
    {                                                                                              \
        return world_now;                                                                          \
    }                                                                                              \
    void world_open(struct world *w)                                                               \
    {                                                                                              \
        char why[200] = "";                                                                        \
        struct cs_store_options opt = {.wall_ms = world_wall};                                     \
        enum cs_err err = cs_store_open(w->loop, w->path, &opt, why, sizeof why, &w->store);       \
        if (err != CS_OK) {                                                                        \
            CS_FAIL("store: %s", why);                                                             \
        }                                                                                          \
    }                                                                                              \
    void world_run(void (*body)(struct world * w))                                                 \
    {                                                                                              \
        struct world w = {.body = body};                                                           \
        world_begin(&w);                                                                           \
        cs_handle co;                                                                              \
        CS_EQ_U64(cs_co_spawn(w.loop, "test", world_main, &w, &co), CS_OK);                        \
        cs_loop_run(w.loop);                                                                       \
        world_end(&w);                                                                             \
    }

void world_open(struct world *w);
void world_run(void (*body)(struct world *w));

static inline void world_begin(struct world *w)
{
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(w->dir, sizeof w->dir, "%.40s/cs-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CS_CHECK(mkdtemp(w->dir) != NULL);
    (void)snprintf(w->path, sizeof w->path, "%s/state.db", w->dir);
    w->loop = cs_loop_new();
    CS_CHECK(w->loop != NULL);
    cs_arena_init(&w->arena, 65536, (size_t)256 * 1024 * 1024);
}

static inline void world_main(void *arg)
{
    struct world *w = arg;
    world_open(w);
    w->body(w);
    cs_store_close(w->store);
    w->store = NULL;
}

static inline void world_end(struct world *w)
{
    cs_arena_done(&w->arena);
    cs_loop_free(w->loop);
    DIR *d = opendir(w->dir);
    for (const struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        char name[400];
        (void)snprintf(name, sizeof name, "%s/%s", w->dir, e->d_name);
        (void)unlink(name);
    }
    (void)closedir(d);
    (void)rmdir(w->dir);
    CS_EQ_U64(cs_alloc_live(), 0);
}

/* As a restart of the role: the file is closed and opened again. */
static inline void world_restart(struct world *w)
{
    cs_store_close(w->store);
    world_open(w);
}

static inline struct cs_slice world_text(struct world *w, const char *s)
{
    return cs_arena_dup(&w->arena, cs_slice_str(s));
}

#endif
