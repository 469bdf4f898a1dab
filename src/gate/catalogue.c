/* The targets' catalogues in a gate: what control sends, how fresh each is, and which one an action
 * is judged by. Called by role.c and, through protocol.h, by the protocol folders.
 *
 * SECURITY: a catalogue makes a text opaque whenever it says so, and harmless only while nothing
 * can have changed under it: it is younger than a limit, it was asked for after the last definition
 * changed here, no transaction that changes one is open, and the session's path is the pinned one.
 */
#include "sql/catalogue.h"
#include "base/alloc.h"
#include "base/limits.h"
#include "base/log.h"
#include "gate/gate.h"
#include "gate/protocol.h"

struct cs_gate_catalogue {
    struct cs_gate_catalogue *next;
    struct cs_slice map; /* owned, sealed memory */
    struct cs_arena arena;
    struct cs_catalogue catalogue;
    bool have;        /* false: only what is below is known */
    uint64_t taken;   /* monotonic ns */
    uint64_t changed; /* monotonic ns: a definition changed then, at the latest */
    uint64_t wanted;  /* when control was last asked for a newer one */
    unsigned open;    /* transactions that may be changing definitions */
    char target[64], address[320], database[128];
};

#define LEAST_NS (CS_LIMIT_CATALOGUE_LEAST_MS * CS_NS_PER_MS)
#define LOST_NS  (60 * CS_NS_PER_S)
#define WATCH_NS (CS_LIMIT_CATALOGUE_HELD_S * CS_NS_PER_S)
#define AGE_NS   (CS_LIMIT_CATALOGUE_AGE_S * CS_NS_PER_S)

static bool keep_text(char *out, size_t size, struct cs_slice s)
{
    if (s.n >= size) {
        return false;
    }
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return true;
}

static struct cs_gate_catalogue *by_target(struct cs_gate *g, struct cs_slice target)
{
    struct cs_gate_catalogue *k = g->catalogues;
    while (k != NULL && !cs_slice_eq_str(target, k->target)) {
        k = k->next;
    }
    return k;
}

/* The session's own, if it is of the server that its target is now. Made empty where there is none:
 * it remembers what changed. NULL: no target, or no memory. */
static struct cs_gate_catalogue *of_session(struct cs_session *s)
{
    struct cs_gate *g = s->gate;
    const struct cs_target *t = s->target;
    if (t == NULL) {
        return NULL;
    }
    struct cs_gate_catalogue *k = by_target(g, t->name);
    if (k == NULL) {
        k = cs_alloc(sizeof *k);
        if (k == NULL || !keep_text(k->target, sizeof k->target, t->name)) {
            cs_free(k);
            return NULL;
        }
        k->next = g->catalogues;
        g->catalogues = k;
    }
    return k;
}

static void unload(struct cs_gate_catalogue *k)
{
    if (k->have) {
        cs_arena_done(&k->arena);
        cs_sealed_unmap(k->map);
        k->have = false;
    }
}

void cs_gate_catalogues_free(struct cs_gate *g)
{
    while (g->catalogues != NULL) {
        struct cs_gate_catalogue *k = g->catalogues;
        g->catalogues = k->next;
        unload(k);
        cs_free(k);
    }
}

/* ---- from control ---- */

static enum cs_err load(struct cs_gate_catalogue *k, int fd)
{
    struct cs_slice map = CS_SLICE_NULL;
    struct cs_arena arena;
    struct cs_catalogue c;
    enum cs_err e = cs_sealed_map(fd, CS_LIMIT_PROBE_RESULT_BYTES, &map);
    if (e != CS_OK) {
        return e;
    }
    cs_arena_init(&arena, 64 * 1024, 64 * 1024 * 1024);
    e = cs_catalogue_read(map, &arena, &c);
    if (e != CS_OK) {
        cs_arena_done(&arena);
        cs_sealed_unmap(map);
        return e;
    }
    unload(k);
    k->map = map;
    k->arena = arena;
    k->catalogue = c;
    k->have = true;
    return CS_OK;
}

void cs_gate_catalogue_new(struct cs_gate *g, const struct cs_msg_catalogue *m, int fd)
{
    struct cs_gate_catalogue *k = by_target(g, m->target), *made = NULL;
    enum cs_err e = CS_ERR_INVALID;
    if (k == NULL) {
        k = made = cs_alloc(sizeof *k);
    }
    if (k != NULL && keep_text(k->target, sizeof k->target, m->target) &&
        keep_text(k->address, sizeof k->address, m->address) &&
        keep_text(k->database, sizeof k->database, m->database)) {
        e = load(k, fd);
    }
    if (e == CS_OK) {
        k->taken = m->taken;
        g->catalogue_generation++; /* memos of prepared statements ask again */
    }
    if (e == CS_OK && made != NULL) {
        k->next = g->catalogues;
        g->catalogues = k;
    } else if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "catalogue=%s error=%s", cs_log_quote(m->target).text,
               cs_err_name(e));
        if (made == NULL && k != NULL) {
            unload(k);
            g->catalogue_generation++;
        }
        cs_free(made);
    }
}

static void mark_changed(struct cs_gate *g, struct cs_gate_catalogue *k)
{
    k->changed = cs_mono_ns();
    g->catalogue_generation++;
}

void cs_gate_catalogue_old(struct cs_gate *g, struct cs_slice target)
{
    struct cs_gate_catalogue *k = by_target(g, target);
    if (k != NULL) {
        mark_changed(g, k);
    }
}

static void want(struct cs_gate *g, struct cs_gate_catalogue *k, bool changed)
{
    uint64_t now = cs_mono_ns();
    struct cs_msg_catalogue_wanted m = {.target = cs_slice_str(k->target),
                                        .changed = changed ? 1 : 0};
    if (g->control == NULL || (!changed && k->wanted != 0 && now - k->wanted < LEAST_NS)) {
        return;
    }
    k->wanted = now;
    (void)!cs_channel_send(g->control, CS_MSG_CATALOGUE_WANTED, 0, &m, NULL, 0);
}

/* ---- judging ---- */

static bool remembered(const struct cs_session *s, const struct cs_memo *m)
{
    return m != NULL && m->has_judged && m->judged_generation == s->policy_generation &&
           m->judged_catalogue == s->gate->catalogue_generation;
}

/* Not where something is unknown, which asks for a newer catalogue each time, and not where a fresh
 * one could narrow, because freshness ends with time. */
static void remember(const struct cs_session *s, const struct cs_sql_class *class,
                     const struct cs_sql_judged *j, struct cs_memo *m)
{
    if (m == NULL || j->unknown || j->narrowed || class->by_strangers) {
        return;
    }
    m->has_judged = true;
    m->judged = *j;
    m->judged_generation = s->policy_generation;
    m->judged_catalogue = s->gate->catalogue_generation;
}

static bool is_ours(const struct cs_session *s, const struct cs_gate_catalogue *k)
{
    return k != NULL && k->have && cs_slice_eq_str(s->target->address, k->address) &&
           cs_slice_eq_str(s->target->database, k->database);
}

/* May it make anything harmless that is not so by itself? */
static bool is_fresh(const struct cs_session *s, const struct cs_gate_catalogue *k)
{
    return k->open == 0 && !s->defined && k->taken > k->changed && cs_mono_ns() - k->taken < AGE_NS;
}

bool cs_gate_literals_run(struct cs_session *s)
{
    const struct cs_gate_catalogue *k = of_session(s);
    return !is_ours(s, k) || !is_fresh(s, k) || k->catalogue.types_run;
}

void cs_gate_judge(struct cs_session *s, const struct cs_sql_class *class, const uint32_t *types,
                   size_t n_types, struct cs_memo *memo, struct cs_sql_judged *ret)
{
    struct cs_gate *g = s->gate;
    if (remembered(s, memo)) {
        *ret = memo->judged;
        return;
    }
    struct cs_gate_catalogue *k = of_session(s);
    if (!is_ours(s, k)) {
        cs_sql_judge(class, NULL, false, ret);
        cs_sql_judge_types(types, n_types, NULL, false, ret);
        if (k != NULL) {
            want(g, k, false);
        }
        return;
    }
    bool fresh = is_fresh(s, k);
    cs_sql_judge(class, &k->catalogue, fresh, ret);
    cs_sql_judge_types(types, n_types, &k->catalogue, fresh, ret);
    if (ret->unknown) {
        want(g, k, false);
    }
    remember(s, class, ret, memo);
}

struct cs_slice cs_gate_definitions(struct cs_session *s, const struct cs_sql_class *class,
                                    struct cs_sql_judged *ret)
{
    const struct cs_gate_catalogue *k = of_session(s);
    bool ours = is_ours(s, k);
    cs_sql_judge(class, ours ? &k->catalogue : NULL, true, ret);
    return ours && k->catalogue.printed && (ret->effects & CS_SQL_OPAQUE) != 0
               ? cs_slice(k->catalogue.print, sizeof k->catalogue.print)
               : CS_SLICE_NULL;
}

void cs_gate_definitions_watch(struct cs_session *s)
{
    struct cs_gate_catalogue *k = of_session(s);
    if (k != NULL && cs_mono_ns() - CS_MAX(k->taken, k->wanted) >= WATCH_NS) {
        want(s->gate, k, false);
    }
}

/* ---- definitions that change ---- */

void cs_gate_defining(struct cs_session *s, bool elsewhere)
{
    struct cs_gate_catalogue *k = of_session(s);
    s->defined = s->defined || !elsewhere; /* its path, its temporary things: narrow no more */
    if (k != NULL && !s->defining) {
        s->defining = true;
        k->open++;
        s->gate->catalogue_generation++;
    }
}

static void end(struct cs_session *s, uint64_t later_ns)
{
    if (!s->defining) {
        return;
    }
    s->defining = false;
    struct cs_gate_catalogue *k = by_target(s->gate, s->target_name);
    if (k != NULL && k->open > 0) {
        k->open--;
        mark_changed(s->gate, k);
        k->changed += later_ns;
        want(s->gate, k, true);
    }
}

void cs_gate_defined(struct cs_session *s)
{
    end(s, 0);
}

void cs_gate_define_lost(struct cs_session *s)
{
    end(s, LOST_NS);
}
