package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Both programs say when v_invariant is not empty, and what was repaired; neither is out
// of service for it.
func TestHealthSaysWhatIsBroken(t *testing.T) {
	w := newWorld(t)
	w.define("quick", task{program: "NoOp"})
	s := w.register()
	ask := func(p *process, address, query string) answer {
		t.Helper()
		return (&server{process: p, url: address}).send(http.MethodGet, "/readyz"+query, "", "")
	}
	require.Contains(t, ask(s.process, s.url, "").text, "ready\nv_invariant: not checked yet")

	flow := s.post("quick")
	w.behind(`DELETE FROM kr_ready`)
	watcher := w.watcher("-health-addr", "127.0.0.1:0", "-poll-interval", "1s")
	address := "http://" + watcher.Await("health checks are answered")["address"].(string)
	watcher.Await("v_invariant is not empty: sweeping", "rule=what can go is in the queue", "rows=1", "flow="+flow, "seq=1")
	for _, answer := range []func() answer{
		func() answer { return ask(s.process, s.url, "?strict") },
		func() answer { return ask(watcher, address, "?strict") },
	} {
		pgtest.Eventually(t, soon, "it is repaired", func() bool { return answer().status == http.StatusOK })
		require.Regexp(t, `ready
v_invariant: empty, checked \d+s ago
  Repaired \d+s ago:
  what can go is in the queue: 1 row, such as task 1 of flow "`+flow+`": no entry in kr_ready`, answer().text)
	}
	w.await(flow, "3")

	// This one no sweep repairs. (Not checked for so long: the next one is due.)
	w.behind(`UPDATE kr_task_stat SET reason = 'held'`)
	w.behind(`UPDATE kr_check SET checked_ts = checked_ts - interval '1 h'`)
	other := w.watcher("-health-addr", "127.0.0.1:0", "-poll-interval", "1s")
	other.Await("v_invariant is not empty after a sweep: SELECT * FROM v_invariant", "rule=only a suspended task has a reason")
	for p, url := range map[*process]string{s.process: s.url, watcher: address} {
		a := ask(p, url, "")
		require.Equal(t, http.StatusOK, a.status)
		require.Regexp(t, `ready
v_invariant: NOT EMPTY for \d+s, checked \d+s ago
  only a suspended task has a reason: 1 row, such as task 1 of flow "`+flow+`": exec_status is 3, reason is held
  A sweep repairs this within a minute or two, as a rule. If it stays: SELECT \* FROM v_invariant;`, a.text)
		require.Equal(t, http.StatusServiceUnavailable, ask(p, url, "?strict").status)
	}
}

// behind runs a statement with the triggers switched off.
func (w *world) behind(query string) {
	w.Helper()
	tx, err := w.Beginx()
	require.NoError(w, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec(`SET LOCAL session_replication_role = replica`)
	require.NoError(w, err)
	_, err = tx.Exec(query)
	require.NoError(w, err)
	require.NoError(w, tx.Commit())
}
