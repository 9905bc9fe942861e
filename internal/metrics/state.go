package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/d-tsuji/flower/internal/flow"
)

// Store is the database, as whoever counts needs it.
type Store interface {
	Census(ctx context.Context) (flow.Census, error)
	Checked(ctx context.Context) (flow.Check, error)
}

// A census is good for a while: however many ask, and how often, the database is asked
// this often at the most.
const (
	censusEvery   = 30 * time.Second
	censusTimeout = 10 * time.Second
)

// State adds what the database has: of all flows, tasks and watchers.
func (m *Metrics) State(store Store) {
	m.registry.MustRegister(&state{store: store, failed: func(err error) {
		m.log.Warn("how things stand cannot be counted", "err", err)
	}})
}

type state struct {
	store  Store
	failed func(error)

	mu     sync.Mutex // guards the rest
	asked  time.Time
	census flow.Census
	check  flow.Check
	good   bool
	told   bool // that it cannot be counted
}

var (
	upDesc        = desc("flower_database_up", "1 if the database has answered when it was last asked.")
	flowsDesc     = desc("flower_flows", "Flows that are not over, by status.", "status")
	tasksDesc     = desc("flower_tasks", "Tasks that are not over and wait for no other one, by state; counted up to 100,000.", "state")
	suspendedDesc = desc("flower_suspended_tasks", "Suspended tasks, by reason; counted up to 100,000.", "reason")
	oldestDesc    = desc("flower_queue_oldest_seconds", "How long a task in the queue has waited at the most.")
	watchersDesc  = desc("flower_watchers", "Watchers, by state.", "state")
	workersDesc   = desc("flower_workers", "Workers of the watchers that live.")
	busyDesc      = desc("flower_workers_busy", "Those that run a task.")
	heartbeatDesc = desc("flower_heartbeat_age_seconds", "How long ago the watcher that is most behind has given a sign of life.")
	brokenDesc    = desc("flower_invariant_violations", "Rows that break a rule of the database, as the last check of v_invariant found.", "rule")
	checkDesc     = desc("flower_invariant_check_age_seconds", "How long ago that was.")
)

// Describe implements prometheus.Collector.
func (*state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		upDesc, flowsDesc, tasksDesc, suspendedDesc, oldestDesc, watchersDesc, workersDesc, busyDesc, heartbeatDesc, brokenDesc, checkDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Without an answer there is nothing but that:
// old figures would look like new ones.
func (s *state) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask()
	if !s.good {
		gauge(ch, upDesc, 0)
		return
	}
	gauge(ch, upDesc, 1)
	c := s.census
	for status, n := range c.Flows {
		gauge(ch, flowsDesc, float64(n), status)
	}
	for state, n := range map[string]int{"queued": c.Queued, "delayed": c.Delayed, "limited": c.Limited, "running": c.Running} {
		gauge(ch, tasksDesc, float64(n), state)
	}
	for _, reason := range []flow.Reason{
		flow.ReasonFailed, flow.ReasonTimeout, flow.ReasonLost, flow.ReasonInvalid, flow.ReasonCancelled, flow.ReasonHeld, "",
	} {
		gauge(ch, suspendedDesc, float64(c.Suspended[reason]), string(reason))
	}
	for _, state := range []string{"alive", "draining", "late", "dead"} {
		gauge(ch, watchersDesc, float64(c.Watchers[state]), state)
	}
	gauge(ch, oldestDesc, c.OldestWait.Seconds())
	gauge(ch, workersDesc, float64(c.Workers))
	gauge(ch, busyDesc, float64(c.Busy))
	if len(c.Watchers) > 0 { // none has no age, and 0 would look as well as can be
		gauge(ch, heartbeatDesc, c.HeartbeatAge.Seconds())
	}
	s.collectCheck(ch)
}

func (s *state) collectCheck(ch chan<- prometheus.Metric) {
	if !s.check.Done {
		return
	}
	gauge(ch, checkDesc, (s.check.Age + time.Since(s.asked)).Seconds())
	if len(s.check.Broken) == 0 {
		gauge(ch, brokenDesc, 0, "")
	}
	for _, rule := range s.check.Broken {
		gauge(ch, brokenDesc, float64(rule.Rows), rule.Rule)
	}
}

// ask asks the database, if the last answer is too old.
func (s *state) ask() {
	if s.good && time.Since(s.asked) < censusEvery {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), censusTimeout)
	defer cancel()
	census, err := s.store.Census(ctx)
	if err == nil {
		s.check, err = s.store.Checked(ctx)
	}
	s.asked, s.good, s.census = time.Now(), err == nil, census
	if err != nil && !s.told {
		s.failed(err)
	}
	s.told = err != nil
}

// Pools adds the connections to the database; each tells of one pool after the other.
func (m *Metrics) Pools(each func(tell func(name string, open, inUse int, waits int64, waited time.Duration))) {
	m.registry.MustRegister(pools(each))
}

type pools func(tell func(name string, open, inUse int, waits int64, waited time.Duration))

var (
	openDesc   = desc("flower_database_connections", "Connections to the database, by pool.", "pool")
	inUseDesc  = desc("flower_database_connections_in_use", "Those that are in use.", "pool")
	waitsDesc  = desc("flower_database_connection_waits_total", "How often somebody had to wait for one.", "pool")
	waitedDesc = desc("flower_database_connection_wait_seconds_total", "For how long, all in all.", "pool")
)

// Describe implements prometheus.Collector.
func (pools) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{openDesc, inUseDesc, waitsDesc, waitedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (each pools) Collect(ch chan<- prometheus.Metric) {
	each(func(name string, open, inUse int, waits int64, waited time.Duration) {
		gauge(ch, openDesc, float64(open), name)
		gauge(ch, inUseDesc, float64(inUse), name)
		ch <- prometheus.MustNewConstMetric(waitsDesc, prometheus.CounterValue, float64(waits), name)
		ch <- prometheus.MustNewConstMetric(waitedDesc, prometheus.CounterValue, waited.Seconds(), name)
	})
}
