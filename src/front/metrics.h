/* The pages of metrics of all processes, as front tells them. For the files of this folder, its
 * tests and the fuzz harness. */
#ifndef CS_FRONT_METRICS_H
#define CS_FRONT_METRICS_H

#include "base/alloc.h"
#include "base/buf.h"
#include "base/err.h"

struct cs_front_metrics;

struct cs_front_metrics *cs_front_metrics_new(void);
void cs_front_metrics_free(struct cs_front_metrics *m);
/* A process's own page and the supervisor's about it; the caller keeps the descriptors. Replaces
 * what was there for that role and index. */
enum cs_err cs_front_metrics_add(struct cs_front_metrics *m, uint64_t role, uint64_t index, int own,
                                 int about) CS_MUST_CHECK;
/* /metrics. */
struct cs_buf cs_front_metrics_text(struct cs_front_metrics *m);
/* /healthz: the supervisor looks at its processes. */
bool cs_front_is_alive(const struct cs_front_metrics *m);
/* /readyz: true when everything is there and can write; else `out` names what is not, a line each.
 */
bool cs_front_is_ready(struct cs_front_metrics *m, struct cs_buf *out);

#endif
