package program

import (
	"context"
	"encoding/json"
)

// echoParam says in the log that it runs and sleeps for as long as a parameter says.
type echoParam struct{ original }

func (echoParam) Parameters() []Parameter {
	return []Parameter{{
		Name:        "SLEEP_TIME_SECOND",
		Type:        Number,
		Required:    true,
		Description: "How long to sleep.",
		Unit:        "seconds",
		Min:         new(0.0),
		Max:         new(86400.0), // a day: what is meant to wait longer should not hold a worker
	}}
}

func (echoParam) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	in.Log.InfoContext(ctx, "echo")
	return nil, sleep(ctx, in.Params.Seconds("SLEEP_TIME_SECOND"))
}
