package program

import (
	"context"
	"encoding/json"

	"github.com/d-tsuji/flower/internal/flow"
)

// approve asks a person, and finishes with who let it go on. Neither parameter may come
// with a request: whoever asks for a flow must not say what others approve.
type approve struct{}

func (approve) Parameters() []Parameter {
	return []Parameter{
		{Name: "message", Type: String, Required: true, Fixed: true, Public: true, Description: "What is to be approved, for people to read."},
		{Name: "approvers", Type: String, Fixed: true, Public: true, Description: "Who should approve it. These are words: nobody checks them."},
	}
}

func (approve) Run(_ context.Context, in Input) (json.RawMessage, error) {
	if p := in.Task.Pause; p != nil && p.Approval != nil {
		return p.Approval, nil
	}
	why := in.Params.String("message")
	if who := in.Params.String("approvers"); who != "" {
		why += " (to be approved by " + who + ")"
	}
	return nil, &flow.Pause{Ask: true, Why: why}
}
