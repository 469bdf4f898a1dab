/* Self-signed certificates for `init` and tests. Called once per installation, by a command; never
 * by a role that serves. It must never overwrite a file, nor leave a key that others can read.
 *
 * The certificate is its own trust anchor and no authority (CA:FALSE): a client that is given it
 * trusts this one key for these names. An authority's key, lying beside a listener, could sign
 * certificates for any name towards everybody who installed it as a root. */
#include "base/id.h"
#include "base/time.h"
#include "crypto/crypto.h"
#include "crypto/init.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CN_MAX = 64, DAYS_MAX = 36500, CLOCKS_DIFFER_S = 3600 };

static bool add_name(GENERAL_NAMES *names, const char *name)
{
    uint8_t address[16];
    bool v4 = inet_pton(AF_INET, name, address) == 1;
    bool v6 = !v4 && inet_pton(AF_INET6, name, address) == 1;
    GENERAL_NAME *g = a2i_GENERAL_NAME(NULL, NULL, NULL, v4 || v6 ? GEN_IPADD : GEN_DNS, name, 0);
    if (g == NULL || sk_GENERAL_NAME_push(names, g) == 0) {
        GENERAL_NAME_free(g);
        return false;
    }
    return true;
}

static bool add_alternative_names(X509 *x, const char *const *names, size_t n)
{
    GENERAL_NAMES *g = GENERAL_NAMES_new();
    bool ok = g != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        ok = add_name(g, names[i]);
    }
    ok = ok && X509_add1_ext_i2d(x, NID_subject_alt_name, g, 0, 0) == 1;
    GENERAL_NAMES_free(g);
    return ok;
}

/* `text` is one of ours: the configuration syntax of this call reaches files and commands. */
static bool add_extension(X509 *x, int nid, const char *text)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, text);
    bool ok = e != NULL && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static bool set_serial(X509 *x)
{
    uint8_t raw[16];
    cs_random(raw, sizeof raw);
    raw[0] = (uint8_t)((raw[0] & 0x7f) | 0x40); /* positive, 16 bytes */
    BIGNUM *number = BN_bin2bn(raw, sizeof raw, NULL);
    bool ok = number != NULL && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)) != NULL;
    BN_free(number);
    return ok;
}

static bool set_name(X509 *x, const char *name)
{
    X509_NAME *subject = X509_get_subject_name(x);
    const char *cn = strlen(name) <= CN_MAX ? name : "countersign";
    return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_UTF8,
                                      (const unsigned char *)"Countersign", -1, -1, 0) == 1 &&
           X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1,
                                      -1, 0) == 1 &&
           X509_set_issuer_name(x, subject) == 1;
}

static X509 *make(const char *const *names, size_t n, unsigned days, EVP_PKEY *key)
{
    X509 *x = X509_new();
    if (x == NULL || X509_set_version(x, X509_VERSION_3) != 1 || !set_serial(x) ||
        X509_gmtime_adj(X509_getm_notBefore(x), -(long)CLOCKS_DIFFER_S) == NULL ||
        X509_time_adj_ex(X509_getm_notAfter(x), (int)days, 0, NULL) == NULL ||
        !set_name(x, names[0]) || X509_set_pubkey(x, key) != 1 ||
        !add_extension(x, NID_basic_constraints, "critical,CA:FALSE") ||
        !add_extension(x, NID_key_usage, "critical,digitalSignature") ||
        !add_extension(x, NID_ext_key_usage, "serverAuth") ||
        !add_extension(x, NID_subject_key_identifier, "hash") ||
        !add_extension(x, NID_authority_key_identifier, "keyid:always") ||
        !add_alternative_names(x, names, n) || X509_sign(x, key, EVP_sha256()) == 0) {
        X509_free(x);
        return NULL;
    }
    return x;
}

static enum cs_err write_file(const char *path, mode_t mode, BIO *content)
{
    char *p = NULL;
    long n = BIO_get_mem_data(content, &p);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return errno == EEXIST ? CS_ERR_EXISTS : cs_err_from_errno(errno);
    }
    bool ok = n > 0 && fchmod(fd, mode) == 0;
    for (long at = 0; ok && at < n;) {
        ssize_t k = write(fd, p + at, (size_t)(n - at));
        ok = k > 0 || (k < 0 && errno == EINTR);
        at += k > 0 ? k : 0;
    }
    ok = ok && fsync(fd) == 0;
    enum cs_err e = ok ? CS_OK : CS_ERR_IO;
    if (close(fd) != 0) {
        e = CS_ERR_IO;
    }
    if (e != CS_OK) {
        (void)unlink(path);
    }
    return e;
}

static bool name_valid(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++) {
        if (s[i] <= ' ' || s[i] >= 0x7f) {
            return false;
        }
    }
    return n > 0 && n <= 253;
}

enum cs_err cs_certificate_make(const char *const *names, size_t n, unsigned days,
                                const char *cert_path, const char *key_path)
{
    for (size_t i = 0; i < n; i++) {
        if (!name_valid(names[i])) {
            return CS_ERR_INVALID;
        }
    }
    if (n == 0 || days == 0 || days > DAYS_MAX) {
        return CS_ERR_INVALID;
    }
    cs_crypto_once();
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = key != NULL ? make(names, n, days, key) : NULL;
    BIO *cert_pem = BIO_new(BIO_s_mem()), *key_pem = BIO_new(BIO_s_secmem());
    enum cs_err e = CS_ERR_INTERNAL;
    if (x != NULL && cert_pem != NULL && key_pem != NULL && PEM_write_bio_X509(cert_pem, x) == 1 &&
        PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) == 1) {
        e = write_file(key_path, S_IRUSR | S_IWUSR, key_pem);
        if (e == CS_OK) {
            e = write_file(cert_path, S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH, cert_pem);
            if (e != CS_OK) {
                (void)unlink(key_path);
            }
        }
    }
    BIO_free(cert_pem);
    BIO_free(key_pem);
    X509_free(x);
    EVP_PKEY_free(key);
    return e;
}
