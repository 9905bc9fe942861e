package definition

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestWriteDiff_SaysEachChangeInALine(t *testing.T) {
	t.Parallel()
	before, after := wholeDefinition(), wholeDefinition()
	after.MaxRunningFlows, after.Description = 2, ""
	load := &after.Tasks[1]
	load.Description, load.MaxAttempts, load.Timeout, load.DependsOn, load.OnLost = "load orders", 1, 0, []int{}, flow.OnLostRerun
	load.Parameters = json.RawMessage(`{"url": "https://example.com/v2", "body": {"n": 1.5, "list": [1, null, true, "x"],
		"day": "2026-11-24", "big": 9007199254740993, "more": ` + `"` + strings.Repeat("x", 200) + `"}, "api_key": "s3cret", "headers": {"Authorization": "s3cret"}}`)
	after.Tasks[2] = task(7, "NoOp")
	var b strings.Builder
	for _, e := range []flow.EditedDefinition{
		{ID: "nightly", Old: &before, New: &after},
		{ID: "same", Old: &before, New: &before},
		{ID: "new", New: &after},
		{ID: "gone", Old: &flow.Definition{Workflow: flow.Workflow{Tasks: before.Tasks[:1]}}},
	} {
		require.NoError(t, WriteDiff(&b, e))
	}
	require.Equal(t, `nightly: changed
  maxRunningFlows: 1 → 2
  description: "What it is for,\nat length.\n" → (none)
  task 5 (load orders): title: "load" → "load orders"
  task 5 (load orders): parameters.api_key: (none) → "***"
  task 5 (load orders): parameters.body.more: (none) → "`+strings.Repeat("x", 119)+`…
  task 5 (load orders): parameters.body.none: null → (none)
  task 5 (load orders): parameters.headers: (none) → {"Authorization":"***"}
  task 5 (load orders): parameters.url: "https://example.com/" → "https://example.com/v2"
  task 5 (load orders): dependsOn: [1] → []
  task 5 (load orders): maxAttempts: 3 → 1
  task 5 (load orders): onLost: "suspend" → "rerun"
  task 5 (load orders): description: "orders" → (none)
  task 5 (load orders): timeout: "2s500ms" → (none)
  task 6 (HTTPRequest): removed
  task 7 (NoOp): added
same: unchanged
new: created, 3 tasks
gone: deleted, 1 task
`, b.String())
}

// What is in an object may have an innocent name, and be hidden with all of that.
func TestDiff_HidesWhatIsWithinASecret(t *testing.T) {
	t.Parallel()
	of := func(parameters string) flow.Definition {
		w := flow.Definition{Workflow: flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{task(1, "P")}}}
		w.Tasks[0].Parameters = json.RawMessage(parameters)
		return w
	}
	const before = `{"credentials": {"user": "a", "pin": "s3cret"}, "in": {"auth": {"x": {"y": "s3cret"}}}}`
	changes, err := Diff(of(before), of(`{"credentials": {"user": "a", "pin": "an0ther"}, "in": {"auth": {"x": {"y": "an0ther"}}}}`))
	require.NoError(t, err)
	require.Equal(t, []Change{
		{What: Changed, Seq: 1, Title: "P", Field: "parameters.credentials", Old: json.RawMessage(`"***"`), New: json.RawMessage(`"***"`)},
		{What: Changed, Seq: 1, Title: "P", Field: "parameters.in.auth", Old: json.RawMessage(`"***"`), New: json.RawMessage(`"***"`)},
	}, changes)
	changes, err = Diff(of(before), of(before))
	require.NoError(t, err)
	require.Empty(t, changes)
}

func TestMasked_HidesWhatLooksLikeASecret(t *testing.T) {
	t.Parallel()
	w := flow.Definition{Workflow: flow.Workflow{ID: "key", Tasks: []flow.TaskDefinition{task(1, "P")}}}
	w.Tasks[0].Parameters = json.RawMessage(`{"headers": {"Authorization": "s3cret", "a": 1}, "PASSWORD": "s3cret", "none": null}`)
	masked, err := Masked(w)
	require.NoError(t, err)
	text, err := Format(JSON, masked)
	require.NoError(t, err)
	require.JSONEq(t, `{"taskId": "key", "tasks": [{"seq": 1, "program": "P",
		"parameters": {"headers": {"Authorization": "***", "a": 1}, "PASSWORD": "***", "none": null}}]}`, string(text))
}
