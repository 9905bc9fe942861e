package client

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/cli"
)

// lookEvery is how often something is looked at that goes on.
const lookEvery = 500 * time.Millisecond

// longLook: the answer comes after that time, or when the flow has ended.
const longLook = "1s"

// follow waits until a flow has ended. On a terminal it shows what runs, in one line;
// elsewhere each step is a line of its own.
func (s *session) follow(ctx context.Context, id string) (progress, error) {
	began := time.Now()
	line := &liveLine{session: s, live: cli.IsTerminal(s.env.Stderr)}
	defer line.clear()
	query := url.Values{"include": {"tasks"}}
	for {
		var p progress
		looked := time.Now()
		err := s.again(ctx, waitRetryFor, func() error {
			return s.get(ctx, &p, query, "flows", id)
		})
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		if err != nil {
			return p, err
		}
		line.show(p, time.Since(began))
		if p.ended() {
			return p, nil
		}
		query.Set("wait", longLook)
		select {
		case <-ctx.Done():
			return p, context.Cause(ctx)
		case <-time.After(lookEvery - time.Since(looked)): // where a proxy does not wait
		}
	}
}

// liveLine shows how a flow goes.
type liveLine struct {
	*session
	live bool
	last string
}

func (l *liveLine) show(p progress, since time.Duration) {
	text := p.summary()
	switch {
	case l.live:
		const width = 79
		line := []rune(cli.Printable(fmt.Sprintf("%s  %s", text, since.Round(time.Second))))
		_, _ = fmt.Fprintf(l.env.Stderr, "\r\x1b[K%s", string(line[:min(len(line), width)]))
	case text != l.last:
		say(l.env.Stderr, "%s\n", text)
	}
	l.last = text
}

func (l *liveLine) clear() {
	if l.live && l.last != "" {
		_, _ = fmt.Fprint(l.env.Stderr, "\r\x1b[K")
	}
}

// summary says how far a flow is, and what of it runs.
func (p progress) summary() string {
	done := p.Counts.Finished + p.Counts.Ignored
	all := done + p.Counts.Waiting + p.Counts.Running + p.Counts.Suspended
	text := fmt.Sprintf("%s  %s  %d of %d finished", p.TaskID, p.Status, done, all)
	var running []string
	for _, t := range p.Tasks {
		if t.Status == "running" {
			running = append(running, fmt.Sprintf("%d %s", t.TaskExecSeq, t.Title))
		}
	}
	const most = 5
	if len(running) > most {
		running = append(running[:most], fmt.Sprintf("%d more", p.Counts.Running-most))
	}
	if len(running) > 0 {
		text += "  running: " + strings.Join(running, ", ")
	}
	if p.Asks > 0 {
		text += "  asks a person"
	}
	return text
}
