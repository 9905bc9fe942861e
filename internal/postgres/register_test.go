package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres/pqguard"
)

// The rows that the original's README shows.
func TestRegister_SampleMakesTheRowsOfTheContract(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := registerOf(t, w, "sample")
	var rows []string
	require.NoError(t, w.psql.Select(&rows, `
		SELECT concat_ws('|', task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, task_priority)
		FROM kr_task_stat WHERE task_flow_id = $1 ORDER BY task_exec_seq`, string(id)))
	require.Equal(t, []string{"1|0|sample|1|0|10", "2|1|sample|2|0|10", "3|2|sample|3|0|10"}, rows)
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat`), "and no other rows")

	first := look(t, w, id, 1)
	require.True(t, first.Ready)
	require.Equal(t, "Test1", first.Program)
	require.Nil(t, first.Started)
	require.False(t, first.Registered.IsZero())
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 1}, {Flow: id, Seq: 2}, {Flow: id, Seq: 3}}, run(t, w))
}

func TestRegister_Graphs(t *testing.T) {
	t.Parallel()
	w := open(t)
	at := func(seq int, after ...int) flow.TaskDefinition {
		d := def(after...)
		d.Seq = seq
		return d
	}
	for name, c := range map[string]struct {
		defs []flow.TaskDefinition
		want []string // exec_seq<-task_seq depends_task_exec_seq depends_task_exec_seqs unmet dependents
	}{
		"one": {[]flow.TaskDefinition{at(7)}, []string{"1<-7 0 - 0 {}"}},
		"chain with gaps": {
			[]flow.TaskDefinition{{Seq: 10, Program: "NoOp", MaxAttempts: 1, OnLost: "rerun"}, {Seq: 30, Program: "NoOp", MaxAttempts: 1, OnLost: "rerun"}, {Seq: 20, Program: "NoOp", MaxAttempts: 1, OnLost: "rerun"}},
			[]string{"1<-10 0 - 0 {2}", "2<-20 1 - 1 {3}", "3<-30 2 - 1 {}"},
		},
		"diamond": {
			[]flow.TaskDefinition{at(1), at(2, 1), at(3, 1), at(4, 3, 2)},
			[]string{"1<-1 0 - 0 {2,3}", "2<-2 1 - 1 {4}", "3<-3 1 - 1 {4}", "4<-4 2 {2,3} 2 {}"},
		},
		"a later task_seq first": {
			[]flow.TaskDefinition{at(1, 3), at(2, 1, 3), at(3)},
			[]string{"1<-3 0 - 0 {2,3}", "2<-1 1 - 1 {3}", "3<-2 1 {1,2} 2 {}"},
		},
		"a dependency named twice": {
			[]flow.TaskDefinition{at(1), at(2, 1, 1)},
			[]string{"1<-1 0 - 0 {2}", "2<-2 1 - 1 {}"},
		},
		"two roots": {
			[]flow.TaskDefinition{at(1), at(2), at(3, 2, 1)},
			[]string{"1<-1 0 - 0 {3}", "2<-2 0 - 0 {3}", "3<-3 1 {1,2} 2 {}"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := register(t, w, c.defs...)
			var rows []string
			require.NoError(t, w.psql.Select(&rows, `
				SELECT format('%s<-%s %s %s %s %s', task_exec_seq, task_seq, depends_task_exec_seq,
				              coalesce(depends_task_exec_seqs::text, '-'), unmet, dependents)
				FROM kr_task_stat WHERE task_flow_id = $1 ORDER BY task_exec_seq`, string(id)))
			require.Equal(t, c.want, rows)
			sound(t, w)
		})
	}
}

// The heap is filled in an order of its own: nothing may hang on it.
func TestRegister_NeedsNoLuckWithTheOrderOfRows(t *testing.T) {
	t.Parallel()
	w := open(t)
	const n = 40
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		d := chain(1)[0]
		d.Seq, d.Program = i+1, fmt.Sprintf("P%d", i+1)
		define(t, w, "shuffled", d)
	}
	id := registerOf(t, w, "shuffled")
	require.Zero(t, value[int](t, w, `
		SELECT count(*) FROM kr_task_stat
		WHERE task_flow_id = $1 AND (task_exec_seq <> task_seq OR depends_task_exec_seq <> task_seq - 1 OR program <> 'P' || task_seq)`,
		string(id)))
}

func TestRegister_CopiesTheDefinition(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "copied", flow.TaskDefinition{
		Program: "NoOp", Priority: -3, Parameters: object(`{"a": 1, "b": {"x": 1}}`), MaxAttempts: 4,
		RetryDelay: 1500 * time.Millisecond, Timeout: 90 * time.Second, OnLost: flow.OnLostSuspend, Description: "title\nand more, ü 🌼 '\"\\",
	}, flow.TaskDefinition{Program: "Test1", MaxAttempts: 1, OnLost: flow.OnLostRerun})
	f, err := w.Register(t.Context(), flow.Registration{
		FlowID: "copied flow", WorkflowID: "copied", Parameters: object(`{"b": [2], "c": null}`),
		RegisteredBy: "me", Note: "because",
	})
	require.NoError(t, err)
	first, second := look(t, w, f.ID, 1), look(t, w, f.ID, 2)
	require.Equal(t, -3, first.Priority)
	require.JSONEq(t, `{"a": 1, "b": [2], "c": null}`, first.Parameters, "merged key by key, at the top level only")
	require.JSONEq(t, `{"b": [2], "c": null}`, second.Parameters)
	require.Equal(t, 4, first.MaxAttempts)
	require.Equal(t, "00:00:01.5", first.RetryDelay)
	require.Equal(t, "00:01:30", first.Timeout)
	require.Equal(t, "suspend", first.OnLost)
	require.Equal(t, "title\nand more, ü 🌼 '\"\\", first.Description)
	require.Equal(t, row{
		Status: 0, Unmet: new(1), Depends: 1, Dependents: pq.Int64Array{}, WorkflowID: "copied", TaskSeq: 2, Program: "Test1",
		Parameters: second.Parameters, MaxAttempts: 1, RetryDelay: "00:00:00", OnLost: "rerun", Registered: f.RegisteredAt,
		Attempts: pq.StringArray{},
	}, second, "everything else has its default")

	require.Equal(t, "copied|me|because|{\"b\": [2], \"c\": null}", value[string](t, w,
		`SELECT concat_ws('|', task_id, registered_by, note, parameters) FROM kr_flow WHERE task_flow_id = $1`, string(f.ID)))
	require.Equal(t, flow.Flow{ID: "copied flow", WorkflowID: "copied", RegisteredAt: first.Registered}, f)

	claimed := claimOne(t, w)
	require.JSONEq(t, first.Parameters, string(claimed.Parameters))
	claimed.Parameters = nil
	require.Equal(t, look(t, w, f.ID, 1).Started.UTC(), claimed.StartedAt)
	claimed.StartedAt = time.Time{}
	require.Empty(t, cmp.Diff(flow.Task{
		TaskKey: flow.TaskKey{Flow: f.ID, Seq: 1}, WorkflowID: "copied", Program: "NoOp", Attempt: 1,
		ClaimID: look(t, w, f.ID, 1).Claim, Timeout: 90 * time.Second, OnLost: flow.OnLostSuspend,
	}, claimed))
}

func TestRegister_PriorityReplacesThatOfEveryTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, priority := range []int{flow.MinPriority, 0, flow.MaxPriority} {
		f, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample", Priority: &priority})
		require.NoError(t, err)
		require.Equal(t, priority, look(t, w, f.ID, 1).Priority)
		require.Equal(t, priority, look(t, w, f.ID, 3).Priority)
	}
}

func TestRegister_LaterEditsOfTheDefinitionChangeNothing(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := registerOf(t, w, "sample")
	before := value[string](t, w, `SELECT string_agg(t::text, E'\n' ORDER BY task_exec_seq) FROM kr_task_stat t WHERE task_flow_id = $1`, string(id))
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Other', task_priority = 1, parameters = '{"a": 1}', max_attempts = 9,
	              depends_task_seqs = '{}' WHERE task_id = 'sample'`)
	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'sample' AND task_seq = 2`)
	require.Equal(t, before, value[string](t, w,
		`SELECT string_agg(t::text, E'\n' ORDER BY task_exec_seq) FROM kr_task_stat t WHERE task_flow_id = $1`, string(id)))
	require.Len(t, run(t, w), 3)
}

func TestRegister_RefusesBrokenDefinitions(t *testing.T) {
	t.Parallel()
	w := open(t)
	for name, c := range map[string]struct {
		defs  []flow.TaskDefinition
		names []string // that the message has
	}{
		"unknown dependency": {[]flow.TaskDefinition{def(), def(1, 99)}, []string{"2", "99"}},
		"itself":             {[]flow.TaskDefinition{def(), def(2)}, []string{"2", "itself"}},
		"cycle":              {[]flow.TaskDefinition{def(), def(1, 4), def(2), def(3)}, []string{"2 → 4 → 3 → 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			id := flow.WorkflowID("broken: " + name)
			define(t, w, id, c.defs...)
			_, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: id, IdempotencyKey: name})
			var invalid *flow.InvalidError
			require.ErrorAs(t, err, &invalid)
			for _, part := range append(c.names, string(id)) {
				require.Contains(t, invalid.Error(), part)
			}
			require.False(t, errors.Is(err, flow.ErrUnavailable))
		})
	}
	_, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "no such workflow"})
	require.ErrorIs(t, err, flow.ErrNotFound)
	require.Zero(t, value[int](t, w, `SELECT (SELECT count(*) FROM kr_task_stat) + (SELECT count(*) FROM kr_flow) + (SELECT count(*) FROM kr_ready)`))
}

func TestRegister_IdempotencyKey(t *testing.T) {
	t.Parallel()
	w := open(t)
	ask := func(id flow.ID, fingerprint string) (flow.Flow, error) {
		return w.Register(t.Context(), flow.Registration{FlowID: id, WorkflowID: "sample", IdempotencyKey: "key", Fingerprint: fingerprint})
	}
	first, err := ask("flow 1", "print")
	require.NoError(t, err)
	require.False(t, first.Replayed)

	again, err := ask("flow 2", "print")
	require.NoError(t, err)
	require.Equal(t, flow.Flow{ID: "flow 1", WorkflowID: "sample", RegisteredAt: first.RegisteredAt, Replayed: true}, again)
	require.True(t, value[bool](t, w, `SELECT replayed_ts IS NOT NULL FROM kr_flow`), "finding it is a write")

	_, err = ask("flow 3", "another print")
	require.ErrorIs(t, err, flow.ErrKeyReused)

	same, err := ask("flow 1", "print")
	require.NoError(t, err, "the first call repeated, as after a lost answer")
	require.Equal(t, first, same)
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))
}

func TestRegister_TheSameFlowIDIsTheSameFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	r := flow.Registration{FlowID: "flow", WorkflowID: "sample"}
	first, err := w.Register(t.Context(), r)
	require.NoError(t, err)
	again, err := w.Register(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))
	require.True(t, value[bool](t, w, `SELECT replayed_ts IS NOT NULL FROM kr_flow`),
		"finding it is a write: a commit of nothing would not wait for a standby")
}

func TestRegister_OneKeyAThousandTimesAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	var group errgroup.Group
	group.SetLimit(64)
	var fresh atomic.Int32
	for i := range 1000 {
		group.Go(func() error {
			f, err := w.Register(background, flow.Registration{
				FlowID: flow.ID(fmt.Sprintf("flow %d", i)), WorkflowID: "sample", IdempotencyKey: "key", Fingerprint: "print",
			})
			if err == nil && !f.Replayed {
				fresh.Add(1)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.EqualValues(t, 1, fresh.Load())
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

// Batches of two processes have the same keys, in any order.
func TestRegister_ManyKeysAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	dbs := []*DB{w.DB, another(t, w)}
	const keys, times = 40, 20
	var group errgroup.Group
	group.SetLimit(128)
	started := time.Now()
	for _, i := range rand.New(rand.NewPCG(5, 6)).Perm(keys * times) {
		group.Go(func() error {
			key := fmt.Sprint("key ", i%keys)
			f, err := dbs[i%2].Register(background, flow.Registration{
				FlowID: flow.ID(fmt.Sprintf("flow %d", i)), WorkflowID: "sample", IdempotencyKey: key, Fingerprint: key,
			})
			if err == nil && f.Replayed == (f.ID == flow.ID(fmt.Sprintf("flow %d", i))) {
				return fmt.Errorf("flow %d: %v", i, f)
			}
			return err
		})
	}
	require.NoError(t, group.Wait())
	t.Log(keys*times, "registrations with", keys, "keys in", time.Since(started).Round(time.Millisecond))
	require.Equal(t, keys, value[int](t, w, `SELECT count(*) FROM kr_flow`))
	require.Equal(t, 3*keys, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))
	require.Zero(t, value[int](t, w, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))
}

// One bad registration does not spoil those that share its statement.
func TestRegister_ABadOneAmongMany(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "broken", def(2), def(1))
	var group errgroup.Group
	for i := range 300 {
		group.Go(func() error {
			r := flow.Registration{FlowID: flow.ID(fmt.Sprint("flow ", i)), WorkflowID: "sample"}
			switch i % 10 {
			case 1:
				r.Note = "a\x00b"
			case 2:
				r.WorkflowID = "none"
			case 3:
				r.WorkflowID = "broken"
			case 4:
				r.WorkflowID = "\xff"
			case 5:
				r.Parameters = object(`{"a": "\ud800"}`)
			}
			_, err := w.Register(background, r)
			var invalid *flow.InvalidError
			switch {
			case i%10 == 0 || i%10 > 5:
				return err
			case i%10 == 2 && !errors.Is(err, flow.ErrNotFound), i%10 != 2 && !errors.As(err, &invalid):
				return fmt.Errorf("flow %d: %w", i, err)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, 150, value[int](t, w, `SELECT count(*) FROM kr_flow`))
	require.Equal(t, 450, value[int](t, w, `SELECT count(*) FROM kr_task_stat`))
}

// The server commits, and its answer is lost on the way.
func TestRegister_LostAnswerMakesOneFlow(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{"without a key": "", "with an idempotency key": "key"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			for _, when := range []cut{beforeSending, afterAnswer} {
				network := flakyNetwork(t, w, &w.writer)
				id := flow.ID("flow of " + newID())
				registration := flow.Registration{FlowID: id, WorkflowID: "sample", IdempotencyKey: key, Fingerprint: "print"}
				if key != "" {
					registration.IdempotencyKey += string(id)
				}
				network.arm(when, string(id))
				f, err := w.Register(t.Context(), registration)
				require.NoError(t, err)
				require.Equal(t, id, f.ID)
				require.False(t, f.Replayed, "it was this request that made it")
				require.Zero(t, network.armed.Load(), "the connection was cut")
				require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE task_flow_id = $1`, string(id)))
				require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_flow WHERE task_flow_id = $1`, string(id)))
			}
		})
	}
}

// cut says where a connection breaks.
type cut int32

const (
	beforeSending cut = iota + 1
	afterAnswer
)

// flaky is a dialer of connections that break when told so.
type flaky struct {
	dialer
	armed atomic.Int32 // a cut: for the next write that has the mark
	mark  atomic.Pointer[string]
}

// flakyNetwork puts a network in front of some lanes.
func flakyNetwork(t *testing.T, w *world, l **lanes) *flaky {
	t.Helper()
	n := &flaky{dialer: w.net.dialer(w.net.quick)}
	c, err := pq.NewConnector(w.cfg.dsn(sessionSettings...))
	require.NoError(t, err)
	c.Dialer(n)
	size := cap((*l).free)
	require.NoError(t, (*l).close())
	*l = newLanes(sqlx.NewDb(sql.OpenDB(pqguard.Wrap(c)), "postgres"), size, w.net, true)
	return n
}

func (n *flaky) arm(when cut, mark string) {
	n.mark.Store(&mark)
	n.armed.Store(int32(when))
}

func (n *flaky) DialContext(ctx context.Context, proto, address string) (net.Conn, error) {
	c, err := n.dialer.DialContext(ctx, proto, address)
	if err != nil {
		return nil, err
	}
	return &flakyConn{Conn: c, network: n}, nil
}

type flakyConn struct {
	net.Conn
	network *flaky
	swallow bool // the next answer
}

func (c *flakyConn) Write(p []byte) (int, error) {
	n := c.network
	if when := cut(n.armed.Load()); when != 0 && strings.Contains(string(p), *n.mark.Load()) && n.armed.CompareAndSwap(int32(when), 0) {
		if when == beforeSending {
			_ = c.Close()
			return 0, io.ErrClosedPipe
		}
		c.swallow = true
	}
	return c.Conn.Write(p)
}

func (c *flakyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.swallow && err == nil {
		_ = c.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// Whatever a request brings, the next one on the same connection must work.
func TestRegister_SurvivesEveryValue(t *testing.T) {
	t.Parallel()
	w := open(t)
	big := incompressible(40_000)
	for name, c := range map[string]struct {
		change func(r *flow.Registration)
		check  func(t *testing.T, err error)
	}{
		"NUL in the parameters":             {func(r *flow.Registration) { r.Parameters = object(`{"a": "\u0000"}`) }, isInvalid},
		"lone surrogate in the parameters":  {func(r *flow.Registration) { r.Parameters = object(`{"a": "\ud800"}`) }, isInvalid},
		"parameters are an array":           {func(r *flow.Registration) { r.Parameters = object(`[1]`) }, isInvalid},
		"parameters are no JSON":            {func(r *flow.Registration) { r.Parameters = object(`{`) }, isInvalid},
		"a huge number":                     {func(r *flow.Registration) { r.Parameters = object(`{"a": 1e999999}`) }, isInvalid},
		"flow id too long":                  {func(r *flow.Registration) { r.FlowID = flow.ID(strings.Repeat("x", 257)) }, isInvalid},
		"flow id empty":                     {func(r *flow.Registration) { r.FlowID = "" }, isInvalid},
		"priority out of range":             {func(r *flow.Registration) { r.Priority = new(20) }, isInvalid},
		"NUL in the note":                   {func(r *flow.Registration) { r.Note = "a\x00b" }, isInvalid},
		"bad UTF-8 in the note":             {func(r *flow.Registration) { r.Note = "\xff" }, isInvalid},
		"NUL in the workflow":               {func(r *flow.Registration) { r.WorkflowID = "a\x00b" }, isInvalid},
		"bad UTF-8 in the workflow":         {func(r *flow.Registration) { r.WorkflowID = "\xff" }, isInvalid},
		"40 kB of flow id":                  {func(r *flow.Registration) { r.FlowID = flow.ID(big) }, isInvalid},
		"40 kB of workflow":                 {func(r *flow.Registration) { r.WorkflowID = flow.WorkflowID(big) }, isNotFound},
		"40 kB of parameters":               {func(r *flow.Registration) { r.Parameters = object(`{"a": "` + big + `"}`) }, isFine},
		"40 kB that are no JSON":            {func(r *flow.Registration) { r.Parameters = object(`{"a": ` + strings.Repeat("x", 40_000) + `}`) }, isClear},
		"40 kB of registered by":            {func(r *flow.Registration) { r.RegisteredBy = big }, isFine},
		"40 kB of note":                     {func(r *flow.Registration) { r.Note = big }, isFine},
		"40 kB of idempotency key":          {func(r *flow.Registration) { r.IdempotencyKey = big }, isInvalid},
		"40 kB of fingerprint":              {func(r *flow.Registration) { r.Fingerprint = big }, isFine},
		"a flow id with quotes and slashes": {func(r *flow.Registration) { r.FlowID = `a/../b'"\{},NULL` }, isFine},
	} {
		t.Run(name, func(t *testing.T) {
			for range writerLanes { // each connection gets it once
				r := flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample"}
				c.change(&r)
				_, err := w.Register(t.Context(), r)
				c.check(t, err)
			}
			for range 2 * writerLanes {
				registerOf(t, w, "sample")
			}
		})
	}
}

func isFine(t *testing.T, err error) { t.Helper(); require.NoError(t, err) }

func isNotFound(t *testing.T, err error) { t.Helper(); require.ErrorIs(t, err, flow.ErrNotFound) }

func isInvalid(t *testing.T, err error) {
	t.Helper()
	var invalid *flow.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.NotErrorIs(t, err, flow.ErrUnavailable)
}

// isClear: an error that does not tell to try again.
func isClear(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, flow.ErrUnavailable)
}

// incompressible makes n characters that no index can take.
func incompressible(n int) string {
	r := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('!' + r.IntN(90))
		if b[i] == '"' || b[i] == '\\' || b[i] == '\'' {
			b[i] = 'x'
		}
	}
	return string(b)
}

func TestRegister_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Register(ctx, flow.Registration{FlowID: "flow", WorkflowID: "sample"})
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_flow`))
}

// An id that somebody has chosen makes one flow; whoever comes second is told so, unless it
// is the same request with the same key.
func TestRegister_OwnID(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "own", def())
	register := func(id flow.ID, key, fingerprint string) (flow.Flow, error) {
		return w.Register(t.Context(), flow.Registration{FlowID: id, OwnID: true, WorkflowID: "own", IdempotencyKey: key, Fingerprint: fingerprint})
	}
	f, err := register("mine", "", "a b")
	require.NoError(t, err)
	require.Equal(t, flow.ID("mine"), f.ID)
	require.False(t, f.Replayed)
	_, err = register("mine", "", "a c")
	require.ErrorIs(t, err, flow.ErrFlowExists)
	_, err = register("mine", "", "a b")
	require.NoError(t, err, "the same call, whose answer was lost")

	f, err = register("keyed", "k", "x")
	require.NoError(t, err)
	require.False(t, f.Replayed)
	f, err = register("keyed", "k", "x")
	require.NoError(t, err)
	require.True(t, f.Replayed)
	_, err = register("keyed", "k", "y")
	require.ErrorIs(t, err, flow.ErrKeyReused)
	_, err = register("keyed", "l", "x")
	require.ErrorIs(t, err, flow.ErrFlowExists)
	_, err = register("keyed", "", "x")
	require.ErrorIs(t, err, flow.ErrFlowExists)
	require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_flow`))
	insert(t, w, "by hand", 0, [2]int{1, 0})
	_, err = register("by hand", "", "z")
	require.ErrorIs(t, err, flow.ErrFlowExists)
}
