package client

import (
	"context"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/d-tsuji/flower/internal/cli"
)

func logs(f *cli.Flags) command {
	var args []string
	var follow bool
	var attempt, tail int
	f.Args("ID SEQ", &args)
	f.Group("Log")
	f.Var(cli.Bool(&follow), "f", "", "go on with what it prints, until the task has ended")
	f.Var(cli.Int(&attempt, 0, 0, 1<<31-1), "attempt N", "", "of this attempt; 0 is the latest")
	f.Var(cli.Int(&tail, 0, 0, pageLines), "tail N", "", "the last lines alone; 0 is all")
	return command{
		summary:  "prints what a task of a flow has printed",
		examples: []string{"register logs 01a20f06 3", "register logs 01a20f06 3 -f"},
		do: func(ctx context.Context, s *session) error {
			if _, err := parseSeq(args[1]); err != nil {
				return err
			}
			l := taskLog{session: s, path: []string{"flows", args[0], "tasks", args[1]}, attempt: attempt, alone: attempt > 0}
			return l.print(ctx, tail, follow)
		},
	}
}

// taskLog is the log of a task, as far as it was printed.
type taskLog struct {
	*session
	path    []string // of the task
	alone   bool     // only the attempt that was asked for
	attempt int      // 0: none has begun yet
	last    int64    // line of that
}

// logPage is a part of the log of an attempt.
type logPage struct {
	Attempt       int
	Running, More bool
	LastLine      int64
	Items         []struct{ Text string }
}

// pageLines is how many lines the API gives at once.
const pageLines = 10_000

// print prints the log, and with follow what comes until the task has ended: all of each
// attempt from the first one on that it has met.
func (l *taskLog) print(ctx context.Context, tail int, follow bool) error {
	query := l.rest()
	if tail > 0 {
		query = url.Values{"tail": {strconv.Itoa(tail)}}
	}
	for ended := false; ; query = l.rest() {
		page, err := l.read(ctx, query)
		if err != nil {
			return err
		}
		for _, line := range page.Items {
			l.line(line.Text)
		}
		if l.out.err != nil {
			return l.out.err
		}
		l.attempt, l.last = page.Attempt, max(l.last, page.LastLine)
		switch {
		case page.More && query.Has("after"):
			continue
		case !follow || ended:
			return nil
		case !page.Running:
			var next bool
			if ended, next, err = l.after(ctx); err != nil {
				return err
			}
			if next {
				l.attempt, l.last = l.attempt+1, 0
			}
			if ended || next { // it may have printed more meanwhile
				continue
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookEvery):
		}
	}
}

// rest asks for what comes after the last line that was printed.
func (l *taskLog) rest() url.Values {
	return url.Values{"after": {strconv.FormatInt(l.last, 10)}, "tail": {strconv.Itoa(pageLines)}}
}

func (l *taskLog) read(ctx context.Context, query url.Values) (page logPage, err error) {
	query.Set("format", "json")
	if l.attempt > 0 {
		query.Set("attempt", strconv.Itoa(l.attempt))
	}
	err = l.again(ctx, waitRetryFor, func() error {
		page = logPage{}
		return l.get(ctx, &page, query, append(l.path, "log")...)
	})
	return page, err
}

// after says, of an attempt that does not run, whether nothing more can come, or another
// attempt has begun after it.
func (l *taskLog) after(ctx context.Context) (ended, next bool, err error) {
	var task struct {
		Status  string
		Attempt int
	}
	err = l.again(ctx, waitRetryFor, func() error { return l.get(ctx, &task, nil, l.path...) })
	switch {
	case err != nil:
		return false, false, err
	case l.attempt == 0 || l.attempt == task.Attempt:
		return task.Status != "waiting" && task.Status != "running", false, nil
	case l.alone:
		return true, false, nil
	}
	return false, true, nil
}

// line prints a line: as it is into a file, without what could command a terminal.
func (l *taskLog) line(text string) {
	if cli.IsTerminal(l.env.Stdout) {
		text = cli.Printable(text)
	}
	_, _ = io.WriteString(l.out, text+"\n")
}
