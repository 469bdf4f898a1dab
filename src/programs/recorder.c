/* The recorder program: started by the supervisor with the channel to it as descriptor 3. All work
 * is in record/recorder.c. */
#include "record/recorder.h"
#include "base/log.h"
#include "runtime/process.h"

enum { SUPERVISOR_FD = 3 };

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    cs_log_init("recorder", CS_LEVEL_INFO);
    cs_process_harden();
    return cs_recorder_run(SUPERVISOR_FD);
}
