/* A scratch directory for one test, and frames to put into it. */
#ifndef CS_TEST_RECORD_SCRATCH_H
#define CS_TEST_RECORD_SCRATCH_H

#include "action/frame.h"
#include "record/journal.h"
#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { TEST_SEGMENT = CS_SEGMENT_LEAST + 512 * 1024 };

struct scratch {
    char dir[64];
};

static inline struct scratch scratch_make(void)
{
    struct scratch s = {"/tmp/cs-record-XXXXXX"};
    CS_CHECK(mkdtemp(s.dir) != NULL);
    return s;
}

static inline void scratch_path(const struct scratch *s, const char *name, char out[static 400])
{
    (void)snprintf(out, 400, "%s/%s", s->dir, name);
}

/* Calls fn with each file's name; how many names end in `suffix`. */
static inline unsigned scratch_count(const struct scratch *s, const char *suffix)
{
    unsigned n = 0;
    DIR *d = opendir(s->dir);
    CS_CHECK(d != NULL);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        n += cs_slice_ends(cs_slice_str(e->d_name), cs_slice_str(suffix));
    }
    (void)closedir(d);
    return n;
}

static inline void scratch_done(const struct scratch *s)
{
    DIR *d = opendir(s->dir);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        char path[400];
        scratch_path(s, e->d_name, path);
        (void)unlink(path);
    }
    (void)closedir(d);
    CS_CHECK(rmdir(s->dir) == 0);
}

static inline struct cs_id id_of(uint8_t b)
{
    struct cs_id id;
    memset(id.b, b, sizeof id.b);
    return id;
}

/* A NOTE frame. */
static inline size_t note_frame(uint8_t *out, size_t cap, uint8_t session, struct cs_slice text)
{
    struct cs_frame_head head = {CS_FRAME_NOTE, 1763806272123, id_of(session)};
    struct cs_frame_note note = {.text = text};
    struct cs_writer w = cs_writer(out, cap);
    cs_frame_encode(&w, &head, &note);
    CS_CHECK(!w.overflow);
    return w.len;
}

static inline enum cs_err journal_ignore(void *arg, const struct cs_journal_entry *e)
{
    (void)arg;
    (void)e;
    return CS_OK;
}

static inline void journal_synced(struct cs_journal *j)
{
    CS_EQ_U64(cs_journal_sync(j), CS_OK);
    cs_journal_clear(j);
}

/* An entry of a session's file with this content, and its COMMIT. */
static inline void journal_note(struct cs_journal *j, uint64_t epoch, uint64_t ring_seq,
                                uint8_t session, const char *text)
{
    struct cs_journal_file f = {id_of(session), epoch, false};
    struct cs_slice content = cs_slice_str(text);
    if (cs_journal_room(j) < content.n + 200 || cs_journal_full(j)) {
        journal_synced(j);
        if (cs_journal_full(j)) {
            CS_EQ_U64(cs_journal_rotate(j), CS_OK);
        }
    }
    uint8_t *slot = cs_journal_slot(j);
    cs_journal_file_write(&f, slot);
    memcpy(slot + CS_JOURNAL_FILE, content.p, content.n);
    cs_journal_add(j, CS_JOURNAL_BYTES, 100 * ring_seq, CS_JOURNAL_FILE + content.n);
    struct cs_writer w = cs_writer(cs_journal_slot(j), 16);
    cs_writer_u64le(&w, epoch);
    cs_writer_u64le(&w, ring_seq);
    cs_journal_add(j, CS_JOURNAL_COMMIT, 0, 16);
}

#endif
