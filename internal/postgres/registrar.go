package postgres

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// registrar makes flows. Registrations that wait while a statement is at work go
// together into the next one: under load a commit serves many, and a lone one waits for
// nobody. Two statements take turns, each with half of all that are asked for: while one
// is flushed, the other runs and those of the one before are answered. One that is held
// up, by somebody's lock or by the network, holds up only those that are in it: another
// writer takes over.
type registrar struct {
	work func(context.Context, []*registration)
	keys keyring
	once sync.Once
	done sync.WaitGroup

	mu      sync.Mutex
	wake    sync.Cond // of mu: there is something for a writer, or closed
	waiting []*registration
	writing int // registrations in statements that are not late
	writers int // such statements
	closed  bool
}

const (
	registrars    = 3
	registrarTurn = 50 * time.Millisecond // how long the others leave a statement alone
	maxRegistrar  = 200                   // flows in a statement
)

// registration is a request that waits for its answer.
type registration struct {
	request flow.Registration
	answers chan registered // of capacity 1: whoever asked may have gone
	release func()          // lets the next one with its key go
}

type registered struct {
	flow flow.Flow
	err  error
}

func (r *registration) answer(f flow.Flow, err error) {
	r.release()
	r.answers <- registered{f, err}
}

// keyring has the idempotency keys of registrations that are not answered. There is one of
// each at a time: an INSERT cannot meet its own row, and others that came after it would hold
// up one writer each until it commits.
type keyring struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the key is free again
}

// take waits until nobody has a key; an empty one is nobody's.
func (k *keyring) take(ctx context.Context, key string) (release func(), err error) {
	if key == "" {
		return func() {}, nil
	}
	for {
		k.mu.Lock()
		busy := k.held[key]
		if busy == nil {
			free := make(chan struct{})
			k.held[key] = free
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, key)
				k.mu.Unlock()
				close(free)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func newRegistrar(work func(context.Context, []*registration)) *registrar {
	g := &registrar{work: work, keys: keyring{held: make(map[string]chan struct{})}}
	g.wake.L = &g.mu
	return g
}

// register waits for the answer to one registration. When ctx ends first it is not known
// whether the flow will exist.
func (g *registrar) register(ctx context.Context, request flow.Registration) (flow.Flow, error) {
	g.once.Do(func() {
		for range registrars {
			g.done.Go(g.loop)
		}
	})
	if ctx.Err() != nil {
		return flow.Flow{}, ctx.Err()
	}
	release, err := g.keys.take(ctx, request.IdempotencyKey)
	if err != nil {
		return flow.Flow{}, err
	}
	r := &registration{request, make(chan registered, 1), release}
	g.mu.Lock()
	g.waiting = append(g.waiting, r)
	g.next()
	g.mu.Unlock()
	select {
	case a := <-r.answers:
		return a.flow, a.err
	case <-ctx.Done():
		g.withdraw(r)
		return flow.Flow{}, ctx.Err()
	}
}

// withdraw takes back what no statement has taken.
func (g *registrar) withdraw(r *registration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.waiting, r); i >= 0 {
		g.waiting = slices.Delete(g.waiting, i, i+1)
		r.release()
	}
}

// close ends the writers. No registration may be waiting.
func (g *registrar) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wake.Broadcast()
	g.done.Wait()
}

func (g *registrar) loop() {
	for {
		batch := g.gather()
		if len(batch) == 0 {
			return
		}
		over := sync.OnceFunc(func() { g.ended(len(batch)) })
		late := time.AfterFunc(registrarTurn, over)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		g.work(ctx, batch)
		cancel()
		late.Stop()
		over()
	}
}

func (g *registrar) ended(n int) {
	g.mu.Lock()
	g.writing, g.writers = g.writing-n, g.writers-1
	g.next()
	g.mu.Unlock()
}

// due says whether half of all that are asked for can be taken, by one writer more.
func (g *registrar) due() bool {
	return g.writers < 2 && len(g.waiting) > 0 && len(g.waiting) >= g.writing
}

// next wakes up one writer if there is something for it. Call it with the lock held,
// whenever that may have become so: each of thousands of requests a second would wake up
// all writers, for nothing.
func (g *registrar) next() {
	if g.due() {
		g.wake.Signal()
	}
}

// gather waits until there is something for this writer; it returns none when the registrar
// is closed.
func (g *registrar) gather() (batch []*registration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.closed && !g.due() {
		g.wake.Wait()
	}
	n := min((len(g.waiting)+g.writing+1)/2, len(g.waiting), maxRegistrar)
	batch = slices.Clone(g.waiting[:n])
	g.waiting = slices.Delete(g.waiting, 0, n)
	g.writing, g.writers = g.writing+n, g.writers+1
	g.next()
	return batch
}

// registerArgs returns the arguments of registerSQL. Arrays of arrays go as text, since
// PostgreSQL's own must be rectangular.
func registerArgs(batch []*registration, plans map[flow.WorkflowID]plan) []any {
	var ids, workflows, by, notes, keys, fingerprints, parentFlows []string
	var parentSeqs []int32
	var parameters []*string
	var priorities []*int
	var versions []int32
	for _, x := range batch {
		r := x.request
		ids, workflows = append(ids, string(r.FlowID)), append(workflows, string(r.WorkflowID))
		by, notes = append(by, r.RegisteredBy), append(notes, r.Note)
		keys, fingerprints = append(keys, r.IdempotencyKey), append(fingerprints, r.Fingerprint)
		parentFlows, parentSeqs = append(parentFlows, string(r.Parent.Flow)), append(parentSeqs, int32(r.Parent.Seq))
		parameters, priorities = append(parameters, jsonText(r.Parameters)), append(priorities, r.Priority)
		versions = append(versions, int32(plans[r.WorkflowID].workflow.Version))
	}
	args := []any{ids, workflows, by, notes, parameters, keys, fingerprints, priorities}
	args = append(append(args, taskArgs(plans)...), parentFlows, parentSeqs, versions)
	return append(args, versionArgs(plans)...)
}

// parentClaims returns the last argument of registerByTasksSQL, nil if no task asks.
func parentClaims(batch []*registration) []string {
	claims, asks := make([]string, len(batch)), false
	for i, r := range batch {
		claims[i], asks = r.request.ParentClaim, asks || r.request.Parent.Flow != ""
	}
	if !asks {
		return nil
	}
	return claims
}

func versionArgs(plans map[flow.WorkflowID]plan) []any {
	var workflow, digest []string
	var version []int32
	for id, p := range plans {
		workflow, version, digest = append(workflow, string(id)), append(version, int32(p.workflow.Version)), append(digest, p.digest)
	}
	return []any{workflow, version, digest}
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
			timeout = append(timeout, positive(t.Timeout.Milliseconds()))
			onLost, description = append(onLost, string(t.OnLost)), append(description, t.Description)
			runIf = append(runIf, t.RunIf)
		}
	}
	return []any{
		workflow, execSeq, seq, priority, parents, dependents, program, parameters, maxAttempts, retryDelay,
		timeout, onLost, description, runIf,
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
