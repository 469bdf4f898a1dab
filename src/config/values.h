/* Single values of the configuration: what is right, and the sentence when it is not. Private to
 * config/. */
#ifndef CS_CONFIG_VALUES_H
#define CS_CONFIG_VALUES_H

#include "config/model.h"

/* Each checks one text; NULL when it is right, else what would be right ("a number from 1 to 9").
 */
const char *cs_value_text(struct cs_slice s);
const char *cs_value_path(struct cs_slice s);
const char *cs_value_name(struct cs_slice s);
const char *cs_value_target_name(struct cs_slice s);
const char *cs_value_address(struct cs_slice s);
const char *cs_value_url(struct cs_slice s);
/* "secret:NAME"; ret_name gets NAME. */
const char *cs_value_secret(struct cs_slice s, struct cs_slice *ret_name);
/* "10.0.0.7", "10.0.0.0/8", "fd00::/8" as the snapshot carries it: 4 or 6, bits, 16 bytes. */
enum { CS_VALUE_NETWORK = 18 };
const char *cs_value_network(struct cs_slice s, uint8_t ret[static CS_VALUE_NETWORK]);
/* "15m" in seconds. */
const char *cs_value_duration(struct cs_slice s, uint64_t *ret_s);
/* Is host (of host:port) this machine only? */
bool cs_value_is_loopback(struct cs_slice address);

#endif
