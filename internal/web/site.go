package web

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gorilla/mux"
	"golang.org/x/sync/singleflight"
)

// Config says how the pages are served.
type Config struct {
	// BasePath is where browsers find the pages, as in "/flower"; empty is "/". A proxy
	// may take it off a request's path or leave it there.
	BasePath string

	Version string // of the program, for people to read
}

// Site serves the pages.
type Site struct {
	cfg   Config
	store Store
	log   *slog.Logger

	files files
	pages pages

	// Equal requests at the same time share one rendering. A change made here begins a
	// new generation, so that whoever made it cannot be shown what was before it.
	rendering  singleflight.Group
	generation atomic.Int64
}

// New returns the site. It panics where a template or a file of ours is broken.
func New(cfg Config, store Store, log *slog.Logger) *Site {
	cfg.BasePath = strings.TrimSuffix(cfg.BasePath, "/")
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
	route := func(path string, m methods) { r.Handle(path, s.allow(m)) }

	route("/static/{build}/{name:.+}", methods{http.MethodGet: http.HandlerFunc(s.serveFile)})
	route("/settings", methods{http.MethodPost: s.acted(s.changeSettings)})
	route("/flows/{task_flow_id}", methods{http.MethodGet: s.shown("flow", s.showFlow)})
	route("/help", methods{http.MethodGet: s.shown("help", s.showHelp)})

	return s.secured(s.unprefixed(r))
}

// unprefixed takes the base path off a request, where a proxy has left it.
func (s *Site) unprefixed(next http.Handler) http.Handler {
	if s.cfg.BasePath == "" {
		return next
	}
	stripped := http.StripPrefix(s.cfg.BasePath, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch rest, kept := strings.CutPrefix(r.URL.Path, s.cfg.BasePath); {
		case kept && rest == "":
			http.Redirect(w, r, s.cfg.BasePath+"/", http.StatusSeeOther)
		case kept && rest[0] == '/':
			stripped.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// methods are the handlers of one path. HEAD comes with GET.
type methods map[string]http.Handler

// allow serves a path. It is here and not in mux's matchers because those refuse HEAD and
// answer 405 without Allow.
func (s *Site) allow(m methods) http.Handler {
	var allowed []string
	for method := range m {
		allowed = append(allowed, method)
		if method == http.MethodGet {
			allowed = append(allowed, http.MethodHead)
		}
	}
	slices.Sort(allowed)
	list := strings.Join(allowed, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h, ok := m[method]; ok {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", list)
		s.fail(w, r, &refusal{http.StatusMethodNotAllowed, "Not like this", fmt.Sprintf("This path takes %s only.", list)})
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
