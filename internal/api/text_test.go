package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// nightly is a flow of five tasks whose third one failed.
func nightly() flow.State {
	at := func(seconds float64) time.Time {
		return time.Date(2026, 11, 23, 12, 12, 1, 123_000_000, time.FixedZone("JST", 9*3600)).
			Add(time.Duration(seconds * float64(time.Second)))
	}
	task := func(seq int, description, program string, s flow.Status, parents ...int) flow.TaskState {
		return flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "7f3c", Seq: seq}, WorkflowID: "nightly", TaskSeq: seq * 10, Parents: parents,
			Program: program, Description: description, Priority: 10, MaxAttempts: 2, Status: s, RegisteredAt: at(0),
		}
	}
	s := flow.State{
		Flow: flow.Flow{
			ID: "7f3c", WorkflowID: "nightly", RegisteredAt: at(0),
			Parameters: json.RawMessage(`{"DAY":"1","db_password":"s3cret"}`),
		},
		Status: "failed", RegisteredBy: "cron", StartedAt: at(1), EndedAt: at(126.2), AsOf: at(500), Recover: "UPDATE …",
		Tasks: []flow.TaskState{
			task(1, "extract_orders\nmore about it", "HTTPPostRequest", flow.Finished),
			task(2, "", "Test2", flow.Finished),
			task(3, "load 注文", "HTTPPostRequest", flow.Suspended, 1, 2),
			task(4, "build_mart", "NoOp", flow.Waiting, 3),
			task(5, "notify", "NoOp", flow.Waiting, 4),
		},
	}
	s.Tasks[0].StartedAt, s.Tasks[0].FinishedAt, s.Tasks[0].Attempt = at(1), at(13.4), 1
	s.Tasks[0].Output = json.RawMessage(`{"rows":12345678901234567890,"nested":[{"apiKey":"s3cret"}]}`)
	s.Tasks[1].StartedAt, s.Tasks[1].FinishedAt, s.Tasks[1].Attempt = at(1), at(9.1), 1
	f := &s.Tasks[2]
	f.StartedAt, f.SuspendedAt, f.Attempt = at(125), at(126.2), 2
	f.Reason, f.Error = flow.ReasonFailed, "POST https://api.example/post: 503 \x1b[31mService Unavailable\nmore"
	f.Parameters = json.RawMessage(`{"URL":"https://api.example/post","Auth":{"user":"u"}}`)
	return s
}

func TestDetail(t *testing.T) {
	t.Parallel()
	a := &API{cfg: Config{BasePath: "/base"}}
	text, err := json.Marshal(a.detail(nightly()))
	require.NoError(t, err)
	require.NotContains(t, string(text), "s3cret")
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	tasks, ok := got["tasks"].([]any)
	require.True(t, ok)
	delete(got, "tasks")
	head, err := json.Marshal(got)
	require.NoError(t, err)
	require.JSONEq(t, `{
		"taskFlowId": "7f3c", "taskId": "nightly", "status": "failed",
		"counts": {"waiting": 2, "running": 0, "suspended": 1, "finished": 2, "ignored": 0},
		"failure": {"taskExecSeq": 3, "title": "load 注文", "reason": "failed",
			"error": "POST https://api.example/post: 503 \u001b[31mService Unavailable\nmore"},
		"registeredBy": "cron", "note": null, "registeredTs": "2026-11-23T03:12:01.123Z",
		"startedTs": "2026-11-23T03:12:02.123Z", "endedTs": "2026-11-23T03:14:07.323Z", "durationMs": 125200,
		"asks": 0, "question": null, "parameters": {"DAY": "1", "db_password": "***"}, "url": "/base/flows/7f3c", "workflowVersion": null
	}`, string(head))

	require.Len(t, tasks, 5)
	third, err := json.Marshal(tasks[2])
	require.NoError(t, err)
	require.JSONEq(t, `{
		"taskFlowId": "7f3c", "taskExecSeq": 3, "dependsTaskExecSeqs": [1, 2], "taskId": "nightly", "taskSeq": 30,
		"title": "load 注文", "program": "HTTPPostRequest", "taskPriority": 10, "execStatus": 2, "status": "suspended",
		"reason": "failed", "error": "POST https://api.example/post: 503 \u001b[31mService Unavailable\nmore",
		"attempt": 2, "maxAttempts": 2, "failedAttempts": 0, "parameters": {"URL": "https://api.example/post", "Auth": "***"}, "output": null,
		"watcherId": null, "blocks": 0, "registeredTs": "2026-11-23T03:12:01.123Z", "startedTs": "2026-11-23T03:14:06.123Z",
		"finishedTs": null, "suspendedTs": "2026-11-23T03:14:07.323Z", "runAfter": null, "durationMs": 1200,
		"asks": false, "childTaskFlowId": null, "waitReason": null, "why": null, "waitsFor": [], "queuePosition": null
	}`, string(third))
	require.Contains(t, string(text), `"output":{"nested":[{"apiKey":"***"}],"rows":12345678901234567890}`)
}

func TestDetail_RowsByHand(t *testing.T) {
	t.Parallel()
	d := (&API{}).detail(flow.State{
		Flow: flow.Flow{ID: "test_flow_1", WorkflowID: "sample"}, Status: "queued",
		Tasks: []flow.TaskState{{TaskKey: flow.TaskKey{Flow: "test_flow_1", Seq: 1}, Status: 7}},
	})
	require.Nil(t, d.Failure)
	require.Nil(t, d.RegisteredBy)
	require.Nil(t, d.StartedTs)
	require.Equal(t, "status 7", d.Tasks[0].Status)
	require.Equal(t, []int{}, d.Tasks[0].DependsTaskExecSeqs)
	require.JSONEq(t, `{}`, string(d.Tasks[0].Parameters))
	require.NotEmpty(t, d.text(view{}))
}

// A flow that asks says so, and how to answer.
func TestFlow_TextOfWhatAsks(t *testing.T) {
	t.Parallel()
	s := nightly()
	s.Status, s.Recover = flow.FlowHeld, ""
	s.Tasks[2].Reason, s.Tasks[2].Error, s.Tasks[2].Asks = flow.ReasonHeld, "publish?", true
	text := flowText(s, view{site: "http://h", ascii: true})
	require.Contains(t, text, "  HELD, ASKS  2 of 5 finished")
	require.Contains(t, text, "\n ? 3 load 注文       asks       1.2s  attempt 2 of 2  publish?\n")
	require.Contains(t, text, "\n approve: SELECT flower_approve('7f3c', 3);  no: SELECT flower_cancel('7f3c', 'why', 3);\n"+
		"      or: curl -X POST http://h/api/v1/flows/7f3c/tasks/3/approve  no: …/cancel\n")
	d := (&API{}).detail(s)
	require.Equal(t, 1, d.Asks)
	require.Equal(t, &Question{3, "load 注文", "publish?"}, d.Question)

	table := FlowList{Items: []Flow{{TaskFlowID: "7f3c", Status: "held", Asks: 1, Question: d.Question}}}.table()
	require.Equal(t, "3 asks: publish?", table.rows[0][7])
}

func TestFlow_Text(t *testing.T) {
	t.Parallel()
	require.Equal(t, strings.Join([]string{
		"nightly  7f3c  FAILED  2 of 5 finished  started 2026-11-23 03:12:02Z  took 2m05s  by cron",
		" ✔ 1 extract_orders  finished  12.4s  attempt 1 of 2",
		" ✔ 2 Test2           finished   8.1s  attempt 1 of 2",
		" ✖ 3 load 注文       failed     1.2s  attempt 2 of 2  POST https://api.example/post: 503 \uFFFD[31mService Unavailable…",
		" ⊖ 4 build_mart      blocked          by 3",
		" ⊖ 5 notify          blocked          by 3",
		" rerun: UPDATE …",
		"    or: curl -X POST http://localhost:8000/api/v1/flows/7f3c/rerun",
		"",
	}, "\n"), flowText(nightly(), view{site: "http://localhost:8000"}))
	plain := flowText(nightly(), view{ascii: true})
	for _, mark := range []string{"\n + 1 ", "\n x 3 ", "\n - 5 "} {
		require.Contains(t, plain, mark)
	}
}

// A rerun alone does not help what is invalid: the text says so before it says how.
func TestFlow_TextOfWhatIsInvalid(t *testing.T) {
	t.Parallel()
	s := nightly()
	s.Tasks[2].Reason = flow.ReasonInvalid
	require.Contains(t, flowText(s, view{}), "\n first: correct what the error of task 3 says, or a rerun ends alike: "+
		"a parameter with the rerun itself, -d '{\"parameters\": {\"NAME\": \"VALUE\"}}', a program by a watcher that has it\n rerun: UPDATE …\n")
	for len(s.Tasks) < 30 {
		s.Tasks = append(s.Tasks, s.Tasks[2])
	}
	require.Contains(t, flowText(s, view{}), " of task 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, … says")
}

func TestFlow_TextOfEveryState(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	s := flow.State{Flow: flow.Flow{ID: "f", WorkflowID: "w"}, Status: "running", StartedAt: now.Add(-time.Hour - 100*time.Second), AsOf: now}
	add := func(status flow.Status, change func(*flow.TaskState), parents ...int) {
		task := flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "f", Seq: len(s.Tasks) + 1}, Program: "P", Status: status, Parents: parents, MaxAttempts: 1,
		}
		if change != nil {
			change(&task)
		}
		s.Tasks = append(s.Tasks, task)
	}
	add(flow.Running, func(t *flow.TaskState) { t.StartedAt = now.Add(-3700 * time.Second); t.Attempt = 1 })
	add(flow.Waiting, nil, 1)
	add(flow.Waiting, nil)
	add(flow.Waiting, func(t *flow.TaskState) { t.RunAfter = now.Add(40 * time.Second); t.Attempt = 1; t.Error = "no" })
	add(flow.Ignored, nil)
	for _, r := range []flow.Reason{"", "timeout", "lost", "invalid", "cancelled", "held"} {
		add(flow.Suspended, func(t *flow.TaskState) { t.Reason = r })
	}
	add(flow.Waiting, nil, 1, 2, 3, 4, 15, 14) // of a cycle, and of one that is not there
	add(flow.Waiting, nil, 12, 6)
	add(flow.Waiting, nil, 12)
	require.Equal(t, strings.Join([]string{
		"w  f  RUNNING  1 of 14 finished  started 2026-11-23 01:58:20Z  took 1h01m",
		" ▶  1 P  running    1h01m",
		" ○  2 P  waiting           for 1",
		" ○  3 P  queued",
		" ○  4 P  retry             at 03:00:40Z  no",
		" ⊘  5 P  skipped",
		" ✖  6 P  suspended",
		" ✖  7 P  timed out",
		" ✖  8 P  lost",
		" ✖  9 P  invalid",
		" ■ 10 P  cancelled",
		" ‖ 11 P  held",
		" ○ 12 P  waiting           for 1, 2, 3, 4, 15, …",
		" ⊖ 13 P  blocked           by 6",
		" ○ 14 P  waiting           for 12",
		"",
	}, "\n"), flowText(s, view{}))
	require.Equal(t, "w  f  RUNNING  0 of 0 finished\n", flowText(flow.State{Flow: s.Flow, Status: "running"}, view{}))
}

// A pause is no retry, and says what it is for.
func TestFlow_TextOfAPause(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC)
	pausing := func(seq int, why string) flow.TaskState {
		return flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "f", Seq: seq}, Program: "P", MaxAttempts: 1, Attempt: 1,
			RunAfter: now.Add(time.Duration(seq) * time.Hour), Paused: true, Why: why,
		}
	}
	asks := flow.TaskState{
		TaskKey: flow.TaskKey{Flow: "f", Seq: 3}, Program: "P", MaxAttempts: 1, Attempt: 1,
		Status: flow.Suspended, Reason: flow.ReasonHeld, Error: "go on?",
	}
	s := flow.State{
		Flow: flow.Flow{ID: "f", WorkflowID: "w"}, Status: "running", AsOf: now,
		Tasks: []flow.TaskState{pausing(1, ""), pausing(2, "waits for flow x\x1b[31m of workflow y"), asks},
	}
	require.Equal(t, strings.Join([]string{
		"w  f  RUNNING  0 of 3 finished",
		" ○ 1 P  waiting    until 2026-11-23 04:00:00Z",
		" ○ 2 P  waiting    waits for flow x\uFFFD[31m of workflow y",
		" ‖ 3 P  held       go on?",
		"",
	}, "\n"), flowText(s, view{}))
}

// What can go and does not says what it waits for. A time of another day has its date.
func TestFlow_TextOfWhatIsQueued(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)
	s := flow.State{Flow: flow.Flow{ID: "f", WorkflowID: "w"}, Status: "queued", AsOf: now}
	add := func(after time.Duration, reason, why string) {
		task := flow.TaskState{
			TaskKey: flow.TaskKey{Flow: "f", Seq: len(s.Tasks) + 1}, Program: "P", MaxAttempts: 1, Wait: flow.Wait{Reason: reason, Why: why},
		}
		if after != 0 {
			task.RunAfter = now.Add(after)
		}
		s.Tasks = append(s.Tasks, task)
	}
	add(0, "queued", "can go: waits for a free worker")
	add(0, "limit", "workflow w\x1b[31m may have 1 running flow at once")
	add(0, "no_watcher", "no watcher has the program 'P'")
	add(30*time.Minute, "retry", "attempt 1 failed, the next one starts after …")
	add(2*time.Hour, "retry", "attempt 1 failed, the next one starts after …")
	add(2*time.Hour, "time", "not before 2026-11-24 01:00:00 UTC")
	add(-2*time.Hour, "time", "not before 2026-11-23 21:00:00 UTC") // nobody has looked since
	require.Equal(t, strings.Join([]string{
		"w  f  QUEUED  0 of 7 finished",
		" ○ 1 P  queued",
		" ○ 2 P  queued     workflow w\uFFFD[31m may have 1 running flow at once",
		" ○ 3 P  queued     no watcher has the program 'P'",
		" ○ 4 P  retry      at 23:30:00Z",
		" ○ 5 P  retry      at 2026-11-24 01:00:00Z",
		" ○ 6 P  waiting    until 2026-11-24 01:00:00Z",
		" ○ 7 P  queued     not before 2026-11-23 21:00:00 UTC",
		"",
	}, "\n"), flowText(s, view{}))
}

func TestFlow_TextOfALargeFlowIsLinear(t *testing.T) {
	t.Parallel()
	s := flow.State{Flow: flow.Flow{ID: "f", WorkflowID: "w"}, Status: "failed"}
	for i := range flow.MaxTasks { // everything depends on the first half
		task := flow.TaskState{TaskKey: flow.TaskKey{Flow: "f", Seq: i + 1}, Program: "P"}
		if i == 0 {
			task.Status = flow.Suspended
		} else {
			task.Parents = []int{i}
		}
		s.Tasks = append(s.Tasks, task)
	}
	require.Equal(t, flow.MaxTasks-1, strings.Count(flowText(s, view{ascii: true}), "by 1\n"))
}
