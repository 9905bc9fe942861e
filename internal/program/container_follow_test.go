package program

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// An engine may be restarted while a container runs, which goes on ("live restore"). The
// attempt goes on as well, and has each line once.
func TestContainer_TheEngineIsRestarted(t *testing.T) {
	t.Parallel()
	next := make(chan struct{})
	const lines = 2000
	e := newEngine(t, func(c *fakeContainer) int {
		for i := range lines {
			c.print(fmt.Sprintf("line %d\n", i))
			if i%500 == 250 {
				c.wait(next)
			}
		}
		c.printTo(stdcopy.Stderr, "bye\n")
		return 0
	})
	r := begin(t, newContainersAt(e), attempt(1))
	for i := range 4 {
		eventually(t, "it prints", func() bool { return strings.Contains(r.stdout.String(), fmt.Sprintf("line %d\n", 500*i+250)) })
		e.down()
		next <- struct{}{} // it prints while nobody listens
		e.up()
	}
	_, err := r.end()
	require.NoError(t, err)
	var want strings.Builder
	for i := range lines {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	require.Equal(t, want.String(), r.stdout.String())
	require.Equal(t, "bye\n", r.stderr.String())
	require.Len(t, e.started(), 1)
}

// Without "live restore" an engine takes its containers with it.
func TestContainer_TheEngineEndsItsContainers(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(c *fakeContainer) int {
		c.print("working\n")
		return forever(c)
	})
	r := begin(t, newContainersAt(e), attempt(1))
	eventually(t, "it prints", func() bool { return r.stdout.String() != "" })
	e.down()
	e.killAll()
	e.up()
	_, err := r.end()
	require.EqualError(t, err, `image "app:1" ended with exit code 137 (signal 9: from itself, by somebody else, or the engine was stopped); it said last: working`)
	require.Empty(t, e.names())
}

// When an engine stays away, nobody knows what became of the container: it is left, and
// the next attempt goes on with it.
func TestContainer_TheEngineStaysAway(t *testing.T) {
	t.Parallel()
	steps := make(chan struct{})
	e := newEngine(t, inSteps(1, steps))
	c := newContainersAt(e)
	c.patience = 300 * time.Millisecond
	r := begin(t, c, attempt(1))
	eventually(t, "it prints", func() bool { return r.stdout.String() != "" })
	e.down()
	_, err := r.end()
	require.ErrorContains(t, err, "no container engine answers at "+e.host())
	require.ErrorContains(t, err, "the container may still be running, and the next attempt will look for it")
	require.NotErrorAs(t, err, new(*flow.InvalidError))
	e.up()
	second := begin(t, c, attempt(2))
	steps <- struct{}{}
	output, err := second.end()
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": 0, "json": {"attempt": "1"}, "stdout": "step 1\n{\"attempt\": \"1\"}"}`, output)
	require.Len(t, e.started(), 1)
}

// A cancelled attempt does not wait for an engine that is away.
func TestContainer_CancelledWhileTheEngineIsAway(t *testing.T) {
	t.Parallel()
	e := newEngine(t, forever)
	r := begin(t, newContainersAt(e), attempt(1))
	startedContainer(t, e)
	e.down()
	began := time.Now()
	r.cancel(flow.ErrShutdown)
	_, err := r.end()
	require.ErrorIs(t, err, flow.ErrShutdown)
	require.Less(t, time.Since(began), 5*time.Second)
}

// A stream of output that breaks off is taken up again, whether the container runs or has
// ended; so is one that never ends.
func TestContainer_OutputBreaksOff(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(w http.ResponseWriter, r *http.Request){
		"at once": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"with an error": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusInternalServerError, "log file is being rotated")
		},
		"within a line": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{1, 0, 0, 0, 0, 0, 0, 90, '2'}) },
		"with nonsense": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("HTTP proxy error: timeout")) },
		"with a complaint": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte{3, 0, 0, 0, 0, 0, 0, 4, 'o', 'o', 'p', 's'})
		},
		"and hangs": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			goOn := make(chan struct{})
			e := newEngine(t, func(c *fakeContainer) int {
				c.print("one\n")
				c.wait(goOn)
				c.print("{\"n\": 2}\n")
				return 0
			})
			var reads atomic.Int32
			e.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Query().Get("follow") != "1" || reads.Add(1) > 2 {
					return false
				}
				broken(w, r)
				return true
			})
			c := newContainersAt(e)
			c.drain = 100 * time.Millisecond
			r := begin(t, c, attempt(1))
			startedContainer(t, e)
			close(goOn)
			output, err := r.end()
			require.NoError(t, err)
			require.JSONEq(t, `{"exit_code": 0, "json": {"n": 2}, "stdout": "one\n{\"n\": 2}"}`, output)
			require.Equal(t, "one\n{\"n\": 2}\n", r.stdout.String())
		})
	}
}

// What a container printed belongs to its result. If that cannot be had, there is none
// yet, and the container is left for the next attempt.
func TestContainer_OutputCannotBeRead(t *testing.T) {
	t.Parallel()
	e := newEngine(t, func(c *fakeContainer) int {
		c.print("{\"n\": 2}\n")
		return 0
	})
	var broken atomic.Bool
	broken.Store(true)
	e.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/logs") || !broken.Load() {
			return false
		}
		answer(w, http.StatusInternalServerError, "I/O error")
		return true
	})
	c := newContainersAt(e)
	c.patience = 100 * time.Millisecond
	_, err := begin(t, c, attempt(1)).end()
	require.EqualError(t, err, "the container ended with exit code 0, but its output could not be read: I/O error; the next attempt will look for it")
	broken.Store(false)
	output, err := begin(t, c, attempt(2)).end()
	require.NoError(t, err)
	require.JSONEq(t, `{"exit_code": 0, "json": {"n": 2}, "stdout": "{\"n\": 2}"}`, output)
	require.Len(t, e.started(), 1)
}

// Somebody may remove a container while it runs.
func TestContainer_IsGone(t *testing.T) {
	t.Parallel()
	e := newEngine(t, forever)
	r := begin(t, newContainersAt(e), attempt(1))
	startedContainer(t, e)
	_, err := connected(t, newContainersAt(e)).ContainerRemove(t.Context(), e.names()[0], client.ContainerRemoveOptions{Force: true})
	require.NoError(t, err)
	_, err = r.end()
	require.EqualError(t, err, "the container is gone: somebody removed it, or a later attempt has taken it over")
}

func connected(t *testing.T, c *containers) *engine {
	t.Helper()
	e, err := c.connect(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// However the lines of a stream are cut into reads, each is passed on once and in order,
// many of one time included.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 2, 2, 2}, 3, 5)
	f.Add([]byte{9, 9, 9, 9}, 1, 1)
	f.Fuzz(func(t *testing.T, steps []byte, first, second int) {
		var frames [][]byte
		var want bytes.Buffer
		at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
		for i, step := range steps {
			at = at.Add(time.Duration(step) * time.Microsecond)
			fmt.Fprintf(&want, "line %d\n", i)
			frames = append(frames, fmt.Appendf(nil, "%s line %d\n", at.Format(time.RFC3339Nano), i))
		}
		var got bytes.Buffer
		var s stream
		for _, n := range []int{first, second, len(frames)} {
			s.resume(&got)
			for _, frame := range frames[:max(0, min(n, len(frames)))] {
				n, err := s.Write(frame)
				require.NoError(t, err)
				require.Equal(t, len(frame), n)
			}
		}
		require.Equal(t, want.String(), got.String())
	})
}

func TestStream_WithoutATime(t *testing.T) {
	t.Parallel()
	var got bytes.Buffer
	var s stream
	s.resume(&got)
	_, err := s.Write([]byte("no time at all\n"))
	require.NoError(t, err)
	require.Equal(t, "no time at all\n", got.String())
}
