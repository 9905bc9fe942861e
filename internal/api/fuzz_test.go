package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/api"
)

// fuzzed are the paths that are asked, with places for whatever comes.
var fuzzed = []string{
	"GET /api/v1/flows", "GET /api/v1/flows/{id}", "GET /api/v1/flows/{id}/tasks", "GET /api/v1/flows/{id}/graph",
	"GET /api/v1/flows/{id}/tasks/{seq}", "GET /api/v1/flows/{id}/tasks/{seq}/attempts", "GET /api/v1/flows/{id}/tasks/{seq}/log",
	"GET /api/v1/workflows", "GET /api/v1/workflows/{id}", "GET /api/v1/workflows/{id}/stats", "GET /api/v1/workflows/{id}/graph",
	"GET /api/v1/failures", "GET /api/v1/queue", "GET /api/v1/running", "GET /api/v1/watchers", "GET /api/v1/events", "GET /api/v1/stats",
	"GET /api/v1/version", "GET /api/v1/programs", "GET /api/v1/{id}", "GET /docs", "GET /openapi.json",
	"POST /api/v1/flows", "POST /api/v1/flows/{id}/rerun", "POST /api/v1/flows/{id}/cancel", "POST /api/v1/flows/{id}/hold",
	"POST /api/v1/flows/{id}/resume", "POST /api/v1/flows/{id}/tasks/{seq}/rerun", "POST /api/v1/flows/{id}/tasks/{seq}/hold",
	"POST /api/v1/flows/{id}/tasks/{seq}/resume", "POST /api/v1/flows/{id}/tasks/{seq}/skip", "POST /api/v1/flows/{id}/tasks/{seq}/finish",
	"POST /api/v1/flows/{id}/tasks/{seq}/approve", "POST /api/v1/bulk/rerun", "POST /api/v1/bulk/cancel", "POST /api/v1/bulk/hold",
	"POST /api/v1/bulk/resume", "POST /api/v1/bulk/skip", "POST /api/v1/bulk/finish", "DELETE /api/v1/flows/{id}", "HEAD /api/v1/flows/{id}",
	"PUT /api/v1/workflows/{id}", "POST /api/v1/workflows", "GET /api/v1/workflows/{id}/definition", "GET /api/v1/workflows/{id}/versions",
	"POST /api/v1/flows/{id}/tasks/{seq}/cancel", "DELETE /api/v1/workflows/{id}", "GET /api/v1/schema/workflow.json",
}

// Every route of the document is asked.
func TestFuzzed(t *testing.T) {
	t.Parallel()
	var doc struct {
		Paths map[string]map[string]any
	}
	text, err := os.ReadFile("openapi.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &doc))
	places := strings.NewReplacer("{taskFlowId}", "{id}", "{taskId}", "{id}", "{taskExecSeq}", "{seq}")
	asked := 0
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, api.Prefix) {
			continue // the server's own, which has fuzz tests, too
		}
		for method := range methods {
			require.Contains(t, fuzzed, strings.ToUpper(method)+" "+places.Replace(path))
			asked++
		}
	}
	require.Greater(t, asked, 40)
}

// Whatever comes, to whichever route, is answered as the document says, and never with a
// failure of ours.
func FuzzRequests(f *testing.F) {
	w := open(f)
	w.define("one", "NoOp", "NoOp")
	w.register("one")
	w.run(1, failed)
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ('known', 1, 'one', 1), ('known%', 2, 'one', 2)`)
	for i := range fuzzed {
		f.Add(uint8(i), "known", "1", "", "", "")
		f.Add(uint8(i), "one", "1", "limit=2&format=text", `{"dryRun": true, "taskId": "one", "filter": {"taskId": "one", "since": "1h"}}`, "k")
		f.Add(uint8(i), "known%25", "2", "format=csv&status=failed&since=7d&q=%25_", `{"dryRun": true, "filter": {"status": ["failed"]}}`, "")
	}
	for _, query := range []string{
		"after=0&before=5", "after=-1", "limit=99999999999999999999", "cursor=AQAGYR1k34WNMDFhMjEzZDAtMTg3MS03OWRmLWFhYWYtNDVjOWQxMDkwODdlLkvSTA",
		"since=0001-01-01T00:00:00Z", "since=9999-12-31T23:59:59Z", "since=1e9d", "minDuration=1ns&since=1h", "window=100000d&bucket=1m", "window=1h&bucket=60",
		"q=%25", "q=%5C", "q=%F0%9F%98%80", "q=%00", "q=%ff", "a;b", "%", "format=text&ascii=1", "include=events,tasks", "wait=1ns", "attempt=1&tail=1",
		"count=1&limit=1000", "status=running,failed,held,cancelled,queued,finished", "fingerprint=" + strings.Repeat("f", 64), "taskExecSeq=2147483648",
	} {
		for _, op := range []uint8{0, 1, 6, 9, 15, 16} {
			f.Add(op, "known", "1", query, "", "")
		}
	}
	for _, body := range []string{
		"null", "[]", "{", `"x"`, "1e999", `{"taskId": "one", "parameters": {"a": 1e400}}`, `{"taskId": "one", "priority": 1.5}`, `{"note": "\ud800"}`,
		`{"taskId": "\u0000"}`, `{"filter": {"since": "9999-12-31T23:59:59Z"}, "dryRun": true}`, `{"taskFlowIds": ["", "x"], "dryRun": true}`,
		`{"taskFlowIds": ["known"], "expect": 1}`, `{"scope": "from", "from": 2147483648}`, `{"output": {"a": [1, null, "x"]}}`, strings.Repeat("[", 200),
		`{"filter": {"taskSeq": 2000000000, "reason": "lost", "failedSince": "1h"}, "dryRun": true}`, `{"expect": 99999999999}`, `{"plan": "x"}`,
		`{"taskId": "one", "taskFlowId": "known"}`, `{"taskId": "one", "taskFlowId": "` + strings.Repeat("é", 256) + `"}`,
	} {
		for _, op := range []uint8{22, 23, 31, 33} {
			f.Add(op, "known", "2", "", body, "")
		}
	}
	for _, body := range []string{
		"tasks: [{program: NoOp}]", "- tasks:\n  - {program: Test1, dependsOn: [1], parameters: {a: 1e400}}\n", "taskId: &a [*a]", "%YAML 1.1\n---\n!!map {}", "\xff", "\x00",
		`{"taskId": "other", "tasks": [{"program": "NoOp", "timeout": 1e300, "description": "\ud800"}]}`,
	} {
		for op := uint8(41); op < 45; op++ {
			f.Add(op, "other", "1", "dryRun=true", body, "")
			f.Add(op, "other", "1", "prune=true&dryRun=true&format=text", body, "")
		}
	}
	f.Fuzz(func(t *testing.T, op uint8, id, seq, query, body, key string) {
		method, path, _ := strings.Cut(fuzzed[int(op)%len(fuzzed)], " ")
		path = strings.NewReplacer("{id}", id, "{seq}", seq).Replace(path)
		if strings.ContainsAny(path+query, " \x7f") || !utf8.ValidString(key) {
			return // no request
		}
		target, err := url.ParseRequestURI(path + "?" + query)
		if err != nil {
			return
		}
		one := *w
		one.t = t
		request := func() *http.Request {
			r := newRequest(t, method, "/", body)
			r.URL, r.RequestURI = target, target.RequestURI()
			if key != "" { // whatever is read of what a header has
				for _, name := range []string{"Idempotency-Key", "If-Match", "Accept"} {
					r.Header[name] = []string{key}
				}
			}
			return r
		}
		if values, err := url.ParseQuery(query); err == nil && values.Has("wait") && values.Get("wait") != "1ns" {
			return // it might wait for long
		}
		rec := httptest.NewRecorder()
		one.h.ServeHTTP(rec, request())
		require.Less(t, rec.Code, 500, "%s %s: %s", method, target, rec.Body)
		require.NotContains(t, rec.Body.String(), "pq: ")
		require.True(t, utf8.Valid(rec.Body.Bytes()))
		one.fits(request(), rec)
	})
}

// looks are all that is read of rows.
var looks = []string{
	"/flows?count=1", "/flows?status=running,failed,held,cancelled,queued", "/flows?q={id}", "/flows/{id}?include=tasks,events", "/flows/{id}/tasks",
	"/flows/{id}/graph", "/flows/{id}/tasks/{seq}", "/flows/{id}/tasks/{seq}/attempts", "/flows/{id}/tasks/{seq}/log", "/workflows", "/workflows/{task}",
	"/workflows/{task}/graph", "/workflows/{task}/stats", "/workflows/{task}/definition", "/workflows/{task}/versions", "/failures", "/queue", "/running",
	"/events", "/stats",
}

// Rows by hand have whatever the tables take: each look at them, and each preview, is as good
// as at others.
func FuzzRowsByHand(f *testing.F) {
	w := open(f)
	f.Add("f", "w", "NoOp", "title\nmore", `{"a": 1}`, "boom", uint8(2), 1, 0, int64(0))
	f.Add("a/b %2F\x01日本", "'; DROP TABLE kr_task_stat; --", "\x1b[31m", "\u2028\u202e", `{"token": "x", "n": 1e300, "s": "\\ud83d"}`, "${{ x }}", uint8(0), 2147483647, -2147483648, int64(1)<<40)
	f.Add("..", ".", "", "", `{"a": [[[[]]]]}`, strings.Repeat("e", 5000), uint8(1), -7, -7, int64(-1)<<40)
	f.Add("%", "_", "\\", "<script>", `{}`, "`", uint8(9), 0, 2147483647, int64(1))
	f.Add("x", "x", "Command", "\t", `{"": null}`, "", uint8(3), 1, 1, int64(-62135596800))
	formats := []string{"", "format=text", "format=csv"}
	f.Fuzz(func(t *testing.T, id, task, program, description, parameters, failure string, status uint8, seq, after int, offset int64) {
		one := *w
		one.t = t
		when := time.Unix(1_764_000_000, 0).Add(time.Duration(offset%1e9) * time.Second)
		// What the tables refuse nobody meets.
		_, err := one.psql.Exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, description, parameters, task_priority) VALUES ($1, $2, $3, $4, $5, $6)`,
			task, seq, program, description, parameters, int(status)%40-20)
		_, rowErr := one.psql.Exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, program, description, parameters, error,
			exec_status, registered_ts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			id, seq, after, task, seq, program, description, parameters, failure, []int{0, 1, 2, 3, 9}[status%5], when)
		if err != nil && rowErr != nil {
			return
		}
		defer func() {
			_, _ = one.psql.Exec(`DELETE FROM kr_task_stat WHERE task_flow_id = $1`, id)
			_, _ = one.psql.Exec(`DELETE FROM ms_task_definition WHERE task_id = $1`, task)
		}()
		places := strings.NewReplacer("{id}", url.QueryEscape(id), "{seq}", strconv.Itoa(seq), "{task}", url.QueryEscape(task))
		for i, look := range looks {
			if i%5 != int(status)%5 { // some of them each time
				continue
			}
			path, query, _ := strings.Cut(look, "?")
			path = strings.NewReplacer("{id}", url.PathEscape(id), "{seq}", strconv.Itoa(seq), "{task}", url.PathEscape(task)).Replace(path)
			query = places.Replace(query)
			if format := formats[(i+int(status))%3]; format != "" {
				query += "&" + format
			}
			rec := one.send("GET", "/api/v1"+path+"?"+query, "")
			require.Less(t, rec.Code, 500, "%s: %s", look, rec.Body)
			require.True(t, utf8.Valid(rec.Body.Bytes()), look)
		}
		for _, action := range []string{"rerun", "cancel", "hold", "tasks/" + strconv.Itoa(seq) + "/skip"} {
			rec := one.send("POST", "/api/v1/flows/"+url.PathEscape(id)+"/"+action, `{"dryRun": true}`)
			require.Less(t, rec.Code, 500, "%s: %s", action, rec.Body)
		}
	})
}
