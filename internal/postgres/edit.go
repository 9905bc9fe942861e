package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
)

// EditDefinitions makes definitions what e says, all of them or none, and returns what
// became of each workflow, by id. Whoever edits by hand at the same time waits; whoever
// registers does not. It is safe to repeat: what is as it shall be is left alone.
//
// Errors: *flow.VersionError; *flow.InvalidError where the database does not take a value;
// flow.ErrLocked; flow.ErrUnavailable, after which the outcome is unknown.
func (d *DB) EditDefinitions(ctx context.Context, e flow.DefinitionEdit) ([]flow.EditedDefinition, error) {
	var edited []flow.EditedDefinition
	err := d.inSlowTx(ctx, func(tx *sqlx.Tx) (err error) {
		if !e.DryRun {
			if err := editAlone(ctx, tx, e); err != nil {
				return err
			}
		}
		if edited, err = differences(ctx, tx, e); err != nil || e.DryRun {
			return err
		}
		return putDefinitions(ctx, tx, edited)
	})
	if pq.As(err, pqerror.InsufficientPrivilege) != nil {
		err = fmt.Errorf("%w: %w", flow.ErrNotPermitted, err)
	}
	if problem := badValue(err); problem != "" {
		return nil, &flow.InvalidError{Subject: "a definition", Problem: problem}
	}
	return edited, translate("edit definitions", locked(err))
}

// The lock lets others read, so that registrations go on, and nobody write: what was
// compared is what is changed. It waits for people who have begun an edit and not
// committed it.
const editSQL = `
-- flower: edit definitions
LOCK TABLE ms_task_definition, ms_workflow IN SHARE ROW EXCLUSIVE MODE`

const authorSQL = `
-- flower: author
SELECT set_config('flower.actor', $1, true), set_config('flower.reason', $2, true)`

// editAlone keeps others from editing until the transaction ends.
func editAlone(ctx context.Context, tx *sqlx.Tx, e flow.DefinitionEdit) error {
	if _, err := tx.ExecContext(ctx, authorSQL, e.Actor, e.Note); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, editSQL)
	return err
}

// differences says what is to become of each workflow.
func differences(ctx context.Context, tx *sqlx.Tx, e flow.DefinitionEdit) ([]flow.EditedDefinition, error) {
	var ids []flow.WorkflowID // nil: all
	if !e.Prune {
		ids = slices.Concat([]flow.WorkflowID{}, e.Delete, slices.Collect(maps.Keys(e.Expect)))
		for _, w := range e.Put {
			ids = append(ids, w.ID)
		}
	}
	present, err := definitions(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	edits := make(map[flow.WorkflowID]flow.EditedDefinition)
	for id, w := range present {
		kept := flow.EditedDefinition{ID: id, Old: &w, New: &w, Version: w.Version}
		if e.Prune || slices.Contains(e.Delete, id) {
			kept.New = nil
		}
		edits[id] = kept
	}
	for _, w := range e.Put {
		edit := edits[w.ID]
		edit.ID, edit.New = w.ID, &w
		edits[w.ID] = edit
	}
	for id, want := range e.Expect {
		if have := edits[id].Version; have != want && (want != flow.AnyVersion || have == 0) {
			return nil, &flow.VersionError{ID: id, Want: want, Have: have}
		}
	}
	return slices.SortedFunc(maps.Values(edits), func(a, b flow.EditedDefinition) int {
		return strings.Compare(string(a.ID), string(b.ID))
	}), nil
}

// putDefinitions writes what has changed, and reads the versions that this makes.
func putDefinitions(ctx context.Context, tx *sqlx.Tx, edited []flow.EditedDefinition) error {
	var rows definitionRows
	var gone definitionKeys
	var whole workflowRows
	for _, e := range edited {
		if e.What() == "unchanged" {
			continue
		}
		whole.add(e)
		before, after := tasksOf(e.Old), tasksOf(e.New)
		for seq, t := range after {
			if old, was := before[seq]; !was || !old.Equal(t) {
				rows.add(e.ID, t)
			}
		}
		for seq := range before {
			if _, stays := after[seq]; !stays {
				gone.add(e.ID, seq)
			}
		}
	}
	if len(whole.ids) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, deleteDefinitionsSQL, gone.ids, gone.seqs); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, putDefinitionsSQL, rows.args()...); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, putWorkflowsSQL, whole.args()...); err != nil {
		return err
	}
	var made []versionRow
	if err := tx.SelectContext(ctx, &made, versionsMadeSQL, whole.ids); err != nil {
		return err
	}
	for _, v := range made {
		i := slices.IndexFunc(edited, func(e flow.EditedDefinition) bool { return string(e.ID) == v.WorkflowID })
		edited[i].Version = v.Version
	}
	return nil
}

func tasksOf(w *flow.Definition) map[int]flow.TaskDefinition {
	tasks := make(map[int]flow.TaskDefinition)
	if w != nil {
		for _, t := range w.Tasks {
			tasks[t.Seq] = t
		}
	}
	return tasks
}

const deleteDefinitionsSQL = `
-- flower: delete definitions
DELETE FROM ms_task_definition d USING unnest($1::text[], $2::int[]) AS gone(id, seq)
WHERE d.task_id = gone.id AND d.task_seq = gone.seq`

const putDefinitionsSQL = `
-- flower: put definitions
INSERT INTO ms_task_definition AS d (task_id, task_seq, program, task_priority, parameters, depends_task_seqs, max_attempts,
       retry_delay, timeout, on_lost, run_if, description)
SELECT id, seq, program, priority, parameters::jsonb, depends::int[], max_attempts, retry_delay * interval '1 ms',
       timeout * interval '1 ms', on_lost, nullif(run_if, ''), nullif(description, '')
FROM   unnest($1::text[], $2::int[], $3::text[], $4::int[], $5::text[], $6::text[], $7::int[], $8::bigint[], $9::bigint[],
              $10::text[], $11::text[], $12::text[])
       AS given(id, seq, program, priority, parameters, depends, max_attempts, retry_delay, timeout, on_lost, run_if, description)
ORDER  BY id, seq
ON CONFLICT (task_id, task_seq) DO UPDATE
SET    program = excluded.program, task_priority = excluded.task_priority, parameters = excluded.parameters,
       depends_task_seqs = excluded.depends_task_seqs, max_attempts = excluded.max_attempts, retry_delay = excluded.retry_delay,
       timeout = excluded.timeout, on_lost = excluded.on_lost, run_if = excluded.run_if, description = excluded.description`

// putWorkflowsSQL makes no row for a workflow that has nothing to say in it, and deletes
// that of one that is deleted.
const putWorkflowsSQL = `
-- flower: put workflows
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::boolean[]) AS g(id, description, flows, tasks, gone)
), gone AS (
    DELETE FROM ms_workflow w USING given g WHERE w.task_id = g.id AND g.gone
), changed AS (
    UPDATE ms_workflow w
    SET    description = nullif(g.description, ''), max_running_flows = nullif(g.flows, 0), max_running_tasks = nullif(g.tasks, 0)
    FROM   given g WHERE w.task_id = g.id AND NOT g.gone
)
INSERT INTO ms_workflow (task_id, description, max_running_flows, max_running_tasks)
SELECT id, nullif(description, ''), nullif(flows, 0), nullif(tasks, 0)
FROM   given g
WHERE  NOT gone AND (description <> '' OR flows > 0 OR tasks > 0) AND NOT EXISTS (SELECT FROM ms_workflow w WHERE w.task_id = g.id)`

// versionsMadeSQL records what the transaction has changed so far. The numbers of what was
// deleted are missing.
const versionsMadeSQL = `
-- flower: versions made
SELECT id AS task_id, coalesce(flower_version(id), 0) AS version FROM unnest($1::text[]) AS given(id) ORDER BY id`

type versionRow struct {
	WorkflowID string `db:"task_id"`
	Version    int    `db:"version"`
}

// definitionKeys are keys of task definitions, as arrays.
type definitionKeys struct {
	ids  []string
	seqs []int32
}

func (k *definitionKeys) add(id flow.WorkflowID, seq int) {
	k.ids, k.seqs = append(k.ids, string(id)), append(k.seqs, int32(seq))
}

// definitionRows are rows of task definitions, as arrays.
type definitionRows struct {
	definitionKeys
	program, parameters, onLost, runIf, description []string
	priority, maxAttempts                           []int32
	retryDelay                                      []int64
	depends                                         []*string
	timeout                                         []*int64
}

func (r *definitionRows) add(id flow.WorkflowID, t flow.TaskDefinition) {
	r.definitionKeys.add(id, t.Seq)
	r.program, r.onLost = append(r.program, t.Program), append(r.onLost, string(t.OnLost))
	r.runIf, r.description = append(r.runIf, t.RunIf), append(r.description, t.Description)
	parameters := string(t.Parameters)
	if parameters == "" {
		parameters = "{}"
	}
	r.parameters = append(r.parameters, parameters)
	r.priority, r.maxAttempts = append(r.priority, int32(t.Priority)), append(r.maxAttempts, int32(t.MaxAttempts))
	r.retryDelay = append(r.retryDelay, t.RetryDelay.Milliseconds())
	var depends *string
	if t.DependsOn != nil {
		depends = new(arrayText(t.DependsOn))
	}
	r.depends, r.timeout = append(r.depends, depends), append(r.timeout, positive(t.Timeout.Milliseconds()))
}

func (r *definitionRows) args() []any {
	return []any{
		r.ids, r.seqs, r.program, r.priority, r.parameters, r.depends, r.maxAttempts, r.retryDelay,
		r.timeout, r.onLost, r.runIf, r.description,
	}
}

// workflowRows are what belongs to workflows as a whole, as arrays.
type workflowRows struct {
	ids, descriptions []string
	flows, tasks      []int32
	gone              []bool
}

func (r *workflowRows) add(e flow.EditedDefinition) {
	w := flow.Definition{}
	if e.New != nil {
		w = *e.New
	}
	r.ids, r.descriptions = append(r.ids, string(e.ID)), append(r.descriptions, w.Description)
	r.flows, r.tasks = append(r.flows, int32(w.MaxRunningFlows)), append(r.tasks, int32(w.MaxRunningTasks))
	r.gone = append(r.gone, e.New == nil)
}

func (r *workflowRows) args() []any { return []any{r.ids, r.descriptions, r.flows, r.tasks, r.gone} }
