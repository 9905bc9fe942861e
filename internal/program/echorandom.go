package program

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"time"
)

// maxRandomSleep is how long a task of echoRandom takes at most.
const maxRandomSleep = 2 * time.Second

// echoRandom says in the log that it runs and sleeps a random while. It stands for work
// in the sample workflows.
type echoRandom struct{ original }

func (echoRandom) Parameters() []Parameter { return nil }

func (echoRandom) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	in.Log.InfoContext(ctx, "echo")
	return nil, sleep(ctx, rand.N(maxRandomSleep))
}

// sleep waits for d, or for the end of ctx and then returns its cause.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
