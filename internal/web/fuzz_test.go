package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/register"
	"github.com/d-tsuji/flower/internal/web"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fuzzed are the pages and their forms, with places for whatever comes.
var fuzzed = []string{
	"GET /", "GET /flows", "GET /flows/{id}", "GET /flows/{id}/tasks/{seq}/log", "GET /flows/{id}/tasks/{seq}/log.txt", "GET /failures",
	"GET /workflows", "GET /workflows/{id}", "GET /watchers", "GET /events", "GET /search", "GET /help", "GET /login", "GET /{id}", "GET /static/{id}/{seq}",
	"GET /workflows/{id}/register", "GET /flows/{id}/rerun", "GET /flows/{id}/cancel", "GET /flows/{id}/tasks/{seq}/approve",
	"GET /flows/{id}/tasks/{seq}/cancel", "GET /flows/{id}/tasks/{seq}/skip", "GET /flows/{id}/tasks/{seq}/finish",
	"GET /bulk/rerun", "GET /bulk/cancel", "GET /bulk/hold", "GET /bulk/resume", "GET /bulk/skip", "GET /bulk/finish",
	"POST /settings", "POST /workflows/{id}/register", "POST /flows/{id}/rerun", "POST /flows/{id}/cancel", "POST /flows/{id}/hold", "POST /flows/{id}/resume",
	"POST /flows/{id}/tasks/{seq}/approve", "POST /flows/{id}/tasks/{seq}/cancel", "POST /flows/{id}/tasks/{seq}/skip", "POST /flows/{id}/tasks/{seq}/finish",
	"POST /bulk/rerun", "POST /bulk/cancel", "POST /bulk/hold", "POST /bulk/resume", "POST /bulk/skip", "POST /bulk/finish", "POST /login", "POST /logout",
}

// FuzzPages asks the pages, with a real database behind them, for whatever comes in a path,
// a query, a form and the cookies that they keep: none is a failure of ours, and each is
// whole.
func FuzzPages(f *testing.F) {
	h, psql := serving(f)
	for _, statement := range []string{
		`INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('one', 1, 'NoOp'), ('one', 2, 'NoOp')`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, error)
		 VALUES ('known', 1, 0, 'one', 1, 2, 'failed', 'POST http://h: 503'), ('known', 2, 1, 'one', 2, 0, NULL, NULL), ('known%', 1, 0, 'one', 1, 3, NULL, NULL)`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, error, pause)
		 VALUES ('asks', 1, 0, 'one', 1, 2, 'held', 'publish?', '{"ask": true}')`,
	} {
		psql.MustExec(statement)
	}
	for i := range fuzzed {
		f.Add(uint8(i), "known", "1", "", "note=x&expect=1&plan=p&scope=failed&back=/flows", "")
		f.Add(uint8(i), "asks", "1", "status=failed,held&since=24h&panel=log&task=1", "taskFlowIds=known&all=1&note=", "theme=dark; flower_token=x")
		f.Add(uint8(i), "one", "2", "q=%25&at=AQ&task=2147483648&panel=%00&days=1e9", `parameters={"a": 1}&priority=99&note=%ff`, "a=b; theme=\"%00\"")
	}
	f.Fuzz(func(t *testing.T, op uint8, id, seq, query, form, cookie string) {
		method, path, _ := strings.Cut(fuzzed[int(op)%len(fuzzed)], " ")
		path = strings.NewReplacer("{id}", url.PathEscape(id), "{seq}", url.PathEscape(seq)).Replace(path)
		target, err := url.ParseRequestURI(path + "?" + query)
		if err != nil || strings.ContainsAny(query, " \x7f") {
			return // no request
		}
		body := strings.NewReader("")
		if method == http.MethodPost {
			body = strings.NewReader(form)
		}
		r := httptest.NewRequestWithContext(t.Context(), method, "/", body)
		r.URL, r.RequestURI, r.Host = target, target.RequestURI(), "localhost:8000"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Accept", "text/html")
		r.Header["Cookie"] = []string{cookie}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%s %s %q: %s", method, target, form, w.Body)
		require.NotContains(t, w.Body.String(), "pq: ")
		require.True(t, utf8.Valid(w.Body.Bytes()))
		if location := w.Header().Get("Location"); location != "" {
			require.True(t, strings.HasPrefix(location, "/") && !strings.HasPrefix(location, "//"), location)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && w.Code != http.StatusSeeOther {
			require.Contains(t, w.Body.String(), "</html>", "%s %s", method, target)
		}
	})
}

// serving is what cmd/register makes, with pages alone.
func serving(t testing.TB) (http.Handler, *pgtest.DB) {
	t.Helper()
	psql := pgtest.New(t)
	log := slog.New(slog.DiscardHandler)
	db, err := postgres.Open(postgres.Config{URL: psql.DSN, Application: "flower-test"}, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	require.NoError(t, db.Join(context.Background(), flow.Watcher{ID: "8f9dd404-ad2e-4f59-aebd-d43f63a6daf0", Programs: []string{"NoOp"}, Workers: 1}))
	site := web.New(web.Config{}, db, log)
	return register.New(register.Config{Host: "localhost", Port: 8000}, db, log, register.Site{Prefix: "/", Handler: site.Handler()}).Handler(), psql
}
