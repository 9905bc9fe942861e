package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

// view is what a template gets: $.Shell is the same on every page.
type view struct {
	Shell shell
	Body  any
}

// pages are the templates of all pages, by name, each with the layout and the partials.
type pages map[string]*template.Template

func newPages(root fs.FS, funcs template.FuncMap) pages {
	base := template.Must(template.New("").Funcs(funcs).
		ParseFS(root, "templates/layout.gohtml", "templates/partials/*.gohtml"))
	all := pages{}
	for _, file := range must(fs.Glob(root, "templates/pages/*.gohtml")) {
		name := strings.TrimSuffix(path.Base(file), ".gohtml")
		all[name] = template.Must(template.Must(base.Clone()).ParseFS(root, file))
	}
	return all
}

// answer is a page as it is sent.
type answer struct {
	status int
	body   []byte
	etag   string
	asOf   time.Time // of the database's clock; zero if it was not asked
}

// render executes a page's template. It panics where that fails, since it can only be a
// fault of ours: what it shows was read before.
func (s *Site) render(name string, status int, v view) answer {
	t, ok := s.pages[name]
	if !ok {
		panic("there is no page " + name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout", v); err != nil {
		panic(fmt.Errorf("page %s: %w", name, err))
	}
	sum := sha256.Sum256(b.Bytes())
	return answer{status: status, body: b.Bytes(), etag: `W/"` + hex.EncodeToString(sum[:12]) + `"`, asOf: v.Shell.AsOf}
}

// shower makes what a page shows of a request. It fills in the title and the like.
type shower func(r *http.Request, sh *shell) (any, error)

// renderTimeout is what one rendering may take, whoever still waits for it.
const renderTimeout = 12 * time.Second

// shown serves a page. Requests for the same page, by people who would be shown the same,
// share one rendering if they come at the same time.
func (s *Site) shown(name string, show shower) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := clean(r.URL.Query()); err != nil {
			s.fail(w, r, err)
			return
		}
		sh := s.newShell(r)
		key := fmt.Sprintf("%d %s %q %+v %+v", s.generation.Load(), name, r.URL.RequestURI(), sh.Who, sh.Settings)
		made, err, _ := s.rendering.Do(key, func() (any, error) {
			// The others must not suffer from the first one's leaving.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), renderTimeout)
			defer cancel()
			body, err := show(r.WithContext(ctx), &sh)
			if err != nil {
				return nil, err
			}
			if sh.Who.Role >= access.Reader { // else it is the page that asks for a token
				s.tell(ctx, &sh)
			}
			return s.render(name, http.StatusOK, view{sh, body}), nil
		})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.send(w, r, made.(answer))
	})
}

// send answers with a page, or with 304 where the browser has it already.
func (s *Site) send(w http.ResponseWriter, r *http.Request, a answer) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Flower-Build", s.files.build)
	h.Set("Vary", "Accept-Encoding")
	if !a.asOf.IsZero() {
		// Times on a page are the database's, and scripts count from this one.
		h.Set("Date", a.asOf.UTC().Format(http.TimeFormat))
	}
	if a.status == http.StatusOK {
		h.Set("ETag", a.etag)
		if strings.Contains(r.Header.Get("If-None-Match"), a.etag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	body := a.body
	if acceptsGzip(r) {
		h.Set("Content-Encoding", "gzip")
		body = zip(body, gzip.BestSpeed)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // an error means that the client is gone
}

// maxForm is how long a form may be. Its longest field is an object of parameters.
const maxForm = 1 << 20

// acted serves a form's POST, with the form read.
func (s *Site) acted(act func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		err := r.ParseForm()
		if err != nil {
			err = problem.MalformedBody.Because("this form is broken, or longer than 1 MiB")
		} else if err = clean(r.PostForm); err == nil {
			err = act(w, r)
			s.generation.Add(1)
		}
		if err != nil {
			s.fail(w, r, err)
		}
	})
}

// clean refuses what no text in the database can hold.
func clean(values url.Values) error {
	for name, list := range values {
		for _, text := range append(list, name) {
			if !request.Storable(text) {
				return problem.InvalidFilter.Because("text must be UTF-8, without U+0000")
			}
		}
	}
	return nil
}
