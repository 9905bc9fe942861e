package postgres

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// flower_register, for people at psql, makes the rows that Register makes.

// registerAtPsql makes a flow with flower_register.
func registerAtPsql(t *testing.T, w *world, r flow.Registration) (flow.ID, error) {
	t.Helper()
	var id string
	err := w.psql.Get(&id, `SELECT flower_register($1, $2, key => $3, priority => $4, note => $5, registered_by => $6)`,
		string(r.WorkflowID), jsonText(r.Parameters), nullable(r.IdempotencyKey), r.Priority, nullable(r.Note), nullable(r.RegisteredBy))
	return flow.ID(id), err
}

// madeRows are the rows of a flow, but for what is each flow's own.
func madeRows(t *testing.T, w *world, id flow.ID) string {
	t.Helper()
	return value[string](t, w, `SELECT jsonb_pretty(jsonb_build_object(
		'flow', (SELECT to_jsonb(f) - '{task_flow_id,registered_ts,replayed_ts,idempotency_key}'::text[] FROM kr_flow f WHERE task_flow_id = $1),
		'tasks', (SELECT jsonb_agg(to_jsonb(t) - '{task_flow_id,registered_ts}'::text[] ORDER BY task_exec_seq) FROM kr_task_stat t WHERE task_flow_id = $1),
		'ready', (SELECT jsonb_agg(task_exec_seq || ' ' || task_priority ORDER BY task_exec_seq) FROM kr_ready WHERE task_flow_id = $1),
		'one time', (SELECT count(DISTINCT ts) FROM (SELECT registered_ts AS ts FROM kr_task_stat WHERE task_flow_id = $1 UNION ALL
		             SELECT registered_ts FROM kr_ready WHERE task_flow_id = $1 UNION ALL SELECT registered_ts FROM kr_flow WHERE task_flow_id = $1) x)))`, string(id))
}

// randomGraph draws definitions whose task_seqs are in no topological order.
func randomGraph(r *rand.Rand, n int) []flow.TaskDefinition {
	seqs := r.Perm(3 * n)[:n]
	defs := make([]flow.TaskDefinition, n)
	for i := range defs {
		defs[i] = def()
		defs[i].Seq = seqs[i] + 1
		defs[i].Priority = r.IntN(40) - 20
		for _, s := range seqs[:i] {
			if r.IntN(3) == 0 {
				defs[i].DependsOn = append(defs[i].DependsOn, s+1, s+1)
			}
		}
		if r.IntN(4) == 0 {
			defs[i].Description, defs[i].MaxAttempts, defs[i].OnLost = "a\nb", 3, flow.OnLostSuspend
			defs[i].RetryDelay, defs[i].Timeout = 1234567*time.Microsecond, 90*time.Minute
			defs[i].Parameters = object(`{"a": 1, "b": {"c": [1, 2]}}`)
		}
	}
	return defs
}

func TestRegisterTwin_TheSameRows(t *testing.T) {
	t.Parallel()
	w := open(t)
	r := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	graphs := map[flow.WorkflowID][]flow.TaskDefinition{
		"one": {def()}, "chain": chain(5), "diamond": {def(), def(1), def(1), def(2, 3)},
		"backwards": {def(2), def(3), def(4), def()}, "wide": append([]flow.TaskDefinition{def()}, chain(1)...),
	}
	for i := range 40 {
		graphs[flow.WorkflowID(fmt.Sprint("graph ", i))] = randomGraph(r, 1+r.IntN(14))
	}
	for id, defs := range graphs {
		define(t, w, id, defs...)
		if r.IntN(3) == 0 {
			mustExec(t, w.psql, `INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ($1, 5)`, string(id))
		}
		ask := flow.Registration{WorkflowID: id, RegisteredBy: "alice"}
		if r.IntN(2) == 0 {
			ask.Parameters, ask.Priority, ask.Note = object(`{"b": null, "day": "2026-11-24"}`), new(r.IntN(40)-20), "again"
		}
		ask.FlowID = flow.ID(newID())
		made, err := w.Register(t.Context(), ask)
		require.NoError(t, err)
		atPsql, err := registerAtPsql(t, w, ask)
		require.NoError(t, err)
		require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, atPsql)
		_, _, err = w.Promote(t.Context()) // admits what waits for a limit, as a watcher does when it is woken
		require.NoError(t, err)
		require.Equal(t, madeRows(t, w, made.ID), madeRows(t, w, atPsql), id)
		sound(t, w)
	}
}

// What Register refuses, flower_register refuses in the same words.
func TestRegisterTwin_TheSameErrors(t *testing.T) {
	t.Parallel()
	w := open(t)
	for id, defs := range map[flow.WorkflowID][]flow.TaskDefinition{
		"unknown": {def(), def(1, 7)}, "itself": {def(), def(2)}, "two": {def(), def(9, 2), def(3)},
		"cycle": {def(), def(4, 1), def(2), def(3)}, "behind a cycle": {def(), def(1, 4), def(4), def(3), def(2)},
		"long cycle": append([]flow.TaskDefinition{def(20)}, chain(19)...),
	} {
		define(t, w, id, defs...)
		_, want := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: id})
		var invalid *flow.InvalidError
		require.ErrorAs(t, want, &invalid)
		_, err := registerAtPsql(t, w, flow.Registration{WorkflowID: id})
		require.ErrorContains(t, err, "pq: "+invalid.Error()+" (22023)", id)
	}
	for text, ask := range map[string]flow.Registration{
		`workflow "nobody's": no tasks registered`: {WorkflowID: "nobody's"},
		"priority: it is from -20 to 19":           {WorkflowID: "sample", Priority: new(20)},
		"parameters: they must be a JSON object":   {WorkflowID: "sample", Parameters: object(`[]`)},
		"parameters: an expression, ${{ … }}":      {WorkflowID: "sample", Parameters: object(`{"a": {"\u0024{{ 1 }}": 1}}`)},
		"key: it has 1 to 200":                     {WorkflowID: "sample", IdempotencyKey: "a\nb"},
	} {
		_, err := registerAtPsql(t, w, ask)
		require.ErrorContains(t, err, text)
	}
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

// hashed is the fingerprint of a request as register makes it.
func hashed(t *testing.T, r flow.Registration) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	require.NoError(t, e.Encode([]any{r.WorkflowID, r.Parameters, r.Priority}))
	sum := sha256.Sum256(bytes.TrimSpace(b.Bytes()))
	return hex.EncodeToString(sum[:])
}

// A key is worth the same whichever way a request comes.
func TestRegisterTwin_Keys(t *testing.T) {
	t.Parallel()
	w := open(t)
	for i, parameters := range []string{
		"", `{}`, `{"zz":1,"a":{"b":[1,"two",null,true],"":-1.5}}`, `{"text":"<\"\\\n\u0001\b\f\u2028é😀 '"}`,
	} {
		ask := flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample", IdempotencyKey: fmt.Sprint("key ", i), RegisteredBy: "alice"}
		if parameters != "" {
			var v any
			require.NoError(t, json.Unmarshal([]byte(parameters), &v))
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			require.NoError(t, e.Encode(v))
			ask.Parameters = bytes.TrimSpace(b.Bytes())
		}
		ask.Fingerprint = hashed(t, ask)
		first, err := registerAtPsql(t, w, ask)
		require.NoError(t, err)
		made, err := w.Register(t.Context(), ask)
		require.NoError(t, err, parameters)
		require.Equal(t, first, made.ID)
		again, err := registerAtPsql(t, w, ask)
		require.NoError(t, err)
		require.Equal(t, first, again)
		ask.Priority = new(3)
		_, err = registerAtPsql(t, w, ask)
		require.ErrorContains(t, err, "the idempotency key was used for a different request")
	}

	// Many at once make one.
	var group errgroup.Group
	ids := make([]flow.ID, 8)
	for i := range ids {
		group.Go(func() (err error) {
			ids[i], err = registerAtPsql(t, w, flow.Registration{WorkflowID: "sample", IdempotencyKey: "many"})
			return err
		})
	}
	require.NoError(t, errors.Join(group.Wait()))
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_flow_id = $1`, string(ids[0])))
}

// It runs, also where nobody but a watcher is there, and wakes that one.
func TestRegisterTwin_Runs(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "limited", def(), def(1))
	mustExec(t, w.psql, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 1)`)
	for _, id := range []flow.WorkflowID{"sample", "limited"} {
		_, err := registerAtPsql(t, w, flow.Registration{WorkflowID: id})
		require.NoError(t, err)
	}
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.Len(t, run(t, w), 5)
	require.Equal(t, "flower", value[string](t, w, `SELECT DISTINCT registered_by FROM kr_flow`))
}
