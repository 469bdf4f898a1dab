"""asyncpg, the steps of steps.py."""
import asyncio
import io
import os
import ssl

import asyncpg
import steps


class Driver:
    def __init__(self):
        self.loop = asyncio.new_event_loop()
        context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
        settings = dict(o.split("=", 1) for o in os.environ.get("PGOPTIONS", "").split("-c ") if o.strip())
        self.c = self.wait(asyncpg.connect(ssl=context, server_settings={k: v.strip() for k, v in settings.items()}))
        self.one, self.tx = None, None

    def wait(self, what):
        return self.loop.run_until_complete(what)

    def value(self, sql):
        return self.wait(self.c.fetchval(sql))

    def run(self, sql):
        self.wait(self.c.execute(sql))

    def prepared(self, sql, i):
        self.one = self.one or self.wait(self.c.prepare(sql + "$1"))
        return self.wait(self.one.fetchval(i))

    def update(self, sql, i):
        return int(self.wait(self.c.execute(sql + "$1", i)).split()[1])

    def begin(self):
        self.tx = self.c.transaction()
        self.wait(self.tx.start())

    def rollback(self):
        self.wait(self.tx.rollback())

    def commit(self):
        self.wait(self.tx.commit())

    def copy_in(self, sql, rows):
        del sql  # it writes COPY itself
        self.wait(self.c.copy_records_to_table("scratchpad", records=[(r,) for r in rows]))

    def copy_out(self, sql):
        out = io.BytesIO()
        self.wait(self.c.copy_from_query(sql[len("copy ("):sql.rindex(")")], output=out))
        return out.getvalue().decode().split()

    def cancelled(self, sql):
        async def go():
            task = self.loop.create_task(self.c.execute(sql))
            done, _ = await asyncio.wait([task], timeout=1)
            assert not done
            await self.c._cancel(asyncio.Future())  # what task.cancel() sends; then the server's answer is seen
            await task
        try:
            self.wait(go())
        except asyncpg.PostgresError:
            raise

    def error(self, e):
        return e.sqlstate, "%s %s %s" % (e.message, e.detail, e.hint)

    def close(self):
        self.wait(self.c.close())


if __name__ == "__main__":
    steps.run(Driver)
