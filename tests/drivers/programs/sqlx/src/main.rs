//! sqlx; the steps of steps.py.
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection, Error, Executor, Row};
use std::env;

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn table() -> String {
    var("CS_TABLE")
}

fn number() -> i32 {
    var("CS_NUMBER").parse().unwrap()
}

fn options() -> PgConnectOptions {
    let o = PgConnectOptions::new_without_pgpass()
        .host(&var("PGHOST"))
        .port(var("PGPORT").parse().unwrap())
        .username(&var("PGUSER"))
        .password(&var("PGPASSWORD"))
        .database(&var("PGDATABASE"))
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(var("PGSSLROOTCERT"));
    match var("PGOPTIONS").strip_prefix("-c countersign.mode=") {
        Some(mode) => o.options([("countersign.mode", mode)]),
        None => o,
    }
}

fn fails<T>(what: &str, sqlstate: &str, result: Result<T, Error>, words: &str) {
    let e = match result {
        Ok(_) => panic!("{} did not fail", what),
        Err(e) => e,
    };
    let d = match e.as_database_error() {
        Some(d) => d.downcast_ref::<sqlx::postgres::PgDatabaseError>(),
        None => panic!("{}: {}", what, e),
    };
    assert_eq!(d.code(), sqlstate, "{}: {:?}", what, d);
    let said = format!("{} {:?} {:?}", d.message(), d.detail(), d.hint());
    assert!(said.contains(words), "{}: {}", what, said);
}

async fn update(c: &mut PgConnection, id: i32) -> Result<u64, Error> {
    let sql = format!("update {} set note = $1 where id = $2", table());
    Ok(sqlx::query(&sql).bind("by driver").bind(id).execute(c).await?.rows_affected())
}

async fn note(c: &mut PgConnection, id: i32) -> String {
    let sql = format!("select note from {} where id = $1", table());
    sqlx::query_scalar(&sql).bind(id).fetch_one(c).await.unwrap()
}

async fn count(c: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from scratchpad where n = $1").bind(number()).fetch_one(c).await.unwrap()
}

async fn insert(c: &mut PgConnection) {
    let done = sqlx::query("insert into scratchpad values ($1)").bind(number()).execute(c).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn prepared(c: &mut PgConnection) {
    let sql = format!("select note from {} where id = $1", table());
    for i in 1..=10i32 {
        let row = sqlx::query(&sql).bind(i).fetch_one(&mut *c).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "row");
    }
}

async fn transaction(c: &mut PgConnection) {
    let mut t = c.begin().await.unwrap();
    insert(&mut t).await;
    t.rollback().await.unwrap();
    assert_eq!(count(c).await, 0);
    let mut t = c.begin().await.unwrap();
    insert(&mut t).await;
    t.commit().await.unwrap();
    assert_eq!(count(c).await, 1);
}

async fn copy(c: &mut PgConnection) {
    let rows = format!("{}\n", number()).repeat(1000);
    let mut sink = c.copy_in_raw("copy scratchpad from stdin").await.unwrap();
    sink.send(rows.as_bytes()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let sql = format!("copy (select n from scratchpad where n = {}) to stdout", number());
    let parts: Vec<_> = c.copy_out_raw(&sql).await.unwrap().try_collect().await.unwrap();
    assert_eq!(parts.concat(), rows.as_bytes());
}

async fn denied(c: &mut PgConnection) {
    fails("a rule denies", "42501", c.execute(format!("truncate table {}", table()).as_str()).await, "never-truncate");
    let mut t = c.begin().await.unwrap();
    insert(&mut t).await;
    fails("a person denies", "42501", update(&mut t, 4).await, "not on a Friday");
    fails("afterwards", "25P02", (&mut *t).execute("select 1").await, "");
    t.rollback().await.unwrap();
    assert_eq!(count(c).await, 0);
}

async fn run(step: &str) {
    let mut c = PgConnection::connect_with(&options()).await.unwrap();
    let c = &mut c;
    match step {
        "tls" => assert_eq!(sqlx::query_scalar::<_, i32>("select 1").fetch_one(c).await.unwrap(), 1),
        "prepared" => prepared(c).await,
        "transaction" => transaction(c).await,
        "copy" => copy(c).await,
        "hold" => {
            assert_eq!(update(c, 3).await.unwrap(), 1);
            assert_eq!(note(c, 3).await, "by driver");
        }
        "denied" => denied(c).await,
        "not_yet" => {
            fails("async", "CS001", update(c, 5).await, "COUNTERSIGN held id=");
            assert_eq!(note(c, 5).await, "row");
        }
        "again" => {
            assert_eq!(update(c, 5).await.unwrap(), 1);
            assert_eq!(note(c, 5).await, "by driver");
        }
        _ => panic!("no such step"),
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&env::args().nth(1).unwrap()));
}
