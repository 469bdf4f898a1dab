/* What channel.c, call.c and message.c share: the message table, the header, pending calls. Nobody
 * outside ipc/ includes this. */
#ifndef CS_IPC_CHANNEL_INTERNAL_H
#define CS_IPC_CHANNEL_INTERNAL_H

#include "ipc/ipc.h"

enum { CS_MSG_HEADER = 8, CS_MSG_FDS = 3 };

/* The second u16 of the header. SECURITY: the two sides number their calls independently; without
 * the flag a peer's request could be taken for the answer to a call of ours. */
enum { CS_MSG_FLAG_ANSWER = 1 };

enum cs_msg_phase { CS_PHASE_NEVER, CS_PHASE_BOOT, CS_PHASE_RUN, CS_PHASE_EVER };

struct cs_msg_row {
    const char *name;
    const struct cs_field *(*fields)(size_t *ret_n);
    size_t size; /* of the struct */
    enum cs_role from, to;
    enum cs_msg_phase phase;
    uint32_t max_bytes; /* of the whole message */
    uint8_t fds;
};

/* NULL for a type that does not exist. */
const struct cs_msg_row *cs_msg_row(unsigned type);
bool cs_msg_may_pass(const struct cs_msg_row *row, enum cs_role from, enum cs_role to, bool run);
/* The flag of an encoded message. */
void cs_msg_set_answer(uint8_t *encoded);
bool cs_msg_decode_flags(struct cs_slice in, enum cs_msg_type *ret_type, uint32_t *ret_corr,
                         bool *ret_answer, void *ret, size_t ret_size);

/* A call that waits for its answer; lives on the stack of the coroutine that waits. */
struct cs_pending {
    struct cs_pending *next, **at;
    uint32_t corr;
    enum cs_err err; /* when done */
    struct cs_event done;
    struct cs_call *call;
};

struct cs_out_msg {
    struct cs_out_msg *next;
    size_t n;
    int fd[CS_MSG_FDS]; /* owned */
    uint8_t n_fds;
    uint8_t bytes[];
};

struct cs_channel {
    struct cs_loop *loop;
    struct cs_fd fd;
    enum cs_role self, peer;
    uint64_t peer_index;
    cs_channel_fn on_message;
    cs_channel_gone_fn on_gone;
    void *arg;
    bool run, dead, closed;
    const char *why; /* literal: how the peer broke the table */
    cs_handle reader, writer;
    unsigned coroutines; /* that still run */
    struct cs_pending *pending;
    uint32_t last_corr;
    struct cs_out_msg *out_first, **out_last;
    size_t out_n, out_bytes;
    struct cs_event out_waiting;
};

/* As cs_channel_send; a call has a correlation id without being an answer. */
enum cs_err cs_channel_send_as(struct cs_channel *c, enum cs_msg_type t, uint32_t corr, bool answer,
                               const void *msg, const int *fds, size_t n_fds) CS_MUST_CHECK;

#endif
