package program

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
)

// realDatabase is a PostgreSQL for statements, wired as the watcher does it.
type realDatabase struct {
	*postgres.Statements
	look *pgtest.DB
}

func (d realDatabase) Run(ctx context.Context, s Statement) (json.RawMessage, error) {
	return d.Statements.Run(ctx, postgres.Statement(s))
}

func newDatabase(t *testing.T) realDatabase {
	t.Helper()
	look := pgtest.New(t)
	own, err := postgres.Open(postgres.Config{URL: look.URL, Application: "flower-test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, own.Close()) })
	return realDatabase{own.Statements("", 2), look}
}

// whenSleeping calls f when a statement sleeps.
func whenSleeping(ctx context.Context, db realDatabase, f func()) {
	for ctx.Err() == nil {
		var yes bool
		err := db.look.GetContext(ctx, &yes, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')`)
		if err == nil && yes {
			f()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestSQL(t *testing.T) {
	t.Parallel()
	set := Default(Config{SQL: map[string]Database{OwnDatabase: newDatabase(t)}}).Enabled()
	var printed bytes.Buffer
	run := func(parameters string) (string, error) {
		output, err := set.Run(t.Context(), Attempt{Task: newTask("SQL", parameters), Stderr: &printed})
		return string(output), err
	}
	output, err := run(`{"statement": "SELECT n, $2 AS name FROM generate_series(1, $1) n", "args": [2, "x"]}`)
	require.NoError(t, err)
	require.JSONEq(t, `{"row_count": 2, "rows": [{"n": 1, "name": "x"}, {"n": 2, "name": "x"}]}`, output)

	_, err = run(`{"statement": "DO $$ BEGIN RAISE NOTICE 'half'; RAISE EXCEPTION 'whole'; END $$"}`)
	require.ErrorContains(t, err, "connection flower: whole (SQLSTATE P0001)")
	require.Equal(t, "NOTICE: half\n", printed.String())
	_, err = run(`{"statement": "SELEC 1"}`)
	requireInvalidWith(t, err, `parameter "statement": syntax error`)
}

func requireInvalidWith(t *testing.T, err error, text string) {
	t.Helper()
	require.ErrorAs(t, err, new(*flow.InvalidError))
	require.ErrorContains(t, err, text)
}

// recorder is a database that remembers what it was given.
type recorder struct{ got []Statement }

func (r *recorder) Run(_ context.Context, s Statement) (json.RawMessage, error) {
	r.got = append(r.got, s)
	return json.RawMessage(`{}`), nil
}

func TestSQL_Parameters(t *testing.T) {
	t.Parallel()
	own, other := &recorder{}, &recorder{}
	set := Default(Config{SQL: map[string]Database{OwnDatabase: own, "warehouse": other}})
	run := func(parameters string) error {
		_, err := set.Run(t.Context(), Attempt{Task: newTask("SQL", parameters)})
		return err
	}
	require.NoError(t, run(`{"statement": "SELECT 1"}`))
	require.NoError(t, run(`{"connection": "warehouse", "statement": "SELECT $1", "args": [ null, {"a": [1]} , "x",1.50 ], "transactional": false}`))
	require.NoError(t, run(`{"connection": "flower", "statement": "SELECT 1", "transactional": "true", "args": []}`))
	require.Len(t, own.got, 2)
	require.Empty(t, own.got[0].Args)
	require.False(t, own.got[0].Transactional)
	require.Equal(t, flow.TaskKey{Flow: "f1", Seq: 2}, own.got[0].Task.TaskKey)
	require.True(t, own.got[1].Transactional)
	require.Len(t, other.got, 1)
	require.Equal(t, []json.RawMessage{[]byte(`null`), []byte(`{"a": [1]}`), []byte(`"x"`), []byte(`1.50`)}, other.got[0].Args)

	for parameters, text := range map[string]string{
		`{}`:                                             `parameter "statement": it is missing`,
		`{"statement": ""}`:                              `parameter "statement": it is empty`,
		`{"statement": " \n"}`:                           `parameter "statement": it is empty`,
		`{"statement": "SELECT 1\u0000"}`:                `parameter "statement": it has the character U+0000`,
		`{"statement": ["SELECT 1"]}`:                    `parameter "statement": an array is not a string`,
		`{"statement": "SELECT $1", "args": 1}`:          `parameter "args": a number is not a JSON array`,
		`{"statement": "SELECT $1", "args": {"1": 1}}`:   `parameter "args": an object is not a JSON array`,
		`{"statement": "SELECT 1", "connection": "crm"}`: `parameter "connection": "crm" is not one of those that this watcher has (-sql-connections): flower, warehouse`,
		`{"statement": "SELECT 1", "connection": ""}`:    `parameter "connection": "" is not one of those`,
		`{"statement": "SELECT 1", "transactional": 1}`:  `parameter "transactional": 1 is not true or false`,
		`{"statement": "SELECT 1", "transactional": true, "connection": "warehouse"}`: `parameter "transactional": it is possible with the connection flower only`,
	} {
		requireInvalidWith(t, run(parameters), text)
	}
	require.Len(t, own.got, 2)
	require.Len(t, other.got, 1)
}

// A request brings values. What runs, and where, is the definition's.
func TestSQL_ARequestBringsValuesAlone(t *testing.T) {
	t.Parallel()
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "SQL", Parameters: json.RawMessage(`{"statement": "SELECT $1", "args": [1]}`)}}}
	set := Default(Config{}) // as register has it
	require.NoError(t, set.CheckWorkflow(w, json.RawMessage(`{"args": ["'; DROP TABLE x"], "other": 1}`)))
	for _, name := range []string{"statement", "connection", "transactional"} {
		err := set.CheckWorkflow(w, json.RawMessage(`{"`+name+`": "x"}`))
		requireInvalidWith(t, err, `parameter "`+name+`": only the definition can set it`)
	}
	w.Tasks[0].Parameters = json.RawMessage(`{"statement": "SELECT 1", "transactionel": true}`)
	requireInvalidWith(t, set.CheckWorkflow(w, nil), `parameter "transactionel": this program does not know it; it knows args, connection, statement, transactional`)
	w.Tasks = append(w.Tasks, flow.TaskDefinition{Seq: 2, Program: "SQL", Parameters: json.RawMessage(`{"statement": "SELECT 1", "args": ["${{ outputs[1].id }}"]}`)})
	w.Tasks[0].Parameters = json.RawMessage(`{"statement": "SELECT 1"}`)
	require.NoError(t, set.CheckWorkflow(w, nil))
}

// Without a database the program is known, and off.
func TestSQL_IsOffWithoutADatabase(t *testing.T) {
	t.Parallel()
	set := Default(Config{})
	require.Contains(t, set.Names(), "SQL")
	require.NotContains(t, set.Enabled().Names(), "SQL")
	require.Contains(t, Default(Config{SQL: map[string]Database{"x": &recorder{}}}).Enabled().Names(), "SQL")
	_, err := set.Run(t.Context(), Attempt{Task: newTask("SQL", `{"statement": "SELECT 1"}`)})
	requireInvalidWith(t, err, `parameter "connection"`)
}
