/* The supervisor's own structures: for the files of this folder (serve.c, child.c, wire.c,
 * reload.c, answer.c), nobody else. */
#ifndef CS_ROLES_SUPERVISOR_H
#define CS_ROLES_SUPERVISOR_H

#include "base/buf.h"
#include "ipc/ipc.h"
#include "runtime/loop.h"
#include "wire/snapshot.h"

#include <sys/types.h>

enum {
    CS_GETS_SNAPSHOT = 1,
    CS_GETS_WEB = 2,
    CS_GETS_PROTOCOLS = 4,
    CS_GETS_RING = 8,
    CS_GETS_RINGS = 16,
    CS_GETS_CONTROL = 32,
    CS_PER_GATE = 64,
    CS_GETS_KEY = 128,
};
enum { CS_GATES_MAX = 64, CS_STAGES = 3, CS_PATH = 512, CS_REPLAYS_MAX = 4 };

struct cs_role_row {
    enum cs_role role;
    const char *program;
    unsigned stage;
    unsigned gets;
};
extern const struct cs_role_row cs_role_rows[];
extern const size_t cs_role_row_count;

struct cs_ring_fds {
    uint64_t epoch; /* of the gate it was made for */
    int fd[3];      /* owned; -1 = none */
};

struct cs_key_fds { /* keeper's master keys: the present one, the one before */
    int fd[2];      /* owned; -1 = none */
};

struct cs_supervisor;

struct cs_child {
    struct cs_supervisor *sv;
    const struct cs_role_row *row;
    unsigned index;
    char name[24];              /* "gate/0" */
    pid_t pid;                  /* 0 = not running */
    struct cs_channel *channel; /* owned; NULL = not running */
    uint64_t epoch;             /* a new one for each start */
    bool ready;
    bool gone;   /* the channel ended before the process did */
    bool failed; /* ended during the first start */
    bool alive;  /* its coroutine runs */
    /* An upgrade. */
    bool retired;      /* not started again when it ends */
    bool quiesced;     /* a gate that control owes nothing */
    bool draining;     /* a gate of the generation before: carries its sessions to their end */
    bool was_draining; /* already before this upgrade */
    bool adopted;      /* the program before us has started it */
    uint64_t started_ns, ready_ns;
    uint64_t restarts;
    uint64_t parser_ns;     /* a gate: when the parser of its own was last started */
    struct cs_event poke;   /* look at the flags */
    struct cs_key_fds keys; /* keeper: opened for this start, gone when they are handed over */
    /* Gates: the ring in use, and the one of the gate before it: what the recorder has not read of
     * a dead gate's ring is not lost when the recorder dies too. */
    struct cs_ring_fds ring, old_ring;
    /* metrics.c: its own page, ours about it; 0 = none */
    int metrics_fd, about_fd; /* owned */
    uint64_t *about;          /* mapped */
};

struct cs_open_listener {
    char name[32], kind[32];
    char address[CS_PATH];
    int fd; /* owned */
};

/* A compiled configuration. */
struct cs_configuration {
    int fd; /* owned: the sealed memfd; -1 = none */
    struct cs_slice map;
    struct cs_snapshot snapshot; /* borrows from map */
    uint8_t sha256[32];
};

enum { CS_RELOAD_ASKERS = 8 };
struct cs_reload_asker { /* a call of control's that waits for a reload */
    struct cs_child *child;
    uint64_t epoch;
    uint32_t corr;
};

enum { CS_PROGRAMS = 16 };
/* The programs of the roles and jobs, opened at the start (programs.c): what is started is what was
 * installed then, also when the files are replaced. */
struct cs_programs {
    struct {
        char name[24];
        int fd; /* owned */
    } at[CS_PROGRAMS];
    size_t n;
};

/* What the program before an upgrade has left, besides gates and listeners (generation.c). */
struct cs_legacy {
    bool any;
    bool rollback;               /* we are the program before, called back */
    int program;                 /* owned: it, to call it back; -1 = none */
    int configuration;           /* owned: its snapshot; -1 = none */
    uint64_t version;            /* of that snapshot */
    struct cs_programs programs; /* owned: those of its roles */
    struct cs_open_listener listeners[CS_SNAPSHOT_LISTENERS]; /* not taken over yet */
    size_t n_listeners;
};

struct cs_parse;
struct cs_parser;
struct cs_own_parser;
struct cs_parsers {          /* parse.c */
    struct cs_parser *first; /* owned by their coroutines */
    unsigned n;
    struct cs_parse *waiting;  /* owned, oldest first */
    struct cs_own_parser *own; /* of gates; owned by their coroutines (own_parser.c) */
};

struct cs_supervisor {
    struct cs_loop *loop;
    const char *config_path;
    int argc;
    char **argv;         /* as given to serve */
    char self[CS_PATH];  /* the program's path, for an upgrade; "" = unknown */
    uint64_t generation; /* counts upgrades, from 1 */
    int resume_fd;       /* what --resume named; -1 = an ordinary start */
    bool trial;          /* only looks whether it could serve */
    bool upgrading;
    struct cs_legacy legacy;
    char libexec[CS_PATH];
    struct cs_programs programs;
    char recordings[CS_PATH]; /* fixed at the start */
    char escrow[72];          /* hex; "" = nobody else can open recordings; fixed at the start */
    unsigned n_gates;
    uint64_t first_gate; /* index of one of them */
    const char *user;    /* as given to serve; NULL = ours */
    uid_t first_uid;     /* of the range from which each role has one; 0: all run as `user` */
    struct cs_configuration config;
    struct cs_open_listener listeners[CS_SNAPSHOT_LISTENERS];
    size_t n_listeners;
    struct cs_child *children; /* owned */
    size_t n_children;
    struct cs_fd signals;
    struct cs_event changed; /* some child became ready or ended */
    struct cs_event stop;    /* the order to stop */
    bool starting, stopping, hurry;
    bool reloading, reload_again; /* again: the file is newer than what is being read */
    struct cs_reload_asker reload_askers[CS_RELOAD_ASKERS];
    size_t n_reload_askers;
    unsigned replays;
    struct cs_parsers parsers;
    struct cs_replay_wait *replay_waits; /* those that wait for keys; answer.c */
    char record_key_name[32];            /* the last one that keeper announced */
    uint8_t record_key[32];
    uint8_t redact_key[32]; /* the same, for gates; when there is one */
    bool has_redact_key;
    int metrics_fd, about_fd; /* owned, as of a child */
    uint64_t *about;
    uint64_t started_ms, stop_ns; /* stop_ns: when it was first told to stop */
    int status;                   /* exit status */
};

/* ---- users.c ---- */
/* Takes what --user and --role-users said; on failure says on standard error what is wrong. */
bool cs_users_set(struct cs_supervisor *sv);
/* As whom a role's process runs; 0: as all the others. */
uid_t cs_users_of(const struct cs_supervisor *sv, enum cs_role role, uint64_t index);

/* ---- programs.c ---- */
/* Finds the directory of the programs and opens them; says on standard error when there is none.
 * A program that was called back has those that it had. */
bool cs_programs_open(struct cs_supervisor *sv);
void cs_programs_close(struct cs_programs *p);
/* Borrowed; -1: it was not there at the start. */
int cs_program_open(const struct cs_supervisor *sv, const char *program);
/* A path in the libexec directory. */
const char *cs_program_path(const struct cs_supervisor *sv, const char *program,
                            char out[static CS_PATH]);

/* ---- upgrade.c: the program that goes ---- */
/* Begins an upgrade, in a coroutine of its own. */
void cs_upgrade(struct cs_supervisor *sv);
/* Hands gates and listeners to another program and becomes it. Returns only when that failed. */
void cs_hand_over(struct cs_supervisor *sv, bool rollback);

/* ---- trial.c: a program that is asked whether it could serve ---- */
int cs_trial(struct cs_supervisor *sv);
/* Runs the trial of the program at sv->self; says in `why` what is in the way. */
bool cs_trial_run(struct cs_supervisor *sv, struct cs_buf *why);

/* ---- resume.c: the program that comes ---- */
/* Reads what was handed over; before anything else is done. */
bool cs_resume_read(struct cs_supervisor *sv);
/* The index of this generation's nth gate: none that a gate before has; *next from 0. */
unsigned cs_resume_index(const struct cs_supervisor *sv, unsigned nth, unsigned *next);
/* The gates that were handed over go on as children of ours. */
bool cs_resume_gates(struct cs_supervisor *sv);
/* All roles of this generation are up. */
void cs_resume_done(struct cs_supervisor *sv);
/* They are not: back to the program before. Returns only when that is impossible too. */
void cs_resume_failed(struct cs_supervisor *sv);
void cs_legacy_done(struct cs_legacy *l);

/* ---- generation.c: what passes from one program to the next ---- */
struct cs_generation_gate {
    uint64_t index, pid, epoch, restarts, started_ns, draining;
    uint64_t channel; /* descriptor */
    int metrics;      /* descriptor; -1 = none */
    struct cs_ring_fds ring, old_ring;
};
struct cs_generation {
    struct cs_slice self;
    uint64_t started_ms, number, rollback, version;
    int program, configuration;
    struct cs_open_listener listeners[CS_SNAPSHOT_LISTENERS];
    size_t n_listeners;
    struct cs_generation_gate gates[CS_GATES_MAX];
    size_t n_gates;
    struct cs_programs programs; /* of the one that goes, to be called back with */
};
/* A text that two programs have in common when a process of one can talk to those of the other. */
extern const char cs_generation_hash[65]; /* made by tools/format-of at build time */
const char *cs_generation_format(void);
void cs_generation_write(struct cs_buf *out, const struct cs_generation *g);
/* Strict; `self` borrows from `in`. */
bool cs_generation_read(struct cs_slice in, struct cs_generation *ret);

/* ---- child.c ---- */
/* Starts the coroutine that keeps this role alive. */
enum cs_err cs_child_begin(struct cs_child *c) CS_MUST_CHECK;
/* The same for a process that runs already; takes over the descriptor of its channel. */
enum cs_err cs_child_adopt(struct cs_child *c, int channel) CS_MUST_CHECK;
void cs_child_kill(struct cs_child *c, const char *why);
struct cs_child *cs_child_of(struct cs_supervisor *sv, enum cs_role role, uint64_t index);

/* ---- wire.c: who gets what ---- */
/* Everything a role that was just started needs, and its ends to those that run already. */
enum cs_err cs_wire(struct cs_child *c) CS_MUST_CHECK;
/* The present configuration to one role. */
enum cs_err cs_wire_snapshot(struct cs_child *c) CS_MUST_CHECK;
void cs_wire_done(struct cs_child *c);
/* Keeper announced the key of a month: remembered for every recorder to come. */
void cs_wire_redact_key(struct cs_supervisor *sv, const struct cs_msg_redact_key_new *m);
void cs_wire_record_key(struct cs_supervisor *sv, const struct cs_msg_record_key_new *m);

/* ---- metrics.c ---- */
/* The supervisor's own page; once, before the first child. */
void cs_metrics_begin(struct cs_supervisor *sv);
/* A page for a process that was just started; front hears of it, and a new front of all. */
void cs_metrics_wire(struct cs_child *c);
/* A gate of the generation before has its page: takes over fd, -1 for none. */
void cs_metrics_adopt(struct cs_child *c, int fd);
/* Something about it is other than before. */
void cs_metrics_changed(struct cs_child *c);
void cs_metrics_done(struct cs_child *c);
void cs_metrics_run(void *supervisor); /* coroutine */

/* ---- master_key.c ---- */
/* Opens what the snapshot names; in a coroutine, because a command takes its time. On failure `why`
 * gets a sentence. */
enum cs_err cs_master_keys_open(struct cs_supervisor *sv, const struct cs_snapshot *s,
                                struct cs_key_fds *ret, char *why, size_t why_size) CS_MUST_CHECK;
void cs_master_keys_close(struct cs_key_fds *k);
/* Whether they come from elsewhere. */
bool cs_master_keys_differ(const struct cs_snapshot *a, const struct cs_snapshot *b);
/* To keeper: the keys; the present configuration's table of credentials. */
enum cs_err cs_wire_master_keys(struct cs_child *keeper, const struct cs_key_fds *k) CS_MUST_CHECK;
enum cs_err cs_wire_credentials(struct cs_child *keeper) CS_MUST_CHECK;

/* ---- listen.c ---- */
/* Directories and listening sockets of the first configuration; says on standard error what is
 * wrong. */
bool cs_listeners_open(struct cs_supervisor *sv);
void cs_listeners_close(struct cs_supervisor *sv);
/* One line that tells people where it serves. */
void cs_listeners_tell(const struct cs_supervisor *sv, struct cs_buf *out);

/* ---- reload.c ---- */
/* Runs the compile job; in a coroutine. `text` gets mistakes or warnings, a line each. */
enum cs_err cs_configuration_load(struct cs_supervisor *sv, struct cs_configuration *ret,
                                  struct cs_buf *text) CS_MUST_CHECK;
/* A snapshot that was compiled already; takes over fd. */
enum cs_err cs_configuration_open(int fd, uint64_t version,
                                  struct cs_configuration *ret) CS_MUST_CHECK;
void cs_configuration_done(struct cs_configuration *c);
/* Reloads in a coroutine of its own; answers control's call `corr` when `asker` is not NULL. Asked
 * while another reload runs, it reads the file once more after that one. */
void cs_reload(struct cs_supervisor *sv, struct cs_child *asker, uint32_t corr);

/* ---- answer.c: control's questions ---- */
void cs_answer_status(struct cs_child *asker, uint32_t corr);
void cs_answer_replay(struct cs_child *asker, uint32_t corr, const struct cs_msg_replay *m);
void cs_answer_replay_go(struct cs_child *asker, uint32_t corr, const struct cs_msg_replay_go *m);
/* ---- parse.c: texts that are too long for a gate ---- */
/* Takes over fd: the text. */
void cs_parse(struct cs_child *asker, uint32_t corr, int fd);
/* Jobs without a text go, and none comes while the gateway stops or an upgrade is under way. */
void cs_parsers_leave(struct cs_supervisor *sv);

/* ---- own_parser.c: a gate's own parser ---- */
/* Ends the one that the gate has, and starts another. */
void cs_own_parser(struct cs_child *gate, uint32_t corr);
/* The gate has ended, or everything does (NULL): so do they. */
void cs_own_parsers_end(struct cs_supervisor *sv, const struct cs_child *gate);

/* Sends unless the asker has been restarted meanwhile. */
void cs_answer(struct cs_child *asker, uint64_t epoch, enum cs_msg_type t, uint32_t corr,
               const void *msg, const int *fds, size_t n_fds);

#endif
