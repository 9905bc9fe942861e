// Package register is Flower's HTTP side: it registers flows and shows how they go.
//
// POST /register is the door that the original had. What it takes and answers is a
// promise: fields are only ever added. Health checks are here as well; the rest is served
// by other rooms (see Site), and answers errors as problem+json.
//
// A request passes, from outside: its id, the security headers and the access log; what
// catches a panic; whether its connection is one too many; the check of its Host; the check that no other site's page sent it; the
// question who is calling, and whether that one may; the limit of requests at once; a
// deadline; the router. Handlers return their errors, and respond.go makes answers of
// them.
package register

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/reload"
)

// Store is what this package needs of the database. Errors are flow.ErrNotFound,
// *flow.InvalidError, flow.ErrKeyReused and flow.ErrUnavailable; all others are
// unexpected, and their text is logged but never sent to a client.
type Store interface {
	// Register makes a flow, whole or not at all; it exists when Register has returned
	// without an error. A key that was used before returns the earlier flow, marked as
	// replayed, or flow.ErrKeyReused if that request had another fingerprint.
	Register(ctx context.Context, r flow.Registration) (flow.Flow, error)

	// Answer gives a task the answer that it waits for, which is JSON. The hash is that of
	// the token that the caller shows; if the task has not given that away, or is not
	// there, the error is flow.ErrNotFound.
	Answer(ctx context.Context, key flow.TaskKey, hash, body string) (flow.Answered, error)

	// Ready returns why the database cannot be used just now, or nil.
	Ready(ctx context.Context) error

	// Checked returns what was found when a watcher last looked whether every rule of
	// the database holds.
	Checked(ctx context.Context) (flow.Check, error)
}

// Limits of what one client can take from the others.
const (
	maxInFlight = 256  // requests at once
	maxQueued   = 2048 // requests that wait for one of those to end; beyond, 503
	maxHealth   = 16   // requests of health checks at once
	maxPatient  = 256  // requests at once that wait for something to happen

	headerTimeout  = 5 * time.Second
	readTimeout    = 10 * time.Second // header and body
	queueTimeout   = 5 * time.Second  // leaves readTimeout some for the body
	requestTimeout = 15 * time.Second // what a handler has
	writeTimeout   = 30 * time.Second
	idleTimeout    = 60 * time.Second

	maxHeader = 16 << 10
	// An id of 256 characters has up to 3 KiB when it is percent-escaped.
	maxPath = 4 << 10
)

// Server serves HTTP.
type Server struct {
	cfg      Config
	store    Store
	sites    []Site
	log      *slog.Logger
	errors   *throttle
	outage   *outage
	denied   *throttle
	cert     atomic.Pointer[reload.Files[*tls.Certificate]] // nil without TLS, and before Run
	conns    *connections
	exposed  bool // others than this machine can reach it; set before it serves
	stopping atomic.Bool
	unready  atomic.Bool // what the last readiness check found
	inFlight chan struct{}
	queue    chan struct{}
	health   chan struct{}
	patient  chan struct{}
	ending   context.Context // ends when the server begins to stop
	end      context.CancelFunc
	reading  time.Duration // what a client has for header and body; readTimeout but in tests
}

// Site is what another room serves here, behind all of the server's layers: its handler
// finds an access.Principal in the request's context, and has the path as it was sent.
type Site struct {
	Prefix  string // of its paths, as in "/api/v1/"; the first site that fits is asked
	Handler http.Handler

	// Refuse tells a browser, in a page, why it may not do what a form asks for; it finds an
	// access.Principal, too. nil: that is told as everything else.
	Refuse func(w http.ResponseWriter, r *http.Request, err error)

	// Patience returns how long a request may take that waits for something to happen;
	// 0, or no function: as long as all others. It holds nothing meanwhile that others
	// need, and there is a limit of its own for how many there are at once.
	Patience func(r *http.Request) time.Duration
}

// New returns a server; it does nothing yet.
func New(cfg Config, store Store, log *slog.Logger, sites ...Site) *Server {
	log = log.With("component", "register")
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = defaultShutdownTimeout
	}
	if cfg.Meter == nil {
		cfg.Meter = noMeter{}
	}
	ending, end := context.WithCancel(context.Background())
	return &Server{
		cfg:      cfg,
		store:    store,
		sites:    sites,
		log:      log,
		errors:   newThrottle(log),
		denied:   newThrottle(log),
		conns:    newConnections(room(openFiles())),
		outage:   &outage{out: log},
		exposed:  cfg.exposed(),
		inFlight: make(chan struct{}, maxInFlight),
		queue:    make(chan struct{}, maxQueued),
		health:   make(chan struct{}, maxHealth),
		patient:  make(chan struct{}, maxPatient),
		ending:   ending,
		end:      end,
		reading:  readTimeout,
	}
}

// Handler returns everything that the server serves.
func (s *Server) Handler() http.Handler {
	// A path is taken as it was sent: cleaning it, or adding a slash, would answer 301,
	// which turns a POST into a GET, and ids may hold anything, escaped slashes too.
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, path := range []string{"/register", "/register/", "/register/{task_id}", "/register/{task_id}/"} {
		r.Handle(path, s.only(http.MethodPost, s.register))
	}
	r.Handle("/callback/{task_flow_id}/{task_exec_seq}", s.only(http.MethodPost, s.answer))
	r.Handle("/healthz", s.only(http.MethodGet, s.healthz))
	r.Handle("/readyz", s.only(http.MethodGet, s.readyz))
	welcome := s.only(http.MethodGet, s.welcome)
	r.Handle("/", welcome).MatcherFunc(fromTerminal)
	for _, site := range s.sites {
		r.PathPrefix(site.Prefix).Handler(site.Handler)
	}
	r.Handle("/", welcome)
	r.NotFoundHandler = s.handle(func(http.ResponseWriter, *http.Request) error {
		return problem.NoSuchPath.Because("there is nothing at this path; GET / says what there is")
	})

	var h http.Handler = r
	for _, layer := range []func(http.Handler) http.Handler{ // from inside
		s.deadline, s.bounded, s.identified, s.sameOrigin, s.knownHost, s.welcomed, s.rebased, s.recovering, s.observed,
	} {
		h = layer(h)
	}
	return h
}

// Run listens where the configuration says, and serves until ctx ends. Beside it runs
// prepare, until which has ended well the store answers flow.ErrUnavailable: whoever asks
// meanwhile, a health check above all, hears that rather than nothing. Its error ends Run.
func (s *Server) Run(ctx context.Context, prepare func(context.Context) error) error {
	if err := s.openTLS(); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.cfg.address())
	if err != nil {
		return fmt.Errorf("listen on %s (-webhost, -webport): %w", s.cfg.address(), err)
	}
	return s.Serve(ctx, l, prepare)
}

// Serve is Run on l, which it closes. At the end it lets the requests in flight end.
func (s *Server) Serve(ctx context.Context, l net.Listener, prepare func(context.Context) error) error {
	if err := s.openTLS(); err != nil {
		return errors.Join(err, l.Close())
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		s.cfg.Port = a.Port
		s.exposed = !a.IP.IsLoopback()
	}
	srv := &http.Server{
		Handler:                      s.Handler(),
		DisableGeneralOptionsHandler: true, // it would pass by our checks
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  s.reading,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // clients' mistakes
		ConnState:                    s.conns.track,
		ConnContext:                  s.conns.remember,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	prepared, served := make(chan error, 1), make(chan error, 1)
	go func() { prepared <- s.prepare(ctx, cancel, prepare) }()
	go func() { served <- s.serve(srv, l) }()
	select {
	case err := <-served:
		cancel(err)
		return errors.Join(fmt.Errorf("serve: %w", err), <-prepared)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.end()
	err := <-prepared
	if err == nil {
		s.log.Info("stopping", "cause", context.Cause(ctx))
	}
	return errors.Join(err, s.shutDown(ctx, srv, served))
}

// prepare runs f and says where the server is when that has ended well. An error ends the
// server, but for one that comes of its being stopped.
func (s *Server) prepare(ctx context.Context, stop context.CancelCauseFunc, f func(context.Context) error) error {
	err := f(ctx)
	switch {
	case err == nil:
		s.announce()
	case ctx.Err() != nil:
		return nil
	default:
		stop(err)
	}
	return err
}

func (s *Server) shutDown(ctx context.Context, srv *http.Server, served <-chan error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests were cut off, since they still ran after %s (-shutdown-timeout): %w",
			s.cfg.ShutdownTimeout, err), srv.Close())
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", e))
	}
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}

// announce logs where the server listens, in the original's words, and what it serves
// there to whom.
func (s *Server) announce() {
	address := s.cfg.address()
	s.log.Info("starting server on address: "+address, "address", address,
		"try", "curl -X POST "+s.cfg.scheme()+"://"+net.JoinHostPort("localhost", strconv.Itoa(s.cfg.Port))+"/register/sample")
	switch {
	case s.guarded():
		s.log.Info("callers must say who they are: by a token, or by a trusted proxy")
	case s.exposed && s.cfg.Insecure:
		s.log.Warn("insecure: whoever can reach this address may do everything")
	case s.exposed:
		s.log.Warn("others can reach this address, and nobody is known: only POST /register, callbacks of tasks and the health checks are served " +
			"(-tokens-file lets in who has a token; -insecure serves everything, for where the network keeps others out)")
	}
	if s.conns.most < maxConns {
		s.log.Warn("few connections can be served at once, since this process may have few files open (ulimit -n)",
			"connections", s.conns.most, "files", openFiles())
	}
	if s.cfg.ReadOnly {
		s.log.Info("read-only: whatever changes something is refused")
	}
}
