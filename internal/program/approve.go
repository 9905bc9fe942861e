package program

import (
	"context"
	"encoding/json"

	"github.com/d-tsuji/flower/internal/flow"
)

// approve asks a person, and finishes with who let it go on. Its parameter may not come with
// a request: whoever asks for a flow must not say what others approve. Who may answer is a
// matter of roles; whom it is meant for, the message says.
type approve struct{}

func (approve) Parameters() []Parameter {
	return []Parameter{
		{Name: "message", Type: String, Required: true, Fixed: true, Public: true, Description: "What is to be approved, and by whom, for people to read."},
	}
}

func (approve) Run(_ context.Context, in Input) (json.RawMessage, error) {
	if p := in.Task.Pause; p != nil && p.Approval != nil {
		return p.Approval, nil
	}
	return nil, &flow.Pause{Ask: true, Why: in.Params.String("message")}
}
