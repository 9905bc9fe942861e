package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// canary is a secret that must be nowhere.
const canary = "canary-7d1e"

// fill puts flows in every state into the database; one of them was given the canary.
func fill(t *testing.T, db *pgtest.DB, site string) (flow string) {
	t.Helper()
	status, body := call(t, http.MethodPost, site+"/register",
		`{"taskId": "sample", "note": "n", "parameters": {"db_password": "`+canary+`", "nested": {"apiKey": ["`+canary+`"]}}}`)
	require.Equal(t, http.StatusCreated, status, body)
	flow = regexp.MustCompile(`"taskFlowId":"([^"]+)"`).FindStringSubmatch(body)[1]
	for _, statement := range []string{
		`UPDATE kr_task_stat SET exec_status = 2, reason = 'failed', error = 'it <b>broke</b>' WHERE task_exec_seq = 1`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, parameters)
		 VALUES ('by/hand ü', 1, 'sample', 1, 3, '{"TOKEN": "` + canary + `"}'), ('by/hand ü', 2, 'sample', 2, 0, '{}')`,
		`UPDATE kr_task_stat SET output = '{"secret": "` + canary + `"}' WHERE task_flow_id = 'by/hand ü' AND task_exec_seq = 1`,
		`INSERT INTO kr_task_log (task_flow_id, task_exec_seq, attempt, claim_id, line_no, line_ts, stream, text)
		 VALUES ('by/hand ü', 1, 1, gen_random_uuid(), 1, now(), 'stdout', 'a line')`,
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	return flow
}

// content is a digest of every table but those that only watchers write.
func content(t *testing.T, db *pgtest.DB) string {
	t.Helper()
	var tables []string
	require.NoError(t, db.SelectContext(t.Context(), &tables, `SELECT relname::text FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1`))
	require.Greater(t, len(tables), 10)
	var all strings.Builder
	for _, table := range tables {
		var digest string
		require.NoError(t, db.GetContext(t.Context(), &digest, fmt.Sprintf(
			`SELECT coalesce(md5(string_agg(x::text, E'\n' ORDER BY x::text)), '') FROM %s x`, table)))
		fmt.Fprintln(&all, table, digest)
	}
	return all.String()
}

// What anybody can read of register is found by its own links, beside what is named here.
// None of it changes a row, fails, or tells a secret.
func TestRegister_SecB1_SecE1_ReadingChangesNothingAndTellsNoSecret(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, log := serving(t, nil, "-database-url", db.URL, "-log-level", "debug")
	flow := fill(t, db, site)
	hand := url.PathEscape("by/hand ü")
	queue := []string{"/", "/help", "/login", "/search?q=sample", "/readyz?strict", "/healthz"}
	for _, id := range []string{flow, hand} {
		for _, path := range []string{"/flows/%s", "/flows/%s/rerun", "/flows/%s/cancel", "/flows/%s/tasks/1/skip", "/flows/%s/tasks/1/finish", "/flows/%s/tasks/1/log"} {
			queue = append(queue, fmt.Sprintf(path, id))
		}
		for _, path := range []string{"", "/tasks", "/tasks/1", "/tasks/1/attempts", "/tasks/1/log", "/graph", "?include=tasks,events", "?format=text"} {
			queue = append(queue, "/api/v1/flows/"+id+path)
		}
	}
	for _, path := range []string{
		"flows", "flows?status=failed", "flows?q=a", "flows?format=csv", "workflows", "workflows/sample", "workflows/sample/graph",
		"workflows/sample/stats?window=7d", "failures", "queue", "running", "watchers", "stats", "events", "programs", "version", "openapi.json",
	} {
		queue = append(queue, "/api/v1/"+path)
	}
	before := content(t, db)
	links := regexp.MustCompile(`(?:href|hx-get|src|action)="(/[^"]*)"`)
	seen := map[string]bool{}
	answered := 0
	for len(queue) > 0 && len(seen) < 400 {
		path := queue[0]
		queue = queue[1:]
		if seen[path] {
			continue
		}
		seen[path] = true
		for _, accept := range []string{"text/html", "application/json"} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, site+path, http.NoBody)
			require.NoError(t, err, path)
			r.Header.Set("Accept", accept)
			answer, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			text, err := io.ReadAll(answer.Body)
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			require.Less(t, answer.StatusCode, 500, "%s: %s", path, text)
			require.NotContains(t, string(text), canary, path)
			if answer.StatusCode == http.StatusOK {
				answered++
			}
			for _, m := range links.FindAllStringSubmatch(string(text), -1) {
				queue = append(queue, strings.ReplaceAll(m[1], "&amp;", "&"))
			}
		}
	}
	require.Greater(t, answered, 20)
	require.Equal(t, before, content(t, db))
	require.NotContains(t, log.String(), canary)
}

func TestRegister_SecM1_NothingElseIsServed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, _ := serving(t, nil, "-database-url", db.URL, "-metrics-addr", "127.0.0.1:0")
	for _, path := range []string{
		"/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/.git/config", "/.env", "/go.mod", "/server-status", "/admin",
		"/static/", "/static/x/", "/static/x/..%2f..%2fgo.mod", "/static/x/%2e%2e/%2e%2e/go.mod", "/static/../go.mod", "/static/x/../../go.mod",
		"/static/x/....//go.mod", "/static/x/%252e%252e%252fgo.mod", "/static/x//etc/passwd", "/static/x/app.css%00.txt", "/static/x/.", "/static/x/static.go",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, "TRACE", "CONNECT"} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(site, "http://"))
			require.NoError(t, err)
			_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", method, path)
			require.NoError(t, err)
			text, err := io.ReadAll(conn)
			require.NoError(t, err, "%s %s", method, path)
			require.NoError(t, conn.Close())
			require.Regexp(t, `^HTTP/1\.1 (404|405|400) `, string(text), "%s %s", method, path)
			require.NotContains(t, string(text), "module github.com")
			require.NotContains(t, string(text), "root:")
		}
	}
}

// Values that the database would not take, or would repeat in an error that its driver
// cannot read, are refused before it, and every connection is as good as before.
func TestRegister_SecF1_SecG4_NoValueHurts(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, log := serving(t, nil, "-database-url", db.URL)
	flow := fill(t, db, site)
	before := content(t, db)
	long := strings.Repeat("x", 40_000)
	var bodies []string
	for _, value := range []string{long, "' OR 1=1; DROP TABLE kr_task_stat; --", `\u0000`, `\ud800`, "\xff\xfe", "${{ secrets.A }}", "a'b\\\"c"} {
		for _, form := range []string{
			`{"taskId": "%s"}`, `{"taskId": "nope", "parameters": {"%s": 1}}`, `{"taskId": "nope", "parameters": "%s"}`,
			`{"taskId": "nope", "note": "%s"}`, `{"taskId": "nope", "registeredBy": "%s"}`, `{"taskId": "nope", "priority": "%s"}`,
			`{"taskId": "nope", "%s": 1}`, `%s`,
		} {
			bodies = append(bodies, fmt.Sprintf(form, value))
		}
	}
	bodies = append(bodies, `{"taskId": "nope", "parameters": {"a": 1e999999}}`, strings.Repeat("[", 100_000), `{"taskId": "nope", "priority": 1e30}`)
	for _, body := range bodies {
		for _, path := range []string{"/register", "/callback/" + flow + "/1?token=x", "/api/v1/flows/" + flow + "/rerun", "/api/v1/bulk/rerun"} {
			status, text := call(t, http.MethodPost, site+path, body)
			require.GreaterOrEqual(t, status, 400, "%.100s", body)
			require.Less(t, status, 500, "%.100s: %s", body, text)
		}
	}
	for _, value := range []string{
		"%27%20OR%201=1--", "%00", "%ff%fe", "%C0%80", "..%2f..", strings.Repeat("y", 300), strings.Repeat("%F0%9F%8C%B8", 256), "%25s%25n", "%0d%0aX:%20y", "a%00b",
	} {
		for _, path := range []string{
			"/register/%s", "/flows/%s", "/api/v1/flows/%s", "/callback/%s/1?token=%[1]s", "/callback/x/%s", "/workflows/%s/register",
			"/flows/%s/tasks/%[1]s/log", "/search?q=%s", "/api/v1/flows?q=%s&since=%[1]s&status=%[1]s&cursor=%[1]s&limit=%[1]s", "/api/v1/events?after=%s&actor=%[1]s",
		} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				r, err := http.NewRequestWithContext(t.Context(), method, site+fmt.Sprintf(path, value), http.NoBody)
				require.NoError(t, err, "%s %s", path, value)
				r.Header.Set("Idempotency-Key", strings.Repeat("k", 200))
				answer, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				text, err := io.ReadAll(answer.Body)
				require.NoError(t, err)
				require.NoError(t, answer.Body.Close())
				require.Less(t, answer.StatusCode, 500, "%s %s %s: %s", method, path, value, text)
			}
		}
	}
	require.Equal(t, before, content(t, db))
	start := time.Now()
	for range 40 { // on each pooled connection
		status, body := call(t, http.MethodPost, site+"/register/sample", "")
		require.Equal(t, http.StatusCreated, status, body)
		status, body = call(t, http.MethodGet, site+"/api/v1/flows/"+flow, "")
		require.Equal(t, http.StatusOK, status, body)
	}
	require.Less(t, time.Since(start), 20*time.Second)
	require.NotContains(t, log.String(), "ERR")
}

// Raw bytes, made of good requests by chance, from beginning to end.
func TestRegister_MutatedRequests(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, log := serving(t, nil, "-database-url", db.URL)
	flow := fill(t, db, site)
	address := strings.TrimPrefix(site, "http://")
	seeds := []string{
		"GET /flows/" + flow + "?task=1&tab=log HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nCookie: flower_theme=dark; flower_token=x\r\n\r\n",
		"GET /api/v1/flows/" + flow + "/tasks/1?format=text HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: W/\"x\"\r\n\r\n",
		"POST /register HTTP/1.1\r\nHost: localhost\r\nContent-Length: 18\r\n\r\n{\"taskId\": \"nope\"}",
		"POST /flows/" + flow + "/rerun HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 29\r\n\r\nplan=x&expect=9&scope=nothing",
		"GET /api/v1/flows?status=failed&since=24h&cursor=abc&limit=10 HTTP/1.1\r\nHost: localhost\r\nAccept: text/csv\r\n\r\n",
		"POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\ntheme=dark&back=/flows",
		"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 60\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"next\"\r\n\r\n/a\r\n--x--",
		"GET /search?q=sample HTTP/1.1\r\nHost: localhost\r\n\r\n",
	}
	const rounds = 1500
	random := rand.New(rand.NewPCG(1, 2))
	for n := range rounds {
		raw := []byte(seeds[random.IntN(len(seeds))])
		line := bytes.IndexByte(raw, '\n')
		for range 1 + random.IntN(4) {
			at := 4 + random.IntN(line) // where paths, queries and headers are
			if random.IntN(3) == 0 {
				at = random.IntN(len(raw))
			}
			switch random.IntN(4) {
			case 0:
				raw[at] = byte(random.IntN(256))
			case 1:
				raw = append(raw[:at:at], append([]byte([]string{"%00", "%ff", "'", "/../", "?", "&x=", "\xff", "%2f", "${{", "-1", "9999999999999999999"}[random.IntN(11)]), raw[at:]...)...)
			case 2:
				end := min(len(raw), at+1+random.IntN(8))
				raw = append(raw[:at:at], raw[end:]...)
			default:
				raw[at] ^= 1 << random.IntN(8)
			}
			line = min(line, len(raw)-5)
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		require.NoError(t, err)
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = conn.Write(raw)
		require.NoError(t, err)
		tcp, _ := conn.(*net.TCPConn)
		_ = tcp.CloseWrite()
		answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: strings.Fields(string(raw) + " x")[0]})
		if err == nil { // else it was no request at all
			require.NotEqual(t, http.StatusInternalServerError, answer.StatusCode, "round %d: %q", n, raw)
			_ = answer.Body.Close()
		}
		_ = conn.Close()
	}
	status, _ := call(t, http.MethodGet, site+"/readyz", "")
	require.Equal(t, http.StatusOK, status)
	require.NotContains(t, log.String(), "a request panicked")
}

// What goes wrong inside is in the log, under the request's id, and nowhere else.
func TestRegister_SecM2_ErrorsTellNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, log := serving(t, nil, "-database-url", db.URL)
	flow := fill(t, db, site)
	for _, statement := range []string{`ALTER TABLE kr_ready RENAME TO kr_hidden`, `ALTER TABLE kr_flow RENAME TO kr_secret`} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	failed := 0
	for _, request := range [][2]string{
		{http.MethodPost, "/register/sample"},
		{http.MethodGet, "/api/v1/flows/" + flow},
		{http.MethodGet, "/flows/" + flow},
		{http.MethodGet, "/search?q=sample"},
		{http.MethodGet, "/api/v1/flows"},
		{http.MethodGet, "/api/v1/queue"},
		{http.MethodGet, "/readyz"},
	} {
		status, text := call(t, request[0], site+request[1], "")
		if status >= 500 {
			failed++
		}
		for _, tell := range []string{"kr_", "pq:", "relation", "SELECT", "42P01", "127.0.0.1:5", "internal/", ".go:", "flower_test"} {
			require.NotContains(t, text, tell, "%s %s", request[0], request[1])
		}
	}
	require.GreaterOrEqual(t, failed, 2)
	require.Contains(t, log.String(), "kr_", "the log tells")
	errors := strings.Count(log.String(), " ERR ")
	start := time.Now()
	for range 100 {
		call(t, http.MethodGet, site+"/flows/"+flow, "")
	}
	require.LessOrEqual(t, strings.Count(log.String(), " ERR ")-errors, 3+3*int(time.Since(start)/time.Second), "but not over and over")
}

// Whatever is asked for, a line of the log is a line.
func TestRegister_SecK1_NobodyWritesLinesIntoTheLog(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	site, log := serving(t, nil, "-database-url", db.URL, "-log-level", "debug", "-log-format", "json")
	for _, id := range []string{"a%0d%0a%7b%22level%22:%22ERROR%22%7d", "%1b[31mred", "%E2%80%A8next", "%22,%22x%22:%22", strings.Repeat("%0a", 700), "%00"} {
		for _, path := range []string{"/register/" + id, "/flows/" + id, "/api/v1/flows/" + id} {
			call(t, http.MethodPost, site+path, `{"note": "a\r\nb\u001b[1m\u2028"}`)
			call(t, http.MethodGet, site+path, "")
		}
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	require.Greater(t, len(lines), 36)
	for _, line := range lines {
		require.Regexp(t, `^\{"time":"[^"]+","level":"[A-Z]+","msg":"[a-zA-Z0-9 :.,;()/-]+".*\}$`, line)
		require.NotContains(t, line, "\x1b")
		require.NotContains(t, line, "\u2028")
		require.Less(t, len(line), 8<<10)
	}
}
