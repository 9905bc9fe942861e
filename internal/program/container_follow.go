package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// follow waits for the end of the container, and passes on what it prints until then. The
// engine may go away and come back meanwhile.
//
// What is printed goes to files of the engine first: a container never waits for whoever
// reads them. A reader that is too slow misses what the engine has thrown away, since it
// keeps only so much.
func (r *containerRun) follow(ctx context.Context) (*container.State, error) {
	copying, stop := context.WithCancel(ctx)
	defer stop()
	live, unfollow := context.WithCancel(copying)
	exited := make(chan struct{})
	copied := make(chan error, 1)
	go func() { copied <- r.copyOutput(copying, live, exited) }()

	state, err := r.await(ctx)
	if err != nil {
		stop()
	}
	close(exited)
	// It should come to its end by itself. If not, the last look will do.
	timer := time.AfterFunc(r.c.drain, unfollow)
	defer timer.Stop()
	copyErr := <-copied
	switch {
	case err != nil:
		return nil, err
	case copyErr != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errdefs.IsNotFound(copyErr):
		return nil, errGone
	case copyErr != nil:
		return nil, fmt.Errorf("the container ended with exit code %d, but its output could not be read: %s; "+
			"the next attempt will look for it", state.ExitCode, r.engine.text(copyErr))
	}
	return state, nil
}

var errGone = errors.New("the container is gone: somebody removed it, or a later attempt has taken it over")

// await returns how the container ended. Each round asks how it stands; waiting only tells
// when to ask again.
func (r *containerRun) await(ctx context.Context) (*container.State, error) {
	for {
		var answer client.ContainerInspectResult
		err := r.engine.insist(ctx, r.c.patience, func(ctx context.Context) (err error) {
			answer, err = r.engine.ContainerInspect(ctx, r.name, client.ContainerInspectOptions{})
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errdefs.IsNotFound(err):
			return nil, errGone
		case err != nil:
			return nil, fmt.Errorf("%w; the container may still be running, and the next attempt will look for it",
				r.engine.problem("ask for the container's state", err))
		case answer.Container.State == nil:
			return nil, errors.New("the engine does not say how the container stands")
		case ended(answer.Container.State.Status):
			return answer.Container.State, nil
		}
		if !r.wait(ctx) {
			pause(ctx, 200*time.Millisecond)
		}
	}
}

func ended(s container.ContainerState) bool {
	return s == container.StateExited || s == container.StateDead || s == container.StateRemoving
}

// wait returns when the container has ended, or, with false, when the engine does not say.
func (r *containerRun) wait(ctx context.Context) bool {
	answer := r.engine.ContainerWait(ctx, r.name, client.ContainerWaitOptions{Condition: container.WaitConditionNotRunning})
	// One of the two comes, also when ctx ends. Nothing else may end this: whoever sends
	// would wait for ever.
	select {
	case <-answer.Result:
		return true
	case err := <-answer.Error:
		return err == nil
	}
}

// copyOutput passes on what the container prints, each line once: live as long as it
// runs, and after its end what is left. A stream that breaks off is taken up where it was.
func (r *containerRun) copyOutput(ctx, live context.Context, exited <-chan struct{}) error {
	var failing time.Time
	for {
		// Asked before the output is: then all of it is there.
		over := false
		select {
		case <-exited:
			over = true
		default:
		}
		var err error
		if over {
			err = r.engine.ask(ctx, answerWithin, func(ctx context.Context) error { return r.read(ctx, false) })
		} else {
			err = r.read(live, true)
		}
		switch {
		case over && err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case over && (answered(err) || time.Since(failing) > r.c.patience):
			return err
		}
		select {
		case <-exited:
			if err != nil {
				pause(ctx, 200*time.Millisecond)
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// read passes on the output from where the last read has come to.
func (r *containerRun) read(ctx context.Context, follow bool) error {
	options := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Timestamps: true, Follow: follow}
	if since := latest(r.stdout.last, r.stderr.last); !since.IsZero() {
		// The two streams overtake each other on their way.
		options.Since = since.Add(-time.Second).Format(time.RFC3339Nano)
	}
	r.stdout.resume(r.in.Stdout)
	r.stderr.resume(r.in.Stderr)
	logs, err := r.engine.ContainerLogs(ctx, r.name, options)
	if err != nil {
		return err
	}
	defer func() { _ = logs.Close() }()
	_, err = stdcopy.StdCopy(&r.stdout, &r.stderr, logs)
	return err
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stream is one of the two that a container prints to. The engine sends a line, or a part
// of a long one, at a time, each with the time when it came: so a stream can be taken up
// again where it broke off.
type stream struct {
	tail     tail
	lastLine lastLine
	to       io.Writer
	last     time.Time // the time of the last line
	n        int       // lines of that time

	seen  time.Time // what last was when it was taken up
	again int       // lines of that time that are still to come once more
}

func (s *stream) resume(to io.Writer) { s.to, s.seen, s.again = to, s.last, s.n }

// Write gets one line, since stdcopy.StdCopy writes frame by frame.
func (s *stream) Write(b []byte) (int, error) {
	stamp, line, _ := bytes.Cut(b, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	switch {
	case err != nil: // no engine does that; better a strange line than none
		line, at = b, s.last
	case at.Before(s.seen):
		return len(b), nil
	case at.Equal(s.seen) && s.again > 0:
		s.again--
		return len(b), nil
	}
	if at.Equal(s.last) {
		s.n++
	} else {
		s.last, s.n = at, 1
	}
	_, _ = s.tail.Write(line)
	_, _ = s.lastLine.Write(line)
	_, err = s.to.Write(line)
	return len(b), err
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
