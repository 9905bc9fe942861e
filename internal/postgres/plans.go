package postgres

import (
	"context"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// plan is the tasks of a workflow, or why it has none.
type plan struct {
	workflow flow.Workflow
	digest   string // of the version that the workflow has; empty: it has none
	tasks    []flow.PlannedTask
	err      error
	plain    error // why it cannot run with no more than its own parameters: asked once for a batch
	recalled bool  // from memory: the definition may have been changed since
	size     int   // bytes, about, if it is remembered
}

// recall is plans that were made a moment ago. Reading and checking a definition takes a
// third of what a registration costs, and hardly any has changed since the last one. A plan
// of old is never trusted: registerSQL compares the version and its digest (after a restore
// from a backup the same number may mean something else), and what it would refuse is read
// anew first.
//
// Only edits that fire no triggers make no version (session_replication_role, DISABLE
// TRIGGER). Those count after recallFor.
type recall struct {
	mu    sync.Mutex
	plans map[flow.WorkflowID]plan
	size  int // bytes, about
	since time.Time
}

const (
	recallFor  = 10 * time.Second // after the first one was remembered none counts any more
	recallSize = 16 << 20         // bytes, about
	recallTask = 500              // bytes of a task beside its texts, about
)

// get returns the plans that are remembered, and which are not.
func (m *recall) get(ids []flow.WorkflowID) (plans map[flow.WorkflowID]plan, missing []flow.WorkflowID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.since) > recallFor {
		m.plans, m.size = nil, 0
	}
	plans = make(map[flow.WorkflowID]plan, len(ids))
	for _, id := range ids {
		p, found := m.plans[id]
		if !found {
			missing = append(missing, id)
			continue
		}
		plans[id] = p
	}
	return plans, missing
}

// put remembers a plan, unless there is something wrong with it: nobody who has mended a
// definition is to be told what was wrong before.
func (m *recall) put(p plan) {
	if p.err != nil || p.plain != nil || p.digest == "" {
		return
	}
	for _, t := range p.tasks {
		p.size += recallTask + len(t.Program) + len(t.Parameters) + len(t.Description) + len(t.RunIf) +
			8*(len(t.DependsOn)+len(t.Parents)+len(t.Dependents))
	}
	if p.size > recallSize {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(p.workflow.ID)
	if m.plans == nil || m.size+p.size > recallSize {
		m.plans, m.size, m.since = make(map[flow.WorkflowID]plan), 0, time.Now()
	}
	p.recalled = true
	m.plans[p.workflow.ID] = p
	m.size += p.size
}

func (m *recall) forget(id flow.WorkflowID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(id)
}

func (m *recall) drop(id flow.WorkflowID) {
	m.size -= m.plans[id].size
	delete(m.plans, id)
}

// plansOf returns the plans of the workflows that a batch names, from memory or as they
// are now.
func (d *DB) plansOf(ctx context.Context, batch []*registration) (map[flow.WorkflowID]plan, error) {
	named := make(map[flow.WorkflowID]bool)
	var ids []flow.WorkflowID
	for _, r := range batch {
		if id := r.request.WorkflowID; !named[id] {
			named[id] = true
			ids = append(ids, id)
		}
	}
	plans, missing := d.recall.get(ids)
	if len(missing) == 0 {
		return plans, nil
	}
	read, err := d.readPlans(ctx, missing)
	for _, p := range read {
		plans[p.workflow.ID] = p
		d.recall.put(p)
	}
	return plans, err
}

// readPlans reads workflows and checks them.
func (d *DB) readPlans(ctx context.Context, ids []flow.WorkflowID) ([]plan, error) {
	var rows []taskDefinitionRow
	if err := d.writer.selectAll(ctx, &rows, workflowsSQL, ids); err != nil {
		return nil, err
	}
	digests := make(map[flow.WorkflowID]string, len(ids))
	for _, r := range rows {
		digests[flow.WorkflowID(r.WorkflowID)] = r.Digest
	}
	workflows := workflowsOf(rows)
	plans := make([]plan, len(ids))
	for i, id := range ids {
		w, found := workflows[id]
		if !found {
			plans[i] = plan{workflow: flow.Workflow{ID: id}, err: notFound(id)}
			continue
		}
		tasks, err := w.Plan()
		plans[i] = plan{workflow: w, digest: digests[id], tasks: tasks, err: err, plain: d.check(w, nil)}
	}
	return plans, nil
}
