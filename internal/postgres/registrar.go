package postgres

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// registrar makes flows. Registrations that wait while a statement is at work go
// together into the next one: under load a commit serves many, and a lone one waits for
// nobody. Two writers: one works while the other's commit is flushed.
type registrar struct {
	work  func(context.Context, []*registration)
	inbox chan *registration
	once  sync.Once
	stop  chan struct{}
	done  sync.WaitGroup
}

const (
	registrars   = 2
	maxRegistrar = 200 // flows in a statement
)

// registration is a request that waits for its answer.
type registration struct {
	request flow.Registration
	answers chan registered // of capacity 1: whoever asked may have gone
}

type registered struct {
	flow flow.Flow
	err  error
}

func (r *registration) answer(f flow.Flow, err error) { r.answers <- registered{f, err} }

func newRegistrar(work func(context.Context, []*registration)) *registrar {
	return &registrar{work: work, inbox: make(chan *registration), stop: make(chan struct{})}
}

// register waits for the answer to one registration. When ctx ends first it is not known
// whether the flow will exist.
func (g *registrar) register(ctx context.Context, request flow.Registration) (flow.Flow, error) {
	g.once.Do(func() {
		for range registrars {
			g.done.Go(g.loop)
		}
	})
	r := &registration{request: request, answers: make(chan registered, 1)}
	select {
	case g.inbox <- r:
	case <-ctx.Done():
		return flow.Flow{}, ctx.Err()
	}
	select {
	case a := <-r.answers:
		return a.flow, a.err
	case <-ctx.Done():
		return flow.Flow{}, ctx.Err()
	}
}

// close ends the writers. No registration may be waiting.
func (g *registrar) close() {
	close(g.stop)
	g.done.Wait()
}

func (g *registrar) loop() {
	var later []*registration // with a key that their predecessor's batch had already
	for {
		batch, keys := later, map[string]bool{}
		later = nil
		for _, r := range batch {
			keys[r.request.IdempotencyKey] = true
		}
		if len(batch) == 0 {
			select {
			case <-g.stop:
				return
			case r := <-g.inbox:
				batch = append(batch, r)
				keys[r.request.IdempotencyKey] = true
			}
		}
	gather:
		for len(batch) < maxRegistrar {
			select {
			case r := <-g.inbox:
				if key := r.request.IdempotencyKey; key != "" && keys[key] {
					later = append(later, r)
					break gather
				}
				batch = append(batch, r)
				keys[r.request.IdempotencyKey] = true
			default:
				break gather
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		g.work(ctx, batch)
		cancel()
	}
}

// plan is the tasks of a workflow, or why it has none.
type plan struct {
	workflow flow.Workflow
	tasks    []flow.PlannedTask
	err      error
	plain    error // why it cannot run with no more than its own parameters: asked once for a batch
}

// plans reads and checks the workflows that a batch names.
func (d *DB) plans(ctx context.Context, batch []*registration) (map[flow.WorkflowID]plan, error) {
	plans := make(map[flow.WorkflowID]plan)
	var ids []flow.WorkflowID
	for _, r := range batch {
		if _, known := plans[r.request.WorkflowID]; !known {
			plans[r.request.WorkflowID] = plan{}
			ids = append(ids, r.request.WorkflowID)
		}
	}
	workflows, err := d.workflows(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		w, found := workflows[id]
		if !found {
			plans[id] = plan{err: notFound(id)}
			continue
		}
		tasks, err := w.Plan()
		plans[id] = plan{w, tasks, err, d.check(w, nil)}
	}
	return plans, nil
}

// registerArgs returns the arguments of registerSQL. Arrays of arrays go as text, since
// PostgreSQL's own must be rectangular.
func registerArgs(batch []*registration, plans map[flow.WorkflowID]plan) []any {
	var ids, workflows, by, notes, keys, fingerprints, parentFlows []string
	var parentSeqs []int32
	var parameters []*string
	var priorities []*int64
	var versions []int32
	for _, x := range batch {
		r := x.request
		ids, workflows = append(ids, string(r.FlowID)), append(workflows, string(r.WorkflowID))
		by, notes = append(by, r.RegisteredBy), append(notes, r.Note)
		keys, fingerprints = append(keys, r.IdempotencyKey), append(fingerprints, r.Fingerprint)
		parentFlows, parentSeqs = append(parentFlows, string(r.Parent.Flow)), append(parentSeqs, int32(r.Parent.Seq))
		var given *string
		if r.Parameters != nil {
			text := string(r.Parameters)
			given = &text
		}
		var priority *int64
		if r.Priority != nil {
			p := int64(*r.Priority)
			priority = &p
		}
		parameters, priorities = append(parameters, given), append(priorities, priority)
		versions = append(versions, int32(plans[r.WorkflowID].workflow.Version))
	}
	args := []any{ids, workflows, by, notes, pq.Array(parameters), keys, fingerprints, pq.Array(priorities)}
	return append(append(args, taskArgs(plans)...), parentFlows, parentSeqs, versions)
}

func taskArgs(plans map[flow.WorkflowID]plan) []any {
	var workflow, parents, dependents, program, parameters, onLost, description, runIf []string
	var execSeq, seq, priority, maxAttempts []int32
	var retryDelay []int64
	var timeout []*int64
	for id, p := range plans {
		for _, t := range p.tasks {
			workflow, execSeq, seq = append(workflow, string(id)), append(execSeq, int32(t.ExecSeq)), append(seq, int32(t.Seq))
			priority = append(priority, int32(t.Priority))
			parents, dependents = append(parents, arrayText(t.Parents)), append(dependents, arrayText(t.Dependents))
			program, parameters = append(program, t.Program), append(parameters, string(t.Parameters))
			maxAttempts, retryDelay = append(maxAttempts, int32(t.MaxAttempts)), append(retryDelay, t.RetryDelay.Milliseconds())
			var ms *int64
			if t.Timeout > 0 {
				n := t.Timeout.Milliseconds()
				ms = &n
			}
			timeout = append(timeout, ms)
			onLost, description = append(onLost, string(t.OnLost)), append(description, t.Description)
			runIf = append(runIf, t.RunIf)
		}
	}
	return []any{
		workflow, execSeq, seq, priority, parents, dependents, program, parameters, maxAttempts, retryDelay,
		pq.Array(timeout), onLost, description, runIf,
	}
}

// arrayText writes an array as PostgreSQL does: {1,2}.
func arrayText(seqs []int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range seqs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s))
	}
	b.WriteByte('}')
	return b.String()
}
