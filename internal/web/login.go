package web

import (
	"errors"
	"net/http"

	"github.com/d-tsuji/flower/internal/access"
)

// loginView is what /login shows.
type loginView struct {
	Open  bool   // there are no tokens: nobody needs one
	Next  string // where to go on
	Wrong string // why the last one was not taken
}

// showLogin is GET /login: it asks for a token.
func (s *Site) showLogin(r *http.Request, sh *shell) (any, error) {
	sh.Title = "Sign in"
	return loginView{Open: !s.cfg.Access.On(), Next: local(r.URL.Query().Get("next"))}, nil
}

// login is POST /login: the token goes into a cookie, if it is one.
func (s *Site) login(w http.ResponseWriter, r *http.Request) error {
	next := local(r.PostForm.Get("next"))
	if s.cfg.Access == nil {
		http.Redirect(w, r, s.cfg.BasePath+next, http.StatusSeeOther)
		return nil
	}
	err := s.cfg.Access.Login(w, r, r.PostForm.Get("token"))
	var many *access.TooManyError
	status, wrong := http.StatusForbidden, "This token is not known here, or no longer good."
	switch {
	case err == nil:
		http.Redirect(w, r, s.cfg.BasePath+next, http.StatusSeeOther)
		return nil
	case errors.As(err, &many):
		status, wrong = http.StatusTooManyRequests, capital(many.Error())+"."
	case !errors.Is(err, access.ErrWrongToken):
		return err
	}
	sh := s.newShell(r)
	sh.Title = "Sign in"
	s.send(w, r, s.render("login", status, view{sh, loginView{Next: next, Wrong: wrong}}))
	return nil
}

// logout is POST /logout.
func (s *Site) logout(w http.ResponseWriter, r *http.Request) error {
	if s.cfg.Access != nil {
		s.cfg.Access.Logout(w, r)
	}
	http.Redirect(w, r, s.cfg.BasePath+"/login", http.StatusSeeOther)
	return nil
}
