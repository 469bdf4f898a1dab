/* The audit log as the recorder keeps it (docs/format.md): leaves go into the journal's batch with
 * their number in the log, become part of the tree when the batch is durable, and are written into
 * the log's files from there. The files may be behind the journal, never ahead of it: `head` says
 * up to where they are durable, and the journal keeps every leaf from there on. So a crash at any
 * moment loses no leaf and doubles none.
 *
 * Called by the recorder alone. Whose word a leaf is, is the business of leaves.c and audit_in.c;
 * the signature that of sign.c. */
#ifndef CS_RECORD_LEDGER_H
#define CS_RECORD_LEDGER_H

#include "audit/leaf.h"
#include "audit/note.h"
#include "audit/tile.h"
#include "record/journal.h"

enum {
    /* of a leaf in the journal: three private values for two holders each */
    CS_LEDGER_LEAF_MAX = 3 * (40 + 2 * (CS_LEAF_BOX_MAX + CS_LEAF_HOLDER_ID + 8)) + 4096,
    CS_LEDGER_ROOM = CS_JOURNAL_HEAD + CS_LEDGER_LEAF_MAX,
    CS_LEDGER_EVENTS = 512, /* of control's, remembered so that none gets two leaves */
    CS_LEDGER_USES = 1024,  /* of grants, whose result has not come */
    CS_LEDGER_HEAD_MAX = CS_AUDIT_CHECKPOINT_MAX + CS_LEDGER_EVENTS * 40,
};

struct cs_ledger;

/* Opens `log` beneath the directory, or makes it. CORRUPT: its files are not what `head` says of
 * them; nothing may be added then. *ret_why is a sentence. Blocks. */
enum cs_err cs_ledger_open(int dir, struct cs_ledger **ret, const char **ret_why) CS_MUST_CHECK;
void cs_ledger_free(struct cs_ledger *l);

/* Pure: the file `head`. False: it is none. The lines of the events stand in *ret_events. */
bool cs_ledger_head_read(struct cs_slice text, struct cs_audit_checkpoint *ret,
                         struct cs_slice *ret_events) CS_MUST_CHECK;
/* Into the batch, as the next leaf: needs CS_LEDGER_ROOM there. */
enum cs_err cs_ledger_put(struct cs_ledger *l, struct cs_journal *j,
                          const struct cs_leaf *leaf) CS_MUST_CHECK;
/* An entry LEAF that is durable in the journal: from a batch, or read back by recovery. One that is
 * in the files already is compared with nothing and passed over. CORRUPT: leaves are missing. */
enum cs_err cs_ledger_add(struct cs_ledger *l, uint64_t index, struct cs_slice leaf) CS_MUST_CHECK;

/* Leaves that are durable, and those of them that are signed. */
uint64_t cs_ledger_size(const struct cs_ledger *l);
uint64_t cs_ledger_signed(const struct cs_ledger *l);
/* What is in the log's files, as flush gave it last. */
void cs_ledger_flushed(const struct cs_ledger *l, uint64_t *ret_size,
                       struct cs_audit_hash *ret_root);
/* Monotonic: since when there is a leaf without a signature; 0: there is none. */
uint64_t cs_ledger_unsigned_since(const struct cs_ledger *l);
/* log.pub is there: which key has to sign is settled. */
bool cs_ledger_has_key(const struct cs_ledger *l);
/* A session has ended since the last signature: nobody should wait for that one long. */
bool cs_ledger_hurries(const struct cs_ledger *l);

/* An event of control's has its leaf already, in the log or in the batch. */
bool cs_ledger_knows(const struct cs_ledger *l, const struct cs_id *event);
/* The request and grant of an action that runs under a grant. False: none, or it had its result. */
struct cs_ledger_use {
    struct cs_id session, grant;
    uint64_t n;
    char request[CS_REQUEST_ID_TEXT];
};
bool cs_ledger_use_of(const struct cs_ledger *l, const struct cs_id *session, uint64_t n,
                      struct cs_ledger_use *ret);

/* ---- the files ---- */
/* All leaves are in their files, as far as the kernel is concerned; what may be signed. */
enum cs_err cs_ledger_flush(struct cs_ledger *l, uint64_t *ret_size,
                            struct cs_audit_hash *ret_root) CS_MUST_CHECK;
/* The proof that the log goes on from its first `old` leaves. 0 < old <= size. */
enum cs_err cs_ledger_consistency(struct cs_ledger *l, uint64_t old, uint64_t size,
                                  struct cs_audit_path *ret) CS_MUST_CHECK;
/* The checkpoint of a flushed size, durable before this returns. `key` is written beside it, the
 * first time. CONFLICT: another key than the one that is there. */
enum cs_err cs_ledger_checkpoint(struct cs_ledger *l, uint64_t size, struct cs_slice note,
                                 const struct cs_audit_key *key) CS_MUST_CHECK;

/* Making the files durable, which lets the journal go: prepare on the loop, run anywhere (it
 * touches nothing that the others do), done on the loop. After an error of done the journal must
 * keep what it has; prepare may be called again. */
enum cs_err cs_ledger_sync_prepare(struct cs_ledger *l) CS_MUST_CHECK;
enum cs_err cs_ledger_sync_run(void *ledger) CS_MUST_CHECK;
enum cs_err cs_ledger_sync_done(struct cs_ledger *l) CS_MUST_CHECK;

#endif
