/* Evidence for tests, made with the library: recordings, and a log that anchors them, as a gateway
 * leaves them in its recordings directory. Every session's content is made up. */
#ifndef CS_TEST_EVIDENCE_H
#define CS_TEST_EVIDENCE_H

#include "audit/leaf.h"
#include "audit/note.h"
#include "audit/tile.h"
#include "record/csr_read.h"

struct evidence {
    char dir[256];
    struct cs_audit_key key;
    uint8_t private[CS_ED25519_KEY], holder[CS_X25519];
    struct cs_audit_writer *log;
    uint64_t now_ms, leaves;
};
/* Everything here ends the program when it fails. */
void evidence_begin(struct evidence *e, const char *dir);
/* Signs what there is, and forgets. */
void evidence_done(struct evidence *e);
/* The checkpoint goes to `name` in the directory, too, when it is not NULL. */
void evidence_sign(struct evidence *e, const char *name);
/* A leaf; time is e->now_ms, which goes on. */
void evidence_leaf(struct evidence *e, struct cs_leaf *l);
/* Leaves that are only there to be many. */
void evidence_fill(struct evidence *e, unsigned n);

struct evidence_session {
    struct evidence *e;
    struct cs_id id;
    struct cs_csr_to to;
    struct cs_gcm *gcm;
    struct cs_csr_stream *stream;
    struct cs_csr_writer w;
    struct cs_buf file;
    uint64_t n; /* actions */
};
struct cs_id evidence_id(uint8_t number);
/* Its leaf too. */
void evidence_open(struct evidence_session *s, struct evidence *e, uint8_t number);
/* A frame with one event of so many bytes. */
void evidence_frame(struct evidence_session *s, size_t bytes);
/* As after a crash of the recorder: it goes on with a RECOVER frame and a new key. */
void evidence_recover(struct evidence_session *s);
/* A leaf about how far it has come. */
void evidence_anchor(struct evidence_session *s);
/* What a request and its way through the gateway leave. Digests are made of one byte. */
void evidence_held(struct evidence_session *s, const char *request, uint8_t digest);
void evidence_vote(struct evidence *e, const char *request, uint8_t digest, bool yes);
void evidence_use(struct evidence_session *s, const char *request, uint8_t grant, uint8_t digest);
void evidence_result(struct evidence_session *s, const char *request, uint8_t grant);
/* END frame; then its leaf, unless `silent`. */
void evidence_close(struct evidence_session *s, bool silent);
/* The file as it stands goes into the directory. Then nothing is left of it here. */
void evidence_save(struct evidence_session *s);

/* The usual set: session 1 complete with a held action, 2 complete, 3 still open; `older` is a
 * checkpoint from between. `extra` leaves fill the log. */
void evidence_usual(const char *dir, unsigned extra, bool finished);

/* A complete session with many RESETs, several INDEX frames and epochs. */
void evidence_indexed(const char *dir);

#endif
