/* The list of mistakes that one compilation collects. Private to config/. */
#ifndef CS_CONFIG_MISTAKES_H
#define CS_CONFIG_MISTAKES_H

#include "config/config.h"

struct cs_cfg_pos {
    uint32_t line, column;
};

enum { CS_MISTAKES_KEPT = 1000 };

struct cs_mistakes {
    struct cs_arena *arena;
    struct cs_config_mistake v[CS_MISTAKES_KEPT];
    size_t n, errors, dropped;
    bool no_memory;
};

void cs_mistake(struct cs_mistakes *m, struct cs_cfg_pos at, const char *fmt, ...) CS_PRINTF(3, 4);
void cs_warning(struct cs_mistakes *m, struct cs_cfg_pos at, const char *fmt, ...) CS_PRINTF(3, 4);
/* A value as it may stand in a message: cut at 60 bytes, control bytes as "?". Valid until the
 * eighth call after it. */
const char *cs_shown(struct cs_slice s);
/* Sorted by position, cut to CS_CONFIG_MISTAKES. */
void cs_mistakes_report(struct cs_mistakes *m, struct cs_config_report *ret);

#endif
