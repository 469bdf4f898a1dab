/* The state of one compilation, shared by compile.c and rules.c. Private to config/. */
#ifndef CS_CONFIG_COMPILE_H
#define CS_CONFIG_COMPILE_H

#include "config/model.h"
#include "policy/rules.h"
#include "wire/credentials.h"
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
    const struct cs_cfg_target **from; /* what each target was made from */
    struct cs_buf credentials;         /* keeper's table */
    struct cs_rule_full *rules;        /* sorted by name */
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

/* ---- compile_keys.c ---- */
/* Where the master keys come from. */
void cs_cfg_master_keys(struct cs_compiler *c);
/* What client certificates a listener accepts. */
void cs_cfg_client_certificates(struct cs_compiler *c,
                                const struct cs_cfg_client_certificates *from,
                                struct cs_snapshot_listener *l);
/* Of one target: the word, and that it fits the rest. */
void cs_cfg_channel_binding(struct cs_compiler *c, const struct cs_cfg_target_pg *pg,
                            struct cs_target *t);
/* How the target's credentials may be proved; behind channel binding. */
void cs_cfg_authentication(struct cs_compiler *c, const struct cs_cfg_target *from,
                           struct cs_target *t);
/* The table of who may use which secret for what; after the targets. */
void cs_cfg_credentials(struct cs_compiler *c);

#endif
