/* A class record as facts for rules. Called by the protocol for every action.
 * It must never state what the classifier could not establish: such facts are UNKNOWN, and a rule
 * that allows does not fire on them while one that denies or holds does. */
#include "sql/catalogue.h"

static struct cs_fact fact_strings(bool known, const struct cs_slice *v, size_t n)
{
    struct cs_fact f = {.state = known ? CS_FACT_KNOWN : CS_FACT_UNKNOWN};
    f.u.strings.v = v;
    f.u.strings.n = n;
    return f;
}

static struct cs_fact fact_string(bool known, struct cs_slice s)
{
    struct cs_fact f = {.state = known ? CS_FACT_KNOWN : CS_FACT_UNKNOWN};
    f.u.string = s;
    return f;
}

void cs_sql_facts(const struct cs_sql *sql, const struct cs_sql_class *c,
                  const struct cs_sql_judged *j, struct cs_slice text, struct cs_facts *ret)
{
    size_t n = 0;
    const struct cs_slice *names = cs_sql_effect_names(sql, j->effects, &n);
    bool clear = j->names_known;
    ret->v[CS_FACT_SQL_EFFECTS] = fact_strings(true, names, n);
    ret->v[CS_FACT_SQL_VERB] = fact_string(c->parsed, c->verb);
    ret->v[CS_FACT_SQL_READS] = fact_strings(clear, c->reads, c->n_reads);
    ret->v[CS_FACT_SQL_WRITES] = fact_strings(j->writes_known, c->writes, c->n_writes);
    ret->v[CS_FACT_SQL_FUNCTIONS] = fact_strings(clear, c->functions, c->n_functions);
    ret->v[CS_FACT_SQL_STATEMENTS] = (struct cs_fact){
        .state = c->parsed ? CS_FACT_KNOWN : CS_FACT_UNKNOWN, .u.integer = c->n_statements};
    /* A text that was not parsed may be no UTF-8, which a string of a rule must be. */
    ret->v[CS_FACT_SQL_TEXT] = fact_string(c->parsed || cs_utf8_valid(text), text);
}

/* $1 is a parameter, $$ and $a open a string. */
static bool quotes_anything(struct cs_slice text)
{
    if (cs_slice_find(text, '\'') < text.n) {
        return true;
    }
    for (size_t i = cs_slice_find(text, '$'); i < text.n;) {
        struct cs_slice rest = cs_slice_from(text, i + 1);
        if (rest.n > 0 && (rest.p[0] < '0' || rest.p[0] > '9')) {
            return true;
        }
        i += 1 + cs_slice_find(rest, '$');
    }
    return false;
}

bool cs_sql_prepares_literals(const struct cs_sql_class *c, struct cs_slice text)
{
    bool looked_into = !c->parsed || c->n_kept < c->n_statements;
    for (uint32_t i = 0; i < c->n_kept; i++) {
        looked_into =
            looked_into || c->statements[i].analysed || c->statements[i].kind == CS_SQL_PREPARE;
    }
    return looked_into && quotes_anything(text);
}
