/* Typed messages between roles over AF_UNIX SOCK_SEQPACKET socketpairs (messages.def), sealed
 * memory, and calls that wait for their answer.
 *
 * On the wire: u16le type, u16le flags (1 = an answer, else 0), u32le correlation id (0 = none),
 * then the fields: U64 as u64le, ID as 16 bytes, SLICE as u32le length and bytes. A decoder accepts
 * exactly that: trailing or missing bytes, a foreign type, a wrong phase, too many bytes or
 * descriptors end the channel. */
#ifndef CS_IPC_IPC_H
#define CS_IPC_IPC_H

#include "base/err.h"
#include "base/fields.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/slice.h"
#include "runtime/loop.h"

enum cs_role {
    CS_ROLE_ANY,
    CS_ROLE_SUPERVISOR,
    CS_ROLE_GATE,
    CS_ROLE_FRONT,
    CS_ROLE_CONTROL,
    CS_ROLE_RECORDER,
    CS_ROLE_JOB,
    CS_ROLE_KEEPER,
    CS_ROLE_DIALER,
    CS_ROLE_PROBE,
    CS_ROLE_MAX
};
const char *cs_role_name(enum cs_role r);

/* PROBE: the one that a target names for looking only; never used by a gate. */
/* A parameter of BOOT: lines of NAME=VALUE. False: there is none of that name. */
bool cs_boot_param(struct cs_slice params, const char *name, struct cs_slice *ret_value);
/* Whose calls on the local socket are the service's own: "service" of BOOT, else our user. */
uint64_t cs_boot_service_uid(struct cs_slice params);

enum cs_credential { CS_CREDENTIAL_EVERYDAY, CS_CREDENTIAL_ELEVATED, CS_CREDENTIAL_PROBE };
/* What a task of probe is about; its table of queries. */
enum cs_probe_kind { CS_PROBE_NONE, CS_PROBE_CATALOGUE, CS_PROBE_CHECK, CS_PROBE_IMPACT };
enum cs_leave { CS_LEAVE_CANCEL, CS_LEAVE_DETACH, CS_LEAVE_VOID };
/* NOT_RUN: certain that nothing of it reached the target. */
enum cs_executed { CS_EXECUTED_DONE, CS_EXECUTED_FAILED, CS_EXECUTED_UNKNOWN, CS_EXECUTED_NOT_RUN };

enum cs_msg_type {
    CS_MSG_NONE,
#define CS_MSG(id, lower, from, to, phase, max, fds) CS_MSG_##id,
#include "ipc/messages.def"
#undef CS_MSG
    CS_MSG_MAX
};

/* struct cs_msg_auth_start { struct cs_slice protocol; … } and so on: one struct per message.
 * Slices of a received message are borrowed from the channel until the handler returns (for an
 * answer: until cs_call_done). MAX_BYTES counts the whole message. */
#define CS_MSG(id, lower, from, to, phase, max, fds)                                               \
    struct cs_msg_##lower {                                                                        \
        CS_FIELDS_##id(CS_FIELD_MEMBER) uint8_t end_;                                              \
    };
#include "ipc/messages.def"
#undef CS_MSG

const char *cs_msg_name(enum cs_msg_type t);
/* Bytes written into out (≤ cap), or 0 when they do not fit. `msg` points to the matching struct.
 */
size_t cs_msg_encode(enum cs_msg_type t, uint32_t corr, const void *msg, void *out, size_t cap);
/* Strict. `ret` points to the matching struct; slices borrow from `in`. Pure. */
bool cs_msg_decode(struct cs_slice in, enum cs_msg_type *ret_type, uint32_t *ret_corr, void *ret,
                   size_t ret_size);
enum { CS_MSG_STRUCT_MAX = 512 }; /* no message struct is larger */

/* ---- a channel ---- */
struct cs_channel;
struct cs_channel_in { /* one received message, as a handler sees it */
    enum cs_msg_type type;
    uint32_t corr;   /* to be given back in the answer; 0 = none is expected */
    const void *msg; /* the decoded struct, borrowed */
    int fd[3];       /* owned by the handler; -1 where none came */
};
/* Closes what came with a message that the handler has no use for: the table lets a peer send an
 * answer's message that is no answer, descriptors and all. */
void cs_channel_in_close(const struct cs_channel_in *in);
/* Called in the channel's reading coroutine for every message that is not an answer to a call of
 * ours. It may wait only briefly: long work gets a coroutine of its own (copy what it needs). */
typedef void (*cs_channel_fn)(struct cs_channel *c, const struct cs_channel_in *in, void *arg);
/* Called once when the peer is gone or broke the table; the channel is dead but not yet freed:
 * close it then or later. Not called after cs_channel_close, nor when the loop stops. */
typedef void (*cs_channel_gone_fn)(struct cs_channel *c, void *arg);

/* Takes over fd (also on failure) and starts a reading coroutine. `self` and `peer` decide what may
 * be sent and received. */
enum cs_err cs_channel_open(struct cs_loop *loop, int fd, enum cs_role self, enum cs_role peer,
                            uint64_t peer_index, cs_channel_fn on_message,
                            cs_channel_gone_fn on_gone, void *arg,
                            struct cs_channel **ret) CS_MUST_CHECK;
/* Pending calls fail with CS_ERR_UNAVAILABLE. The struct is freed when its coroutines have ended,
 * which is after the current handler and not before the loop runs again. */
void cs_channel_close(struct cs_channel *c);
/* The descriptor, borrowed, for handing the channel to another program of this process: whatever
 * the peer has sent and nobody has read waits in it. -1 while something of ours has not left, or it
 * is dead. */
int cs_channel_fd(const struct cs_channel *c);
bool cs_channel_alive(const struct cs_channel *c);
/* Why the channel died when the peer broke the table (a literal, for CS_EV_IPC_BROKEN), or NULL
 * when it just went away. */
const char *cs_channel_broken_why(const struct cs_channel *c);
enum cs_role cs_channel_peer(const struct cs_channel *c);
uint64_t cs_channel_peer_index(const struct cs_channel *c);
void *cs_channel_arg(const struct cs_channel *c);
/* After READY was sent or received: messages of phase RUN are in order. */
void cs_channel_run_phase(struct cs_channel *c);

/* Sends, or queues what the socket does not take now (never waits); descriptors are duplicated by
 * the kernel, the caller keeps its own. With a corr it is the answer to the peer's call of that
 * number. CS_ERR_UNAVAILABLE when the peer is gone, does not read (bounded queue) or is in another
 * phase, TOO_LARGE beyond the table. What the table forbids in direction or descriptors is our bug
 * and ends the process. */
enum cs_err cs_channel_send(struct cs_channel *c, enum cs_msg_type t, uint32_t corr,
                            const void *msg, const int *fds, size_t n_fds) CS_MUST_CHECK;

/* ---- a call: send and wait for the answer ---- */
struct cs_call {
    uint32_t corr;         /* of the call itself, 0 when it was not sent: API_GONE names it */
    enum cs_msg_type type; /* of the answer: to be checked before `msg` is looked at */
    union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } msg;          /* the decoded answer; slices point into `bytes` */
    uint8_t *bytes; /* owned */
    int fd[3];      /* owned */
};
/* Waits in a coroutine, not in the channel's own handler (which would wait for itself). TIMEOUT,
 * CANCELLED, UNAVAILABLE, TOO_LARGE, NO_MEMORY. Free with cs_call_done in every case. An answer
 * that comes too late is dropped with its descriptors. */
enum cs_err cs_channel_call(struct cs_channel *c, enum cs_msg_type t, const void *msg,
                            const int *fds, size_t n_fds, uint64_t deadline_ns,
                            struct cs_call *ret) CS_MUST_CHECK;
void cs_call_done(struct cs_call *call);

/* ---- sealed memory ---- */
/* A memfd with these bytes, sealed against every change. */
enum cs_err cs_sealed_make(const char *name, struct cs_slice bytes, int *ret_fd) CS_MUST_CHECK;
/* Maps a memfd that must carry the seals write, grow and shrink and hold at most `max` bytes: an
 * unsealed one could change between check and use, or fault under our feet. */
enum cs_err cs_sealed_map(int fd, size_t max, struct cs_slice *ret) CS_MUST_CHECK;
void cs_sealed_unmap(struct cs_slice s);

#endif
