/* Measures a SCRAM proof for a target, from control's question to keeper's answer: a real keeper
 * process in its sandbox, the channel of the gateway, a target that keeper has proved to before.
 * Prints two figures, of single round trips: figure: keeper-proof-p50 VALUE us must 200 ok|short,
 * and p99. */
#include "vault/keeper.h"
#include "base/log.h"
#include "base/time.h"
#include "crypto/scram.h"
#include "ipc/ipc.h"
#include "runtime/process.h"
#include "runtime/sock.h"
#include "vault/vault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 20000, WARM = 1000 };

static struct cs_loop *loop;
static struct cs_channel *supervisor, *control;
static struct cs_event ready;
static uint64_t took[ROUNDS];

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void on_message(struct cs_channel *c, const struct cs_channel_in *in, void *arg)
{
    (void)arg;
    if (in->type == CS_MSG_READY) {
        cs_channel_run_phase(c);
        cs_event_set(&ready);
    }
}

static void on_gone(struct cs_channel *c, void *arg)
{
    (void)c;
    (void)arg;
    die("keeper has ended");
}

static void give(enum cs_msg_type t, const void *m, int fd)
{
    if (cs_channel_send(supervisor, t, 0, m, &fd, 1) != CS_OK) {
        die("keeper takes nothing");
    }
    (void)close(fd);
}

static void give_key(const uint8_t key[static CS_SEAL_KEY])
{
    int ends[2];
    const struct cs_msg_master_key m = {.previous = 0, .last = 1};
    if (pipe(ends) != 0 || write(ends[1], key, CS_SEAL_KEY) != CS_SEAL_KEY) {
        die("no pipe");
    }
    (void)close(ends[1]);
    give(CS_MSG_MASTER_KEY, &m, ends[0]);
}

static void give_table(void)
{
    const struct cs_credential_row row = {.target = CS_SLICE_LIT("orders"),
                                          .secret = CS_SLICE_LIT("orders-ro"),
                                          .binding = CS_BINDING_PREFER};
    struct cs_buf out = cs_buf(CS_CREDENTIALS_MAX);
    uint8_t hash[CS_SHA256];
    int fd = -1;
    cs_credentials_write(&out, &row);
    cs_sha256(cs_buf_slice(&out), hash);
    if (cs_sealed_make("table", cs_buf_slice(&out), &fd) != CS_OK) {
        die("no sealed memory");
    }
    const struct cs_msg_credentials m = {.version = 1, .sha256 = cs_slice(hash, sizeof hash)};
    give(CS_MSG_CREDENTIALS, &m, fd);
    cs_buf_done(&out);
}

static void start(const uint8_t key[static CS_SEAL_KEY])
{
    const struct cs_msg_boot boot = {.role = CS_ROLE_KEEPER, .epoch = 1};
    const struct cs_msg_peer peer = {.role = CS_ROLE_CONTROL, .epoch = 1};
    struct cs_wait w = CS_WAIT_ON(CS_WAIT_EVENT, &ready);
    int pair[2];
    if (cs_channel_send(supervisor, CS_MSG_BOOT, 0, &boot, NULL, 0) != CS_OK) {
        die("keeper takes nothing");
    }
    give_key(key);
    give_table();
    if (cs_wait(&w, 1, cs_mono_ns() + 10 * CS_NS_PER_S) != CS_WOKE_READY ||
        cs_socketpair(pair) != CS_OK) {
        die("keeper is not ready");
    }
    give(CS_MSG_PEER, &peer, pair[1]);
    if (cs_channel_open(loop, pair[0], CS_ROLE_CONTROL, CS_ROLE_KEEPER, 0, on_message, on_gone,
                        NULL, &control) != CS_OK) {
        die("no channel");
    }
    cs_channel_run_phase(control);
}

/* A new nonce each time, as of another connection. */
static void one(unsigned i, struct cs_slice box)
{
    char client[64], server[160], final[100];
    struct cs_call c;
    (void)snprintf(client, sizeof client, "n=,r=rOprNGfwEbeRWgbN%08u", i);
    (void)snprintf(server, sizeof server, "r=%svYDpWUa2RaTCAfux,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                   client + 5);
    (void)snprintf(final, sizeof final, "c=biws,r=%svYDpWUa2RaTCAfux", client + 5);
    const struct cs_msg_prove_for m = {.session = {{1}},
                                       .target = CS_SLICE_LIT("orders"),
                                       .connection = i + 1,
                                       .which = CS_CREDENTIAL_EVERYDAY,
                                       .deadline = cs_mono_ns() + 10 * CS_NS_PER_S,
                                       .name = CS_SLICE_LIT("orders-ro"),
                                       .version = 1,
                                       .box = box,
                                       .mechanism = CS_SLICE_LIT("SCRAM-SHA-256"),
                                       .client_first_bare = cs_slice_str(client),
                                       .server_first = cs_slice_str(server),
                                       .client_final_bare = cs_slice_str(final)};
    if (cs_channel_call(control, CS_MSG_PROVE_FOR, &m, NULL, 0, m.deadline, &c) != CS_OK ||
        c.type != CS_MSG_PROOF_FOR ||
        ((const struct cs_msg_proof_for *)(const void *)c.msg.raw)->err != CS_OK) {
        die("no proof");
    }
    cs_call_done(&c);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

static void figure(const char *name, uint64_t ns, double bound)
{
    double us = (double)ns / 1000;
    printf("figure: %-34s %8.2f %-10s must <= %-6g %s\n", name, us, "us", bound,
           us <= bound ? "ok" : "short");
}

static void measure(void *arg)
{
    uint8_t key[CS_SEAL_KEY], box[8 + CS_VAULT_BOX_OVERHEAD];
    struct cs_vault *v = cs_vault_new();
    (void)arg;
    cs_random(key, sizeof key);
    if (v == NULL) {
        die("no memory that can be locked");
    }
    cs_vault_set_key(v, false, key);
    if (cs_vault_seal(v, CS_SLICE_LIT("orders-ro"), 1, CS_SLICE_LIT("hunter22"), box) != CS_OK) {
        die("not sealed");
    }
    cs_vault_close(v);
    start(key);
    for (unsigned i = 0; i < WARM + ROUNDS; i++) {
        uint64_t began = cs_mono_ns();
        one(i, cs_slice(box, sizeof box));
        took[i < WARM ? 0 : i - WARM] = cs_mono_ns() - began;
    }
    qsort(took, ROUNDS, sizeof *took, by_value);
    figure("keeper-proof-p50", took[ROUNDS / 2], 200);
    figure("keeper-proof-p99", took[ROUNDS / 100 * 99], 1000);
    fflush(stdout);
    _exit(0); /* keeper dies with its parent */
}

int main(void)
{
    int pair[2];
    cs_handle co;
    if (cs_socketpair(pair) != CS_OK) {
        die("no socket pair");
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(pair[0]);
        cs_log_init("keeper", CS_LEVEL_ERROR);
        cs_process_harden();
        _exit(cs_keeper_run(pair[1]));
    }
    (void)close(pair[1]);
    loop = cs_loop_new();
    if (pid < 0 || loop == NULL ||
        cs_channel_open(loop, pair[0], CS_ROLE_SUPERVISOR, CS_ROLE_KEEPER, 0, on_message, on_gone,
                        NULL, &supervisor) != CS_OK ||
        cs_co_spawn(loop, "measure", measure, NULL, &co) != CS_OK) {
        die("cannot start");
    }
    cs_loop_run(loop);
    return 1;
}
