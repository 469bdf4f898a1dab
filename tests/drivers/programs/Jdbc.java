/* pgjdbc; the steps of steps.py. */
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Properties;
import java.util.Timer;
import java.util.TimerTask;
import org.postgresql.PGConnection;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Jdbc {
    static final String TABLE = env("CS_TABLE"), NUMBER = env("CS_NUMBER");
    static final String COUNT = "select count(*) from scratchpad where n = " + NUMBER;
    static Connection c;

    interface Call {
        void run() throws SQLException;
    }

    static String env(String name) {
        return System.getenv(name);
    }

    static void check(String what, Object got, Object wanted) {
        if (!wanted.equals(got)) {
            throw new AssertionError(what + ": " + got + ", not " + wanted);
        }
    }

    static void fails(String what, String sqlstate, Call call, String... words) {
        try {
            call.run();
        } catch (SQLException e) {
            ServerErrorMessage m = e instanceof PSQLException ? ((PSQLException) e).getServerErrorMessage() : null;
            String said = m != null ? m.getMessage() + " " + m.getDetail() + " " + m.getHint() : e.getMessage();
            check(what, e.getSQLState(), sqlstate);
            for (String w : words) {
                check(what + ": " + w + " in " + said, said.contains(w), true);
            }
            return;
        }
        throw new AssertionError(what + " did not fail");
    }

    static String value(String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getString(1);
        }
    }

    static void run(String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.executeUpdate(sql);
        }
    }

    static int update(int id) throws SQLException {
        try (PreparedStatement s = c.prepareStatement("update " + TABLE + " set note = ? where id = ?")) {
            s.setString(1, "by driver");
            s.setInt(2, id);
            return s.executeUpdate();
        }
    }

    static void insert() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("insert into scratchpad values (?)")) {
            s.setInt(1, Integer.parseInt(NUMBER));
            s.executeUpdate();
        }
    }

    static String note(int id) throws SQLException {
        return value("select note from " + TABLE + " where id = " + id);
    }

    /* Named at the server from the fifth time on; the second half of the rows comes in a batch of portals. */
    static void prepared() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("select note from " + TABLE + " where id = ?")) {
            for (int i = 1; i <= 10; i++) {
                s.setInt(1, i);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    check("row " + i, r.getString(1), "row");
                }
            }
        }
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("select i from generate_series(1, ?) i")) {
            s.setFetchSize(10);
            s.setInt(1, 100);
            int n = 0;
            for (ResultSet r = s.executeQuery(); r.next(); n++) {
            }
            check("rows by tens", n, 100);
        }
        try (PreparedStatement s = c.prepareStatement("insert into scratchpad values (?)")) {
            for (int i = 0; i < 50; i++) {
                s.setInt(1, Integer.parseInt(NUMBER));
                s.addBatch();
            }
            check("batch", s.executeBatch().length, 50);
        }
        c.commit();
        c.setAutoCommit(true);
        check("batch", value(COUNT), "50");
    }

    static void transaction() throws SQLException {
        c.setAutoCommit(false);
        insert();
        check("inside", value(COUNT), "1");
        c.rollback();
        check("after rollback", value(COUNT), "0");
        insert();
        c.commit();
        c.setAutoCommit(true);
        check("after commit", value(COUNT), "1");
    }

    static void copy() throws Exception {
        String rows = (NUMBER + "\n").repeat(1000);
        StringWriter out = new StringWriter();
        ((PGConnection) c).getCopyAPI().copyIn("copy scratchpad from stdin", new StringReader(rows));
        ((PGConnection) c).getCopyAPI().copyOut("copy (select n from scratchpad where n = " + NUMBER + ") to stdout", out);
        check("rows out", out.toString(), rows);
    }

    static void cancel() throws SQLException {
        try (Statement s = c.createStatement()) {
            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                public void run() {
                    try {
                        s.cancel();
                    } catch (SQLException e) {
                        throw new RuntimeException(e);
                    }
                }
            }, 1000);
            fails("what is cancelled", "57014", () -> s.executeQuery("select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b"));
        }
        check("afterwards", value("select 1"), "1");
    }

    static void denied() throws SQLException {
        fails("a rule denies", "42501", () -> run("truncate table " + TABLE), "never-truncate");
        c.setAutoCommit(false);
        insert();
        fails("a person denies", "42501", () -> update(4), "not on a Friday");
        fails("afterwards", "25P02", () -> value("select 1"));
        c.rollback();
        c.setAutoCommit(true);
        check("what stood before", value(COUNT), "0");
    }

    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.setProperty("user", env("PGUSER"));
        p.setProperty("password", env("PGPASSWORD"));
        p.setProperty("sslmode", "verify-full");
        p.setProperty("sslrootcert", env("PGSSLROOTCERT"));
        p.setProperty("socketTimeout", "15"); // shorter than the longest hold: the wait lines keep it off
        if (env("PGOPTIONS") != null) {
            p.setProperty("options", env("PGOPTIONS"));
        }
        c = DriverManager.getConnection("jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + env("PGDATABASE"), p);
        switch (args[0]) {
        case "tls": check("select 1", value("select 1"), "1"); break;
        case "prepared": prepared(); break;
        case "transaction": transaction(); break;
        case "copy": copy(); break;
        case "cancel": cancel(); break;
        case "hold": check("updated", update(3), 1); check("note", note(3), "by driver"); break;
        case "denied": denied(); break;
        case "not_yet": fails("async", "CS001", () -> update(5), "COUNTERSIGN held id=", "state=pending"); check("note", note(5), "row"); break;
        case "again": check("updated", update(5), 1); check("note", note(5), "by driver"); break;
        default: throw new AssertionError("no such step");
        }
        c.close();
    }
}
