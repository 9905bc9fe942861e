package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// Prefix is that of all paths of the API.
const Prefix = "/api/v1/"

// example is a body that is shown where one is no JSON at all.
const example = `{"note": "why"}`

// view is how an answer is to look.
type view struct {
	format string   // json, text, csv, dot or mermaid, if ?format= says so
	accept []string // what Accept says, in its order
	ascii  bool     // plain marks
	base   string   // before each path, as callers outside of a proxy see it
	site   string   // scheme, host and base under which the caller reaches us
	header http.Header
	query  url.Values
	path   string // as it was sent, below the base
	body   []byte // as it was sent
}

// asks reports whether the query has a name, be it that its value is 0.
func (v view) asks(name string) bool { return v.query.Has(name) }

type viewKey struct{}

func viewOf(ctx context.Context) view {
	v, _ := ctx.Value(viewKey{}).(view)
	return v
}

// headerOf returns the header of the request.
func headerOf(ctx context.Context) http.Header { return viewOf(ctx).header }

// ServeHTTP makes of a request what the router and huma expect, and hands it on. HEAD is
// GET without the body, which net/http leaves out; a slash at the end does not matter; a
// body is JSON whatever its Content-Type says, since curl -d calls everything a form.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, query, err := a.readQuery(r)
	if err != nil {
		problem.Fail(w, r, err)
		return
	}
	r2 := r.Clone(r.Context())
	r2.URL.RawQuery = query
	r2.Header.Del("Accept") // huma is to write its errors as JSON
	if r.Method == http.MethodHead {
		r2.Method = http.MethodGet
	}
	if p := r.URL.EscapedPath(); len(p) > 1 && strings.HasSuffix(p, "/") {
		r2.URL.Path, r2.URL.RawPath = strings.TrimSuffix(r.URL.Path, "/"), strings.TrimSuffix(p, "/")
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if v.body, err = a.readBody(w, r2); err != nil {
			problem.Fail(w, r, err)
			return
		}
	}
	v.path = r2.URL.EscapedPath()
	r2 = r2.WithContext(context.WithValue(r2.Context(), viewKey{}, v))
	w.Header().Add("Vary", "Accept")
	a.router.ServeHTTP(w, r2)
}

// readBody reads and checks a body, and leaves it to be read again.
func (a *API) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	text, err := request.ReadAll(w, r)
	if err != nil {
		return nil, err
	}
	if !isDefinition(r) {
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := request.Check(text, example); err != nil {
				return nil, err
			}
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(text))
	r.ContentLength = int64(len(text))
	r.Header.Set("Content-Type", "application/json")
	return text, nil
}

// isDefinition reports whether a body is a definition, which may be YAML.
func isDefinition(r *http.Request) bool {
	return r.Method == http.MethodPut || r.URL.EscapedPath() == Prefix+"workflows"
}

// readQuery takes what every route has out of the query: how the answer is to look.
func (a *API) readQuery(r *http.Request) (view, string, error) {
	v := view{base: a.cfg.BasePath, site: "http://" + r.Host + a.cfg.BasePath, header: r.Header}
	if a.cfg.Access.Encrypted(r) {
		v.site = "https://" + r.Host + a.cfg.BasePath
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return v, "", problem.InvalidFilter.Because("the query cannot be read: names and values must be percent-escaped, with & between them")
	}
	for name, values := range query {
		switch {
		case !request.Storable(name), slices.ContainsFunc(values, func(s string) bool { return !request.Storable(s) }):
			return v, "", problem.InvalidFilter.Because("the query must be percent-escaped UTF-8 without U+0000")
		case len(values) > 1:
			return v, "", problem.InvalidFilter.Because("%s is there %d times: give it once, with commas between several values",
				problem.Cut(name, 40), len(values))
		}
	}
	v.format = query.Get("format")
	v.ascii = query.Get("ascii") == "1" || query.Get("ascii") == "true"
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(accepted, ";")
		v.accept = append(v.accept, strings.ToLower(strings.TrimSpace(kind)))
	}
	query.Del("format")
	query.Del("ascii")
	v.query = query
	return v, query.Encode(), nil
}

// mediaTypes are the types of what can be asked for by format.
var mediaTypes = map[string]string{
	"json": "application/json", "text": "text/plain", "csv": "text/csv", "yaml": "application/yaml", "dot": "text/vnd.graphviz", "mermaid": "text/vnd.mermaid",
}

// choose returns the format of an answer that can have some: by ?format=, else the first
// of what Accept says, else the first of all.
func (v view) choose(formats []string) (string, error) {
	if v.format != "" {
		if !slices.Contains(formats, v.format) {
			return "", problem.InvalidFilter.Because("format %q: must be %s", problem.Cut(v.format, 40), orList(formats))
		}
		return v.format, nil
	}
	for _, kind := range v.accept {
		if kind == "*/*" {
			break
		}
		for _, f := range formats {
			if mediaTypes[f] == kind {
				return f, nil
			}
		}
	}
	return formats[0], nil
}

// orList writes "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// notServed answers to a path that no route fits, or to a method: mux does not always tell
// which it is, and never says which methods there are.
func (a *API) notServed(w http.ResponseWriter, r *http.Request) {
	allow := strings.Join(a.allowed(r), ", ")
	if allow == "" {
		problem.Fail(w, r, problem.NoSuchPath.Because("there is nothing at this path; GET /docs says what there is"))
		return
	}
	w.Header().Set("Allow", allow)
	problem.Fail(w, r, problem.MethodNotAllowed.Because("this path takes %s only", allow))
}

// allowed returns the methods that the path of a request takes.
func (a *API) allowed(r *http.Request) (methods []string) {
	for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPatch, http.MethodPost, http.MethodPut} {
		other := r.Clone(r.Context())
		other.Method = method
		var match mux.RouteMatch
		if a.router.Match(other, &match) && match.MatchErr == nil {
			methods = append(methods, method)
			if method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
		}
	}
	return methods
}
