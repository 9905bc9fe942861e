package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/access"
)

// shell is what is round every page.
type shell struct {
	Title  string // begins with the state: "Failed · nightly 7f3c91"
	Active string // the part of the navigation that the page belongs to
	Icon   string // of the browser's tab: failed, running, finished, or empty

	// Every is how often an open page asks for itself again; 0 is never. It asks for
	// Again, if that is not empty: of a list, what is shown, and how much is newer.
	Every time.Duration
	Again string

	AsOf     time.Time // the database's clock when the page's facts were read
	Path     string    // of this page with its query, for forms that come back to it
	Settings settings
	Who      access.Principal
	Build    string
	Version  string
	Search   string // what stands in the search box
	Failures string // how many tasks are failed, "3" or "1,000+"; empty is none
	Banner   *banner
	Message  *message
}

// place is a part of the navigation.
type place struct{ Name, Path, Key string }

// Places is the navigation. The key, after g, goes there.
func (shell) Places() []place {
	return []place{
		{"Now", "/", "n"},
		{"Flows", "/flows", "f"},
		{"Failures", "/failures", "x"},
		{"Workflows", "/workflows", "w"},
		{"Watchers", "/watchers", "a"},
		{"Events", "/events", "e"},
	}
}

// EveryMs is Every in milliseconds, for scripts.
func (s shell) EveryMs() int64 { return s.Every.Milliseconds() }

func (s *Site) newShell(r *http.Request) shell {
	path := strings.ToValidUTF8(r.URL.RequestURI(), "%EF%BF%BD") // whatever was sent, a page is UTF-8
	back, _, _ := strings.Cut(path, "?")
	if rest := (query{r.URL.Query()}).without("did"); len(rest.values) > 0 {
		back += rest.String()
	}
	return shell{
		Path:     path,
		Message:  did(r.URL.Query().Get("did"), undoOf(back)),
		Settings: readSettings(r),
		Who:      access.Of(r.Context()),
		Build:    s.files.build,
		Version:  s.cfg.Version,
	}
}

// showHelp is GET /help: the keys, and what the states mean.
func (s *Site) showHelp(_ *http.Request, sh *shell) (any, error) {
	sh.Title = "Help"
	return legend(), nil
}
