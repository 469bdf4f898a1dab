/* tls-server-end-point (RFC 5929): the hash of a server's certificate that SCRAM binds a proof to.
 * Called by tls.c for a live connection and by the compile job for a pinned file. It must never say
 * a hash that the other side would compute otherwise: where the RFC leaves it undefined, none. */
#include "crypto/crypto.h"
#include "crypto/init.h"
#include "crypto/tls_internal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

size_t cs_x509_end_point(const X509 *x, uint8_t out[static 64])
{
    int md_nid = NID_undef;
    /* The library computes these on first use, and its type says so. */
    if (X509_get_signature_info((X509 *)(uintptr_t)x, &md_nid, NULL, NULL, NULL) != 1 ||
        md_nid == NID_undef) {
        ERR_clear_error();
        return 0; /* Ed25519 and the like: RFC 5929 leaves them undefined */
    }
    if (md_nid == NID_md5 || md_nid == NID_sha1) {
        md_nid = NID_sha256; /* RFC 5929, section 4.1 */
    }
    const EVP_MD *md = EVP_get_digestbynid(md_nid);
    unsigned n = 0;
    if (md == NULL || EVP_MD_get_size(md) > CS_END_POINT_MAX || X509_digest(x, md, out, &n) != 1) {
        ERR_clear_error();
        return 0;
    }
    return n;
}

/* The library's own way would be to ask on the terminal. */
static int no_password(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

uint64_t cs_certificate_expires_ms(struct cs_slice pem)
{
    uint64_t first = 0;
    X509 *x = NULL;
    cs_crypto_once();
    BIO *b = pem.n > 0 && pem.n <= INT32_MAX ? BIO_new_mem_buf(pem.p, (int)pem.n) : NULL;
    while (b != NULL && (x = PEM_read_bio_X509(b, NULL, no_password, NULL)) != NULL) {
        struct tm tm;
        bool known = ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm) == 1;
        time_t t = known ? timegm(&tm) : 0;
        uint64_t ms = t > 0 ? (uint64_t)t * 1000 : 1; /* what cannot be read, or is before 1970 */
        first = first == 0 ? ms : CS_MIN(first, ms);
        X509_free(x);
    }
    BIO_free(b);
    ERR_clear_error();
    return first;
}

enum cs_err cs_certificate_end_point(struct cs_slice pem, size_t nth,
                                     uint8_t out[static CS_END_POINT_MAX], size_t *ret_n)
{
    cs_crypto_once();
    if (pem.n == 0 || pem.n > INT32_MAX) {
        return CS_ERR_INVALID;
    }
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
    if (b == NULL) {
        return CS_ERR_NO_MEMORY;
    }
    X509 *x = NULL;
    for (size_t i = 0; i <= nth; i++) {
        X509_free(x);
        x = PEM_read_bio_X509(b, NULL, no_password, NULL);
        if (x == NULL) {
            break;
        }
    }
    unsigned long e = ERR_peek_last_error();
    bool ended = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    BIO_free(b);
    if (x == NULL) {
        return ended ? CS_ERR_NOT_FOUND : CS_ERR_INVALID;
    }
    size_t n = cs_x509_end_point(x, out);
    X509_free(x);
    *ret_n = n;
    return n > 0 ? CS_OK : CS_ERR_UNSUPPORTED;
}
