package access

import (
	"cmp"
	"net/http"
	"time"
)

// cookieName is that of the cookie in which the pages keep a token.
const cookieName = "flower_token"

// cookieAge is how long a browser keeps it.
const cookieAge = 30 * 24 * time.Hour

// Login checks a token and gives it to the browser in a cookie; for the page that asks for
// one. Errors are those of Identify.
func (c *Control) Login(w http.ResponseWriter, r *http.Request, secret string) error {
	if _, err := c.find(r, secret); err != nil {
		return err
	}
	c.setCookie(w, r, secret, int(cookieAge/time.Second))
	return nil
}

// Logout takes the cookie away.
func (c *Control) Logout(w http.ResponseWriter, r *http.Request) { c.setCookie(w, r, "", -1) }

// setCookie: no script can read it, and no other site's form sends it along.
func (c *Control) setCookie(w http.ResponseWriter, r *http.Request, value string, seconds int) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // without TLS a secure one would never come back
		Name:     cookieName,
		Value:    value,
		Path:     cmp.Or(c.cfg.CookiePath, "/"),
		MaxAge:   seconds,
		HttpOnly: true,
		SameSite: http.SameSiteLaxMode,
		Secure:   c.Encrypted(r),
	})
}
