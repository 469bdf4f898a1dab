/* The error table and its look-ups. */
#include "base/err.h"

#include <errno.h>
#include <string.h>

struct err_row {
    const char *name;
    int http;
    const char *text;
};

static const struct err_row rows[] = {
#define CS_ERR(id, name, http, text) {name, http, text},
#include "base/errors.def"
#undef CS_ERR
};
_Static_assert(CS_ARRAY_LEN(rows) == CS_ERR_MAX, "one row per error");

static const struct err_row *row(enum cs_err e)
{
    return (unsigned)e < CS_ERR_MAX ? &rows[e] : &rows[CS_ERR_INTERNAL];
}

const char *cs_err_name(enum cs_err e)
{
    return row(e)->name;
}

int cs_err_http(enum cs_err e)
{
    return row(e)->http;
}

const char *cs_err_text(enum cs_err e)
{
    return row(e)->text;
}

enum cs_err cs_err_from_name(const char *name)
{
    for (unsigned i = 0; i < CS_ERR_MAX; i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return (enum cs_err)i;
        }
    }
    return CS_ERR_INTERNAL;
}

enum cs_err cs_err_from_errno(int error_number)
{
    switch (error_number) {
    case 0:
        return CS_OK;
    case ENOENT:
        return CS_ERR_NOT_FOUND;
    case EEXIST:
        return CS_ERR_EXISTS;
    case EACCES:
    case EPERM:
        return CS_ERR_DENIED;
    case ENOSPC:
    case EDQUOT:
        return CS_ERR_NO_SPACE;
    case ENOMEM:
        return CS_ERR_NO_MEMORY;
    case EMFILE:
    case ENFILE:
        return CS_ERR_LIMIT;
    case ECONNREFUSED:
        return CS_ERR_REFUSED;
    case EHOSTUNREACH:
    case ENETUNREACH:
        return CS_ERR_UNREACHABLE;
    case ETIMEDOUT:
        return CS_ERR_TIMEOUT;
    case ECONNRESET:
    case EPIPE:
        return CS_ERR_EOF;
    default:
        return CS_ERR_IO;
    }
}
