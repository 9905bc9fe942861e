package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// fakeFlows is Flows of functions; without any it has a flow that has not ended.
type fakeFlows struct {
	start func(of flow.Task, id flow.WorkflowID, parameters json.RawMessage) (flow.ID, error)
	end   func(id flow.ID) (flow.End, error)
}

func (f fakeFlows) StartChild(_ context.Context, of flow.Task, id flow.WorkflowID, parameters json.RawMessage) (flow.ID, error) {
	if f.start == nil {
		return "child", nil
	}
	return f.start(of, id, parameters)
}

func (f fakeFlows) FlowEnd(_ context.Context, id flow.ID) (flow.End, error) {
	if f.end == nil {
		return flow.End{}, nil
	}
	return f.end(id)
}

func runFlow(t *testing.T, f fakeFlows, parameters string, pause *flow.Pause) (json.RawMessage, error) {
	t.Helper()
	task := newTask("Flow", parameters)
	task.Pause = pause
	return Default(Config{Flows: f}).Run(t.Context(), Attempt{Task: task})
}

func TestFlow_RegistersAndWaits(t *testing.T) {
	t.Parallel()
	waits := &flow.Pause{Flow: "f7", Why: "waits for flow f7 of workflow load"}
	f := fakeFlows{start: func(of flow.Task, id flow.WorkflowID, parameters json.RawMessage) (flow.ID, error) {
		require.Equal(t, "f1:2:0", of.IdempotencyKey())
		require.EqualValues(t, "load", id)
		require.JSONEq(t, `{"day": 1}`, string(parameters))
		return "f7", nil
	}}
	const parameters = `{"workflow": "load", "parameters": {"day": 1}}`
	_, err := runFlow(t, f, parameters, nil)
	require.Equal(t, waits, err)
	_, err = runFlow(t, f, parameters, &flow.Pause{Why: "another program's"})
	require.Equal(t, waits, err)

	// It has not ended: somebody looked too early.
	f.start = nil
	_, err = runFlow(t, f, parameters, waits)
	require.Equal(t, waits, err)
}

func TestFlow_EndsAsTheFlowDoes(t *testing.T) {
	t.Parallel()
	failed := flow.End{Status: "failed", Seq: 2, Title: "invoice", Error: "no such customer"}
	for name, c := range map[string]struct {
		end     flow.End
		carryOn bool
		want    string // of the output, or the error
	}{
		"finished":              {flow.End{Status: "finished"}, false, `{"flow": "f7", "status": "finished"}`},
		"with outputs":          {flow.End{Status: "finished", Outputs: json.RawMessage(`{"3": 1}`)}, false, `{"flow": "f7", "status": "finished", "outputs": {"3": 1}}`},
		"with too much of them": {flow.End{Status: "finished", Outputs: json.RawMessage(`{"3": "` + strings.Repeat("x", flow.MaxOutput) + `"}`)}, false, `{"flow": "f7", "status": "finished"}`},
		"failed":                {failed, false, "workflow load failed at task 2 (invoice): no such customer\nflow f7"},
		"cancelled":             {flow.End{Status: "cancelled", Seq: 1, Error: "too late"}, false, "workflow load was cancelled: too late\nflow f7"},
		"without a reason":      {flow.End{Status: "cancelled", Seq: 1, Error: "cancelled"}, false, "workflow load was cancelled\nflow f7"},
		"deleted":               {flow.End{Status: "deleted"}, false, "workflow load was deleted\nflow f7"},
		"failed, and no matter": {failed, true, `{"flow": "f7", "status": "failed", "error": "failed at task 2 (invoice): no such customer"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			parameters := `{"workflow": "load"}`
			if c.carryOn {
				parameters = `{"workflow": "load", "on_failure": "continue"}`
			}
			f := fakeFlows{end: func(id flow.ID) (flow.End, error) {
				require.EqualValues(t, "f7", id)
				return c.end, nil
			}}
			output, err := runFlow(t, f, parameters, &flow.Pause{Flow: "f7"})
			if c.want[0] != '{' {
				require.EqualError(t, err, c.want)
				require.False(t, errors.As(err, new(*flow.InvalidError)))
				return
			}
			require.NoError(t, err)
			require.JSONEq(t, c.want, string(output))
		})
	}
}

// What a flow is given is there for all to see.
func TestFlow_NoSecrets(t *testing.T) {
	t.Parallel()
	for _, parameters := range []string{
		`{"workflow": "load", "parameters": {"a": [{"b": "Bearer ${{ secrets.TOKEN }}"}]}}`,
		`{"workflow": "load", "parameters": "${{ {\"a\": secrets.TOKEN} }}"}`,
	} {
		w := flow.Workflow{ID: "w", Tasks: []flow.TaskDefinition{{Seq: 1, Program: "Flow", Parameters: json.RawMessage(parameters)}}}
		const want = `parameter "parameters": it is for all to see, and cannot have a secret in it`
		requireInvalid(t, Default(Config{}).CheckWorkflow(w, nil), `workflow "w": task_seq 1 (Flow): `+want)
		a := Attempt{Task: newTask("Flow", parameters), Secrets: withSecret(t)}
		_, err := Default(Config{Flows: fakeFlows{}}).Run(t.Context(), a)
		requireInvalid(t, err, want)
	}
}

// A database that is away is no reason to fail; a workflow that is not there is one that
// no retry mends.
func TestFlow_Errors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := fakeFlows{
			start: func(flow.Task, flow.WorkflowID, json.RawMessage) (flow.ID, error) {
				if time.Since(begin) < time.Minute {
					return "", fmt.Errorf("register: %w", flow.ErrUnavailable)
				}
				return "f7", nil
			},
			end: func(flow.ID) (flow.End, error) { return flow.End{}, flow.ErrUnavailable },
		}
		_, err := runFlow(t, f, `{"workflow": "load"}`, nil)
		require.ErrorAs(t, err, new(*flow.Pause))
		require.InDelta(t, 60, time.Since(begin).Seconds(), 1)

		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Hour, func() { cancel(stop) })
		task := newTask("Flow", `{"workflow": "load"}`)
		task.Pause = &flow.Pause{Flow: "f7"}
		_, err = Default(Config{Flows: f}).Run(ctx, Attempt{Task: task})
		require.Equal(t, stop, err)
	})
	f := fakeFlows{start: func(flow.Task, flow.WorkflowID, json.RawMessage) (flow.ID, error) {
		return "", fmt.Errorf(`register workflow "load": %w`, flow.ErrNotFound)
	}}
	_, err := runFlow(t, f, `{"workflow": "load"}`, nil)
	requireInvalid(t, err, `parameter "workflow": there is no workflow "load"`)
	_, err = runFlow(t, f, `{"workflow": "load", "on_failure": "panic"}`, nil)
	requireInvalid(t, err, `parameter "on_failure": "panic" is not one of fail, continue`)
}
