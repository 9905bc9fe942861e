package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/enginetest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// yard is a world with a container engine: tasks that wait in containers until they are
// let go.
type yard struct {
	*world
	engine enginetest.Engine
	dir    string // which the containers see as /out
}

// newYard skips the test where there is no engine.
func newYard(t *testing.T) *yard {
	t.Helper()
	engine := enginetest.Find(t)
	y := &yard{newWorld(t), engine, t.TempDir()}
	require.NoError(t, os.Chmod(y.dir, 0o777))
	t.Cleanup(func() { require.Empty(t, y.containers(), "left behind") })
	return y
}

func (y *yard) watcher(args ...string) *process {
	y.Helper()
	return y.world.watcher(append([]string{"-allow-container", "-container-host", y.engine.Host, "-container-mount", y.dir + ":rw"}, args...)...)
}

// waiting is a task whose container waits.
func (y *yard) waiting() task {
	return task{program: "Container", parameters: `{"image": "` + enginetest.Image + `", "pull": "never",
		"command": ["/inside", "wait", "/out/go"], "mounts": ["` + y.dir + `:/out:rw"]}`}
}

func (y *yard) letGo() { require.NoError(y, os.WriteFile(filepath.Join(y.dir, "go"), nil, 0o666)) }

// containers returns those of the test's flows.
func (y *yard) containers() []container.Summary {
	y.Helper()
	list, err := y.engine.Client.ContainerList(y.T.Context(), client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("label", "flower.task="+y.Name),
	})
	if err != nil && strings.Contains(err.Error(), "canceled") { // in a cleanup
		return nil
	}
	require.NoError(y, err)
	return list.Items
}

// one waits until the flow has one container that runs, and returns its id.
func (y *yard) one() string {
	y.Helper()
	var list []container.Summary
	pgtest.Eventually(y.T, soon, "a container runs", func() bool {
		list = y.containers()
		return len(list) == 1 && list[0].State == container.StateRunning
	})
	return list[0].ID
}

// However a watcher ends, the container of its task is found again by the next one: it is
// the same, it was started once, and its result counts.
func TestContainerOutlivesItsWatcher(t *testing.T) {
	for name, lose := range map[string]func(y *yard, first *process){
		"killed": func(y *yard, first *process) {
			first.Signal(syscall.SIGKILL)
			first.Exit()
			y.watcher()
		},
		"shut down beside another one": func(y *yard, first *process) {
			y.watcher()
			first.Signal(syscall.SIGTERM)
			require.Equal(y, 0, first.Exit())
		},
		"frozen": func(y *yard, first *process) {
			first.Signal(syscall.SIGSTOP)
			second := y.watcher()
			second.Await("going on with the container")
			first.Signal(syscall.SIGCONT)
			first.Await("declared dead by the others")
			first.Signal(syscall.SIGTERM)
			require.Equal(y, 0, first.Exit())
		},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			y.define(y.Name, y.waiting())
			s := y.register()
			first := y.watcher("-shutdown-timeout", "0s")
			flow := s.post(y.Name)
			id := y.one()
			pgtest.Eventually(t, soon, "it waits", func() bool {
				var lines int
				require.NoError(t, y.Get(&lines, `SELECT count(*) FROM v_task_log WHERE task_flow_id = $1 AND text = 'waiting'`, flow))
				return lines > 0
			})
			lose(y, first)
			pgtest.Eventually(t, soon, "it is another attempt's", func() bool { return y.rows(flow)[0].Attempt == 2 && y.rows(flow)[0].Status == 1 })
			require.Equal(t, id, y.one())
			y.letGo()
			y.await(flow, "3")
			var output string
			require.NoError(t, y.Get(&output, `SELECT output->'json'->>'attempt' FROM kr_task_stat WHERE task_flow_id = $1`, flow))
			require.Equal(t, "1", output, "what the first attempt has started")
			require.Empty(t, y.containers())
			y.sound()
		})
	}
}

// A task that somebody cancels while its watcher is there, and one that is stopped while
// nobody is: both containers go.
func TestContainerOfATaskThatIsStopped(t *testing.T) {
	y := newYard(t)
	y.define(y.Name, y.waiting())
	s := y.register()
	w := y.watcher()
	flow := s.post(y.Name)
	y.one()
	y.exec(`SELECT flower_cancel($1)`, flow)
	y.await(flow, "2")
	pgtest.Eventually(t, soon, "its container goes", func() bool { return len(y.containers()) == 0 })

	y.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, flow)
	y.one()
	w.Signal(syscall.SIGKILL)
	w.Exit()
	y.exec(`SELECT flower_cancel($1)`, flow)
	y.one() // still
	y.watcher().Await("removing a container that nobody needs", "why=its task is suspended")
	pgtest.Eventually(t, soon, "its container goes", func() bool { return len(y.containers()) == 0 })
	require.Equal(t, 2, y.rows(flow)[0].Status)
}

// Without an engine a watcher says so at once, and its tasks fail with what to do.
func TestContainerWithoutAnEngine(t *testing.T) {
	w := newWorld(t)
	w.define("lonely", task{program: "Container", parameters: `{"image": "app:1"}`})
	s := w.register()
	p := w.watcher("-allow-container", "-container-host", "unix:///nosuch/engine.sock")
	p.Await("cannot look after the containers")
	flow := s.post("lonely")
	w.await(flow, "2")
	got := w.rows(flow)[0]
	require.Equal(t, "failed", got.Reason)
	require.Contains(t, got.Error, "no container engine answers at unix:///nosuch/engine.sock: start it, or name another one with -container-host (DOCKER_HOST)")
}

// A watcher that was not told to run containers leaves them to those that were.
func TestContainerIsOff(t *testing.T) {
	w := newWorld(t)
	w.define("off", task{program: "Container", parameters: `{"image": "app:1"}`})
	s := w.register()
	p := w.watcher()
	require.NotContains(t, p.Await("watching task...")["programs"], "Container")
	flow := s.post("off")
	require.Equal(t, "0", w.statuses(flow))
	require.Contains(t, output(t, "watcher", "-programs"), "Container (off: the watcher needs -allow-container)")
}
