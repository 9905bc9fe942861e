package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/d-tsuji/flower/internal/flow"
)

// containers runs a container for each task, by the API of a container engine.
//
// A container outlives its watcher. So it is found again by whoever runs the task next,
// who goes on with it: see claim. It is removed when it is known how it ended and all that
// it printed was read, and left where that could not be known. What is left although
// nobody needs it goes in Housekeep.
type containers struct {
	cfg      ContainerConfig
	grace    time.Duration // from SIGTERM to SIGKILL
	patience time.Duration // with an engine that went away while a container runs
	drain    time.Duration // for the rest of the output, once a container has ended

	mu       sync.Mutex
	identity string          // of the database; empty until somebody asked; guarded by mu
	doomed   map[string]bool // names of containers that should be gone; guarded by mu
}

// The grace must fit into the one that a program has after its context has ended, with
// time to spare for the engine's answers.
const (
	stopGrace  = 3 * time.Second
	stopWithin = 4500 * time.Millisecond
)

func newContainers(cfg ContainerConfig) *containers {
	return &containers{
		cfg: cfg, grace: stopGrace, patience: 2 * time.Minute, drain: 10 * time.Second,
		doomed: make(map[string]bool),
	}
}

// OffWithout names the setting that lets containers run: who may use an engine owns its
// host, but for what ContainerConfig holds back.
func (c *containers) OffWithout() string {
	if c.cfg.Allow {
		return ""
	}
	return "-allow-container"
}

// Parameters are all fixed: what runs, and what it may touch, is the definition's to say.
func (c *containers) Parameters() []Parameter {
	least := 0.01
	return []Parameter{
		{
			Name: "image", Type: String, Required: true, Fixed: true,
			Description: "The image, as in alpine:3 or registry.example.com/team/app@sha256:….",
		},
		{Name: "command", Type: Strings, Fixed: true, Description: "What to run in it, word by word. No shell takes part. Without it, what the image says."},
		{Name: "entrypoint", Type: Strings, Fixed: true, Description: "What stands before command, in place of the image's own."},
		{Name: "env", Type: Map, Fixed: true, Description: "Variables. FLOWER_FLOW, FLOWER_SEQ, FLOWER_ATTEMPT and FLOWER_IDEMPOTENCY_KEY are there as well."},
		{
			Name: "mounts", Type: Strings, Fixed: true,
			Description: "Directories of the engine's host, as in /srv/in:/in, or /srv/out:/out:rw to write. The watcher has to allow them.",
		},
		{
			Name: "network", Type: String, Default: json.RawMessage(`"none"`), Fixed: true,
			Description: "A network to join, such as bridge. The watcher has to allow it.",
		},
		{Name: "memory", Type: String, Fixed: true, Description: "The most that it may use, as in 512m or 2g. The watcher has a limit of its own."},
		{Name: "cpus", Type: Number, Min: &least, Fixed: true, Description: "How many processors it may use, as in 0.5. The watcher may have a limit of its own."},
		{Name: "user", Type: String, Fixed: true, Description: "A user of the image, or numbers as in 1000:1000. Without it, what the image says."},
		{Name: "workdir", Type: String, Fixed: true, Description: "The directory to start in. Without it, what the image says."},
		{
			Name: "pull", Type: String, OneOf: []string{"missing", "always", "never"}, Default: json.RawMessage(`"missing"`), Fixed: true,
			Description: "When to get the image from where it is kept.",
		},
	}
}

// Check has the rules that do not depend on a watcher's settings.
func (c *containers) Check(v Values) error { return checkContainer(v) }

// Run runs the task's container, or goes on with the one of an attempt that was lost.
func (c *containers) Run(ctx context.Context, in Input) (json.RawMessage, error) {
	identity, err := c.database(ctx)
	if err != nil {
		return nil, because(ctx, err)
	}
	p, err := c.plan(in, identity)
	if err != nil {
		return nil, err
	}
	e, err := c.connect(ctx)
	if err != nil {
		return nil, because(ctx, err)
	}
	defer func() { _ = e.Close() }()
	r := &containerRun{c: c, engine: e, in: in, plan: p, id: p.create.Config.Labels[labelID]}
	r.stdout.tail.max, r.stdout.lastLine.max, r.stderr.tail.max = maxStdout, flow.MaxOutput, maxStderr
	r.name = containerName(r.id, in.Task.Attempt)
	if err = r.claim(ctx); err != nil {
		return nil, r.giveUp(ctx, err)
	}
	state, err := r.follow(ctx)
	if err != nil {
		return nil, r.giveUp(ctx, err)
	}
	r.remove(ctx)
	return r.result(state)
}

// because returns why ctx ended, if it did: what failed then, failed for that reason.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// database returns the identity of the database, however long that is away.
func (c *containers) database(ctx context.Context) (string, error) {
	c.mu.Lock()
	id := c.identity
	c.mu.Unlock()
	if id != "" {
		return id, nil
	}
	id, err := untilAvailable(ctx, func() (string, error) { return c.cfg.Ledger.Identity(ctx) })
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.identity = id
	return id, nil
}

// containerRun is one attempt at a task.
type containerRun struct {
	c      *containers
	engine *engine
	in     Input
	plan   plan
	id     string // of the task, in names and labels
	name   string // of this attempt's container
	stdout stream
	stderr stream
}

// giveUp says what becomes of the container when the attempt ends before it, or nobody
// knows whether it has ended.
func (r *containerRun) giveUp(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case r.goesOn(cause):
		r.in.Log.Info("the container is left for the next attempt", "container", r.name)
	default:
		r.remove(ctx)
	}
	return cause
}

// goesOn reports whether the next attempt is to find the container as it is: the task was
// not stopped, only its watcher. Where it must not run twice there is no next attempt.
func (r *containerRun) goesOn(cause error) bool {
	if r.in.Task.OnLost == flow.OnLostSuspend {
		return false
	}
	return errors.Is(cause, flow.ErrFenced) || errors.Is(cause, flow.ErrShutdown) && !r.c.cfg.Stop
}

// remove ends this attempt's container and takes it away. Once its context has ended, a
// program has little time left. The container goes by its name, which it has no more if a
// later attempt has taken it over: then it is left alone.
func (r *containerRun) remove(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	hurry := context.AfterFunc(ctx, func() { time.AfterFunc(stopWithin, cancel) })
	defer hurry()
	if err := r.c.remove(bounded, r.engine, r.name); err != nil {
		r.in.Log.Warn("container not removed: trying again later", "container", r.name, "err", err)
	}
}

// result is what a container that ended came to.
func (r *containerRun) result(state *container.State) (json.RawMessage, error) {
	if state.ExitCode == 0 && state.Error == "" {
		return commandOutput(r.stdout.tail.text(), &r.stdout.lastLine)
	}
	text := fmt.Sprintf("image %s ended with exit code %d", quote(r.plan.create.Config.Image), state.ExitCode)
	switch {
	case state.OOMKilled:
		text += ": it ran out of memory and was killed" + r.memoryHint()
	case state.Error != "":
		text += ": " + cut(readable(state.Error), maxAnswerInError)
	case state.ExitCode > 128 && state.ExitCode <= 128+64:
		text += fmt.Sprintf(" (signal %d: from itself, by somebody else, or the engine was stopped)", state.ExitCode-128)
	}
	said := r.stderr.tail.marked()
	if said == "" {
		said = r.stdout.tail.marked()
	}
	if end := cutFront(said, maxAnswerInError/2); end != "" {
		text += "; it said last: " + causeFirst(end)
	}
	return nil, errors.New(text)
}

func (r *containerRun) memoryHint() string {
	if limit := r.plan.create.HostConfig.Memory; limit > 0 {
		return fmt.Sprintf("; its limit is %d MiB, see the parameter memory", limit>>20)
	}
	return "; it had no limit, so its host has none left"
}
