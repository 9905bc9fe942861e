package postgres

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// definition makes a workflow of these tasks, numbered if they are not.
func definition(id flow.WorkflowID, defs ...flow.TaskDefinition) flow.Definition {
	for i := range defs {
		if defs[i].Seq == 0 {
			defs[i].Seq = i + 1
		}
	}
	return flow.Definition{Workflow: flow.Workflow{ID: id, Tasks: defs}}
}

// edit edits, and says what became of each workflow: "created a 1, unchanged b 3".
func edit(t *testing.T, w *world, e flow.DefinitionEdit) string {
	t.Helper()
	edited, err := w.EditDefinitions(t.Context(), e)
	require.NoError(t, err)
	numbered(t, w)
	var words []string
	for _, x := range edited {
		words = append(words, fmt.Sprintf("%s %s %d", x.What(), x.ID, x.Version))
	}
	return strings.Join(words, ", ")
}

func TestEditDefinitions_MakesThemWhatTheyShallBe(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		byHand(t, w, `TRUNCATE ms_task_definition`)
		a := definition("a", def(), def(1), def(1, 2))
		a.Description, a.MaxRunningFlows = "what it is for", 3
		a.Tasks[1] = flow.TaskDefinition{
			Seq: 2, Program: "Test1", Priority: -20, Parameters: object(`{"A": [1, null, "ü"]}`), Description: "title\nand more",
			MaxAttempts: 5, RetryDelay: 1500 * time.Millisecond, Timeout: time.Minute, OnLost: flow.OnLostSuspend, RunIf: "params.x > 1",
			DependsOn: []int{1},
		}
		second := reflect.ValueOf(a.Tasks[1])
		for i := range second.NumField() {
			require.False(t, second.Field(i).IsZero(), "the example lacks %s", second.Type().Field(i).Name)
		}
		b := definition("b", chain(2)...)
		put := flow.DefinitionEdit{Put: []flow.Definition{b, a}}
		require.Equal(t, "created a 1, created b 1", edit(t, w, put))
		require.Equal(t, "unchanged a 1, unchanged b 1", edit(t, w, put))

		all, err := w.Definitions(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.True(t, all["a"].Equal(a), "%+v", all["a"])
		require.True(t, all["b"].Equal(b), "%+v", all["b"])

		// Rows that are as they shall be are not touched.
		before := value[string](t, w, `SELECT string_agg(ctid::text, ' ' ORDER BY task_seq) FROM ms_task_definition WHERE task_id = 'a'`)
		a.Tasks = a.Tasks[:2]
		a.Description, a.MaxRunningFlows = "", 0
		require.Equal(t, "changed a 2, unchanged b 1", edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{a, b}}))
		after := value[string](t, w, `SELECT string_agg(ctid::text, ' ' ORDER BY task_seq) FROM ms_task_definition WHERE task_id = 'a'`)
		require.True(t, strings.HasPrefix(before, after+" "), "%s, then %s", before, after)

		require.Equal(t, "unchanged a 2, deleted b 0", edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{a}, Prune: true}))
		require.Equal(t, "deleted a 0", edit(t, w, flow.DefinitionEdit{Delete: []flow.WorkflowID{"a", "b"}}))
		require.Zero(t, value[int](t, w, `SELECT count(*) FROM ms_workflow`))
		require.Equal(t, "created b 3", edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{b}}))
	})
}

func TestEditDefinitions_SaysWhoAndWhy(t *testing.T) {
	t.Parallel()
	w := open(t)
	edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{definition("a", def())}, Actor: "alice", Note: "a try"})
	edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{definition("b", def())}})
	require.Equal(t, "alice: a try", value[string](t, w, `SELECT applied_by || ': ' || note FROM ms_workflow_version WHERE task_id = 'a'`))
	require.Equal(t, "flower: -", value[string](t, w, `SELECT applied_by || ': ' || coalesce(note, '-') FROM ms_workflow_version WHERE task_id = 'b'`))
}

func TestEditDefinitions_ADryRunSaysTheSameAndChangesNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "a", def())
	put := flow.DefinitionEdit{
		Put:    []flow.Definition{definition("a", def(), def()), definition("b", def())},
		Delete: []flow.WorkflowID{"sample", "no such"}, DryRun: true,
	}
	require.Equal(t, "changed a 1, created b 0, deleted sample 1", edit(t, w, put))
	require.Equal(t, "changed a 1, created b 0, deleted sample 1", edit(t, w, put))
	put.DryRun = false
	require.Equal(t, "changed a 2, created b 1, deleted sample 0", edit(t, w, put))
}

func TestEditDefinitions_ExpectsAVersion(t *testing.T) {
	t.Parallel()
	w := open(t)
	put := func(version, tasks int) error {
		_, err := w.EditDefinitions(t.Context(), flow.DefinitionEdit{
			Put: []flow.Definition{definition("a", chain(tasks)...)}, Expect: map[flow.WorkflowID]int{"a": version},
		})
		return err
	}
	var wrong *flow.VersionError
	require.ErrorAs(t, put(1, 1), &wrong)
	require.Equal(t, flow.VersionError{ID: "a", Want: 1, Have: 0}, *wrong)
	require.NoError(t, put(0, 1))
	require.ErrorAs(t, put(0, 2), &wrong)
	require.Equal(t, `workflow "a" has version 1 now; the edit is for one that does not exist`, wrong.Error())
	require.NoError(t, put(1, 2))
	require.ErrorAs(t, put(1, 3), &wrong)
	require.Equal(t, `workflow "a" has version 2 now; the edit is for one that has version 1`, wrong.Error())
	require.Equal(t, "1 2", versions(t, w, "a"))
}

// All or nothing, and the error says what the database does not take.
func TestEditDefinitions_ABadValueChangesNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	bad := definition("b", def())
	bad.Tasks[0].Priority = 20
	_, err := w.EditDefinitions(t.Context(), flow.DefinitionEdit{Put: []flow.Definition{definition("a", def()), bad}})
	var invalid *flow.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Contains(t, invalid.Error(), "task_priority")
	require.Empty(t, versions(t, w, "a"))
	numbered(t, w)
}

// Somebody's open edit is waited for, not for ever; registrations wait for nobody.
func TestEditDefinitions_WaitsForPeople(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "a", def())
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'a'`)
	change := flow.DefinitionEdit{Put: []flow.Definition{definition("a", def(), def())}}

	wait := async(func() error {
		_, err := w.EditDefinitions(background, change)
		return err
	})
	awaitBlocked(t, w, 1)
	registerOf(t, w, "a")
	err := wait()
	require.ErrorIs(t, err, flow.ErrLocked)
	require.NotErrorIs(t, err, flow.ErrUnavailable, "the database is well")

	wait = async(func() error {
		_, err := w.EditDefinitions(background, change)
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	require.Equal(t, "1 2 3", versions(t, w, "a"))
	numbered(t, w)
}

func TestEditDefinitions_OfTheLargestWorkflow(t *testing.T) {
	t.Parallel()
	w := open(t)
	large := definition("large", chain(flow.MaxTasks)...)
	for i := range large.Tasks {
		large.Tasks[i].Parameters = object(fmt.Sprintf(`{"TEXT": %q}`, strings.Repeat("x", 100)))
	}
	require.Equal(t, "created large 1", edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{large}}))
	large.Tasks[9].Priority = 1
	require.Equal(t, "changed large 2", edit(t, w, flow.DefinitionEdit{Put: []flow.Definition{large}}))
}

func TestEditDefinitions_ACancelledOneChangesNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.EditDefinitions(ctx, flow.DefinitionEdit{Put: []flow.Definition{definition("a", def())}})
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
	require.Empty(t, versions(t, w, "a"))
}
