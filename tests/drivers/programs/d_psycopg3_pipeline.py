"""psycopg 3 in pipeline mode: everything between two Sync messages at once."""
import steps
from d_psycopg3 import Driver


class Pipelined(Driver):
    def value(self, sql):
        with self.c.pipeline():
            self.c.execute("select 0")
            cur = self.c.execute(sql)
            return cur.fetchone()[0]

    def run(self, sql):
        with self.c.pipeline():
            self.c.execute(sql)

    def prepared(self, sql, i):
        with self.c.pipeline():
            self.c.execute(sql + "%s", (i,), prepare=True)
            return self.c.execute(sql + "%s", (i,), prepare=True).fetchone()[0]

    def update(self, sql, i):
        with self.c.pipeline() as p:
            self.c.execute("select 0")
            p.sync()  # what stands before in one group would be a transaction
            cur = self.c.execute(sql + "%s", (i,))
        return cur.rowcount


if __name__ == "__main__":
    steps.run(Pipelined)
