package register

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/problem"
)

// identified says who is calling, and refuses what that one may not do: access.Needed has
// what each route needs.
func (s *Server) identified(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need := access.Needed(r.Method, r.URL.EscapedPath())
		p, err := s.principal(r, need)
		if err == nil {
			err = p.Require(need)
		}
		if err == nil && isCallback(r) && p.ReadOnly { // which no role is for
			err = &access.RefusedError{Principal: p, Need: access.Registrar}
		}
		switch {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(access.With(r.Context(), p)))
		case s.asksForLogin(r, err):
			exchangeOf(r).path = s.cfg.LoginPage // to be counted as: it may be no path that there is
			w.Header().Add("Vary", "Accept")
			http.Redirect(w, r, s.cfg.BasePath+s.cfg.LoginPage+"?next="+url.QueryEscape(s.wanted(r)), http.StatusSeeOther)
		default:
			s.refuse(w, r.WithContext(access.With(r.Context(), p)), err)
		}
	})
}

// refuse says why a request is not served. Somebody who is known and may not is told so in a
// page, if a page's form has sent it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if _, known := errors.AsType[*access.RefusedError](err); known && isOfPage(r) {
		for _, site := range s.sites {
			if site.Refuse != nil && strings.HasPrefix(r.URL.EscapedPath(), site.Prefix) {
				site.Refuse(w, r, err)
				return
			}
		}
	}
	s.fail(w, r, err)
}

// principal returns who is calling. Without tokens that is nobody in particular, who may do
// everything on a loopback address or with -insecure, and else has the contract alone.
func (s *Server) principal(r *http.Request, need access.Role) (access.Principal, error) {
	p := access.Principal{Name: "anonymous@" + s.client(r), Anonymous: true}
	var err error
	switch {
	case s.guarded():
		if need != access.None { // else nobody asks, and a wrong token does not matter
			p, err = s.cfg.Access.Identify(r)
		}
	case !s.exposed || s.cfg.Insecure:
		p.Role = access.Admin
	case isRegister(r):
		p.Role = access.Registrar
	case !isHealth(r) && !isCallback(r):
		err = problem.NotServed.Because("others can reach this address, and register knows nobody: so only POST /register, " +
			"callbacks, /healthz and /readyz are served here; make a token with register token -name NAME -role operator and start " +
			"register with -tokens-file, or start it on localhost, or with -insecure where the network keeps others out")
	}
	p.ReadOnly = s.cfg.ReadOnly
	return p, err
}

// guarded reports whether callers must say who they are.
func (s *Server) guarded() bool { return s.cfg.Access.On() }

// asksForLogin reports whether somebody without a token is shown the page that asks for one.
func (s *Server) asksForLogin(r *http.Request, err error) bool {
	return s.cfg.LoginPage != "" && (errors.Is(err, access.ErrNoToken) || errors.Is(err, access.ErrWrongToken)) && isOfPage(r)
}

// isOfPage reports whether a request is a browser's for a page, or of a page's form. What a
// script of a page asks for is a part of one: it is told the status, and loads the page again.
func isOfPage(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodPost && !isRegister(r) && !isCallback(r)) &&
		!strings.HasPrefix(r.URL.EscapedPath(), "/api/") && strings.Contains(r.Header.Get("Accept"), "text/html") &&
		r.Header.Get("HX-Request") == ""
}

// wanted is where somebody goes on who has signed in: to the page, or to that which had the
// form, without the base path.
func (s *Server) wanted(r *http.Request) string {
	if r.Method != http.MethodPost {
		return r.URL.RequestURI()
	}
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host {
		return "/"
	}
	return strings.TrimPrefix(from.RequestURI(), s.cfg.BasePath)
}

// client returns the address that a request came from.
func (s *Server) client(r *http.Request) string { return s.cfg.Access.Client(r) }
