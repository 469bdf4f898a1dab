/* The dialer program: descriptor 3 is the channel to the supervisor. */
#include "dialer/dialer.h"
#include "base/log.h"
#include "runtime/process.h"

#include <stdlib.h>

int main(void)
{
    cs_log_init("dialer", CS_LEVEL_INFO);
    cs_process_harden();
    /* A look-up that nobody waits for any more occupies its thread until the C library gives up. */
    (void)setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
    return cs_dialer_run(3);
}
