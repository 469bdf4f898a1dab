/* Checks of targets: asked of probe, judged by check/, and the last result of each kept for doctor.
 * Called by api_check.c, and by itself: whoever asks for the status starts a look at the targets
 * whose result is old, and never waits for it.
 *
 * What a target answers is shown to people and changes nothing here: no right, no decision. */
#include "control/check.h"

#include "base/alloc.h"
#include "base/log.h"
#include "base/time.h"
#include "check/check.h"
#include "ipc/ipc.h"

#include <stdio.h>

enum {
    ARENA_CHUNK = 65536,
    ARENA_MAX = 32 * 1024 * 1024,
    OLD_MS = 15 * 60 * 1000, /* then doctor has it looked at again */
    FAILED_OLD_MS = 30 * 1000,
    WORST = 8 /* findings that doctor is told */
};

/* The last result for a target. */
struct cs_ctl_check {
    struct cs_ctl_check *next;
    uint64_t at_ms, policy; /* policy: the version it was judged by */
    bool failed;
    json_t *summary; /* owned */
    size_t name_n;
    uint8_t name[];
};

/* ---- as JSON ---- */

static json_t *finding_json(const struct cs_check_finding *f, struct cs_arena *a)
{
    const struct cs_check *c = f->check;
    json_t *o = json_object();
    bool ok = cs_json_put(o, "id", json_string(c->id)) &&
              cs_json_put(o, "severity", json_string(cs_check_severity_name(c->severity))) &&
              cs_json_put(o, "title", json_string(c->title)) &&
              cs_json_put(o, "details", cs_json_list(f->details, f->n_details, a)) &&
              cs_json_put(o, "more", json_boolean(f->more)) &&
              cs_json_put(o, "means", json_string(c->means)) &&
              cs_json_put(o, "fix", cs_json_text(f->fix, a));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *findings_json(const struct cs_check_result *r, struct cs_arena *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_findings && list != NULL; i++) {
        if (json_array_append_new(list, finding_json(&r->findings[i], a)) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *unseen_json(const struct cs_check_result *r, struct cs_arena *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n_unseen && list != NULL; i++) {
        const struct cs_check_unseen *u = &r->unseen[i];
        json_t *o = json_object();
        bool ok = cs_json_put(o, "id", json_string(u->check->id)) &&
                  cs_json_put(o, "title", json_string(u->check->title)) &&
                  cs_json_put(o, "required", json_boolean(u->check->how != CS_CHECK_OPTIONAL)) &&
                  cs_json_put(o, "why", cs_json_text(u->why, a));
        if (json_array_append_new(list, o) != 0 || !ok) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static bool put_counts(json_t *o, const struct cs_check_result *r)
{
    return cs_json_put(o, "serious", json_integer((json_int_t)r->count[CS_CHECK_SERIOUS])) &&
           cs_json_put(o, "warnings", json_integer((json_int_t)r->count[CS_CHECK_WARNING])) &&
           cs_json_put(o, "notes", json_integer((json_int_t)r->count[CS_CHECK_NOTE])) &&
           cs_json_put(o, "failed", json_integer((json_int_t)r->failed));
}

static json_t *certificate_json(const struct cs_check_result *r, struct cs_arena *a)
{
    json_t *o = json_object();
    bool ok = cs_json_put(o, "subject", cs_json_text(r->certificate, a)) &&
              cs_json_put(o, "until", cs_json_time(r->certificate_until_ms));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static json_t *result_json(const struct cs_target *t, const struct cs_check_result *r,
                           struct cs_arena *a)
{
    json_t *o = json_object();
    bool ok =
        cs_json_put(o, "target", cs_json_text(t->name, a)) &&
        cs_json_put(o, "address", cs_json_text(t->address, a)) &&
        cs_json_put(o, "database", cs_json_text(t->database, a)) &&
        cs_json_put(o, "everyday", cs_json_text(t->user, a)) &&
        cs_json_put(o, "elevated",
                    t->has_elevated ? cs_json_text(t->elevated_user, a) : json_null()) &&
        cs_json_put(o, "probe", t->has_probe ? cs_json_text(t->probe_user, a) : json_null()) &&
        cs_json_put(o, "tls", cs_json_text(t->tls, a)) &&
        cs_json_put(o, "certificate",
                    r->certificate.n > 0 ? certificate_json(r, a) : json_null()) &&
        cs_json_put(o, "at", cs_json_time(cs_wall_ms())) &&
        cs_json_put(o, "made", json_integer((json_int_t)(cs_check_count() - r->n_unseen))) &&
        put_counts(o, r) && cs_json_put(o, "findings", findings_json(r, a)) &&
        cs_json_put(o, "not_seen", unseen_json(r, a));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ---- what doctor is told ---- */

static json_t *summary_of(const struct cs_check_result *r)
{
    json_t *o = json_object(), *worst = json_array();
    bool ok = o != NULL && worst != NULL && put_counts(o, r);
    for (size_t i = 0; ok && i < r->n_findings && i < WORST; i++) {
        const struct cs_check *c = r->findings[i].check;
        json_t *w = json_pack("{s:s,s:s,s:s}", "id", c->id, "severity",
                              cs_check_severity_name(c->severity), "title", c->title);
        ok = c->severity == CS_CHECK_NOTE ? (json_decref(w), true)
                                          : json_array_append_new(worst, w) == 0;
    }
    ok = cs_json_put(o, "worst", worst) && ok;
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static struct cs_ctl_check **place_of(struct cs_control *c, struct cs_slice name)
{
    struct cs_ctl_check **at = &c->checks;
    while (*at != NULL && !cs_slice_eq(cs_slice((*at)->name, (*at)->name_n), name)) {
        at = &(*at)->next;
    }
    return at;
}

/* Takes over `summary`. Without memory the old one stays: its age says so. */
static void remember(struct cs_control *c, struct cs_slice name, json_t *summary)
{
    struct cs_ctl_check **at = place_of(c, name), *k = *at;
    if (k == NULL && summary != NULL) {
        k = cs_alloc(sizeof *k + name.n);
        if (k != NULL) {
            *k = (struct cs_ctl_check){.name_n = name.n};
            memcpy(k->name, name.p, name.n);
            *at = k;
        }
    }
    if (k == NULL || summary == NULL) {
        json_decref(summary);
        return;
    }
    json_decref(k->summary);
    k->summary = summary;
    k->at_ms = cs_wall_ms();
    k->failed = json_object_get(summary, "error") != NULL;
    k->policy = cs_policy_version(c->view->policy);
}

/* ---- one look ---- */

static enum cs_err judge(struct cs_control *c, struct cs_slice name, struct cs_slice rows,
                         struct cs_arena *a, json_t **ret, char *why, size_t why_size)
{
    struct cs_check_result r;
    const struct cs_target *t = cs_policy_target(c->view->policy, name); /* no wait from here on */
    if (t == NULL) {
        (void)snprintf(why, why_size, "there is no such target any more");
        return CS_ERR_NOT_FOUND;
    }
    enum cs_err e = cs_check_evaluate(c->view->policy, t, rows, cs_wall_ms(), a, &r);
    if (e != CS_OK) {
        (void)snprintf(why, why_size, "%s", cs_err_text(e));
        return e;
    }
    cs_log(CS_EV_TARGET_CHECKED, NULL, "target=%s serious=%zu warnings=%zu notes=%zu failed=%zu",
           cs_log_quote(name).text, r.count[CS_CHECK_SERIOUS], r.count[CS_CHECK_WARNING],
           r.count[CS_CHECK_NOTE], r.failed);
    remember(c, name, summary_of(&r));
    if (ret != NULL) {
        *ret = result_json(t, &r, a);
        return *ret != NULL ? CS_OK : CS_ERR_NO_MEMORY;
    }
    return CS_OK;
}

enum cs_err cs_ctl_check_run(struct cs_control *c, struct cs_slice name, struct cs_arena *a,
                             json_t **ret, char *why, size_t why_size)
{
    struct cs_slice rows = CS_SLICE_NULL;
    enum cs_err e =
        cs_probe_ask(c, name, CS_PROBE_CHECK, CS_SLICE_NULL, CS_SLICE_NULL, &rows, why, why_size);
    if (e == CS_OK) {
        e = judge(c, name, rows, a, ret, why, why_size);
        cs_sealed_unmap(rows);
    } else if (e != CS_ERR_CANCELLED && cs_policy_target(c->view->policy, name) != NULL) {
        struct cs_slice text = cs_slice_str(why);
        remember(c, name, json_pack("{s:o}", "error", cs_json_text(text, a)));
    }
    return e;
}

/* ---- looking again, behind the back of whoever asks for the status ---- */

static bool is_old(struct cs_control *c, struct cs_slice name)
{
    const struct cs_ctl_check *k = *place_of(c, name);
    return k == NULL || k->policy != cs_policy_version(c->view->policy) ||
           cs_wall_ms() - k->at_ms > (k->failed ? FAILED_OLD_MS : OLD_MS);
}

/* One target after the other, each at most once: a list that is reloaded meanwhile is not run
 * through for ever, and only one connection is made at a time. */
static void refresh(void *arg)
{
    struct cs_control *c = arg;
    struct cs_arena a;
    char why[300];
    for (size_t i = 0; c->phase == CS_CONTROL_RUN && i < cs_policy_target_count(c->view->policy);
         i++) {
        const struct cs_target *t = cs_policy_target_at(c->view->policy, i);
        cs_arena_init(&a, ARENA_CHUNK, ARENA_MAX);
        struct cs_slice name = cs_arena_dup(&a, t->name); /* the view may go while this waits */
        enum cs_err e = CS_OK;
        if (name.p != NULL && is_old(c, name)) {
            e = cs_ctl_check_run(c, name, &a, NULL, why, sizeof why);
        }
        cs_arena_done(&a);
        if (e == CS_ERR_CANCELLED || e == CS_ERR_UNAVAILABLE) {
            break;
        }
    }
    c->checking = false;
}

static void refresh_start(struct cs_control *c)
{
    cs_handle co;
    if (!c->checking) {
        c->checking = true;
        if (cs_co_spawn(c->loop, "checks", refresh, c, &co) != CS_OK) {
            c->checking = false;
        }
    }
}

json_t *cs_ctl_check_last(struct cs_control *c, struct cs_slice name)
{
    const struct cs_ctl_check *k = *place_of(c, name);
    if (is_old(c, name)) {
        refresh_start(c);
    }
    if (k == NULL) {
        return json_null();
    }
    json_t *o = json_deep_copy(k->summary);
    bool ok = cs_json_put(o, "at", cs_json_time(k->at_ms)) &&
              cs_json_put(o, "old", json_boolean(is_old(c, name)));
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

void cs_ctl_check_free(struct cs_control *c)
{
    while (c->checks != NULL) {
        struct cs_ctl_check *k = c->checks;
        c->checks = k->next;
        json_decref(k->summary);
        cs_free(k);
    }
}
