package watcher

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A task that is not to be run has not failed.
func TestSkipped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		q := newQueue(t, 1, 1)
		program := returning("", fmt.Errorf("look: %w", &flow.SkippedError{Reason: "skipped: it rains\x00"}))
		r := start(t, &fakeStore{advance: q.advance}, program, workers(1))
		pass(time.Minute)
		_, results := q.look()
		require.Len(t, results, 1)
		require.Equal(t, flow.OutcomeSkipped, results[0].Outcome)
		require.Equal(t, "skipped: it rains\uFFFD", results[0].Error, "fit for the database")
		require.Nil(t, results[0].Output)
		line := r.logs.only(t, "task skipped")
		require.Equal(t, slog.LevelInfo, line.level)
		require.Equal(t, "skipped: it rains\uFFFD", line.attrs["why"])
	})
}

// Where the database is away just now, a program waits for what it asks.
func TestAttempt_TellsHowItsFlowWasRegistered(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		asked := 0
		store := &fakeStore{flow: func(of flow.TaskKey) (flow.Flow, error) {
			require.Equal(t, flow.TaskKey{Flow: "f", Seq: 1}, of)
			if asked++; asked < 5 {
				return flow.Flow{}, errAway
			}
			return flow.Flow{ID: of.Flow, Parameters: json.RawMessage(`{"a": 1}`)}, nil
		}}
		q := newQueue(t, 1, 1)
		store.advance = q.advance
		start(t, store, asking{}, workers(1))
		pass(time.Minute)
		_, results := q.look()
		require.Len(t, results, 1)
		require.JSONEq(t, `{"a": 1}`, string(results[0].Output), results[0].Error)
		require.Equal(t, 5, asked)
	})
}

// asking is a program that returns its flow's parameters.
type asking struct{}

func (asking) Names() []string { return []string{"Fake"} }

func (asking) OffWithout(string) string { return "" }

func (asking) Run(ctx context.Context, a Attempt) (json.RawMessage, error) {
	f, err := a.Flow(ctx)
	return f.Parameters, err
}
