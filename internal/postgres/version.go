package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// Definitions returns workflows by id, or all of them if ids is nil; those that do not
// exist are missing.
func (d *DB) Definitions(ctx context.Context, ids []flow.WorkflowID) (map[flow.WorkflowID]flow.Definition, error) {
	found, err := definitions(ctx, d.slow, ids)
	return found, translate("read definitions", err)
}

// definitionsSQL reads them with their versions, in one snapshot.
const definitionsSQL = `
-- flower: definitions
SELECT w.task_id, flower_definition(w.task_id)::text AS definition,
       (SELECT coalesce(max(v.version), 0) FROM ms_workflow_version v WHERE v.task_id = w.task_id) AS version
FROM   (SELECT DISTINCT task_id FROM ms_task_definition WHERE $1 OR task_id = ANY ($2::text[])) w
ORDER  BY w.task_id`

type definitionRow struct {
	WorkflowID string  `db:"task_id"`
	Definition *string `db:"definition"` // NULL: deleted
	Version    int     `db:"version"`
}

func definitions(ctx context.Context, db sqlx.QueryerContext, ids []flow.WorkflowID) (map[flow.WorkflowID]flow.Definition, error) {
	var rows []definitionRow
	if err := sqlx.SelectContext(ctx, db, &rows, definitionsSQL, ids == nil, ids); err != nil {
		return nil, err
	}
	found := make(map[flow.WorkflowID]flow.Definition, len(rows))
	for _, r := range rows {
		w, err := r.definition()
		if err != nil {
			return nil, err
		}
		if w != nil {
			found[w.ID] = *w
		}
	}
	return found, nil
}

// definition reads what flower_definition has written; nil for a workflow that was deleted.
func (r definitionRow) definition() (*flow.Definition, error) {
	if r.Definition == nil {
		return nil, nil
	}
	var w struct {
		Description                      string
		MaxRunningFlows, MaxRunningTasks int
		Tasks                            []struct {
			Seq, Priority, MaxAttempts  int
			Program, Description, RunIf string
			OnLost                      flow.OnLost
			DependsOn                   []int
			RetryDelay, Timeout         float64 // seconds
			Parameters                  json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(*r.Definition), &w); err != nil {
		return nil, fmt.Errorf("workflow %q: read its definition: %w", r.WorkflowID, err)
	}
	d := &flow.Definition{
		Workflow:    flow.Workflow{ID: flow.WorkflowID(r.WorkflowID), Version: r.Version, Tasks: make([]flow.TaskDefinition, len(w.Tasks))},
		Description: w.Description, MaxRunningFlows: w.MaxRunningFlows, MaxRunningTasks: w.MaxRunningTasks,
	}
	for i, t := range w.Tasks {
		d.Tasks[i] = flow.TaskDefinition{
			Seq: t.Seq, Program: t.Program, Priority: t.Priority, Parameters: t.Parameters, DependsOn: t.DependsOn,
			Description: t.Description, MaxAttempts: t.MaxAttempts, OnLost: t.OnLost, RunIf: t.RunIf,
			RetryDelay: seconds(t.RetryDelay).Round(time.Millisecond), Timeout: seconds(t.Timeout).Round(time.Millisecond),
		}
	}
	return d, nil
}

const definitionVersionsSQL = `
-- flower: versions of a definition
SELECT task_id, version, definition::text AS definition, coalesce(digest, '') AS digest, applied_ts, applied_by, application,
       coalesce(note, '') AS note
FROM   ms_workflow_version
WHERE  task_id = $1 AND ($2 = 0 OR version < $2)
ORDER  BY version DESC
LIMIT  $3`

type definitionVersionRow struct {
	definitionRow
	Digest      string    `db:"digest"`
	AppliedTS   time.Time `db:"applied_ts"`
	AppliedBy   string    `db:"applied_by"`
	Application string    `db:"application"`
	Note        string    `db:"note"`
}

// DefinitionVersions returns up to limit definitions that a workflow has had before a
// version (0: all of them), the latest first. flow.ErrNotFound: there never was one.
func (d *DB) DefinitionVersions(ctx context.Context, id flow.WorkflowID, before, limit int) ([]flow.DefinitionVersion, error) {
	doing := fmt.Sprintf("read the versions of workflow %q", id)
	var rows []definitionVersionRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &rows, definitionVersionsSQL, string(id), before, limit)
	})
	if err != nil {
		return nil, translate(doing, err)
	}
	if len(rows) == 0 && before == 0 {
		return nil, notFound(id)
	}
	versions := make([]flow.DefinitionVersion, len(rows))
	var errs []error
	for i, r := range rows {
		w, err := r.definition()
		errs = append(errs, err)
		versions[i] = flow.DefinitionVersion{
			Version: r.Version, Definition: w, Digest: r.Digest, AppliedAt: r.AppliedTS,
			AppliedBy: r.AppliedBy, Application: r.Application, Note: r.Note,
		}
	}
	return versions, translate(doing, errors.Join(errs...))
}

const watcherProgramsSQL = `
-- flower: programs of watchers
SELECT DISTINCT unnest(programs) AS program FROM kr_watcher WHERE lease_until > clock_timestamp() ORDER BY 1`

// WatcherPrograms returns the names of the programs that watchers which run now have.
func (d *DB) WatcherPrograms(ctx context.Context) ([]string, error) {
	var names []string
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &names, watcherProgramsSQL) })
	return names, translate("read which programs watchers have", err)
}
