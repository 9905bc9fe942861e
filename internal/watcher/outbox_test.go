package watcher

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// numbered returns n tasks, the first one with the number first.
func numbered(first, n int) []flow.Task {
	tasks := make([]flow.Task, n)
	for i := range tasks {
		tasks[i].Seq = first + i
	}
	return tasks
}

// Each worker is woken up by the one before it: none must be forgotten, whatever was given
// while another was on its way.
func TestOutbox_LongTasksAllBeginAtOnce(t *testing.T) {
	for _, gifts := range [][]int{{50}, {1, 49}, {25, 25}, slices.Repeat([]int{1}, 50)} {
		synctest.Test(t, func(t *testing.T) {
			b, done := newOutbox(), make(chan struct{})
			var begun atomic.Int64
			for range 50 {
				go func() {
					if _, ok := b.take(); ok {
						begun.Add(1)
					}
					<-done
				}()
			}
			synctest.Wait()
			given := 0
			for i, n := range gifts {
				b.give(numbered(given, n))
				given += n
				if i%2 == 1 { // every other one comes while workers are being woken up
					synctest.Wait()
					require.EqualValues(t, given, begun.Load())
				}
			}
			synctest.Wait()
			require.EqualValues(t, 50, begun.Load())
			b.close()
			close(done)
		})
	}
}

func TestOutbox_ShortTasksAreTakenOnceAndInOrder(t *testing.T) {
	t.Parallel()
	const workers, tasks = 20, 20_000
	b := newOutbox()
	taken := make([][]int, workers)
	var left sync.WaitGroup
	left.Add(tasks)
	var running sync.WaitGroup
	for i := range workers {
		running.Go(func() {
			for {
				task, ok := b.take()
				if !ok {
					return
				}
				taken[i] = append(taken[i], task.Seq)
				left.Done()
			}
		})
	}
	for first := 0; first < tasks; {
		n := min(1+first%37, tasks-first)
		b.give(numbered(first, n))
		first += n
		if first%3 == 0 { // now and then all of them fall asleep
			runtime.Gosched()
		}
	}
	left.Wait()
	b.close()
	running.Wait()
	for _, seqs := range taken {
		require.True(t, slices.IsSorted(seqs))
	}
	all := slices.Sorted(slices.Values(slices.Concat(taken...)))
	require.Len(t, slices.Compact(all), tasks)
}

// BenchmarkOutbox is what it takes to hand out a task that does nothing, with many workers.
func BenchmarkOutbox(b *testing.B) {
	box, tasks := newOutbox(), numbered(0, 300)
	var left sync.WaitGroup
	for range 1000 {
		go func() {
			for _, ok := box.take(); ok; _, ok = box.take() {
				left.Done()
			}
		}()
	}
	for b.Loop() {
		left.Add(len(tasks))
		box.give(tasks)
		left.Wait()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(tasks)), "ns/task")
	box.close()
}
