package metrics

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Web counts requests; it is the Meter of register.
type Web struct {
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	panics   prometheus.Counter

	mu     sync.Mutex
	routes map[string]bool // that are there; guarded by mu
}

// maxRoutes bounds how many are told apart. There are not half as many.
const maxRoutes = 200

// Web adds what comes by HTTP.
func (m *Metrics) Web() *Web {
	w := &Web{
		routes: make(map[string]bool),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flower_http_requests_total", Help: "Requests that were answered.",
		}, []string{"method", "route", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flower_http_request_seconds", Help: "How long that took.",
			Buckets: []float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15},
		}, []string{"route"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flower_http_panics_total", Help: "Requests that ended in a panic.",
		}),
	}
	m.registry.MustRegister(w.requests, w.took, w.panics)
	return w
}

// Request implements register.Meter.
func (w *Web) Request(method, path string, status int, took time.Duration) {
	route := w.route(path, status)
	if !slices.Contains(methods, method) {
		method = "other"
	}
	w.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	w.took.WithLabelValues(route).Observe(took.Seconds())
}

// route returns the route that a path is of. One that nobody was ever served by may not be
// there: what people make up must not become labels.
func (w *Web) route(path string, status int) string {
	route := template(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.routes[route]:
		return route
	case status >= 400 && status < 500 || len(w.routes) == maxRoutes:
		return "other"
	}
	w.routes[route] = true
	return route
}

// Panic implements register.Meter.
func (w *Web) Panic() { w.panics.Inc() }

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// words are those of paths that are no ids: any other word is an id's place.
var words = map[string]bool{}

func init() {
	for word := range strings.FieldsSeq(`api v1 register healthz readyz login logout settings static help flows flow workflows tasks task
		attempts log log.txt events failures queue running watchers stats programs version versions definition graph
		rerun cancel hold resume approve skip finish bulk search callback openapi.json openapi.yaml docs schema workflow.json`) {
		words[word] = true
	}
}

// maxSegments is the depth of the deepest route; what is deeper is none of ours.
const maxSegments = 8

// template makes of a path the route that it is of: /api/v1/flows/{}/tasks/{}/log.
func template(path string) string {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(segments) > maxSegments || !words[segments[0]] && path != "/" {
		return "other"
	}
	if segments[0] == "static" {
		return "/static/{}"
	}
	for i, s := range segments {
		// After a word there may be an id which is one, too: an id's place is told by what is
		// before it.
		named := i > 0 && (segments[i-1] == "flows" || segments[i-1] == "workflows" || segments[i-1] == "tasks" || segments[0] == "register" || segments[0] == "callback")
		if s != "" && (!words[s] || named) {
			segments[i] = "{}"
		}
	}
	return "/" + strings.Join(segments, "/")
}
