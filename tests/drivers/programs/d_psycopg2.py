"""psycopg2, the steps of steps.py."""
import io
import threading

import psycopg2
import steps


class Driver:
    def __init__(self):
        self.c = psycopg2.connect("sslmode=verify-full")
        self.c.autocommit = True

    def value(self, sql):
        with self.c.cursor() as cur:
            cur.execute(sql)
            return cur.fetchone()[0]

    def run(self, sql):
        with self.c.cursor() as cur:
            cur.execute(sql)

    def prepared(self, sql, i):  # it has no prepared statements of its own: SQL's
        with self.c.cursor() as cur:
            if i == 1:
                cur.execute("prepare one (int) as " + sql + "$1")
            cur.execute("execute one (%s)", (i,))
            return cur.fetchone()[0]

    def update(self, sql, i):
        with self.c.cursor() as cur:
            cur.execute(sql + "%s", (i,))
            return cur.rowcount

    def begin(self):
        self.c.autocommit = False

    def rollback(self):
        self.c.rollback()
        self.c.autocommit = True

    def commit(self):
        self.c.commit()
        self.c.autocommit = True

    def copy_in(self, sql, rows):
        with self.c.cursor() as cur:
            cur.copy_expert(sql, io.StringIO("".join("%s\n" % r for r in rows)))

    def copy_out(self, sql):
        out = io.StringIO()
        with self.c.cursor() as cur:
            cur.copy_expert(sql, out)
        return out.getvalue().split()

    def cancelled(self, sql):
        t = threading.Timer(1, self.c.cancel)
        t.start()
        self.run(sql)

    def error(self, e):
        return e.pgcode, "%s %s %s" % (e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)

    def close(self):
        self.c.close()


if __name__ == "__main__":
    steps.run(Driver)
