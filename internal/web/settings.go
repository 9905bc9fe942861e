package web

import (
	"net/http"
	"net/url"
	"strings"
)

// settings are what a person has chosen, kept in that browser's cookies: the server must
// know them, or a page would flash in the wrong theme.
type settings struct {
	Theme string // auto, light or dark
	Zone  string // local or utc
	Live  string // on or off
	Keys  string // on or off: shortcuts of one key
}

// choices are the settings with what each may be, its default first.
var choices = map[string][]string{
	"theme": {"auto", "light", "dark"},
	"zone":  {"local", "utc"},
	"live":  {"on", "off"},
	"keys":  {"on", "off"},
}

func readSettings(r *http.Request) settings {
	read := func(name string) string {
		values := choices[name]
		if c, err := r.Cookie("flower_" + name); err == nil {
			for _, v := range values {
				if c.Value == v {
					return v
				}
			}
		}
		return values[0]
	}
	return settings{read("theme"), read("zone"), read("live"), read("keys")}
}

// Next returns what the button of a setting turns it to.
func (s settings) Next(name string) string {
	now := map[string]string{"theme": s.Theme, "zone": s.Zone, "live": s.Live, "keys": s.Keys}[name]
	values := choices[name]
	for i, v := range values {
		if v == now {
			return values[(i+1)%len(values)]
		}
	}
	return values[0]
}

// changeSettings answers POST /settings: the form's settings become cookies.
func (s *Site) changeSettings(w http.ResponseWriter, r *http.Request) error {
	for name, values := range choices {
		for _, v := range values {
			if r.PostForm.Get(name) == v {
				// Scripts change these, too; they are no secret.
				http.SetCookie(w, &http.Cookie{
					Name: "flower_" + name, Value: v, Path: s.cfg.BasePath + "/",
					MaxAge: 365 * 24 * 3600, SameSite: http.SameSiteLaxMode,
				})
			}
		}
	}
	http.Redirect(w, r, s.cfg.BasePath+local(r.PostForm.Get("back")), http.StatusSeeOther)
	return nil
}

// local returns a path of this site that a form wants to go back to; "/" where it is
// anything else.
func local(back string) string {
	u, err := url.Parse(back)
	if err != nil || u.IsAbs() || u.Host != "" || u.Opaque != "" || !strings.HasPrefix(back, "/") ||
		strings.HasPrefix(back, "//") || strings.ContainsAny(back, "\\\r\n\t") {
		return "/"
	}
	return back
}
