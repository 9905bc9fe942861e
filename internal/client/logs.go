package client

import (
	"cmp"
	"context"
	"fmt"
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

	// Of what prints very much the newest lines alone are written while it runs. These are the
	// first and the last line that were left out so far; 0: none.
	missed, missedTo int64
}

// logPage is a part of the log of an attempt.
type logPage struct {
	Attempt       int
	Running, More bool
	Items         []struct {
		LineNo int64
		Text   string
	}
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
	for ended, next := false, false; ; query = l.rest() {
		page, err := l.read(ctx, query)
		if err != nil {
			return err
		}
		if l.show(page); l.out.err != nil {
			return l.out.err
		}
		switch {
		case page.More && query.Has("after"):
			continue
		case !follow:
			return nil
		case ended || next: // all of this attempt is there
			var more bool
			more, err = l.rewind(ctx)
			switch {
			case err != nil || ended && !more:
				return err
			case !more:
				l.attempt, l.last, next = l.attempt+1, 0, false
			}
			continue
		case !page.Running:
			if ended, next, err = l.after(ctx); err != nil {
				return err
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

// show prints the lines of a page.
func (l *taskLog) show(page logPage) {
	l.attempt = page.Attempt
	for _, line := range page.Items {
		if page.Running && l.last > 0 && line.LineNo > l.last+1 {
			l.missed, l.missedTo = cmp.Or(l.missed, l.last+1), line.LineNo-1
		}
		l.last = max(l.last, line.LineNo)
		l.line(line.Text)
	}
}

// rewind goes back to the first line that was left out while the attempt ran, if what was left
// out last is there by now: then all is that is kept between the two.
func (l *taskLog) rewind(ctx context.Context) (more bool, err error) {
	from, to := l.missed, l.missedTo
	if l.missed = 0; from == 0 {
		return false, nil
	}
	page, err := l.read(ctx, url.Values{"after": {strconv.FormatInt(to-1, 10)}, "tail": {"1"}})
	if err != nil || len(page.Items) == 0 || page.Items[0].LineNo != to {
		return false, err
	}
	l.line(fmt.Sprintf("… once more from line %d on, with what was not written while it ran:", from))
	l.last = from - 1
	return true, nil
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
