package api_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
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
			if key != "" {
				r.Header["Idempotency-Key"] = []string{key}
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
