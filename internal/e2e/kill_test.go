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
// chance, up to 30 in a few seconds, and measures how long it takes from there until the
// task starts again. All have the default settings; there is one more, which is spared.
//
//	go test ./internal/e2e -run TestKillDrill -kills=300 -v
func TestKillDrill(t *testing.T) {
	d := newDrill(t)
	var took []time.Duration
	for len(took) < *kills {
		took = append(took, d.round(min(30, *kills-len(took)))...)
	}
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
	peer   *peer
	server *server
	spared *process
	tasks  int

	mu    sync.Mutex
	gates map[string]gate // of tasks that have not run yet, by path; guarded by mu
}

// victim is a watcher that runs the task that calls path.
type victim struct {
	*process
	path   string
	killed time.Time
}

func newDrill(t *testing.T) *drill {
	t.Helper()
	require.Positive(t, *kills)
	d := &drill{world: newWorld(t), gates: map[string]gate{}}
	d.peer = newPeer(t, d.answer)
	d.server = d.register()
	d.spared = run(t, "watcher", d.env())
	d.spared.Await("watching task...")
	stable(d.world)
	return d
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

// round starts n watchers, gives each a task, and kills them.
func (d *drill) round(n int) []time.Duration {
	d.Helper()
	victims := d.employ(n)
	// A new flow makes watchers send a heartbeat at once. Not before these come by
	// themselves again, any of them may be due when its watcher is killed.
	begin := time.Now().Add(2500 * time.Millisecond)
	moments := make([]time.Duration, n)
	for i := range moments {
		moments[i] = rand.N(4 * time.Second)
	}
	slices.Sort(moments)
	for i, v := range victims {
		<-time.After(time.Until(begin.Add(moments[i])))
		require.Equal(d, 1, d.peer.at(v.path))
		v.killed = time.Now()
		v.Signal(syscall.SIGKILL)
	}
	for _, v := range victims {
		require.Equal(d, -1, v.Exit())
	}
	return d.measure(victims)
}

// employ starts n watchers and registers flows of one task until each of them runs one.
// What another one has got is let go.
func (d *drill) employ(n int) []*victim {
	d.Helper()
	idle := map[int]*process{}
	for range n {
		p := run(d.T, "watcher", d.env())
		idle[p.Cmd.Process.Pid] = p
	}
	for _, p := range idle {
		p.Await("watching task...")
	}
	var victims []*victim
	for len(idle) > 0 {
		path, flow, free := d.task()
		pid := d.runs(flow)
		p, found := idle[pid]
		if !found {
			close(free)
			d.await(flow, "3")
			continue
		}
		delete(idle, pid)
		victims = append(victims, &victim{process: p, path: path})
	}
	return victims
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
	flow = d.server.post("drill" + path)
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

// measure waits until the tasks of all victims have started again, and returns how long
// that took.
func (d *drill) measure(victims []*victim) []time.Duration {
	d.Helper()
	var took []time.Duration
	pgtest.Eventually(d.T, soon, "their tasks start again", func() bool {
		starts := map[string][]time.Time{}
		for _, c := range d.peer.seen() {
			starts[c.path] = append(starts[c.path], c.at)
		}
		took = took[:0]
		for _, v := range victims {
			if len(starts[v.path]) > 1 {
				took = append(took, starts[v.path][1].Sub(v.killed))
			}
		}
		return len(took) == len(victims)
	})
	pgtest.Eventually(d.T, soon, "and end", func() bool {
		var open int
		require.NoError(d, d.Get(&open, `SELECT count(*) FROM kr_task_stat WHERE exec_status <> 3`))
		return open == 0
	})
	return took
}
