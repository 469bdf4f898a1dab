/* Whole logs: written, gone on with, proved from, and tampered with in every way that the files
 * allow. Each tampered copy is also given to the second verifier (examples/verify.py), which
 * was written from docs/format.md: the two must agree. */
#include "audit/check.h"
#include "audit/proof.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* ---- files in memory ---- */

enum { MOST = 64 };
struct file {
    char path[CS_AUDIT_PATH];
    uint8_t *p;
    size_t n;
};
struct store {
    struct file files[MOST];
    size_t n;
    bool refuse;
};

/* What a file holds lives to the end of the test: stores are copied with what is in them. */
static struct block {
    struct block *next;
    uint8_t bytes[];
} * blocks;

static uint8_t *block(size_t n)
{
    struct block *b = malloc(sizeof *b + n);
    CS_CHECK(b != NULL);
    b->next = blocks;
    blocks = b;
    return b->bytes;
}

static struct file *find(struct store *s, const char *path)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->files[i].path, path) == 0) {
            return &s->files[i];
        }
    }
    return NULL;
}

static enum cs_err put(void *ctx, const char *path, struct cs_slice content)
{
    struct store *s = ctx;
    if (s->refuse) {
        return CS_ERR_NO_SPACE;
    }
    struct file *f = find(s, path);
    if (f == NULL) {
        CS_CHECK(s->n < MOST);
        f = &s->files[s->n++];
        memcpy(f->path, path, strlen(path) + 1);
    }
    f->p = block(content.n + 1);
    f->n = content.n;
    memcpy(f->p, content.p, content.n);
    return CS_OK;
}

static enum cs_err get(void *ctx, const char *path, struct cs_buf *out)
{
    struct file *f = find(ctx, path);
    if (f == NULL) {
        return CS_ERR_NOT_FOUND;
    }
    if (f->n > out->max) {
        return CS_ERR_TOO_LARGE;
    }
    cs_buf_add(out, cs_slice(f->p, f->n));
    return out->bad ? CS_ERR_NO_MEMORY : CS_OK;
}

static void drop(struct store *s, const char *path)
{
    struct file *f = find(s, path);
    CS_CHECK(f != NULL);
    *f = s->files[--s->n];
}

/* ---- logs ---- */

static const uint8_t private[32] = {7};
static struct cs_audit_key key;
static struct cs_buf head; /* the last checkpoint, signed */

static struct cs_buf leaf(uint64_t i)
{
    char text[32];
    struct cs_buf out = cs_buf(CS_AUDIT_LEAF_MAX);
    struct cs_leaf l = {.kind = CS_LEAF_START, .time_ms = 1700000000000 + i};
    (void)snprintf(text, sizeof text, "leaf %" PRIu64, i);
    cs_leaf_set(&l, CS_KEY_WHAT, cs_slice_str(text));
    CS_CHECK(cs_leaf_write(&l, &out) == CS_OK);
    return out;
}

static void sign(struct store *s, uint64_t size, const struct cs_audit_hash *root)
{
    struct cs_buf text = cs_buf(256);
    struct cs_audit_checkpoint c = {cs_slice_str(key.name), size, *root};
    cs_audit_checkpoint_write(&c, &text);
    cs_buf_done(&head);
    head = cs_buf(CS_AUDIT_NOTE_MAX);
    CS_CHECK(cs_audit_note_sign(cs_buf_slice(&text), &key, private, &head) == CS_OK);
    CS_CHECK(put(s, "checkpoint", cs_buf_slice(&head)) == CS_OK);
    cs_buf_done(&text);
}

static void append(struct store *s, struct cs_audit_writer *w, uint64_t from, uint64_t to)
{
    uint64_t size;
    struct cs_audit_hash root;
    for (uint64_t i = from; i < to; i++) {
        struct cs_buf b = leaf(i);
        CS_CHECK(cs_audit_writer_add(w, cs_buf_slice(&b)) == CS_OK);
        cs_buf_done(&b);
    }
    CS_CHECK(cs_audit_writer_flush(w, &size, &root) == CS_OK && size == to);
    sign(s, size, &root);
}

static void make(struct store *s, uint64_t n)
{
    uint8_t public[32];
    memset(s, 0, sizeof *s);
    CS_CHECK(cs_ed25519_public(private, public) == CS_OK);
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("prod/gw1"), public, &key) == CS_OK);
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, s});
    append(s, w, 0, n);
    cs_audit_writer_free(w);
}

static uint64_t seen;

static void see(void *ctx, uint64_t index, const struct cs_leaf *l, struct cs_slice bytes)
{
    (void)ctx, (void)bytes;
    CS_CHECK(index == seen++ && l->kind == CS_LEAF_START);
}

static enum cs_audit_verdict check(struct store *s, struct cs_slice since, struct cs_audit_check *c)
{
    *c = (struct cs_audit_check){.from = {get, s}, .key = &key, .since = since, .leaf = see};
    seen = 0;
    return cs_audit_check(c);
}

/* ---- the second verifier ---- */

static void save(const char *dir, const char *name, struct cs_slice content)
{
    char path[512];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; n > 0 && (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        CS_CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
        *p = '/';
    }
    FILE *f = fopen(path, "we");
    CS_CHECK(f != NULL);
    CS_CHECK(content.n == 0 || fwrite(content.p, 1, content.n, f) == content.n);
    CS_CHECK(fclose(f) == 0);
}

static int run_python(char *const argv[])
{
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    CS_CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static char script[] = CS_SOURCE_DIR "/examples/verify.py";
static char python[] = "python3", remove_program[] = "rm", remove_flags[] = "-rf";

static int second(struct store *s, struct cs_slice since)
{
    char dir[] = "/tmp/cs-log-XXXXXX", older[64], option[] = "--since", key_option[] = "--key";
    struct cs_buf k = cs_buf(256);
    CS_CHECK(mkdtemp(dir) != NULL);
    for (size_t i = 0; i < s->n; i++) {
        save(dir, s->files[i].path, cs_slice(s->files[i].p, s->files[i].n));
    }
    (void)snprintf(older, sizeof older, "%s/older", dir);
    save(dir, "older", since);
    cs_audit_key_write(&key, &k);
    char *const with[] = {python, script, dir, key_option, (char *)(uintptr_t)cs_buf_cstr(&k),
                          option, older,  NULL};
    char *const without[] = {python, script, dir, key_option, with[4], NULL};
    int code = run_python(since.n > 0 ? with : without);
    char *const clean[] = {remove_program, remove_flags, dir, NULL};
    CS_CHECK(run_python(clean) == 0);
    cs_buf_done(&k);
    return code;
}

/* Both verifiers, one verdict. */
static void both(struct store *s, struct cs_slice since, enum cs_audit_verdict want)
{
    struct cs_audit_check c;
    enum cs_audit_verdict is = check(s, since, &c);
    if (is != want) {
        CS_FAIL("verdict %u, not %u: %s (%s, leaf %" PRIu64 ")", is, want, c.why, c.path, c.index);
    }
    int code = second(s, since), expected = want == CS_AUDIT_INTACT    ? 0
                                            : want == CS_AUDIT_MISSING ? 3
                                                                       : 1;
    if (code != expected) {
        CS_FAIL("the second verifier ends with %d, not %d", code, expected);
    }
}

/* ---- tests ---- */

CS_TEST(tile_paths_are_those_of_the_specification)
{
    char path[CS_AUDIT_PATH];
    cs_audit_tile_path(0, 1234067, 256, path);
    CS_EQ_STR(cs_slice_str(path), "tile/0/x001/x234/067");
    cs_audit_tile_path(2, 0, 1, path);
    CS_EQ_STR(cs_slice_str(path), "tile/2/000.p/1");
    cs_audit_tile_path(CS_AUDIT_ENTRIES, 1000, 112, path);
    CS_EQ_STR(cs_slice_str(path), "tile/entries/x001/000.p/112");
    cs_audit_tile_path(7, CS_AUDIT_SIZE_MAX - 1, 255, path);
}

/* The specification's example: 70,000 leaves are 273 tiles, 112 hashes, 1 tile, 17, and 1. */
CS_TEST(tile_widths_are_those_of_the_specification)
{
    CS_EQ_U64(cs_audit_tile_width(0, 272, 70000), 256);
    CS_EQ_U64(cs_audit_tile_width(0, 273, 70000), 112);
    CS_EQ_U64(cs_audit_tile_width(0, 274, 70000), 0);
    CS_EQ_U64(cs_audit_tile_width(1, 0, 70000), 256);
    CS_EQ_U64(cs_audit_tile_width(1, 1, 70000), 17);
    CS_EQ_U64(cs_audit_tile_width(2, 0, 70000), 1);
    CS_EQ_U64(cs_audit_tile_width(3, 0, 70000), 0);
    CS_EQ_U64(cs_audit_tile_width(1, 0, 256), 1);
    CS_EQ_U64(cs_audit_tile_width(0, 1, 256), 0);
    CS_EQ_U64(cs_audit_tile_width(9, 0, 70000), 0);
    CS_EQ_U64(cs_audit_tile_width(0, UINT64_MAX / 256, 70000), 0);
}

CS_TEST(a_log_of_each_size_about_the_edges_of_tiles_is_intact)
{
    static const uint64_t sizes[] = {0, 1, 2, 255, 256, 257, 511, 512, 600};
    struct store s;
    struct cs_audit_check c;
    for (size_t i = 0; i < CS_ARRAY_LEN(sizes); i++) {
        make(&s, sizes[i]);
        CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
        CS_CHECK(c.size == sizes[i] && seen == sizes[i]);
    }
    both(&s, CS_SLICE_NULL, CS_AUDIT_INTACT);
}

CS_TEST(a_writer_goes_on_where_another_stopped_and_the_log_is_consistent)
{
    static const uint64_t stops[] = {1, 3, 255, 256, 300, 512, 700};
    struct store s, whole;
    struct cs_audit_check c;
    make(&s, 0);
    for (size_t i = 0; i < CS_ARRAY_LEN(stops); i++) {
        struct cs_buf before = head;
        head = cs_buf(1);
        CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
        struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
        CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_OK);
        append(&s, w, c.size, stops[i]);
        cs_audit_writer_free(w);
        CS_CHECK(check(&s, cs_buf_slice(&before), &c) == CS_AUDIT_INTACT && c.size == stops[i]);
        both(&s, cs_buf_slice(&before), CS_AUDIT_INTACT);
        cs_buf_done(&before);
    }
    struct cs_audit_hash grown = c.root;
    make(&whole, 700);
    CS_CHECK(check(&whole, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
    CS_CHECK(cs_audit_hash_eq(&c.root, &grown));
}

CS_TEST(a_writer_does_not_go_on_behind_files_that_are_not_the_roots)
{
    struct store s;
    struct cs_audit_check c;
    struct cs_buf b = leaf(0);
    make(&s, 300);
    CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
    find(&s, "tile/entries/001.p/44")->p[10] ^= 1;
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
    CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_ERR_CORRUPT);
    CS_CHECK(cs_audit_writer_add(w, cs_buf_slice(&b)) == CS_ERR_CORRUPT);
    cs_audit_writer_free(w);
    make(&s, 300);
    c.root.b[0] ^= 1;
    w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
    CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_ERR_CORRUPT);
    cs_audit_writer_free(w);
    cs_buf_done(&b);
}

CS_TEST(a_writer_that_could_not_put_gives_no_root_ever_after)
{
    struct store s;
    uint64_t size;
    struct cs_audit_hash root;
    struct cs_buf b = leaf(0);
    memset(&s, 0, sizeof s);
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
    CS_CHECK(cs_audit_writer_add(w, cs_buf_slice(&b)) == CS_OK);
    s.refuse = true;
    CS_CHECK(cs_audit_writer_flush(w, &size, &root) == CS_ERR_NO_SPACE);
    s.refuse = false;
    CS_CHECK(cs_audit_writer_add(w, cs_buf_slice(&b)) == CS_ERR_NO_SPACE);
    CS_CHECK(cs_audit_writer_flush(w, &size, &root) == CS_ERR_NO_SPACE);
    cs_audit_writer_free(w);
    cs_buf_done(&b);
}

CS_TEST(a_flipped_bit_in_any_file_is_found)
{
    struct store s;
    struct cs_audit_check c;
    make(&s, 520);
    for (size_t i = 0; i < s.n; i++) {
        struct file *f = &s.files[i];
        for (size_t at = 0; at < f->n; at += 1 + f->n / 97) {
            f->p[at] ^= 0x10;
            if (check(&s, CS_SLICE_NULL, &c) != CS_AUDIT_TAMPERED) {
                CS_FAIL("%s, byte %zu", f->path, at);
            }
            CS_CHECK(c.path[0] == '\0' || strcmp(c.path, f->path) == 0 || at > 0);
            f->p[at] ^= 0x10;
        }
        f->p[f->n / 2] ^= 1;
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->p[f->n / 2] ^= 1;
    }
}

CS_TEST(a_dropped_file_is_missing)
{
    struct store s, t;
    make(&s, 520);
    for (size_t i = 0; i < s.n; i++) {
        t = s;
        drop(&t, s.files[i].path);
        both(&t, CS_SLICE_NULL, CS_AUDIT_MISSING);
    }
}

CS_TEST(a_truncated_a_lengthened_and_an_empty_file_are_found)
{
    struct store s;
    make(&s, 520);
    for (size_t i = 0; i < s.n; i++) {
        struct file *f = &s.files[i];
        size_t n = f->n;
        f->n = n - 1;
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->n = 0;
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->n = n + 1;
        f->p[n] = 'x';
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->n = n;
    }
}

/* Each in its own right as the log wrote it. */
CS_TEST(files_that_changed_places_or_stand_twice_are_found)
{
    struct store s, t;
    struct cs_audit_check c;
    make(&s, 520);
    for (size_t i = 0; i < s.n; i++) {
        for (size_t j = 0; j < s.n; j++) {
            if (i == j) {
                continue;
            }
            t = s; /* j in the place of i, too */
            t.files[i].p = s.files[j].p;
            t.files[i].n = s.files[j].n;
            if (check(&t, CS_SLICE_NULL, &c) != CS_AUDIT_TAMPERED) {
                CS_FAIL("%s in the place of %s", s.files[j].path, s.files[i].path);
            }
            bool alike = s.files[i].n == s.files[j].n; /* two tiles */
            if (alike) {
                both(&t, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
            }
            t.files[j].p = s.files[i].p; /* and i in that of j */
            t.files[j].n = s.files[i].n;
            if (check(&t, CS_SLICE_NULL, &c) != CS_AUDIT_TAMPERED) {
                CS_FAIL("%s and %s", s.files[i].path, s.files[j].path);
            }
            if (alike && i < j) {
                both(&t, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
            }
        }
    }
}

/* Leaves of one length, so that they can be moved about inside their bundle. */
CS_TEST(leaves_changed_swapped_doubled_or_left_out_are_found_and_named)
{
    struct store s;
    struct cs_audit_check c;
    struct cs_buf a = leaf(10);
    size_t n = a.len + 2;
    uint8_t keep[128];
    make(&s, 90); /* leaves 10 to 89 are n bytes each */
    struct file *f = find(&s, "tile/entries/000.p/90");
    uint8_t *p = f->p + f->n - 80 * n;
    memcpy(keep, p, n); /* 10 and 11 change places */
    memcpy(p, p + n, n);
    memcpy(p + n, keep, n);
    both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
    CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_TAMPERED && c.index == 10);
    memcpy(p, p + n, n); /* 11 is 10 now: 10 twice */
    both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
    memmove(p, p + n, 79 * n); /* one left out */
    f->n -= n;
    both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
    cs_buf_done(&a);
}

CS_TEST(a_log_written_anew_or_rolled_back_is_found_by_an_older_checkpoint)
{
    struct store s, t;
    struct cs_audit_check c;
    make(&s, 400);
    struct cs_buf old = head;
    head = cs_buf(1);
    make(&t, 300); /* rolled back, with a checkpoint that was good once */
    both(&t, cs_buf_slice(&old), CS_AUDIT_TAMPERED);
    CS_CHECK(check(&t, cs_buf_slice(&old), &c) == CS_AUDIT_TAMPERED && c.index == 300);
    /* Written anew by who has the key: longer, but not a continuation. */
    struct cs_buf b = leaf(5);
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &t});
    memset(&t, 0, sizeof t);
    CS_CHECK(cs_audit_writer_add(w, cs_buf_slice(&b)) == CS_OK);
    append(&t, w, 1, 500);
    cs_audit_writer_free(w);
    both(&t, CS_SLICE_NULL, CS_AUDIT_INTACT);
    both(&t, cs_buf_slice(&old), CS_AUDIT_TAMPERED);
    cs_buf_done(&b);
    cs_buf_done(&old);
}

CS_TEST(an_older_checkpoint_put_in_the_place_of_the_newest_still_tells_the_truth_of_its_size)
{
    struct store s, t;
    struct cs_audit_check c;
    make(&s, 300);
    struct cs_buf old = head;
    head = cs_buf(1);
    CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
    t = s;
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &t});
    CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_OK);
    append(&t, w, 300, 520);
    cs_audit_writer_free(w);
    CS_CHECK(put(&t, "checkpoint", cs_buf_slice(&old)) == CS_OK);
    both(&t, CS_SLICE_NULL, CS_AUDIT_INTACT);         /* nothing in the files tells */
    both(&t, cs_buf_slice(&head), CS_AUDIT_TAMPERED); /* whoever kept the newer one does */
    /* The partial files of that size may go, the complete ones serve. */
    drop(&t, "tile/0/001.p/44");
    drop(&t, "tile/entries/001.p/44");
    both(&t, CS_SLICE_NULL, CS_AUDIT_INTACT);
    cs_buf_done(&old);
}

/* As in a copy of a growing log whose checkpoint was copied first. */
CS_TEST(a_wider_partial_file_serves_and_is_looked_at_as_closely)
{
    static const char *const wider[] = {"tile/0/001.p/144", "tile/entries/001.p/144"};
    struct store s;
    struct cs_audit_check c;
    make(&s, 300);
    struct cs_buf old = head;
    head = cs_buf(1);
    CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_INTACT);
    struct cs_audit_writer *w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
    CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_OK);
    append(&s, w, 300, 400);
    cs_audit_writer_free(w);
    CS_CHECK(put(&s, "checkpoint", cs_buf_slice(&old)) == CS_OK);
    drop(&s, "tile/0/001.p/44");
    drop(&s, "tile/entries/001.p/44");
    both(&s, CS_SLICE_NULL, CS_AUDIT_INTACT);
    w = cs_audit_writer_new((struct cs_audit_sink){put, &s});
    CS_CHECK(cs_audit_writer_resume(w, c.from, c.size, &c.root) == CS_OK);
    cs_audit_writer_free(w);
    for (size_t i = 0; i < CS_ARRAY_LEN(wider); i++) {
        struct file *f = find(&s, wider[i]);
        f->p[f->n / 10] ^= 1; /* in one of the first 44 */
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->p[f->n / 10] ^= 1;
        f->n = f->n / 10;
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        f->n = 0;
        both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
        drop(&s, wider[i]);
        both(&s, CS_SLICE_NULL, CS_AUDIT_MISSING);
        CS_CHECK(check(&s, CS_SLICE_NULL, &c) == CS_AUDIT_MISSING);
        CS_CHECK(strstr(c.path, "001.p/44") != NULL);
        if (i == 0) { /* put right again */
            make(&s, 400);
            CS_CHECK(put(&s, "checkpoint", cs_buf_slice(&old)) == CS_OK);
        }
    }
    cs_buf_done(&old);
}

CS_TEST(a_checkpoint_of_another_key_or_another_log_is_refused)
{
    struct store s;
    make(&s, 3);
    struct cs_audit_key right = key;
    CS_CHECK(cs_audit_key_make(CS_SLICE_LIT("prod/gw2"), key.public, &key) == CS_OK);
    both(&s, CS_SLICE_NULL, CS_AUDIT_TAMPERED);
    key = right;
    both(&s, CS_SLICE_LIT("nothing\n"), CS_AUDIT_TAMPERED);
    both(&s, CS_SLICE_NULL, CS_AUDIT_INTACT);
}

/* ---- offline proofs ---- */

static struct cs_buf prove(struct store *s, uint64_t index, uint64_t size)
{
    struct cs_buf out = cs_buf(CS_AUDIT_PROOF_FILE_MAX);
    struct cs_audit_tiles tiles;
    cs_audit_tiles_init(&tiles, (struct cs_audit_source){get, s}, size);
    struct cs_audit_nodes nodes = cs_audit_tiles_nodes(&tiles);
    struct cs_audit_proof p = {
        .leaf = leaf(index), .index = index, .checkpoint = cs_buf_slice(&head)};
    CS_CHECK(cs_audit_prove_inclusion(&nodes, index, size, &p.path));
    cs_audit_proof_write(&p, &out);
    cs_audit_proof_done(&p);
    cs_audit_tiles_done(&tiles);
    return out;
}

CS_TEST(a_proof_from_the_tiles_verifies_alone_and_not_with_any_byte_changed)
{
    struct store s;
    struct cs_audit_proof p;
    make(&s, 600);
    for (uint64_t i = 0; i < 600; i += 37) {
        struct cs_buf file = prove(&s, i, 600), want = leaf(i);
        CS_CHECK(cs_audit_proof_open(cs_buf_slice(&file), &key, &p) == CS_OK);
        CS_EQ_SLICE(cs_buf_slice(&p.leaf), cs_buf_slice(&want));
        cs_audit_proof_done(&p);
        for (size_t at = 0; at < file.len && i == 37; at++) {
            file.p[at] ^= 1;
            CS_CHECK(cs_audit_proof_open(cs_buf_slice(&file), &key, &p) != CS_OK);
            file.p[at] ^= 1;
            CS_CHECK(cs_audit_proof_open(cs_slice(file.p, at), &key, &p) != CS_OK);
        }
        cs_buf_done(&file);
        cs_buf_done(&want);
    }
}

CS_TEST(consistency_is_proved_from_the_tiles)
{
    struct store s;
    struct cs_audit_tiles tiles;
    struct cs_audit_path path;
    struct cs_audit_hash old, root;
    make(&s, 600);
    cs_audit_tiles_init(&tiles, (struct cs_audit_source){get, &s}, 600);
    struct cs_audit_nodes nodes = cs_audit_tiles_nodes(&tiles);
    CS_CHECK(cs_audit_root_at(&nodes, 600, &root));
    for (uint64_t m = 1; m <= 600; m += 7) {
        CS_CHECK(cs_audit_root_at(&nodes, m, &old));
        CS_CHECK(cs_audit_prove_consistency(&nodes, m, 600, &path));
        CS_CHECK(cs_audit_check_consistency(m, 600, &old, &root, &path));
    }
    cs_audit_tiles_done(&tiles);
}

CS_TEST(checking_survives_every_allocation_failure)
{
    struct store s;
    struct cs_audit_check c;
    bool done = false;
    make(&s, 300);
    CS_OOM_LOOP(done)
    {
        enum cs_audit_verdict v = check(&s, CS_SLICE_NULL, &c);
        CS_CHECK(v == CS_AUDIT_INTACT || v == CS_AUDIT_FAILED);
        done = v == CS_AUDIT_INTACT;
    }
    CS_CHECK(done);
}
