"""SQLAlchemy (over psycopg2): tables, sessions and the pool; the steps of steps.py."""
import io
import threading

import sqlalchemy as sa
import steps
from sqlalchemy import orm


class Driver:
    def __init__(self):
        self.engine = sa.create_engine("postgresql+psycopg2://", connect_args={"sslmode": "verify-full"}, future=True, pool_pre_ping=True)
        self.table = sa.Table(steps.TABLE, sa.MetaData(), autoload_with=self.engine)  # reads the catalogue
        self.session = None

    def value(self, sql):
        if self.session is not None:
            return self.session.execute(sa.text(sql)).scalar()
        with self.engine.connect() as c:
            return c.execute(sa.text(sql)).scalar()

    def run(self, sql):
        if self.session is not None:
            self.session.execute(sa.text(sql))
            return
        with self.engine.begin() as c:
            c.execute(sa.text(sql))

    def prepared(self, sql, i):
        with orm.Session(self.engine, future=True) as s:
            return s.execute(sa.select(self.table.c.note).where(self.table.c.id == i)).scalar()

    def update(self, sql, i):
        statement = sa.update(self.table).where(self.table.c.id == i).values(note="by driver")
        if self.session is not None:
            return self.session.execute(statement).rowcount
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            return c.execute(statement).rowcount

    def begin(self):
        self.session = orm.Session(self.engine, future=True)

    def rollback(self):
        self.session.rollback()
        self.session.close()
        self.session = None

    def commit(self):
        self.session.commit()
        self.session.close()
        self.session = None

    def copy_in(self, sql, rows):
        with self.engine.begin() as c:
            c.connection.cursor().copy_expert(sql, io.StringIO("".join("%s\n" % r for r in rows)))

    def copy_out(self, sql):
        out = io.StringIO()
        with self.engine.connect() as c:
            c.connection.cursor().copy_expert(sql, out)
        return out.getvalue().split()

    def cancelled(self, sql):
        with self.engine.connect() as c:
            threading.Timer(1, c.connection.dbapi_connection.cancel).start()
            c.execute(sa.text(sql))

    def error(self, e):
        e = getattr(e, "orig", e)
        return e.pgcode, "%s %s %s" % (e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)

    def close(self):
        self.engine.dispose()


if __name__ == "__main__":
    steps.run(Driver)
