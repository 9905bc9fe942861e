package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/d-tsuji/flower/internal/flow"
)

// Work counts what a watcher does; it is the watcher's Meter.
type Work struct {
	claims   *prometheus.CounterVec
	attempts *prometheus.CounterVec
	took     *prometheus.HistogramVec
	refused  prometheus.Counter
	rescued  prometheus.Counter
}

// secondsBuckets are for what takes from milliseconds to hours.
var secondsBuckets = []float64{0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400}

// Work adds what a watcher does. Programs are those that it has, so that their names are a
// short list.
func (m *Metrics) Work() *Work {
	w := &Work{
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flower_claims_total", Help: "Attempts that this watcher has claimed.",
		}, []string{"program"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flower_attempts_total", Help: "Attempts that have ended here and are recorded, by how they ended.",
		}, []string{"program", "outcome"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flower_attempt_seconds", Help: "How long they ran.", Buckets: secondsBuckets,
		}, []string{"program"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flower_late_results_total", Help: "Results that were refused, since their task had been changed by hand or taken over.",
		}),
		rescued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flower_rescues_total", Help: "Tasks of dead watchers that this one has taken from them.",
		}),
	}
	m.registry.MustRegister(w.claims, w.attempts, w.took, w.refused, w.rescued)
	return w
}

// Claimed implements watcher.Meter.
func (w *Work) Claimed(program string) { w.claims.WithLabelValues(program).Inc() }

// Ended implements watcher.Meter.
func (w *Work) Ended(program string, outcome flow.Outcome, took time.Duration) {
	w.attempts.WithLabelValues(program, string(outcome)).Inc()
	w.took.WithLabelValues(program).Observe(took.Seconds())
}

// Refused implements watcher.Meter.
func (w *Work) Refused() { w.refused.Inc() }

// Rescued implements watcher.Meter.
func (w *Work) Rescued(tasks int) { w.rescued.Add(float64(tasks)) }

// Pulse adds how a watcher itself is: its workers, those that run a task, and when it last
// gave a sign of life.
func (m *Metrics) Pulse(look func() (workers, busy int, renewed time.Time)) {
	f := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	f("flower_watcher_workers", "Workers of this watcher.", func() float64 { n, _, _ := look(); return float64(n) })
	f("flower_watcher_busy", "Those that run a task.", func() float64 { _, n, _ := look(); return float64(n) })
	f("flower_watcher_heartbeat_age_seconds", "How long ago its last heartbeat went through; -1: none has.", func() float64 {
		_, _, renewed := look()
		if renewed.IsZero() {
			return -1
		}
		return time.Since(renewed).Seconds()
	})
}
