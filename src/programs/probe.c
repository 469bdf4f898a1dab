/* The probe program: descriptor 3 is the channel to the supervisor. */
#include "probe/probe.h"

int main(void)
{
    return cs_probe_run(3);
}
