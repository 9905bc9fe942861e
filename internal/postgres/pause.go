package postgres

import (
	"encoding/json"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Tasks whose programs paused wait at 0, with run_after, or at 2 for a person. Their pause
// stays with them in kr_task_stat.pause until they finish or a person resets them.

// firstLook is when a flow that a task waits for is looked at for the first time; then
// promoteSQL goes on.
const firstLook = 500 * time.Millisecond

// pauses are the pauses of results, as columns for unnest; nil of those that have none.
type pauses struct {
	texts []*string
	until []*string
	ms    []int64
}

func newPauses(n int) pauses {
	return pauses{make([]*string, n), make([]*string, n), make([]int64, n)}
}

func (p pauses) set(i int, pause *flow.Pause) {
	text, err := json.Marshal(pause)
	if err != nil {
		panic("encode a pause whose parts are JSON: " + err.Error())
	}
	p.texts[i] = new(string(text))
	if !pause.Until.IsZero() {
		p.until[i] = new(pause.Until.UTC().Format(time.RFC3339Nano))
	}
	after := max(pause.After, 0)
	if pause.Flow != "" {
		after = max(after, firstLook)
	}
	p.ms[i] = after.Milliseconds()
}

// readPause decodes what is in a row. What somebody has spoilt is as if it were not there.
func readPause(text *string) *flow.Pause {
	if text == nil {
		return nil
	}
	var p flow.Pause
	if json.Unmarshal([]byte(*text), &p) != nil {
		return nil
	}
	return &p
}
