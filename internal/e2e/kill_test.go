package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// kills is for how many watchers TestKillDrill kills.
var kills = flag.Int("kills", 2, "how many watchers TestKillDrill kills")

// TestKillDrill kills watchers with SIGKILL, each while it runs a task and at a moment of
// chance, and measures how long it takes from there until the task starts again. All have
// the default settings; one of them is spared, and those that are killed are replaced.
//
//	go test ./internal/e2e -run TestKillDrill -kills=300 -v
func TestKillDrill(t *testing.T) {
	require.Positive(t, *kills)
	d := newDrill(t)
	for range *kills {
		d.kill()
	}
	took := d.measure()
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)*percent+99)/100-1].Round(time.Millisecond) }
	t.Logf("%d watchers killed; from the kill to the task's next start: min %s, p50 %s, p90 %s, p99 %s, max %s",
		len(took), took[0].Round(time.Millisecond), at(50), at(90), at(99), at(100))
	require.Greater(t, took[0], 4*time.Second, "a lease of 10 s, renewed each 2 s, ended too early")
	require.Less(t, at(100), 25*time.Second) // at most 13 s, on a machine that has time
	d.sound()
}

type drill struct {
	*world
	peer     *peer
	register *server
	spared   *process
	victims  map[int]*process     // by their process ids
	killed   map[string]time.Time // when the watcher of a task was, by its path
	tasks    int

	mu    sync.Mutex
	gates map[string]gate // of tasks that have not run yet, by path; guarded by mu
}

func newDrill(t *testing.T) *drill {
	t.Helper()
	d := &drill{
		world: newWorld(t), victims: map[int]*process{}, killed: map[string]time.Time{}, gates: map[string]gate{},
	}
	d.peer = newPeer(t, d.answer)
	d.register = d.world.register()
	d.spared = d.start()
	for range min(8, *kills+1) {
		d.join()
	}
	stable(d.world, 10*time.Second)
	return d
}

// start starts a watcher with the default settings.
func (d *drill) start() *process {
	d.Helper()
	p := run(d.T, "watcher", d.env())
	p.await("watching task...")
	return p
}

func (d *drill) join() {
	d.Helper()
	p := d.start()
	d.victims[p.cmd.Process.Pid] = p
}

// answer lets a task wait when it runs for the first time, and end when for the second.
func (d *drill) answer(rw http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	first, found := d.gates[r.URL.Path]
	delete(d.gates, r.URL.Path)
	d.mu.Unlock()
	if found {
		first.wait(rw, r)
	}
}

// kill has a victim run a task, and kills it.
func (d *drill) kill() {
	d.Helper()
	for {
		path, flow, free := d.task()
		pid := d.runs(flow)
		victim, found := d.victims[pid]
		if !found { // the one that is spared has got it: let it be done
			require.Equal(d, d.spared.cmd.Process.Pid, pid)
			close(free)
			d.await(flow, "3")
			continue
		}
		<-time.After(rand.N(time.Second)) // anywhere between two heartbeats
		require.Equal(d, 1, d.peer.at(path))
		d.killed[path] = time.Now()
		victim.signal(syscall.SIGKILL)
		require.Equal(d, -1, victim.exit(soon))
		delete(d.victims, pid)
		d.join()
		return
	}
}

// task registers a flow of one task and waits until it runs.
func (d *drill) task() (path, flow string, free gate) {
	d.Helper()
	d.tasks++
	path, free = fmt.Sprintf("/%d", d.tasks), make(gate)
	d.mu.Lock()
	d.gates[path] = free
	d.mu.Unlock()
	d.define("drill"+path, d.peer.calling(path))
	flow = d.register.post("drill" + path)
	pgtest.Eventually(d.T, soon, "it runs", func() bool { return d.peer.at(path) == 1 })
	return path, flow, free
}

// runs returns the process that runs a flow's task.
func (d *drill) runs(flow string) (pid int) {
	d.Helper()
	require.NoError(d, d.Get(&pid, `SELECT w.pid FROM kr_task_stat t JOIN kr_watcher w ON w.watcher_id = t.watcher_id
		WHERE t.task_flow_id = $1 AND t.exec_status = 1`, flow))
	return pid
}

// measure waits until every task whose watcher was killed has started again, and returns
// how long that took.
func (d *drill) measure() []time.Duration {
	d.Helper()
	var took []time.Duration
	pgtest.Eventually(d.T, soon, "all tasks of killed watchers start again", func() bool {
		starts := map[string][]time.Time{}
		for _, c := range d.peer.seen() {
			starts[c.path] = append(starts[c.path], c.at)
		}
		took = took[:0]
		for path, at := range d.killed {
			if len(starts[path]) > 1 {
				took = append(took, starts[path][1].Sub(at))
			}
		}
		return len(took) == len(d.killed)
	})
	pgtest.Eventually(d.T, soon, "and end", func() bool {
		var open int
		require.NoError(d, d.Get(&open, `SELECT count(*) FROM kr_task_stat WHERE exec_status <> 3`))
		return open == 0
	})
	return took
}
