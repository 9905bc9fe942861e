package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// counted has w count how often a definition is read to register it.
func counted(w *world) *atomic.Int32 {
	var reads atomic.Int32
	w.CheckParameters(func(_ flow.Workflow, request json.RawMessage) error {
		if request == nil {
			reads.Add(1)
		}
		return nil
	})
	return &reads
}

func TestRecall_ReadsADefinitionOnceAndEveryChangeOfIt(t *testing.T) {
	t.Parallel()
	w := open(t)
	reads := counted(w)
	define(t, w, "w", chain(1)...)
	program := func() string { return look(t, w, registerOf(t, w, "w"), 1).Program }
	for range 3 {
		require.Equal(t, "NoOp", program())
	}
	require.EqualValues(t, 1, reads.Load())
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	for range 3 {
		require.Equal(t, "Test1", program())
	}
	require.EqualValues(t, 2, reads.Load())
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w'`)
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	require.Equal(t, 4, versionOf(t, w, registerOf(t, w, "w")), "as it was before, but another one")
	byHand(t, w, `INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('w', 1)`)
	require.Equal(t, 5, versionOf(t, w, registerOf(t, w, "w")))
	require.EqualValues(t, 4, reads.Load())
	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'w'`)
	_, err := w.Register(t.Context(), flow.Registration{FlowID: "none", WorkflowID: "w"})
	require.ErrorIs(t, err, flow.ErrNotFound)
	define(t, w, "w", chain(1)...)
	require.Equal(t, "NoOp", program())
	numbered(t, w)
}

// Whoever mends a definition must not be told what was wrong before.
func TestRecall_RefusesNothingFromMemory(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.CheckParameters(func(v flow.Workflow, request json.RawMessage) error {
		if v.Tasks[0].Program == "Test1" || request == nil {
			return nil
		}
		return &flow.InvalidError{Subject: "parameters", Problem: "only Test1 takes some"}
	})
	with := func(text string) error {
		_, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample", Parameters: object(text)})
		return err
	}
	byHand(t, w, `UPDATE ms_task_definition SET program = 'NoOp' WHERE task_id = 'sample'`)
	registerOf(t, w, "sample")
	require.ErrorContains(t, with(`{"a": 1}`), "only Test1 takes some")
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'sample'`)
	require.NoError(t, with(`{"a": 1}`))
	byHand(t, w, `UPDATE ms_task_definition SET program = 'NoOp' WHERE task_id = 'sample'`)
	require.ErrorContains(t, with(`{"a": 1}`), "only Test1 takes some")

	registerOf(t, w, "sample")
	byHand(t, w, `UPDATE ms_task_definition SET depends_task_seqs = '{99}' WHERE task_id = 'sample' AND task_seq = 2`)
	for range 2 {
		require.ErrorContains(t, with(`{}`), "99")
	}
	byHand(t, w, `UPDATE ms_task_definition SET depends_task_seqs = NULL WHERE task_id = 'sample' AND task_seq = 2`)
	registerOf(t, w, "sample")
}

// A database that was put back from a backup may give a number a second time.
func TestRecall_TheSameVersionOfAnotherHistory(t *testing.T) {
	t.Parallel()
	w := open(t)
	registerOf(t, w, "sample")
	tx := begin(t, w)
	mustExec(t, tx, `SET LOCAL session_replication_role = replica`)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test9' WHERE task_id = 'sample'`)
	mustExec(t, tx, `UPDATE ms_workflow_version SET definition = flower_definition(task_id),
	                 digest = encode(sha256(convert_to(flower_definition(task_id)::text, 'UTF8')), 'hex') WHERE task_id = 'sample'`)
	require.NoError(t, tx.Commit())
	id := registerOf(t, w, "sample")
	require.Equal(t, "Test9", look(t, w, id, 1).Program)
	require.Equal(t, 1, versionOf(t, w, id))
}

// While somebody changes a definition again and again, each flow has the tasks of the
// version that it names.
func TestRecall_EditsDuringLoad(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(2)...)
	dbs := []*DB{w.DB, another(t, w)}
	var group errgroup.Group
	group.SetLimit(32)
	const edits, flows = 40, 800
	var made atomic.Int32
	for i := range flows {
		group.Go(func() error {
			_, err := dbs[i%2].Register(background, flow.Registration{FlowID: flow.ID(fmt.Sprint("flow ", i)), WorkflowID: "w"})
			if n := made.Add(1); err == nil && n%(flows/edits) == 0 {
				_, err = w.psql.Exec(`UPDATE ms_task_definition SET program = $1 WHERE task_id = 'w'`, fmt.Sprint("P", n))
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, flows, value[int](t, w, `SELECT count(*) FROM kr_flow`))
	require.Greater(t, value[int](t, w, `SELECT count(DISTINCT workflow_version) FROM kr_flow`), 5)
	require.Zero(t, value[int](t, w, `
		SELECT count(*) FROM kr_task_stat t JOIN kr_flow f USING (task_flow_id)
		JOIN ms_workflow_version v ON v.task_id = 'w' AND v.version = f.workflow_version
		WHERE v.definition #>> ARRAY['tasks', (t.task_seq - 1)::text, 'program'] <> t.program`))
	numbered(t, w)
}

// It ends, whatever happens to the definitions.
func TestRegister_EndsThoughTheDefinitionIsNeverTheSame(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `ALTER TABLE ms_workflow_version RENAME TO versions`)
	mustExec(t, w.psql, `CREATE VIEW ms_workflow_version AS SELECT task_id, version, random()::text AS digest FROM versions`)
	_, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample"})
	require.ErrorContains(t, err, "its definition was changed during each of them")
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

func TestRecall_ForgetsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m recall
		known := func(id flow.WorkflowID) bool {
			plans, missing := m.get([]flow.WorkflowID{id})
			require.Equal(t, len(plans) == 0, len(missing) == 1)
			return len(plans) == 1
		}
		of := func(id flow.WorkflowID, size int) plan {
			return plan{workflow: flow.Workflow{ID: id}, digest: "d", tasks: []flow.PlannedTask{{TaskDefinition: flow.TaskDefinition{
				Parameters: json.RawMessage(strings.Repeat("x", size)),
			}}}}
		}
		m.put(of("a", 1))
		time.Sleep(recallFor - time.Second)
		m.put(of("b", 1))
		require.True(t, known("a"))
		time.Sleep(2 * time.Second)
		require.False(t, known("a"))
		require.False(t, known("b"), "all at once")

		m.put(of("a", 1))
		m.forget("a")
		require.False(t, known("a"))
		m.put(of("a", recallSize/2))
		m.put(of("b", recallSize/3))
		require.True(t, known("a"))
		m.put(of("c", recallSize/3))
		require.False(t, known("a"), "there is no room for three")
		require.True(t, known("c"))
		m.put(of("d", recallSize))
		require.False(t, known("d"))
		require.True(t, known("c"), "what is too large takes nobody's place")
		for range 10 {
			m.put(of("c", recallSize/3))
			m.put(of("b", recallSize/3))
			m.forget("b")
		}
		require.True(t, known("c"), "what is forgotten makes room")
		wide := of("wide", 1)
		wide.tasks[0].Parents = make([]int, recallSize/8)
		m.put(wide)
		require.False(t, known("wide"))

		for _, p := range []plan{{err: flow.ErrNotFound, digest: "d"}, {plain: flow.ErrNotFound, digest: "d"}, {}} {
			p.workflow.ID = "e"
			m.put(p)
			require.False(t, known("e"), "what has something wrong, or no version")
		}
	})
}

// Somebody's lock holds up those whom it is for, not everybody, however often they come.
func TestRegister_OneThatIsHeldUpHoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := open(t)
	tx := begin(t, w)
	mustExec(t, tx, `SELECT flower_register('sample', key => 'a'), flower_register('sample', key => 'b')`)
	var group errgroup.Group
	of := func(key string) {
		group.Go(func() error {
			_, err := w.Register(background, flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample", IdempotencyKey: key})
			return err
		})
	}
	for range 10 {
		of("a")
	}
	awaitBlocked(t, w, 1)
	of("b")
	awaitBlocked(t, w, 2)
	waiting := func() string {
		return value[string](t, w, `SELECT string_agg(pid || ' since ' || query_start, ', ' ORDER BY pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`)
	}
	before := waiting()
	registerOf(t, w, "sample")
	require.Equal(t, before, waiting(), "nobody had to give up for that")
	require.NoError(t, tx.Rollback())
	require.NoError(t, group.Wait())
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

// A trigger of somebody's keeps a flow away: none of its tasks is left without it.
func TestRegister_NoTaskWithoutItsFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`)
	mustExec(t, w.psql, `CREATE TRIGGER veto BEFORE INSERT ON kr_flow FOR EACH ROW EXECUTE FUNCTION veto()`)
	_, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample"})
	require.ErrorContains(t, err, "a trigger that is not ours")
	require.Zero(t, value[int](t, w, `SELECT (SELECT count(*) FROM kr_flow) + (SELECT count(*) FROM kr_task_stat) + (SELECT count(*) FROM kr_ready)`))
}

func TestRegister_AWorkflowWithoutAVersion(t *testing.T) {
	t.Parallel()
	w := open(t)
	tx := begin(t, w)
	mustExec(t, tx, `SET LOCAL session_replication_role = replica`)
	mustExec(t, tx, `DELETE FROM ms_workflow_version WHERE task_id = 'sample'`)
	require.NoError(t, tx.Commit())
	id := registerOf(t, w, "sample")
	require.True(t, value[bool](t, w, `SELECT workflow_version IS NULL FROM kr_flow WHERE task_flow_id = $1`, string(id)))
}
