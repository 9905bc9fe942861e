package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// output is what a program writes while a test reads it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// execute runs register with arguments and variables until it ends.
func execute(ctx context.Context, vars map[string]string, args ...string) (code int, out *output) {
	out = new(output)
	env := &cli.Env{
		Name: "register", Args: args, Stdout: out, Stderr: out,
		Getenv: func(name string) string { return vars[name] },
	}
	return cli.Exec(ctx, env, run), out
}

func TestRegister_HelpNamesWhatTheContractHas(t *testing.T) {
	t.Parallel()
	code, out := execute(t.Context(), map[string]string{"DB_PASS": "s3cret"}, "--help")
	require.Zero(t, code)
	for _, line := range []string{
		`-dbuser USER +DB_USER .*default flower`, `-dbpass PASSWORD +DB_PASS `, `-dbhost HOST +DB_HOST .*default localhost`,
		`-dbport PORT +DB_PORT .*default 5432`, `-dbname NAME +DB_NAME .*default flower`,
		`-webhost ADDRESS .*default localhost`, `-webport PORT .*default 8000`,
	} {
		require.Regexp(t, "(?m)^  "+line, out.String())
	}
	require.NotContains(t, out.String(), "s3cret")
}

func TestRegister_WrongUsageIsExitCode2(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-nope"},
		{"-webport", "x"},
		{"-migrate", "down"},
		{"-hosts", "http://a"},
		{"-healthcheck", "-webport", "0"},
		{"-tokens-file", ""},
		{"-trusted-proxy", ""},
		{"-tls-cert", "", "-tls-key", ""},
		{"-dbport", "0"},
		{"-shutdown-timeout", "never"},
		{"sample"},
	} {
		code, out := execute(t.Context(), nil, args...)
		require.Equal(t, 2, code, args)
		require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	}
}

func TestRegister_HealthcheckOfNothingFails(t *testing.T) {
	t.Parallel()
	code, out := execute(t.Context(), nil, "-healthcheck", "-webport", "1")
	require.Equal(t, 1, code)
	require.Contains(t, out.String(), "127.0.0.1:1")
}

// As a user would: start, register, look, stop.
func TestRegister_ServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := new(output)
	env := &cli.Env{
		Name: "register", Args: []string{"-database-url", db.URL, "-webport", "0", "-log-format", "text"},
		Getenv: func(string) string { return "" }, Stdout: out, Stderr: out,
	}
	code := make(chan int, 1)
	go func() { code <- cli.Exec(ctx, env, run) }()
	var site string
	started := regexp.MustCompile(`starting server on address: (\S+?)"? `)
	pgtest.Eventually(t, time.Minute, "the server listens", func() bool {
		if m := started.FindStringSubmatch(out.String()); m != nil {
			site = "http://" + m[1]
		}
		return site != "" || len(code) > 0
	})
	require.NotEmpty(t, site, out.String())

	status, body := call(t, http.MethodPost, site+"/register", `{"taskId": "sample", "parameters": {"A": "s3cret"}}`)
	require.Equal(t, http.StatusCreated, status, body)
	var registered struct{ TaskFlowID string }
	require.NoError(t, json.Unmarshal([]byte(body), &registered))
	var rows []struct {
		Seq     int `db:"task_exec_seq"`
		Depends int `db:"depends_task_exec_seq"`
		Status  int `db:"exec_status"`
	}
	require.NoError(t, db.SelectContext(t.Context(), &rows, `SELECT task_exec_seq, depends_task_exec_seq, exec_status
		FROM kr_task_stat WHERE task_flow_id = $1 ORDER BY task_exec_seq`, registered.TaskFlowID))
	require.Len(t, rows, 3)

	status, body = call(t, http.MethodGet, site+"/api/v1/flows/"+registered.TaskFlowID+"?format=text", "")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, "QUEUED  0 of 3 finished")
	status, body = call(t, http.MethodPost, site+"/register", `{"taskId": "nope"}`)
	require.Equal(t, http.StatusNotFound, status)
	require.JSONEq(t, `{"status":"failed","taskId":"nope","description":"no tasks registered"}`, body)
	status, _ = call(t, http.MethodGet, site+"/readyz", "")
	require.Equal(t, http.StatusOK, status)

	stop()
	require.Zero(t, <-code, out.String())
	require.NotContains(t, out.String(), "s3cret")
}

func call(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

// Whoever stops it while it waits for a database gets what was asked for: an end.
func TestRegister_StopsWhileItWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	for _, migrate := range []string{"auto", "off", "only"} {
		ctx, stop := context.WithCancel(t.Context())
		out := new(output)
		env := &cli.Env{
			Name: "register", Args: []string{"-dbhost", "127.0.0.1", "-dbport", "1", "-migrate", migrate, "-log-format", "text"},
			Getenv: func(string) string { return "" }, Stdout: out, Stderr: out,
		}
		code := make(chan int, 1)
		go func() { code <- cli.Exec(ctx, env, run) }()
		pgtest.Eventually(t, time.Minute, "it waits", func() bool {
			return strings.Contains(out.String(), "waiting for the database") || len(code) > 0
		})
		stop()
		require.Zero(t, <-code, out.String())
	}
}

func TestRegister_MigrateOnlyStopsThen(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	code, out := execute(t.Context(), map[string]string{"DATABASE_URL": db.URL, "FLOWER_MIGRATE": "only"})
	require.Zero(t, code, out.String())
	var n int
	require.NoError(t, db.GetContext(t.Context(), &n, "SELECT count(*) FROM ms_task_definition WHERE task_id = 'sample'"))
	require.Equal(t, 3, n)
}
