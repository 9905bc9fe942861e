package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/program/secret"
)

// masked is where secrets end: it runs an attempt, and nothing of what that logs, prints,
// returns and fails with has one in it. Whoever runs programs may show all of that.
func masked(ctx context.Context, a Attempt, run func(context.Context, Attempt) (json.RawMessage, error)) (json.RawMessage, error) {
	s := a.Secrets
	if s == nil {
		return run(ctx, a)
	}
	stdout, stderr := s.Writer(a.Stdout), s.Writer(a.Stderr)
	defer func() { _, _ = stdout.Close(), stderr.Close() }() // nobody minds what cannot be printed
	a.Stdout, a.Stderr = stdout, stderr
	a.Log = slog.New(s.Handler(a.Log.Handler()))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if text := fmt.Sprint(p); s.Mask(text) != text {
			p = s.Mask(text)
		}
		panic(p)
	}()
	output, err := run(ctx, a)
	if pause, paused := errors.AsType[*flow.Pause](err); paused {
		return nil, maskPause(s, *pause)
	}
	return s.MaskJSON(output), maskError(s, err)
}

// maskedError is an error with another text.
type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string { return e.text }
func (e *maskedError) Unwrap() error { return e.err }

// maskPause masks what is kept of a pause.
func maskPause(s *secret.Store, p flow.Pause) error {
	p.Why, p.State = s.Mask(p.Why), s.MaskJSON(p.State)
	return &p
}

// maskError masks an error's text. Of an error that has a text in its fields, that one
// stands for it all.
func maskError(s *secret.Store, err error) error {
	if err == nil || s.Mask(err.Error()) == err.Error() {
		return err
	}
	if invalid, is := errors.AsType[*flow.InvalidError](err); is {
		return &flow.InvalidError{Subject: s.Mask(invalid.Subject), Problem: s.Mask(invalid.Problem)}
	}
	return &maskedError{s.Mask(err.Error()), err}
}
