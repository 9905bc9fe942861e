package watcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Health serves /healthz, the process lives, and /readyz, it can run tasks, on address
// until ctx ends. It listens before it returns, so that a port in use is an error.
//
// /readyz also says whether every rule of the database holds. One that does not makes no
// watcher unready: it is what repairs it, or else nobody. A monitor asks for ?strict, and
// gets 503 then.
func (w *Watcher) Health(ctx context.Context, address string) (serve func() error, err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { say(rw, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", w.readyz)
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks (-health-addr): %w", err)
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(w.log.Handler(), slog.LevelDebug), // or it would be no JSON
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	w.log.Info("health checks are answered", "component", "watcher", "address", l.Addr().String())
	return func() error {
		if err := server.Serve(l); err != http.ErrServerClosed { //nolint:errorlint // documented to be returned as it is
			return fmt.Errorf("serve health checks: %w", err)
		}
		return nil
	}, nil
}

func (w *Watcher) readyz(rw http.ResponseWriter, r *http.Request) {
	if reason := w.unready(); reason != "" {
		say(rw, http.StatusServiceUnavailable, reason+"\n")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkedTimeout)
	defer cancel()
	status, text := http.StatusOK, "v_invariant: not known: what the last check found cannot be read\n"
	if c, err := w.store.Checked(ctx); err == nil {
		text = c.Text(true)
		if len(c.Broken) > 0 && r.URL.Query().Has("strict") {
			status = http.StatusServiceUnavailable
		}
	} else if r.Context().Err() == nil && !errors.Is(err, flow.ErrUnavailable) { // others tell of an outage, once
		w.log.Warn("what the last check of v_invariant found cannot be read", "component", "watcher", "err", err)
	}
	say(rw, status, "ready\n"+text)
}

// checkedTimeout is shorter than the patience of whoever asks.
const checkedTimeout = 2 * time.Second

func say(rw http.ResponseWriter, status int, text string) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.WriteHeader(status)
	_, _ = io.WriteString(rw, text) // whoever asked may have gone
}

// unready says why this watcher cannot run tasks just now, or nothing.
func (w *Watcher) unready() string {
	renewed := w.lease.renewed.Load()
	switch {
	case renewed == nil:
		return "waiting for the database"
	case time.Since(*renewed) > fenceAfter:
		return "no heartbeat goes through to the database; the log says why"
	}
	return ""
}
