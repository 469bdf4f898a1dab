/* Functions of PostgreSQL and its usual extensions that a role without rights to write should not
 * be able to call, by what they do: the checks ask for them, and `target sql` revokes them. */
#ifndef CS_CHECK_FUNCTIONS_H
#define CS_CHECK_FUNCTIONS_H

/* clang-format off */
/* Files and settings of the server. */
#define CS_CHECK_FUNCTIONS_SERVER                                                                  \
    "'pg_read_file','pg_read_binary_file','pg_stat_file','pg_ls_dir','pg_ls_logdir',"              \
    "'pg_ls_waldir','pg_ls_tmpdir','pg_ls_archive_statusdir','pg_ls_replslotdir',"                 \
    "'pg_ls_logicalmapdir','pg_ls_logicalsnapdir','lo_import','lo_export','pg_file_write',"        \
    "'pg_file_rename','pg_file_unlink','pg_file_sync','pg_logdir_ls','pg_reload_conf',"            \
    "'pg_rotate_logfile','pg_promote','pg_switch_wal','pg_create_restore_point',"                  \
    "'pg_start_backup','pg_stop_backup','pg_backup_start','pg_backup_stop',"                       \
    "'pg_wal_replay_pause','pg_wal_replay_resume'"
/* Other machines, or later: as schema.function. Everything of dblink besides. */
#define CS_CHECK_FUNCTIONS_ELSEWHERE                                                               \
    "'cron.schedule','cron.schedule_in_database','cron.alter_job','aws_s3.query_export_to_s3',"    \
    "'aws_s3.table_import_from_s3','aws_lambda.invoke','net.http_get','net.http_post',"            \
    "'net.http_delete'"
/* Changes behind a SELECT, or other people's sessions. */
#define CS_CHECK_FUNCTIONS_WRITE                                                                   \
    "'lo_creat','lo_create','lo_from_bytea','lo_put','lo_unlink','lo_truncate','lo_truncate64',"   \
    "'lowrite','pg_terminate_backend','pg_cancel_backend','pg_logical_emit_message'"
/* Text that they run as SQL. */
#define CS_CHECK_FUNCTIONS_TEXT                                                                    \
    "'query_to_xml','query_to_xmlschema','query_to_xml_and_xmlschema','ts_stat','ts_rewrite',"     \
    "'crosstab','crosstabn','crosstab2','crosstab3','crosstab4','connectby'"
/* clang-format on */

#endif
