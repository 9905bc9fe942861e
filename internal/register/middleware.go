package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/d-tsuji/flower/internal/problem"
)

// exchange is what the layers and the handler of one request tell each other.
type exchange struct {
	server  *Server
	id      string   // of the request, made here: a client's own could be anything
	task    string   // the workflow that it names, for answers
	ignored []string // fields of its body, likewise
	path    string   // by which it is counted: as it was sent, but for the base path
	away    bool     // it failed since the database is away, which the log has
}

type exchangeKey struct{}

func exchangeOf(r *http.Request) *exchange {
	x, ok := r.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		panic("a handler was reached without the layer observed")
	}
	return x
}

// gone reports whether the client has left, so that nobody waits for an answer.
func (*exchange) gone(r *http.Request) bool {
	return errors.Is(context.Cause(r.Context()), context.Canceled)
}

// observed gives the request its id and the answer its headers, and writes the access
// log. Neither parameters nor query are logged: they may hold secrets.
func (s *Server) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		x := &exchange{server: s, id: uuid.NewString(), path: r.URL.EscapedPath()}
		r = r.WithContext(problem.With(context.WithValue(r.Context(), exchangeKey{}, x), x))
		h := w.Header()
		h.Set("X-Request-Id", x.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		s.strict(h, r)

		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)

		took := time.Since(start)
		s.cfg.Meter.Request(r.Method, x.path, rec.status, took)
		s.logAccess(r, x, rec.status, took)
	})
}

// logAccess writes a line about a request that was answered: who was refused is told, but
// not a thousand times a second.
func (s *Server) logAccess(r *http.Request, x *exchange, status int, took time.Duration) {
	attrs := []any{
		"method", r.Method, "path", r.URL.EscapedPath(), "status", status, "took", took.Round(time.Microsecond),
		"client", s.client(r), "request", x.id,
	}
	level := slog.LevelDebug // what registers a flow logs that itself
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests:
		missed, ok := s.denied.admit(strconv.Itoa(status) + s.client(r))
		if missed > 0 {
			attrs = append(attrs, "repeated", missed)
		}
		if ok {
			level = slog.LevelInfo
		}
	case r.Method == http.MethodPost && status >= 400 && !x.away:
		level = slog.LevelInfo
	}
	s.log.Log(r.Context(), level, "request", attrs...)
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status  int
	written bool
}

func (r *recorder) WriteHeader(status int) {
	r.status, r.written = status, true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.written = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the writer below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// recovering makes a panic the failure of one request.
func (s *Server) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { //nolint:errorlint // the identical value is what net/http documents
				panic(p)
			}
			x := exchangeOf(r)
			s.cfg.Meter.Panic()
			s.log.Error("a request panicked", "err", fmt.Sprint(p), "request", x.id,
				"method", r.Method, "path", r.URL.EscapedPath(), "stack", string(debug.Stack()))
			if rec, ok := w.(*recorder); ok && rec.written {
				panic(http.ErrAbortHandler) // half an answer must not look like a whole one
			}
			s.fail(w, r, problem.Internal.Because("internal error; the log has the details under this request's id"))
		}()
		next.ServeHTTP(w, r)
	})
}

// bounded lets a limited number of requests in, has a limited number wait a little, with
// their bodies unread, and refuses the rest. Health checks have a limit of their own: a
// busy server must not look like a dead one.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		slots := s.inFlight
		switch {
		case isHealth(r):
			slots = s.health
		case s.patience(r) > 0:
			slots = s.patient
		}
		if !acquire(slots) && (isHealth(r) || !s.wait(r.Context(), slots)) {
			s.fail(w, r, problem.TooManyRequests.Because("too many requests at once; try again in a second"))
			return
		}
		defer func() { <-slots }()
		next.ServeHTTP(w, r)
	})
}

// wait takes a slot as soon as one is free, and reports whether one was, in time.
func (s *Server) wait(ctx context.Context, slots chan<- struct{}) bool {
	if !acquire(s.queue) {
		return false
	}
	defer func() { <-s.queue }()
	timer := time.NewTimer(queueTimeout)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// acquire takes a slot if one is free.
func acquire(slots chan<- struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// rebased takes the base path off a request, where a proxy has left it: everything below
// goes by the rest.
func (s *Server) rebased(next http.Handler) http.Handler {
	base := s.cfg.BasePath
	if base == "" {
		return next
	}
	stripped := http.StripPrefix(base, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch rest, kept := strings.CutPrefix(r.URL.EscapedPath(), base); {
		case kept && rest == "":
			http.Redirect(w, r, base+"/", http.StatusSeeOther)
		case kept && rest[0] == '/':
			exchangeOf(r).path = rest
			stripped.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// knownHost refuses requests for other hosts. A page on evil.example can make that
// name resolve to 127.0.0.1 and so speak to us as its own origin. It cannot do that with
// an address in the place of a name, so that any address is as good as the right one.
func (s *Server) knownHost(next http.Handler) http.Handler {
	names := s.cfg.hostNames()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOnly(r.Host)
		// Only HTTP/1.0 without a Host has none; no browser sends that.
		if host != "" && !names[host] && !strings.HasSuffix(host, ".localhost") {
			if _, err := netip.ParseAddr(host); err != nil {
				s.fail(w, r, problem.UnknownHost.Because("this server is not known as %q; start register with -hosts %s if it should be",
					problem.Cut(host, 256), problem.Cut(host, 256)))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin refuses what a page of another site makes a browser send. /register needs
// that as much as everything else: it reads JSON whatever the Content-Type says, and a
// plain form can post that.
func (s *Server) sameOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(s.handle(func(http.ResponseWriter, *http.Request) error {
		return problem.CrossOrigin.Because("a page of another site sent this request")
	}))
	return p.Handler(next)
}

// deadline limits the time and the path of a request.
func (s *Server) deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.EscapedPath()) > maxPath {
			s.fail(w, r, problem.PathTooLong.Because("the path is longer than %d bytes", maxPath))
			return
		}
		limit := s.limit(r)
		if limit > requestTimeout {
			// Later than any answer. The read deadline of the whole request, if it came
			// while the handler waits, would look like a client that has left. A writer
			// that has no deadlines needs none.
			c, later := http.NewResponseController(w), time.Now().Add(limit+writeTimeout-requestTimeout)
			_, _ = c.SetReadDeadline(later), c.SetWriteDeadline(later)
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		if limit > requestTimeout {
			var stop context.CancelCauseFunc
			ctx, stop = context.WithCancelCause(ctx)
			defer context.AfterFunc(s.ending, func() {
				stop(problem.ShuttingDown.Because("this server is stopping; ask again in a moment, or another one"))
			})()
			defer stop(nil)
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// limit is how long a request may take.
func (s *Server) limit(r *http.Request) time.Duration { return requestTimeout + s.patience(r) }

// patience is how long a request may wait for something to happen.
func (s *Server) patience(r *http.Request) time.Duration {
	for _, site := range s.sites {
		if strings.HasPrefix(r.URL.EscapedPath(), site.Prefix) {
			if site.Patience == nil {
				return 0
			}
			return site.Patience(r)
		}
	}
	return 0
}

func isHealth(r *http.Request) bool {
	return r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
}
