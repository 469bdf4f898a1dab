/* The gate role's program: the registry of protocols, and nothing else. */
#include "gate/gate.h"
#include "proto/postgres/postgres.h"

const struct cs_protocol *const cs_protocols[] = {&cs_proto_postgres, NULL};

int main(void)
{
    return cs_gate_run(3);
}
