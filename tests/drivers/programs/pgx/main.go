// pgx; the steps of steps.py. What to connect to is in libpq's environment variables.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

var (
	ctx    = context.Background()
	c      *pgx.Conn
	table  = os.Getenv("CS_TABLE")
	number = os.Getenv("CS_NUMBER")
	count  = "select count(*) from scratchpad where n = " + number
)

type runner interface {
	Exec(ctx context.Context, sql string, args ...interface{}) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...interface{}) pgx.Row
}

func check(what string, got, wanted interface{}) {
	if got != wanted {
		fmt.Fprintf(os.Stderr, "%s: %v, not %v\n", what, got, wanted)
		os.Exit(1)
	}
}

func need(err error) {
	check("error", err, nil)
}

func fails(what, sqlstate string, err error, words ...string) {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		check(what, err, "an error of the server")
	}
	check(what, e.Code, sqlstate)
	for _, w := range words {
		check(what+": "+w, strings.Contains(e.Message+e.Detail+e.Hint, w), true)
	}
}

func value(on runner, sql string) int {
	var n int
	need(on.QueryRow(ctx, sql).Scan(&n))
	return n
}

func update(on runner, id int) (int64, error) {
	tag, err := on.Exec(ctx, "update "+table+" set note = $1 where id = $2", "by driver", id)
	return tag.RowsAffected(), err
}

func note(id int) string {
	var s string
	need(c.QueryRow(ctx, "select note from "+table+" where id = $1", id).Scan(&s))
	return s
}

func insert(on runner) {
	n, _ := strconv.Atoi(number)
	_, err := on.Exec(ctx, "insert into scratchpad values ($1)", n)
	need(err)
}

func prepared() {
	_, err := c.Prepare(ctx, "one", "select note from "+table+" where id = $1")
	need(err)
	batch := &pgx.Batch{}
	for i := 1; i <= 10; i++ {
		var s string
		need(c.QueryRow(ctx, "one", i).Scan(&s))
		check("row", s, "row")
		batch.Queue("select note from "+table+" where id = $1", i)
	}
	results := c.SendBatch(ctx, batch)
	for i := 1; i <= 10; i++ {
		var s string
		need(results.QueryRow().Scan(&s))
		check("row of the batch", s, "row")
	}
	need(results.Close())
}

func transaction() {
	tx, err := c.Begin(ctx)
	need(err)
	insert(tx)
	check("inside", value(tx, count), 1)
	need(tx.Rollback(ctx))
	check("after rollback", value(c, count), 0)
	tx, err = c.Begin(ctx)
	need(err)
	insert(tx)
	need(tx.Commit(ctx))
	check("after commit", value(c, count), 1)
}

func copies() {
	n, _ := strconv.Atoi(number)
	rows := make([][]interface{}, 1000)
	for i := range rows {
		rows[i] = []interface{}{n}
	}
	in, err := c.CopyFrom(ctx, pgx.Identifier{"scratchpad"}, []string{"n"}, pgx.CopyFromRows(rows))
	need(err)
	check("rows in", in, int64(1000))
	var out bytes.Buffer
	_, err = c.PgConn().CopyTo(ctx, &out, "copy (select n from scratchpad where n = "+number+") to stdout")
	need(err)
	check("rows out", out.String(), strings.Repeat(number+"\n", 1000))
}

func cancel() {
	go func() {
		time.Sleep(time.Second)
		need(c.PgConn().CancelRequest(ctx))
	}()
	_, err := c.Exec(ctx, "select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b")
	fails("what is cancelled", "57014", err)
	check("afterwards", value(c, "select 1"), 1)
}

func denied() {
	_, err := c.Exec(ctx, "truncate table "+table)
	fails("a rule denies", "42501", err, "never-truncate")
	tx, err := c.Begin(ctx)
	need(err)
	insert(tx)
	_, err = update(tx, 4)
	fails("a person denies", "42501", err, "not on a Friday")
	_, err = tx.Exec(ctx, "select 1")
	fails("afterwards", "25P02", err)
	need(tx.Rollback(ctx))
	check("what stood before", value(c, count), 0)
}

func main() {
	config, err := pgx.ParseConfig("sslmode=verify-full")
	need(err)
	if o := os.Getenv("PGOPTIONS"); o != "" {
		config.RuntimeParams["options"] = o
	}
	c, err = pgx.ConnectConfig(ctx, config)
	need(err)
	switch os.Args[1] {
	case "tls":
		check("select 1", value(c, "select 1"), 1)
	case "prepared":
		prepared()
	case "transaction":
		transaction()
	case "copy":
		copies()
	case "cancel":
		cancel()
	case "hold":
		n, err := update(c, 3)
		need(err)
		check("updated", n, int64(1))
		check("note", note(3), "by driver")
	case "denied":
		denied()
	case "not_yet":
		_, err := update(c, 5)
		fails("async", "CS001", err, "COUNTERSIGN held id=", "state=pending")
		check("note", note(5), "row")
	case "again":
		n, err := update(c, 5)
		need(err)
		check("updated", n, int64(1))
		check("note", note(5), "by driver")
	default:
		check("step", os.Args[1], "one of the steps")
	}
	need(c.Close(ctx))
}
