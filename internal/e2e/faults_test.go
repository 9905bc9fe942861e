package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// The original's ten faults. Each of these tests fails without the repair.

// 1. A program's error was thrown away: the failed task was recorded as finished, so that
// "find the failed task and rerun" did not work.
func TestFault01_AFailureIsRecordedAsOne(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			http.Error(rw, "no such customer", http.StatusNotFound)
		}
	})
	w.define("fails", p.calling("/a"), p.calling("/fails"), p.calling("/b"))
	s := w.register()
	watcher := w.watcher()
	flow := s.post("fails")
	w.await(flow, "3 2 0")
	failed := w.rows(flow)[1]
	require.Equal(t, "failed", failed.Reason)
	require.Contains(t, failed.Error, "404")
	require.Contains(t, failed.Error, "no such customer")
	require.Zero(t, p.at("/b"))
	require.Equal(t, "ERROR", watcher.Await("task suspended", "seq=2")["level"])

	// Where one looks for it.
	var found []struct {
		Flow  string `db:"task_flow_id"`
		Seq   int    `db:"task_exec_seq"`
		Rerun string `db:"rerun"`
	}
	require.NoError(t, w.Select(&found, `SELECT task_flow_id, task_exec_seq, rerun FROM v_failed`))
	require.Len(t, found, 1)
	require.Equal(t, flow, found[0].Flow)
	require.Equal(t, 2, found[0].Seq)
	w.exec(found[0].Rerun)
	pgtest.Eventually(t, soon, "it runs again", func() bool { return p.at("/fails") == 2 })
	w.await(flow, "3 2 0")
	text := s.send(http.MethodGet, "/api/v1/flows/"+flow, "", "").text
	require.Contains(t, text, `"status":"failed"`)
	require.Contains(t, text, "no such customer")
}

// 2. An unknown program panicked and killed the watcher.
func TestFault02_AnUnknownProgramStopsItsTaskAlone(t *testing.T) {
	w := newWorld(t)
	w.define("unknown", task{program: "NoOp"}, task{program: "Tset1"}, task{program: "NoOp"})
	w.define("good", task{program: "NoOp"}, task{program: "NoOp"})
	s := w.register()
	watcher := w.watcher("-workers", "1", "-poll-interval", "1s")
	bad, good := s.post("unknown"), s.post("good")
	w.await(good, "3 3")
	w.await(bad, "3 2 0")
	suspended := w.rows(bad)[1]
	require.Equal(t, "invalid", suspended.Reason)
	require.Contains(t, suspended.Error, `"Tset1"`)
	require.Contains(t, suspended.Error, "Test1", "the known ones")
	require.True(t, watcher.Running())
	w.exec(`UPDATE kr_task_stat SET program = 'NoOp', exec_status = 0 WHERE exec_status = 2`)
	w.await(bad, "3 3 3")
}

// 3. A killed watcher left its tasks at 1 for ever, and each of them took a slot of the
// global limit: five lost rows stopped the engine.
func TestFault03_TasksOfAKilledWatcherRunAgain(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	for i := range 5 {
		w.define(fmt.Sprintf("lost%d", i), p.calling(fmt.Sprintf("/%d", i)))
	}
	s := w.register()
	victim := w.watcher()
	var flows []string
	for i := range 5 {
		flows = append(flows, s.post(fmt.Sprintf("lost%d", i)))
	}
	pgtest.Eventually(t, soon, "five tasks run", func() bool { return len(p.seen()) == 5 })
	survivor := w.watcher()
	stable(w)

	victim.Signal(syscall.SIGKILL)
	killed := time.Now()
	victim.Exit()
	w.define("other", task{program: "NoOp"})
	w.await(s.post("other"), "3") // it does not stop the engine
	pgtest.Eventually(t, soon, "the five run again", func() bool { return len(p.seen()) == 10 })
	took := time.Since(killed)
	t.Logf("the five ran again after %s", took)
	require.Greater(t, took, 4*time.Second, "a lease of 10 s, renewed each 2 s, ended too early")
	require.Less(t, took, 25*time.Second) // some 11 s, on a machine that has time
	require.Len(t, survivor.Log.With("task rescued"), 5)
	close(free)
	for _, f := range flows {
		w.await(f, "3")
		require.Equal(t, 2, w.rows(f)[0].Attempt)
	}
	w.sound()
}

// stable waits until all watchers have been stable for a lease.
func stable(w *world) {
	w.Helper()
	pgtest.Eventually(w.T, soon, "the watchers are stable", func() bool {
		var yes bool
		require.NoError(w, w.Get(&yes, `SELECT bool_and(stable_since < clock_timestamp() - interval '10 s') FROM kr_watcher`))
		return yes
	})
}

// 4. The definition was read without ORDER BY task_seq: the chain's order was luck.
func TestFault04_TheChainHasTheDefinitionsOrder(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(http.ResponseWriter, *http.Request) {})
	for _, seq := range []int{4, 2, 5, 1, 3} {
		step := p.calling(fmt.Sprintf("/%d", seq))
		step.seq = seq
		w.define("shuffled", step)
	}
	s := w.register()
	w.watcher()
	flow := s.post("shuffled")
	w.await(flow, "3 3 3 3 3")
	for i, c := range p.seen() {
		require.Equal(t, fmt.Sprintf("/%d", i+1), c.path)
	}
	for i, r := range w.rows(flow) {
		require.Equal(t, i+1, r.TaskSeq)
		require.Equal(t, i, r.Depends)
	}
}

// 5. Completion checked no owner: after a reset, the first worker's late result finished
// the second run.
func TestFault05_ALateResultChangesNothing(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	w.define("late", p.calling("/"), p.calling("/next"))
	s := w.register()
	watcher := w.watcher("-workers", "2")
	flow := s.post("late")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 1`, flow)
	watcher.Await("late result refused: the task was changed by hand or taken over", "seq=1", "attempt=1")
	pgtest.Eventually(t, soon, "its program was cancelled, and it runs again", func() bool {
		calls := p.seen()
		return len(calls) == 2 && calls[0].gone
	})
	require.Equal(t, "1 0", w.statuses(flow), "the second run is the one that counts")
	calls := p.seen()
	require.Greater(t, calls[1].at.Sub(calls[0].at), 3*time.Second, "the first one had time to stop")
	require.NotEqual(t, calls[0].key, calls[1].key, "a deliberate rerun is meant to have its effect again")
	close(free)
	w.await(flow, "3 3")
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	var kept int
	require.NoError(t, w.Get(&kept, `SELECT count(*) FROM kr_task_attempt WHERE task_flow_id = $1 AND attempt = 1 AND exec_status = 1`, flow))
	require.Equal(t, 1, kept)
}

// 6. The program was read at run time, so that editing a definition changed flows already
// running.
func TestFault06_AFlowKeepsWhatItWasRegisteredWith(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			free.wait(rw, r)
		}
	})
	w.define("edited", p.calling("/1"), p.calling("/2"))
	s := w.register()
	w.watcher()
	old := s.post("edited")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	w.exec(`UPDATE ms_task_definition SET program = 'NoOp', parameters = '{}' WHERE task_id = 'edited'`)
	w.exec(`DELETE FROM ms_task_definition WHERE task_id = 'edited' AND task_seq = 1`)
	edited := s.post("edited")
	w.await(edited, "3")
	close(free)
	w.await(old, "3 3")
	require.Equal(t, 1, p.at("/2"))
	require.Equal(t, "HTTPPostRequest", w.rows(old)[1].Program)
	require.Equal(t, "NoOp", w.rows(edited)[0].Program)
}

// 7. One row with a bad parameter failed the whole poll, for ever.
func TestFault07_ABadRowHarmsOnlyItself(t *testing.T) {
	w := newWorld(t)
	w.define("good", task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": "0.01"}`}, task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 0.01}`})
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, parameters, task_priority)
		VALUES ('worse', 1, '', 0, 'HTTPPostRequest', '{"URL": ["not", "a", "url"], "BODY": 1e300}', -20), ('worse', 2, '', 0, 'HTTPPostRequest', '{"URL": "http://[::1"}', -20),
		       ('bad', 1, '', 0, 'EchoParamTimeSleep', '{"SLEEP_TIME_SECOND": {"no": "number"}}', -20), ('missing', 1, '', 0, 'EchoParamTimeSleep', '{}', -20)`)
	s := w.register()
	good := s.post("good")
	watcher := w.watcher("-workers", "1")
	w.await(good, "3 3")
	w.await("bad", "2")
	w.await("missing", "2")
	w.await("worse", "2 2")
	for flow, name := range map[string]string{"bad": "SLEEP_TIME_SECOND", "missing": "SLEEP_TIME_SECOND", "worse": "URL"} {
		r := w.rows(flow)[0]
		require.Equal(t, "invalid", r.Reason)
		require.Contains(t, r.Error, name)
	}
	require.True(t, watcher.Running())
}

// 8. A claim error in the middle of a batch left claimed tasks that nobody ran, and tasks
// were claimed without a free worker.
func TestFault08_WhatIsClaimedIsRun(t *testing.T) {
	w := newWorld(t)
	var rows []task
	for range 60 {
		rows = append(rows, task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 0.05}`, depends: []int32{}, attempts: 9})
	}
	w.define("wide", rows...)
	s := w.register()
	flow := s.post("wide")
	watcher := w.watcher("-workers", "3")
	killed := 0
	for done, begin := 0, time.Now(); done < 60; {
		require.Less(t, time.Since(begin), soon)
		var running int
		require.NoError(t, w.Get(&running, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 1`))
		require.LessOrEqual(t, running, 3+3, "claimed without a free worker; what an unanswered claim has got comes on top")
		killed += terminate(w)
		before := done
		pgtest.Eventually(t, soon, "some more finish", func() bool {
			require.NoError(t, w.Get(&done, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 3`))
			return done > before+3 || done == 60
		})
	}
	require.Greater(t, killed, 10)
	require.True(t, watcher.Running())
	w.await(flow, strings.TrimSpace(strings.Repeat("3 ", 60)))
	w.sound()
}

// terminate ends every connection of the watchers, whatever they do.
func terminate(w *world) (killed int) {
	w.Helper()
	require.NoError(w, w.Get(&killed, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'flower-watcher'`))
	return killed
}

// 9. One task per workflow per poll of 5 s; priority was only the third sort key; status
// 9 blocked what depended on it for ever.
func TestFault09_NobodyWaitsForAPoll(t *testing.T) {
	w := newWorld(t)
	var rows []task
	for range 50 {
		rows = append(rows, task{program: "NoOp"})
	}
	w.define("long", rows...)
	w.define("skipped", task{program: "NoOp"}, task{program: "Tset1"}, task{program: "NoOp"})
	s := w.register()
	skipped := s.post("skipped")
	w.exec(`UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1 AND task_exec_seq = 2`, skipped)
	w.watcher("-poll-interval", "1h", "-workers", "1")
	w.await(skipped, "3 9 3")
	begin := time.Now()
	w.await(s.post("long"), strings.TrimSpace(strings.Repeat("3 ", 50)))
	require.Less(t, time.Since(begin), 30*time.Second)
	t.Logf("a chain of 50 took %s", time.Since(begin))
}

// 10. No signal handling, no timeouts, BODY encoded twice, only HTTP 200 counted as
// success, the database password on the command line, answers that were not JSON, any
// path beginning with /register accepted.
func TestFault10_TheRest(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/created":
			rw.WriteHeader(http.StatusCreated)
		case "/nothing":
			rw.WriteHeader(http.StatusNoContent)
		case "/hangs":
			<-r.Context().Done()
		}
	})
	calling := func(path, body string) task {
		step := p.calling(path)
		step.parameters = strings.TrimSuffix(step.parameters, "}") + `, "BODY": ` + body + `}`
		return step
	}
	hangs := p.calling("/hangs")
	hangs.timeout = "500 ms"
	w.define("http", calling("/created", `{"a": 1}`), calling("/nothing", `"{\"a\": 1}"`), hangs)
	s := w.register()
	watcher := w.watcher()
	flow := s.post("http")
	w.await(flow, "3 3 2")
	calls := p.seen()
	require.JSONEq(t, `{"a": 1}`, calls[0].body)
	require.JSONEq(t, `{"a": 1}`, calls[1].body, "a string is sent as it is")
	require.Equal(t, "timeout", w.rows(flow)[2].Reason)

	a := s.send(http.MethodPost, "/registersample", "", "")
	require.Equal(t, http.StatusNotFound, a.status)
	require.Contains(t, a.header.Get("Content-Type"), "json")

	for _, p := range []*process{watcher, s.process} {
		p.Signal(syscall.SIGTERM)
		require.Equal(t, 0, p.Exit())
	}
}

// The password comes from a file or from the environment, and is never shown.
func TestFault10_ThePasswordIsKept(t *testing.T) {
	w := newWorld(t)
	const password = "correct horse"
	role := "flower_" + strings.TrimPrefix(w.Name, "flower_test_")
	w.exec(`CREATE ROLE ` + role + ` LOGIN SUPERUSER PASSWORD '` + password + `'`)
	t.Cleanup(func() { dropRole(t, w, role) })
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte(password+"\n"), 0o600))
	w.define("quick", task{program: "NoOp"})
	s := serve(t, w.env("DB_USER="+role, "DB_PASS_FILE="+file))
	watcher := run(t, "watcher", w.env("DB_USER="+role, "DB_PASS="+password))
	w.await(s.post("quick"), "3")
	for _, p := range []*process{s.process, watcher} {
		require.NotContains(t, p.Log.String(), password)
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.Cmd.Process.Pid))
		require.NoError(t, err)
		require.NotContains(t, string(line), password)
	}
	require.NotContains(t, output(t, "watcher", "-dbpass", password, "-print-config"), password)
}

// dropRole removes a role of the server; it must own nothing any more.
func dropRole(t *testing.T, w *world, role string) {
	t.Helper()
	db, err := sqlx.Connect("postgres", w.DSN)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.Exec(`DROP ROLE ` + role)
	require.NoError(t, err)
}
