/* What the rules let the everyday role do to a table, as one question to policy/. Called by the
 * evaluation of rights and by the writer of the roles' SQL. It must err on the side of "the rules
 * may let it": a right that is needed and reported as superfluous would teach people to ignore the
 * report. */
#include "base/attr.h"
#include "check/check.h"

static const struct cs_slice write_only[] = {{(const uint8_t *)"write", 5}};
static const struct cs_slice read_write[] = {{(const uint8_t *)"read", 4},
                                             {(const uint8_t *)"write", 5}};
static const struct cs_slice ddl[] = {{(const uint8_t *)"ddl", 3}};

/* The statement that each right is for, as the classifier calls it. */
static const struct {
    const char *right, *verb;
    bool ddl;
} rights[] = {{"INSERT", "INSERT", false},         {"UPDATE", "UPDATE", false},
              {"DELETE", "DELETE", false},         {"TRUNCATE", "TRUNCATE TABLE", false},
              {"REFERENCES", "ALTER TABLE", true}, {"TRIGGER", "CREATE TRIGGER", true}};

static void set_strings(struct cs_facts *f, enum cs_fact_id id, const struct cs_slice *v, size_t n)
{
    f->v[id].state = CS_FACT_KNOWN;
    f->v[id].u.strings.v = v;
    f->v[id].u.strings.n = n;
}

static void set_string(struct cs_facts *f, enum cs_fact_id id, struct cs_slice s)
{
    f->v[id].state = CS_FACT_KNOWN;
    f->v[id].u.string = s;
}

/* Everything that a statement could still be is unknown. */
static struct cs_facts some_facts(const struct cs_target *t, const char *verb)
{
    struct cs_facts f = {0};
    for (size_t i = 0; i < CS_FACT_MAX; i++) {
        f.v[i].state = CS_FACT_UNKNOWN;
    }
    set_string(&f, CS_FACT_SQL_VERB, cs_slice_str(verb));
    set_string(&f, CS_FACT_SQL_DATABASE, t->database);
    set_string(&f, CS_FACT_SQL_ROLE, t->user);
    return f;
}

static enum cs_tri better(enum cs_tri a, enum cs_tri b)
{
    static const int rank[] = {[CS_TRI_FALSE] = 0, [CS_TRI_UNKNOWN] = 1, [CS_TRI_TRUE] = 2};
    return rank[a] >= rank[b] ? a : b;
}

/* The best of the effects that such a statement may have. */
static enum cs_tri ask(const struct cs_policy *p, const struct cs_target *t, struct cs_facts *f,
                       bool is_ddl)
{
    set_strings(f, CS_FACT_SQL_EFFECTS, is_ddl ? ddl : write_only, 1);
    enum cs_tri v = cs_policy_everyday(p, t, f);
    if (!is_ddl) {
        set_strings(f, CS_FACT_SQL_EFFECTS, read_write, CS_ARRAY_LEN(read_write));
        v = better(v, cs_policy_everyday(p, t, f));
    }
    return v;
}

enum cs_tri cs_check_right(const struct cs_policy *policy, const struct cs_target *target,
                           struct cs_slice right, struct cs_slice schema, struct cs_slice relation)
{
    uint8_t full[256];
    size_t i = 0;
    while (i < CS_ARRAY_LEN(rights) && !cs_slice_eq_str(right, rights[i].right)) {
        i++;
    }
    if (i == CS_ARRAY_LEN(rights)) {
        return CS_TRI_FALSE;
    }
    struct cs_facts f = some_facts(target, rights[i].verb);
    bool fits = schema.n < sizeof full && relation.n < sizeof full - schema.n - 1;
    if (relation.n == 0 || schema.n == 0 || !fits) {
        return ask(policy, target, &f, rights[i].ddl);
    }
    memcpy(full, schema.p, schema.n);
    full[schema.n] = '.';
    memcpy(full + schema.n + 1, relation.p, relation.n);
    struct cs_slice name = cs_slice(full, schema.n + 1 + relation.n);
    set_strings(&f, CS_FACT_SQL_WRITES, &name, 1);
    enum cs_tri v = ask(policy, target, &f, rights[i].ddl);
    if (cs_slice_eq_str(schema, "public")) { /* rules see a name as it was written */
        set_strings(&f, CS_FACT_SQL_WRITES, &relation, 1);
        v = better(v, ask(policy, target, &f, rights[i].ddl));
    }
    return v;
}

const char *cs_check_right_name(size_t i)
{
    _Static_assert(CS_ARRAY_LEN(rights) == CS_CHECK_RIGHTS_MAX, "table");
    return i < CS_CHECK_RIGHTS_MAX ? rights[i].right : NULL;
}

bool cs_check_reads_only(const struct cs_policy *policy, const struct cs_target *target)
{
    for (size_t i = 0; i < CS_ARRAY_LEN(rights); i++) {
        if (cs_check_right(policy, target, cs_slice_str(rights[i].right), CS_SLICE_NULL,
                           CS_SLICE_NULL) != CS_TRI_FALSE) {
            return false;
        }
    }
    return true;
}
