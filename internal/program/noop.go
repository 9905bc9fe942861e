package program

import (
	"context"
	"encoding/json"
)

// noOp does nothing: to join the branches of a graph, and to try one out.
type noOp struct{ original }

func (noOp) Parameters() []Parameter { return nil }

func (noOp) Run(context.Context, Input) (json.RawMessage, error) { return nil, nil }
