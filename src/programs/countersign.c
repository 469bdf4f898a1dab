/* The one program that people start: commands, and the supervisor behind `serve`. */
#include "cli/cli.h"
#include "roles/serve.h"

int main(int argc, char **argv)
{
    return cs_cli_main(argc, argv, cs_serve);
}
