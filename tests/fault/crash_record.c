/* The recorder's own code on a disk that loses power, over thousands of seeds (crash_disk.h): its
 * pump, its batches, its journal, its copier. Two gates write into rings; somewhere the machine or
 * the process goes down, or a call fails; what comes after recovers, perhaps goes down again, and
 * goes on. In every other life a second thread compresses, too, whenever two sessions wait. Now and
 * then the disk loses the end of a recording, also of what was durable. At the end every recording
 * is read.
 *
 * What must hold: what a gate was told to be durable is there, in order, once; no recording looks
 * tampered with; each has its end or a gate that lives; no nonce was used twice under a key. A
 * recording that the disk took something of may lack that, and shows it there or not at all; what
 * was written to it since is sound.
 *
 * CS_CRASH_SEEDS says how many (default 500; `make check` 5000), CS_CRASH_FIRST from which on. A
 * seed that fails is printed, and CS_CRASH_SEEDS=1 CS_CRASH_FIRST=it does the same again;
 * CS_CRASH_LOG=1 shows what the recorder logs meanwhile. */
#include "action/frame.h"
#include "base/log.h"
#include "base/time.h"
#include "crash_disk.h"
#include "record/csr_read.h"
#include "record/recorder_internal.h"
#include "runtime/loop.h"
#include "tap.h"

#include <fcntl.h>
#include <malloc.h>

CS_TEST_MAIN()

enum {
    GATES = 2,
    RING = 2 * 1024 * 1024,
    LIVES = 4,
    STEPS = 10,
    BLOCK = 12, /* frames of two sessions, one of which is closed at the end */
    NONCES = 1 << 14,
    LOST_MAX = 8,
    SEEN_MAX = 4096,
};

struct gate {
    uint64_t epoch;
    int fds[3];
    struct cs_ring ring; /* the writer's side */
    uint64_t appended;   /* frames: also the ring's numbers */
    uint64_t told;       /* so many were said to be durable */
    bool alive;
};

/* A gate that is gone, and what is known of it. */
struct past {
    uint64_t epoch, appended, told;
    bool all; /* its ring was drained: everything must be there */
};

static struct {
    struct cs_loop *loop;
    struct cs_recorder rec;
    struct gate gates[GATES];
    struct past past[64];
    size_t n_past;
    uint8_t private[CS_X25519];
    struct cs_csr_to to;
    uint64_t seed, wall_ms, segment_bytes;
    uint64_t nonces[NONCES];
    size_t n_nonces;
    struct { /* what the disk took: of this recording, from that frame on */
        struct cs_id session;
        uint64_t from;
    } lost[LOST_MAX];
    size_t n_lost;
    uint64_t helped, losses; /* over all seeds */
    bool ok;
} w;

/* ---- in place of clocks, chance and the cipher (meson.build) ---- */

uint64_t __wrap_cs_wall_ms(void);
void __wrap_cs_random(void *p, size_t n);
enum cs_err __real_cs_gcm_seal(struct cs_gcm *g, const uint8_t *key, const uint8_t *nonce,
                               const struct cs_slice *aad, size_t n_aad, struct cs_slice in,
                               uint8_t *out, uint8_t *tag);
enum cs_err __wrap_cs_gcm_seal(struct cs_gcm *g, const uint8_t *key, const uint8_t *nonce,
                               const struct cs_slice *aad, size_t n_aad, struct cs_slice in,
                               uint8_t *out, uint8_t *tag);

/* It goes on, stands still, and is set back and forth by hours. */
uint64_t __wrap_cs_wall_ms(void)
{
    uint64_t dice = disk_any(400);
    w.wall_ms += dice < 200 ? dice / 40 : 0;
    if (dice == 399) {
        w.wall_ms += 1 + disk_any((uint64_t)7 * 3600 * 1000);
    } else if (dice == 398) {
        w.wall_ms -= 1 + disk_any((uint64_t)7 * 3600 * 1000);
    }
    return w.wall_ms;
}

void __wrap_cs_random(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((uint8_t *)p)[i] = (uint8_t)disk_any(256);
    }
}

static void nonce_note(const uint8_t *key, const uint8_t *nonce)
{
    uint64_t k, s;
    memcpy(&k, key, sizeof k);
    memcpy(&s, nonce + 4, sizeof s);
    uint64_t both = (k ^ (s * 0x9e3779b97f4a7c15)) | 1;
    for (size_t i = both % NONCES;; i = (i + 1) % NONCES) {
        if (w.nonces[i] == 0) {
            w.nonces[i] = both;
            w.n_nonces++;
            CS_CHECK(w.n_nonces < NONCES / 2);
            return;
        }
        if (w.nonces[i] == both) {
            CS_FAIL("seed %" PRIu64 ": a nonce was used twice under a key", w.seed);
        }
    }
}

enum cs_err __wrap_cs_gcm_seal(struct cs_gcm *g, const uint8_t *key, const uint8_t *nonce,
                               const struct cs_slice *aad, size_t n_aad, struct cs_slice in,
                               uint8_t *out, uint8_t *tag)
{
    nonce_note(key, nonce);
    return __real_cs_gcm_seal(g, key, nonce, aad, n_aad, in, out, tag);
}

/* Nobody knows which of the two threads takes which stream, nor when. */
void __real_cs_csr_compress(struct cs_csr_stream *s);
void __wrap_cs_csr_compress(struct cs_csr_stream *s);

void __wrap_cs_csr_compress(struct cs_csr_stream *s)
{
    disk_turns();
    w.helped += disk_in_thread();
    __real_cs_csr_compress(s);
    disk_turns();
}

#define DEMAND(e)                                                                                  \
    do {                                                                                           \
        if (!(e)) {                                                                                \
            CS_FAIL("seed %" PRIu64 ": not true: %s", w.seed, #e);                                 \
        }                                                                                          \
    } while (0)

/* ---- frames that say who wrote them ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a + 1) * 0x9e3779b97f4a7c15 ^ (b + 1) * 0xc2b2ae3d27d4eb4f;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9;
    return x ^ x >> 32;
}

static struct cs_id session_of(uint64_t epoch, uint64_t number)
{
    struct cs_id id;
    uint64_t a = mix(epoch, number), b = epoch << 20 | number;
    memcpy(id.b, &a, sizeof a);
    memcpy(id.b + sizeof a, &b, sizeof b);
    return id;
}

static size_t text_size(uint64_t dice)
{
    if (dice % 50 == 0) {
        return 20000 + dice / 64 % 60000;
    }
    return dice % 1501 == 1 ? 300000 : 20 + dice / 64 % 700;
}

static struct cs_id session_of_frame(uint64_t epoch, uint64_t seq)
{
    uint64_t block = (seq - 1) / BLOCK;
    return session_of(epoch, 2 * block + (seq % BLOCK == 0 ? 0 : mix(epoch, seq) >> 60 & 1));
}

/* Number `seq` of this gate; `wall_ms` is the number, for who reads it. */
static size_t frame_make(uint8_t *out, uint64_t epoch, uint64_t seq)
{
    static uint8_t text[300000];
    uint64_t dice = mix(epoch, seq);
    bool close = seq % BLOCK == 0;
    size_t n = text_size(dice);
    struct cs_frame_head head = {close ? CS_FRAME_SESSION_CLOSE : CS_FRAME_NOTE, seq,
                                 session_of_frame(epoch, seq)};
    for (size_t i = 0; i < n && !close; i += sizeof dice) {
        dice = dice * 6364136223846793005 + 1442695040888963407;
        memcpy(text + i, &dice, n - i < sizeof dice ? n - i : sizeof dice);
    }
    struct cs_frame_note note = {.text = cs_slice(text, n)};
    struct cs_frame_session_close end = {.why = CS_SLICE_LIT("closed"), .actions = seq};
    struct cs_writer to = cs_writer(out, CS_LIMIT_RECORD_FRAME_BYTES);
    cs_frame_encode(&to, &head, close ? (const void *)&end : (const void *)&note);
    CS_CHECK(!to.overflow);
    return to.len;
}

static void append_some(void)
{
    static uint8_t bytes[CS_LIMIT_RECORD_FRAME_BYTES];
    for (uint64_t n = 1 + disk_any(10); n > 0; n--) {
        struct gate *g = &w.gates[disk_any(GATES)];
        uint64_t seq = 0;
        struct cs_slice piece = cs_slice(bytes, frame_make(bytes, g->epoch, g->appended + 1));
        if (cs_ring_append(&g->ring, &piece, 1, &seq) == CS_OK) {
            g->appended++;
            DEMAND(seq == g->appended);
        }
    }
}

/* ---- gates ---- */

static void gate_start(struct gate *g)
{
    int fds[3];
    *g = (struct gate){.epoch = 1 + disk_any(1000000000), .alive = true};
    DEMAND(cs_ring_make(RING, g->fds) == CS_OK);
    for (int i = 0; i < 3; i++) {
        fds[i] = fcntl(g->fds[i], F_DUPFD_CLOEXEC, 3);
    }
    DEMAND(cs_ring_open(w.loop, fds, true, &g->ring) == CS_OK);
}

static void gate_look(struct gate *g)
{
    while (g->told < g->appended && cs_ring_is_durable(&g->ring, g->told + 1)) {
        g->told++;
    }
}

static void gate_end(struct gate *g, bool all)
{
    if (!g->alive) {
        return;
    }
    gate_look(g);
    DEMAND(w.n_past < CS_ARRAY_LEN(w.past));
    w.past[w.n_past++] = (struct past){g->epoch, g->appended, g->told, all};
    cs_ring_close(&g->ring);
    for (int i = 0; i < 3; i++) {
        (void)close(g->fds[i]);
    }
    g->alive = false;
}

static void look(void)
{
    for (size_t i = 0; i < GATES; i++) {
        gate_look(&w.gates[i]);
    }
}

/* ---- what the disk takes ---- */

static bool is_lost(const struct cs_id *session)
{
    bool lost = false;
    for (size_t i = 0; i < w.n_lost; i++) {
        lost |= cs_id_eq(&w.lost[i].session, session);
    }
    return lost;
}

/* The frame that stood there was taken, or torn: whoever checks the file stops there. */
static bool is_lost_at(const struct cs_id *session, uint64_t at)
{
    bool lost = false;
    for (size_t i = 0; i < w.n_lost; i++) {
        lost |= cs_id_eq(&w.lost[i].session, session) && w.lost[i].from == at;
    }
    return lost;
}

/* Where the first frame begins that is not whole; 0: the head is not. */
static uint64_t whole_frames(struct cs_slice bytes)
{
    struct cs_csr_scanner s;
    if (cs_csr_scan_start(&s, cs_csr_memory(&bytes)) != CS_OK) {
        return 0;
    }
    while (cs_csr_scan_next(&s) == CS_CSR_SCAN_FRAME) {
    }
    cs_csr_scan_done(&s);
    return s.at;
}

/* Of a recording that will be gone on with: its gate lives and does not close it. Nobody looks at
 * one that has its end. */
static bool may_lose(const char *name, struct cs_slice bytes)
{
    struct cs_csr_head h;
    if (!cs_slice_ends(cs_slice_str(name), CS_SLICE_LIT(".csr")) || !cs_csr_head_read(bytes, &h)) {
        return false;
    }
    bool live = false;
    for (size_t i = 0; i < GATES; i++) {
        live |= w.gates[i].epoch == h.gate_epoch;
    }
    return live && (h.session.b[sizeof(uint64_t)] & 1) != 0;
}

static bool lose_something(void)
{
    const char *name;
    struct cs_slice bytes;
    size_t n = 0;
    while (disk_file(n, &name, &bytes)) {
        n++;
    }
    for (size_t i = n > 0 ? disk_any(n) : 0; w.n_lost < LOST_MAX && disk_file(i, &name, &bytes);
         i++) {
        if (may_lose(name, bytes)) {
            struct cs_csr_head h;
            size_t size = disk_any(bytes.n);
            DEMAND(cs_csr_head_read(bytes, &h));
            w.lost[w.n_lost].session = h.session;
            w.lost[w.n_lost++].from = whole_frames(cs_slice_head(bytes, size));
            disk_lose(name, size);
            w.losses++;
            return true;
        }
    }
    return false;
}

/* ---- the recorder's life ---- */

static void rings_give(void)
{
    for (size_t i = 0; i < GATES; i++) {
        struct cs_msg_ring m = {.gate = i, .epoch = w.gates[i].epoch};
        int fds[3];
        for (int k = 0; k < 3; k++) {
            fds[k] = fcntl(w.gates[i].fds[k], F_DUPFD_CLOEXEC, 3);
        }
        cs_source_add(&w.rec, &m, fds);
    }
}

static void recorder_begin(void)
{
    static char directory[] = "/sim/recordings";
    uint8_t *frame = w.rec.frame;
    w.rec = (struct cs_recorder){.journal = {.dir = -1, .fd = -1}};
    w.rec.loop = w.loop;
    w.rec.frame = frame;
    w.rec.directory = directory;
    w.rec.segment_bytes = w.segment_bytes;
    w.rec.to = w.to;
    w.rec.processors = 1 + (long)disk_any(2);
    w.rec.help_from = 2;
    w.rec.stopping = true; /* a pump ends when it has done all there is */
    if (disk_any(2) == 0) {
        rings_give();
    }
}

/* While it finds no space it tries again, as the role does. */
static bool recorder_opens(void)
{
    for (int i = 0; i < 100 && !w.rec.failed; i++) {
        if (cs_recorder_open(&w.rec)) {
            if (w.rec.sources == NULL) {
                rings_give();
            }
            w.rec.rings_told = disk_any(2) == 0; /* gates that did not come are gone */
            return true;
        }
    }
    DEMAND(w.rec.failed);
    return false;
}

static void recorder_end(void)
{
    while (w.rec.sources != NULL) {
        cs_source_close(w.rec.sources);
    }
    cs_recorder_close(&w.rec);
    (void)cs_co_yield();
    (void)cs_co_yield();
}

static void work(void)
{
    for (uint64_t n = disk_any(STEPS); n > 0 && !w.rec.failed; n--) {
        append_some();
        cs_recorder_pump(&w.rec);
        look();
    }
}

/* One process. True when it came to an ordered end. */
static bool life(bool last)
{
    recorder_begin();
    if (recorder_opens()) {
        work();
        cs_recorder_pump(&w.rec);
        look();
        if (last) {
            w.rec.rings_told = true;
            cs_recorder_pump(&w.rec);
            look();
            DEMAND(!w.rec.failed && !w.rec.no_space);
        }
        for (int i = 0; i < 100 && w.rec.no_space && !w.rec.failed; i++) {
            cs_recorder_pump(&w.rec);
        }
    }
    recorder_end();
    return !w.rec.failed;
}

/* ---- reading back ---- */

struct found {
    uint64_t seq;
    uint64_t epoch;
};
static struct found found[SEEN_MAX];
static size_t n_found;

static void epoch_key(struct cs_csr_reader *r, const struct cs_id *session, uint32_t epoch,
                      const struct cs_csr_keys *keys)
{
    uint8_t mem[CS_WRAPPED_AAD], dek[CS_WRAPPED_KEY];
    DEMAND(cs_unseal_to(w.private, cs_wrapped_aad(false, session, epoch, mem),
                        cs_slice(keys->to[0].wrapped, CS_WRAPPED_BOX), dek) == CS_OK);
    DEMAND(cs_csr_reader_key(r, epoch, keys, dek) == CS_OK);
}

static uint64_t event_check(struct cs_slice event, uint64_t epoch, const struct cs_id *session)
{
    static uint8_t expected[CS_LIMIT_RECORD_FRAME_BYTES];
    struct cs_frame_head head;
    DEMAND(cs_frame_decode_head(event, &head));
    size_t n = frame_make(expected, epoch, head.wall_ms);
    DEMAND(event.n == n && memcmp(event.p, expected, n) == 0);
    DEMAND(cs_id_eq(&head.session, session));
    DEMAND(n_found < SEEN_MAX);
    found[n_found++] = (struct found){head.wall_ms, epoch};
    return head.wall_ms;
}

static bool head_is_lost(const char *name)
{
    char of[CS_CSR_NAME];
    for (size_t i = 0; i < w.n_lost; i++) {
        if (w.lost[i].from == 0 &&
            strcmp(cs_csr_name(&w.lost[i].session, false, 0, of), name) == 0) {
            return true;
        }
    }
    return false;
}

static void recording_check(const char *name, struct cs_slice bytes)
{
    struct cs_csr_scanner s;
    struct cs_csr_recovered x;
    struct cs_slice plain, event;
    enum cs_csr_scan got;
    uint64_t before = 0;
    if (cs_csr_scan_start(&s, cs_csr_memory(&bytes)) != CS_OK) {
        if (head_is_lost(name)) {
            return; /* with its head; nothing was written to it since */
        }
        CS_FAIL("seed %" PRIu64 ": %s has no header", w.seed, name);
    }
    struct cs_csr_reader *r = cs_csr_reader_new(&s.head.session);
    DEMAND(r != NULL);
    epoch_key(r, &s.head.session, 1, &s.head.keys);
    while ((got = cs_csr_scan_next(&s)) == CS_CSR_SCAN_FRAME) {
        if (s.frame.type == CS_CSR_RECOVER) {
            DEMAND(cs_csr_recovered_read(s.payload, &x));
            DEMAND(x.cut_bytes == 0 ||
                   is_lost(&s.head.session)); /* the journal repairs what a crash tore */
            epoch_key(r, &s.head.session, s.frame.epoch, &x.keys);
        }
        DEMAND(cs_csr_reader_open(r, &s.frame, s.bytes, &plain) == CS_OK);
        while (cs_csr_event_next(&plain, &event)) {
            uint64_t seq = event_check(event, s.head.gate_epoch, &s.head.session);
            DEMAND(seq > before);
            before = seq;
        }
    }
    if (got == CS_CSR_SCAN_BAD && !is_lost_at(&s.head.session, s.at)) {
        CS_FAIL("seed %" PRIu64 ": %s: %s", w.seed, name, s.why);
    }
    bool live = false;
    for (size_t i = 0; i < GATES; i++) {
        live |= w.gates[i].epoch == s.head.gate_epoch;
    }
    if (!s.ended && !live && got != CS_CSR_SCAN_BAD) {
        CS_FAIL("seed %" PRIu64 ": %s has no end, and its gate is gone", w.seed, name);
    }
    cs_csr_reader_free(r);
    cs_csr_scan_done(&s);
}

static int by_epoch(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->epoch != y->epoch) {
        return x->epoch < y->epoch ? -1 : 1;
    }
    return (x->seq > y->seq) - (x->seq < y->seq);
}

/* The next frames of this gate up to `to`, as far as the disk may have taken them. */
static uint64_t skip_lost(uint64_t epoch, uint64_t n, uint64_t to)
{
    while (n < to) {
        struct cs_id session = session_of_frame(epoch, n + 1);
        if (!is_lost(&session)) {
            break;
        }
        n++;
    }
    return n;
}

/* What is there of one gate: 1, 2, 3 … up to something, `to` at least if it may be missing. */
static uint64_t found_of(uint64_t epoch, uint64_t to)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_found; i++) {
        if (found[i].epoch == epoch) {
            n = skip_lost(epoch, n, found[i].seq - 1) + 1;
            if (found[i].seq != n) {
                CS_FAIL("seed %" PRIu64 ": frame %" PRIu64 " of gate %" PRIu64 " is where %" PRIu64
                        " should be",
                        w.seed, found[i].seq, epoch, n);
            }
        }
    }
    return skip_lost(epoch, n, to);
}

static void check_all(void)
{
    const char *name;
    struct cs_slice bytes;
    n_found = 0;
    for (size_t i = 0; disk_file(i, &name, &bytes); i++) {
        if (cs_slice_ends(cs_slice_str(name), CS_SLICE_LIT(".csr"))) {
            recording_check(name, bytes);
        }
    }
    if (n_found > 0) {
        qsort(found, n_found, sizeof *found, by_epoch);
    }
    for (size_t i = 0; i < w.n_past; i++) {
        const struct past *p = &w.past[i];
        uint64_t n = found_of(p->epoch, p->all ? p->appended : p->told);
        if (n < p->told || n > p->appended || (p->all && n != p->appended)) {
            CS_FAIL("seed %" PRIu64 ": of gate %" PRIu64 " %" PRIu64 " frames are there; %" PRIu64
                    " were written, %" PRIu64 " said to be durable",
                    w.seed, p->epoch, n, p->appended, p->told);
        }
    }
}

/* ---- one seed ---- */

static uint64_t counts[CRASH_KINDS];

static void run_seed(uint64_t seed)
{
    disk_reset(seed);
    w.seed = seed;
    w.n_past = 0;
    w.wall_ms = 1795000000000;
    w.segment_bytes = CS_SEGMENT_LEAST + 4096 * disk_any(6);
    memset(w.nonces, 0, sizeof w.nonces);
    w.n_nonces = w.n_lost = 0;
    for (size_t i = 0; i < GATES; i++) {
        gate_start(&w.gates[i]);
    }
    bool lost = false;
    for (int n = 1; n < LIVES && (n == 1 || lost || disk_any(3) == 0); n++) {
        enum crash kind = (enum crash)(1 + disk_any(CRASH_KINDS - 1));
        disk_plan(kind, 1 + disk_any(disk_any(4) == 0 ? 30 : 160), 1 + disk_any(40));
        (void)life(false);
        bool power = kind == CRASH_POWER || disk_any(8) == 0;
        counts[kind] += disk_struck();
        for (size_t i = 0; power && i < GATES; i++) {
            gate_end(&w.gates[i], false);
            gate_start(&w.gates[i]);
        }
        disk_up(power);
        lost = !power && disk_any(3) == 0 && lose_something();
    }
    DEMAND(life(true));
    for (size_t i = 0; i < GATES; i++) {
        gate_end(&w.gates[i], true);
    }
    check_all();
}

static uint64_t number(const char *name, uint64_t usual)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : usual;
}

static void script(void *arg)
{
    (void)arg;
    uint64_t first = number("CS_CRASH_FIRST", 1), n = number("CS_CRASH_SEEDS", 500);
    for (uint64_t i = 0; i < n; i++) {
        run_seed(first + i);
    }
    printf("# seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64 " power cuts, %" PRIu64 " kills, %" PRIu64
           " errors, %" PRIu64 " full disks struck; %" PRIu64 " recordings lost their end; %" PRIu64
           " streams compressed by the helper\n",
           first, first + n - 1, counts[CRASH_POWER], counts[CRASH_KILL], counts[CRASH_ERROR],
           counts[CRASH_FULL], w.losses, w.helped);
    w.ok = n < 100 || (counts[CRASH_POWER] > n / 20 && counts[CRASH_KILL] > n / 20 &&
                       counts[CRASH_ERROR] > n / 20 && counts[CRASH_FULL] > n / 20 &&
                       w.losses > n / 20 && w.helped > n);
    cs_loop_stop(w.loop);
}

CS_TEST(wherever_the_recorder_goes_down_what_it_said_to_be_durable_is_there_once)
{
    cs_handle co;
    uint8_t public[CS_X25519];
    alarm(0); /* meson has a limit of its own */
    (void)mallopt(M_MMAP_THRESHOLD,
                  128 * 1024); /* large memory comes zeroed, and unused stays so */
    CS_CHECK(getenv("CS_CRASH_LOG") != NULL || freopen("/dev/null", "w", stderr) != NULL);
    memset(w.private, 7, sizeof w.private);
    CS_EQ_U64(cs_x25519_public(w.private, public), CS_OK);
    w.to.n = 1;
    (void)snprintf(w.to.key[0].name, CS_CSR_KEY_NAME, "recording/2026-11");
    memcpy(w.to.key[0].public, public, sizeof public);
    w.loop = cs_loop_new();
    w.rec.frame = cs_alloc(CS_LIMIT_RECORD_FRAME_BYTES);
    CS_CHECK(w.loop != NULL && w.rec.frame != NULL);
    CS_EQ_U64(cs_co_spawn(w.loop, "script", script, NULL, &co), CS_OK);
    cs_loop_run(w.loop);
    CS_CHECK(w.ok);
}
