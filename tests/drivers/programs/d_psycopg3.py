"""psycopg 3, the steps of steps.py."""
import threading

import psycopg
import steps


class Driver:
    def __init__(self):
        self.c = psycopg.connect("sslmode=verify-full", autocommit=True)

    def value(self, sql):
        return self.c.execute(sql).fetchone()[0]

    def run(self, sql):
        self.c.execute(sql)

    def prepared(self, sql, i):
        return self.c.execute(sql + "%s", (i,), prepare=True).fetchone()[0]

    def update(self, sql, i):
        return self.c.execute(sql + "%s", (i,)).rowcount

    def begin(self):
        self.c.autocommit = False

    def rollback(self):
        self.c.rollback()
        self.c.autocommit = True

    def commit(self):
        self.c.commit()
        self.c.autocommit = True

    def copy_in(self, sql, rows):
        with self.c.cursor() as cur, cur.copy(sql) as copy:
            for r in rows:
                copy.write_row((r,))

    def copy_out(self, sql):
        with self.c.cursor() as cur, cur.copy(sql) as copy:
            return [r[0] for r in copy.rows()]

    def cancelled(self, sql):
        threading.Timer(1, self.c.cancel).start()
        self.run(sql)

    def error(self, e):
        return e.sqlstate, "%s %s %s" % (e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)

    def close(self):
        self.c.close()


if __name__ == "__main__":
    steps.run(Driver)
