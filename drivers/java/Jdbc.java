// JDBC: pgjdbc as Debian packages it. Run by `java Jdbc.java`, without a build.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;

public class Jdbc {
    interface Check {
        Object run() throws Exception;
    }

    interface Work {
        Object with(Connection connection) throws Exception;
    }

    static final String LARGE = "0123456789abcdé\n".repeat(65536);

    static void tell(String feature, String outcome) {
        System.out.println(feature + "\t" + outcome.replace("\t", "\\t").replace("\n", "\\n"));
        System.out.flush();
    }

    static String show(Object value) throws Exception {
        String text = String.valueOf(value);
        if (text.length() <= 400) return text;
        byte[] digest = MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
        return text.length() + " characters, " + HexFormat.of().formatHex(digest).substring(0, 16);
    }

    static String describe(Throwable error) {
        String state = error instanceof SQLException sql ? sql.getSQLState() : error.getClass().getSimpleName();
        return "error " + state + ": " + String.valueOf(error.getMessage()).lines().findFirst().orElse("");
    }

    static void feature(String name, Check check) {
        try {
            tell(name, "ok " + show(check.run()));
        } catch (Throwable error) {
            tell(name, describe(error));
        }
    }

    static String expect(Check check) throws Exception {
        try {
            check.run();
        } catch (SQLException error) {
            return describe(error);
        }
        throw new AssertionError("no error");
    }

    static Connection connect(String... options) throws SQLException {
        Properties all = new Properties();
        all.put("user", System.getenv("PGUSER"));
        all.put("password", System.getenv("PGPASSWORD"));
        all.put("sslmode", "disable");
        all.put("socketTimeout", "60");
        for (int i = 0; i < options.length; i += 2) all.put(options[i], options[i + 1]);
        String host = options.length > 1 && options[1].equals("verify-full") ? "localhost" : System.getenv("PGHOST");
        return DriverManager.getConnection("jdbc:postgresql://" + host + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), all);
    }

    static void feature(String name, Work work, String... options) {
        feature(name, () -> {
            try (Connection connection = connect(options)) {
                return work.with(connection);
            }
        });
    }

    static String rows(ResultSet rows) throws SQLException {
        StringBuilder text = new StringBuilder();
        while (rows.next()) {
            for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) {
                Object value = rows.getObject(i);
                if (value instanceof byte[] bytes) value = HexFormat.of().formatHex(bytes);
                text.append(value).append('|');
            }
            text.append('\n');
        }
        return text.toString();
    }

    static String rows(Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
            try (ResultSet found = s.executeQuery()) {
                return rows(found);
            }
        }
    }

    static void run(Connection c, String... statements) throws SQLException {
        try (Statement s = c.createStatement()) {
            for (String sql : statements) s.execute(sql);
        }
    }

    static Object types(Connection c) throws Exception {
        Object[][] values = {
            {"smallint", (short) 32767}, {"integer", 2147483647}, {"bigint", Long.MIN_VALUE}, {"numeric", new BigDecimal("12345678901234567890.0123456789")},
            {"double precision", 0.1}, {"real", 1.5f}, {"text", "naïve ☕ 日本 'quoted' \\ \n end"}, {"boolean", true}, {"date", LocalDate.of(2024, 2, 29)},
            {"time", LocalTime.of(12, 34, 56, 789000)}, {"timestamp", LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789000)},
            {"timestamptz", OffsetDateTime.of(2024, 2, 29, 12, 34, 56, 0, ZoneOffset.ofHours(2))}, {"uuid", new UUID(0, 1)}, {"bytea", new byte[] {0, 1, -1}},
            {"interval", new PGInterval(0, 1, 2, 3, 4, 5.5)},
        };
        StringBuilder text = new StringBuilder();
        // More than five times: the driver changes to a named statement and to binary results.
        for (int round = 0; round < 7; round++)
            for (Object[] value : values) text.append(value[0]).append('=').append(rows(c, "SELECT ?::" + value[0], value[1]));
        PGobject json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"a\": [1, \"é\"]}");
        text.append(rows(c, "SELECT ?::jsonb", json));
        try (PreparedStatement s = c.prepareStatement("SELECT ?::int[], ?::text[]")) {
            s.setArray(1, c.createArrayOf("int4", new Object[] {1, null, 3}));
            s.setArray(2, c.createArrayOf("text", new Object[] {"a b", "c\"d"}));
            text.append(rows(s.executeQuery()));
        }
        return text;
    }

    static Object reuse(Connection c) throws Exception {
        StringBuilder text = new StringBuilder();
        try (PreparedStatement s = c.prepareStatement("SELECT name, price, bought FROM fruit WHERE id = ?")) {
            for (int n = 0; n < 12; n++) {
                s.setInt(1, n % 3 + 1);
                text.append(rows(s.executeQuery()));
            }
        }
        return text;
    }

    static Object changedTable(Connection c) throws Exception {
        run(c, "CREATE TEMP TABLE shape (a int)", "INSERT INTO shape VALUES (1)");
        try (PreparedStatement s = c.prepareStatement("SELECT * FROM shape")) {
            for (int n = 0; n < 6; n++) s.executeQuery();
            run(c, "ALTER TABLE shape ADD b int");
            return rows(s.executeQuery());
        }
    }

    static Object savepoints(Connection c) throws Exception {
        c.setAutoCommit(false);
        run(c, "CREATE TEMP TABLE s (a int)");
        Savepoint a = c.setSavepoint("a");
        String error = expect(() -> rows(c, "SELECT 1/0"));
        c.rollback(a);
        run(c, "INSERT INTO s VALUES (1)");
        c.releaseSavepoint(c.setSavepoint());
        c.commit();
        return error + rows(c, "SELECT * FROM s");
    }

    static Object batch(Connection c) throws Exception {
        run(c, "CREATE TABLE m (a int PRIMARY KEY, b text)");
        c.setAutoCommit(false);
        try (PreparedStatement s = c.prepareStatement("INSERT INTO m VALUES (?, ?)")) {
            for (int n = 0; n < 1000; n++) {
                s.setInt(1, n);
                s.setString(2, "row " + n);
                s.addBatch();
            }
            int done = s.executeBatch().length;
            c.commit();
            for (int n = 999; n < 1005; n++) {
                s.setInt(1, n);
                s.setString(2, "again");
                s.addBatch();
            }
            String error = expect(s::executeBatch);
            c.rollback();
            return done + error + rows(c, "SELECT count(*), sum(a) FROM m");
        }
    }

    static Object keys(Connection c) throws Exception {
        run(c, "CREATE TABLE k (id serial PRIMARY KEY, b text)");
        try (PreparedStatement s = c.prepareStatement("INSERT INTO k (b) VALUES (?), (?)", Statement.RETURN_GENERATED_KEYS)) {
            s.setString(1, "x");
            s.setString(2, "y");
            s.executeUpdate();
            return rows(s.getGeneratedKeys());
        }
    }

    static Object fetchSize(Connection c) throws Exception {
        c.setAutoCommit(false);
        long total = 0;
        try (PreparedStatement s = c.prepareStatement("SELECT n FROM numbers ORDER BY n")) {
            s.setFetchSize(500);
            try (ResultSet found = s.executeQuery()) {
                while (found.next()) total += found.getInt(1);
            }
        }
        return total;
    }

    static Object updatable(Connection c) throws Exception {
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_SENSITIVE, ResultSet.CONCUR_UPDATABLE); ResultSet found = s.executeQuery("SELECT id, name, price FROM fruit ORDER BY id")) {
            found.last();
            found.updateString("name", "plum");
            found.updateRow();
            found.first();
            found.deleteRow();
        }
        return rows(c, "SELECT * FROM fruit ORDER BY id");
    }

    static Object copyOut(Connection c, String sql) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        long count = new CopyManager(c.unwrap(org.postgresql.core.BaseConnection.class)).copyOut(sql, out);
        return count + " " + HexFormat.of().formatHex(out.toByteArray());
    }

    static Object copyIn(Connection c) throws Exception {
        run(c, "CREATE TEMP TABLE copied (a int, b text)");
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 10000; n++) lines.append(n).append("\tr ").append(n).append('\n');
        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
        long text = copy.copyIn("COPY copied FROM STDIN", new StringReader(lines.toString()));
        long csv = copy.copyIn("COPY copied FROM STDIN (FORMAT csv)", new StringReader("1,\"x, y\"\n"));
        String error = expect(() -> copy.copyIn("COPY copied FROM STDIN", new StringReader("x\n")));
        return text + " " + csv + error + rows(c, "SELECT count(*), sum(a) FROM copied");
    }

    static Object cancel(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                @Override
                public void run() {
                    try {
                        s.cancel();
                    } catch (SQLException error) {
                        throw new IllegalStateException(error);
                    }
                }
            }, 300);
            String error = expect(() -> s.executeQuery("SELECT pg_sleep(60)"));
            return error + rows(c, "SELECT 1");
        }
    }

    static Object timeout(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            return expect(() -> s.executeQuery("SELECT pg_sleep(60)"));
        }
    }

    static Object notifications(Connection c) throws Exception {
        try (Connection speaker = connect()) {
            run(c, "LISTEN news");
            run(speaker, "NOTIFY news, 'first'");
            StringBuilder text = new StringBuilder();
            for (var n : c.unwrap(PGConnection.class).getNotifications(10000)) text.append(n.getName()).append(' ').append(n.getParameter());
            return text;
        }
    }

    static Object notices(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("SELECT shout('hello')");
            return s.getWarnings().getMessage();
        }
    }

    static Object metadata(Connection c) throws Exception {
        DatabaseMetaData about = c.getMetaData();
        StringBuilder text = new StringBuilder(about.getDatabaseProductName());
        for (ResultSet found : List.of(
                about.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"}), about.getColumns(null, "public", "fruit", "%"), about.getPrimaryKeys(null, "public", "fruit"),
                about.getIndexInfo(null, "public", "fruit", false, false), about.getImportedKeys(null, "public", "fruit"), about.getSchemas(), about.getFunctions(null, "public", "%"),
                about.getTablePrivileges(null, "public", "fruit")))
            text.append(rows(found).replaceAll("[0-9]{5,}", "N"));
        return text;
    }

    static Object largeObject(Connection c) throws Exception {
        c.setAutoCommit(false);
        var manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO();
        var object = manager.open(oid);
        object.write("large object".getBytes());
        object.seek(0);
        String read = new String(object.read(12));
        object.close();
        return read;
    }

    static Object call(Connection c) throws Exception {
        try (CallableStatement s = c.prepareCall("{? = call add(?, ?)}")) {
            s.registerOutParameter(1, Types.INTEGER);
            s.setInt(2, 2);
            s.setInt(3, 3);
            s.execute();
            return s.getInt(1);
        }
    }

    public static void main(String[] arguments) throws Exception {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        tell("version", "pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION + ", Java " + Runtime.version().feature());
        feature("connect", c -> rows(c, "SELECT current_user, current_database()"));
        feature("simple query", c -> rows(c, "SELECT * FROM fruit ORDER BY id"));
        feature("simple query mode", c -> rows(c, "SELECT ?::int, ?::text", 1, "é"), "preferQueryMode", "simple");
        feature("extended for prepared", c -> rows(c, "SELECT ?::int", 1), "preferQueryMode", "extendedForPrepared");
        feature("several statements", c -> {
            try (Statement s = c.createStatement()) {
                s.execute("SELECT 1; SELECT 2, 3");
                String first = rows(s.getResultSet());
                s.getMoreResults();
                return first + rows(s.getResultSet());
            }
        });
        feature("several statements, one depends", c -> {
            run(c, "CREATE TEMP TABLE early (a int); INSERT INTO early VALUES (1)");
            return rows(c, "SELECT * FROM early");
        });
        feature("types, text and binary", Jdbc::types);
        feature("types, binary at once", Jdbc::types, "prepareThreshold", "-1");
        feature("every column type, text", c -> rows(c, "SELECT * FROM everything WHERE id = 1"));
        feature("null", c -> {
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int, ?::text")) {
                s.setNull(1, Types.INTEGER);
                s.setString(2, null);
                return rows(s.executeQuery());
            }
        });
        feature("large text", c -> rows(c, "SELECT ?::text", LARGE).equals(LARGE + "|\n"));
        feature("prepared reuse", Jdbc::reuse);
        feature("prepared, changed table", Jdbc::changedTable);
        feature("prepared, changed table, retry", Jdbc::changedTable, "autosave", "conservative");
        feature("commit", c -> {
            c.setAutoCommit(false);
            run(c, "CREATE TABLE kept (a int)", "INSERT INTO kept VALUES (1)");
            c.commit();
            return rows(c, "SELECT count(*) FROM kept");
        });
        feature("rollback", c -> {
            c.setAutoCommit(false);
            run(c, "DELETE FROM fruit");
            c.rollback();
            return rows(c, "SELECT count(*) FROM fruit");
        });
        feature("savepoints", Jdbc::savepoints);
        feature("isolation, read only", c -> {
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            c.setReadOnly(true);
            c.setAutoCommit(false);
            return rows(c, "SHOW transaction_isolation") + expect(() -> {
                run(c, "DELETE FROM fruit");
                return null;
            });
        });
        feature("error, then on", c -> expect(() -> rows(c, "SELECT 1/0")) + expect(() -> rows(c, "SELECT * FROM nowhere")) + rows(c, "SELECT 1"));
        feature("syntax error", c -> expect(() -> rows(c, "SELEC")) + "\n" + rows(c, "SELECT 1"));
        feature("batch", Jdbc::batch);
        feature("batch, rewritten", Jdbc::batchAgain, "reWriteBatchedInserts", "true");
        feature("generated keys", Jdbc::keys);
        feature("cursor, 10000 rows", Jdbc::fetchSize);
        feature("updatable result", Jdbc::updatable);
        feature("copy in, text", Jdbc::copyIn);
        feature("copy out, text", c -> copyOut(c, "COPY numbers TO STDOUT"));
        feature("copy out, csv", c -> copyOut(c, "COPY numbers TO STDOUT (FORMAT csv)"));
        feature("copy out, binary", c -> copyOut(c, "COPY numbers TO STDOUT (FORMAT binary)"));
        feature("cancel", Jdbc::cancel);
        feature("query timeout", Jdbc::timeout);
        feature("listen, notify", Jdbc::notifications);
        feature("notices", Jdbc::notices);
        feature("metadata", Jdbc::metadata);
        feature("large objects", Jdbc::largeObject);
        feature("call", Jdbc::call);
        feature("pool, reset", c -> {
            run(c, "SET search_path = nowhere", "DISCARD ALL");
            return c.isValid(5) + rows(c, "SHOW search_path");
        });
        feature("settings", c -> rows(c, "SHOW application_name") + rows(c, "SHOW search_path") + c.getSchema(), "ApplicationName", "drivers", "currentSchema", "pg_catalog");
        feature("settings, options", c -> rows(c, "SHOW statement_timeout"), "options", "-c statement_timeout=5000");
        feature("TLS, verify-full", c -> rows(c, "SELECT 1"), "sslmode", "verify-full", "sslrootcert", System.getenv("DRIVERS_CA"));
        tell("end", "ok");
        System.exit(0);
    }

    static Object batchAgain(Connection c) throws Exception {
        run(c, "DROP TABLE IF EXISTS m");
        return batch(c);
    }
}
