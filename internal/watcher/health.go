package watcher

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Health serves /healthz, the process lives, and /readyz, it can run tasks, on address
// until ctx ends. It listens before it returns, so that a port in use is an error.
func (w *Watcher) Health(ctx context.Context, address string) (serve func() error, err error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { answer200(rw, "ok\n") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if reason := w.unready(); reason != "" {
			http.Error(rw, reason, http.StatusServiceUnavailable)
			return
		}
		answer200(rw, "ready\n")
	})
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks (-health-addr): %w", err)
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
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

func answer200(rw http.ResponseWriter, text string) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(rw, text) // whoever asked may have gone
}

// unready says why this watcher cannot run tasks just now, or nothing.
func (w *Watcher) unready() string {
	renewed := w.lease.renewed.Load()
	switch {
	case renewed == 0:
		return "waiting for the database"
	case time.Since(time.Unix(0, renewed)) > fenceAfter:
		return "no heartbeat goes through to the database; the log says why"
	}
	return ""
}

// Healthcheck asks the watcher that answers on address whether it is ready. Containers
// use it, which have no curl.
func Healthcheck(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	url := "http://" + address + "/readyz"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // whatever came
		return fmt.Errorf("%s: %s: %s", url, answer.Status, strings.TrimSpace(string(reason)))
	}
	return nil
}
