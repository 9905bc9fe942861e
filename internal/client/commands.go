package client

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/d-tsuji/flower/internal/cli"
)

// Commands are what register does at a terminal.
func Commands() []cli.Command {
	return []cli.Command{
		{Name: "start", Summary: "register a flow, and wait for its end", Run: run(start)},
		{Name: "flows", Summary: "list flows", Run: run(flows)},
		{Name: "flow", Summary: "show a flow with its tasks", Run: run(showFlow)},
		{Name: "failures", Summary: "show what has failed, in groups", Run: run(failures)},
		{Name: "logs", Summary: "print what a task has printed", Run: run(logs)},
		{Name: "rerun", Summary: "run again what failed, or more of a flow", Run: run(rerun)},
		{Name: "cancel", Summary: "stop a flow or a task, and suspend what waits", Run: run(action("cancel", "ID [SEQ]"))},
		{Name: "hold", Summary: "suspend what waits, and let what runs end", Run: run(action("hold", "ID [SEQ]"))},
		{Name: "resume", Summary: "let go on what is held", Run: run(action("resume", "ID [SEQ]"))},
		{Name: "approve", Summary: "let a task go on that asks a person", Run: run(action("approve", "ID SEQ"))},
		{Name: "skip", Summary: "ignore a task: what depends on it can go", Run: run(action("skip", "ID SEQ"))},
		{Name: "finish", Summary: "say that a task was done by hand", Run: run(action("finish", "ID SEQ"))},
	}
}

// session is a command that runs.
type session struct {
	*client
	env  *cli.Env
	out  *output
	json bool
}

// output is where a command writes what was asked for. It keeps the first error: a script
// that gets half of a log, as the disk is full, must not take it for the whole.
type output struct {
	to  io.Writer
	err error
}

func (o *output) Write(p []byte) (n int, err error) {
	if o.err == nil {
		n, o.err = o.to.Write(p)
	}
	return n, o.err
}

// command is one that asks a register: what it is for, and what it does when its flags,
// which it adds, were read.
type command struct {
	summary  string
	examples []string
	codes    string // what its exit codes mean, if not the usual
	do       func(ctx context.Context, s *session) error
}

const usualCodes = "0 done, 1 refused, or not answered, 2 wrong usage"

func run(build func(f *cli.Flags) command) cli.Run {
	return func(ctx context.Context, env *cli.Env) error {
		c := build(cli.NewFlags(env.Name, "")) // to know what it is for
		f := cli.NewFlags(env.Name, c.summary, c.examples...)
		c = build(f)
		f.ExitCodes(usualCodes)
		if c.codes != "" {
			f.ExitCodes(c.codes)
		}
		var set settings
		set.add(f)
		if err := f.Parse(env); err != nil {
			return err
		}
		asked, err := set.client()
		if err != nil {
			return err
		}
		s := &session{client: asked, env: env, out: &output{to: env.Stdout}, json: set.json}
		if err := c.do(ctx, s); err != nil {
			return err
		}
		return s.out.err
	}
}

func flows(f *cli.Flags) command {
	q := newQuery(f, "Filters")
	q.add("status", "WORD,…", "running, failed, held, cancelled, queued, finished")
	q.add("task", "TASK", "of this workflow")
	q.add("since", "TIME", "registered since: 24h, 7d, or 2026-11-24T03:00:00Z")
	q.add("until", "TIME", "registered before")
	q.add("q", "TEXT", "the beginning of an id, or a part of the workflow's name, or of the name, program or error of what failed")
	q.add("program", "NAME", "with a task that has this program")
	q.add("reason", "WORD", "with a task that is suspended for: failed, timeout, lost, invalid, cancelled, held")
	q.add("by", "NAME", "registered by")
	q.add("limit", "N", "at most so many, else 50")
	q.add("cursor", "CURSOR", "where to go on: what stands at the end of a list that has more")
	return command{
		summary:  "lists flows, the newest first",
		examples: []string{"register flows -status failed -since 24h"},
		do: func(ctx context.Context, s *session) error {
			return s.show(ctx, s.out, s.json, q.values(), "flows")
		},
	}
}

func showFlow(f *cli.Flags) command {
	var args []string
	f.Args("ID", &args)
	return command{
		summary:  "shows a flow with its tasks; the first 6 characters of its id or more will do",
		examples: []string{"register flow 01a20f06"},
		do: func(ctx context.Context, s *session) error {
			return s.show(ctx, s.out, s.json, url.Values{"include": {"tasks"}}, "flows", args[0])
		},
	}
}

func failures(f *cli.Flags) command {
	q := newQuery(f, "Filters")
	q.add("task", "TASK", "of this workflow")
	q.add("program", "NAME", "of this program")
	q.add("reason", "WORD", "failed, timeout, lost or invalid")
	q.add("since", "TIME", "failed since: 24h, 7d, or 2026-11-24T03:00:00Z")
	return command{
		summary:  "shows what has failed: tasks that failed alike are one line",
		examples: []string{"register failures -since 24h"},
		do: func(ctx context.Context, s *session) error {
			return s.show(ctx, s.out, s.json, q.values(), "failures")
		},
	}
}

// query is flags that become parameters of a request.
type query struct {
	f     *cli.Flags
	given map[string]*string
}

func newQuery(f *cli.Flags, title string) query {
	f.Group(title)
	return query{f, map[string]*string{}}
}

// names are those of the API where a flag has a shorter one.
var names = map[string]string{"task": "taskId", "by": "registeredBy"}

func (q query) add(name, arg, usage string) {
	value := new(string)
	q.given[name] = value
	q.f.Var(cli.Text(value, ""), name+" "+arg, "", usage)
}

func (q query) values() url.Values {
	v := url.Values{}
	for name, value := range q.given {
		if *value == "" {
			continue
		}
		if long, ok := names[name]; ok {
			name = long
		}
		v.Set(name, *value)
	}
	return v
}

func say(w io.Writer, format string, args ...any) {
	fmt.Fprint(w, cli.Printable(fmt.Sprintf(format, args...)))
}
