/* The one error type. Functions return it; outputs named ret_* are written only on success. */
#ifndef CS_BASE_ERR_H
#define CS_BASE_ERR_H

#include "base/attr.h"

enum cs_err {
#define CS_ERR(id, name, http, text) CS_ERR_##id,
#include "base/errors.def"
#undef CS_ERR
    CS_ERR_MAX
};

#define CS_OK CS_ERR_OK

/* Stable machine name ("not-found"), HTTP status, sentence for a person. Out of range = internal.
 */
const char *cs_err_name(enum cs_err e);
int cs_err_http(enum cs_err e);
const char *cs_err_text(enum cs_err e);
/* The code with this machine name; CS_ERR_INTERNAL when there is none. */
enum cs_err cs_err_from_name(const char *name);
/* Maps errno after a failed system call. */
enum cs_err cs_err_from_errno(int error_number);

#endif
