// node-postgres; the steps of steps.py. What to connect to is in libpq's environment variables.
'use strict';
const fs = require('fs');
const { Client } = require('pg');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');

const table = process.env.CS_TABLE;
const number = Number(process.env.CS_NUMBER);
const count = `select count(*)::int as v from scratchpad where n = ${number}`;

const c = new Client({ ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT), servername: process.env.PGHOST }, options: process.env.PGOPTIONS });

function check(what, got, wanted) {
  if (got !== wanted) {
    throw new Error(`${what}: ${got}, not ${wanted}`);
  }
}

async function fails(what, sqlstate, promise, ...words) {
  const e = await promise.then(() => { throw new Error(`${what} did not fail`); }, (error) => error);
  check(`${what} (${e.message})`, e.code, sqlstate);
  for (const w of words) {
    check(`${what}: ${w}`, `${e.message} ${e.detail} ${e.hint}`.includes(w), true);
  }
}

const value = async (sql, args) => Object.values((await c.query(sql, args)).rows[0])[0];
const update = async (id) => (await c.query(`update ${table} set note = $1 where id = $2`, ['by driver', id])).rowCount;
const note = (id) => value(`select note from ${table} where id = $1`, [id]);
const insert = () => c.query('insert into scratchpad values ($1)', [number]);

const steps = {
  async tls() {
    check('select 1', await value('select 1'), 1);
  },
  async prepared() {
    for (let i = 1; i <= 10; i++) {
      const r = await c.query({ name: 'one', text: `select note from ${table} where id = $1`, values: [i] });
      check('row', r.rows[0].note, 'row');
    }
  },
  async transaction() {
    await c.query('begin');
    await insert();
    check('inside', await value(count), 1);
    await c.query('rollback');
    check('after rollback', await value(count), 0);
    await c.query('begin');
    await insert();
    await c.query('commit');
    check('after commit', await value(count), 1);
  },
  async copy() {
    const rows = `${number}\n`.repeat(1000);
    await pipeline(Readable.from([rows]), c.query(copyFrom('copy scratchpad from stdin')));
    let out = '';
    for await (const part of c.query(copyTo(`copy (select n from scratchpad where n = ${number}) to stdout`))) {
      out += part;
    }
    check('rows out', out, rows);
  },
  async hold() {
    check('updated', await update(3), 1);
    check('note', await note(3), 'by driver');
  },
  async denied() {
    await fails('a rule denies', '42501', c.query(`truncate table ${table}`), 'never-truncate');
    await c.query('begin');
    await insert();
    await fails('a person denies', '42501', update(4), 'not on a Friday');
    await fails('afterwards', '25P02', c.query('select 1'));
    await c.query('rollback');
    check('what stood before', await value(count), 0);
  },
  async not_yet() {
    await fails('async', 'CS001', update(5), 'COUNTERSIGN held id=', 'state=pending');
    check('note', await note(5), 'row');
  },
  async again() {
    check('updated', await update(5), 1);
    check('note', await note(5), 'by driver');
  },
  async cancel() {
    const other = new Client({ ssl: false });
    const long = c.query('select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b');
    setTimeout(() => other.cancel(c, c.activeQuery), 1000); // it asks without TLS: a key is all that such a request has
    await fails('what is cancelled', '57014', long);
    check('afterwards', await value('select 1'), 1);
  },
};

async function main() {
  await c.connect();
  await steps[process.argv[2]]();
  await c.end();
  process.exit(0);
}

main().catch((e) => { console.error(e); process.exit(1); });
