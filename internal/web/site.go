package web

import (
	"io/fs"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/gorilla/mux"
	"golang.org/x/sync/singleflight"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// Config says how the pages are served.
type Config struct {
	// BasePath is where browsers find the pages behind a proxy, as in "/flower"; empty is
	// "/". The path of a request that comes here no longer has it.
	BasePath string

	// Access checks tokens; nil knows nobody.
	Access *access.Control

	Version string // of the program, for people to read
}

// Site serves the pages.
type Site struct {
	cfg   Config
	store Store
	log   *slog.Logger

	files  files
	pages  pages
	news   news
	counts counts

	// Equal requests at the same time share one rendering. A change made here begins a
	// new generation, so that whoever made it cannot be shown what was before it.
	rendering  singleflight.Group
	generation atomic.Int64
}

// New returns the site. It panics where a template or a file of ours is broken.
func New(cfg Config, store Store, log *slog.Logger) *Site {
	assets := newFiles(must(fs.Sub(static, "static")), buildID(cfg.Version))
	return &Site{
		cfg:   cfg,
		store: store,
		log:   log.With("component", "web"),
		files: assets,
		pages: newPages(templates, funcs(cfg.BasePath, assets)),
	}
}

// Handler returns the pages and all that they load. It expects paths as they were sent,
// and an access.Principal in each request's context.
func (s *Site) Handler() http.Handler {
	r := mux.NewRouter().UseEncodedPath().SkipClean(true)
	r.NotFoundHandler = s.shown("notfound", s.noSuchPage)
	route := func(path string, m methods) { r.Handle(path, m.Handler(s.fail)) }

	route("/static/{build}/{name:.+}", methods{http.MethodGet: http.HandlerFunc(s.serveFile)})
	route("/", methods{http.MethodGet: s.shown("now", s.showNow)})
	route("/search", methods{http.MethodGet: s.shown("search", s.search)})
	route("/help", methods{http.MethodGet: s.shown("help", s.showHelp)})
	route("/login", methods{http.MethodGet: s.shown("login", s.showLogin), http.MethodPost: s.acted(s.login)})
	route("/logout", methods{http.MethodPost: s.acted(s.logout)})
	route("/settings", methods{http.MethodPost: s.acted(s.changeSettings)})
	route("/watchers", methods{http.MethodGet: s.shown("watchers", s.showWatchers)})
	route("/events", methods{http.MethodGet: s.shown("events", s.showEvents)})
	route("/failures", methods{http.MethodGet: s.shown("failures", s.showFailures)})
	route("/workflows", methods{http.MethodGet: s.shown("workflows", s.showWorkflows)})
	route("/workflows/{task_id}", methods{http.MethodGet: s.shown("workflow", s.showWorkflow)})
	route("/workflows/{task_id}/register", methods{http.MethodGet: s.shown("register", s.showRegister), http.MethodPost: s.acted(s.register)})
	route("/flows", methods{http.MethodGet: s.shown("flows", s.showFlows)})
	route("/flows/{task_flow_id}", methods{http.MethodGet: s.shown("flow", s.showFlow)})
	route("/flows/{task_flow_id}/rerun", s.action(flow.ActionRerun))
	route("/flows/{task_flow_id}/cancel", s.action(flow.ActionCancel))
	route("/flows/{task_flow_id}/hold", s.actionAtOnce(flow.ActionHold))
	route("/flows/{task_flow_id}/resume", s.actionAtOnce(flow.ActionResume))
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/log", methods{http.MethodGet: s.shown("log", s.showLog)})
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/log.txt", methods{http.MethodGet: http.HandlerFunc(s.downloadLog)})
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/approve", s.action(flow.ActionApprove))
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/cancel", s.action(flow.ActionCancel))
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/skip", s.action(flow.ActionSkip))
	route("/flows/{task_flow_id}/tasks/{task_exec_seq}/finish", s.action(flow.ActionFinish))
	for kind := range bulkWords {
		route("/bulk/"+string(kind), s.bulk(kind))
	}

	return s.secured(r)
}

// methods are the handlers of one path.
type methods = problem.Methods

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
