package watcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// inBubble runs a test where time is not real: it passes when everybody waits. A
// goroutine that is left at its end fails it.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// pass lets time pass in a bubble, and everybody do what is due.
func pass(d time.Duration) {
	time.Sleep(d) // no time at all: see inBubble
	synctest.Wait()
}

var errAway = fmt.Errorf("connection refused: %w", flow.ErrUnavailable)

// fakeStore is a Store of functions. Those that are nil do what a healthy database
// without any task does.
type fakeStore struct {
	advance   func(results []*flow.Result, c flow.Claim) (flow.Advanced, error)
	owned     func(watcher string, claims []string) ([]flow.Task, error)
	outputs   func(of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error)
	flow      func(of flow.TaskKey) (flow.Flow, error)
	hints     chan struct{}
	join      func(w flow.Watcher) error
	beat      func(watcher string, running []flow.Task) (flow.Pulse, error)
	rescue    func(watcher string) ([]flow.Rescued, error)
	drain     func(ctx context.Context, watcher string) error
	leave     func(watcher string, behind bool) error
	promote   func() (int, time.Duration, error)
	strangers func(programs []string) ([]string, error)
	refuse    func(program, text string) ([]flow.TaskKey, error)
	sweep     func() (flow.Swept, error)
	check     func(anew bool) ([]flow.BrokenRule, error)
	checked   func() (flow.Check, error)
	keepLog   func(parts []flow.LogPart) error
}

func (f *fakeStore) Advance(_ context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	if f.advance == nil {
		return record(results), nil
	}
	return f.advance(results, c)
}

// record is an Advance that records results and has no tasks.
func record(results []*flow.Result) flow.Advanced {
	var adv flow.Advanced
	for _, r := range results {
		status := flow.Suspended
		switch r.Outcome {
		case flow.OutcomeFinished:
			status = flow.Finished
		case flow.OutcomeSkipped:
			status = flow.Ignored
		}
		adv.Verdicts = append(adv.Verdicts, flow.Judged{Result: r, Verdict: flow.VerdictRecorded, Status: status})
	}
	return adv
}

func (f *fakeStore) Owned(ctx context.Context, watcher string, claims []string) ([]flow.Task, error) {
	if f.owned == nil {
		return nil, nil
	}
	tasks, err := f.owned(watcher, claims)
	if ctx.Err() != nil { // it took too long
		return nil, context.Cause(ctx)
	}
	return tasks, err
}

func (f *fakeStore) Outputs(_ context.Context, of flow.TaskKey, seqs []int) (map[int]json.RawMessage, error) {
	if f.outputs == nil {
		return nil, nil
	}
	return f.outputs(of, seqs)
}

func (f *fakeStore) Registered(_ context.Context, of flow.TaskKey) (flow.Flow, error) {
	if f.flow == nil {
		return flow.Flow{ID: of.Flow}, nil
	}
	return f.flow(of)
}

func (f *fakeStore) Listen(context.Context) <-chan struct{} { return f.hints }

func (f *fakeStore) Join(_ context.Context, w flow.Watcher) error {
	if f.join == nil {
		return nil
	}
	return f.join(w)
}

func (f *fakeStore) Beat(_ context.Context, watcher string, running []flow.Task) (flow.Pulse, error) {
	if f.beat == nil {
		return flow.Pulse{}, nil
	}
	return f.beat(watcher, running)
}

func (f *fakeStore) Rescue(_ context.Context, watcher string, tell func([]flow.Rescued)) error {
	if f.rescue == nil {
		return nil
	}
	rescued, err := f.rescue(watcher)
	if len(rescued) > 0 {
		tell(rescued)
	}
	return err
}

func (f *fakeStore) Drain(ctx context.Context, watcher string) error {
	if f.drain == nil {
		return nil
	}
	return f.drain(ctx, watcher)
}

func (f *fakeStore) Leave(_ context.Context, watcher string, behind bool) error {
	if f.leave == nil {
		return nil
	}
	return f.leave(watcher, behind)
}

func (f *fakeStore) Promote(context.Context) (int, time.Duration, error) {
	if f.promote == nil {
		return 0, 0, nil
	}
	return f.promote()
}

func (f *fakeStore) Strangers(_ context.Context, programs []string) ([]string, error) {
	if f.strangers == nil {
		return nil, nil
	}
	return f.strangers(programs)
}

func (f *fakeStore) Refuse(_ context.Context, program, text string) ([]flow.TaskKey, error) {
	if f.refuse == nil {
		return nil, nil
	}
	return f.refuse(program, text)
}

func (f *fakeStore) Sweep(context.Context) (flow.Swept, error) {
	if f.sweep == nil {
		return flow.Swept{}, nil
	}
	return f.sweep()
}

func (f *fakeStore) Check(_ context.Context, anew bool) ([]flow.BrokenRule, error) {
	if f.check == nil {
		return nil, nil
	}
	return f.check(anew)
}

func (f *fakeStore) Checked(context.Context) (flow.Check, error) {
	if f.checked == nil {
		return flow.Check{}, nil
	}
	return f.checked()
}

func (f *fakeStore) KeepLog(_ context.Context, parts []flow.LogPart) error {
	if f.keepLog == nil {
		return nil
	}
	return f.keepLog(parts)
}

// fakePrograms are programs of one name.
type fakePrograms func(ctx context.Context, t flow.Task) (json.RawMessage, error)

func (fakePrograms) Names() []string { return []string{"Fake"} }

func (fakePrograms) OffWithout(name string) string {
	if name == "Guarded" {
		return "-allow-guarded"
	}
	return ""
}

func (f fakePrograms) Run(ctx context.Context, a Attempt) (json.RawMessage, error) {
	return f(ctx, a.Task)
}

// taking is a program that takes a time, and gives up when its context ends.
func taking(d time.Duration) fakePrograms {
	return func(ctx context.Context, _ flow.Task) (json.RawMessage, error) {
		select {
		case <-time.After(d):
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// newTask makes the nth task, as it is claimed.
func newTask(n int, claim string) flow.Task {
	return flow.Task{
		TaskKey: flow.TaskKey{Flow: "f", Seq: n}, WorkflowID: "w", Program: "Fake", Parameters: json.RawMessage("{}"),
		Attempt: 1, ClaimID: claim, OnLost: flow.OnLostRerun,
	}
}

// queue is an Advance with tasks. It fails the test if somebody asks for more tasks than
// there can be free workers.
type queue struct {
	t       *testing.T
	workers int
	takes   time.Duration // what a call takes

	mu      sync.Mutex // guards the rest
	waiting int        // tasks to hand out
	given   int        // tasks handed out; their number is their seq
	change  func(*flow.Task)
	running map[attemptKey]bool // handed out, result not given
	asked   int                 // for how many tasks calls ask just now
	calls   []call
	results []*flow.Result
	fail    error // what calls return, having done nothing
}

type call struct {
	at      time.Time
	free    int
	results int
	watcher string
}

func newQueue(t *testing.T, workers, waiting int) *queue {
	return &queue{t: t, workers: workers, waiting: waiting, running: make(map[attemptKey]bool)}
}

func (q *queue) advance(results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	q.enter(results, c)
	time.Sleep(q.takes)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked -= c.Free
	if q.fail != nil {
		return flow.Advanced{}, q.fail
	}
	adv := record(results)
	q.results = append(q.results, results...)
	for range min(c.Free, q.waiting) {
		q.waiting--
		q.given++
		task := newTask(q.given, c.ID)
		if q.change != nil {
			q.change(&task)
		}
		q.running[keyOf(task)] = true
		adv.Claimed = append(adv.Claimed, task)
	}
	return adv, nil
}

func (q *queue) enter(results []*flow.Result, c flow.Claim) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range results {
		delete(q.running, keyOf(r.Task))
	}
	q.asked += c.Free
	if busy := len(q.running) + q.asked; busy > q.workers {
		q.t.Errorf("%d tasks for %d workers: %d run, and calls ask for %d", busy, q.workers, len(q.running), q.asked)
	}
	q.calls = append(q.calls, call{time.Now(), c.Free, len(results), c.Watcher})
}

// setFail makes calls fail from now on; nil makes them succeed.
func (q *queue) setFail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.fail = err
}

// look returns what was done so far.
func (q *queue) look() (calls []call, results []*flow.Result) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return append([]call{}, q.calls...), append([]*flow.Result{}, q.results...)
}

// running is a watcher that runs in a bubble. It is stopped at the end of the test.
type running struct {
	*Watcher
	logs *logs
	stop context.CancelFunc
	done chan error // closed after the one error
}

// ended waits for the end and returns its error.
func (r *running) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(time.Hour):
		require.FailNow(t, "the watcher does not end")
		return nil
	}
}

// start runs a watcher with settings that a test may change.
func start(t *testing.T, store *fakeStore, programs Programs, settings ...func(*Config)) *running {
	t.Helper()
	cfg := Config{Workers: 2, PollInterval: 5 * time.Second, ShutdownTimeout: 25 * time.Second}
	for _, set := range settings {
		set(&cfg)
	}
	if store.hints == nil {
		store.hints = make(chan struct{}, 1)
	}
	r := &running{logs: &logs{}, done: make(chan error, 1)}
	w, err := New(cfg, store, programs, slog.New(r.logs))
	require.NoError(t, err)
	r.Watcher = w
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() {
		r.done <- w.Run(ctx)
		close(r.done)
	}()
	t.Cleanup(func() {
		stop()
		for range r.done { // whoever expects an error has asked for it: see ended
		}
	})
	return r
}

func workers(n int) func(*Config) { return func(c *Config) { c.Workers = n } }

func shutdownTimeout(d time.Duration) func(*Config) {
	return func(c *Config) { c.ShutdownTimeout = d }
}

// logs keeps what was logged.
type logs struct {
	mu    sync.Mutex
	lines []line // guarded by mu
}

type line struct {
	at    time.Time
	level slog.Level
	text  string
	attrs map[string]any
}

func (l *logs) Enabled(context.Context, slog.Level) bool { return true }

func (l *logs) WithAttrs([]slog.Attr) slog.Handler { panic("not used here") }

func (l *logs) WithGroup(string) slog.Handler { panic("not used here") }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]any)
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.Any()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line{r.Time, r.Level, r.Message, attrs})
	return nil
}

// with returns the lines with a text.
func (l *logs) with(text string) []line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []line
	for _, ln := range l.lines {
		if ln.text == text {
			found = append(found, ln)
		}
	}
	return found
}

// only returns the one line with a text.
func (l *logs) only(t *testing.T, text string) line {
	t.Helper()
	found := l.with(text)
	require.Len(t, found, 1, text)
	return found[0]
}

// times are moments at which something happened.
type times struct {
	mu sync.Mutex
	at []time.Time // guarded by mu
}

func (s *times) note() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = append(s.at, time.Now())
}

// since returns how long after begin it happened each time.
func (s *times) since(begin time.Time) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ds []time.Duration
	for _, at := range s.at {
		ds = append(ds, at.Sub(begin))
	}
	return ds
}

// value is shared between goroutines.
type value[T any] struct {
	mu sync.Mutex
	v  T // guarded by mu
}

func (s *value[T]) set(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v = v
}

func (s *value[T]) get() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v
}

func (s *value[T]) update(f func(T) T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v = f(s.v)
}

var errBug = errors.New("the program has a bug")
