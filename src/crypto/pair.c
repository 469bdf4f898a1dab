/* Does a listener's certificate belong to its key? Asked by the compile job, so that a renewal of
 * one file without the other is a mistake in the configuration and not a role that keeps the old
 * one in silence. libcrypto alone: the job has no TLS. */
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1; /* the library's own way would be to ask on the terminal */
}

/* The rest of the file: certificates of authorities, each of which must be one. */
static bool chain_is_sound(BIO *in)
{
    X509 *x = NULL;
    while ((x = PEM_read_bio_X509(in, NULL, no_password, NULL)) != NULL) {
        X509_free(x);
    }
    /* The end of a file is an error like others: no further beginning of a block was found. */
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
}

bool cs_certificate_fits(struct cs_slice cert_pem, struct cs_slice key_pem)
{
    cs_crypto_once();
    ERR_clear_error();
    if (cert_pem.n == 0 || key_pem.n == 0 || cert_pem.n > INT32_MAX || key_pem.n > INT32_MAX) {
        return false;
    }
    BIO *cert = BIO_new_mem_buf(cert_pem.p, (int)cert_pem.n);
    BIO *key = BIO_new_mem_buf(key_pem.p, (int)key_pem.n);
    X509 *x = cert != NULL ? PEM_read_bio_X509(cert, NULL, no_password, NULL) : NULL;
    EVP_PKEY *k = key != NULL ? PEM_read_bio_PrivateKey(key, NULL, no_password, NULL) : NULL;
    bool ok = x != NULL && k != NULL && X509_check_private_key(x, k) == 1;
    if (ok) {
        ERR_clear_error();
        ok = chain_is_sound(cert);
    }
    EVP_PKEY_free(k);
    X509_free(x);
    BIO_free(key);
    BIO_free(cert);
    ERR_clear_error();
    return ok;
}
