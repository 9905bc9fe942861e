package postgres

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

var manyFlows = flag.Int("lists.flows", 0, "measure lists with so many flows, of three tasks each: it takes some minutes")

// fillFlows makes a database of n flows, of which the last 2 of 100 wait in the queue, and of
// the others one in a hundred has failed, and some are held or cancelled. Their tasks are put
// in as if they had run. Workflow "rare" and registrar "alice" have few flows.
func fillFlows(t *testing.T, w *world, n int) {
	t.Helper()
	behind(t, w, fmt.Sprintf(`
		CREATE TABLE given AS
		SELECT f, format('%%s-%%s-7%%s-8%%s-%%s', left(h, 8), substr(h, 9, 4), left(m, 3), substr(m, 4, 3), substr(m, 7, 12)) AS id, ts,
		       CASE WHEN f %% (%[1]d / 20) = 7 THEN 'rare' ELSE 'w' || (f %% 50) END AS workflow,
		       CASE WHEN f %% (%[1]d / 50) = 11 THEN 'alice' WHEN f %% 3 = 0 THEN NULL ELSE 'cron' END AS by,
		       CASE WHEN f > %[1]d * 0.98 THEN 'ready' WHEN f %% 100 = 3 THEN 'failed' WHEN f %% 500 = 4 THEN 'held'
		            WHEN f %% 500 = 5 THEN 'cancelled' WHEN f %% (%[1]d / 10) = 6 THEN 'lost' ELSE 'finished' END AS kind
		FROM   (SELECT f, ts, lpad(to_hex((extract(epoch FROM ts) * 1000)::bigint), 12, '0') AS h, md5(f::text) AS m
		        FROM (SELECT f, now() - (%[1]d - f) * interval '5 s' AS ts FROM generate_series(1, %[1]d) f) y) x`, n))
	behind(t, w, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, registered_ts, started_ts,
		                          finished_ts, suspended_ts, reason, error, attempt, unmet, claim_id, dependents, program)
		SELECT id, s, s - 1, workflow, s, st, ts, CASE WHEN st IN (2, 3) THEN ts + s * interval '1 s' END,
		       CASE WHEN st = 3 THEN ts + s * interval '1.5 s' END, CASE WHEN st = 2 THEN ts + s * interval '1.5 s' END,
		       CASE WHEN st = 2 THEN kind END, CASE WHEN st = 2 AND kind = 'failed' THEN format('POST https://api.example/%s: 503', f) END,
		       (st <> 0)::int, (st = 0 AND s > 1)::int, CASE WHEN st IN (2, 3) THEN gen_random_uuid() END,
		       CASE s WHEN 3 THEN '{}' ELSE ARRAY[s + 1] END, CASE workflow WHEN 'rare' THEN 'Rare' ELSE 'Test' || s END
		FROM   given, generate_series(1, 3) s,
		       LATERAL (SELECT CASE WHEN kind = 'finished' THEN 3 WHEN kind = 'ready' THEN 0 WHEN s = 1 THEN 3 WHEN s = 2 THEN 2
		                            WHEN kind IN ('held', 'cancelled') THEN 2 ELSE 0 END AS st) x
		ORDER  BY f, s`)
	behind(t, w, `INSERT INTO kr_flow (task_flow_id, task_id, registered_ts, registered_by) SELECT id, workflow, ts, by FROM given ORDER BY f`)
	behind(t, w, `INSERT INTO kr_ready SELECT 0, ts, id, 1 FROM given WHERE kind = 'ready'`)
	mustExec(t, w.psql, `DROP TABLE given`)
	mustExec(t, w.psql, `VACUUM ANALYZE kr_task_stat, kr_flow, kr_ready`)
}

// listed are the filters that lists are measured with.
func listed(t *testing.T, w *world) map[string]flow.Filter {
	t.Helper()
	day := flow.Moment{Before: 24 * time.Hour}
	filters := map[string]flow.Filter{
		"everything":         {},
		"failed or running":  {Status: []string{flow.FlowFailed, flow.FlowRunning}},
		"a workflow":         {WorkflowID: "w7"},
		"a rare workflow":    {WorkflowID: "rare"},
		"a registrar":        {RegisteredBy: "cron"},
		"a rare registrar":   {RegisteredBy: "alice"},
		"alice's failed":     {RegisteredBy: "alice", Status: []string{flow.FlowFailed}},
		"cron's failed":      {RegisteredBy: "cron", Status: []string{flow.FlowFailed}},
		"a reason":           {Reason: flow.ReasonLost},
		"another reason":     {Reason: flow.ReasonFailed},
		"a program":          {Program: "Test2"},
		"a rare program":     {Program: "Rare"},
		"a failed program":   {Program: "Test2", Status: []string{flow.FlowFailed}},
		"a fingerprint":      {Fingerprint: value[string](t, w, `SELECT flower_fingerprint('POST https://api.example/1: 503')`)},
		"today":              {Since: day},
		"before today":       {Until: day},
		"today's failed":     {Since: day, Status: []string{flow.FlowFailed}},
		"today's long ones":  {Since: day, MinDuration: time.Hour},
		"a text in names":    {Text: "w4"},
		"a text in errors":   {Text: "/103: 503"},
		"a text nowhere":     {Text: "nowhere"},
		"a prefix":           {Text: "01"},
		"failed with a text": {Text: "503", Status: []string{flow.FlowFailed}},
	}
	for _, status := range flow.FlowStatuses {
		filters[status] = flow.Filter{Status: []string{status}}
		filters[status+" of a workflow"] = flow.Filter{Status: []string{status}, WorkflowID: "w3"}
	}
	return filters
}

// planNode is a node of what EXPLAIN shows.
type planNode struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Index    string `json:"Index Name"`
	Hit      int    `json:"Shared Hit Blocks"`
	Read     int    `json:"Shared Read Blocks"`
	Plans    []planNode
}

func explainPlan(t *testing.T, tx *sqlx.Tx, query string, args []any) planNode {
	t.Helper()
	var text string
	require.NoError(t, tx.Get(&text, `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) `+query, args...))
	var plans []struct{ Plan planNode }
	require.NoError(t, json.Unmarshal([]byte(text), &plans))
	return plans[0].Plan
}

// scanned returns the tables that a plan reads whole.
func (p planNode) scanned() (tables []string) {
	if p.Type == "Seq Scan" {
		tables = append(tables, p.Relation)
	}
	for _, child := range p.Plans {
		tables = append(tables, child.scanned()...)
	}
	return tables
}

// No list reads a table whole, and none looks at more than a walk's worth of pages. Neither
// do the other reads of what is large.
func TestLists_Plans(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	fillFlows(t, w, 20_000)
	check := func(tx *sqlx.Tx, name, text string, args []any, most int) {
		t.Helper()
		p := explainPlan(t, tx, text, args)
		for _, table := range p.scanned() {
			require.NotContains(t, []string{"kr_task_stat", "kr_flow", "kr_task_attempt", "kr_task_log", "kr_event"}, table, "%s", name)
		}
		t.Logf("%6d pages: %s", p.Hit+p.Read, name)
		require.LessOrEqual(t, p.Hit+p.Read, most, name)
	}
	const perFlow = 25 // pages, of three tasks, with what it takes to find the flow
	err := w.reading(t.Context(), func(tx *sqlx.Tx) error {
		for name, f := range listed(t, w) {
			walks, err := sources(t.Context(), tx, f)
			require.NoError(t, err)
			for i, s := range walks {
				text, args := s.listSQL(flow.Position{}, minStride)
				check(tx, fmt.Sprintf("%s (%d)", name, i), text, args, 3000+minStride*perFlow)
				text, args = s.countSQL(flow.Position{}, maxWalk)
				check(tx, fmt.Sprintf("%s (%d) counted", name, i), text, args, 3000+maxWalk*perFlow)
			}
		}
		q := &query{}
		check(tx, "failures", failureGroupsSQL(q, flow.FailureFilter{Limit: 50}), q.args, 2000)
		q = &query{}
		check(tx, "events", eventsSQL(q, flow.EventFilter{Flow: "x", Limit: 50}, 0, false), q.args, 100)
		check(tx, "queue", queueSQL, []any{"", 50, 50}, 3000)
		check(tx, "running", runningTasksSQL, []any{50}, 3000)
		check(tx, "stand", standSQL, []any{flow.MaxCount}, 4000)
		check(tx, "attention", attentionSQL, []any{flow.MaxCount}, 1200) // it counts a thousand failures
		check(tx, "statistics of flows", statFlowsSQL, []any{"w7", time.Now().Add(-1e4 * time.Hour), 300}, 300*perFlow)
		check(tx, "statistics of tasks", statTasksSQL, []any{"w7", time.Now().Add(-1e4 * time.Hour), 300}, 300*perFlow)
		check(tx, "id prefix", prefixSQL, []any{"01%", 10}, 3000)
		check(tx, "who waits", othersWaitSQL, []any{"alice", 10, ""}, 50)
		return nil
	})
	require.NoError(t, err)
}

// With a million flows, each list answers within 50 ms, nearly always, on a machine that has
// nothing else to do: go test ./internal/postgres -run Lists_OfMany -lists.flows 1000000 -v.
func TestLists_OfMany(t *testing.T) {
	if *manyFlows == 0 {
		t.Skip("measures with -lists.flows")
	}
	w := openBroken(t)
	fillFlows(t, w, *manyFlows)
	filters := listed(t, w)
	var names []string
	for name := range filters {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var first, page flow.Page
		p95 := measure(t, func() (err error) {
			first, err = w.Flows(t.Context(), filters[name], flow.Position{}, 50)
			return err
		})
		later := measure(t, func() (err error) {
			page, err = w.Flows(t.Context(), filters[name], first.Next, 50)
			return err
		})
		t.Logf("%-24s %3d flows, p95 %6.1f ms; %3d on the next page, p95 %6.1f ms",
			name, len(first.Flows), ms(p95), len(page.Flows), ms(later))
		require.Less(t, p95, 50*time.Millisecond, name)
		require.Less(t, later, 50*time.Millisecond, name)
	}
	for name, read := range map[string]func(ctx context.Context) error{
		"counts": func(ctx context.Context) error { _, err := w.FlowCounts(ctx, flow.Filter{}); return err },
		"failures": func(ctx context.Context) error {
			_, err := w.FailureGroups(ctx, flow.FailureFilter{Limit: 50})
			return err
		},
		"queue":      func(ctx context.Context) error { _, _, err := w.Queue(ctx, "", 50); return err },
		"running":    func(ctx context.Context) error { _, err := w.Running(ctx, 50); return err },
		"statistics": func(ctx context.Context) error { _, err := w.WorkflowStats(ctx, "w7", 7*24*time.Hour); return err },
		"workflows":  func(ctx context.Context) error { _, _, err := w.Workflows(ctx, "", "", 50, 10); return err },
		"attention":  func(ctx context.Context) error { _, err := w.Attention(ctx); return err },
	} {
		t.Logf("%-24s p95 %6.1f ms", name, ms(measure(t, func() error { return read(t.Context()) })))
	}
}

// measure returns the 95th percentile of how long it takes, when it was called before.
func measure(t *testing.T, f func() error) time.Duration {
	t.Helper()
	require.NoError(t, f())
	times := make([]time.Duration, 40)
	for i := range times {
		start := time.Now()
		require.NoError(t, f())
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	return times[len(times)*95/100]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Claims and finishes are HOT: they change no column that an index knows, be it in its
// condition. Whoever adds such an index makes each of them a quarter more expensive.
func TestEngine_ChangesNoIndexedColumn(t *testing.T) {
	t.Parallel()
	w := open(t)
	indexed := all[string](t, w, `
		SELECT DISTINCT attname FROM pg_index i
		JOIN   pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
		JOIN   pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE  i.indrelid = 'kr_task_stat'::regclass`)
	require.Subset(t, indexed, []string{"task_flow_id", "suspended_ts", "reason", "error", "gate"})
	id := register(t, w, def(), def(1))
	var before map[string]any
	changed := func() (columns []string) {
		t.Helper()
		var now map[string]any
		text := value[string](t, w, `SELECT jsonb_object_agg(task_exec_seq, to_jsonb(t)) FROM kr_task_stat t WHERE task_flow_id = $1`, string(id))
		require.NoError(t, json.Unmarshal([]byte(text), &now))
		for seq, task := range now {
			for column, v := range task.(map[string]any) {
				if before != nil && fmt.Sprint(before[seq].(map[string]any)[column]) != fmt.Sprint(v) {
					columns = append(columns, column)
				}
			}
		}
		before = now
		return columns
	}
	changed()
	task := claimOne(t, w)
	claimed := changed()
	require.Contains(t, claimed, "exec_status")
	adv := advance(t, w, []*flow.Result{{Task: task, Outcome: flow.OutcomeFinished, Output: object(`{"a": 1}`)}}, flow.Claim{Free: 1})
	require.Len(t, adv.Claimed, 1)
	advanced := changed()
	require.Contains(t, advanced, "output")
	for _, column := range append(claimed, advanced...) {
		require.NotContains(t, indexed, column)
	}
}
