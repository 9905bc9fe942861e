package access

import (
	"net/http"
	"strings"
)

// route is a line of the table of what each route needs.
type route struct {
	method string // empty is every one; GET is HEAD, too
	path   string // a whole one, in which * is any one part; or a beginning if it ends in /
	need   Role
}

// routes is the one place that decides what a route needs; the first line that fits
// counts. What serves a route may ask for more (see Require), never for less: what is not
// here needs Reader to be read, and Operator for everything else.
var routes = []route{
	{"", "/healthz", None},
	{"", "/readyz", None},
	{http.MethodGet, "/static/", None},
	{"", "/login", None},
	{http.MethodPost, "/logout", None},   // whose token has expired wants to go, too
	{http.MethodPost, "/settings", None}, // of a browser, in a cookie of its own
	{http.MethodGet, "/", Reader},

	{http.MethodPost, "/register", Registrar},
	{http.MethodPost, "/register/", Registrar},
	{http.MethodPost, "/callback/", None}, // a token of its own says that it may
	{http.MethodPost, "/api/v1/flows", Registrar},
	{http.MethodPost, "/workflows/*/register", Registrar}, // the page's form

	{http.MethodPut, "/", Admin},
	{http.MethodPatch, "/", Admin},
	{http.MethodDelete, "/", Admin},
	{http.MethodPost, "/api/v1/workflows", Admin},
	{http.MethodPost, "/api/v1/workflows/", Admin},
	{"", "/", Operator},
}

// Needed returns the least role for a request. The path is the escaped one, which the
// router goes by, so that both see the same.
func Needed(method, path string) Role {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, line := range routes {
		if (line.method == "" || line.method == method) && line.fits(path) {
			return line.need
		}
	}
	return Operator // such as OPTIONS *
}

// fits: a slash at the end does not matter to the API, nor here, unless a line is for strangers.
func (line route) fits(path string) bool {
	if before, after, wild := strings.Cut(line.path, "*"); wild {
		rest, begins := strings.CutPrefix(path, before)
		part, ends := strings.CutSuffix(rest, after)
		return begins && ends && part != "" && !strings.Contains(part, "/")
	}
	return path == line.path || line.need > None && path == line.path+"/" ||
		strings.HasSuffix(line.path, "/") && strings.HasPrefix(path, line.path)
}
