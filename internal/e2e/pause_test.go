package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Tasks that wait for something and hold no worker.

// pausedUntil waits until a task pauses, and returns its run_after.
func (w *world) pausedUntil(flow string, seq int) time.Time {
	w.Helper()
	var until []time.Time
	pgtest.Eventually(w.T, soon, fmt.Sprintf("task %d of flow %s pauses", seq, flow), func() bool {
		require.NoError(w, w.Select(&until, `SELECT run_after FROM kr_task_stat
			WHERE task_flow_id = $1 AND task_exec_seq = $2 AND exec_status = 0 AND pause IS NOT NULL AND run_after IS NOT NULL`, flow, seq))
		return len(until) == 1
	})
	return until[0]
}

func (w *world) output(flow string, seq int) string {
	w.Helper()
	var text string
	require.NoError(w, w.Get(&text, `SELECT coalesce(output::text, '') FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, flow, seq))
	return text
}

// A watcher is killed while a task waits. The wait has an end all the same, and the same
// one; nobody has to be rescued for that.
func TestWait_TheWatcherIsKilled(t *testing.T) {
	w := newWorld(t)
	w.define("later", task{program: "NoOp"}, task{program: "Wait", parameters: `{"for": "10s"}`}, task{program: "NoOp"})
	s := w.register()
	victim := w.watcher("-workers", "1")
	flow := s.post("later")
	until := w.pausedUntil(flow, 2)
	require.Equal(t, "0", w.busy(), "the only worker is free")
	victim.Signal(syscall.SIGKILL)
	victim.Exit()
	w.watcher("-workers", "1")
	require.Equal(t, until, w.pausedUntil(flow, 2))
	text := s.send(http.MethodGet, "/api/v1/flows/"+flow+"?format=text", "", "").text
	require.Contains(t, text, "waiting")
	require.Contains(t, text, "until "+until.UTC().Format("2006-01-02 15:04:05Z"))

	w.await(flow, "3 3 3")
	wait := w.rows(flow)[1]
	require.Equal(t, 2, wait.Attempt)
	require.False(t, wait.Finished.Before(until), "it went on too early")
	require.Less(t, wait.Finished.Sub(until), 15*time.Second, "although nothing but the time has woken the watcher")
	require.Contains(t, w.output(flow, 2), until.UTC().Format("2006-01-02T15:04:05"))
	w.sound()
}

// busy is how many tasks run.
func (w *world) busy() string {
	w.Helper()
	var n string
	require.NoError(w, w.Get(&n, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 1`))
	return n
}

// The database is restarted while a task waits.
func TestWait_TheDatabaseIsRestarted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	w := c.world()
	s := w.register()
	w.watcher("-poll-interval", "1s")
	w.define("later", task{program: "Wait", parameters: `{"for": "2s"}`}, task{program: "NoOp"})
	flow := s.post("later")
	until := w.pausedUntil(flow, 1)
	c.stop()
	c.start()
	w = c.world()
	w.await(flow, "3 3")
	require.False(t, w.rows(flow)[0].Finished.Before(until))
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	w.sound()
}

// A task whose flow has ended in failure fails as well, and says why; repaired, both go
// on. All of it with one worker, which neither of them holds while it waits.
func TestFlow_FailsAndGoesOn(t *testing.T) {
	w := newWorld(t)
	repaired := make(gate)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/load" {
			return
		}
		select {
		case <-repaired:
			_, _ = rw.Write([]byte(`{"rows": 7}`))
		default:
			http.Error(rw, "no disk", http.StatusInternalServerError)
		}
	})
	w.define("load", p.calling("/extract"), p.calling("/load"))
	w.define("nightly", task{program: "NoOp"}, task{program: "Flow", parameters: `{"workflow": "load", "parameters": {"day": 1}}`}, p.calling("/report"))
	s := w.register()
	w.watcher("-workers", "1")
	flow := s.post("nightly")
	w.await(flow, "3 2 0")
	var child string
	require.NoError(t, w.Get(&child, `SELECT task_flow_id FROM kr_flow WHERE parent_flow_id = $1 AND parent_exec_seq = 2`, flow))
	failed := w.rows(flow)[1]
	require.Equal(t, "failed", failed.Reason)
	require.Contains(t, failed.Error, "workflow load failed at task 2 (HTTPPostRequest): POST ")
	require.Contains(t, failed.Error, "\nflow "+child)
	require.Contains(t, failed.Error, "no disk")
	require.Equal(t, 2, failed.Attempt, "it ran to register, and to look at the end")

	// One move for both: what had finished in the child stays so.
	close(repaired)
	w.exec(`SELECT flower_rerun($1)`, flow)
	w.await(flow, "3 3 3")
	require.Equal(t, "3 3", w.statuses(child))
	require.Equal(t, 1, p.at("/extract"))
	require.Equal(t, 2, p.at("/load"))
	require.Equal(t, 1, p.at("/report"))
	require.JSONEq(t, `{"flow": "`+child+`", "status": "finished", "outputs": {"2": {"status": 200, "body": {"rows": 7}}}}`, w.output(flow, 2))
	w.sound()
}

// Its watcher is killed while a task waits for a flow: there is one flow, and it ends.
func TestFlow_TheWatcherIsKilled(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	w.define("inner", p.calling("/inner"))
	w.define("outer", task{program: "Flow", parameters: `{"workflow": "inner"}`}, task{program: "NoOp"})
	s := w.register()
	victim := w.watcher()
	survivor := w.watcher()
	stable(w)
	flow := s.post("outer")
	pgtest.Eventually(t, soon, "the inner flow runs", func() bool { return len(p.seen()) == 1 })
	w.pausedUntil(flow, 1)
	var why string
	require.NoError(t, w.Get(&why, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = 1`, flow))
	require.Regexp(t, `^flow: waits for flow [0-9a-f-]{36} of workflow inner$`, why)
	for _, victim := range []*process{victim, survivor} {
		victim.Signal(syscall.SIGKILL)
		victim.Exit()
	}
	close(free)
	w.watcher()
	w.await(flow, "3 3")
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	var children int
	require.NoError(t, w.Get(&children, `SELECT count(*) FROM kr_flow WHERE task_id = 'inner'`))
	require.Equal(t, 1, children)
	w.sound()
}

// What is wrong with the flow to be registered is said at once, and by the task that
// registers it. A workflow that registers itself comes to an end.
func TestFlow_CannotBeRegistered(t *testing.T) {
	w := newWorld(t)
	w.define("picky", task{program: "EchoParamTimeSleep"})
	w.define("asks", task{program: "Approve", parameters: `{"message": "all?"}`})
	w.define("loop", task{program: "Flow", parameters: `{"workflow": "loop"}`})
	for i, parameters := range []string{
		`{"workflow": "no such"}`, `{"workflow": "picky"}`, `{"workflow": "picky", "parameters": {"SLEEP_TIME_SECOND": "soon"}}`,
		`{"workflow": "asks", "parameters": {"message": "a trifle?"}}`, `{"workflow": "picky", "parameters": {"SLEEP_TIME_SECOND": 0}}`,
	} {
		w.define(fmt.Sprintf("calls%d", i), task{program: "Flow", parameters: parameters, attempts: 3})
	}
	s := w.register()
	w.watcher()
	for i, want := range []string{
		`parameter "workflow": there is no workflow "no such"`,
		`workflow "picky": task_seq 1 (EchoParamTimeSleep): parameter "SLEEP_TIME_SECOND": it is missing`,
		`workflow "picky": task_seq 1 (EchoParamTimeSleep): parameter "SLEEP_TIME_SECOND": "soon" is not`,
		`workflow "asks": task_seq 1 (Approve): parameter "message": only the definition can set it`,
	} {
		flow := s.post(fmt.Sprintf("calls%d", i))
		w.await(flow, "2")
		require.Equal(t, "invalid", w.rows(flow)[0].Reason)
		require.Contains(t, w.rows(flow)[0].Error, want)
	}
	w.await(s.post("calls4"), "3")

	flow := s.post("loop")
	w.await(flow, "2")
	require.Contains(t, w.rows(flow)[0].Error, "it would run in 10 others")
	var flows, failed int
	require.NoError(t, w.Get(&flows, `SELECT count(*) FROM kr_flow WHERE task_id = 'loop'`))
	require.NoError(t, w.Get(&failed, `SELECT count(*) FROM v_failed WHERE task_id = 'loop'`))
	require.Equal(t, []int{10, 10}, []int{flows, failed}, "each tells the one above")
	w.sound()
}

// A task asks; nothing after it runs before a person has answered.
func TestApprove(t *testing.T) {
	w := newWorld(t)
	w.define("release", task{program: "NoOp"}, task{program: "Approve", parameters: `{"message": "release 1.2?"}`}, task{program: "NoOp"})
	s := w.register()
	watcher := w.watcher("-workers", "1")
	flow := s.post("release")
	w.await(flow, "3 2 0")
	watcher.Await("task asks a person", "message=release 1.2?")
	require.Equal(t, "held", w.rows(flow)[1].Reason)
	text := s.send(http.MethodGet, "/api/v1/flows/"+flow+"?format=text", "", "").text
	require.Regexp(t, `(?m)^release .* HELD, ASKS .*`, text)
	require.Regexp(t, `(?m)^ \? 2 Approve  asks .* release 1\.2\?$`, text)

	// Whoever holds the flow, or kills the watcher, has not answered.
	w.exec(`SELECT flower_hold($1)`, flow)
	w.exec(`SELECT flower_resume($1)`, flow)
	w.exec(`SELECT flower_rerun($1)`, flow)
	watcher.Signal(syscall.SIGKILL)
	watcher.Exit()
	w.watcher()
	require.Equal(t, "3 2 0", w.statuses(flow))

	w.exec(`SELECT flower_approve($1, 2, 'tested by Bob')`, flow)
	w.await(flow, "3 3 3")
	var by struct {
		ApprovedBy string `json:"approved_by"`
		At         time.Time
		Note       string
	}
	require.NoError(t, json.Unmarshal([]byte(w.output(flow, 2)), &by))
	var me string
	require.NoError(t, w.Get(&me, `SELECT session_user`))
	require.Equal(t, me, by.ApprovedBy)
	require.Equal(t, "tested by Bob", by.Note)
	require.WithinDuration(t, time.Now(), by.At, time.Minute)
	require.Empty(t, w.rows(flow)[1].Error)
	w.sound()
}

// A flow is held, resumed and cancelled while its task waits.
func TestWait_HeldResumedCancelled(t *testing.T) {
	w := newWorld(t)
	w.define("later", task{program: "Wait", parameters: `{"for": "2s"}`}, task{program: "NoOp"})
	w.define("never", task{program: "Wait", parameters: `{"for": "24h"}`})
	s := w.register()
	w.watcher()
	later, never := s.post("later"), s.post("never")
	until := w.pausedUntil(later, 1)
	w.pausedUntil(never, 1)
	w.exec(`SELECT flower_hold($1)`, later)
	w.exec(`SELECT flower_cancel($1)`, never)
	require.Equal(t, "2 2", w.statuses(later))
	require.Equal(t, "2", w.statuses(never))
	w.exec(`SELECT flower_resume($1)`, later)
	require.Equal(t, until, w.pausedUntil(later, 1), "the wait goes on")
	w.await(later, "3 3")
	require.False(t, w.rows(later)[0].Finished.Before(until))

	// Run again, it waits anew; and a person has the last word.
	w.exec(`UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, never)
	w.exec(`SELECT flower_rerun($1)`, never)
	require.Greater(t, time.Until(w.pausedUntil(never, 1)), 23*time.Hour)
	w.exec(`UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, never)
	w.awaitFor(20*time.Second, never, "3") // sooner than a poll
	w.sound()
}
