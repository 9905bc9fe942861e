package api_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/flow"
)

// A flow, as everybody reads it: in JSON, as text, and by a part of its id.
func TestFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp:extract", "NoOp:load 注文", "NoOp")
	rec := w.send("POST", "/api/v1/flows", `{"taskId": "nightly", "parameters": {"day": 1, "password": "s3cret"}, "note": "why", "registeredBy": "cron"}`)
	require.Equal(t, http.StatusCreated, rec.Code, rec.Body.String())
	id := decode[api.Registered](t, rec.Body.Bytes()).TaskFlowID
	require.Equal(t, "/api/v1/flows/"+id, rec.Header().Get("Location"))
	w.run(1, finished)
	w.run(1, failed)

	for _, path := range []string{id, id[:30], id + "/", id + "?include=tasks"} {
		f := get[api.FlowDetail](w, "/api/v1/flows/"+path)
		require.Equal(t, id, f.TaskFlowID)
		require.Equal(t, "failed", f.Status)
		require.Equal(t, api.Counts{Waiting: 1, Suspended: 1, Finished: 1}, f.Counts)
		require.Equal(t, "load 注文", f.Failure.Title)
		require.Equal(t, "cron", *f.RegisteredBy)
		require.Equal(t, "why", *f.Note)
		require.JSONEq(t, `{"day": 1, "password": "***"}`, string(f.Parameters))
		require.Equal(t, "/flows/"+id, f.URL)
		require.Len(t, f.Tasks, 3)
		require.Equal(t, 1, f.Tasks[1].Blocks)
		require.Equal(t, "blocked", *f.Tasks[2].WaitReason)
		require.Equal(t, []int{2}, f.Tasks[2].WaitsFor)
	}
	f := get[api.FlowDetail](w, "/api/v1/flows/"+id+"?include=events")
	require.Empty(t, f.Tasks)
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq = 2`)
	f = get[api.FlowDetail](w, "/api/v1/flows/"+id+"?include=events,tasks")
	require.Len(t, f.Tasks, 3)
	require.Equal(t, "skip", f.Events[0].Kind)

	text := w.send("GET", "/api/v1/flows/"+id+"?format=text", "").Body.String()
	require.Contains(t, text, "nightly  "+id+"  RUNNING  2 of 3 finished")
	require.Contains(t, w.send("GET", "/api/v1/flows/"+id, "", "Accept", "text/plain").Body.String(), "RUNNING")
	require.Contains(t, w.send("GET", "/api/v1/flows/"+id+"?format=text&ascii=1", "").Body.String(), "\n + 1 extract")
	require.Contains(t, w.send("GET", "/api/v1/flows/"+id+"?format=json", "", "Accept", "text/plain").Body.String(), `"taskFlowId"`)
	require.Empty(t, w.send("HEAD", "/api/v1/flows/nope", "").Header().Get("Allow"))
}

func TestFlow_Unknown(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, id := range []string{"abcdef-1", "abcdef-2", "with/slash %41"} {
		w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ($1, 1, 'x', 1)`, id)
	}
	require.Equal(t, "with/slash %41", get[api.FlowDetail](w, "/api/v1/flows/"+url.PathEscape("with/slash %41")).TaskFlowID)
	p := w.fails("flow-not-found", "GET", "/api/v1/flows/abcdef", "")
	require.Equal(t, []string{"abcdef-2", "abcdef-1"}, p.Candidates)
	for _, path := range []string{"abcde", "nothing", strings.Repeat("a", 300), "abcdef-1/tasks/2/../../x", "abcdef-1%2F"} {
		w.send("GET", "/api/v1/flows/"+path, "")
	}
	p = w.fails("flow-not-found", "GET", "/api/v1/flows/abcde", "")
	require.Equal(t, `there is no flow "abcde", and 6 characters of an id are needed to find the whole one`, p.Detail)
	w.fails("flow-not-found", "GET", "/api/v1/flows/"+strings.Repeat("a", 300), "")
	w.fails("task-not-found", "GET", "/api/v1/flows/abcdef-1/tasks/2", "")
	w.fails("task-not-found", "GET", "/api/v1/flows/abcdef-1/tasks/x", "")
	w.fails("task-not-found", "GET", "/api/v1/flows/abcdef-1/tasks/99999999999/log", "")
	w.fails("flow-not-found", "GET", "/api/v1/flows/nothing/tasks/1/attempts", "")
	w.fails("malformed-path", "GET", "/api/v1/flows/a%00", "")
	w.fails("invalid-filter", "GET", "/api/v1/flows/abcdef-1?format=xml", "")
	w.fails("unknown-field", "GET", "/api/v1/flows/abcdef-1?includes=tasks", "")
	p = w.fails("no-such-path", "GET", "/api/v1/flow", "")
	require.Equal(t, "/api/v1/flow", p.Instance)
	rec := w.send("DELETE", "/api/v1/flows/abcdef-1", "")
	require.Equal(t, http.StatusMethodNotAllowed, rec.Code)
	require.Equal(t, "GET, HEAD", rec.Header().Get("Allow"))
	require.Equal(t, "GET, HEAD, POST", w.send("PUT", "/api/v1/flows", "").Header().Get("Allow"))
}

// The list: its pages, its filters, its forms.
func TestFlows(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("a", "NoOp", "NoOp")
	w.define("b", "NoOp")
	var ids []string
	for range 5 {
		ids = append([]string{w.register("a")}, ids...)
	}
	b := w.register("b")
	w.run(1, failed)
	list := get[api.FlowList](w, "/api/v1/flows?taskId=a&limit=3&count=1")
	require.Len(t, list.Items, 3)
	require.Equal(t, ids[0], list.Items[0].TaskFlowID)
	require.Equal(t, 5, *list.Count)
	require.True(t, *list.Exact)
	require.NotNil(t, list.NextCursor)
	link := w.send("GET", "/api/v1/flows?taskId=a&limit=3&format=csv", "").Header().Get("Link")
	require.Contains(t, link, "&format=csv&", "the next page looks like this one")
	rec := w.send("GET", "/api/v1/flows?taskId=a&limit=3", "")
	link = rec.Header().Get("Link")
	require.True(t, strings.HasSuffix(link, `>; rel="next"`), link)
	next := get[api.FlowList](w, strings.TrimPrefix(strings.Split(link, ">")[0], "<"))
	require.Len(t, next.Items, 2)
	require.Nil(t, next.NextCursor)
	require.Equal(t, ids[3], next.Items[0].TaskFlowID)

	require.Len(t, get[api.FlowList](w, "/api/v1/flows?status=failed,queued").Items, 6)
	require.Equal(t, ids[4], get[api.FlowList](w, "/api/v1/flows?status=failed&since=1h&reason=failed&q=503").Items[0].TaskFlowID)
	require.Equal(t, b, get[api.FlowList](w, "/api/v1/flows?q="+b[:20]+"&taskId=b").Items[0].TaskFlowID)
	require.Empty(t, get[api.FlowList](w, "/api/v1/flows?since=2999-01-01T00:00:00Z").Items)

	text := w.send("GET", "/api/v1/flows?format=text", "").Body.String()
	require.Regexp(t, `(?m)^FLOW +WORKFLOW +STATUS +DONE`, text)
	require.Regexp(t, `(?m)`+ids[4]+` +a +failed +0/2 .* 1 NoOp: POST http://api.example/7: 503$`, text)
	csv := w.send("GET", "/api/v1/flows?format=csv", "").Body.String()
	require.True(t, strings.HasPrefix(csv, "flow,workflow,status,done,"), csv)
	require.Equal(t, 7, strings.Count(csv, "\n"))

	for query, code := range map[string]string{
		"status=nope": "invalid-filter", "limit=0": "invalid-filter", "limit=1001": "invalid-filter", "limit=x": "invalid-filter",
		"since=yesterday": "invalid-filter", "since=-1h": "invalid-filter", "minDuration=1h": "invalid-filter", "cursor=forged": "invalid-cursor",
		"cursor=" + (*list.NextCursor)[:20]: "invalid-cursor", "q=%00": "invalid-filter", "q=%ff": "invalid-filter", "q=a&q=b": "invalid-filter",
		"%zz": "invalid-filter", "format=dot": "invalid-filter", "statsu=failed": "unknown-field", "taskId=" + strings.Repeat("a", 257): "invalid-filter",
		"until=" + strings.Repeat("9", 39) + "d": "invalid-filter",
	} {
		w.fails(code, "GET", "/api/v1/flows?"+query, "")
	}
	p := w.fails("unknown-field", "GET", "/api/v1/flows?statsu=failed", "")
	require.Equal(t, `there is no query parameter "statsu"; did you mean "status"?`, p.Detail)
	require.Equal(t, "query.statsu", p.Errors[0].Location)
}

// Whoever waits gets the answer when the flow has ended, or after that time.
func TestFlow_Wait(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("one", "NoOp")
	id := w.register("one")
	start := time.Now()
	f := get[api.FlowDetail](w, "/api/v1/flows/"+id+"?wait=200ms")
	require.Equal(t, "queued", f.Status)
	require.GreaterOrEqual(t, time.Since(start), 200*time.Millisecond)
	ended := make(chan api.FlowDetail)
	go func() { ended <- get[api.FlowDetail](w, "/api/v1/flows/"+id+"?wait=60s") }()
	w.run(1, finished)
	require.Equal(t, "finished", (<-ended).Status)
	w.fails("invalid-filter", "GET", "/api/v1/flows/"+id+"?wait=soon", "")
	w.fails("flow-not-found", "GET", "/api/v1/flows/nothing?wait=1s", "")

	r := newRequest(t, "GET", "/api/v1/flows/x?wait=10m", "")
	require.Equal(t, 5*time.Minute, api.Patience(r))
	require.Equal(t, time.Second, api.Patience(newRequest(t, "HEAD", "/api/v1/flows/x?w%61it=1s", "")), "whoever waits has the time for it")
	require.Zero(t, api.Patience(newRequest(t, "GET", "/api/v1/flows/x", "")))
	require.Zero(t, api.Patience(newRequest(t, "GET", "/api/v1/flows?wait=10m", "")))
	require.Zero(t, api.Patience(newRequest(t, "GET", "/api/v1/flows/x?wait=", "")))
}

// Attempts, log and events of a task.
func TestTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("one", "NoOp:only")
	id := w.register("one")
	task := w.claim()
	lines := make([]flow.LogLine, 5)
	for i := range lines {
		lines[i] = flow.LogLine{No: int64(i + 1), At: time.Now(), Stream: flow.StreamStdout, Text: fmt.Sprintf("line %d\x1b[0m", i+1)}
	}
	require.NoError(t, w.db.KeepLog(t.Context(), []flow.LogPart{{TaskKey: task.TaskKey, Attempt: 1, ClaimID: task.ClaimID, Lines: lines}}))
	base := "/api/v1/flows/" + id + "/tasks/1"
	rec := w.send("GET", base+"/log?tail=2", "")
	require.Equal(t, "text/plain; charset=utf-8", rec.Header().Get("Content-Type"))
	require.Equal(t, "line 4\x1b[0m\nline 5\x1b[0m\n", rec.Body.String())
	require.Equal(t, "5", rec.Header().Get("Flower-Last-Line"))
	require.Equal(t, "true", rec.Header().Get("Flower-Running"))
	require.Equal(t, "true", rec.Header().Get("Flower-More"))
	require.Equal(t, "line 1\x1b[0m\n", w.send("GET", base+"/log?after=0&tail=1", "").Body.String())
	log := decode[api.Log](t, w.send("GET", base+"/log?after=3&q=LINE", "", "Accept", "application/json").Body.Bytes())
	require.Len(t, log.Items, 2)
	require.Equal(t, int64(4), log.Items[0].No)
	require.Equal(t, "stdout", log.Items[0].Stream)
	log = get[api.Log](w, base+"/log?after=5&format=json")
	require.Empty(t, log.Items)
	require.Equal(t, int64(5), log.LastLine)
	w.fails("attempt-not-found", "GET", base+"/log?attempt=2", "")

	_, err := w.db.Advance(t.Context(), []*flow.Result{failed(task)}, flow.Claim{Watcher: w.watcher, Programs: programs})
	require.NoError(t, err)
	one := get[api.Task](w, base)
	require.Equal(t, "suspended", one.Status)
	require.Equal(t, "failed", *one.Reason)
	post[api.Effect](w, http.StatusOK, "/api/v1/flows/"+id+"/rerun", "")
	attempts := get[api.AttemptList](w, base+"/attempts")
	require.Len(t, attempts.Items, 1)
	require.False(t, attempts.Items[0].Current)
	require.Equal(t, 1, get[api.Task](w, base).FailedAttempts)
	require.Contains(t, w.send("GET", base+"/attempts?format=text", "").Body.String(), "1  suspended  failed")
	require.Len(t, get[api.TaskList](w, "/api/v1/flows/"+id+"/tasks").Items, 1)
	require.Contains(t, w.send("GET", "/api/v1/flows/"+id+"/tasks?format=csv", "").Body.String(), "1,only,waiting,1,")

	events := get[api.EventList](w, "/api/v1/events?after=0&taskFlowId="+id)
	require.Len(t, events.Items, 1)
	e := events.Items[0]
	require.Equal(t, "rerun", e.Kind)
	require.Equal(t, "anonymous@192.0.2.1", e.Actor)
	require.Equal(t, "api", e.Way)
	require.Equal(t, 1, *e.TaskExecSeq)
	require.Empty(t, get[api.EventList](w, fmt.Sprintf("/api/v1/events?after=%d", events.Next)).Items)
	require.Len(t, get[api.EventList](w, "/api/v1/events?kind=rerun&actor=anonymous@192.0.2.1").Items, 1)
	require.Empty(t, get[api.EventList](w, "/api/v1/events?kind=skip").Items)
	w.fails("invalid-filter", "GET", "/api/v1/events?after=1&before=2", "")
	w.fails("invalid-filter", "GET", "/api/v1/events?kind=nope", "")
}

// What there is to look at beside flows.
func TestLooks(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp:load", "Test1:=1+1", "Nowhere")
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, depends_task_seqs) VALUES ('broken', 1, 'NoOp', '{2}'), ('broken', 2, 'NoOp', '{1}')`)
	w.exec(`UPDATE ms_task_definition SET parameters = '{"api_key": "s3cret"}' WHERE task_id = 'nightly' AND task_seq = 1`)
	var ids []string
	for range 3 {
		w.exec(`UPDATE ms_task_definition SET program = 'NoOp' WHERE task_id = 'nightly' AND task_seq = 3`)
		ids = append(ids, w.register("nightly"))
	}
	w.run(2, failed)

	failures := get[api.FailureList](w, "/api/v1/failures?taskId=nightly")
	require.Len(t, failures.Items, 1)
	require.Equal(t, 2, failures.Items[0].Tasks)
	require.Equal(t, "POST http://api.example/7: 503", *failures.Items[0].Error)
	require.Len(t, get[api.FlowList](w, "/api/v1/flows?fingerprint="+failures.Items[0].Fingerprint).Items, 2)
	queue := get[api.QueueList](w, "/api/v1/queue")
	require.Len(t, queue.Items, 1)
	require.Equal(t, ids[2], queue.Items[0].TaskFlowID)
	require.Equal(t, "queued", queue.Items[0].WaitReason)
	w.claim()
	running := get[api.RunningList](w, "/api/v1/running")
	require.Len(t, running.Items, 1)
	require.Equal(t, w.watcher, *running.Items[0].WatcherID)
	require.Equal(t, "alive", get[api.WatcherList](w, "/api/v1/watchers").Items[0].State)

	workflows := get[api.WorkflowList](w, "/api/v1/workflows?limit=1")
	require.Equal(t, "broken", workflows.Items[0].TaskID)
	require.Equal(t, []string{"its dependencies form a cycle: 1 → 2 → 1"}, workflows.Items[0].Problems)
	require.Equal(t, "nightly", get[api.WorkflowList](w, "/api/v1/workflows?cursor="+*workflows.NextCursor).Items[0].TaskID)
	wf := get[api.Workflow](w, "/api/v1/workflows/nightly?last=2")
	require.Empty(t, wf.Problems)
	require.Len(t, wf.Last, 2)
	require.Equal(t, []int{1}, wf.Tasks[1].DependsTaskSeqs)
	require.JSONEq(t, `{"api_key": "***"}`, string(wf.Tasks[0].Parameters))
	w.fails("workflow-not-found", "GET", "/api/v1/workflows/nope", "")
	w.fails("workflow-not-found", "GET", "/api/v1/workflows/nope/stats", "")
	stats := get[api.WorkflowStats](w, "/api/v1/workflows/nightly/stats?window=24h")
	require.Equal(t, 3, stats.Flows)
	require.Equal(t, 2, stats.ByStatus["failed"])
	require.InDelta(t, 0.0, *stats.SuccessRate, 0.001)

	all := get[api.Stats](w, "/api/v1/stats?window=1h&bucket=5m")
	require.Len(t, all.Buckets, 12)
	require.Equal(t, api.Count{Count: 2, Exact: true}, all.Flows["failed"])
	require.Equal(t, 5, all.Workers)
	w.fails("invalid-filter", "GET", "/api/v1/stats?bucket=10s", "")
	version := get[api.Version](w, "/api/v1/version")
	require.Equal(t, "test", version.Version)
	require.GreaterOrEqual(t, version.Schema, version.NeedsSchema)
	require.Equal(t, "NoOp", get[api.ProgramList](w, "/api/v1/programs").Items[0].Name)

	for _, path := range []string{"failures", "queue", "running", "watchers", "workflows", "workflows/nightly", "workflows/nightly/stats", "stats", "events", "programs"} {
		for _, format := range []string{"text", "csv"} {
			rec := w.send("GET", "/api/v1/"+path+"?format="+format, "")
			require.Equal(t, http.StatusOK, rec.Code, path)
			require.NotEmpty(t, rec.Body.String())
			require.NotContains(t, rec.Body.String(), "s3cret")
		}
	}
	w.exec(`UPDATE ms_task_definition SET task_priority = -5 WHERE task_id = 'nightly' AND task_seq = 2`)
	require.Contains(t, w.send("GET", "/api/v1/workflows/nightly?format=csv", "").Body.String(), "2,'=1+1,Test1,-5,", "no spreadsheet takes it for a formula")
}

func TestGraph(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, depends_task_seqs, description) VALUES
		('diamond', 1, 'NoOp', '{}', 'a "quoted" <b>\'), ('diamond', 2, 'NoOp', '{1}', NULL), ('diamond', 3, 'NoOp', '{1}', NULL), ('diamond', 4, 'NoOp', '{2,3}', NULL)`)
	id := w.register("diamond")
	w.run(1, finished)
	g := get[api.Graph](w, "/api/v1/flows/"+id+"/graph")
	require.Equal(t, [][]int{{1}, {2, 3}, {4}}, g.Levels)
	require.Equal(t, []api.Edge{{From: 1, To: 2}, {From: 1, To: 3}, {From: 2, To: 4}, {From: 3, To: 4}}, g.Edges)
	require.Equal(t, "finished", *g.Nodes[0].Status)
	g = get[api.Graph](w, "/api/v1/workflows/diamond/graph")
	require.Nil(t, g.Nodes[0].Status)
	require.Equal(t, [][]int{{1}, {2, 3}, {4}}, g.Levels)
	dot := w.send("GET", "/api/v1/flows/"+id+"/graph?format=dot", "").Body.String()
	require.Contains(t, dot, `1 [label="1 a \"quoted\" <b>\\\nfinished", fillcolor=palegreen];`)
	require.Contains(t, dot, "2 -> 4;")
	mermaid := w.send("GET", "/api/v1/flows/"+id+"/graph", "", "Accept", "text/vnd.mermaid").Body.String()
	require.Contains(t, mermaid, `t1["1 a #quot;quoted#quot; #lt;b#gt;\ · finished"]`)
	require.Contains(t, mermaid, "t2 --> t4")
}

func TestDocuments(t *testing.T) {
	t.Parallel()
	w := open(t)
	var doc map[string]any
	for _, path := range []string{"/openapi.json", "/api/v1/openapi.json"} {
		rec := w.send("GET", path, "")
		require.Equal(t, "application/json", rec.Header().Get("Content-Type"))
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &doc))
		require.Equal(t, "3.1.0", doc["openapi"])
	}
	require.Contains(t, w.send("GET", "/api/v1/openapi.yaml", "").Body.String(), "openapi: 3.1.0")
	page := w.send("GET", "/docs", "")
	require.Equal(t, "text/html; charset=utf-8", page.Header().Get("Content-Type"))
	for _, word := range []string{"/api/v1/flows/{taskFlowId}/rerun", "plan-changed", "nextCursor"} {
		require.Contains(t, page.Body.String(), word)
	}
	for _, word := range []string{"<script", "style=", "http://", "https://", "onclick"} {
		require.NotContains(t, page.Body.String(), word)
	}
	require.Equal(t, http.StatusNotFound, w.send("GET", "/docsx", "").Code)
}

// What leads somewhere leads there from outside of a proxy, whether it takes the base path
// off or not.
func TestBasePath(t *testing.T) {
	t.Parallel()
	w := openAt(t, "/flower")
	w.define("nightly", "NoOp", "NoOp")
	for _, at := range []string{"", "/flower"} {
		rec := w.send("POST", at+"/api/v1/flows", `{"taskId": "nightly"}`)
		made := decode[api.Registered](t, rec.Body.Bytes())
		require.Equal(t, "/flower/flows/"+made.TaskFlowID, made.URL)
		place := rec.Header().Get("Location")
		require.Equal(t, "/flower/api/v1/flows/"+made.TaskFlowID, place)
		w.register("nightly")

		link := w.send("GET", at+"/api/v1/flows?limit=1", "").Header().Get("Link")
		require.True(t, strings.HasPrefix(link, "</flower/api/v1/flows?cursor="), link)

		w.exec(`UPDATE kr_task_stat SET exec_status = 2, reason = 'held', error = 'go on?', pause = '{"ask": true}' WHERE task_flow_id = $1 AND task_exec_seq = 1`, made.TaskFlowID)
		w.exec(`UPDATE kr_task_stat SET exec_status = 2, reason = 'failed' WHERE task_flow_id = $1 AND task_exec_seq = 2`, made.TaskFlowID)
		link = w.send("GET", at+"/api/v1/events?after=0&limit=1", "").Header().Get("Link")
		require.True(t, strings.HasPrefix(link, "</flower/api/v1/events?after="), link)
		text := w.send("GET", at+"/api/v1/flows/"+made.TaskFlowID+"?format=text", "").Body.String()
		require.Contains(t, text, "curl -X POST http://localhost:8000"+place+"/rerun\n")
		require.Contains(t, text, "curl -X POST http://localhost:8000"+place+"/tasks/1/approve ")
		document := w.send("GET", at+"/openapi.json", "").Body.String()
		require.True(t, strings.Contains(document, `"servers":[{"url":"/flower"}]`), "its paths begin there")
	}
}

// A command that is printed reaches us as its reader has: by TLS, where a trusted proxy says so.
func TestCurl_ByTLS(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp")
	control, err := access.Open(access.Config{Proxy: access.Proxy{
		Trusted: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, Role: access.Operator,
	}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	path := "/api/v1/flows/" + w.register("nightly") + "/hold"
	for _, c := range []struct{ said, scheme string }{{"https", "https"}, {"http", "http"}} {
		r := newRequest(t, "POST", path+"?format=text", `{"dryRun": true}`, "X-Forwarded-User", "bob", "X-Forwarded-Proto", c.said)
		r.RemoteAddr = "192.0.2.1:1234"
		rec := httptest.NewRecorder()
		serving(w.db, "", control).ServeHTTP(rec, r)
		require.Contains(t, rec.Body.String(), "curl -X POST "+c.scheme+"://localhost:8000"+path+" ")
	}
}

// The text of a flow says as JSON does what keeps a task from going.
func TestFlow_TextOfWhatKeepsIt(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("one", "NoOp")
	w.define("odd", "Nobody")
	w.exec(`INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('one', 1)`)
	w.register("one")
	w.claim()
	text := func(id string) string { return w.send("GET", "/api/v1/flows/"+id+"?format=text", "").Body.String() }
	require.Contains(t, text(w.register("one")), "\n ○ 1 NoOp  queued    workflow one may have 1 running flow at once\n")
	id := w.register("odd")
	require.Contains(t, text(id), "\n ○ 1 Nobody  queued    no watcher has the program 'Nobody'\n")
	w.exec(`UPDATE kr_task_stat SET run_after = '2999-01-31 12:00Z' WHERE task_flow_id = $1`, id)
	require.Contains(t, text(id), "\n ○ 1 Nobody  waiting    until 2999-01-31 12:00:00Z\n")
}
