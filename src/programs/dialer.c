/* The dialer program: descriptor 3 is the channel to the supervisor. */
#include "dialer/dialer.h"
#include "base/log.h"
#include "runtime/process.h"
#include "runtime/sandbox.h"

#include <stdlib.h>

int main(void)
{
    cs_log_init("dialer", CS_LEVEL_INFO);
    cs_process_harden();
    /* A look-up that nobody waits for any more occupies its thread until the C library gives up. */
    (void)setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
    /* Before its threads, and before anything is received. The files are for looking up names. */
    static const struct cs_sandbox_path paths[] = {
        {"/etc", CS_SANDBOX_READ},
        {"/run/systemd/resolve", CS_SANDBOX_READ},
        {"/run/NetworkManager", CS_SANDBOX_READ},
        {"/run/resolvconf", CS_SANDBOX_READ},
        {"/lib", CS_SANDBOX_READ},
        {"/lib64", CS_SANDBOX_READ},
        {"/usr/lib", CS_SANDBOX_READ},
        {"/dev/urandom", CS_SANDBOX_READ},
    };
    enum cs_err e = cs_sandbox_enter(CS_SANDBOX_DIALER, paths, CS_ARRAY_LEN(paths));
    if (e != CS_OK) {
        cs_log(CS_EV_INTERNAL, NULL, "sandbox=%s", cs_err_name(e));
        return 1;
    }
    return cs_dialer_run(3);
}
