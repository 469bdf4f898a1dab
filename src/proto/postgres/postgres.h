/* The PostgreSQL frontend/backend protocol, version 3.0, as a terminating gateway. */
#ifndef CS_PROTO_POSTGRES_POSTGRES_H
#define CS_PROTO_POSTGRES_POSTGRES_H

#include "gate/protocol.h"

extern const struct cs_protocol cs_proto_postgres;

#endif
