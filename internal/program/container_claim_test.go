package program

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// inSteps is an image that prints a line for each step that the test allows, and ends well
// after n of them.
func inSteps(n int, steps <-chan struct{}) work {
	return func(c *fakeContainer) int {
		for i := range n {
			c.print("step " + string(rune('1'+i)) + "\n")
			if !c.wait(steps) {
				return 143
			}
		}
		c.print(`{"attempt": "` + c.env("FLOWER_ATTEMPT") + `"}` + "\n")
		return 0
	}
}

// A container outlives its watcher. Whoever rescues the task goes on with it, with all
// that it has printed, and its result counts; the container is not started twice.
func TestContainer_IsFoundAgain(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(first *running){
		"its watcher was killed":        func(*running) {}, // nobody told the first attempt
		"its watcher was declared dead": func(first *running) { first.cancel(flow.ErrFenced); _, _ = first.end() },
		"its watcher shut down":         func(first *running) { first.cancel(flow.ErrShutdown); _, _ = first.end() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := make(chan struct{})
			e := newEngine(t, inSteps(2, steps))
			first := begin(t, newContainersAt(e), attempt(1))
			eventually(t, "it prints", func() bool { return first.stdout.String() == "step 1\n" })
			lose(first)

			second := begin(t, newContainersAt(e), attempt(2)) // of another process
			eventually(t, "its output is there from the beginning", func() bool { return second.stdout.String() == "step 1\n" })
			require.Equal(t, []string{containerName(hash("7-16384", "f1", "2"), 2)}, e.names(), "it has a name of the second attempt's")
			steps <- struct{}{}
			steps <- struct{}{}
			output, err := second.end()
			require.NoError(t, err)
			require.JSONEq(t, `{"exit_code": 0, "json": {"attempt": "1"}, "stdout": "step 1\nstep 2\n{\"attempt\": \"1\"}"}`, output)
			require.Len(t, e.started(), 1)
			require.Empty(t, e.names())

			_, err = first.end()
			require.Error(t, err, "what was taken over has no result")
		})
	}
}

// It may have ended while nobody looked.
func TestContainer_IsFoundEnded(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]string{0: "", 3: `image "app:1" ended with exit code 3; it said last: done`} {
		e := newEngine(t, func(c *fakeContainer) int {
			c.print("done\n")
			return code
		})
		task := attempt(4)
		e.put(containerName(hash("7-16384", "f1", "2"), 4), labels(task, "7-16384", digest(Values{"image": "app:1", "network": "none", "pull": "missing"})), e.images["app:1"])
		r := begin(t, newContainersAt(e), attempt(5))
		_, err := r.end()
		if want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
		require.Equal(t, "done\n", r.stdout.String())
		require.Len(t, e.started(), 1)
		require.Empty(t, e.names())
	}
}

// A failure that was reported is over: the next attempt starts anew.
func TestContainer_ARetryStartsAnew(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(c *fakeContainer) int {
		if c.env("FLOWER_ATTEMPT") == "1" {
			return 1
		}
		c.print(c.env("FLOWER_ATTEMPT") + "\n")
		return 0
	})
	c := newContainersAt(e)
	_, err := begin(t, c, attempt(1)).end()
	require.Error(t, err)
	output, err := begin(t, c, attempt(2)).end()
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": 0, "json": 2, "stdout": "2"}`, output)
	require.Len(t, e.started(), 2)
}

// What somebody changed is not what the container was made for: it ends before another one
// starts.
func TestContainer_AnotherOneIsEndedFirst(t *testing.T) {
	t.Parallel()
	reset := attempt(2)
	reset.AttemptBase = 1
	for name, task := range map[string]flow.Task{
		"a person has reset the task":    reset,
		"a person has edited parameters": withParameters(attempt(2), `{"image": "app:1", "command": ["x"]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, func(c *fakeContainer) int {
				if c.env("FLOWER_ATTEMPT") == "1" {
					return forever(c)
				}
				return 0
			})
			begin(t, newContainersAt(e), attempt(1))
			startedContainer(t, e)
			_, err := begin(t, newContainersAt(e), task).end()
			require.NoError(t, err)
			require.Len(t, e.started(), 2)
			require.Equal(t, 1, e.together, "never both")
			require.Empty(t, e.names())
		})
	}
}

// An attempt whose watcher does not know yet that it was lost does no harm to the one that
// has taken over, whatever it does next.
func TestContainer_TheLostAttemptIsFenced(t *testing.T) {
	t.Parallel()
	steps := make(chan struct{})
	e := newEngine(t, inSteps(1, steps))
	first := begin(t, newContainersAt(e), attempt(1))
	startedContainer(t, e)
	second := begin(t, newContainersAt(e), attempt(2))
	eventually(t, "the second has it", func() bool { return strings.Contains(second.log.String(), "going on with") })

	first.cancel(errors.New("revoked")) // it stops what it knows by name, and there is no such name
	_, err := first.end()
	require.EqualError(t, err, "revoked")
	third := begin(t, newContainersAt(e), attempt(1)) // it begins only now: it was claimed, and its watcher froze
	_, err = third.end()
	require.EqualError(t, err, "attempt 2 of this task has taken over")

	steps <- struct{}{}
	_, err = second.end()
	require.NoError(t, err)
	require.Len(t, e.started(), 1)
}

// However two attempts meet, no two containers of a task ever run at once, and one attempt
// has the result.
func TestContainer_AttemptsThatMeet(t *testing.T) {
	t.Parallel()
	for range 25 {
		e := newEngine(t, func(c *fakeContainer) int {
			over := make(chan struct{})
			time.AfterFunc(rand.N(10*time.Millisecond), func() { close(over) })
			c.wait(over)
			return 0
		})
		first, second := begin(t, newContainersAt(e), attempt(1)), begin(t, newContainersAt(e), attempt(2))
		_, _ = first.end() // it may have ended before the second began
		_, err := second.end()
		require.NoError(t, err, "the later attempt is the task's")
		require.Equal(t, 1, e.together)
		require.Empty(t, e.names())
		e.down()
	}
}

// Whoever has taken over may have ended already, and left nothing: then the database tells.
func TestContainer_ALostAttemptStartsNothing(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	key := attempt(1).TaskKey
	for _, stands := range []map[flow.TaskKey]flow.Standing{
		{key: {TaskKey: key, Status: flow.Running, Attempt: 2}},
		{key: {TaskKey: key, Status: flow.Waiting, Attempt: 1}},
		{key: {TaskKey: key, Status: flow.Finished, Attempt: 1}},
		{},
	} {
		c := newContainersAt(e, func(cfg *ContainerConfig) { cfg.Ledger = &ledger{stands: stands} })
		_, err := begin(t, c, attempt(1)).end()
		require.EqualError(t, err, "the task is not this attempt's any more")
	}
	require.Empty(t, e.started())
	require.Empty(t, e.names())
}

// The row was deleted and inserted again: its attempts are counted from 1.
func TestContainer_OfAnEarlierLifeOfTheRow(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	old := attempt(7)
	e.put(containerName(hash("7-16384", "f1", "2"), 7), labels(old, "7-16384", "x"), forever)
	c := newContainersAt(e, func(cfg *ContainerConfig) {
		cfg.Ledger = &ledger{stands: map[flow.TaskKey]flow.Standing{old.TaskKey: {TaskKey: old.TaskKey, Status: flow.Running, Attempt: 1}}}
	})
	_, err := begin(t, c, attempt(1)).end()
	require.NoError(t, err)
	require.Equal(t, 1, e.together)
	require.Empty(t, e.names())
}

// Other databases, and other tasks, have containers of their own.
func TestContainer_OfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	other := attempt(1)
	other.Seq = 3
	e.put(containerName(hash("7-16384", "f1", "3"), 1), labels(other, "7-16384", "x"), forever)
	e.put(containerName(hash("8-16384", "f1", "2"), 1), labels(attempt(1), "8-16384", "x"), forever)
	e.put("flower-of-a-person", map[string]string{"flower.id": hash("7-16384", "f1", "2")}, forever)
	_, err := begin(t, newContainersAt(e), attempt(2)).end()
	require.NoError(t, err)
	require.Len(t, e.names(), 3)
}

// What a cancelled attempt leaves: nothing, unless the task goes on elsewhere.
func TestContainer_Cancelled(t *testing.T) {
	t.Parallel()
	person := errors.New("somebody cancelled it")
	stop := func(cfg *ContainerConfig) { cfg.Stop = true }
	for name, c := range map[string]struct {
		cause    error
		image    work
		onLost   flow.OnLost
		settings func(*ContainerConfig)
		left     int
	}{
		"by a person":                        {person, forever, flow.OnLostRerun, nil, 0},
		"and it does not listen":             {person, func(c *fakeContainer) int { <-c.killed; return 137 }, flow.OnLostRerun, nil, 0},
		"at shutdown":                        {flow.ErrShutdown, forever, flow.OnLostRerun, nil, 1},
		"at shutdown, and it must stop":      {flow.ErrShutdown, forever, flow.OnLostRerun, stop, 0},
		"at shutdown, and it runs once only": {flow.ErrShutdown, forever, flow.OnLostSuspend, nil, 0},
		"fenced":                             {flow.ErrFenced, forever, flow.OnLostRerun, nil, 1},
		"fenced, and it must stop":           {flow.ErrFenced, forever, flow.OnLostRerun, stop, 1}, // its new owner may have it already
		"fenced, and it runs once only":      {flow.ErrFenced, forever, flow.OnLostSuspend, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, c.image)
			cs := newContainersAt(e)
			if c.settings != nil {
				cs = newContainersAt(e, c.settings)
			}
			task := attempt(1)
			task.OnLost = c.onLost
			r := begin(t, cs, task)
			startedContainer(t, e)
			began := time.Now()
			r.cancel(c.cause)
			_, err := r.end()
			require.ErrorIs(t, err, c.cause)
			require.Less(t, time.Since(began), 5*time.Second, "the time that a watcher gives a program")
			require.Len(t, e.names(), c.left)
		})
	}
}

// SIGTERM comes first, and there is time to heed it.
func TestContainer_EndsInItsOwnTime(t *testing.T) {
	t.Parallel()
	var tidied atomic.Bool
	e := newEngine(t, func(c *fakeContainer) int {
		<-c.term
		time.Sleep(100 * time.Millisecond)
		tidied.Store(true)
		return 0
	})
	r := begin(t, newContainersAt(e), attempt(1))
	startedContainer(t, e)
	r.cancel(errors.New("stop"))
	_, err := r.end()
	require.Error(t, err)
	require.True(t, tidied.Load())
}

// While an image is pulled, an attempt can be cancelled, too.
func TestContainer_CancelledWhilePulling(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	pulling := make(chan struct{})
	e.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/images/create") {
			return false
		}
		close(pulling)
		<-r.Context().Done()
		return true
	})
	r := begin(t, newContainersAt(e), withParameters(attempt(1), `{"image": "new:1"}`))
	<-pulling
	cause := errors.New("stop")
	r.cancel(cause)
	_, err := r.end()
	require.ErrorIs(t, err, cause)
}

// A container that cannot be removed is not gone on with, and goes later.
func TestContainer_CannotBeRemoved(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(c *fakeContainer) int {
		if c.env("FLOWER_ATTEMPT") == "1" {
			return 1
		}
		return 0
	})
	var broken atomic.Bool
	broken.Store(true)
	e.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || !broken.Load() {
			return false
		}
		answer(w, http.StatusInternalServerError, "device or resource busy")
		return true
	})
	c := newContainersAt(e)
	r := begin(t, c, attempt(1))
	_, err := r.end()
	require.EqualError(t, err, `image "app:1" ended with exit code 1`)
	require.Contains(t, r.log.String(), "container not removed")
	require.Len(t, e.names(), 1)

	_, err = begin(t, c, attempt(2)).end()
	require.ErrorContains(t, err, "of an earlier attempt: device or resource busy")
	broken.Store(false)
	_, err = begin(t, c, attempt(3)).end()
	require.NoError(t, err, "not the first one's failure once more")
	require.Len(t, e.started(), 2)
	require.Empty(t, e.names())
}

func TestStray(t *testing.T) {
	t.Parallel()
	key := flow.TaskKey{Flow: "f", Seq: 1}
	stands := func(status flow.Status, attempt, base int, running time.Duration) *flow.Standing {
		return &flow.Standing{TaskKey: key, Status: status, Attempt: attempt, AttemptBase: base, Running: running}
	}
	held := func(attempt, base int) *flow.Standing {
		s := stands(flow.Suspended, attempt, base, 0)
		s.Held = true
		return s
	}
	f := found{task: key, attempt: 2, key: "f:1:0"}
	for name, c := range map[string]struct {
		stands *flow.Standing
		want   string
	}{
		"the task is gone":               {nil, "its task is not there any more"},
		"it runs":                        {stands(flow.Running, 2, 0, time.Hour), ""},
		"it was claimed anew just now":   {stands(flow.Running, 3, 0, time.Second), ""},
		"it runs, and not here":          {stands(flow.Running, 3, 0, time.Hour), "its task runs at another engine"},
		"it waits for its next attempt":  {stands(flow.Waiting, 2, 0, 0), ""},
		"it waits, since it was reset":   {stands(flow.Waiting, 2, 2, 0), "its task was reset"},
		"it runs, since it was reset":    {stands(flow.Running, 3, 2, time.Second), "its task was reset"},
		"it is finished":                 {stands(flow.Finished, 2, 0, 0), "its task is finished"},
		"it is skipped":                  {stands(flow.Ignored, 2, 0, 0), "its task is ignored"},
		"it is suspended":                {stands(flow.Suspended, 2, 0, 0), "its task is suspended"},
		"it is held":                     {held(2, 0), ""},
		"it was reset, and is held":      {held(2, 2), "its task was reset"},
		"the row was inserted once more": {stands(flow.Running, 1, 0, time.Second), "its task was inserted anew"},
	} {
		require.Equal(t, c.want, stray(f, c.stands), name)
	}
}

// Housekeeping takes what nobody needs, of this database alone.
func TestContainer_Housekeeping(t *testing.T) {
	t.Parallel()
	e := newEngine(t, nothing)
	l := &ledger{stands: map[flow.TaskKey]flow.Standing{}}
	put := func(seq int, database string, status flow.Status) string {
		task := attempt(1)
		task.Seq = seq
		l.stands[task.TaskKey] = flow.Standing{TaskKey: task.TaskKey, Status: status, Attempt: 1}
		name := containerName(hash(database, "f1", string(rune('0'+seq))), 1)
		e.put(name, labels(task, database, "x"), forever)
		return name
	}
	needed := put(1, "7-16384", flow.Running)
	put(3, "7-16384", flow.Suspended)
	put(4, "7-16384", flow.Finished)
	foreign := put(5, "8-16384", flow.Finished)
	delete(l.stands, flow.TaskKey{Flow: "f1", Seq: 4})
	c := newContainersAt(e, func(cfg *ContainerConfig) { cfg.Ledger = l })
	c.doomed["flower-that-is-not-there-any-more"] = true

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Set{"Container": c, "NoOp": noOp{}}.Housekeep(ctx, slog.New(slog.DiscardHandler))
	}()
	eventually(t, "it has tidied up", func() bool { return len(e.names()) == 2 })
	cancel()
	<-done
	require.ElementsMatch(t, []string{needed, foreign}, e.names())
	require.Empty(t, c.doomed)
}

// A name that somebody gave a container by hand, and labels that make no sense, are
// nobody's.
func TestRecognise(t *testing.T) {
	t.Parallel()
	task := attempt(3)
	ours := labels(task, "db", "d")
	id := ours[labelID]
	got, ok := recognise(container.Summary{Names: []string{"/link/alias", "/flower-" + id + "-12"}, Labels: ours, State: "running"})
	require.True(t, ok)
	require.Equal(t, found{name: "flower-" + id + "-12", attempt: 12, task: task.TaskKey, key: "f1:2:0", digest: "d", state: "running"}, got)
	for _, s := range []container.Summary{
		{Names: []string{"/flower-" + id + "-x"}, Labels: ours},
		{Names: []string{"/flower-other-1"}, Labels: ours},
		{Names: nil, Labels: ours},
		{Names: []string{"/flower--1"}},
	} {
		_, ok := recognise(s)
		require.False(t, ok)
	}
}
