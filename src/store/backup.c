/* A copy of the store while it is in use: the writer thread copies some pages between two batches,
 * and SQLite carries every change that a batch makes over to what was copied already, because it is
 * made on the same connection. Called by store.c. What it makes is whole or not called so: a copy
 * that did not come to its end is removed. It must never make the store itself fail. */
#include "store/store_internal.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

enum { PAGES_A_TURN = 256 }; /* 1 MiB: what a commit may wait for */

static enum cs_err meaning(int rc)
{
    int kind = rc & 0xff;
    return kind == SQLITE_OK || kind == SQLITE_DONE ? CS_OK
           : kind == SQLITE_FULL                    ? CS_ERR_NO_SPACE
           : kind == SQLITE_NOMEM                   ? CS_ERR_NO_MEMORY
                                                    : CS_ERR_IO;
}

static void remove_both(const struct cs_backup *b)
{
    char journal[sizeof b->path + 16];
    (void)snprintf(journal, sizeof journal, "%s-journal", b->path);
    (void)unlink(b->path);
    (void)unlink(journal);
}

/* SECURITY: a file of ours, 0600 from its beginning: secrets are sealed in it, requests are not. */
static enum cs_err begin(struct cs_db *db, struct cs_backup *b)
{
    remove_both(b);
    int fd = open(b->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return CS_ERR_IO;
    }
    (void)close(fd);
    int rc = sqlite3_open_v2(b->path, &b->to,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW |
                                 SQLITE_OPEN_EXRESCODE,
                             NULL);
    if (rc == SQLITE_OK) {
        b->copy = sqlite3_backup_init(b->to, "main", db->handle, "main");
        rc = b->copy != NULL ? SQLITE_OK : sqlite3_extended_errcode(b->to);
    }
    return meaning(rc);
}

/* The name is durable too. */
static enum cs_err settle(const struct cs_backup *b)
{
    char copy[sizeof b->path];
    (void)snprintf(copy, sizeof copy, "%s", b->path);
    int dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum cs_err err = dir >= 0 && fsync(dir) == 0 ? CS_OK : CS_ERR_IO;
    if (dir >= 0) {
        (void)close(dir);
    }
    return err;
}

static void end(struct cs_backup *b, enum cs_err err)
{
    if (b->copy != NULL) {
        enum cs_err last = meaning(sqlite3_backup_finish(b->copy));
        err = err == CS_OK ? last : err;
    }
    if (b->to != NULL) {
        enum cs_err last = meaning(sqlite3_close(b->to));
        err = err == CS_OK ? last : err;
    }
    b->copy = NULL;
    b->to = NULL;
    err = err == CS_OK ? settle(b) : err;
    if (err != CS_OK) {
        remove_both(b);
    }
    b->err = err;
}

bool cs_backup_turn(struct cs_db *db, struct cs_backup *b, bool stop)
{
    enum cs_err err = stop || db->fatal ? CS_ERR_CANCELLED : CS_OK;
    int rc = SQLITE_OK;
    if (err == CS_OK && b->to == NULL) {
        err = begin(db, b);
    }
    if (err == CS_OK) {
        rc = sqlite3_backup_step(b->copy, PAGES_A_TURN);
        err = meaning(rc);
    }
    if (err == CS_OK && rc != SQLITE_DONE) {
        return false;
    }
    end(b, err);
    return true;
}
