/* The keeper program: descriptor 3 is the channel to the supervisor. It holds the master key, so
 * it makes itself untraceable before anything else. */
#include "vault/keeper.h"
#include "base/log.h"
#include "runtime/process.h"

int main(void)
{
    cs_log_init("keeper", CS_LEVEL_INFO);
    cs_process_harden();
    return cs_keeper_run(3);
}
