package e2e

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// The README of the original, step by step, on a database in which there is nothing: the
// two programs start at once, and one of them makes the tables.
func TestContractTheReadme(t *testing.T) {
	t.Parallel()
	w := &world{t, pgtest.Empty(t)}
	watcher := run(t, "watcher", w.env("WORKER_COUNT=3", "POLLING_INTERVAL_SECOND=1"))
	register := w.register("-webhost", "localhost")
	watcher.Await("watching task...")

	var master []struct {
		ID       string `db:"task_id"`
		Seq      int    `db:"task_seq"`
		Program  string `db:"program"`
		Priority int    `db:"task_priority"`
	}
	require.NoError(t, w.Select(&master, `SELECT task_id, task_seq, program, task_priority FROM ms_task_definition WHERE task_id = 'sample' ORDER BY task_seq`))
	require.Len(t, master, 3)
	for i, m := range master {
		require.Equal(t, "sample", m.ID)
		require.Equal(t, i+1, m.Seq)
		require.Equal(t, "Test"+strconv.Itoa(i+1), m.Program)
		require.Equal(t, 10, m.Priority)
	}

	a := register.send(http.MethodPost, "/register", "application/json", `{"taskId": "sample"}`)
	flow := register.flowOf(a, "sample")
	require.Equal(t, `{"status":"succeeded","taskId":"sample","taskFlowId":"`+flow+`"}`, a.text)
	w.await(flow, "3 3 3")
	rows := w.rows(flow)
	for i, r := range rows {
		require.Equal(t, 1, r.Attempt)
		require.NotNil(t, r.Started)
		require.NotNil(t, r.Finished)
		require.Nil(t, r.Suspended)
		require.False(t, r.Finished.Before(*r.Started))
		if i > 0 {
			require.False(t, r.Started.Before(*rows[i-1].Finished), "task %d started before %d had finished", r.Seq, r.Seq-1)
		}
	}
	w.sound()

	// What operators look for in the logs.
	for i := 1; i <= 3; i++ {
		watcher.Await("starting worker: "+strconv.Itoa(i), "component=dispatcher")
	}
	require.Len(t, watcher.Log.With("starting worker: "), 3)
	require.Equal(t, "1s", watcher.Await("watching task...", "component=watcher")["poll_interval"])
	address, _ := strings.CutPrefix(register.url, "http://127.0.0.1:")
	register.Await("starting server on address: localhost:"+address, "component=register")
}

// Registering makes these rows, before anybody runs them.
func TestContractRegisteredRows(t *testing.T) {
	w := newWorld(t)
	flow := w.register().post("sample")
	want := []row{
		{Flow: flow, Seq: 1, Depends: 0, Task: "sample", TaskSeq: 1, Priority: 10, Program: "Test1"},
		{Flow: flow, Seq: 2, Depends: 1, Task: "sample", TaskSeq: 2, Priority: 10, Program: "Test2"},
		{Flow: flow, Seq: 3, Depends: 2, Task: "sample", TaskSeq: 3, Priority: 10, Program: "Test3"},
	}
	require.Empty(t, cmp.Diff(want, w.rows(flow)))
	var registered int
	require.NoError(t, w.Get(&registered, `SELECT count(*) FROM kr_task_stat WHERE now() - registered_ts BETWEEN '0' AND '1 minute'`))
	require.Equal(t, 3, registered)
}

// How the original could be asked, and how it answered.
func TestContractRequests(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	w.define("broken", task{program: "NoOp", depends: []int32{7}})
	w.define("with/slash", task{program: "NoOp"})
	const json, form = "application/json", "application/x-www-form-urlencoded"
	for _, test := range []struct {
		method, path, contentType, body string
		status                          int
		text                            string // a part of the answer
	}{
		{"POST", "/register", json, `{"taskId": "sample"}`, 201, `{"status":"succeeded","taskId":"sample","taskFlowId":"`},
		{"POST", "/register/", json, `{"taskId": "sample"}`, 201, `"succeeded"`},
		{"POST", "/register", form, `{"taskId": "sample"}`, 201, `"succeeded"`}, // what curl -d says
		{"POST", "/register", "", `{"taskId": "sample"}`, 201, `"succeeded"`},
		{"POST", "/register/sample", "", "", 201, `{"status":"succeeded","taskId":"sample","taskFlowId":"`},
		{"POST", "/register/sample/", "", "", 201, `"succeeded"`},
		{"POST", "/register/with%2Fslash", "", "", 201, `"taskId":"with/slash"`},
		{"POST", "/register", json, `{"taskId": "unknown"}`, 404, `{"status":"failed","taskId":"unknown","description":"no tasks registered"}`},
		{"POST", "/register/unknown", "", "", 404, `{"status":"failed","taskId":"unknown","description":"no tasks registered"}`},
		{"POST", "/register", json, `{"taskId": "broken"}`, 422, `task_seq 1 depends on 7, which does not exist`},
		{"POST", "/register", json, `{"taskId": `, 400, `"status":"failed"`},
		{"POST", "/register", json, ``, 400, `"status":"failed"`},
		{"GET", "/register", "", "", 405, `POST`},
		{"PUT", "/register/sample", "", "", 405, `POST`},
		{"POST", "/registerx", json, `{"taskId": "sample"}`, 404, `no-such-path`},
		{"POST", "/register/sample/more", "", "", 404, `"status":"failed"`},
	} {
		a := s.send(test.method, test.path, test.contentType, test.body)
		require.Equal(t, test.status, a.status, "%+v: %s", test, a.text)
		require.Contains(t, a.text, test.text, "%+v", test)
		require.Contains(t, a.header.Get("Content-Type"), "json", "%+v", test)
		if test.status == http.StatusMethodNotAllowed {
			require.Equal(t, "POST", a.header.Get("Allow"))
		}
	}
	var flows int
	require.NoError(t, w.Get(&flows, `SELECT count(DISTINCT task_flow_id) FROM kr_task_stat`))
	require.Equal(t, 7, flows)
}

// Flags with one dash and with two, with = and without; a flag counts more than the
// environment.
func TestContractFlags(t *testing.T) {
	w := newWorld(t)
	var dashes, assigned []string
	for _, pair := range w.env("DB_PASS=whatever") {
		name, value, _ := strings.Cut(pair, "=")
		name = strings.ToLower(strings.Replace(name, "_", "", 1))
		dashes = append(dashes, "-"+name, value)
		assigned = append(assigned, "--"+name+"="+value)
	}
	wrong := []string{"DB_USER=nobody", "DB_HOST=192.0.2.1", "DB_PORT=1", "DB_NAME=nothing", "WORKER_COUNT=7"}
	s := serve(t, wrong, append(dashes, "-webhost", "127.0.0.1")...)
	watcher := run(t, "watcher", wrong, append(assigned, "--workers=2", "--poll-interval=10s")...)
	watcher.Await("watching task...", "workers=2", "poll_interval=10s")
	w.define("quick", task{program: "NoOp"})
	w.await(s.post("quick"), "3")
}

func TestContractDefaults(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"register", "watcher"} {
		text := output(t, name, "-print-config")
		for _, want := range []string{
			`-dbuser +flower +default`, `-dbhost +localhost +default`, `-dbport +5432 +default`, `-dbname +flower +default`,
		} {
			require.Regexp(t, want, text)
		}
	}
	require.Regexp(t, `-webhost +localhost +default`, output(t, "register", "-print-config"))
	require.Regexp(t, `-webport +8000 +default`, output(t, "register", "-print-config"))
	require.Regexp(t, `-workers +5 +default`, output(t, "watcher", "-print-config"))
	require.Regexp(t, `-poll-interval +5s +default`, output(t, "watcher", "-print-config"))
	programs := strings.Fields(output(t, "watcher", "-programs"))
	require.Subset(t, programs, []string{"Test1", "Test2", "Test3", "EchoRandomTimeSleep", "EchoParamTimeSleep", "HTTPPostRequest"})
}

// Smaller is more urgent; of equals the flow goes first that was registered earlier, so
// that started flows are finished before new ones begin.
func TestContractPriorities(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	chain := []task{{program: "NoOp"}, {program: "NoOp"}, {program: "NoOp"}}
	w.define("chain", chain...)
	for i := range chain {
		chain[i].priority = -20
	}
	w.define("urgent", chain...)
	for i := range chain {
		chain[i].priority = 19
	}
	w.define("nice", chain...)
	flows := []string{s.post("nice"), s.post("chain"), s.post("chain"), s.post("urgent")}
	w.watcher("-workers", "1")
	for _, f := range flows {
		w.await(f, "3 3 3")
	}
	var order []string
	require.NoError(t, w.Select(&order, `SELECT task_flow_id || '/' || task_exec_seq FROM kr_task_stat ORDER BY started_ts`))
	var want []string
	for _, i := range []int{3, 1, 2, 0} {
		for _, seq := range []string{"/1", "/2", "/3"} {
			want = append(want, flows[i]+seq)
		}
	}
	require.Equal(t, want, order)

	_, err := w.Exec(`UPDATE kr_task_stat SET task_priority = 20`)
	require.ErrorContains(t, err, "23514")
	_, err = w.Exec(`UPDATE ms_task_definition SET task_priority = -21`)
	require.ErrorContains(t, err, "23514")
}

// Rows that somebody puts in by hand, with the original's columns alone, work like any
// others, whatever the flow is called and however no dependency is written.
func TestContractRowsByHand(t *testing.T) {
	w := newWorld(t)
	w.exec(`INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority) VALUES ('hand', 1, 'NoOp', 10), ('hand', 2, 'NoOp', 10), ('hand', 3, 'NoOp', 10)`)
	w.watcher()
	const columns = `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority) VALUES `

	w.exec(columns + `('test_flow_1', 1, -1, 'hand', 1, 0, 10), ('test_flow_1', 2, 1, 'hand', 2, 0, 10), ('test_flow_1', 3, 2, 'hand', 3, 0, 10)`)
	w.await("test_flow_1", "3 3 3")

	// One by one, children first, and with the times that the original's scripts give.
	w.exec(columns + `('Ünï "odd" id', 3, 2, 'hand', 3, 0, 10)`)
	w.exec(columns + `('Ünï "odd" id', 2, 1, 'hand', 2, 0, 10)`)
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority,
		registered_ts, started_ts, finished_ts, suspended_ts) VALUES ('Ünï "odd" id', 1, 0, 'hand', 1, 0, 10, now(), NULL, NULL, NULL)`)
	w.await(`Ünï "odd" id`, "3 3 3")

	// Statuses 1 and 3: what is finished lets the next one go; what runs belongs to
	// somebody else, is waited for and left alone.
	w.exec(columns + `('half', 1, 0, 'hand', 1, 3, 10), ('half', 2, 1, 'hand', 2, 0, 10), ('theirs', 1, -1, 'hand', 1, 1, 10), ('theirs', 2, 1, 'hand', 2, 0, 10)`)
	w.await("half", "3 3")
	require.Equal(t, "1 0", w.statuses("theirs"))
	w.exec(`UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = 'theirs' AND task_exec_seq = 1`)
	w.await("theirs", "3 3")

	// Status 9 counts as finished, 2 does not.
	w.exec(columns + `('skipped', 1, 0, 'hand', 1, 9, 10), ('skipped', 2, 1, 'hand', 2, 0, 10), ('stopped', 1, 0, 'hand', 1, 2, 10), ('stopped', 2, 1, 'hand', 2, 0, 10)`)
	w.await("skipped", "9 3")
	require.Equal(t, "2 0", w.statuses("stopped"))
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'stopped' AND exec_status = 2`)
	w.await("stopped", "3 3")
	w.sound()
}

// Times: registered_ts on insert, started_ts on 0→1, finished_ts on 1→3, suspended_ts on
// 1→2, and none that does not belong to the state.
func TestContractTimes(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fails" {
			rw.WriteHeader(http.StatusTeapot)
			return
		}
		free.wait(rw, r)
	})
	w.define("times", p.calling("/works"), p.calling("/fails"), task{program: "NoOp"})
	s := w.register()
	w.watcher()
	flow := s.post("times")
	w.await(flow, "1 0 0")
	rows := w.rows(flow)
	require.NotNil(t, rows[0].Started)
	require.Nil(t, rows[0].Finished)
	require.Nil(t, rows[1].Started)
	close(free)
	w.await(flow, "3 2 0")
	rows = w.rows(flow)
	require.NotNil(t, rows[0].Finished)
	require.Nil(t, rows[0].Suspended)
	require.NotNil(t, rows[1].Suspended)
	require.Nil(t, rows[1].Finished)
	require.Nil(t, rows[2].Started)
	var ordered bool
	require.NoError(t, w.Get(&ordered, `SELECT bool_and(registered_ts <= started_ts AND started_ts <= coalesce(finished_ts, suspended_ts)) FROM kr_task_stat WHERE started_ts IS NOT NULL`))
	require.True(t, ordered)
}

// The documented recovery: the failed task and what follows run again, nothing else; it
// is picked up at once …
func TestContractRecovery(t *testing.T) {
	w := newWorld(t)
	testRecovery(w, func() { w.watcher("-poll-interval", "1h") })
}

// … and where nobody can listen to notifications, with the next poll.
func TestContractRecoveryByPoll(t *testing.T) {
	w := newWorld(t)
	testRecovery(w, func() { w.watcher("-poll-interval", "1s", "-db-pooler") })
}

func testRecovery(w *world, watch func()) {
	w.Helper()
	broken := make(gate)
	p := newPeer(w.T, func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-broken:
		default:
			if r.URL.Path == "/second" {
				http.Error(rw, "the invoice has no address", http.StatusInternalServerError)
			}
		}
	})
	w.define("recover", p.calling("/first"), p.calling("/second"), p.calling("/third"))
	s := w.register()
	watch()
	flow := s.post("recover")
	w.await(flow, "3 2 0")
	failed := w.rows(flow)[1]
	require.Equal(w, "failed", failed.Reason)
	require.Contains(w, failed.Error, "500")
	require.Contains(w, failed.Error, "the invoice has no address")
	close(broken)
	begin := time.Now()
	w.exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = '` + flow + `' AND exec_status = 2`)
	w.await(flow, "3 3 3")
	require.Less(w, time.Since(begin), soon/2)
	require.Equal(w, []int{1, 2, 1}, []int{p.at("/first"), p.at("/second"), p.at("/third")})
	require.Equal(w, "", w.rows(flow)[1].Error)
}
