package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Flows is where the program Flow gets flows from.
type Flows interface {
	// StartChild registers a flow on behalf of a task, or finds the one that an earlier
	// attempt has registered.
	StartChild(ctx context.Context, of flow.Task, id flow.WorkflowID, parameters json.RawMessage) (flow.ID, error)

	// FlowEnd says how a flow ended, if it has.
	FlowEnd(ctx context.Context, id flow.ID) (flow.End, error)
}

// subflow registers a flow of another workflow and ends as that flow does. It runs twice:
// to register it, and when it has ended.
type subflow struct{ flows Flows }

const carryOn = "continue" // of on_failure

func (subflow) Parameters() []Parameter {
	return []Parameter{
		{Name: "workflow", Type: String, Required: true, Fixed: true, Public: true, Description: "The workflow to register a flow of: its task_id."},
		{Name: "parameters", Type: Object, Public: true, Description: "The parameters of that flow, as those of a request."},
		{
			Name: "on_failure", Type: String, OneOf: []string{"fail", carryOn}, Default: json.RawMessage(`"fail"`), Fixed: true,
			Description: "What a flow that failed or was cancelled means to the task: it fails as well, or it finishes, and its output says so.",
		},
	}
}

func (p subflow) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	workflow := in.Params.String("workflow")
	if in.Task.Pause == nil || in.Task.Pause.Flow == "" {
		id, err := untilAvailable(ctx, func() (flow.ID, error) {
			return p.flows.StartChild(ctx, in.Task, flow.WorkflowID(workflow), in.Params.JSON("parameters"))
		})
		if errors.Is(err, flow.ErrNotFound) {
			return nil, invalid("workflow", "there is no workflow "+quote(workflow))
		}
		if err != nil {
			return nil, err
		}
		in.Log.Info("waiting for a flow", "child", id)
		return nil, waitFor(id, workflow)
	}
	id := in.Task.Pause.Flow
	end, err := untilAvailable(ctx, func() (flow.End, error) { return p.flows.FlowEnd(ctx, id) })
	switch {
	case err != nil:
		return nil, err
	case end.Status == "": // somebody was curious
		return nil, waitFor(id, workflow)
	case end.Status == "finished" || in.Params.String("on_failure") == carryOn:
		return outcome(id, end), nil
	}
	// The id is last: of a flow in a flow, lists would show nothing but where it failed.
	return nil, fmt.Errorf("workflow %s %s\nflow %s", workflow, describe(end), id)
}

func waitFor(id flow.ID, workflow string) *flow.Pause {
	return &flow.Pause{Flow: id, Why: fmt.Sprintf("waits for flow %s of workflow %s", id, workflow)}
}

// describe says how a flow ended that did not finish.
func describe(end flow.End) string {
	switch end.Status {
	case "deleted":
		return "was deleted"
	case "cancelled":
		if end.Error == "cancelled" {
			return "was cancelled"
		}
		return "was cancelled: " + end.Error
	}
	return fmt.Sprintf("failed at task %d (%s): %s", end.Seq, end.Title, end.Error)
}

// outcome is the task's output. What the flow's last tasks have returned is in it, unless
// that is more than an output may be.
func outcome(id flow.ID, end flow.End) json.RawMessage {
	output := struct {
		Flow    flow.ID         `json:"flow"`
		Status  string          `json:"status"`
		Error   string          `json:"error,omitempty"`
		Outputs json.RawMessage `json:"outputs,omitempty"`
	}{Flow: id, Status: end.Status, Outputs: end.Outputs}
	if end.Status != "finished" {
		output.Error = describe(end)
	}
	text, err := json.Marshal(output)
	if err != nil || len(text) > flow.MaxOutput {
		output.Outputs = nil
		text, _ = json.Marshal(output)
	}
	return text
}

// untilAvailable repeats f for as long as the database is away: that is no reason for a
// task to fail.
func untilAvailable[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		v, err := f()
		switch {
		case err != nil && ctx.Err() != nil:
			return v, context.Cause(ctx)
		case !errors.Is(err, flow.ErrUnavailable):
			return v, err
		}
		if err := sleep(ctx, pause); err != nil {
			return v, err
		}
	}
}
