/* The control role's program: descriptor 3 is the channel to the supervisor. */
#include "control/control.h"

int main(void)
{
    return cs_control_run(3);
}
