"""Django's ORM (over psycopg2): models, atomic blocks; the steps of steps.py."""
import io
import os
import threading

import django
import steps
from django.conf import settings
from django.db import connection, models, transaction

settings.configure(INSTALLED_APPS=[], DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
    "OPTIONS": {"sslmode": "verify-full"}}}, USE_TZ=True, TIME_ZONE="UTC", DEFAULT_AUTO_FIELD="django.db.models.AutoField")
django.setup()


class Row(models.Model):
    id = models.IntegerField(primary_key=True)
    note = models.TextField()

    class Meta:
        app_label, db_table, managed = "matrix", steps.TABLE, False


class Number(models.Model):
    n = models.IntegerField(primary_key=True)

    class Meta:
        app_label, db_table, managed = "matrix", "scratchpad", False


class Driver:
    def __init__(self):
        self.block = None

    def value(self, sql):
        if sql == steps.COUNT:
            return Number.objects.filter(n=steps.NUMBER).count()
        if connection.needs_rollback:  # Django itself would not ask the server
            cur = connection.connection.cursor()
            cur.execute(sql)
        with connection.cursor() as cur:
            cur.execute(sql)
            return cur.fetchone()[0]

    def run(self, sql):
        if sql.startswith(steps.INSERT):
            Number.objects.bulk_create([Number(n=steps.NUMBER)])
            return
        with connection.cursor() as cur:
            cur.execute(sql)

    def prepared(self, sql, i):  # it has none; parameters are written into the text
        return Row.objects.get(id=i).note

    def update(self, sql, i):
        return Row.objects.filter(id=i).update(note="by driver")

    def begin(self):
        self.block = transaction.atomic()
        self.block.__enter__()

    def rollback(self):
        transaction.set_rollback(True)
        self.block.__exit__(None, None, None)

    def commit(self):
        self.block.__exit__(None, None, None)

    def copy_in(self, sql, rows):
        with connection.cursor() as cur:
            cur.copy_expert(sql, io.StringIO("".join("%s\n" % r for r in rows)))

    def copy_out(self, sql):
        out = io.StringIO()
        with connection.cursor() as cur:
            cur.copy_expert(sql, out)
        return out.getvalue().split()

    def cancelled(self, sql):
        connection.ensure_connection()
        threading.Timer(1, connection.connection.cancel).start()
        self.run(sql)

    def error(self, e):
        e = e.__cause__ or e
        return e.pgcode, "%s %s %s" % (e.diag.message_primary, e.diag.message_detail, e.diag.message_hint)

    def close(self):
        connection.close()


if __name__ == "__main__":
    steps.run(Driver)
