package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/api"
	"github.com/d-tsuji/flower/internal/flow"
)

// statuses returns exec_status of a flow's tasks: "3 2 0".
func (w *world) statuses(id string) string {
	w.t.Helper()
	var text string
	require.NoError(w.t, w.psql.Get(&text, `SELECT string_agg(exec_status::text, ' ' ORDER BY task_exec_seq) FROM kr_task_stat WHERE task_flow_id = $1`, id))
	return text
}

// From a failure to a flow that goes on: without a body, with a preview, with a plan that no
// longer fits.
func TestRerun(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp:extract", "NoOp:load", "NoOp:report")
	id := w.register("nightly")
	w.run(1, finished)
	w.run(1, failed)
	path := "/api/v1/flows/" + id + "/rerun"

	preview := post[api.Effect](w, http.StatusOK, path, `{"dryRun": true}`)
	require.True(t, preview.DryRun)
	require.Equal(t, 1, preview.Changed)
	require.Equal(t, []api.TaskChange{{TaskFlowID: id, TaskExecSeq: 2, Title: "load", From: "suspended", To: "waiting", Attempt: 1}}, preview.Tasks)
	require.Equal(t, []int{2}, preview.CanGo)
	require.Equal(t, []int{3}, preview.Follow)
	require.Equal(t, 2, preview.Kept)
	require.Equal(t, "3 2 0", w.statuses(id))
	text := w.send("POST", path+"?format=text", `{"dryRun": true}`).Body.String()
	require.Contains(t, text, "rerun "+id+": would change 1 task, 2 stay as they are\n")
	require.Contains(t, text, `-d '{"plan": "`+preview.Plan+`"}'`)

	p := w.fails("plan-changed", "POST", path, `{"plan": "another"}`)
	require.Equal(t, preview.Plan, p.Preview.(map[string]any)["plan"])
	require.True(t, p.Preview.(map[string]any)["dryRun"].(bool), "nothing has changed")
	p = w.fails("plan-changed", "POST", path, `{"expect": 2}`)
	require.InDelta(t, 1, p.Preview.(map[string]any)["changed"], 0)
	require.Equal(t, "3 2 0", w.statuses(id))

	done := post[api.Effect](w, http.StatusOK, path, `{"plan": "`+preview.Plan+`", "expect": 1, "note": "it was down", "parameters": {"A": 1}}`, "Idempotency-Key", "k1")
	preview.DryRun = false
	require.Equal(t, preview, done)
	require.Equal(t, "3 0 0", w.statuses(id))
	require.JSONEq(t, `{"A": 1}`, string(get[api.FlowDetail](w, "/api/v1/flows/"+id).Tasks[1].Parameters))
	e := get[api.EventList](w, "/api/v1/events?kind=rerun").Items[0]
	require.Equal(t, "it was down", *e.Note)
	require.Equal(t, "anonymous@192.0.2.1 api", e.Actor+" "+e.Way)

	require.Zero(t, post[api.Effect](w, http.StatusOK, path, "").Changed, "it is done already")
	rec := w.send("POST", path, `{"plan": "`+preview.Plan+`", "expect": 1, "note": "it was down", "parameters": {"A": 1}}`, "Idempotency-Key", "k1")
	require.Equal(t, "true", rec.Header().Get("Idempotency-Replayed"))
	require.Equal(t, 1, decode[api.Effect](t, rec.Body.Bytes()).Changed)
	w.fails("idempotency-key-reused", "POST", path, `{"scope": "all"}`, "Idempotency-Key", "k1")
	w.fails("malformed-header", "POST", path, "", "Idempotency-Key", "")

	running := w.claim()
	require.Equal(t, 2, running.Seq)
	p = w.fails("task-running", "POST", path, `{"scope": "all"}`)
	require.Contains(t, p.Detail, "2")
	require.Equal(t, "flows/"+id+"/tasks/2", p.Errors[0].Location)
	require.Equal(t, "3 1 0", w.statuses(id))
}

// A request's parameters go to every task of its flow. What a task's program does not know
// of them, or of those of an earlier rerun, keeps nobody from giving it others.
func TestRerun_ParametersBesideOthers(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, parameters)
	        VALUES ('nightly', 1, 'Command', '{"argv": ["extract"]}'), ('nightly', 2, 'NoOp', '{}')`)
	id := post[api.Registered](w, http.StatusCreated, "/api/v1/flows", `{"taskId": "nightly", "parameters": {"day": "Monday"}}`).TaskFlowID
	path := "/api/v1/flows/" + id + "/rerun"
	for _, parameters := range []string{`{"A": 1}`, `{"B": 2}`} {
		w.exec(`UPDATE kr_task_stat SET exec_status = 2 WHERE task_seq = 1`)
		post[api.Effect](w, http.StatusOK, path, `{"scope": "only", "from": 1, "parameters": `+parameters+`}`)
	}
	require.JSONEq(t, `{"argv": ["extract"], "day": "Monday", "A": 1, "B": 2}`,
		string(get[api.FlowDetail](w, "/api/v1/flows/"+id).Tasks[0].Parameters))
	w.exec(`UPDATE kr_task_stat SET exec_status = 2 WHERE task_seq = 1`)
	w.fails("invalid-value", "POST", path, `{"scope": "only", "from": 1, "parameters": {"argv": ["rm"]}}`)
}

func TestRerun_Scopes(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("chain", "NoOp", "NoOp", "NoOp")
	id := w.register("chain")
	w.run(3, finished)
	base := "/api/v1/flows/" + id
	seqs := func(path, body string) (seqs []int) {
		for _, task := range post[api.Effect](w, http.StatusOK, base+path, body).Tasks {
			seqs = append(seqs, task.TaskExecSeq)
		}
		return seqs
	}
	require.Empty(t, seqs("/rerun", `{"dryRun": true}`))
	require.Equal(t, []int{1, 2, 3}, seqs("/rerun", `{"dryRun": true, "scope": "all"}`))
	require.Equal(t, []int{2, 3}, seqs("/rerun", `{"dryRun": true, "scope": "from", "from": 2}`))
	require.Equal(t, []int{2}, seqs("/rerun", `{"dryRun": true, "scope": "only", "from": 2}`))
	require.Equal(t, []int{2, 3}, seqs("/tasks/2/rerun", `{"dryRun": true}`))
	require.Equal(t, []int{2}, seqs("/tasks/2/rerun", `{"dryRun": true, "scope": "only"}`))
	for body, code := range map[string]string{
		`{"scope": "from"}`: "invalid-value", `{"from": 2}`: "invalid-value", `{"scope": "some"}`: "invalid-value", `{"scop": "all"}`: "unknown-field",
		`[]`: "invalid-value", `{"dryRun": "yes"}`: "invalid-value", `{`: "malformed-body", `{"note": "\u0000"}`: "malformed-body", "scope=all": "malformed-body",
		`{"parameters": []}`: "invalid-value", `{"parameters": {"a": 1e999999}}`: "invalid-value", `{"expect": -1}`: "invalid-value",
		`{"scope": "from", "from": 99}`: "task-not-found", `{"scope": "from", "from": 9999999999999999999999}`: "invalid-value",
		`{"note": "` + strings.Repeat("a", 2001) + `"}`: "invalid-value",
	} {
		w.fails(code, "POST", base+"/rerun", body)
	}
	p := w.fails("unknown-field", "POST", base+"/rerun", `{"scop": "s3cret"}`)
	require.Equal(t, `there is no field "scop"; did you mean "scope"?`, p.Detail)
	p = w.fails("unknown-field", "POST", base+"/rerun", `{"everything": true}`)
	require.Contains(t, p.Detail, `there is no field "everything"; there are dryRun, expect, from,`)
	w.fails("invalid-value", "POST", base+"/tasks/2/rerun", `{"from": 2}`)
	w.fails("invalid-value", "POST", base+"/tasks/2/rerun", `{"scope": "all"}`)
	w.fails("flow-not-found", "POST", "/api/v1/flows/"+id[:20]+"/rerun", "")
	w.fails("task-not-found", "POST", base+"/tasks/7/rerun", "")
	w.fails("body-too-large", "POST", base+"/rerun", `{"note": "`+strings.Repeat("a", 1<<20)+`"}`)
	require.Equal(t, "3 3 3", w.statuses(id))
}

// The line that a preview prints carries out what was shown, wherever it was asked for.
func TestPreview_ItsLineDoesIt(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("chain", "NoOp", "NoOp", "NoOp")
	id := w.register("chain")
	w.run(3, finished)
	base := "/api/v1/flows/" + id
	line := regexp.MustCompile(`(?m)^do it: curl -X POST http://localhost:8000(\S+) -d '(.*)'$`)
	for _, step := range []struct{ path, body, want string }{
		{"/rerun", `{"dryRun": true, "scope": "from", "from": 2, "parameters": {"A": 7}, "note": "it's wrong"}`, "3 0 0"},
		{"/tasks/3/hold", `{"dryRun": true}`, "3 0 2"},
		{"/tasks/2/finish", `{"dryRun": true, "output": {"rows": 3}}`, "3 3 2"},
		{"/tasks/3/resume/", `{"dryRun": true, "expect": 1}`, "3 3 0"},
		{"/tasks/3/skip", `{"dryRun": true}`, "3 3 9"},
	} {
		text := w.send("POST", base+step.path+"?format=text", step.body).Body.String()
		found := line.FindStringSubmatch(text)
		require.NotNil(t, found, text)
		require.Equal(t, 1, strings.Count(text, "do it"), text)
		rec := w.send("POST", found[1], found[2])
		require.Equal(t, http.StatusOK, rec.Code, rec.Body.String())
		require.Equal(t, step.want, w.statuses(id), step.path)
	}
	tasks := get[api.FlowDetail](w, base).Tasks
	require.JSONEq(t, `{"A": 7}`, string(tasks[1].Parameters))
	require.JSONEq(t, `{"A": 7}`, string(tasks[2].Parameters))
	require.JSONEq(t, `{"rows": 3}`, string(tasks[1].Output))
	require.Equal(t, "it's wrong", *get[api.EventList](w, "/api/v1/events?kind=rerun").Items[0].Note)
}

// The other actions, on flows and on tasks.
func TestActions(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("chain", "NoOp", "NoOp", "NoOp")
	id := w.register("chain")
	base := "/api/v1/flows/" + id
	for _, step := range []struct{ path, body, want string }{
		{"/hold", "", "2 2 2"},
		{"/hold", `{"dryRun": true}`, "2 2 2"},
		{"/resume", `{"note": "go on"}`, "0 0 0"},
		{"/tasks/2/hold", "", "0 2 0"},
		{"/tasks/2/resume", "", "0 0 0"},
		{"/tasks/1/skip", `{"dryRun": true}`, "0 0 0"},
		{"/tasks/1/skip", "", "9 0 0"},
		{"/tasks/2/finish", `{"output": {"rows": 3}}`, "9 3 0"},
		{"/cancel", `{"note": "not today"}`, "9 3 2"},
		{"/rerun", "", "9 3 0"},
	} {
		rec := w.send("POST", base+step.path, step.body)
		require.Equal(t, http.StatusOK, rec.Code, "%s: %s", step.path, rec.Body)
		require.Equal(t, step.want, w.statuses(id), step.path)
	}
	require.JSONEq(t, `{"rows": 3}`, string(get[api.Task](w, base+"/tasks/2").Output))
	kinds := map[string]bool{}
	for _, e := range get[api.EventList](w, "/api/v1/events").Items {
		kinds[e.Kind] = true
	}
	require.Equal(t, map[string]bool{"hold": true, "resume": true, "skip": true, "finish": true, "cancel": true, "rerun": true}, kinds)
	w.fails("wrong-status", "POST", base+"/tasks/3/approve", "")
	w.fails("task-not-found", "POST", base+"/tasks/0/skip", "")
	w.fails("unknown-field", "POST", base+"/cancel", `{"scope": "all"}`)
	w.fails("no-such-path", "POST", base+"/explode", "")
	rec := w.send("GET", base+"/cancel", "")
	require.Equal(t, http.StatusMethodNotAllowed, rec.Code, rec.Body)
	require.Equal(t, "POST", rec.Header().Get("Allow"))
}

// For reading a flow the beginning of its id will do. An action wants to hear the whole one,
// and says which these are.
func TestAct_TheBeginningOfAnID(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp")
	id := w.register("nightly")
	p := w.fails("flow-not-found", "POST", "/api/v1/flows/"+id[:8]+"/cancel", "")
	require.Equal(t, []string{id}, p.Candidates)
	require.Contains(t, p.Detail, "an action takes the whole id")
	require.Empty(t, w.fails("flow-not-found", "POST", "/api/v1/flows/"+id[:5]+"/cancel", "").Candidates, "too short")
	require.Empty(t, w.fails("flow-not-found", "POST", "/api/v1/flows/nobodys/cancel", "").Candidates)
	require.Equal(t, "0", w.statuses(id))
}

// A person answers a task that asks: yes once, or no, which is the end of that task alone.
func TestApprove(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("month", "NoOp", "NoOp")
	base := "/api/v1/flows/" + w.register("month")
	ask := func() {
		_, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 2, reason = 'held', error = 'close it?', pause = '{"ask": true}' WHERE task_exec_seq = 1`)
		require.NoError(t, err)
	}
	ask()
	task := get[api.Task](w, base+"/tasks/1")
	require.True(t, task.Asks)
	listed := get[api.FlowList](w, "/api/v1/flows?status=held").Items[0]
	require.Equal(t, []any{1, "close it?"}, []any{listed.Asks, listed.Question.Text})
	require.Equal(t, "close it?", *task.Error)
	preview := post[api.Effect](w, http.StatusOK, base+"/tasks/1/approve", `{"dryRun": true}`)
	require.Equal(t, []int{2}, preview.Follow)
	require.True(t, get[api.Task](w, base+"/tasks/1").Asks)
	done := post[api.Effect](w, http.StatusOK, base+"/tasks/1/approve", `{"note": "it is right", "plan": "`+preview.Plan+`"}`)
	require.Equal(t, []int{1}, done.CanGo)
	require.False(t, get[api.Task](w, base+"/tasks/1").Asks)
	e := get[api.EventList](w, "/api/v1/events?kind=approve").Items[0]
	p := w.fails("wrong-status", "POST", base+"/tasks/1/approve", "")
	require.Contains(t, p.Detail, "was approved already, by "+e.Actor)

	_, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq = 1`)
	require.NoError(t, err)
	ask()
	require.Equal(t, 1, post[api.Effect](w, http.StatusOK, base+"/tasks/1/cancel", `{"note": "not on a Friday"}`).Changed)
	task = get[api.Task](w, base+"/tasks/1")
	require.Equal(t, []string{"cancelled", "not on a Friday"}, []string{*task.Reason, *task.Error})
	require.Equal(t, "waiting", get[api.Task](w, base+"/tasks/2").Status)
}

// Two hundred flows failed for two reasons; one of these is mended, and only its tasks run
// again.
func TestBulk(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("nightly", "NoOp:load", "NoOp:report")
	for range 20 {
		w.register("nightly")
	}
	n := 0
	w.run(20, func(task flow.Task) *flow.Result {
		r := failed(task)
		if n++; n%4 == 0 {
			r.Error = "no such table"
		}
		return r
	})
	group := get[api.FailureList](w, "/api/v1/failures").Items[0]
	require.Equal(t, 15, group.Tasks)
	filter := fmt.Sprintf(`"filter": {"taskId": "nightly", "fingerprint": %q, "since": "1h"}`, group.Fingerprint)

	preview := post[api.BulkEffect](w, http.StatusOK, "/api/v1/bulk/rerun", `{`+filter+`, "dryRun": true}`)
	require.Equal(t, 15, preview.Changed)
	require.Len(t, preview.Flows, 15)
	require.Equal(t, 15, get[api.FailureList](w, "/api/v1/failures").Items[0].Tasks, "nothing has changed")
	p := w.fails("plan-changed", "POST", "/api/v1/bulk/rerun", `{`+filter+`, "expect": 14}`)
	require.InDelta(t, 15, p.Preview.(map[string]any)["changed"], 0)
	w.fails("invalid-value", "POST", "/api/v1/bulk/rerun", `{`+filter+`}`)
	rec := w.send("POST", "/api/v1/bulk/rerun?format=text", `{`+filter+`, "expect": 15, "note": "mended"}`, "Idempotency-Key", "night")
	require.Equal(t, "rerun: changed 15 tasks of 15 flows\n", rec.Body.String())
	rec = w.send("POST", "/api/v1/bulk/rerun", `{`+filter+`, "expect": 15, "note": "mended"}`, "Idempotency-Key", "night")
	require.Equal(t, "true", rec.Header().Get("Idempotency-Replayed"))
	require.Equal(t, 5, get[api.FailureList](w, "/api/v1/failures").Items[0].Tasks)

	w.claim()
	ids, err := json.Marshal(func() (ids []string) {
		for _, f := range get[api.FlowList](w, "/api/v1/flows?status=running,queued").Items {
			ids = append(ids, f.TaskFlowID)
		}
		return append(ids, "nobody's")
	}())
	require.NoError(t, err)
	cancelled := post[api.BulkEffect](w, http.StatusOK, "/api/v1/bulk/cancel", fmt.Sprintf(`{"taskFlowIds": %s, "dryRun": true}`, ids))
	require.Equal(t, 30, cancelled.Changed)
	require.Equal(t, 1, cancelled.RefusedCount)
	require.Equal(t, "flow-not-found", cancelled.Refused[0].Code)
	for body, code := range map[string]string{
		`{"dryRun": true}`: "invalid-value", `{"filter": {}, "taskFlowIds": ["a"], "dryRun": true}`: "invalid-value", "": "malformed-body",
		`{"filter": {"taskid": "x"}, "dryRun": true}`: "unknown-field", `{"filter": {"since": "x"}, "dryRun": true}`: "invalid-value",
		`{"filter": {"taskId": "x"}, "dryRun": true, "scope": "all"}`: "invalid-value",
	} {
		w.fails(code, "POST", "/api/v1/bulk/cancel", body)
	}
	p = w.fails("unknown-field", "POST", "/api/v1/bulk/cancel", `{"filter": {"taskid": "x"}, "dryRun": true}`)
	require.Equal(t, `there is no field "taskid"; did you mean "taskId"?`, p.Detail)
	w.fails("no-such-path", "POST", "/api/v1/bulk/explode", "{}")
}

func TestRegister(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.define("one", "NoOp")
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, depends_task_seqs) VALUES ('broken', 1, 'NoOp', '{7}')`)
	r := post[api.Registered](w, http.StatusCreated, "/api/v1/flows", `{"taskId": "one", "taskFlowId": "my own", "priority": -3}`)
	require.Equal(t, "my own", r.TaskFlowID)
	require.Equal(t, "/flows/my%20own", r.URL)
	p := w.fails("flow-exists", "POST", "/api/v1/flows", `{"taskId": "one", "taskFlowId": "my own", "priority": -3}`)
	require.Equal(t, "my own", p.Flow.(map[string]any)["taskFlowId"])
	for range 2 {
		rec := w.send("POST", "/api/v1/flows", `{"taskId": "one"}`, "Idempotency-Key", "k")
		require.Equal(t, http.StatusCreated, rec.Code)
	}
	require.Len(t, get[api.FlowList](w, "/api/v1/flows").Items, 2)
	for body, code := range map[string]string{
		`{"taskId": "nope"}`: "workflow-not-found", `{"taskId": "broken"}`: "workflow-broken", `{}`: "invalid-value", "": "malformed-body",
		`{"taskId": "one", "priority": 20}`: "invalid-value", `{"taskId": "one", "parameter": {}}`: "unknown-field", `{"taskId": ""}`: "invalid-value",
		`{"taskId": "one", "parameters": {"x": "${{ outputs[1] }}"}}`: "workflow-broken", `null`: "invalid-value",
		`{"taskId": "one", "note": "other"}`: "",
	} {
		if code != "" {
			w.fails(code, "POST", "/api/v1/flows", body)
		}
	}
	require.Equal(t, `there is no workflow "One"; did you mean "one"?`, w.fails("workflow-not-found", "POST", "/api/v1/flows", `{"taskId": "One"}`).Detail)
	require.Equal(t, `there is no workflow "another"`, w.fails("workflow-not-found", "POST", "/api/v1/flows", `{"taskId": "another"}`).Detail)
	w.fails("idempotency-key-reused", "POST", "/api/v1/flows", `{"taskId": "one", "priority": 1}`, "Idempotency-Key", "k")
	w.fails("cross-origin", "POST", "/api/v1/flows", `{"taskId": "one"}`, "Sec-Fetch-Site", "cross-site")
}
