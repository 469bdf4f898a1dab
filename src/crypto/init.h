/* Inside crypto only: libcrypto's own start, before anything else may start it in its default way.
 */
#ifndef CS_CRYPTO_INIT_H
#define CS_CRYPTO_INIT_H

/* Cheap after the first time. The library reads no configuration file: sandboxed roles open none,
 * and one found through the environment could load code or weaken TLS. */
void cs_crypto_once(void);

#endif
