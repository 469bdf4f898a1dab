/* The limits of limits.def as constants: CS_LIMIT_PG_QUERY_BYTES and so on. */
#ifndef CS_BASE_LIMITS_H
#define CS_BASE_LIMITS_H

enum cs_limit_value {
#define CS_LIMIT(id, value, unit, why) CS_LIMIT_##id = (value),
#include "base/limits.def"
#undef CS_LIMIT
};

#endif
