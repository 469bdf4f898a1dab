/* Opening the file: lock, versions, strangers, damage. */
#include "store/world.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

static enum cs_err try_open(struct world *w, const char *path, char *why, size_t n)
{
    struct cs_store *s = NULL;
    enum cs_err err = cs_store_open(w->loop, path, NULL, why, n, &s);
    if (err == CS_OK) {
        cs_store_close(s);
    }
    return err;
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    CS_EQ_U64(sqlite3_open(path, &db), SQLITE_OK);
    CS_EQ_U64(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    CS_EQ_U64(sqlite3_close(db), SQLITE_OK);
}

static void files_private(struct world *w)
{
    char wal[128];
    struct stat st;
    CS_EQ_U64(cs_store_secret_put(w->store, CS_SLICE_LIT("a"), 1, CS_SLICE_LIT("box")), CS_OK);
    CS_EQ_U64(stat(w->path, &st), 0);
    CS_EQ_U64(st.st_mode & 0777, 0600);
    (void)snprintf(wal, sizeof wal, "%s-wal", w->path);
    CS_EQ_U64(stat(wal, &st), 0);
    CS_EQ_U64(st.st_mode & 0777, 0600);
    (void)snprintf(wal, sizeof wal, "%s-shm", w->path);
    CS_CHECK(stat(wal, &st) != 0);
}
CS_TEST(files_are_private_and_there_is_no_shared_memory)
{
    world_run(files_private);
}

static void second_refused(struct world *w)
{
    char why[200] = "";
    CS_EQ_U64(try_open(w, w->path, why, sizeof why), CS_ERR_CONFLICT);
    CS_CHECK(strstr(why, "another process") != NULL);
}
CS_TEST(a_second_opener_is_refused)
{
    world_run(second_refused);
}

static void newer_refused(struct world *w)
{
    char why[200] = "";
    cs_store_close(w->store);
    sql(w->path, "PRAGMA user_version = 999");
    CS_EQ_U64(try_open(w, w->path, why, sizeof why), CS_ERR_UNSUPPORTED);
    CS_CHECK(strstr(why, "newer") != NULL);
    sql(w->path, "PRAGMA user_version = 2"); /* what it was */
    world_open(w);
}
CS_TEST(a_file_of_a_newer_version_is_refused_untouched)
{
    world_run(newer_refused);
}

static void stranger_refused(struct world *w)
{
    char path[128], why[200] = "";
    (void)snprintf(path, sizeof path, "%s/other.db", w->dir);
    sql(path, "CREATE TABLE t(x)");
    CS_EQ_U64(try_open(w, path, why, sizeof why), CS_ERR_CORRUPT);
    CS_CHECK(strstr(why, "other program") != NULL);
}
CS_TEST(a_database_of_another_program_is_refused)
{
    world_run(stranger_refused);
}

static void damage_refused(struct world *w)
{
    char why[200] = "";
    cs_store_close(w->store);
    int fd = open(w->path, O_RDWR);
    CS_CHECK(fd >= 0);
    static const uint8_t junk[3000] = {1, 2, 3};
    for (off_t at = 4096; at < 20 * 4096; at += 4096) {
        CS_EQ_U64(pwrite(fd, junk, sizeof junk, at), sizeof junk);
    }
    (void)close(fd);
    enum cs_err err = try_open(w, w->path, why, sizeof why);
    if (err != CS_ERR_CORRUPT) {
        CS_FAIL("%s: %s", cs_err_name(err), why);
    }
    CS_CHECK(why[0] != '\0');
    CS_EQ_U64(unlink(w->path), 0);
    world_open(w);
}
CS_TEST(a_damaged_file_is_refused)
{
    world_run(damage_refused);
}

static void no_directory(struct world *w)
{
    char path[128], why[200] = "";
    (void)snprintf(path, sizeof path, "%s/none/state.db", w->dir);
    CS_EQ_U64(try_open(w, path, why, sizeof why), CS_ERR_NOT_FOUND);
    CS_CHECK(why[0] != '\0');
}
CS_TEST(a_missing_directory_is_an_error_with_a_sentence)
{
    world_run(no_directory);
}

static void meta_stays(struct world *w)
{
    struct cs_slice v;
    CS_EQ_U64(cs_store_meta_init(w->store, CS_SLICE_LIT("k"), CS_SLICE_LIT("one"), &w->arena, &v),
              CS_OK);
    CS_EQ_STR(v, "one");
    world_restart(w);
    CS_EQ_U64(cs_store_meta_init(w->store, CS_SLICE_LIT("k"), CS_SLICE_LIT("two"), &w->arena, &v),
              CS_OK);
    CS_EQ_STR(v, "one");
}
CS_TEST(meta_values_are_set_once_and_survive_a_restart)
{
    world_run(meta_stays);
}
