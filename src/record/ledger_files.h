/* The files of the audit log's directory. Called by ledger.c. */
#ifndef CS_RECORD_LEDGER_FILES_H
#define CS_RECORD_LEDGER_FILES_H

#include "audit/tile.h"

/* `log` beneath the directory; made when it is not there. */
enum cs_err cs_ledger_dir_open(int dir, int *ret_fd) CS_MUST_CHECK;
/* A whole file, appended. NOT_FOUND, TOO_LARGE beyond out->max, CORRUPT: it is no file. */
enum cs_err cs_ledger_file_get(int log, const char *path, struct cs_buf *out) CS_MUST_CHECK;
/* Puts it there in one step: nobody sees half of it. Folders on the way are made. `durable`: and
 * it, with its name, outlives the machine's power. */
enum cs_err cs_ledger_file_put(int log, const char *path, struct cs_slice content,
                               bool durable) CS_MUST_CHECK;
/* What was put is durable, and the names in its folder and those above. What is gone since needs
 * nothing. */
enum cs_err cs_ledger_file_sync(int log, const char *path) CS_MUST_CHECK;
enum cs_err cs_ledger_folder_sync(int log, const char *path_in_it) CS_MUST_CHECK;
void cs_ledger_file_remove(int log, const char *path);

#endif
