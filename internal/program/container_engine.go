package program

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/d-tsuji/flower/internal/flow"
)

// How long an engine may take for one answer.
const (
	connectWithin = 10 * time.Second
	answerWithin  = 30 * time.Second
	startWithin   = 2 * time.Minute
	pullWithin    = 30 * time.Minute
)

// engine is one connection to a container engine. Every attempt has its own, which agrees
// anew on a version of the API: an engine may be replaced by another one meanwhile.
type engine struct {
	*client.Client
	host string
}

// connect reaches the engine, or says what to do.
func (c *containers) connect(ctx context.Context) (*engine, error) {
	// Docker's own variables: DOCKER_CERT_PATH and the like.
	options := []client.Opt{client.FromEnv}
	if c.cfg.Host != "" {
		options = append(options, client.WithHost(c.cfg.Host))
	}
	api, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("the container engine's settings cannot be used: %w", err)
	}
	e := &engine{Client: api, host: api.DaemonHost()}
	err = e.ask(ctx, connectWithin, func(ctx context.Context) error {
		_, pingErr := e.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true})
		return pingErr
	})
	if err != nil {
		_ = e.Close()
		return nil, e.problem("ask the container engine at "+e.host+" for its version", err)
	}
	return e, nil
}

// ask makes one call that must not take longer than patience.
func (e *engine) ask(ctx context.Context, patience time.Duration, call func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no answer within %s", patience))
	defer cancel()
	err := call(bounded)
	if err != nil && bounded.Err() != nil {
		return context.Cause(bounded)
	}
	return err
}

// problem puts an error of the engine into words: what was tried, and what to do if no
// engine is there.
func (e *engine) problem(tried string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "permission denied while trying to connect"):
		return fmt.Errorf("the container engine at %s does not let this watcher in: permission denied; its user must be of the socket's group", e.host)
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("no container engine answers at %s: start it, or name another one with -container-host (DOCKER_HOST): %s",
			e.host, e.text(err))
	}
	return fmt.Errorf("%s: %s", tried, e.text(err))
}

// text is what the engine said, and no more of it than a person reads.
func (e *engine) text(err error) string {
	return cut(readable(strings.TrimPrefix(err.Error(), "Error response from daemon: ")), maxAnswerInError)
}

// refused is an answer that no retry will change.
func (e *engine) refused(name, problem string, err error) error {
	return invalid(name, problem+": "+e.text(err))
}

// answered reports whether an error is the engine's answer. Otherwise it may give another
// one in a moment: it is being restarted, or there is no way to it.
func answered(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err) || errdefs.IsConflict(err) ||
		errdefs.IsPermissionDenied(err) || errdefs.IsUnauthorized(err) || errdefs.IsNotImplemented(err)
}

// insist repeats a call while the engine does not answer, for as long as patience lasts.
func (e *engine) insist(ctx context.Context, patience time.Duration, call func(ctx context.Context) error) error {
	began := time.Now()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := e.ask(ctx, answerWithin, call)
		if err == nil || answered(err) || ctx.Err() != nil || time.Since(began) > patience {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// closeMounts makes read-only what is mounted within a read-only directory. Engines do so
// by themselves from version 1.44 of the API on; before, such mounts were writable, and
// are left out.
func (e *engine) closeMounts(mounts []mount.Mount) {
	if !versions.LessThan(e.ClientVersion(), "1.44") {
		return
	}
	for i := range mounts {
		if mounts[i].ReadOnly {
			mounts[i].BindOptions = &mount.BindOptions{NonRecursive: true}
		}
	}
}

// pull gets an image from where it is kept.
func (e *engine) pull(ctx context.Context, image string) error {
	err := e.ask(ctx, pullWithin, func(ctx context.Context) error {
		progress, err := e.ImagePull(ctx, image, client.ImagePullOptions{})
		if err != nil {
			return err
		}
		return progress.Wait(ctx)
	})
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errdefs.IsNotFound(err), errdefs.IsPermissionDenied(err), errdefs.IsUnauthorized(err), errdefs.IsInvalidArgument(err):
		return e.refused("image", quote(image)+" cannot be pulled; if it is there and private, pull it at the engine's host, signed in, and set pull to never", err)
	}
	return e.problem("pull image "+quote(image), err)
}

// createProblem puts into words why there is no container.
func (e *engine) createProblem(p plan, err error) error {
	if errdefs.IsInvalidArgument(err) {
		return &flow.InvalidError{Subject: "container of image " + quote(p.create.Config.Image), Problem: "the engine refuses it: " + e.text(err)}
	}
	return e.problem("create a container of image "+quote(p.create.Config.Image), err)
}

// startProblem puts into words why a container did not start. The engine has no code for
// some mistakes, only a text.
func (e *engine) startProblem(p plan, err error) error {
	text := e.text(err)
	switch {
	case errdefs.IsNotFound(err) && strings.Contains(text, "network"):
		return e.refused("network", quote(string(p.create.HostConfig.NetworkMode))+" does not exist at the engine", err)
	case strings.Contains(text, "unable to find user"), strings.Contains(text, "unable to find group"):
		return e.refused("user", "the image has no such user", err)
	case errdefs.IsInvalidArgument(err):
		return e.refused("command", "it cannot be started in image "+quote(p.create.Config.Image), err)
	}
	return e.problem("start a container of image "+quote(p.create.Config.Image), err)
}
