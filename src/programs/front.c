/* The front program: HTTP for people and commands. Started by the supervisor, never by hand:
 * descriptor 3 is the channel to it, argv[1] the name that stands in the log. */
#include "front/front.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc > 2) {
        (void)fprintf(stderr, "%s is started by \"countersign serve\"\n", argv[0]);
        return 2;
    }
    return cs_front_main(3, argc == 2 ? argv[1] : "front");
}
