/* A second thread for compressing what many sessions wait for at once: it and the caller take
 * streams from one list until none is left. If the machine has no processor to spare, the caller
 * has done all of it before the thread has woken up. */
#ifndef CS_RECORD_HELPER_H
#define CS_RECORD_HELPER_H

#include "record/csr_write.h"

struct cs_helper;

/* NULL: there is none, which is no error. */
struct cs_helper *cs_helper_new(void);
void cs_helper_free(struct cs_helper *h);
/* Compresses what is pending in each (cs_csr_compress); all is done when it returns. */
void cs_helper_compress(struct cs_helper *h, struct cs_csr_stream *const *streams, size_t n);

#endif
