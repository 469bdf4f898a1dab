/* The SQLite connection: opening it safely, the store's clock, prepared statements, and what each
 * failure means. Used by the writer thread only (and by cs_store_open before that thread exists).
 * It must never retry a failed fsync: what the kernel dropped once is gone. */
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

static const char *const sql_texts[CS_SQL_MAX] = {
#define CS_SQL(id, text) [CS_SQL_##id] = (text),
#include "store/sql.def"
#undef CS_SQL
};

/* ---- failures ---- */

/* errno of the last failure on a file of the database, as SQLite noted it. */
static int file_errno(const struct cs_db *db, int which)
{
    sqlite3_file *f = NULL;
    int e = 0;
    if (sqlite3_file_control(db->handle, "main", which, (void *)&f) == SQLITE_OK && f != NULL &&
        f->pMethods != NULL) {
        (void)f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &e);
    }
    return e;
}

static bool means_full(int e)
{
    return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

/* A write that failed for want of space has changed nothing that counts and may be tried again; so
 * may no other input or output error. (SQLite itself knows ENOSPC only, not quotas and limits.) */
static bool no_space(const struct cs_db *db, int rc)
{
    if ((rc & 0xff) == SQLITE_FULL) {
        return true;
    }
    if (rc != SQLITE_IOERR_WRITE && rc != SQLITE_IOERR_TRUNCATE) {
        return false;
    }
    return means_full(file_errno(db, SQLITE_FCNTL_JOURNAL_POINTER)) ||
           means_full(file_errno(db, SQLITE_FCNTL_FILE_POINTER));
}

static enum cs_err meaning(const struct cs_db *db, int rc)
{
    if (no_space(db, rc)) {
        return CS_ERR_NO_SPACE;
    }
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return CS_ERR_NO_MEMORY;
    case SQLITE_CONSTRAINT:
        return rc == SQLITE_CONSTRAINT_PRIMARYKEY || rc == SQLITE_CONSTRAINT_UNIQUE
                   ? CS_ERR_EXISTS
                   : CS_ERR_INTERNAL;
    case SQLITE_TOOBIG:
        return CS_ERR_TOO_LARGE;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_PROTOCOL:
        return CS_ERR_IO;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return CS_ERR_CORRUPT;
    default:
        return CS_ERR_INTERNAL;
    }
}

enum cs_err cs_db_failed(struct cs_db *db, int rc)
{
    enum cs_err err = meaning(db, rc);
    if (err == CS_ERR_IO || err == CS_ERR_CORRUPT) {
        db->fatal = true;
    }
    if (db->err == CS_OK) {
        db->err = err;
        (void)snprintf(db->why, sizeof db->why, "%s (SQLite %d, errno %d)",
                       sqlite3_errmsg(db->handle), rc, sqlite3_system_errno(db->handle));
    }
    return err;
}

enum cs_err cs_db_exec(struct cs_db *db, const char *sql)
{
    int rc = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? CS_OK : cs_db_failed(db, sqlite3_extended_errcode(db->handle));
}

bool cs_db_in_transaction(const struct cs_db *db)
{
    return sqlite3_get_autocommit(db->handle) == 0;
}

/* ---- the clock ---- */

void cs_db_clock(struct cs_db *db)
{
    uint64_t mono = cs_mono_ns();
    uint64_t wall = db->wall_ms();
    uint64_t least = db->clock_wall;
    /* Set back, the machine's clock would revive what has expired; it goes on from where it was. A
     * test's clock stands still on purpose. */
    if (db->wall_ms == cs_wall_ms) {
        least += (mono - db->clock_mono) / CS_NS_PER_MS;
    }
    if (wall >= least) {
        db->clock_wall = wall;
        db->clock_mono = mono;
        db->now = wall;
    } else {
        db->now = least;
    }
}

/* ---- opening ---- */

static int on_wal(void *arg, sqlite3 *handle, const char *name, int pages)
{
    (void)handle;
    (void)name;
    ((struct cs_db *)arg)->wal_pages = pages;
    return SQLITE_OK;
}

/* Two processes on one file would be two owners of one truth (and SQLite before 3.51.3 can corrupt
 * a file when two connections checkpoint at one moment). */
static enum cs_err lock_take(struct cs_db *db, const char *path)
{
    char name[1024];
    int n = snprintf(name, sizeof name, "%s.lock", path);
    if (n < 0 || (size_t)n >= sizeof name) {
        return CS_ERR_INVALID;
    }
    db->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (db->lock_fd < 0) {
        (void)snprintf(db->why, sizeof db->why, "lock file %.120s: errno %d", name, errno);
        return cs_err_from_errno(errno);
    }
    if (flock(db->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        (void)snprintf(db->why, sizeof db->why, "another process has the store open");
        return CS_ERR_CONFLICT;
    }
    return CS_OK;
}

/* Made by us with mode 0600 (SQLite gives the journal the same), and its name made durable. */
static enum cs_err file_make(struct cs_db *db, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        (void)snprintf(db->why, sizeof db->why, "%.120s: errno %d", path, errno);
        return cs_err_from_errno(errno);
    }
    (void)close(fd);
    char copy[1024];
    int n = snprintf(copy, sizeof copy, "%s", path);
    if (n < 0 || (size_t)n >= sizeof copy) {
        return CS_ERR_INVALID;
    }
    int dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cs_err err = CS_OK;
    if (dir < 0 || fsync(dir) != 0) {
        (void)snprintf(db->why, sizeof db->why, "the directory of %.120s: errno %d", path, errno);
        err = CS_ERR_IO;
    }
    if (dir >= 0) {
        (void)close(dir);
    }
    return err;
}

static enum cs_err expect_text(struct cs_db *db, const char *sql, const char *expected)
{
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(db->handle, sql, -1, &st, NULL);
    if (rc != SQLITE_OK) {
        return cs_db_failed(db, rc);
    }
    enum cs_err err = CS_OK;
    rc = sqlite3_step(st);
    if (rc != SQLITE_ROW) {
        err = cs_db_failed(db, rc == SQLITE_DONE ? SQLITE_CORRUPT : rc);
    } else {
        const char *text = (const char *)sqlite3_column_text(st, 0);
        if (text == NULL || strcmp(text, expected) != 0) {
            (void)snprintf(db->why, sizeof db->why, "%s says: %.120s", sql,
                           text != NULL ? text : "nothing");
            err = CS_ERR_CORRUPT;
        }
    }
    (void)sqlite3_finalize(st);
    return err;
}

static enum cs_err settings(struct cs_db *db)
{
    static const struct {
        int op, value;
    } config[] = {{SQLITE_DBCONFIG_DEFENSIVE, 1},      {SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
                  {SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}, {SQLITE_DBCONFIG_ENABLE_VIEW, 0},
                  {SQLITE_DBCONFIG_DQS_DML, 0},        {SQLITE_DBCONFIG_DQS_DDL, 0},
                  {SQLITE_DBCONFIG_ENABLE_FKEY, 1},    {SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0}};
    for (size_t i = 0; i < CS_ARRAY_LEN(config); i++) {
        int rc = sqlite3_db_config(db->handle, config[i].op, config[i].value, NULL);
        if (rc != SQLITE_OK) {
            return cs_db_failed(db, rc);
        }
    }
    (void)sqlite3_limit(db->handle, SQLITE_LIMIT_ATTACHED, 0);
    /* An exclusive lock from the first access on: the index of the journal lives on the heap, there
     * is no shared-memory file and no second connection. */
    enum cs_err err = cs_db_exec(db, "PRAGMA locking_mode = EXCLUSIVE;"
                                     "PRAGMA temp_store = MEMORY;"
                                     "PRAGMA mmap_size = 0;"
                                     "PRAGMA cell_size_check = ON;"
                                     "PRAGMA secure_delete = ON;"
                                     "PRAGMA busy_timeout = 5000;");
    err = err != CS_OK ? err : expect_text(db, "PRAGMA journal_mode = WAL", "wal");
    err = err != CS_OK ? err
                       : cs_db_exec(db, "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0");
    err = err != CS_OK ? err : expect_text(db, "PRAGMA quick_check(1)", "ok");
    return err;
}

static enum cs_err prepare_all(struct cs_db *db)
{
    for (size_t i = 0; i < CS_SQL_MAX; i++) {
        int rc = sqlite3_prepare_v3(db->handle, sql_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &db->stmts[i], NULL);
        if (rc != SQLITE_OK) {
            return cs_db_failed(db, rc);
        }
    }
    return CS_OK;
}

static enum cs_err start_values(struct cs_db *db)
{
    struct cs_q q = cs_q(db, NULL, CS_SQL_REQUEST_MAX_SEQ);
    enum cs_err err = cs_q_number(&q, &db->seq);
    if (err != CS_OK) {
        return err;
    }
    q = cs_q(db, NULL, CS_SQL_CLOCK_LAST);
    err = cs_q_number(&q, &db->clock_wall);
    db->clock_mono = cs_mono_ns();
    cs_db_clock(db);
    return err;
}

enum cs_err cs_db_open(struct cs_db *db, const char *path, uint64_t (*wall_ms)(void), char *why,
                       size_t why_size)
{
    *db = (struct cs_db){.lock_fd = -1, .wall_ms = wall_ms != NULL ? wall_ms : cs_wall_ms};
    enum cs_err err = lock_take(db, path);
    err = err != CS_OK ? err : file_make(db, path);
    if (err == CS_OK) {
        int rc = sqlite3_open_v2(path, &db->handle,
                                 SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
                                     SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE,
                                 NULL);
        err = rc == SQLITE_OK ? CS_OK : cs_db_failed(db, rc);
    }
    if (err == CS_OK) {
        (void)sqlite3_wal_hook(db->handle, on_wal, db);
    }
    err = err != CS_OK ? err : settings(db);
    if (err == CS_OK) {
        /* The default hook of wal_autocheckpoint replaced ours. */
        (void)sqlite3_wal_hook(db->handle, on_wal, db);
    }
    err = err != CS_OK ? err : cs_db_migrate(db);
    err = err != CS_OK ? err : prepare_all(db);
    err = err != CS_OK ? err : start_values(db);
    if (err != CS_OK) {
        (void)snprintf(why, why_size, "%.100s: %s", path,
                       db->why[0] != '\0' ? db->why : cs_err_text(err));
        cs_db_close(db);
    }
    return err;
}

void cs_db_close(struct cs_db *db)
{
    for (size_t i = 0; i < CS_SQL_MAX; i++) {
        (void)sqlite3_finalize(db->stmts[i]);
        db->stmts[i] = NULL;
    }
    if (db->handle != NULL) {
        int rc = sqlite3_close(db->handle);
        cs_assert(rc == SQLITE_OK);
        db->handle = NULL;
    }
    if (db->lock_fd >= 0) {
        (void)close(db->lock_fd);
        db->lock_fd = -1;
    }
}

void cs_db_checkpoint(struct cs_db *db, bool all)
{
    int mode = all ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;
    int rc = sqlite3_wal_checkpoint_v2(db->handle, NULL, mode, NULL, NULL);
    db->wal_pages = 0;
    if (rc != SQLITE_OK && rc != SQLITE_BUSY) {
        /* Out of space here costs nothing but a longer journal: it is tried again later. */
        (void)cs_db_failed(db, rc);
    }
}

/* ---- statements ---- */

struct cs_q cs_q(struct cs_db *db, struct cs_op *op, enum cs_sql id)
{
    return (struct cs_q){.db = db, .op = op, .st = db->stmts[id]};
}

static void bound(struct cs_q *q, int rc)
{
    if (rc != SQLITE_OK) {
        (void)cs_db_failed(q->db, rc);
    }
}

void cs_q_text(struct cs_q *q, struct cs_slice s)
{
    bound(q, sqlite3_bind_text64(q->st, ++q->in, s.n > 0 ? (const char *)s.p : "", s.n,
                                 SQLITE_STATIC, SQLITE_UTF8));
}

void cs_q_str(struct cs_q *q, const char *s)
{
    cs_q_text(q, cs_slice_str(s));
}

void cs_q_blob(struct cs_q *q, const void *p, size_t n)
{
    bound(q, sqlite3_bind_blob64(q->st, ++q->in, n > 0 ? p : "", n, SQLITE_STATIC));
}

void cs_q_u64(struct cs_q *q, uint64_t v)
{
    bound(q, sqlite3_bind_int64(q->st, ++q->in, (sqlite3_int64)v));
}

void cs_q_id(struct cs_q *q, const struct cs_id *id)
{
    if (cs_id_is_zero(id)) {
        bound(q, sqlite3_bind_null(q->st, ++q->in));
    } else {
        cs_q_blob(q, id->b, sizeof id->b);
    }
}

bool cs_q_row(struct cs_q *q)
{
    if (q->db->err != CS_OK) {
        return false;
    }
    q->out = 0;
    int rc = sqlite3_step(q->st);
    if (rc == SQLITE_ROW) {
        return true;
    }
    if (rc != SQLITE_DONE) {
        (void)cs_db_failed(q->db, rc);
    }
    return false;
}

struct cs_slice cs_q_get(struct cs_q *q)
{
    int col = q->out++;
    const void *p = sqlite3_column_blob(q->st, col);
    size_t n = (size_t)sqlite3_column_bytes(q->st, col);
    return cs_op_keep(q->op, cs_slice(p, p != NULL ? n : 0));
}

uint64_t cs_q_get_u64(struct cs_q *q)
{
    return (uint64_t)sqlite3_column_int64(q->st, q->out++);
}

void cs_q_get_bytes(struct cs_q *q, void *ret, size_t n)
{
    int col = q->out++;
    const void *p = sqlite3_column_blob(q->st, col);
    if (p == NULL || (size_t)sqlite3_column_bytes(q->st, col) != n) {
        memset(ret, 0, n);
        if (q->db->err == CS_OK) {
            q->db->err = CS_ERR_CORRUPT;
        }
        return;
    }
    memcpy(ret, p, n);
}

struct cs_id cs_q_get_id(struct cs_q *q)
{
    struct cs_id id = {{0}};
    if (sqlite3_column_type(q->st, q->out) == SQLITE_NULL) {
        q->out++;
    } else {
        cs_q_get_bytes(q, id.b, sizeof id.b);
    }
    return id;
}

enum cs_err cs_q_end(struct cs_q *q)
{
    (void)sqlite3_reset(q->st);
    (void)sqlite3_clear_bindings(q->st);
    return q->db->err;
}

enum cs_err cs_q_run(struct cs_q *q, uint64_t *ret_changed)
{
    while (cs_q_row(q)) {
    }
    if (ret_changed != NULL) {
        *ret_changed = q->db->err == CS_OK ? (uint64_t)sqlite3_changes64(q->db->handle) : 0;
    }
    return cs_q_end(q);
}

enum cs_err cs_q_number(struct cs_q *q, uint64_t *ret)
{
    *ret = cs_q_row(q) ? cs_q_get_u64(q) : 0;
    return cs_q_end(q);
}
