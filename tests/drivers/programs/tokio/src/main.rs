//! tokio-postgres; the steps of steps.py.
use futures_util::{pin_mut, SinkExt, TryStreamExt};
use std::{env, future::Future, io, pin::Pin, task, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Client, Error, Transaction};

// Debian has no package that joins tokio-postgres and TLS: this does, as postgres-native-tls would.
#[derive(Clone)]
struct Tls(tokio_native_tls::TlsConnector);
struct Connect(tokio_native_tls::TlsConnector, String);
struct Stream<S>(tokio_native_tls::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = Connect;
    type Error = native_tls::Error;
    fn make_tls_connect(&mut self, domain: &str) -> Result<Connect, native_tls::Error> {
        Ok(Connect(self.0.clone(), domain.to_string()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Stream<S>;
    type Error = native_tls::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, native_tls::Error>> + Send>>;
    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(&self.1, stream).await.map(Stream) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, c: &mut task::Context<'_>, b: &mut ReadBuf<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(c, b)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, c: &mut task::Context<'_>, b: &[u8]) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(c, b)
    }
    fn poll_flush(mut self: Pin<&mut Self>, c: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(c)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, c: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(c)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match self.0.get_ref().tls_server_end_point() {
            Ok(Some(b)) => ChannelBinding::tls_server_end_point(b),
            _ => ChannelBinding::none(),
        }
    }
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn table() -> String {
    var("CS_TABLE")
}

fn number() -> i32 {
    var("CS_NUMBER").parse().unwrap()
}

fn tls() -> Tls {
    let pem = std::fs::read(var("PGSSLROOTCERT")).unwrap();
    let mut b = native_tls::TlsConnector::builder();
    b.disable_built_in_roots(true).add_root_certificate(native_tls::Certificate::from_pem(&pem).unwrap());
    Tls(b.build().unwrap().into())
}

fn fails<T>(what: &str, sqlstate: &str, result: Result<T, Error>, words: &str) {
    let e = match result {
        Ok(_) => panic!("{} did not fail", what),
        Err(e) => e,
    };
    let d = e.as_db_error().unwrap_or_else(|| panic!("{}: {}", what, e));
    assert_eq!(d.code().code(), sqlstate, "{}: {:?}", what, d);
    let said = format!("{} {:?} {:?}", d.message(), d.detail(), d.hint());
    assert!(said.contains(words), "{}: {}", what, said);
}

async fn update(c: &Client, id: i32) -> Result<u64, Error> {
    c.execute(&format!("update {} set note = $1 where id = $2", table()), &[&"by driver", &id]).await
}

async fn note(c: &Client, id: i32) -> String {
    c.query_one(&format!("select note from {} where id = $1", table()), &[&id]).await.unwrap().get(0)
}

async fn count(c: &Client) -> i64 {
    c.query_one("select count(*) from scratchpad where n = $1", &[&number()]).await.unwrap().get(0)
}

async fn insert(t: &Transaction<'_>) {
    assert_eq!(t.execute("insert into scratchpad values ($1)", &[&number()]).await.unwrap(), 1);
}

async fn transaction(c: &mut Client) {
    let t = c.transaction().await.unwrap();
    insert(&t).await;
    t.rollback().await.unwrap();
    assert_eq!(count(c).await, 0);
    let t = c.transaction().await.unwrap();
    insert(&t).await;
    t.commit().await.unwrap();
    assert_eq!(count(c).await, 1);
}

async fn prepared(c: &Client) {
    let one = c.prepare(&format!("select note from {} where id = $1", table())).await.unwrap();
    for i in 1..=10i32 {
        assert_eq!(c.query_one(&one, &[&i]).await.unwrap().get::<_, String>(0), "row");
    }
    // Futures that are polled together are a pipeline.
    let (a, b) = futures_util::future::join(c.query_one(&one, &[&1i32]), c.query_one(&one, &[&2i32])).await;
    assert_eq!(a.unwrap().get::<_, String>(0), b.unwrap().get::<_, String>(0));
}

async fn copy(c: &Client) {
    let rows = format!("{}\n", number()).repeat(1000);
    let sink = c.copy_in::<_, io::Cursor<Vec<u8>>>("copy scratchpad from stdin").await.unwrap();
    pin_mut!(sink);
    sink.send(io::Cursor::new(rows.clone().into_bytes())).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let out = c.copy_out(&format!("copy (select n from scratchpad where n = {}) to stdout", number())).await.unwrap();
    let parts: Vec<_> = out.try_collect().await.unwrap();
    assert_eq!(parts.concat(), rows.as_bytes());
}

async fn cancel(c: &Client) {
    let token = c.cancel_token();
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        token.cancel_query(tls()).await
    };
    let long = c.query("select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b", &[]);
    let (sent, got) = futures_util::future::join(later, long).await;
    sent.unwrap();
    fails("what is cancelled", "57014", got, "");
    assert_eq!(c.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1);
}

async fn denied(c: &mut Client) {
    fails("a rule denies", "42501", c.batch_execute(&format!("truncate table {}", table())).await, "never-truncate");
    c.batch_execute("begin").await.unwrap();
    assert_eq!(c.execute("insert into scratchpad values ($1)", &[&number()]).await.unwrap(), 1);
    fails("a person denies", "42501", update(c, 4).await, "not on a Friday");
    fails("afterwards", "25P02", c.query("select 1", &[]).await, "");
    c.batch_execute("rollback").await.unwrap();
    assert_eq!(count(c).await, 0);
}

async fn run(step: &str) {
    let mut config = tokio_postgres::Config::new();
    config.host(&var("PGHOST")).port(var("PGPORT").parse().unwrap()).user(&var("PGUSER")).password(var("PGPASSWORD"));
    config.dbname(&var("PGDATABASE")).options(&var("PGOPTIONS")).ssl_mode(tokio_postgres::config::SslMode::Require);
    config.channel_binding(tokio_postgres::config::ChannelBinding::Require);
    let (mut c, connection) = config.connect(tls()).await.unwrap();
    tokio::spawn(connection);
    match step {
        "tls" => assert_eq!(c.query_one("select 1", &[]).await.unwrap().get::<_, i32>(0), 1),
        "prepared" => prepared(&c).await,
        "transaction" => transaction(&mut c).await,
        "copy" => copy(&c).await,
        "cancel" => cancel(&c).await,
        "hold" => {
            assert_eq!(update(&c, 3).await.unwrap(), 1);
            assert_eq!(note(&c, 3).await, "by driver");
        }
        "denied" => denied(&mut c).await,
        "not_yet" => {
            fails("async", "CS001", update(&c, 5).await, "COUNTERSIGN held id=");
            assert_eq!(note(&c, 5).await, "row");
        }
        "again" => {
            assert_eq!(update(&c, 5).await.unwrap(), 1);
            assert_eq!(note(&c, 5).await, "by driver");
        }
        _ => panic!("no such step"),
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(&env::args().nth(1).unwrap()));
}
