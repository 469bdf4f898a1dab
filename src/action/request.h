/* What gate, control and the commands all say about a request: states and the one wait line. */
#ifndef CS_ACTION_REQUEST_H
#define CS_ACTION_REQUEST_H

#include "base/arena.h"
#include "base/slice.h"

enum cs_request_state {
#define CS_REQUEST(id, name, final, text) CS_REQUEST_##id,
#include "action/request.def"
#undef CS_REQUEST
    CS_REQUEST_MAX
};

const char *cs_request_state_name(enum cs_request_state s);
bool cs_request_state_final(enum cs_request_state s);
enum cs_request_state cs_request_state_parse(struct cs_slice name); /* NONE when unknown */

/* COUNTERSIGN held id=… state=… wait=…s expires=…s retry=same-request url=… rule=…
 * In values everything but graphic ASCII becomes %XX: none can forge a key or a line. .p is NULL
 * when memory is out. */
struct cs_slice cs_wait_line(struct cs_arena *a, struct cs_slice id, enum cs_request_state state,
                             uint64_t wait_s, uint64_t expires_s, struct cs_slice url,
                             struct cs_slice rule);

#endif
