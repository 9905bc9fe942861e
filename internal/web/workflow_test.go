package web

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

func TestWorkflows(t *testing.T) {
	t.Parallel()
	last := []flow.Summary{
		{Flow: flow.Flow{ID: "c"}, Status: flow.FlowFailed},
		{Flow: flow.Flow{ID: "b"}, Status: flow.FlowFinished, StartedAt: at(0), EndedAt: at(2), Took: 2 * time.Second},
	}
	store := &fakeStore{}
	store.lists.workflows = []flow.WorkflowState{
		{Workflow: flow.Workflow{ID: "a/b", Tasks: make([]flow.TaskDefinition, 3)}, Last: last, MaxRunningFlows: 1, MaxRunningTasks: 4},
		{Workflow: flow.Workflow{ID: "broken"}, Problems: []string{"its dependencies form a cycle: 1 → 2 → 1"}},
	}
	s := newSite(t, Config{BasePath: "/flower"}, store)
	page := get(s, "/workflows").Body.String()
	require.Contains(t, page, "one flow at a time, 4 tasks at a time")
	require.Less(t, strings.Index(page, "b: Finished, took 2.0 s"), strings.Index(page, "c: Failed"), "the oldest first")
	require.Equal(t, "/flower/workflows/a%2Fb/register", linkOf(page, "Register…"))
	require.Contains(t, page, "cannot be registered: its dependencies form a cycle: 1 → 2 → 1")
	require.Contains(t, page, `aria-disabled="true" tabindex="0" title="Its definition is broken"`)
	require.Equal(t, "?after=broken", linkOf(page, "Next"))
	require.Contains(t, get(newSite(t, Config{}, &fakeStore{}), "/workflows").Body.String(), "No workflow yet.")
	require.Contains(t, get(newSite(t, Config{}, &fakeStore{}), "/workflows?q=x").Body.String(), "No workflow has “x” in its name.")
}

func TestWorkflow(t *testing.T) {
	t.Parallel()
	store := &fakeStore{lists: fullLists("nightly")}
	store.workflow = func(flow.WorkflowID) (flow.WorkflowState, error) { return store.lists.workflows[0], nil }
	s := newSite(t, Config{}, store)
	page := get(s, "/workflows/nightly").Body.String()
	require.Contains(t, page, "<strong>75 %</strong>")
	require.Contains(t, page, "Flows in the last 7 days")
	require.Contains(t, page, "slowest")
	require.Contains(t, page, "fails most")
	require.Contains(t, page, `data-seq="7" data-after="1 2"`)
	require.Contains(t, page, `data-seq="2" data-after="1"`, "NULL is the task before")
	require.Contains(t, page, "(the present one)")
	require.Contains(t, page, "task 2 (other): program: &#34;nightly&#34; → &#34;other&#34;")
	require.NotContains(t, page, "Show the present one")

	page = get(s, "/workflows/nightly?version=2").Body.String()
	require.Contains(t, page, "Show the present one")
	require.Contains(t, page, `data-seq="2" data-after=""`, "in this version it was the first")
	require.Contains(t, get(s, "/workflows/nightly?version=3").Body.String(), "With version 3 it was deleted.")
	require.Equal(t, http.StatusNotFound, get(s, "/workflows/nightly?version=99").Code)
	require.Contains(t, serve(s, access.Reader, sent(http.MethodGet, "/workflows/nightly", nil)).Body.String(), "This needs the role registrar")
}

// A workflow that was deleted, or of which there are only flows, has a page still.
func TestWorkflow_Deleted(t *testing.T) {
	t.Parallel()
	store := &fakeStore{lists: fullLists("nightly")}
	store.lists.versions[0].Definition = nil
	s := newSite(t, Config{}, store)
	page := get(s, "/workflows/nightly").Body.String()
	require.Contains(t, page, "Deleted</span>")
	require.Contains(t, page, `title="It was deleted"`)
	require.Contains(t, page, "version 2</span>", "the last definition that it had")

	store.lists.versions = nil
	require.Contains(t, get(s, "/workflows/nightly").Body.String(), "No definition</span>")
	store.lists.page = nil
	require.Equal(t, http.StatusNotFound, get(s, "/workflows/nightly").Code)
}

func TestPercent(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64]string{0: "0 %", 0.0001: "1 %", 0.5: "50 %", 0.999: "99 %", 1: "100 %"} {
		require.Equal(t, want, percent(share))
	}
}

// The statements say what the definition says, whatever is in it, and keep secrets.
func TestDefinitionSQL(t *testing.T) {
	t.Parallel()
	d := flow.Definition{
		Workflow: flow.Workflow{ID: "it's", Tasks: []flow.TaskDefinition{
			{Seq: 2, Program: `\x'); DROP TABLE kr_flow; --`, DependsOn: []int{1}, Timeout: 90 * time.Second, OnLost: flow.OnLostSuspend, MaxAttempts: 3, RetryDelay: 1500 * time.Millisecond, RunIf: "true"},
			{Seq: 1, Program: "P", Parameters: json.RawMessage(`{"b": "o'clock", "token": "canary"}`), DependsOn: []int{}, Description: "first\nline", Priority: -5},
			{Seq: 3, Program: "P"},
		}},
		MaxRunningFlows: 1,
	}
	require.Equal(t, `-- Values that look like secrets are *** here: put them in.
INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs,
                                max_attempts, retry_delay, timeout, on_lost, run_if, description) VALUES
    ('it''s', 1, 'P', -5, '{"b":"o''clock","token":"***"}', '{}', 1, '0 s', NULL, 'rerun', NULL, 'first
line'),
    ('it''s', 2, '\x''); DROP TABLE kr_flow; --', 0, '{}', '{1}', 3, '1.5 s', '90 s', 'suspend', 'true', NULL),
    ('it''s', 3, 'P', 0, '{}', NULL, 1, '0 s', NULL, 'rerun', NULL, NULL);
INSERT INTO ms_workflow (task_id, description, max_running_flows, max_running_tasks) VALUES ('it''s', NULL, 1, NULL);
`, definitionSQL(d))
}

// Values are told in the words of files, without secrets.
func TestChanges(t *testing.T) {
	t.Parallel()
	old := flow.Definition{Workflow: flow.Workflow{Tasks: []flow.TaskDefinition{{Seq: 1, Program: "A"}, {Seq: 2, Program: "B"}}}}
	now := flow.Definition{
		Workflow:    flow.Workflow{Tasks: []flow.TaskDefinition{{Seq: 1, Program: "A2", Parameters: []byte(`{"a": 1, "token": "canary"}`), Description: "d"}, {Seq: 3, Program: "C"}}},
		Description: "new",
	}
	require.Equal(t, []string{
		`description: (none) → "new"`,
		`task 1 (d): title: (none) → "d"`, `task 1 (d): program: "A" → "A2"`, `task 1 (d): parameters.a: (none) → 1`, `task 1 (d): parameters.token: (none) → "***"`,
		"task 2 (B): removed", "task 3 (C): added",
	}, changes(&old, &now))
	require.Empty(t, changes(&old, &old))
	require.Equal(t, []string{"deleted"}, changes(&old, nil))
	require.Equal(t, []string{"made anew, with 2 tasks"}, changes(nil, &old))

	now.Tasks = make([]flow.TaskDefinition, 60)
	for i := range now.Tasks {
		now.Tasks[i] = flow.TaskDefinition{Seq: i + 10, Program: "P"}
	}
	require.Equal(t, "and 43 more", changes(&old, &now)[versionLines])
}
