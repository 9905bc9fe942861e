package watcher

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A pause is no failure, unless the database could not take it.
func TestPauses(t *testing.T) {
	year := time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		err  error
		want flow.Pause
		fail string // a part of the error
	}{
		"a while":        {&flow.Pause{After: time.Hour}, flow.Pause{After: time.Hour}, ""},
		"wrapped":        {fmt.Errorf("the job runs: %w", &flow.Pause{State: json.RawMessage(`7`)}), flow.Pause{State: json.RawMessage(`7`)}, ""},
		"a question":     {&flow.Pause{Ask: true}, flow.Pause{Ask: true, Why: "it waits for a person"}, ""},
		"odd words":      {&flow.Pause{Why: "a\x00b\xff"}, flow.Pause{Why: "a\uFFFDb\uFFFD"}, ""},
		"its own answer": {&flow.Pause{Ask: true, Why: "?", Approval: json.RawMessage(`{"approved_by": "me"}`)}, flow.Pause{Ask: true, Why: "?"}, ""},
		"no JSON":        {&flow.Pause{State: json.RawMessage(`{`)}, flow.Pause{}, "the program wants to pause, and cannot: "},
		"U+0000":         {&flow.Pause{State: json.RawMessage(`"\u0000"`)}, flow.Pause{}, "U+0000"},
		"a large state":  {&flow.Pause{State: json.RawMessage(`"` + strings.Repeat("x", flow.MaxOutput) + `"`)}, flow.Pause{}, "are allowed"},
		"for ever":       {&flow.Pause{Until: year}, flow.Pause{}, "year outside of range"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				r := runOnce(t, returning("", c.err))
				require.Nil(t, r.Output)
				if c.fail != "" {
					require.Equal(t, flow.OutcomeFailed, r.Outcome)
					require.Contains(t, r.Error, c.fail)
					return
				}
				require.Equal(t, flow.OutcomePaused, r.Outcome, r.Error)
				require.Empty(t, r.Error)
				require.Equal(t, c.want, *r.Pause)
			})
		})
	}
}

// That it was to stop meanwhile takes nothing from what a program has done.
func TestPause_AtTheLastMoment(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		r := runOnce(t, func(ctx context.Context, _ flow.Task) (json.RawMessage, error) {
			<-ctx.Done()
			return nil, &flow.Pause{State: json.RawMessage(`7`)}
		}, withTimeout(time.Minute))
		require.Equal(t, flow.OutcomePaused, r.Outcome)
	})
}

// A paused task holds no worker, and housekeeping hears of its time at once.
func TestPause_FreesItsWorker(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 2)
		var promotions times
		begin := time.Now()
		r := start(t, &fakeStore{
			advance: func(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
				adv, err := q.advance(results, c)
				for i := range adv.Verdicts {
					adv.Verdicts[i].Status, adv.Verdicts[i].RunNext = flow.Waiting, time.Now().Add(time.Hour)
				}
				return adv, err
			},
			promote: func() (int, time.Duration, error) {
				promotions.note()
				return 0, 0, nil
			},
		}, fakePrograms(func(_ context.Context, task flow.Task) (json.RawMessage, error) {
			if task.Seq == 2 {
				return nil, &flow.Pause{Ask: true, Why: "go on?"}
			}
			return nil, &flow.Pause{After: time.Hour, Why: "waits for the moon"}
		}), workers(1))
		pass(time.Second)
		_, results := q.look()
		require.Len(t, results, 2, "one after the other, by the only worker")
		require.Contains(t, promotions.since(begin), promotePause)

		paused := r.logs.only(t, "task paused")
		require.Equal(t, slog.LevelInfo, paused.level)
		require.Equal(t, "waits for the moon", paused.attrs["why"])
		asks := r.logs.only(t, "task asks a person")
		require.Equal(t, slog.LevelInfo, asks.level)
		require.Equal(t, "go on?", asks.attrs["message"])
	})
}
