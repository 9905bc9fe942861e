package program

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestApprove(t *testing.T) {
	t.Parallel()
	const at = "2026-11-24T19:30:00Z"
	for parameters, why := range map[string]string{
		`{"message": "deploy 1.2?"}`:                  "deploy 1.2?",
		`{"message": "deploy?\nOwners: the owners."}`: "deploy?\nOwners: the owners.",
	} {
		_, err := runAt(t, "Approve", parameters, at, nil)
		require.Equal(t, &flow.Pause{Ask: true, Why: why}, err)
		// Asked, and run again without an answer.
		_, err = runAt(t, "Approve", parameters, at, &flow.Pause{Ask: true, Why: why})
		require.Equal(t, &flow.Pause{Ask: true, Why: why}, err)

		output, err := runAt(t, "Approve", parameters, at, &flow.Pause{Why: why, Approval: json.RawMessage(`{"approved_by": "ann"}`)})
		require.NoError(t, err)
		require.JSONEq(t, `{"approved_by": "ann"}`, string(output))
	}
	requireInvalid(t, Default(Config{}).Check("Approve", nil), `parameter "message": it is missing, and must be a string`)
	// Words that nobody checks are no promise.
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Approve", Parameters: json.RawMessage(`{"message": "?", "approvers": "ann"}`)}}}
	require.ErrorContains(t, Default(Config{}).CheckWorkflow(w, nil), `parameter "approvers"`)
}

// Whoever asks for a flow does not say what others approve.
func TestApprove_TheMessageIsTheDefinitions(t *testing.T) {
	t.Parallel()
	w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Approve", Parameters: json.RawMessage(`{"message": "all of it?"}`)}}}
	require.NoError(t, Default(Config{}).CheckWorkflow(w, nil))
	requireInvalid(t, Default(Config{}).CheckWorkflow(w, json.RawMessage(`{"message": "nothing much?"}`)),
		`workflow "w": task_seq 1 (Approve): parameter "message": only the definition can set it, and the request does`)
}
