package simulation

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// state is what a database holds, or should.
type state struct {
	Tasks      map[string]row
	Attempts   map[string]map[int]attemptRow
	Flows      []flow.ID // of kr_flow
	Watchers   []string
	Invariants []string
}

type row struct {
	Status     int    `json:"exec_status"`
	Priority   int    `json:"task_priority"`
	Program    string `json:"program"`
	Attempt    int    `json:"attempt"`
	Base       int    `json:"attempt_base"`
	Failed     int    `json:"failed_count"`
	Lost       int    `json:"lost_count"`
	Claim      string `json:"claim"`
	Watcher    string `json:"watcher"`
	Wait       wait   `json:"wait"`
	Reason     string `json:"why"`
	Hold       bool   `json:"hold"`
	HasError   bool   `json:"has_error"`
	Output     string `json:"result"`
	Pause      string `json:"paused"`
	Asks       bool   `json:"asks"`
	Approved   bool   `json:"approved"`
	Began      bool   `json:"began"`
	Started    bool   `json:"started"`
	Finished   bool   `json:"finished"`
	Suspended  bool   `json:"suspended"`
	Unmet      int    `json:"open"` // of a waiting task
	Ready      bool   `json:"ready"`
	Registered int64  `json:"registered"` // microseconds
}

type attemptRow struct {
	Status int    `json:"exec_status"`
	Claim  string `json:"claim"`
}

// stateSQL reads everything in one statement.
const stateSQL = `
SELECT json_build_object(
  'tasks', (SELECT coalesce(json_object_agg(key, to_json(t)), '{}') FROM (
     SELECT t.task_flow_id || '/' || t.task_exec_seq AS key, exec_status, t.task_priority, coalesce(program, '') AS program, attempt, attempt_base, failed_count,
            lost_count, coalesce(claim_id::text, '') AS claim, coalesce(watcher_id::text, '') AS watcher,
            CASE WHEN run_after > clock_timestamp() THEN 1 WHEN run_after IS NOT NULL THEN 2 ELSE 0 END AS wait,
            coalesce(reason, '') AS why, hold, error IS NOT NULL AS has_error, CASE WHEN output->>'approved_by' = session_user THEN '{"approved": true}' ELSE coalesce(output::text, '') END AS result,
            coalesce(pause->>'state', '') AS paused, coalesce(pause ? 'ask', false) AS asks,
            coalesce(pause->'approval'->>'approved_by' = session_user, false) AS approved,
            began_ts IS NOT NULL AS began, started_ts IS NOT NULL AS started, finished_ts IS NOT NULL AS finished, suspended_ts IS NOT NULL AS suspended,
            CASE WHEN exec_status = 0 THEN unmet ELSE 0 END AS open, r.task_flow_id IS NOT NULL AS ready,
            (extract(epoch FROM t.registered_ts) * 1000000)::bigint AS registered
     FROM kr_task_stat t LEFT JOIN kr_ready r USING (task_flow_id, task_exec_seq)) t),
  'attempts', (SELECT coalesce(json_object_agg(key, attempts), '{}') FROM (
     SELECT task_flow_id || '/' || task_exec_seq AS key,
            json_object_agg(attempt, json_build_object('exec_status', exec_status, 'claim', coalesce(claim_id::text, ''))) AS attempts
     FROM kr_task_attempt GROUP BY 1) a),
  'flows', (SELECT coalesce(json_agg(task_flow_id ORDER BY task_flow_id), '[]') FROM kr_flow),
  'watchers', (SELECT coalesce(json_agg(watcher_id::text ORDER BY watcher_id::text), '[]') FROM kr_watcher),
  'invariants', (SELECT coalesce(json_agg(rule || ': ' || task_flow_id || '/' || task_exec_seq || ' ' || detail), '[]') FROM v_invariant))`

// compare holds the database to the model and to its own invariants.
func (w *world) compare() {
	var text []byte
	require.NoError(w, w.db.Get(&text, stateSQL))
	var got state
	require.NoError(w, json.Unmarshal(text, &got))
	require.Empty(w, got.Invariants, "v_invariant")
	require.Empty(w, cmp.Diff(w.model.state(), got), "the database (+) is not what it should be (-)")
}

func (m *model) state() state {
	s := state{
		Tasks: make(map[string]row), Attempts: make(map[string]map[int]attemptRow),
		Flows: append([]flow.ID{}, m.flows()...), Watchers: append([]string{}, slices.Sorted(maps.Keys(m.watchers))...), Invariants: []string{},
	}
	for key, t := range m.tasks {
		r := row{
			Status: int(t.status), Priority: t.priority, Program: t.program, Attempt: t.attempt, Base: t.base, Failed: t.failed, Lost: t.lost,
			Claim: t.claim, Watcher: t.watcher, Wait: t.wait, Reason: t.reason, Hold: t.hold, HasError: t.hasError, Output: t.output,
			Pause: t.pause, Asks: t.asks, Approved: t.approved,
			Began: t.began, Started: t.started, Finished: t.finished, Suspended: t.suspended, Ready: m.ready(key), Registered: t.registered.UnixMicro(),
		}
		if t.status == flow.Waiting {
			r.Unmet = m.unmet(key)
		}
		s.Tasks[key.String()] = r
	}
	for key, attempts := range m.attempts {
		s.Attempts[key.String()] = make(map[int]attemptRow)
		for n, a := range attempts {
			s.Attempts[key.String()][n] = attemptRow{int(a.status), a.claim}
		}
	}
	return s
}
