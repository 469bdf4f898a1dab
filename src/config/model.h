/* The configuration as C structs, filled from the YAML tree by the table config.def. Every value
 * keeps the place it came from, for messages. Private to config/. */
#ifndef CS_CONFIG_MODEL_H
#define CS_CONFIG_MODEL_H

#include "config/mistakes.h"
#include "config/tree.h"

struct cs_cfg_head { /* first member of every section */
    struct cs_cfg_pos pos;
    bool set;
    bool off; /* MAP_OR_OFF */
    bool bad; /* present, but reported already */
};
struct cs_cfg_text {
    struct cs_cfg_pos pos;
    bool set;
    struct cs_slice v;
};
struct cs_cfg_number {
    struct cs_cfg_pos pos;
    bool set;
    uint64_t v;
};
struct cs_cfg_texts {
    struct cs_cfg_pos pos;
    bool set;
    struct cs_cfg_text *v;
    size_t n;
};
struct cs_cfg_labels {
    struct cs_cfg_pos pos;
    bool set;
    struct cs_cfg_text *keys, *values;
    size_t n;
};
struct cs_cfg_list {
    struct cs_cfg_pos pos;
    bool set;
    void *v; /* n sections */
    size_t n;
};

struct cs_cfg_tls {
    struct cs_cfg_head head;
    struct cs_cfg_text certificate, key;
};
struct cs_cfg_client_certificates {
    struct cs_cfg_head head;
    struct cs_cfg_text authorities, email, uri, dns;
};
struct cs_cfg_listener {
    struct cs_cfg_head head;
    struct cs_cfg_text address, url;
    struct cs_cfg_tls tls;
    struct cs_cfg_texts proxy_from;
    struct cs_cfg_client_certificates client_certificates; /* of listeners.postgres */
};
struct cs_cfg_local {
    struct cs_cfg_head head;
    struct cs_cfg_text socket;
};
struct cs_cfg_listeners {
    struct cs_cfg_head head;
    struct cs_cfg_listener control, postgres, metrics;
    struct cs_cfg_local local;
};
struct cs_cfg_store {
    struct cs_cfg_head head;
    struct cs_cfg_text sqlite;
};
struct cs_cfg_recordings {
    struct cs_cfg_head head;
    struct cs_cfg_text directory, escrow;
};
struct cs_cfg_upgrade {
    struct cs_cfg_head head;
    struct cs_cfg_number drain;
};
struct cs_cfg_master_key {
    struct cs_cfg_head head;
    struct cs_cfg_text file, credential;
    struct cs_cfg_texts command;
    struct cs_cfg_number timeout;
};
struct cs_cfg_identity {
    struct cs_cfg_head head;
    struct cs_cfg_text name;
};
struct cs_cfg_target_pg {
    struct cs_cfg_head head;
    struct cs_cfg_text address, database, tls, roots, channel_binding, certificate;
};
struct cs_cfg_credential {
    struct cs_cfg_head head;
    struct cs_cfg_text user, password, database, authentication;
};
struct cs_cfg_target {
    struct cs_cfg_head head;
    struct cs_cfg_text name;
    struct cs_cfg_labels labels;
    struct cs_cfg_target_pg postgres;
    struct cs_cfg_credential credential, elevated, probe;
};
struct cs_cfg_except {
    struct cs_cfg_head head;
    struct cs_cfg_texts groups, users;
};
struct cs_cfg_who {
    struct cs_cfg_head head;
    struct cs_cfg_texts groups, users;
    struct cs_cfg_except except;
};
struct cs_cfg_select {
    struct cs_cfg_head head;
    struct cs_cfg_text kind, name;
    struct cs_cfg_labels labels;
};
struct cs_cfg_approvers {
    struct cs_cfg_head head;
    struct cs_cfg_texts groups;
    struct cs_cfg_number quorum, within, valid, attach, wait;
    struct cs_cfg_text assurance;
};
struct cs_cfg_rule {
    struct cs_cfg_head head;
    struct cs_cfg_text name, title, when, then, run_as, copy, record, durability;
    struct cs_cfg_who who;
    struct cs_cfg_select target;
    struct cs_cfg_approvers approvers;
};
struct cs_cfg_top {
    struct cs_cfg_head head;
    struct cs_cfg_number version, busy_poll;
    struct cs_cfg_listeners listeners;
    struct cs_cfg_tls tls;
    struct cs_cfg_store store;
    struct cs_cfg_recordings recordings;
    struct cs_cfg_master_key master_key, previous_master_key;
    struct cs_cfg_upgrade upgrade;
    struct cs_cfg_list identity, targets, rules;
};

/* Fills ret from the tree; everything wrong goes to the mistakes. False: memory is out. */
bool cs_cfg_read(const struct cs_yaml_node *root, struct cs_mistakes *m, struct cs_arena *a,
                 struct cs_cfg_top *ret);

#endif
