#!/usr/bin/env python3
"""Writes src/sql/{functions,types,operators}.def from a real PostgreSQL 15 catalogue.

Usage: gen-functions.py [directory with initdb and postgres] (default: pg_config --bindir).
Starts a scratch server on a Unix socket in a temporary directory and removes it again. A server
does not run as root: then the script becomes the user `postgres` first.

A name is listed as harmless only if EVERY overload in pg_catalog is stable or immutable and none of
the patterns below names it: the classifier sees names, not signatures. Volatile functions are
listed by hand with the effect they have. What is not listed is opaque, which is never passed.
"""
import fnmatch
import os
import pwd
import subprocess
import sys
import tempfile

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "sql")

# Stable or immutable by declaration, and yet not harmless.
NOT_HARMLESS = [
    # run SQL text or read whatever relation the text names
    "query_to_xml*", "cursor_to_xml*", "table_to_xml*", "schema_to_xml*", "database_to_xml*",
    "ts_stat", "ts_rewrite",
    # call the input function or the domain check of any type named by an argument
    "domain_in", "domain_recv", "record_in", "record_recv", "array_in", "array_recv",
    "range_in", "range_recv", "multirange_in", "multirange_recv", "anyarray_in", "any_in",
    "json_populate_record*", "jsonb_populate_record*",
    # what other sessions do, where they come from, credentials of a subscription
    "pg_stat_get_activity", "pg_stat_get_backend*", "pg_stat_get_wal_senders",
    "pg_stat_get_wal_receiver", "pg_stat_get_subscription*", "pg_stat_get_progress_info",
    "pg_config", "pg_get_replication_slots", "pg_show_*", "pg_lock_status", "pg_prepared_xact",
    # files, large objects, libxml
    "pg_current_logfile", "pg_read_*", "pg_ls_*", "pg_stat_file", "lo_*", "lo*read", "lowrite",
    "xpath*", "xmlexists",
    # loads the library of a C function, or reads a function's body as if to run it
    "fmgr_*_validator",
    # signals, slots, locks, waiting: volatile today, and never by accident
    "pg_sleep*", "pg_cancel_backend", "pg_terminate_backend", "pg_notify", "set_config",
    "pg_advisory_*", "pg_try_advisory_*", "pg_logical_*", "pg_replication_*", "pg_export_snapshot",
    "pg_create_*", "pg_drop_*", "binary_upgrade_*", "pg_import_*", "pg_event_trigger_*",
]

# Volatile, listed by hand: name -> effect.
BY_HAND = {
    "READ": """
        clock_timestamp timeofday random setseed gen_random_uuid currval lastval
        pg_relation_size pg_total_relation_size pg_table_size pg_indexes_size pg_database_size
        pg_tablespace_size pg_column_size pg_is_in_recovery pg_is_wal_replay_paused
        pg_current_wal_lsn pg_current_wal_insert_lsn pg_current_wal_flush_lsn
        pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp
        pg_xact_status txid_status pg_blocking_pids pg_safe_snapshot_blocking_pids
        pg_jit_available pg_xact_commit_timestamp pg_last_committed_xact""",
    # Ends what the session itself holds: connection pools send these on every return.
    "SESSION": "pg_advisory_unlock_all pg_advisory_unlock pg_advisory_unlock_shared",
    # Judged by its arguments, like SET.
    "SESSION | CS_SQL_FN_SET_CONFIG": "set_config",
    "WRITE": """
        nextval setval pg_notify
        lo_create lo_creat lo_from_bytea lo_put lo_open lo_unlink lo_truncate lo_truncate64 lowrite
        pg_advisory_lock pg_advisory_lock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
        pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock
        pg_try_advisory_xact_lock_shared pg_logical_emit_message
        txid_current pg_current_xact_id""",
    "ADMIN": """
        pg_cancel_backend pg_terminate_backend pg_reload_conf pg_rotate_logfile pg_rotate_logfile_old
        pg_switch_wal pg_promote pg_wal_replay_pause pg_wal_replay_resume pg_create_restore_point
        pg_backup_start pg_backup_stop
        pg_log_backend_memory_contexts pg_stat_reset pg_stat_reset_shared
        pg_stat_reset_slru pg_stat_reset_single_table_counters
        pg_stat_reset_single_function_counters pg_stat_reset_replication_slot
        pg_stat_reset_subscription_stats
        pg_read_file pg_read_file_old pg_read_binary_file pg_stat_file pg_ls_dir pg_ls_logdir
        pg_ls_waldir pg_ls_tmpdir pg_ls_archive_statusdir pg_ls_logicalsnapdir pg_ls_logicalmapdir
        pg_ls_replslotdir pg_current_logfile lo_import lo_export
        pg_create_physical_replication_slot pg_create_logical_replication_slot
        pg_copy_physical_replication_slot pg_copy_logical_replication_slot
        pg_drop_replication_slot pg_replication_slot_advance
        pg_logical_slot_get_changes pg_logical_slot_peek_changes
        pg_logical_slot_get_binary_changes pg_logical_slot_peek_binary_changes
        pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_session_setup
        pg_replication_origin_session_reset pg_replication_origin_xact_setup
        pg_replication_origin_xact_reset pg_replication_origin_advance""",
}

# No type of the catalogue, but names that the server takes as one.
PSEUDO_TYPES = "serial bigserial smallserial serial2 serial4 serial8".split()


def query(bindir, sock, sql):
    out = subprocess.run(
        [os.path.join(bindir, "psql"), "-h", sock, "-U", "scratch", "-d", "postgres", "-XAtq",
         "-F", "\t", "-c", sql], check=True, capture_output=True, text=True)
    return [line.split("\t") for line in out.stdout.splitlines()]


def write(name, what, lines):
    with open(os.path.join(OUT, name), "w", encoding="ascii") as f:
        f.write("/* %s\n * Written by tools/gen-functions.py from the catalogue of PostgreSQL 15; "
                "not edited by hand. */\n/* clang-format off */\n" % what)
        f.writelines(line + "\n" for line in lines)
        f.write("/* clang-format on */\n")


def functions(rows):
    harmless = {}
    for name, volatility in rows:
        harmless[name] = harmless.get(name, True) and volatility in "is"
    chosen = {}
    for name, ok in harmless.items():
        if ok and not any(fnmatch.fnmatchcase(name, p) for p in NOT_HARMLESS):
            chosen[name] = "READ"
    for effect, names in BY_HAND.items():
        for name in names.split():
            if name not in harmless:
                print("note: no function", name, file=sys.stderr)
            chosen[name] = effect
    write("functions.def",
          "What functions of pg_catalog do, by name; the others are opaque: "
          "CS_SQL_FUNCTION(\"name\", effect)",
          ['CS_SQL_FUNCTION("%s", CS_SQL_%s)' % (n, chosen[n]) for n in sorted(chosen)])


def generate(bindir, sock):
    functions(query(bindir, sock,
                    "select proname, provolatile from pg_proc where pronamespace = "
                    "'pg_catalog'::regnamespace order by 1"))
    types = {r[0] for r in query(bindir, sock,
                                 "select typname from pg_type where typnamespace = "
                                 "'pg_catalog'::regnamespace")}
    write("types.def", "The types of pg_catalog: CS_SQL_TYPE(\"name\")",
          ['CS_SQL_TYPE("%s")' % n for n in sorted(types | set(PSEUDO_TYPES))])
    ops = {r[0] for r in query(bindir, sock,
                               "select oprname from pg_operator where oprnamespace = "
                               "'pg_catalog'::regnamespace")}
    ops |= {"<>", "!="}
    write("operators.def", "The operators of pg_catalog, by name: CS_SQL_OPERATOR(\"name\")",
          ['CS_SQL_OPERATOR("%s")' % n for n in sorted(ops)])


def main():
    bindir = sys.argv[1] if len(sys.argv) > 1 else subprocess.run(
        ["pg_config", "--bindir"], check=True, capture_output=True, text=True).stdout.strip()
    drop = None
    if os.getuid() == 0:
        entry = pwd.getpwnam("postgres")
        drop = {"user": entry.pw_uid, "group": entry.pw_gid}
    with tempfile.TemporaryDirectory() as tmp:
        if drop:
            os.chown(tmp, drop["user"], drop["group"])
        data = os.path.join(tmp, "data")
        run = dict(check=True, stdout=subprocess.DEVNULL, cwd=tmp, **(drop or {}))
        subprocess.run([os.path.join(bindir, "initdb"), "-D", data, "-U", "scratch", "-E", "UTF8",
                        "--locale=C", "--auth=trust", "-N"], **run)
        ctl = [os.path.join(bindir, "pg_ctl"), "-D", data, "-w", "-l", os.path.join(tmp, "log")]
        subprocess.run(ctl + ["-o", "-c listen_addresses='' -k %s -F" % tmp, "start"], **run)
        try:
            generate(bindir, tmp)
        finally:
            subprocess.run(ctl + ["-m", "immediate", "stop"], **run)


main()
