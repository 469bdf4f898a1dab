/* The tables, as numbered steps that only go forward. A step that has shipped is never edited: a
 * change is a new step. Called once at open; a file of a newer version is refused untouched. */
#include "store/store_internal.h"

#include <stdio.h>

/* clang-format off */
static const char *const step_1[] = {
"CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;",
"CREATE TABLE principal(id TEXT PRIMARY KEY, kind INTEGER NOT NULL CHECK(kind IN (1, 2, 3)), name TEXT NOT NULL,"
" owner TEXT REFERENCES principal(id), created INTEGER NOT NULL, disabled_at INTEGER NOT NULL DEFAULT 0,"
" token_sha256 BLOB NOT NULL UNIQUE, salt BLOB NOT NULL, iterations INTEGER NOT NULL, stored_key BLOB NOT NULL,"
" server_key BLOB NOT NULL, CHECK((kind = 2) = (owner IS NOT NULL))) STRICT, WITHOUT ROWID;",
"CREATE TABLE principal_group(principal TEXT NOT NULL REFERENCES principal(id), name TEXT NOT NULL,"
" PRIMARY KEY(principal, name)) STRICT, WITHOUT ROWID;",
"CREATE TABLE secret(name TEXT PRIMARY KEY, version INTEGER NOT NULL, box BLOB NOT NULL, changed INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
"CREATE TABLE session(id BLOB PRIMARY KEY, chain BLOB NOT NULL, root TEXT NOT NULL, actor TEXT NOT NULL, target TEXT NOT NULL,"
" gate INTEGER NOT NULL, address TEXT NOT NULL, database TEXT NOT NULL DEFAULT '', application TEXT NOT NULL DEFAULT '',"
" opened INTEGER NOT NULL, closed INTEGER NOT NULL DEFAULT 0, why TEXT NOT NULL DEFAULT '') STRICT, WITHOUT ROWID;",
"CREATE INDEX session_live ON session(gate) WHERE closed = 0;",
"CREATE INDEX session_opened ON session(opened);",
"CREATE TABLE request(id TEXT PRIMARY KEY, state INTEGER NOT NULL CHECK(state BETWEEN 1 AND 9), seq INTEGER NOT NULL DEFAULT 0,"
" session BLOB NOT NULL REFERENCES session(id), chain BLOB NOT NULL, actor TEXT NOT NULL, target TEXT NOT NULL, action BLOB NOT NULL,"
" address TEXT NOT NULL, claimed TEXT NOT NULL, match BLOB NOT NULL, digest BLOB NOT NULL, nonce BLOB NOT NULL,"
" policy_version INTEGER NOT NULL, in_transaction INTEGER NOT NULL CHECK(in_transaction IN (0, 1)),"
" elevated INTEGER NOT NULL CHECK(elevated IN (0, 1)), rule_names TEXT NOT NULL, within_ms INTEGER NOT NULL, valid_ms INTEGER NOT NULL,"
" attach_ms INTEGER NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, decided INTEGER NOT NULL DEFAULT 0,"
" ended INTEGER NOT NULL DEFAULT 0, lost INTEGER NOT NULL DEFAULT 0, by TEXT NOT NULL DEFAULT '', words TEXT NOT NULL DEFAULT '') STRICT;",
/* Two requests for one question cannot exist at once, whatever the code above does. */
"CREATE UNIQUE INDEX request_match ON request(match) WHERE in_transaction = 0 AND state IN (1, 2);",
"CREATE INDEX request_seq ON request(seq);",
"CREATE INDEX request_open ON request(state, actor) WHERE state IN (1, 2);",
/* What expires next, found without looking at every parked request each second. */
"CREATE INDEX request_due ON request(CASE WHEN lost <> 0 THEN min(expires, lost + attach_ms) ELSE expires END) WHERE state IN (1, 2);",
"CREATE INDEX request_created ON request(created);",
"CREATE INDEX request_ended ON request(ended);",
"CREATE TABLE request_party(request TEXT NOT NULL REFERENCES request(id), principal TEXT NOT NULL, PRIMARY KEY(request, principal)) STRICT, WITHOUT ROWID;",
"CREATE INDEX request_party_principal ON request_party(principal);",
"CREATE TABLE request_rule(request TEXT NOT NULL REFERENCES request(id), n INTEGER NOT NULL, name TEXT NOT NULL, title TEXT NOT NULL,"
" quorum INTEGER NOT NULL CHECK(quorum >= 1), PRIMARY KEY(request, n)) STRICT, WITHOUT ROWID;",
"CREATE TABLE request_rule_group(request TEXT NOT NULL, n INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY(request, n, name),"
" FOREIGN KEY(request, n) REFERENCES request_rule(request, n)) STRICT, WITHOUT ROWID;",
"CREATE TABLE attachment(n INTEGER PRIMARY KEY AUTOINCREMENT, request TEXT NOT NULL REFERENCES request(id),"
" session BLOB NOT NULL REFERENCES session(id), UNIQUE(request, session)) STRICT;",
"CREATE INDEX attachment_session ON attachment(session);",
/* Nobody votes twice, and nothing has two grants: the keys say so. */
"CREATE TABLE vote(request TEXT NOT NULL REFERENCES request(id), approver TEXT NOT NULL REFERENCES principal(id),"
" approve INTEGER NOT NULL CHECK(approve IN (0, 1)), digest BLOB NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,"
" PRIMARY KEY(request, approver)) STRICT, WITHOUT ROWID;",
"CREATE INDEX vote_at ON vote(at);",
"CREATE TABLE grants(id BLOB PRIMARY KEY, request TEXT NOT NULL UNIQUE REFERENCES request(id), digest BLOB NOT NULL,"
" session BLOB REFERENCES session(id), state INTEGER NOT NULL CHECK(state BETWEEN 1 AND 5), not_after INTEGER NOT NULL,"
" consumed_by BLOB REFERENCES session(id), consumed_at INTEGER, finished_at INTEGER,"
" CHECK((state IN (2, 3, 4)) = (consumed_by IS NOT NULL))) STRICT, WITHOUT ROWID;",
"CREATE INDEX grants_consumed ON grants(consumed_by) WHERE state = 2;",
    NULL,
};
/* A vote counts when the audit log has it. Votes of before had no log to be in. */
static const char *const step_2[] = {
"ALTER TABLE vote ADD COLUMN logged INTEGER NOT NULL DEFAULT 1 CHECK(logged IN (0, 1));",
"CREATE INDEX vote_unlogged ON vote(at) WHERE logged = 0;",
    NULL,
};
/* clang-format on */

static const char *const *const steps[] = {step_1, step_2};
enum { APPLICATION_ID = 0x43534742 }; /* "CSGB" */

static enum cs_err pragma_number(struct cs_db *db, const char *sql, uint64_t *ret)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &st, NULL);
    if (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        *ret = (uint64_t)sqlite3_column_int64(st, 0);
    }
    rc = sqlite3_finalize(st);
    return rc == SQLITE_OK ? CS_OK : cs_db_failed(db, rc);
}

static enum cs_err step_run(struct cs_db *db, size_t i)
{
    char version[64];
    (void)snprintf(version, sizeof version, "PRAGMA user_version = %zu", i + 1);
    enum cs_err err = cs_db_exec(db, "BEGIN IMMEDIATE");
    for (const char *const *sql = steps[i]; err == CS_OK && *sql != NULL; sql++) {
        err = cs_db_exec(db, *sql);
    }
    err = err != CS_OK ? err : cs_db_exec(db, version);
    err = err != CS_OK ? err : cs_db_exec(db, "COMMIT");
    if (err != CS_OK && cs_db_in_transaction(db)) {
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    }
    return err;
}

enum cs_err cs_db_migrate(struct cs_db *db)
{
    uint64_t version = 0, application = 0, tables = 0;
    enum cs_err err = pragma_number(db, "PRAGMA user_version", &version);
    err = err != CS_OK ? err : pragma_number(db, "PRAGMA application_id", &application);
    err = err != CS_OK ? err : pragma_number(db, "SELECT count(*) FROM sqlite_schema", &tables);
    if (err != CS_OK) {
        return err;
    }
    if (tables == 0 && version == 0 && application == 0) {
        err = cs_db_exec(db, "PRAGMA application_id = 1129531202");
        _Static_assert(APPLICATION_ID == 1129531202, "the same number in both forms");
        application = APPLICATION_ID;
    }
    if (application != APPLICATION_ID) {
        (void)snprintf(db->why, sizeof db->why, "it is a database of some other program");
        return CS_ERR_CORRUPT;
    }
    if (version > CS_ARRAY_LEN(steps)) {
        (void)snprintf(db->why, sizeof db->why,
                       "it was written by a newer version (schema %llu, this one knows %zu)",
                       (unsigned long long)version, CS_ARRAY_LEN(steps));
        return CS_ERR_UNSUPPORTED;
    }
    for (size_t i = version; err == CS_OK && i < CS_ARRAY_LEN(steps); i++) {
        err = step_run(db, i);
    }
    return err;
}
