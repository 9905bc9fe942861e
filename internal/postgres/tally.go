package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/flow"
)

// tallyPause is how often counts are written, at most.
const tallyPause = 5 * time.Second

// tally counts what this process has recorded since the counts were last written. They are
// for charts: what a killed process had not written is missing, and of an answer that was
// lost the results may count twice.
type tally struct {
	id string // of the process's rows

	mu                        sync.Mutex
	finished, failed, retried int // guarded by mu, like the next
	written                   time.Time
}

func newTally() *tally { return &tally{id: uuid.NewString()} }

func (t *tally) count(verdicts []flow.Judged) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range verdicts {
		switch {
		case j.Verdict != flow.VerdictRecorded:
		case j.Status == flow.Finished:
			t.finished++
		case j.Status == flow.Suspended && j.Result.Outcome != flow.OutcomeHandedBack:
			t.failed++
		case j.Status == flow.Waiting && (j.Result.Outcome == flow.OutcomeFailed || j.Result.Outcome == flow.OutcomeTimeout):
			t.retried++
		}
	}
}

// take returns the counts and sets them to nothing, if there are any and it is time.
func (t *tally) take(anyway bool) (finished, failed, retried int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.finished+t.failed+t.retried == 0 || !anyway && time.Since(t.written) < tallyPause {
		return 0, 0, 0, false
	}
	finished, failed, retried = t.finished, t.failed, t.retried
	t.finished, t.failed, t.retried, t.written = 0, 0, 0, time.Now()
	return finished, failed, retried, true
}

// tallySQL adds to the row of this minute, and takes out what is long ago.
const tallySQL = `
-- flower: tally
WITH old AS (
    DELETE FROM kr_tally WHERE tally_ts < statement_timestamp() - interval '400 days'
)
INSERT INTO kr_tally AS k (tally_ts, tallied_by, finished, failed, retried)
VALUES (date_trunc('minute', statement_timestamp()), $1::uuid, $2, $3, $4)
ON CONFLICT (tally_ts, tallied_by) DO UPDATE
SET    finished = k.finished + excluded.finished, failed = k.failed + excluded.failed, retried = k.retried + excluded.retried
RETURNING 1`

// writeTally writes what was counted, now and then. Nothing depends on it: an error is
// somebody else's to notice, and the counts are gone.
func (d *DB) writeTally(ctx context.Context, anyway bool) {
	finished, failed, retried, ok := d.tally.take(anyway)
	if !ok {
		return
	}
	var rows []int
	if err := d.writer.selectAll(ctx, &rows, tallySQL, d.tally.id, finished, failed, retried); err != nil {
		d.log.Debug("counts for charts were not written", "err", err)
	}
}
