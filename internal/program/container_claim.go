package program

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/d-tsuji/flower/internal/flow"
)

// The labels of a container: "docker ps --filter label=flower.flow=…" finds it.
const (
	labelDatabase = "flower.database" // whose task it is: other databases have other tasks
	labelID       = "flower.id"       // of the task, among all databases
	labelFlow     = "flower.flow"
	labelSeq      = "flower.seq"
	labelTask     = "flower.task"
	labelKey      = "flower.key"        // the idempotency key
	labelAttempt  = "flower.attempt"    // that made it
	labelDigest   = "flower.parameters" // that it was made of
)

const namePrefix = "flower-"

func labels(t flow.Task, identity, digest string) map[string]string {
	return map[string]string{
		labelDatabase: identity,
		labelID:       hash(identity, string(t.Flow), strconv.Itoa(t.Seq)),
		labelFlow:     string(t.Flow),
		labelSeq:      strconv.Itoa(t.Seq),
		labelTask:     string(t.WorkflowID),
		labelKey:      t.IdempotencyKey(),
		labelAttempt:  strconv.Itoa(t.Attempt),
		labelDigest:   digest,
	}
}

// A container's name ends in the attempt that it belongs to. The engine changes names
// atomically, and a call by a name that is no more changes nothing: the name is the fence
// that claim_id is in the database.
func containerName(id string, attempt int) string {
	return namePrefix + id + "-" + strconv.Itoa(attempt)
}

// found is a container of some task's.
type found struct {
	name    string
	attempt int
	task    flow.TaskKey
	key     string
	digest  string
	state   container.ContainerState
}

// list returns the containers that have a label.
func (e *engine) list(ctx context.Context, label, value string) ([]found, error) {
	var answer client.ContainerListResult
	err := e.ask(ctx, answerWithin, func(ctx context.Context) (err error) {
		answer, err = e.ContainerList(ctx, client.ContainerListOptions{
			All: true, Filters: client.Filters{}.Add("label", label+"="+value),
		})
		return err
	})
	if err != nil {
		return nil, e.problem("list containers", err)
	}
	var all []found
	for _, s := range answer.Items {
		if f, ok := recognise(s); ok {
			all = append(all, f)
		}
	}
	return all, nil
}

// recognise reads what a container is from its name and labels. A container whose name
// somebody has changed is nobody's.
func recognise(s container.Summary) (found, bool) {
	f := found{key: s.Labels[labelKey], digest: s.Labels[labelDigest], state: s.State}
	seq, err := strconv.Atoi(s.Labels[labelSeq])
	if err != nil {
		return found{}, false
	}
	f.task = flow.TaskKey{Flow: flow.ID(s.Labels[labelFlow]), Seq: seq}
	for _, name := range s.Names {
		name = strings.TrimPrefix(name, "/")
		attempt, ours := strings.CutPrefix(name, namePrefix+s.Labels[labelID]+"-")
		if f.attempt, err = strconv.Atoi(attempt); ours && err == nil {
			f.name = name
			return f, true
		}
	}
	return found{}, false
}

// claim makes sure that this attempt has a container, and that no other one works for the
// task at this engine.
//
// An earlier attempt's container is left where a watcher vanished, or nobody could learn
// how it ended: then this attempt goes on with it, under a name of its own. One that was
// made for an earlier key (a person has reset the task) or of other parameters is ended.
//
// Two attempts may be at it at once, since the watcher of a lost one may be alive. Each
// creates, then looks again, and starts only what nobody else stands beside: whoever looks
// last sees both, and the earlier attempt gives way. Each round begins with what there is,
// so that whatever came between two calls is met by the next round.
func (r *containerRun) claim(ctx context.Context) error {
	const rounds = 20 // far more than two attempts can take from each other
	for n := range rounds {
		pause(ctx, time.Duration(n/3)*50*time.Millisecond)
		all, err := r.engine.list(ctx, labelID, r.id)
		if err != nil {
			return err
		}
		done, err := r.round(ctx, all)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("somebody keeps changing the containers of this task: see those with the label %s=%s", labelID, r.id)
}

// round does what is next. It is done when this attempt's container runs, or has ended.
func (r *containerRun) round(ctx context.Context, all []found) (done bool, err error) {
	mine := slices.IndexFunc(all, func(f found) bool { return f.name == r.name })
	others := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return f.name == r.name })
	slices.SortFunc(others, func(a, b found) int { return b.attempt - a.attempt }) // the latest first
	if len(others) > 0 {
		if others[0].attempt > r.in.Task.Attempt {
			return false, r.superseded(ctx, others[0])
		}
		if r.usable(others[0]) {
			return false, r.takeOver(ctx, others[0], mine >= 0)
		}
		r.in.Log.Info("ending the container of an earlier attempt", "container", others[0].name)
		if err = r.c.remove(ctx, r.engine, others[0].name); err != nil {
			return false, r.engine.problem("remove container "+others[0].name+" of an earlier attempt", err)
		}
		return false, nil
	}
	if mine < 0 {
		return false, r.create(ctx)
	}
	if all[mine].state == container.StateCreated {
		return r.start(ctx)
	}
	return true, nil
}

// usable reports whether this attempt may go on with another one's container. One that was
// never started is not worth it.
func (r *containerRun) usable(f found) bool {
	was := f.state == container.StateRunning || f.state == container.StatePaused || f.state == container.StateExited
	return was && f.key == r.in.Task.IdempotencyKey() && f.digest == r.plan.digest && !r.c.isDoomed(f.name)
}

// superseded is what an attempt meets that has been lost to a later one. If it was not,
// the other container is of an earlier life of the row, which was deleted and inserted
// again: its attempts are counted from 1 once more.
func (r *containerRun) superseded(ctx context.Context, f found) error {
	if current, known := r.current(ctx); current && known {
		return r.c.remove(ctx, r.engine, f.name)
	}
	r.remove(ctx)
	return fmt.Errorf("attempt %d of this task has taken over", f.attempt)
}

// current reports whether the task is still this attempt's, if the database says so.
func (r *containerRun) current(ctx context.Context) (current, known bool) {
	bounded, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	stands, err := r.c.cfg.Ledger.Standings(bounded, []flow.TaskKey{r.in.Task.TaskKey})
	return len(stands) == 1 && stands[0].Status == flow.Running && stands[0].Attempt == r.in.Task.Attempt, err == nil
}

// takeOver makes another attempt's container this one's. Whatever that attempt still does
// to it by its name comes to nothing.
func (r *containerRun) takeOver(ctx context.Context, f found, created bool) error {
	if created { // beside it, just now: it was never started
		if err := r.c.remove(ctx, r.engine, r.name); err != nil {
			return r.engine.problem("remove container "+r.name, err)
		}
	}
	err := r.engine.ask(ctx, answerWithin, func(ctx context.Context) error {
		_, err := r.engine.ContainerRename(ctx, f.name, client.ContainerRenameOptions{NewName: r.name})
		return err
	})
	switch {
	case err == nil:
		r.in.Log.Info("going on with the container of an earlier attempt", "container", r.name, "of_attempt", f.attempt, "state", f.state)
		return nil
	case errdefs.IsNotFound(err), errdefs.IsConflict(err): // something came between
		return nil
	}
	return r.engine.problem("rename container "+f.name, err)
}

// create makes the container, and gets its image if that must be.
func (r *containerRun) create(ctx context.Context) error {
	image := r.plan.create.Config.Image
	if r.plan.pull == "always" {
		if err := r.pull(ctx, image); err != nil {
			return err
		}
	}
	err := r.tryCreate(ctx)
	if errdefs.IsNotFound(err) {
		switch r.plan.pull {
		case "missing":
			if pullErr := r.pull(ctx, image); pullErr != nil {
				return pullErr
			}
			err = r.tryCreate(ctx)
		case "never":
			return r.engine.refused("image", quote(image)+" is not at the engine, and pull is never", err)
		}
	}
	if err == nil || errdefs.IsConflict(err) { // an earlier call made it, though its answer was lost
		return nil
	}
	return r.engine.createProblem(r.plan, err)
}

func (r *containerRun) pull(ctx context.Context, image string) error {
	r.in.Log.Info("pulling an image", "image", image)
	return r.engine.pull(ctx, image)
}

func (r *containerRun) tryCreate(ctx context.Context) error {
	options := r.plan.create
	options.Name = r.name
	r.engine.closeMounts(options.HostConfig.Mounts)
	return r.engine.ask(ctx, answerWithin, func(ctx context.Context) error {
		result, err := r.engine.ContainerCreate(ctx, options)
		for _, warning := range result.Warnings {
			r.in.Log.Warn("the engine warns", "warning", readable(warning))
		}
		return err
	})
}

// start lets the container run. If it cannot, nothing of it is left. That the attempt was
// lost may be known to the database alone: its watcher was frozen, or pulled the image for
// long, and whoever took over has ended before this looked. A database that is away stops
// nobody.
func (r *containerRun) start(ctx context.Context) (done bool, err error) {
	if current, known := r.current(ctx); known && !current {
		r.remove(ctx)
		return false, errors.New("the task is not this attempt's any more")
	}
	err = r.engine.ask(ctx, startWithin, func(ctx context.Context) error {
		_, startErr := r.engine.ContainerStart(ctx, r.name, client.ContainerStartOptions{})
		return startErr
	})
	if err == nil {
		r.in.Log.Info("container started", "container", r.name, "image", r.plan.create.Config.Image)
		return true, nil
	}
	if errdefs.IsNotFound(err) && strings.Contains(err.Error(), "No such container") {
		return false, nil // a later attempt has taken it over, as the next look will show
	}
	problem := r.engine.startProblem(r.plan, err)
	if answered(err) || errors.As(problem, new(*flow.InvalidError)) {
		r.remove(ctx)
	}
	return false, problem
}
