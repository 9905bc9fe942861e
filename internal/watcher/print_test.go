package watcher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// printing returns the lines that come of what is printed.
func printing(t *testing.T, print func(p *printed)) []string {
	t.Helper()
	s := newShipper(&fakeStore{}, slog.New(slog.DiscardHandler))
	s.late.Store(true) // nobody writes them
	p := &printed{}
	p.open(s, new(newTask(1, "c")))
	print(p)
	p.close()
	var lines []string
	log := p.log.Load()
	if log == nil {
		return nil
	}
	for _, l := range append(log.head, log.tail...) {
		lines = append(lines, strings.TrimSpace(string(l.Stream)+" "+l.Text))
	}
	return lines
}

func TestPrinted_LineByLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	lines := printing(t, func(p *printed) {
		fmt.Fprint(&p.stdout, "one\ntw")
		fmt.Fprint(&p.stderr, "err")
		fmt.Fprint(&p.stdout, "o\r\n\nbad \xff\n", "nul \x00\n")
		fmt.Fprint(&p.stdout, long, "\n", long, "y")
		fmt.Fprint(&p.stdout, "zzz\n", "end")
	})
	require.Equal(t, []string{
		"stdout one", "stdout two", "stdout", "stdout bad \uFFFD", "stdout nul \uFFFD",
		"stdout " + long, "stdout " + long + " … (cut)", "stdout end", "stderr err",
	}, lines)
}

// A line without an end fills no memory.
func TestPrinted_EndlessLine(t *testing.T) {
	t.Parallel()
	lines := printing(t, func(p *printed) {
		endless := bytes.Repeat([]byte("x"), 1<<20)
		for range 64 {
			n, err := p.stderr.Write(endless)
			require.NoError(t, err)
			require.Equal(t, 1<<20, n)
		}
		require.LessOrEqual(t, cap(p.stderr.line), 2*maxLine)
	})
	require.Len(t, lines, 1)
}

// Where a line is cut nothing is left of half a character; what was no text before is marked.
func TestPrinted_CutBetweenCharacters(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"a" + strings.Repeat("é", maxLine):       "a" + strings.Repeat("é", maxLine/2-1) + " … (cut)",
		"ab" + strings.Repeat("🌷", maxLine):      "ab" + strings.Repeat("🌷", maxLine/4-1) + " … (cut)",
		strings.Repeat("é", maxLine):             strings.Repeat("é", maxLine/2) + " … (cut)",
		strings.Repeat("x", maxLine-1) + "\xff!": strings.Repeat("x", maxLine-1) + "\uFFFD … (cut)",
		strings.Repeat("x", maxLine-1) + "\xc3":  strings.Repeat("x", maxLine-1) + "\uFFFD",
	} {
		lines := printing(t, func(p *printed) { fmt.Fprint(&p.stdout, line, "\n") })
		require.Equal(t, []string{"stdout " + want}, lines)
	}
}

func TestPrinted_StreamsAtOnce(t *testing.T) {
	t.Parallel()
	var late *printed
	lines := printing(t, func(p *printed) {
		var all sync.WaitGroup
		for _, s := range []*stream{&p.stdout, &p.stderr, &p.spoken} {
			all.Go(func() {
				for range 100 {
					fmt.Fprintln(s, "line")
				}
			})
		}
		all.Wait()
		late = p
	})
	require.Len(t, lines, 300)
	n, err := fmt.Fprintln(&late.stdout, "after the end")
	require.NoError(t, err, "whoever still prints is not told")
	require.Equal(t, 14, n)
	require.Len(t, late.log.Load().head, 300)
}

// The first lines of several streams come at the same time, and are in one log.
func TestPrinted_FirstLinesAtOnce(t *testing.T) {
	t.Parallel()
	for range 200 {
		lines := printing(t, func(p *printed) {
			var printers sync.WaitGroup
			for _, to := range []*stream{&p.stdout, &p.stderr, &p.spoken} {
				printers.Go(func() { _, _ = fmt.Fprintln(to, "first") })
			}
			printers.Wait()
		})
		require.ElementsMatch(t, []string{"stdout first", "stderr first", "log first"}, lines)
	}
}

// What a program says goes to both logs: to the attempt's without what is the same in
// each of its lines.
func TestPrinted_WhatTheProgramSays(t *testing.T) {
	t.Parallel()
	var watchers bytes.Buffer
	lines := printing(t, func(p *printed) {
		task := flow.Task{TaskKey: flow.TaskKey{Flow: "f", Seq: 7}, WorkflowID: "w", Program: "P", Attempt: 2}
		p.task = &task
		log := p.logger(slog.New(slog.NewTextHandler(&watchers, &slog.HandlerOptions{Level: slog.LevelWarn})))
		log = log.With("component", "program", "flow", task.Flow, "seq", task.Seq, "task", task.WorkflowID, "program", task.Program, "attempt", 2)
		log.Info("hello", "who", "the world", "flow", "another one")
		log.With("a", 1).WithGroup("g").Warn("two\nlines", "seq", 7)
		log.Error("bad", "level", "high")
		log.Debug("nobody")
	})
	require.Equal(t, []string{
		`log hello who="the world" flow="another one"`, `log WRN two`, `log lines a=1 g.seq=7`, `log ERR bad level=high`,
	}, lines)
	require.Equal(t, 2, strings.Count(watchers.String(), "\n"), watchers.String())
	require.Contains(t, watchers.String(), "level=ERROR msg=bad component=program flow=f seq=7 task=w program=P attempt=2 level=high\n")
}

// At -log-level debug a program's debugging goes to both.
func TestPrinted_Debugging(t *testing.T) {
	t.Parallel()
	var watchers bytes.Buffer
	lines := printing(t, func(p *printed) {
		p.logger(slog.New(slog.NewTextHandler(&watchers, &slog.HandlerOptions{Level: slog.LevelDebug}))).Debug("detail")
	})
	require.Equal(t, []string{"log DBG detail"}, lines)
	require.Contains(t, watchers.String(), "msg=detail")
}

// A program that wants outputs while the database is away waits for them.
func TestAttempt_OutputsWaitForTheDatabase(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		asked := 0
		store := &fakeStore{outputs: func(of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error) {
			require.Equal(t, flow.TaskKey{Flow: "f", Seq: 3}, of)
			require.Equal(t, []int{1, 2}, seqs)
			if asked++; asked < 5 {
				return nil, errAway
			}
			return map[int]json.RawMessage{1: json.RawMessage(`7`)}, nil
		}}
		w, err := New(Config{Workers: 1, PollInterval: time.Second}, store, taking(0), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		got, err := w.outputs(t.Context(), flow.TaskKey{Flow: "f", Seq: 3}, []int{1, 2})
		require.NoError(t, err)
		require.Equal(t, map[int]json.RawMessage{1: json.RawMessage(`7`)}, got)

		asked = -1000
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(errTimeout) })
		_, err = w.outputs(ctx, flow.TaskKey{Flow: "f", Seq: 3}, []int{1, 2})
		require.Equal(t, errTimeout, err)
	})
}
