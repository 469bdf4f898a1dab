/* The recorder program under faults: killed at random moments, with a full disk, with a disk that
 * fails, with a gate that lies. The test plays supervisor and gates: it owns the rings, appends
 * frames, and knows exactly which of them it was told to be durable.
 *
 * What must hold: nothing acknowledged is lost, order is kept, nothing is there twice. */
#include "action/frame.h"
#include "ipc/ipc.h"
#include "ipc/ring.h"
#include "record/csr_read.h"
#include "record/ledger.h"
#include "record/ledger_files.h"
#include "record/segment.h"
#include "runtime/process.h"
#include "runtime/sock.h"
#include "tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

CS_TEST_MAIN()

enum { GATES = 2, SEGMENT = 4 * 1024 * 1024, TEXT_MAX = 120000 };

struct gate {
    uint64_t epoch;
    int fds[3];
    struct cs_ring ring; /* the writer's side */
    uint64_t appended, acknowledged;
};

struct world {
    struct cs_loop *loop;
    char dir[64];
    struct gate gates[GATES];
    pid_t pid;
    struct cs_channel *recorder;
    bool ready, gone, writing, fail_sync;
    bool alone; /* the recorder gets neither rings nor a key: they are late */
    unsigned writers;
    struct cs_event changed;
    uint64_t seed;
    unsigned rounds;
    uint8_t key[CS_X25519]; /* of recordings; the recorder gets the other half */
};

static uint64_t any(struct world *w, uint64_t n)
{
    w->seed ^= w->seed << 13;
    w->seed ^= w->seed >> 7;
    w->seed ^= w->seed << 17;
    return w->seed % n;
}

/* ---- frames whose content tells who wrote them ---- */

/* Nothing that can be compressed: a disk shall fill as fast as frames come. */
static void fill_text(uint8_t *p, size_t n, uint64_t epoch, uint64_t seq)
{
    uint64_t x = epoch * 0x9e3779b97f4a7c15 + seq + 1;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (uint8_t)(x >> 32);
    }
}

static struct cs_id session_of(uint64_t epoch)
{
    struct cs_id id = {{0}};
    memcpy(id.b, &epoch, sizeof epoch);
    return id;
}

static size_t frame_make(uint8_t *out, uint64_t epoch, uint64_t seq)
{
    static uint8_t text[TEXT_MAX];
    size_t n = 20 + (size_t)(seq % 61 == 0 ? TEXT_MAX - 20 : seq * 131 % 1500);
    fill_text(text, n, epoch, seq);
    struct cs_frame_head head = {CS_FRAME_NOTE, seq, session_of(epoch)};
    struct cs_frame_note note = {.text = cs_slice(text, n)};
    struct cs_writer w = cs_writer(out, CS_LIMIT_RECORD_FRAME_BYTES);
    cs_frame_encode(&w, &head, &note);
    CS_CHECK(!w.overflow);
    return w.len;
}

static enum cs_err append(struct gate *g)
{
    static uint8_t bytes[CS_LIMIT_RECORD_FRAME_BYTES];
    size_t n = frame_make(bytes, g->epoch, g->appended + 1);
    struct cs_slice piece = cs_slice(bytes, n);
    uint64_t seq = 0;
    enum cs_err err = cs_ring_append(&g->ring, &piece, 1, &seq);
    if (err == CS_OK) {
        g->appended++;
        CS_EQ_U64(seq, g->appended);
    }
    return err;
}

/* ---- the recorder ---- */

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    struct world *w = arg;
    CS_EQ_U64(in->type, CS_MSG_READY);
    cs_channel_run_phase(c);
    w->ready = true;
    cs_event_set(&w->changed);
}

static void on_gone(struct cs_channel *c, void *arg)
{
    struct world *w = arg;
    (void)c;
    w->gone = true;
    cs_event_set(&w->changed);
}

/* From here on fdatasync answers EIO. */
static void fail_fdatasync(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {CS_ARRAY_LEN(code), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        _exit(126);
    }
}

static pid_t spawn(const struct world *w, int channel)
{
    pid_t pid = fork();
    if (pid == 0) {
        char name[] = "recorder";
        char *argv[] = {name, NULL};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (dup2(channel, 3) < 0 || close_range(4, ~0u, 0) != 0) {
            _exit(126);
        }
        if (w->fail_sync) {
            fail_fdatasync();
        }
        (void)execv(CS_RECORDER, argv);
        _exit(126);
    }
    return pid;
}

static void send_ring(struct world *w, uint64_t index, const struct gate *g)
{
    struct cs_msg_ring m = {.gate = index, .epoch = g->epoch};
    CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_RING, 0, &m, g->fds, 3), CS_OK);
}

static void send_key(struct world *w)
{
    uint8_t public[CS_X25519];
    CS_EQ_U64(cs_x25519_public(w->key, public), CS_OK);
    struct cs_msg_record_key key = {.name = CS_SLICE_LIT("recording/2026-11"),
                                    .public = cs_slice(public, sizeof public)};
    CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_RECORD_KEY, 0, &key, NULL, 0), CS_OK);
}

static void send_told(struct world *w)
{
    const struct cs_msg_rings_told all = {.end_ = 0};
    CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_RINGS_TOLD, 0, &all, NULL, 0), CS_OK);
}

static void recorder_start(struct world *w)
{
    int pair[2];
    char params[128];
    CS_EQ_U64(cs_socketpair(pair), CS_OK);
    w->ready = w->gone = false;
    w->pid = spawn(w, pair[1]);
    (void)close(pair[1]);
    CS_EQ_U64(cs_channel_open(w->loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_RECORDER, 0, on_message,
                              on_gone, w, &w->recorder),
              CS_OK);
    (void)snprintf(params, sizeof params, "directory=%s\nsegment=%d\n", w->dir, SEGMENT);
    struct cs_msg_boot boot = {.role = CS_ROLE_RECORDER, .params = cs_slice_str(params)};
    CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_BOOT, 0, &boot, NULL, 0), CS_OK);
    if (w->alone) {
        return;
    }
    send_key(w);
    for (unsigned i = 0; i < GATES; i++) {
        send_ring(w, i, &w->gates[i]);
    }
    send_told(w);
}

static void wait_flag(struct world *w, const bool *flag, const char *what)
{
    uint64_t until = cs_mono_ns() + 60 * CS_NS_PER_S;
    while (!*flag) {
        struct cs_wait on = CS_WAIT_ON(CS_WAIT_EVENT, &w->changed);
        cs_event_clear(&w->changed);
        if (cs_wait(&on, 1, until) != CS_WOKE_READY) {
            CS_FAIL("waited in vain: %s", what);
        }
    }
}

static int recorder_end(struct world *w)
{
    int status = 0;
    CS_CHECK(waitpid(w->pid, &status, 0) == w->pid);
    cs_channel_close(w->recorder);
    w->recorder = NULL;
    return status;
}

static void recorder_kill(struct world *w)
{
    CS_CHECK(kill(w->pid, SIGKILL) == 0);
    CS_CHECK(WIFSIGNALED(recorder_end(w)));
}

/* An ordered end: everything is drained first. */
static int recorder_stop(struct world *w)
{
    const struct cs_msg_shutdown m = {.end_ = 0};
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_SHUTDOWN, 0, &m, NULL, 0), CS_OK);
    wait_flag(w, &w->gone, "the recorder's end");
    int status = recorder_end(w);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* ---- the world ---- */

static void gate_make(struct world *w, struct gate *g)
{
    int dup_fds[3];
    *g = (struct gate){.epoch = 1 + any(w, 1000000)};
    CS_EQ_U64(cs_ring_make(CS_LIMIT_RING_BYTES, g->fds), CS_OK);
    for (int i = 0; i < 3; i++) {
        dup_fds[i] = fcntl(g->fds[i], F_DUPFD_CLOEXEC, 3);
    }
    CS_EQ_U64(cs_ring_open(w->loop, dup_fds, true, &g->ring), CS_OK);
}

/* What the recorder's log says of itself, after whatever was done to it: `head` is the root of all
 * leaves that are there, each is well-formed, and each start has its leaf. */
static void log_check(const char *dir)
{
    struct cs_ledger *l = NULL;
    struct cs_audit_hash root, is;
    struct cs_audit_tree tree = {.size = 0};
    struct cs_buf bundle = cs_buf(CS_AUDIT_BUNDLE_MAX);
    const char *why = "";
    uint64_t size = 0, starts = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int log = openat(fd, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (log < 0 || faccessat(log, "head", F_OK, 0) != 0) {
        return; /* none was written */
    }
    CS_EQ_U64(cs_ledger_open(fd, &l, &why), CS_OK);
    CS_EQ_U64(cs_ledger_flush(l, &size, &root), CS_OK);
    for (uint64_t n = 0; n * CS_AUDIT_WIDTH < size; n++) {
        char path[CS_AUDIT_PATH];
        struct cs_slice bytes;
        struct cs_leaf leaf;
        cs_audit_tile_path(CS_AUDIT_ENTRIES, n, cs_audit_tile_width(CS_AUDIT_ENTRIES, n, size),
                           path);
        bundle.len = 0;
        CS_EQ_U64(cs_ledger_file_get(log, path, &bundle), CS_OK);
        struct cs_slice rest = cs_buf_slice(&bundle);
        while (cs_audit_bundle_next(&rest, &bytes)) {
            CS_CHECK(cs_leaf_read(bytes, &leaf));
            starts += leaf.kind == CS_LEAF_START || leaf.kind == CS_LEAF_RECOVERY;
            if (starts > 0 && (leaf.kind == CS_LEAF_START || leaf.kind == CS_LEAF_RECOVERY)) {
                CS_EQ_U64(leaf.value[CS_KEY_SIZE].number, tree.size); /* behind what was there */
            }
            cs_audit_leaf_hash(bytes, &is);
            cs_audit_tree_add(&tree, &is);
        }
        CS_EQ_U64(rest.n, 0);
    }
    cs_audit_tree_root(&tree, &is);
    CS_EQ_U64(tree.size, size);
    CS_CHECK(cs_audit_hash_eq(&is, &root));
    CS_CHECK(starts > 0 || size == 0);
    cs_ledger_free(l);
    cs_buf_done(&bundle);
    (void)close(log);
    (void)close(fd);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st;
    (void)kind;
    (void)at;
    return remove(path);
}

static void world_run(struct world *w, cs_co_fn script, uint64_t seed, unsigned rounds)
{
    cs_handle co;
    *w = (struct world){.seed = seed, .rounds = rounds};
    (void)snprintf(w->dir, sizeof w->dir, "/tmp/cs-fault-XXXXXX");
    CS_CHECK(mkdtemp(w->dir) != NULL);
    cs_random(w->key, sizeof w->key);
    w->loop = cs_loop_new();
    CS_CHECK(w->loop != NULL);
    for (unsigned i = 0; i < GATES; i++) {
        gate_make(w, &w->gates[i]);
    }
    CS_EQ_U64(cs_co_spawn(w->loop, "script", script, w, &co), CS_OK);
    cs_loop_run(w->loop);
    log_check(w->dir);
    CS_CHECK(nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
}

/* ---- reading back ---- */

struct found {
    uint64_t epoch, count;
};

static void check_event(struct cs_slice event, uint64_t epoch, uint64_t ring_seq)
{
    static uint8_t expected[CS_LIMIT_RECORD_FRAME_BYTES];
    size_t n = frame_make(expected, epoch, ring_seq);
    CS_CHECK(event.n == n && memcmp(event.p, expected, n) == 0);
}

static void epoch_key(const struct world *w, struct cs_csr_reader *r, const struct cs_id *session,
                      uint32_t epoch, const struct cs_csr_keys *keys)
{
    uint8_t mem[CS_WRAPPED_AAD], dek[CS_WRAPPED_KEY];
    CS_EQ_U64(cs_unseal_to(w->key, cs_wrapped_aad(false, session, epoch, mem),
                           cs_slice(keys->to[0].wrapped, CS_WRAPPED_BOX), dek),
              CS_OK);
    CS_EQ_U64(cs_csr_reader_key(r, epoch, keys, dek), CS_OK);
}

/* One recording: all of its events, in order, none twice. The file may end inside a frame only when
 * the recorder was killed. */
static void scan_recording(const struct world *w, int fd, uint64_t size, struct found *row)
{
    struct cs_csr_scanner s;
    struct cs_csr_recovered x;
    struct cs_slice plain, event;
    enum cs_csr_scan got;
    CS_EQ_U64(cs_csr_scan_start(&s, cs_csr_descriptor(&fd, size)), CS_OK);
    struct cs_csr_reader *r = cs_csr_reader_new(&s.head.session);
    epoch_key(w, r, &s.head.session, 1, &s.head.keys);
    while (row->epoch != s.head.gate_epoch) {
        CS_CHECK(row->epoch != 0);
        row++;
    }
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
        if (s.frame.type == CS_CSR_RECOVER) {
            CS_CHECK(cs_csr_recovered_read(s.payload, &x));
            CS_EQ_U64(x.cut_bytes, 0); /* the journal repairs what a crash tore */
            epoch_key(w, r, &s.head.session, s.frame.epoch, &x.keys);
        }
        CS_EQ_U64(cs_csr_reader_open(r, &s.frame, s.bytes, &plain), CS_OK);
        while (cs_csr_event_next(&plain, &event)) {
            check_event(event, row->epoch, ++row->count);
        }
    }
    if (got == CS_CSR_SCAN_BAD && !s.torn) {
        CS_FAIL("%s", s.why);
    }
    cs_csr_reader_free(r);
    cs_csr_scan_done(&s);
}

/* Counts the events of each gate in `found` (ended by epoch 0), and checks order and content. */
static void read_back(const struct world *w, struct found *found)
{
    char path[400];
    struct stat st;
    DIR *d = opendir(w->dir);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (cs_slice_ends(cs_slice_str(e->d_name), CS_SLICE_LIT(".csr"))) {
            (void)snprintf(path, sizeof path, "%s/%s", w->dir, e->d_name);
            int fd = open(path, O_RDONLY);
            CS_CHECK(fd >= 0 && fstat(fd, &st) == 0);
            if (st.st_size > 0) { /* made, and then the recorder was killed */
                scan_recording(w, fd, (uint64_t)st.st_size, found);
            }
            (void)close(fd);
        }
    }
    (void)closedir(d);
}

static void expect_everything(struct world *w)
{
    struct found found[GATES + 1] = {{0, 0}};
    for (unsigned i = 0; i < GATES; i++) {
        found[i].epoch = w->gates[i].epoch;
    }
    read_back(w, found);
    for (unsigned i = 0; i < GATES; i++) {
        CS_EQ_U64(found[i].count, w->gates[i].appended);
    }
}

/* ---- killed at random moments ---- */

struct writer {
    struct world *w;
    struct gate *g;
};

static void acknowledged(struct gate *g, uint64_t seq)
{
    g->acknowledged = CS_MAX(g->acknowledged, seq);
}

static void writer_co(void *arg)
{
    struct writer *me = arg;
    struct world *w = me->w;
    struct gate *g = me->g;
    while (w->writing) {
        enum cs_err err = CS_OK;
        for (uint64_t burst = 1 + any(w, 30); burst > 0 && err == CS_OK; burst--) {
            err = append(g);
        }
        if (err == CS_ERR_LIMIT) {
            err = cs_ring_wait_room(&g->ring, TEXT_MAX + 100, cs_mono_ns() + CS_NS_PER_S);
        } else {
            CS_EQ_U64(err, CS_OK);
            if (any(w, 2) == 0) {
                uint64_t seq = g->appended;
                err = cs_ring_wait_durable(&g->ring, seq, cs_mono_ns() + CS_NS_PER_S);
                if (err == CS_OK) {
                    acknowledged(g, seq);
                }
            }
        }
        if (err != CS_ERR_TIMEOUT) {
            CS_EQ_U64(err, CS_OK);
        }
        CS_CHECK(cs_co_sleep(any(w, 2000000)));
    }
    w->writers--;
    cs_event_set(&w->changed);
}

/* After a recorder was killed: the journal has it, and the next one puts it into the files. */
static void expect_acknowledged(struct world *w)
{
    w->alone = true; /* nothing new */
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    recorder_kill(w);
    w->alone = false;
    struct found found[GATES + 1] = {{0, 0}};
    for (unsigned i = 0; i < GATES; i++) {
        found[i].epoch = w->gates[i].epoch;
    }
    read_back(w, found);
    for (unsigned i = 0; i < GATES; i++) {
        CS_CHECK(found[i].count >= w->gates[i].acknowledged);
        CS_CHECK(found[i].count <= w->gates[i].appended);
    }
}

static void kill_script(void *arg)
{
    struct world *w = arg;
    static struct writer writers[GATES];
    cs_handle co;
    w->writing = true;
    for (unsigned i = 0; i < GATES; i++) {
        writers[i] = (struct writer){w, &w->gates[i]};
        w->writers++;
        CS_EQ_U64(cs_co_spawn(w->loop, "writer", writer_co, &writers[i], &co), CS_OK);
    }
    for (unsigned round = 0; round < w->rounds; round++) {
        recorder_start(w);
        if (any(w, 8) != 0) { /* else it dies while it recovers */
            wait_flag(w, &w->ready, "READY");
        }
        CS_CHECK(cs_co_sleep(any(w, 60) * CS_NS_PER_MS));
        recorder_kill(w);
        if (round % 10 == 9) {
            expect_acknowledged(w);
        }
    }
    recorder_start(w);
    w->writing = false;
    while (w->writers > 0) {
        struct cs_wait on = CS_WAIT_ON(CS_WAIT_EVENT, &w->changed);
        cs_event_clear(&w->changed);
        CS_CHECK(cs_wait(&on, 1, CS_FOREVER) == CS_WOKE_READY);
    }
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    for (unsigned i = 0; i < GATES; i++) {
        CS_CHECK(cs_ring_is_durable(&w->gates[i].ring, w->gates[i].appended));
        CS_CHECK(w->gates[i].acknowledged > 0);
        printf("# gate %u: %" PRIu64 " frames\n", i, w->gates[i].appended);
    }
    cs_loop_stop(w->loop);
}

static void kill_rounds(unsigned rounds, uint64_t seed)
{
    static struct world w;
    const char *given = getenv("CS_SEED");
    if (given != NULL) {
        CS_CHECK(cs_slice_to_u64(cs_slice_str(given), &seed));
    }
    printf("# seed %" PRIu64 "\n", seed);
    world_run(&w, kill_script, seed, rounds);
}

CS_TEST(recorder_killed_at_random_moments_loses_nothing_1)
{
    kill_rounds(50, 0x1111111111111111);
}

CS_TEST(recorder_killed_at_random_moments_loses_nothing_2)
{
    kill_rounds(50, 0x2222222222222222);
}

CS_TEST(recorder_killed_at_random_moments_loses_nothing_3)
{
    kill_rounds(50, 0x3333333333333333);
}

CS_TEST(recorder_killed_at_random_moments_loses_nothing_4)
{
    kill_rounds(50, 0x4444444444444444);
}

static enum cs_err append_durable(struct gate *g)
{
    enum cs_err err = append(g);
    return err != CS_OK
               ? err
               : cs_ring_wait_durable(&g->ring, g->appended, cs_mono_ns() + 20 * CS_NS_PER_S);
}

/* ---- killed between the disk and the word to the ring ---- */

enum { RING_PAGE = 4096, RING_READERS = 128 /* from there on the reader's part of the page */ };

static uint8_t *ring_page(const struct gate *g)
{
    uint8_t *p = mmap(NULL, RING_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, g->fds[0], 0);
    CS_CHECK(p != MAP_FAILED);
    return p;
}

static void segment_path(const struct world *w, uint32_t number, char out[static 128])
{
    char name[CS_SEGMENT_NAME];
    (void)snprintf(out, 128, "%s/%s", w->dir, cs_segment_name(number, name));
}

/* The first segment takes no other batch. By a descriptor: a moment later the recorder may have let
 * go of it, having begun the next one. */
static bool segment_is_full(int fd)
{
    static uint8_t bytes[SEGMENT];
    struct cs_segment_scan scan;
    struct cs_segment_head head;
    struct cs_journal_entry e;
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    CS_CHECK(n > 0 && cs_segment_scan_start(cs_slice(bytes, (size_t)n), &scan, &head));
    while (cs_segment_scan_next(&scan, &e) == CS_SCAN_ENTRY) {
    }
    return SEGMENT - scan.at < CS_JOURNAL_BATCH;
}

/* Until the first segment is full, by one frame that the ring then has never been told of. */
static void fill_untold(struct world *w, struct gate *g)
{
    static uint8_t before[RING_PAGE];
    uint8_t *page = ring_page(g);
    char path[128];
    segment_path(w, 1, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0);
    do {
        memcpy(before, page, RING_PAGE);
        CS_EQ_U64(append_durable(g), CS_OK);
    } while (g->ring.head < 900000 || !segment_is_full(fd));
    recorder_kill(w);
    (void)close(fd);
    memcpy(page + RING_READERS, before + RING_READERS, RING_PAGE - RING_READERS);
    CS_CHECK(munmap(page, RING_PAGE) == 0);
    CS_CHECK(!cs_ring_is_durable(&g->ring, g->appended));
    CS_CHECK(cs_ring_is_durable(&g->ring, g->appended - 1));
}

static void untold_script(void *arg)
{
    struct world *w = arg;
    const struct cs_msg_record_key none = {.name = CS_SLICE_NULL};
    char first[128];
    segment_path(w, 1, first);
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    fill_untold(w, &w->gates[0]);
    /* The next one begins a segment, lets go of the first, and dies before a ring has come. */
    w->alone = true;
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    for (unsigned i = 0; access(first, F_OK) == 0; i++) {
        CS_CHECK(i < 2000); /* each message makes it look what is to be done */
        CS_EQ_U64(cs_channel_send(w->recorder, CS_MSG_RECORD_KEY, 0, &none, NULL, 0), CS_OK);
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    recorder_kill(w);
    w->alone = false;
    recorder_start(w);
    CS_EQ_U64(append_durable(&w->gates[0]), CS_OK);
    CS_EQ_U64(append_durable(&w->gates[1]), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_killed_before_a_ring_was_told_and_again_over_a_new_segment_writes_nothing_twice)
{
    static struct world w;
    world_run(&w, untold_script, 13, 0);
}

/* ---- rings that come late ---- */

static bool has_ended(const struct world *w, const struct gate *g)
{
    char name[CS_CSR_NAME], path[200];
    struct cs_csr_tail tail = {.ended = false};
    struct cs_id session = session_of(g->epoch);
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", w->dir, cs_csr_name(&session, false, 0, name));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CS_CHECK(fd >= 0 && fstat(fd, &st) == 0);
    CS_EQ_U64(cs_csr_find_tail(cs_csr_descriptor(&fd, (uint64_t)st.st_size), &tail), CS_OK);
    (void)close(fd);
    return tail.ended;
}

/* The supervisor is slow, or was stopped: the recorder has a key and a journal full of recordings,
 * and hears of no ring. Then of one; the other's gate is gone. */
static void late_script(void *arg)
{
    struct world *w = arg;
    struct gate *lives = &w->gates[0], *gone = &w->gates[1];
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(append_durable(lives), CS_OK);
    CS_EQ_U64(append_durable(gone), CS_OK);
    recorder_kill(w);
    w->alone = true;
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    send_key(w);
    /* That it does nothing can only be watched: it once waited for two seconds, and then ended the
     * recordings of gates that lived. */
    for (unsigned i = 0; i < 250; i++) {
        CS_CHECK(!has_ended(w, lives) && !has_ended(w, gone));
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    send_ring(w, 0, lives);
    CS_EQ_U64(append_durable(lives), CS_OK);
    CS_CHECK(!has_ended(w, gone));
    send_told(w);
    for (unsigned i = 0; !has_ended(w, gone); i++) {
        CS_CHECK(i < 2000);
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
    CS_EQ_U64(append_durable(lives), CS_OK);
    CS_CHECK(!has_ended(w, lives));
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_waits_for_rings_that_come_late_and_ends_only_what_none_came_for)
{
    static struct world w;
    world_run(&w, late_script, 17, 0);
}

/* ---- the disk ---- */

static void file_limit(const struct world *w, rlim_t bytes)
{
    struct rlimit l = {bytes, RLIM_INFINITY};
    CS_CHECK(prlimit(w->pid, RLIMIT_FSIZE, &l, NULL) == 0);
}

static void wait_health(struct gate *g, enum cs_record_health h)
{
    for (unsigned i = 0; cs_ring_health(&g->ring) != h; i++) {
        CS_CHECK(i < 2000);
        CS_CHECK(cs_co_sleep(10 * CS_NS_PER_MS));
    }
}

static void full_disk_script(void *arg)
{
    struct world *w = arg;
    struct gate *g = &w->gates[0];
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(append_durable(g), CS_OK);
    for (unsigned times = 0; times < 2; times++) {
        file_limit(w, 20000 + 50000 * times);
        while (append(g) == CS_OK) {
            CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
        }
        /* Stopped: said so to every gate, and nothing is accepted. */
        CS_EQ_U64(cs_ring_health(&g->ring), CS_RECORD_STOPPED);
        wait_health(&w->gates[1], CS_RECORD_STOPPED);
        CS_EQ_U64(append(&w->gates[1]), CS_ERR_NO_SPACE);
        CS_CHECK(!cs_ring_is_durable(&g->ring, g->appended));
        file_limit(w, RLIM_INFINITY);
        wait_health(g, CS_RECORD_HEALTHY);
        wait_health(&w->gates[1], CS_RECORD_HEALTHY);
        CS_EQ_U64(append_durable(g), CS_OK);
    }
    /* A new segment that finds no room. */
    file_limit(w, SEGMENT / 2);
    while (append(g) == CS_OK) {
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS / 4));
    }
    file_limit(w, RLIM_INFINITY);
    wait_health(g, CS_RECORD_HEALTHY);
    CS_EQ_U64(append_durable(g), CS_OK);
    CS_EQ_U64(append_durable(&w->gates[1]), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_with_a_full_disk_stops_actions_and_recovers_without_loss)
{
    static struct world w;
    world_run(&w, full_disk_script, 5, 0);
}

static void full_at_start_script(void *arg)
{
    struct world *w = arg;
    struct rlimit small = {1000, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    recorder_start(w);
    CS_CHECK(setrlimit(RLIMIT_FSIZE, &none) == 0);
    wait_flag(w, &w->ready, "READY");
    wait_health(&w->gates[0], CS_RECORD_STOPPED);
    CS_EQ_U64(append(&w->gates[0]), CS_ERR_NO_SPACE);
    file_limit(w, RLIM_INFINITY);
    wait_health(&w->gates[0], CS_RECORD_HEALTHY);
    CS_EQ_U64(append_durable(&w->gates[0]), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_started_on_a_full_disk_waits_for_room)
{
    static struct world w;
    world_run(&w, full_at_start_script, 6, 0);
}

static void failing_disk_script(void *arg)
{
    struct world *w = arg;
    struct gate *g = &w->gates[0];
    w->fail_sync = true;
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(append(g), CS_OK);
    CS_EQ_U64(cs_ring_wait_durable(&g->ring, 1, cs_mono_ns() + 20 * CS_NS_PER_S), CS_ERR_NO_SPACE);
    CS_CHECK(!cs_ring_is_durable(&g->ring, 1));
    wait_flag(w, &w->gone, "its end");
    int status = recorder_end(w);
    CS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    /* The next one reads back what is there, and goes on. */
    w->fail_sync = false;
    recorder_start(w);
    wait_health(g, CS_RECORD_HEALTHY);
    CS_EQ_U64(append_durable(g), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_ends_when_the_disk_fails_and_the_next_one_recovers)
{
    static struct world w;
    world_run(&w, failing_disk_script, 7, 0);
}

/* ---- gates ---- */

static void lying_script(void *arg)
{
    struct world *w = arg;
    struct gate *liar = &w->gates[0], *honest = &w->gates[1];
    uint64_t seq = 0;
    struct cs_slice garbage = CS_SLICE_LIT("this is no frame of any kind, but long enough");
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(append_durable(liar), CS_OK);
    CS_EQ_U64(cs_ring_append(&liar->ring, &garbage, 1, &seq), CS_OK);
    wait_health(liar, CS_RECORD_STOPPED);
    CS_EQ_U64(append(liar), CS_ERR_NO_SPACE);
    CS_EQ_U64(append_durable(honest), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_drops_a_gate_that_lies_and_serves_the_others)
{
    static struct world w;
    world_run(&w, lying_script, 8, 0);
}

static void scribble_script(void *arg)
{
    struct world *w = arg;
    struct gate *liar = &w->gates[0], *honest = &w->gates[1];
    struct stat st;
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_EQ_U64(append_durable(liar), CS_OK);
    CS_CHECK(fstat(liar->fds[0], &st) == 0);
    uint8_t *p =
        mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, liar->fds[0], 0);
    CS_CHECK(p != MAP_FAILED);
    memset(p, 0xa5, (size_t)st.st_size); /* every index and record is a lie */
    uint64_t one = 1;
    CS_CHECK(write(liar->fds[1], &one, sizeof one) == sizeof one);
    CS_EQ_U64(append_durable(honest), CS_OK);
    CS_EQ_U64(append_durable(honest), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_survives_a_ring_full_of_garbage)
{
    static struct world w;
    world_run(&w, scribble_script, 9, 0);
}

static void replaced_script(void *arg)
{
    struct world *w = arg;
    struct gate old = w->gates[0];
    struct found found[4] = {{0, 0}};
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    for (unsigned i = 0; i < 100; i++) {
        CS_EQ_U64(append(&w->gates[0]), CS_OK);
    }
    old = w->gates[0]; /* the gate is dead; its frames are in the ring */
    cs_ring_close(&w->gates[0].ring);
    gate_make(w, &w->gates[0]);
    send_ring(w, 0, &w->gates[0]);
    CS_EQ_U64(append_durable(&w->gates[0]), CS_OK);
    CS_EQ_U64(recorder_stop(w), 0);
    found[0].epoch = old.epoch;
    found[1].epoch = w->gates[0].epoch;
    found[2].epoch = w->gates[1].epoch;
    read_back(w, found);
    CS_EQ_U64(found[0].count, 100);
    CS_EQ_U64(found[1].count, 1);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_drains_the_ring_of_a_dead_gate)
{
    static struct world w;
    world_run(&w, replaced_script, 10, 0);
}

static void second_script(void *arg)
{
    struct world *w = arg;
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    pid_t first = w->pid;
    struct cs_channel *first_channel = w->recorder;
    w->alone = true; /* it may be gone before it could be told anything else */
    recorder_start(w);
    wait_flag(w, &w->gone, "the second one's refusal");
    int status = recorder_end(w);
    CS_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    w->pid = first;
    w->recorder = first_channel;
    recorder_kill(w);
    cs_loop_stop(w->loop);
}

CS_TEST(recorder_refuses_a_directory_that_another_one_has)
{
    static struct world w;
    world_run(&w, second_script, 11, 0);
}

/* ---- reading while it is written ---- */

/* Runs the replayer on one session; true and the JSON in `ret` when it found it. */
static bool replay(const struct world *w, const char *session, struct cs_slice *ret)
{
    int pair[2], memfd = -1;
    uint8_t bytes[512];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char key_path[128];
    (void)snprintf(key_path, sizeof key_path, "%s/key", w->dir);
    int key = open(key_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CS_CHECK(write(key, w->key, sizeof w->key) == sizeof w->key && close(key) == 0);
    CS_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(pair[1], 3) < 0 || close_range(4, ~0u, 0) != 0) {
            _exit(126);
        }
        (void)execl(CS_REPLAYER, "job-replayer", w->dir, session, "--key", key_path, (char *)NULL);
        _exit(126);
    }
    (void)close(pair[1]);
    struct iovec piece = {bytes, sizeof bytes};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    ssize_t n = recvmsg(pair[0], &m, 0);
    CS_CHECK(n > 0);
    struct cs_reader r = cs_reader(cs_slice(bytes, (size_t)n));
    uint64_t err = cs_reader_u64le(&r);
    (void)cs_reader_slice(&r);
    CS_CHECK(cs_reader_done(&r));
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c != NULL) {
        memcpy(&memfd, CMSG_DATA(c), sizeof memfd);
        CS_EQ_U64(cs_sealed_map(memfd, CS_LIMIT_REPLAY_BYTES * 2, ret), CS_OK);
        (void)close(memfd);
    }
    CS_EQ_U64(memfd >= 0, err == CS_OK);
    CS_CHECK(err == CS_OK || err == CS_ERR_NOT_FOUND);
    int status = 0;
    CS_CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    (void)close(pair[0]);
    return err == CS_OK;
}

/* All that is in the ring is in its file, as the supervisor waits for it before a replay. */
static void wait_files(const struct gate *g)
{
    uint64_t written = 1, there = 0;
    for (unsigned i = 0; !cs_ring_peek(g->fds[0], &written, &there) || there != written; i++) {
        CS_CHECK(i < 20000);
        CS_CHECK(cs_co_sleep(CS_NS_PER_MS));
    }
}

static void replay_script(void *arg)
{
    struct world *w = arg;
    struct gate *g = &w->gates[0];
    struct cs_slice json = CS_SLICE_NULL;
    char session[CS_ID_TEXT];
    struct cs_id id = session_of(g->epoch);
    (void)cs_id_text(&id, session);
    recorder_start(w);
    wait_flag(w, &w->ready, "READY");
    CS_CHECK(!replay(w, "ffffffffffffffffffffffffffffffff", &json));
    for (unsigned i = 0; i < 20; i++) {
        for (unsigned k = 0; k < 10; k++) {
            CS_EQ_U64(append(g), CS_OK);
        }
        CS_EQ_U64(append_durable(g), CS_OK);
        wait_files(g);
        CS_EQ_U64(append(g), CS_OK); /* one that may be half written */
        CS_CHECK(replay(w, session, &json));
        size_t frames = 0;
        for (const uint8_t *p = json.p;
             (p = memmem(p, (size_t)(json.p + json.n - p), "\"kind\"", 6)) != NULL; p++) {
            frames++;
        }
        CS_CHECK(frames >= g->appended - 1 && frames <= g->appended);
        cs_sealed_unmap(json);
    }
    CS_EQ_U64(recorder_stop(w), 0);
    expect_everything(w);
    cs_loop_stop(w->loop);
}

CS_TEST(replayer_sees_everything_durable_while_the_recorder_writes)
{
    static struct world w;
    world_run(&w, replay_script, 12, 0);
}
