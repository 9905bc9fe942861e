package postgres

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// queueModel is a queue with claims at the same time: what one holds, others pass over.
type queueModel struct {
	front *front
	calls []*modelCall
	rows  map[int]*modelCall // places; nil: nobody holds it
}

type modelCall struct {
	from  *start
	mine  []int // to be taken
	until int   // -1: it found nothing
	held  bool  // until is held, but not mine
}

// claim holds up to n rows, and one more, of those that were there.
func (m *queueModel) claim(n int, more, whole bool) {
	if whole {
		m.front.wholeAt = time.Time{}
	}
	c := &modelCall{from: m.front.start(n), until: -1}
	var seen []int
	for p, holder := range m.rows {
		if holder == nil && !(place{priority: p}).before(c.from.from) {
			seen = append(seen, p)
		}
	}
	slices.Sort(seen)
	for i, p := range seen {
		if i >= n && (!more || i > n) {
			break
		}
		m.rows[p], c.until, c.held = c, p, i == n
		if i < n {
			c.mine = append(c.mine, p)
		}
	}
	m.calls = append(m.calls, c)
}

func (m *queueModel) end(i int, fails bool) {
	c := m.calls[i]
	m.calls = slices.Delete(m.calls, i, i+1)
	for p, holder := range m.rows {
		if holder == c {
			m.rows[p] = nil
		}
	}
	switch {
	case fails:
		m.front.failed(c.from)
		return
	case c.until < 0:
		m.front.ended(c.from, beginning, false)
	default:
		m.front.ended(c.from, place{priority: c.until}, c.held)
	}
	for _, p := range c.mine {
		delete(m.rows, p)
	}
}

// Whatever claims do at the same time, nothing that waits is left before the front.
func TestFront_PassesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &queueModel{front: newFront(), rows: map[int]*modelCall{}}
		m.front.every = time.Hour
		m.front.hear(true)
		var told []int // entered, and the hint is still on its way
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				p := rapid.IntRange(0, 50).Draw(t, "place")
				if _, known := m.rows[p]; !known {
					m.rows[p] = nil
					told = append(told, p)
				}
			},
			"hint": func(t *rapid.T) {
				if len(told) > 0 {
					m.front.back(place{priority: slices.Min(told)})
					told = nil
				}
			},
			"claim": func(t *rapid.T) {
				m.claim(rapid.IntRange(0, 4).Draw(t, "n"), rapid.Bool().Draw(t, "one more"), rapid.IntRange(0, 9).Draw(t, "whole") == 0)
			},
			"end": func(t *rapid.T) {
				if len(m.calls) > 0 {
					m.end(rapid.IntRange(0, len(m.calls)-1).Draw(t, "which"), rapid.IntRange(0, 9).Draw(t, "fails") == 0)
				}
			},
			"": func(t *rapid.T) {
				if len(m.calls) > 0 || len(told) > 0 {
					return // what they hold, or what is not told, may be before it
				}
				for p := range m.rows {
					require.False(t, place{priority: p}.before(m.front.at), "%d is before %d", p, m.front.at.priority)
				}
			},
		})
	})
}

func TestFront_Moves(t *testing.T) {
	t.Parallel()
	m := &queueModel{front: newFront(), rows: map[int]*modelCall{}}
	m.front.every = time.Hour
	for p := range 10 {
		m.rows[p] = nil
	}
	m.claim(3, true, false)
	m.end(0, false)
	require.Equal(t, beginning, m.front.at, "who hears no hints begins at the beginning")
	m.front.hear(true)
	m.claim(3, true, false)
	m.end(0, false)
	require.Equal(t, 6, m.front.at.priority, "what was held and not taken")
	m.claim(2, false, false)
	m.claim(2, false, false)
	m.end(0, false)
	require.Equal(t, 7, m.front.at.priority, "what was taken last")
	m.end(0, false)
	require.Equal(t, 9, m.front.at.priority)
	m.front.hear(false)
	require.Equal(t, beginning, m.front.at)
}

// FuzzReadHint: anybody may notify anything. What is understood is written as it was read.
func FuzzReadHint(f *testing.F) {
	f.Add("")
	f.Add("-5 2026-11-25 03:00:00.000001Z")
	f.Add("0 infinity")
	f.Add("0 0001-01-01 00:00:00+01")
	f.Add("99999999999999999999 2026-11-25 03:00:00Z")
	f.Add("-9223372036854775808 2026-11-25 03:00:00+14")
	f.Fuzz(func(t *testing.T, text string) {
		if p := readHint(text); p != beginning {
			require.Equal(t, p, readHint(p.hint()))
		}
	})
}

func TestPlace_OfTheDatabase(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, text := range []string{"2026-11-25 03:00:00+00", "2026-11-25 03:00:00.1+00", "2026-11-25 03:00:00.123456+00", "0044-03-15 12:00:00.5+00"} {
		p := readPlace(-5, text, "f", 7)
		require.Equal(t, place{-5, p.registered, "f", 7}, p, text)
		require.Equal(t, text, value[string](t, w, `SELECT $1::timestamptz::text`, (&start{from: p}).args()[1]), "to the microsecond")
	}
	for _, text := range []string{"infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "12026-11-25 03:00:00+00"} {
		require.Equal(t, beginning, readPlace(0, text, "f", 7), "it may be anywhere: %s", text)
	}
}

// listening has w hear hints, and look at the whole queue when it is told to.
func listening(t *testing.T, w *world) <-chan struct{} {
	t.Helper()
	w.front.every = time.Hour
	hints := w.Listen(t.Context())
	pgtest.Eventually(t, soon, "hints are heard", func() bool {
		w.front.mu.Lock()
		defer w.front.mu.Unlock()
		return w.front.hinted
	})
	return hints
}

// A claim must not cost more because much was claimed before it, even while a transaction
// that somebody forgot keeps the server from removing what is dead.
func TestAdvance_BeginsWhereTheQueueDoes(t *testing.T) {
	t.Parallel()
	w := open(t)
	listening(t, w)
	mustExec(t, begin(t, w), `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM kr_ready LIMIT 1`)
	behind(t, w, `INSERT INTO kr_ready SELECT 0, now() - interval '1 day', 'long ago', i FROM generate_series(1, 30000) i`)
	behind(t, w, `DELETE FROM kr_ready`)
	register(t, w, independent(20)...)
	finish(t, w, claim(t, w, 2)...)
	engine, err := w.open(1, w.net.dialer(w.net.quick), engineSettings...)
	require.NoError(t, err)
	defer func() { require.NoError(t, engine.Close()) }()
	mustExec(t, engine, `PREPARE late AS `+advanceSQL)
	here := w.front.start(1)
	require.NotEqual(t, beginning, here.from)
	dear := buffersOf(t, w, engine, "late", nil, 10, &start{from: beginning, deleted: true})
	cheap := buffersOf(t, w, engine, "late", nil, 10, here)
	t.Logf("10 tasks behind 30,000 dead ones: %d buffers from the beginning, %d from the front", dear, cheap)
	require.Greater(t, dear, 500, "the dead are in the way")
	require.Less(t, cheap, 150)
}

// What enters the queue before the place where claims begin is told by a hint; without one
// the next look at the whole queue finds it.
func TestAdvance_GoesBack(t *testing.T) {
	t.Parallel()
	w := open(t)
	hints := listening(t, w)
	first := register(t, w, independent(5)...)
	hinted(t, hints, "a registration")
	finish(t, w, claim(t, w, 3)...)
	next := func(whole bool) flow.ID {
		if whole {
			w.front.wholeAt = time.Time{}
		}
		adv := advance(t, w, nil, flow.Claim{Free: 1})
		require.Len(t, adv.Claimed, 1)
		finish(t, w, adv.Claimed...)
		return adv.Claimed[0].Flow
	}
	require.Equal(t, first, next(false))

	urgent := def()
	urgent.Priority = -5
	define(t, w, "urgent", urgent)
	other := another(t, w)
	f, err := other.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "urgent"})
	require.NoError(t, err)
	hinted(t, hints, "of another process")
	require.Equal(t, f.ID, next(false), "what is more urgent")

	insert(t, w, "by hand", 0, [2]int{1, 0})
	hinted(t, hints, "a row put in by hand")
	byHand(t, w, `UPDATE kr_task_stat SET task_priority = -6 WHERE task_flow_id = 'by hand'`)
	require.Equal(t, flow.ID("by hand"), next(true))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'by hand'`)
	hinted(t, hints, "a rerun")
	require.Equal(t, flow.ID("by hand"), next(false))

	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, unmet, task_priority)
		VALUES ('unheard', 1, 'x', 1, 'NoOp', 0, -7)`)
	behind(t, w, `INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat WHERE task_flow_id = 'unheard'`)
	require.Equal(t, first, next(false), "nobody told of the other one")
	require.Equal(t, flow.ID("unheard"), next(true))
}

// A look at the whole queue is made as often as it is cheap.
func TestFront_LooksAtTheWholeQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFront()
		f.hear(true)
		whole := func(takes time.Duration) bool {
			s := f.start(1)
			time.Sleep(takes)
			f.ended(s, place{priority: 1}, false)
			return s.whole
		}
		require.True(t, whole(time.Millisecond), "the first one")
		require.False(t, whole(time.Millisecond))
		time.Sleep(wholeEvery)
		require.True(t, whole(50*time.Millisecond))
		time.Sleep(wholeEvery)
		require.False(t, whole(time.Millisecond), "it is dear")
		time.Sleep(wholeShare * 50 * time.Millisecond)
		require.True(t, whole(time.Millisecond))
		f.failed(f.start(1))
		require.True(t, whole(time.Millisecond), "a failed call may have left anything")
		f.hear(false)
		require.True(t, whole(time.Millisecond), "there are no hints")
		require.True(t, whole(time.Millisecond))
	})
}

// A row whose deletion is rolled back looks deleted to a claim that passes over such rows.
func TestAdvance_FindsWhatWasNotDeleted(t *testing.T) {
	t.Parallel()
	w := open(t)
	listening(t, w)
	id := register(t, w, independent(3)...)
	mustExec(t, w.psql, `BEGIN; DELETE FROM kr_ready WHERE task_exec_seq = 1; ROLLBACK`)
	w.front.wholeAt = time.Now() // just now
	require.Len(t, claim(t, w, 3), 2)
	w.front.wholeAt, w.front.wholes = time.Time{}, deletedEvery
	tasks := claim(t, w, 3)
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 1}}, keysOf(tasks))
}

// A task that was changed after the claim's snapshot, and before the claim locked it, goes
// back to the queue, and is claimed by the next one, with the change. One that has another
// place in the queue since then has it already.
func TestAdvance_ATaskChangesMeanwhile(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		var id flow.ID
		adv, ok := flow.Advanced{}, false
		for !ok {
			byHand(t, w, `DELETE FROM kr_task_stat`)
			register(t, w, def())
			task := claimOne(t, w)
			id = register(t, w, independent(4)...)
			adv, ok = meanwhile(t, w, task, 4, func() {
				byHand(t, w, `UPDATE kr_task_stat SET task_priority = 1 WHERE task_flow_id = $1 AND task_exec_seq = 4`, string(id))
				byHand(t, w, `UPDATE kr_task_stat SET parameters = '{"changed": true}' WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
			})
		}
		require.Equal(t, []int{1, 3}, seqsOf(adv.Claimed))
		require.Equal(t, 1, adv.Queued, "the watcher looks again")
		require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}, {Flow: id, Seq: 4}}, ready(t, w))
		tasks := append(adv.Claimed, claim(t, w, 3)...)
		require.ElementsMatch(t, []int{1, 2, 3, 4}, seqsOf(tasks))
		for _, task := range tasks {
			require.Equal(t, task.Seq == 2, string(task.Parameters) == `{"changed": true}`, "%d: %s", task.Seq, task.Parameters)
		}
		finish(t, w, tasks...)
		sound(t, w)
	})
}

// A call for no worker looks nowhere, and puts off nobody's look at the whole queue.
func TestFront_WhoeverClaimsNothingHasNotLooked(t *testing.T) {
	t.Parallel()
	f := newFront()
	f.hear(true)
	recording := f.start(0)
	require.False(t, recording.whole)
	f.ended(recording, beginning, false)
	require.True(t, f.start(1).whole)
	require.False(t, f.start(1).whole, "not again so soon")
}
