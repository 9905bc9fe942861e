package postgres

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev"
)

// What the page about access says about the server's log, and docker-compose does: with these, no
// value that somebody has given is in it, not even when everything is logged.
var discreet = []string{"log_parameter_max_length=0", "log_parameter_max_length_on_error=0", "log_error_verbosity=terse"}

func TestServerLog_SecE3_HasNoParameters(t *testing.T) {
	t.Parallel()
	compose, err := os.ReadFile("../../docker-compose.yml")
	require.NoError(t, err)
	readme, err := os.ReadFile("../access/README.md")
	require.NoError(t, err)
	for _, setting := range discreet {
		require.Contains(t, string(compose), setting)
		require.Contains(t, string(readme), setting)
	}

	text := serverLog(t, discreet...)
	require.NotContains(t, text, canary)
	require.Contains(t, text, "flower: register", "statements are there")

	// Without them it has each value: it is they that keep it silent.
	text = serverLog(t)
	for _, parameter := range []string{`{"password": "` + canary + `"}`, canary + "-note", canary + "-key"} {
		require.Contains(t, text, parameter)
	}
}

const canary = "canary-5f1c"

// serverLog is what a server with some settings logs while it is worked with, when it is to
// log all statements.
func serverLog(t *testing.T, settings ...string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o777)) // the server may run as somebody else
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	server, err := pgdev.Start(t.Context(), pgdev.Options{Conf: append([]string{
		"logging_collector=on", "log_directory=" + dir, "log_filename=server.log", "log_file_mode=0644",
		"log_statement=all", "log_min_duration_statement=0", "log_min_error_statement=error",
	}, settings...)})
	require.NoError(t, err)
	defer server.Stop()
	db, err := Open(Config{URL: server.DSN}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	require.NoError(t, db.Migrate(t.Context()))

	id := uuid.NewString()
	for range 2 { // once more is an error inside
		_, err = db.Register(t.Context(), flow.Registration{
			FlowID: flow.ID(id), WorkflowID: "sample", Parameters: json.RawMessage(`{"password": "` + canary + `"}`),
			Note: canary + "-note", IdempotencyKey: canary + "-key", Fingerprint: "f",
		})
		require.NoError(t, err)
	}
	// What is refused by a constraint repeats the row.
	_, err = db.pool.ExecContext(t.Context(), `UPDATE kr_task_stat SET task_priority = $1 WHERE task_flow_id = $2`, 99, id)
	require.ErrorContains(t, err, "task_priority is from -20 to 19")
	_, err = db.pool.ExecContext(t.Context(), `SELECT $1::int`, canary)
	require.Error(t, err)

	read := func() string {
		text, failed := os.ReadFile(filepath.Join(dir, "server.log"))
		require.NoError(t, failed)
		return string(text)
	}
	require.Eventually(t, func() bool { return strings.Contains(read(), "invalid input syntax") }, soon, soon/1000)
	return strings.ReplaceAll(read(), `invalid input syntax for type integer: "`+canary+`"`, "") // a message has what it is about
}
