/* What the metrics listener tells, of pages in which anything may stand. */
#include "base/time.h"
#include "front/metrics.h"
#include "ipc/metrics.h"
#include "tap.h"

struct pages {
    int own_fd, about_fd;
    uint64_t *own, *about;
};

static struct cs_front_metrics *m;

static struct pages make(void)
{
    struct pages p = {-1, -1, NULL, NULL};
    CS_CHECK(cs_metrics_make(&p.own_fd) == CS_OK && cs_metrics_make(&p.about_fd) == CS_OK);
    CS_CHECK(cs_metrics_map(p.own_fd, &p.own) == CS_OK);
    CS_CHECK(cs_metrics_map(p.about_fd, &p.about) == CS_OK);
    p.own[CS_SLOT_LAYOUT] = p.about[CS_SLOT_LAYOUT] = cs_metric_layout();
    p.about[CS_SLOT_LISTED] = p.about[CS_SLOT_UP] = 1;
    return p;
}

static struct pages add(enum cs_role role, uint64_t index)
{
    struct pages p = make();
    if (m == NULL) {
        m = cs_front_metrics_new();
    }
    CS_CHECK(cs_front_metrics_add(m, role, index, p.own_fd, p.about_fd) == CS_OK);
    return p;
}

static char *text(void)
{
    struct cs_buf out = cs_front_metrics_text(m);
    CS_CHECK(!out.bad);
    char *copy = strndup((const char *)out.p, out.len);
    cs_buf_done(&out);
    return copy;
}

static bool tells(const char *what)
{
    char *all = text();
    bool found = strstr(all, what) != NULL;
    free(all);
    return found;
}

static void check_lines(const char *all)
{
    uint64_t last = 0;
    for (const char *at = all, *end; *at != 0; at = end + 1) {
        end = strchr(at, '\n');
        CS_CHECK(end != NULL);
        if (strncmp(at, "# HELP ", 7) == 0 || strncmp(at, "# TYPE ", 7) == 0) {
            continue;
        }
        CS_CHECK(strncmp(at, "countersign_", 12) == 0 && end[-1] >= '0' && end[-1] <= '9');
        const char *value = memrchr(at, ' ', (size_t)(end - at));
        CS_CHECK(value != NULL && value[-1] == '}');
        CS_CHECK(strspn(value + 1, "0123456789.") == (size_t)(end - value - 1));
        if (memmem(at, (size_t)(value - at), "_bucket{", 8) != NULL) {
            uint64_t v = strtoull(value + 1, NULL, 10);
            bool first = memmem(at, (size_t)(value - at), "le=\"0.000005000\"", 16) != NULL ||
                         memmem(at, (size_t)(value - at), "le=\"1.000000000\"", 16) != NULL;
            CS_CHECK(first || v >= last); /* cumulative, whatever the page says */
            last = v;
        }
    }
}

CS_TEST(metrics_of_a_hostile_process_are_numbers_all_the_same)
{
    static const uint8_t fill[] = {0xff, 0x80, 0x7f, 0x0a, 0x22};
    struct pages gate = add(CS_ROLE_GATE, 3), recorder = add(CS_ROLE_RECORDER, 0);
    recorder.own[CS_SLOT_FRAMES] = 4711;
    for (size_t i = 0; i < sizeof fill; i++) {
        memset(gate.own + 1, fill[i], CS_METRIC_BYTES - 8);
        char *all = text();
        check_lines(all);
        CS_CHECK(strstr(all, "countersign_recorded_frames_total{process=\"recorder\"} 4711\n"));
        free(all);
    }
    memset(gate.own, 0xff, CS_METRIC_BYTES); /* the layout too */
    char *all = text();
    check_lines(all);
    CS_CHECK(strstr(all, "decisions_total{process=\"gate/3\"") == NULL);
    free(all);
}

CS_TEST(metrics_of_a_process_are_those_of_its_role)
{
    struct pages gate = add(CS_ROLE_GATE, 0);
    gate.own[CS_SLOT_RECORDING] = gate.own[CS_SLOT_MASTER_KEYS] = gate.own[CS_SLOT_FRAMES] = 99;
    gate.own[CS_SLOT_UP] = gate.own[CS_SLOT_RESTARTS] = 99; /* which is the supervisor's to say */
    gate.own[CS_SLOT_OPENED] = 5;
    CS_CHECK(!tells("} 99\n"));
    CS_CHECK(tells("countersign_sessions_opened_total{process=\"gate/0\"} 5\n"));
    CS_CHECK(tells("countersign_process_up{process=\"gate/0\"} 1\n"));
}

CS_TEST(metrics_are_written_as_their_kind_wants)
{
    struct pages gate = add(CS_ROLE_GATE, 0), front = add(CS_ROLE_FRONT, 0);
    gate.about[CS_SLOT_CPU] = UINT64_C(12000000034);
    gate.own[CS_SLOT_DECISIONS + 2 * CS_DIM_VERB + 1] = 8;
    gate.own[CS_SLOT_DURABLE_TIME + 1] = 2;
    gate.own[CS_SLOT_DURABLE_TIME + CS_FAST_BOUNDS] = 1;
    gate.own[CS_SLOT_DURABLE_TIME + CS_FAST_BOUNDS + 1] = UINT64_C(3000000000);
    gate.own[CS_SLOT_EVENTS + CS_EV_AUTH_FAILED] = 6;
    front.own[CS_SLOT_CERTIFICATE + CS_SERVES_POSTGRES] = UINT64_C(1800000000500);
    CS_CHECK(tells("countersign_process_cpu_seconds_total{process=\"gate/0\"} 12.000000034\n"));
    CS_CHECK(tells("countersign_decisions_total{process=\"gate/0\",outcome=\"allow\","
                   "verb=\"select\"} 8\n"));
    CS_CHECK(tells("countersign_record_wait_seconds_bucket{process=\"gate/0\","
                   "le=\"0.000005000\"} 0\n"));
    CS_CHECK(tells("countersign_record_wait_seconds_bucket{process=\"gate/0\","
                   "le=\"0.000010000\"} 2\n"));
    CS_CHECK(tells("countersign_record_wait_seconds_bucket{process=\"gate/0\",le=\"+Inf\"} 3\n"));
    CS_CHECK(tells("countersign_record_wait_seconds_sum{process=\"gate/0\"} 3.000000000\n"));
    CS_CHECK(tells("countersign_record_wait_seconds_count{process=\"gate/0\"} 3\n"));
    CS_CHECK(tells("countersign_log_events_total{process=\"gate/0\",event=\"auth-failed\"} 6\n"));
    CS_CHECK(tells("countersign_certificate_expiry_time_seconds{process=\"front\","
                   "listener=\"postgres\"} 1800000000.500\n"));
    CS_CHECK(!tells("listener=\"metrics\"} 0")); /* no certificate, no time */
}

CS_TEST(metrics_of_a_process_that_is_started_again_replace_the_old_ones)
{
    struct pages old = add(CS_ROLE_GATE, 1), new = add(CS_ROLE_GATE, 1);
    old.own[CS_SLOT_OPENED] = 41;
    new.own[CS_SLOT_OPENED] = 42;
    CS_CHECK(tells("sessions_opened_total{process=\"gate/1\"} 42\n"));
    CS_CHECK(!tells("} 41\n"));
}

CS_TEST(metrics_of_a_gate_that_has_drained_are_gone)
{
    struct pages gate = add(CS_ROLE_GATE, 1);
    CS_CHECK(tells("gate/1"));
    gate.about[CS_SLOT_LISTED] = 0;
    CS_CHECK(!tells("gate/1"));
    CS_CHECK(!tells("gate/1"));
}

CS_TEST(metrics_refuse_pages_and_roles_that_are_none)
{
    struct pages p = make();
    int pipes[2];
    CS_CHECK(pipe(pipes) == 0);
    m = cs_front_metrics_new();
    CS_CHECK(cs_front_metrics_add(m, CS_ROLE_ANY, 0, p.own_fd, p.about_fd) != CS_OK);
    CS_CHECK(cs_front_metrics_add(m, CS_ROLE_MAX, 0, p.own_fd, p.about_fd) != CS_OK);
    CS_CHECK(cs_front_metrics_add(m, UINT64_MAX, 0, p.own_fd, p.about_fd) != CS_OK);
    CS_CHECK(cs_front_metrics_add(m, CS_ROLE_GATE, 0, pipes[0], p.about_fd) != CS_OK);
    CS_CHECK(cs_front_metrics_add(m, CS_ROLE_GATE, 0, p.own_fd, pipes[0]) != CS_OK);
    CS_CHECK(!tells("gate/0"));
}

CS_TEST(metrics_have_room_for_so_many_processes)
{
    enum cs_err e = CS_OK;
    struct pages p = make();
    unsigned n = 0;
    m = cs_front_metrics_new();
    for (; e == CS_OK && n < 1000; n++) {
        e = cs_front_metrics_add(m, CS_ROLE_GATE, n, p.own_fd, p.about_fd);
    }
    CS_CHECK(e == CS_ERR_LIMIT && n > 128);
    char *all = text();
    check_lines(all);
    free(all);
}

/* ---- readiness ---- */

static struct pages all[CS_ROLE_MAX];

static void whole_gateway(void)
{
    static const enum cs_role roles[] = {CS_ROLE_SUPERVISOR, CS_ROLE_GATE,    CS_ROLE_FRONT,
                                         CS_ROLE_CONTROL,    CS_ROLE_KEEPER,  CS_ROLE_DIALER,
                                         CS_ROLE_PROBE,      CS_ROLE_RECORDER};
    for (size_t i = 0; i < CS_ARRAY_LEN(roles); i++) {
        all[roles[i]] = add(roles[i], 0);
    }
    all[CS_ROLE_SUPERVISOR].own[CS_SLOT_SEEN] = cs_wall_ms();
    all[CS_ROLE_CONTROL].own[CS_SLOT_CONTROL_SEEN] = cs_wall_ms();
    all[CS_ROLE_CONTROL].own[CS_SLOT_STORE_WRITABLE] = 1;
    all[CS_ROLE_RECORDER].own[CS_SLOT_RECORDING] = 1;
    all[CS_ROLE_KEEPER].own[CS_SLOT_MASTER_KEYS] = 1;
}

static void expect_not_ready(const char *line)
{
    struct cs_buf out = cs_buf(4096);
    CS_CHECK(!cs_front_is_ready(m, &out));
    CS_EQ_SLICE(cs_buf_slice(&out), cs_slice_str(line));
    cs_buf_done(&out);
}

CS_TEST(ready_when_everything_is_there)
{
    struct cs_buf out = cs_buf(4096);
    whole_gateway();
    CS_CHECK(cs_front_is_ready(m, &out) && out.len == 0);
    CS_CHECK(cs_front_is_alive(m));
}

CS_TEST(not_ready_names_what_is_missing)
{
    static const struct {
        enum cs_role role;
        bool about;
        size_t slot;
        uint64_t value;
        const char *line;
    } table[] = {
        {CS_ROLE_GATE, true, CS_SLOT_UP, 0, "gate/0: is not running, or not ready yet\n"},
        {CS_ROLE_KEEPER, true, CS_SLOT_UP, 0, "keeper: is not running, or not ready yet\n"},
        {CS_ROLE_KEEPER, false, CS_SLOT_MASTER_KEYS, 0, "keeper: has no master key\n"},
        {CS_ROLE_CONTROL, false, CS_SLOT_STORE_WRITABLE, 0,
         "store: takes no changes: is its disk full?\n"},
        {CS_ROLE_CONTROL, false, CS_SLOT_CONTROL_SEEN, 1000,
         "control: does not go round its work\n"},
        {CS_ROLE_RECORDER, false, CS_SLOT_RECORDING, 0,
         "recorder: cannot write: is the disk full, or is there no recording key?\n"},
        {CS_ROLE_GATE, true, CS_SLOT_RECORD_STOPPED, 1, "gate/0: cannot record, so nothing runs\n"},
        {CS_ROLE_SUPERVISOR, false, CS_SLOT_SEEN, 1000,
         "supervisor: does not look at its processes\n"}};
    whole_gateway();
    for (size_t i = 0; i < CS_ARRAY_LEN(table); i++) {
        uint64_t *page = table[i].about ? all[table[i].role].about : all[table[i].role].own;
        uint64_t before = page[table[i].slot];
        page[table[i].slot] = table[i].value;
        expect_not_ready(table[i].line);
        page[table[i].slot] = before;
    }
}

CS_TEST(not_ready_without_a_role_that_is_needed)
{
    whole_gateway();
    all[CS_ROLE_PROBE].about[CS_SLOT_LISTED] = 0;
    expect_not_ready("probe: is not there\n");
}

CS_TEST(not_ready_and_not_alive_before_anything_is_known)
{
    struct cs_buf out = cs_buf(4096);
    m = cs_front_metrics_new();
    CS_CHECK(!cs_front_is_ready(m, &out) && !cs_front_is_alive(m));
    cs_buf_done(&out);
}

CS_TEST(ready_whatever_a_draining_gate_is)
{
    struct cs_buf out = cs_buf(4096);
    whole_gateway();
    struct pages old = add(CS_ROLE_GATE, 7);
    old.about[CS_SLOT_UP] = 0;
    old.about[CS_SLOT_DRAINING] = 1;
    CS_CHECK(cs_front_is_ready(m, &out));
}
