// Package metrics counts what the two programs do, and tells Prometheus.
//
// It has a registry of its own and a listener of its own, so that nothing of it can be
// reached by whoever uses register, and it is off unless asked for. Labels have words from
// short lists, never ids: what is kept does not grow with what happens.
//
// The rooms that are counted declare what they tell (watcher.Meter, register.Meter), and
// cmd passes what has it.
package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are those of one program.
type Metrics struct {
	registry *prometheus.Registry
	log      *slog.Logger
}

// New returns the metrics of a program: for a start those of its process.
func New(program, version string, log *slog.Logger) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), log: log}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flower_build_info", Help: "Which program this is.",
		ConstLabels: prometheus.Labels{"program": program, "version": version},
	})
	build.Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves /metrics, and on a loopback address /debug/pprof as well: a profile may
// have anything in it.
func (m *Metrics) Handler(loopback bool) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn), MaxRequestsInFlight: 4,
	}))
	if loopback {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Serve listens on an address and returns what serves there until ctx ends.
func (m *Metrics) Serve(ctx context.Context, address string) (serve func() error, err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics (-metrics-addr): %w", err)
	}
	at, _ := l.Addr().(*net.TCPAddr)
	server := &http.Server{
		Handler: m.Handler(at != nil && at.IP.IsLoopback()), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 2 * time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, // a profile takes its time
		ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	m.log.Info("metrics are served", "metrics", "http://"+l.Addr().String()+"/metrics")
	return func() error {
		if err := server.Serve(l); err != http.ErrServerClosed { //nolint:errorlint // documented to be returned as it is
			return fmt.Errorf("serve metrics: %w", err)
		}
		return nil
	}, nil
}

// desc describes a metric that is looked up when it is asked for.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
