/* The names of pg_catalog, from functions.def, types.def and operators.def (which
 * tools/gen-functions.py writes). Called by the walker; a name that is not here is opaque.
 * It must never guess: a name with one dangerous overload is not on the list at all. */
#include "sql/names.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "sql/sql.h"

struct name_row {
    const char *name;
    uint8_t effects;
};

static const struct name_row functions[] = {
#define CS_SQL_FUNCTION(name, effects) {name, effects},
#include "sql/functions.def"
#undef CS_SQL_FUNCTION
};
static const struct name_row types[] = {
#define CS_SQL_TYPE(name) {name, CS_SQL_READ},
#include "sql/types.def"
#undef CS_SQL_TYPE
};
static const struct name_row operators[] = {
#define CS_SQL_OPERATOR(name) {name, CS_SQL_READ},
#include "sql/operators.def"
#undef CS_SQL_OPERATOR
};

enum { FUNCTION_SLOTS = 8192, TYPE_SLOTS = 2048, OPERATOR_SLOTS = 256 };
_Static_assert(CS_ARRAY_LEN(functions) * 2 < FUNCTION_SLOTS, "functions need a larger table");
_Static_assert(CS_ARRAY_LEN(types) * 2 < TYPE_SLOTS, "types need a larger table");
_Static_assert(CS_ARRAY_LEN(operators) * 2 < OPERATOR_SLOTS, "operators need a larger table");

/* Index + 1 of a row; 0 is free. The keys are ours, so a plain hash will do: what a client sends is
 * only looked up, and a chain ends at the next free slot. */
struct cs_sql_names {
    uint16_t functions[FUNCTION_SLOTS];
    uint16_t types[TYPE_SLOTS];
    uint16_t operators[OPERATOR_SLOTS];
};

static uint32_t name_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s != '\0'; s++) {
        h = (h ^ (uint8_t)*s) * 16777619u;
    }
    return h ^ h >> 15;
}

static void fill(uint16_t *slots, uint32_t n_slots, const struct name_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t at = name_hash(rows[i].name) % n_slots;
        while (slots[at] != 0) {
            at = (at + 1) % n_slots;
        }
        slots[at] = (uint16_t)(i + 1);
    }
}

static const struct name_row *find(const uint16_t *slots, uint32_t n_slots,
                                   const struct name_row *rows, const char *name)
{
    for (uint32_t at = name_hash(name) % n_slots; slots[at] != 0; at = (at + 1) % n_slots) {
        const struct name_row *row = &rows[slots[at] - 1];
        if (strcmp(row->name, name) == 0) {
            return row;
        }
    }
    return NULL;
}

enum cs_err cs_sql_names_new(struct cs_sql_names **ret)
{
    struct cs_sql_names *n = cs_alloc(sizeof *n);
    if (n == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    fill(n->functions, FUNCTION_SLOTS, functions, CS_ARRAY_LEN(functions));
    fill(n->types, TYPE_SLOTS, types, CS_ARRAY_LEN(types));
    fill(n->operators, OPERATOR_SLOTS, operators, CS_ARRAY_LEN(operators));
    *ret = n;
    return CS_OK;
}

void cs_sql_names_free(struct cs_sql_names *n)
{
    cs_free(n);
}

uint8_t cs_sql_names_function(const struct cs_sql_names *n, const char *name)
{
    const struct name_row *row = find(n->functions, FUNCTION_SLOTS, functions, name);
    return row != NULL ? row->effects : CS_SQL_OPAQUE;
}

bool cs_sql_names_type(const struct cs_sql_names *n, const char *name)
{
    return find(n->types, TYPE_SLOTS, types, name) != NULL;
}

bool cs_sql_names_operator(const struct cs_sql_names *n, const char *name)
{
    return find(n->operators, OPERATOR_SLOTS, operators, name) != NULL;
}
