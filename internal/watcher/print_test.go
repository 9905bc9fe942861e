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

// printing returns what is logged of what is printed.
func printing(t *testing.T, print func(p *printed)) []string {
	t.Helper()
	var text bytes.Buffer
	p := newPrinted(slog.New(slog.NewJSONHandler(&text, nil)), flow.Task{TaskKey: flow.TaskKey{Flow: "f", Seq: 1}, Program: "P"})
	print(p)
	p.close()
	var lines []string
	for line := range strings.Lines(text.String()) {
		var got struct{ Msg, Flow, Stream, Line string }
		require.NoError(t, json.Unmarshal([]byte(line), &got))
		require.Equal(t, "f", got.Flow)
		lines = append(lines, strings.TrimSpace(got.Stream+" "+got.Line))
		if got.Msg != "output" {
			lines[len(lines)-1] = got.Msg
		}
	}
	return lines
}

func TestPrinted_IsLoggedLineByLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	lines := printing(t, func(p *printed) {
		fmt.Fprint(&p.stdout, "one\ntw")
		fmt.Fprint(&p.stderr, "err")
		fmt.Fprint(&p.stdout, "o\r\n\nbad \xff\n")
		fmt.Fprint(&p.stdout, long, "\n", long, "y")
		fmt.Fprint(&p.stdout, "zzz\n", "end")
	})
	require.Equal(t, []string{
		"stdout one", "stdout two", "stdout", "stdout bad \uFFFD", "stdout " + long, "stdout " + long + " … (cut)", "stdout end", "stderr err",
	}, lines)
}

// A task that prints without end fills neither the log nor the memory.
func TestPrinted_IsBounded(t *testing.T) {
	t.Parallel()
	lines := printing(t, func(p *printed) {
		for range 100 {
			n, err := p.stdout.Write(bytes.Repeat([]byte("a line\n"), 100))
			require.NoError(t, err)
			require.Equal(t, 700, n)
		}
	})
	require.Len(t, lines, maxLines+1)
	require.Equal(t, "output cut: it has more lines than are logged", lines[maxLines])

	printing(t, func(p *printed) {
		endless := bytes.Repeat([]byte("x"), 1<<20)
		for range 64 {
			_, _ = p.stderr.Write(endless)
		}
		require.LessOrEqual(t, cap(p.stderr.line), 2*maxLine)
	})
}

func TestPrinted_TwoStreamsAtOnce(t *testing.T) {
	t.Parallel()
	lines := printing(t, func(p *printed) {
		var both sync.WaitGroup
		for _, s := range []*stream{&p.stdout, &p.stderr} {
			both.Go(func() {
				for range 100 {
					fmt.Fprintln(s, "line")
				}
			})
		}
		both.Wait()
		p.close()
		fmt.Fprintln(&p.stdout, "too late")
	})
	require.Len(t, lines, 200)
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
