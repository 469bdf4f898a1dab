/* The state of one compilation, shared by compile.c and rules.c. Private to config/. */
#ifndef CS_CONFIG_COMPILE_H
#define CS_CONFIG_COMPILE_H

#include "config/model.h"
#include "policy/rules.h"
#include "wire/snapshot.h"

struct cs_compiler {
    struct cs_mistakes *m;
    struct cs_arena *arena;
    const struct cs_config_files *files;
    struct cs_slice text; /* of the file */
    const struct cs_cfg_top *cfg;
    struct cs_snapshot snapshot;
    bool system_roots_tried;
    struct cs_target *targets; /* sorted by name */
    size_t n_targets;
    struct cs_rule_full *rules; /* sorted by name */
    size_t n_rules;
};

/* Relative paths start at the configuration's directory. */
struct cs_slice cs_cfg_path(struct cs_compiler *c, struct cs_slice path);
/* The bytes of a file that must contain `must_hold`; empty after a mistake. */
struct cs_slice cs_cfg_file(struct cs_compiler *c, const struct cs_cfg_text *path,
                            const char *must_hold, const char *what);
struct cs_names cs_cfg_names(struct cs_compiler *c, const struct cs_cfg_texts *from);
void cs_cfg_labels(struct cs_compiler *c, const struct cs_cfg_labels *from, struct cs_names *keys,
                   struct cs_names *values);
/* cfg->rules → rules; after the targets. */
void cs_cfg_compile_rules(struct cs_compiler *c);

#endif
