package postgres

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A task sees what it comes after, however far back, and nothing that runs beside it.
func TestOutputs_OfWhatATaskComesAfter(t *testing.T) {
	t.Parallel()
	w := open(t)
	at := func(seq int, after ...int) flow.TaskDefinition {
		d := def(after...)
		d.Seq = seq
		return d
	}
	// 10 → 20 → 40, 10 → 30 (beside it), 50 → 40
	define(t, w, "w", at(10), at(20, 10), at(30, 10), at(40, 20, 50), at(50))
	id := registerOf(t, w, "w")
	all := []int{10, 20, 30, 40, 50, 60, 1, -1}
	of := func(taskSeq int) map[int]json.RawMessage {
		seq := value[int](t, w, `SELECT task_exec_seq FROM kr_task_stat WHERE task_flow_id = $1 AND task_seq = $2`, string(id), taskSeq)
		got, err := w.Outputs(t.Context(), flow.TaskKey{Flow: id, Seq: seq}, all)
		require.NoError(t, err)
		return got
	}
	require.Empty(t, of(40), "nothing has run")
	for {
		tasks := claim(t, w, 5)
		if len(tasks) == 0 {
			break
		}
		results := finished(tasks...)
		for i := range results {
			seq := value[int](t, w, `SELECT task_seq FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), tasks[i].Seq)
			if seq != 50 {
				results[i].Output, _ = json.Marshal(map[string]int{"from": seq})
			}
		}
		record(t, w, results...)
	}
	require.Equal(t, map[int]json.RawMessage{10: object(`{"from": 10}`), 20: object(`{"from": 20}`)}, of(40), "50 has none, 30 is beside it")
	require.Equal(t, map[int]json.RawMessage{10: object(`{"from": 10}`)}, of(30))
	require.Empty(t, of(10))

	got, err := w.Outputs(t.Context(), flow.TaskKey{Flow: id, Seq: 4}, nil)
	require.NoError(t, err)
	require.Empty(t, got)
	got, err = w.Outputs(t.Context(), flow.TaskKey{Flow: "no such flow", Seq: 1}, all)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestRegister_AsksWhetherProgramsCanRun(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "good", def())
	define(t, w, "bad", def(), def())
	refusal := &flow.InvalidError{Subject: `workflow "bad"`, Problem: "it cannot run"}
	w.CheckParameters(func(workflow flow.Workflow, request json.RawMessage) error {
		require.NotEmpty(t, workflow.Tasks)
		if workflow.ID == "bad" && string(request) != `{"bad": false}` {
			return refusal
		}
		return nil
	})
	registration := flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "bad"}
	_, err := w.Register(t.Context(), registration)
	require.ErrorIs(t, err, refusal)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))

	registration.Parameters = object(`{"bad": false}`)
	_, err = w.Register(t.Context(), registration)
	require.NoError(t, err)
	registerOf(t, w, "good")
}

// How a flow was registered is for the expressions of its tasks.
func TestRegistered(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", def())
	f, err := w.Register(t.Context(), flow.Registration{FlowID: "f", WorkflowID: "w", Parameters: object(`{"day": "monday"}`)})
	require.NoError(t, err)
	got, err := w.Registered(t.Context(), flow.TaskKey{Flow: "f", Seq: 1})
	require.NoError(t, err)
	f.Parameters = object(`{"day": "monday"}`)
	require.True(t, f.RegisteredAt.Equal(got.RegisteredAt))
	f.RegisteredAt = got.RegisteredAt
	require.Equal(t, f, got)

	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ('by hand', 1, 'w', 1)`)
	for range 2 {
		got, err = w.Registered(t.Context(), flow.TaskKey{Flow: "by hand", Seq: 1})
		require.NoError(t, err)
		require.Nil(t, got.Parameters)
		require.Equal(t, flow.WorkflowID("w"), got.WorkflowID)
		require.False(t, got.RegisteredAt.IsZero())
		byHand(t, w, `DELETE FROM kr_flow WHERE task_flow_id = 'by hand'`) // all that is kept of it
	}
	_, err = w.Registered(t.Context(), flow.TaskKey{Flow: "f", Seq: 2})
	require.ErrorIs(t, err, flow.ErrNotFound)
}
