/* Checking evidence from files and public keys alone: a recordings directory with its log, a log,
 * one recording, a bundle; and making a bundle. No server, no decryption. Every file is hostile:
 * made by somebody who wants this program to crash, or to say that all is well. */
#ifndef CS_VERIFY_VERIFY_H
#define CS_VERIFY_VERIFY_H

#include "audit/check.h"
#include "record/csr_read.h"
#include "verify/history.h"
#include "verify/journal.h"

/* What is checked, and with what. */
struct cs_verify {
    int dir;                        /* the recordings directory; borrowed; -1: none */
    const struct cs_audit_key *key; /* of the log; NULL: what a directory or bundle says itself */
    struct cs_slice since;          /* an older checkpoint, or empty */
    const struct cs_id *session;    /* this one only; NULL: all */
};

/* ---- the log and the recordings of a directory ---- */

/* Files below a directory, as a log's source. */
struct cs_audit_source cs_verify_files(const int *dir);
/* Opens a regular file for reading, not by way of a link; CS_ERR_CORRUPT when it is none. */
enum cs_err cs_verify_open(int dir, const char *name, int *ret_fd,
                           uint64_t *ret_size) CS_MUST_CHECK;
/* The log's directory: `log` in it, or itself. NOT_FOUND. */
enum cs_err cs_verify_log_open(int dir, int *ret_fd) CS_MUST_CHECK;
/* The key that lies beside a log. */
enum cs_err cs_verify_key(int log, struct cs_audit_key *ret) CS_MUST_CHECK;

/* Everything: the log, then each recording against it. */
void cs_verify_directory(const struct cs_verify *v, struct cs_report *report);
/* The log alone, into `h` (made by the caller), with what the journal has of it (`j` may be NULL).
 * False: it is not intact, and h says nothing. */
bool cs_verify_log(const struct cs_verify *v, int log, struct cs_verify_journal *j,
                   struct cs_history *h, struct cs_report *report);

/* ---- one recording ---- */
struct cs_verify_recording {
    struct cs_csr_source in;
    const char *file;
    struct cs_id session;
    bool foreign; /* what another gate wrote about the session; its log has no leaves */
    uint64_t epoch;
    const struct cs_history *history;  /* NULL: there is no intact log to compare with */
    struct cs_verify_overlay *overlay; /* NULL: the file alone; else `in` is of it */
    /* found */
    uint64_t good; /* bytes up to the end of the last good frame */
};
void cs_verify_recording(struct cs_verify_recording *x, struct cs_report *report);

/* ---- bundles: docs/format.md ---- */

/* What goes out, piece by piece. */
struct cs_verify_sink {
    bool (*put)(void *ctx, struct cs_slice bytes);
    void *ctx; /* borrowed */
};
/* Makes the bundle of v->session. What is in the way of it is in the report; false then. */
bool cs_verify_export(const struct cs_verify *v, struct cs_verify_sink to,
                      struct cs_report *report);
/* A file that begins like a bundle. */
bool cs_verify_is_bundle(struct cs_csr_source in);
/* `key` may be NULL: then with the key that is in it, which the report says. */
void cs_verify_bundle(struct cs_csr_source in, const struct cs_audit_key *key,
                      struct cs_report *report);

#endif
