package program

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/d-tsuji/flower/internal/flow"
)

const (
	tidyEvery = time.Minute
	// An attempt at this engine has found the container of an earlier one long before.
	elsewhereAfter = time.Minute
)

// remove ends a container and takes it away, with its volumes. One that could not be is
// remembered: no attempt goes on with it, and Housekeep tries again.
func (c *containers) remove(ctx context.Context, e *engine, name string) error {
	seconds := int(c.grace.Seconds())
	// What it answers does not matter: what has not ended is killed by the next call.
	_, _ = e.ContainerStop(ctx, name, client.ContainerStopOptions{Timeout: &seconds})
	_, err := e.ContainerRemove(ctx, name, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	gone := err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) // somebody else is removing it
	c.mu.Lock()
	defer c.mu.Unlock()
	if gone {
		delete(c.doomed, name)
		return nil
	}
	c.doomed[name] = true
	return err
}

func (c *containers) isDoomed(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.doomed[name]
}

// Housekeep removes, at the start and now and then, the containers of this database's
// tasks that nobody needs any more: their watcher vanished, or could not remove them.
func (c *containers) Housekeep(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		if err := c.tidy(ctx, log); err != nil && ctx.Err() == nil {
			log.Warn("cannot look after the containers: trying again", "err", err)
		}
		pause(ctx, tidyEvery-tidyEvery/5+rand.N(2*tidyEvery/5))
	}
}

func (c *containers) tidy(ctx context.Context, log *slog.Logger) error {
	identity, err := c.database(ctx)
	if err != nil {
		return err
	}
	e, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = e.Close() }()
	// The containers first: whatever becomes of a task later is known when it is asked for.
	all, err := e.list(ctx, labelDatabase, identity)
	if err != nil || len(all) == 0 {
		return err
	}
	c.forget(all)
	stands, err := c.standings(ctx, all)
	if err != nil {
		return err
	}
	for _, f := range all {
		why := stray(f, stands[f.task])
		if why == "" && c.isDoomed(f.name) {
			why = "it could not be removed before"
		}
		if why == "" {
			continue
		}
		log.Info("removing a container that nobody needs", "container", f.name, "flow", f.task.Flow, "seq", f.task.Seq, "why", why)
		if removeErr := e.ask(ctx, answerWithin, func(ctx context.Context) error { return c.remove(ctx, e, f.name) }); removeErr != nil {
			err = e.problem("remove container "+f.name, removeErr)
		}
	}
	return err
}

// forget takes containers off the doomed that are not there any more.
func (c *containers) forget(all []found) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.doomed, func(name string, _ bool) bool {
		return !slices.ContainsFunc(all, func(f found) bool { return f.name == name })
	})
}

func (c *containers) standings(ctx context.Context, all []found) (map[flow.TaskKey]*flow.Standing, error) {
	keys := make([]flow.TaskKey, len(all))
	for i, f := range all {
		keys[i] = f.task
	}
	list, err := c.cfg.Ledger.Standings(ctx, keys)
	if err != nil {
		return nil, err
	}
	stands := make(map[flow.TaskKey]*flow.Standing, len(list))
	for i := range list {
		stands[list[i].TaskKey] = &list[i]
	}
	return stands, nil
}

// stray says why nobody needs a container any more; "" is that somebody may. A task that
// waits may go on with it, and one that is held, since a hold lets end what runs, and whoever
// resumes the task has its next attempt go on. So may one that has just begun, or it runs at
// another engine.
func stray(f found, s *flow.Standing) string {
	switch {
	case s == nil:
		return "its task is not there any more"
	case s.Status != flow.Waiting && s.Status != flow.Running && !s.Held:
		return "its task is " + s.Status.String()
	case f.key != s.IdempotencyKey():
		return "its task was reset"
	case f.attempt > s.Attempt:
		return "its task was inserted anew"
	case s.Status == flow.Running && f.attempt < s.Attempt && s.Running > elsewhereAfter:
		return "its task runs at another engine"
	}
	return ""
}
