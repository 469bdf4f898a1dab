/* Everything that code which has taken over a gate or a front could send: to control and to the
 * supervisor each message that is not its own, its own in wrong forms, its own about a session that
 * is not its own; and rubbish in its ring. Generated from the table of messages, so a new message
 * is attacked too. Says what came of it; judging that is test_attack.py's. */
#include "attack.h"
#include "ipc/channel_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SUPERVISOR_FD = 3, BYTES = 70 * 1024, FDS_MAX = 8, PATIENCE_MS = 1500, NO_TYPE = 9999 };

enum kind {
    NOTHING,
    FOREIGN,       /* not its own, to control */
    TO_SUPERVISOR, /* not its own, to the supervisor */
    TRAILING,      /* a byte too many */
    TRUNCATED,     /* a byte too few */
    OVERSIZE,
    MORE_FDS,
    ANSWER,  /* as the answer to a call that nobody made */
    NOBODYS, /* about the session zero */
    STALE,   /* about a session that does not exist */
    OTHERS,  /* about another gate's session */
    UNSEALED,
    RING_NOISE,
    RING_HEAD,
    RING_LENGTH,
    RING_FRAME,
    KINDS
};
static const char *const kind_names[KINDS] = {
    "nothing",    "foreign",   "to-supervisor", "trailing",  "truncated", "oversize",
    "more-fds",   "answer",    "nobodys",       "stale",     "others",    "unsealed",
    "ring-noise", "ring-head", "ring-length",   "ring-frame"};

static uint8_t bytes[BYTES], got[BYTES];
static int control = -1, ring[3] = {-1, -1, -1};

/* libc's dprintf seeks, which the sandbox does not permit. */
static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char line[300];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    if (write(2, line, n > 0 ? (size_t)n : 0) < 0) {
        _exit(1);
    }
}

/* ---- which attempts there are ---- */

static bool has_session(const struct cs_msg_row *row)
{
    size_t n;
    const struct cs_field *f = row->fields(&n);
    for (size_t i = 0; i < n; i++) {
        if (f[i].kind == CS_FIELD_KIND_ID) {
            return true;
        }
    }
    return false;
}

/* A front is one, and each attempt costs its life: a few that matter. */
static bool enough_for_a_front(enum kind k, unsigned type)
{
    if (k == FOREIGN) {
        return type == CS_MSG_CONSUME || type == CS_MSG_PROVE || type == CS_MSG_HOLD;
    }
    if (k == TO_SUPERVISOR) {
        return type == CS_MSG_RELOAD || type == CS_MSG_READY;
    }
    return type == CS_MSG_API && (k == TRAILING || k == OVERSIZE);
}

/* The same for a probe: its own messages, a connection and a proof of somebody else's. */
static bool enough_for_a_probe(enum kind k, unsigned type)
{
    if (k == FOREIGN) {
        return type == CS_MSG_PROVE || type == CS_MSG_API;
    }
    if (k == TO_SUPERVISOR) {
        return type == CS_MSG_RELOAD;
    }
    return k == TRAILING || k == UNSEALED || k == NOBODYS || k == OTHERS;
}

static bool makes_sense(enum kind k, unsigned type, enum cs_role self)
{
    const struct cs_msg_row *row = cs_msg_row(type);
    bool own = row != NULL && cs_msg_may_pass(row, self, CS_ROLE_CONTROL, true);
    if ((self == CS_ROLE_FRONT && !enough_for_a_front(k, type)) ||
        (self == CS_ROLE_PROBE && !enough_for_a_probe(k, type))) {
        return false;
    }
    if (k >= RING_NOISE) {
        return type == CS_MSG_RING;
    }
    if (row == NULL) {
        return k == FOREIGN || k == TO_SUPERVISOR;
    }
    switch ((int)k) {
    case FOREIGN:
        return !own;
    case TO_SUPERVISOR:
        return !cs_msg_may_pass(row, self, CS_ROLE_SUPERVISOR, true);
    case UNSEALED:
        return own && row->fds > 0;
    case NOBODYS:
    case STALE:
    case OTHERS:
        return own && has_session(row);
    default:
        return own;
    }
}

/* The kth that makes sense; returns how many there are when k is beyond. */
static int attempt(int k, enum cs_role self, enum kind *ret_kind, unsigned *ret_type)
{
    int n = 0;
    for (unsigned kind = FOREIGN; kind < KINDS; kind++) {
        for (unsigned i = 1; i <= CS_MSG_MAX; i++) {
            unsigned type = i < CS_MSG_MAX ? i : NO_TYPE;
            if (!makes_sense((enum kind)kind, type, self)) {
                continue;
            }
            if (n++ == k) {
                *ret_kind = (enum kind)kind;
                *ret_type = type;
                return k;
            }
        }
    }
    return n;
}

int attack_messages(enum cs_role role)
{
    enum kind k;
    unsigned t;
    return attempt(-1, role, &k, &t);
}

/* ---- the wire ---- */

static void send_raw(int fd, size_t n, const int *fds, size_t n_fds)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * FDS_MAX)];
        struct cmsghdr align;
    } c = {{0}};
    struct iovec iov = {bytes, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        m.msg_control = c.room;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
    }
    if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0) {
        say("attack: %s sendmsg errno %d\n", attack_plan.name, errno);
    }
}

/* The length of the next message, 0 at the end, -1 when there is none within the time. */
static ssize_t receive(int fd, int *ret_fds, size_t *ret_n_fds)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 2) {
        union {
            char room[CMSG_SPACE(sizeof(int) * FDS_MAX)];
            struct cmsghdr align;
        } c;
        struct iovec iov = {got, sizeof got};
        struct msghdr m = {.msg_iov = &iov,
                           .msg_iovlen = 1,
                           .msg_control = c.room,
                           .msg_controllen = sizeof c.room};
        ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EAGAIN) {
            (void)usleep(2000);
            continue;
        }
        *ret_n_fds = 0;
        struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
        if (h != NULL && h->cmsg_type == SCM_RIGHTS) {
            *ret_n_fds = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(ret_fds, CMSG_DATA(h), *ret_n_fds * sizeof(int));
        }
        return n < 0 ? 0 : n;
    }
    return -1;
}

static unsigned type_of(const uint8_t *m)
{
    return (unsigned)m[0] | (unsigned)m[1] << 8;
}

/* Takes in what the supervisor gives, until there is a channel to control; says READY. */
static void become_ready(void)
{
    int fds[FDS_MAX];
    size_t n_fds = 0;
    while (control < 0) {
        ssize_t n = receive(SUPERVISOR_FD, fds, &n_fds);
        if (n <= 0) {
            say("attack: %s was not given a channel\n", attack_plan.name);
            _exit(1);
        }
        if (type_of(got) == CS_MSG_PEER) {
            control = fds[0];
        } else if (type_of(got) == CS_MSG_RING) {
            memcpy(ring, fds, sizeof ring);
        }
    }
    const struct cs_msg_ready ready = {.end_ = 0};
    send_raw(SUPERVISOR_FD, cs_msg_encode(CS_MSG_READY, 0, &ready, bytes, sizeof bytes), NULL, 0);
}

/* ---- what is sent ---- */

/* Every field holds something: ids are the given one, numbers 1, texts a letter. */
static size_t encode(unsigned type, const struct cs_id *id)
{
    static union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } m;
    size_t n;
    const struct cs_msg_row *row = cs_msg_row(type);
    if (row == NULL) {
        memset(bytes, 0, CS_MSG_HEADER);
        bytes[0] = (uint8_t)(type & 0xff);
        bytes[1] = (uint8_t)(type >> 8);
        return CS_MSG_HEADER;
    }
    const struct cs_field *f = row->fields(&n);
    for (size_t i = 0; i < n; i++) {
        uint64_t one = 1;
        struct cs_slice text = CS_SLICE_LIT("x");
        if (f[i].kind == CS_FIELD_KIND_ID) {
            memcpy(m.raw + f[i].offset, id, sizeof *id);
        } else if (f[i].kind == CS_FIELD_KIND_U64) {
            memcpy(m.raw + f[i].offset, &one, sizeof one);
        } else {
            memcpy(m.raw + f[i].offset, &text, sizeof text);
        }
    }
    return cs_msg_encode((enum cs_msg_type)type, 1, m.raw, bytes, sizeof bytes);
}

static size_t make(enum kind k, unsigned type, size_t *n_fds)
{
    struct cs_id id = {{0}};
    const struct cs_msg_row *row = cs_msg_row(type);
    if (k == STALE) {
        memset(&id, 0xa5, sizeof id);
    } else if (k == OTHERS || k == UNSEALED) {
        id = attack_plan.session;
    }
    size_t n = encode(type, &id);
    *n_fds = row != NULL ? row->fds : 0;
    switch ((int)k) {
    case TRAILING:
        bytes[n++] = 0;
        break;
    case TRUNCATED:
        n--;
        break;
    case OVERSIZE:
        memset(bytes + n, 0, row->max_bytes + 1 - n);
        n = row->max_bytes + 1;
        break;
    case MORE_FDS:
        (*n_fds)++;
        break;
    case ANSWER:
        cs_msg_set_answer(bytes);
        break;
    default:
        break;
    }
    return n;
}

/* ---- the ring ---- */

static void spoil_ring(enum kind k)
{
    enum { HEADER = 4096, ALL = HEADER + 65536, HEAD_AT = 64 };
    uint8_t *p = mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_SHARED, ring[0], 0);
    uint64_t head = 0, one = 1;
    if (p == MAP_FAILED) {
        say("attack: %s cannot map its ring\n", attack_plan.name);
        _exit(1);
    }
    memcpy(&head, p + HEAD_AT, sizeof head);
    const uint32_t record[4] = {k == RING_LENGTH ? 0xfffffff0u : 32, 0, 1, 0};
    memset(p + HEADER, 0xee, 4096);
    memcpy(p + HEADER, record, sizeof record);
    if (k == RING_NOISE) {
        for (size_t i = 16; i < ALL; i++) { /* its size too, and the reader's own part */
            p[i] = (uint8_t)(i * 7 + (i >> 8));
        }
    } else {
        head += k == RING_HEAD ? UINT64_C(1) << 62 : 48;
        memcpy(p + HEAD_AT, &head, sizeof head);
    }
    if (write(ring[1], &one, sizeof one) < 0) {
        say("attack: %s cannot kick\n", attack_plan.name);
    }
}

/* ---- what came of it ---- */

static const char *error_of(unsigned type, uint64_t *ret)
{
    static union {
        uint8_t raw[CS_MSG_STRUCT_MAX];
        uint64_t align;
    } m;
    enum cs_msg_type t;
    uint32_t corr;
    bool answer;
    size_t n;
    (void)type;
    if (!cs_msg_decode_flags(cs_slice(got, (size_t)*ret), &t, &corr, &answer, m.raw, sizeof m)) {
        return "unreadable";
    }
    const struct cs_field *f = cs_msg_row(t)->fields(&n);
    *ret = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(f[i].name, "err") == 0) {
            memcpy(ret, m.raw + f[i].offset, sizeof *ret);
        }
    }
    return cs_msg_name(t);
}

static void say_result(void)
{
    int fds[FDS_MAX];
    size_t n_fds = 0;
    ssize_t n = receive(control, fds, &n_fds);
    while (n > 0 && (type_of(got) == CS_MSG_CATALOGUE || type_of(got) == CS_MSG_CATALOGUE_OLD ||
                     type_of(got) == CS_MSG_PROBE)) {
        n = receive(control, fds, &n_fds); /* news that whoever plays this role gets: no answer */
    }
    const char *name = attack_plan.name;
    if (n == 0) {
        say("attack: %s result %d: cut\n", name, attack_plan.message);
    } else if (n < 0) {
        say("attack: %s result %d: ignored\n", name, attack_plan.message);
    } else {
        uint64_t err = (uint64_t)n;
        const char *what = error_of(type_of(got), &err);
        say("attack: %s result %d: answered %s err=%llu fds=%zu\n", name, attack_plan.message, what,
            (unsigned long long)err, n_fds);
    }
}

_Noreturn void attack_message(int k)
{
    enum kind kind = NOTHING;
    unsigned type = 0;
    int fds[FDS_MAX];
    size_t n_fds = 0;
    (void)attempt(k, attack_plan.role, &kind, &type);
    become_ready();
    say("attack: %s attempt %d: %s %s\n", attack_plan.name, k, kind_names[kind],
        cs_msg_name((enum cs_msg_type)type));
    if (kind >= RING_NOISE) {
        spoil_ring(kind);
    } else {
        size_t n = make(kind, type, &n_fds);
        for (size_t i = 0; i < n_fds; i++) {
            /* Where a sealed one is wanted: one that can still change. A front has none to make. */
            fds[i] = kind == UNSEALED || kind == OTHERS
                         ? (int)syscall(SYS_memfd_create, "attack", 0)
                     : ring[1] >= 0 ? ring[1]
                                    : SUPERVISOR_FD;
        }
        send_raw(kind == TO_SUPERVISOR ? SUPERVISOR_FD : control, n, fds, n_fds);
    }
    say_result();
    _exit(0);
}
