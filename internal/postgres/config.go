package postgres

import (
	"fmt"
	"net/url"
	"strings"
)

// Config says which database to use and how. The zero value of a field is its default
// where one is named.
type Config struct {
	// URL is a postgres:// URL or a "key=value …" string, several hosts allowed. The
	// fields below, where set, count more.
	URL string

	User     string
	Password string
	Host     string
	Port     int
	Name     string
	SSLMode  string // disable, prefer, require, verify-ca or verify-full

	Application string // application_name: flower-register or flower-watcher

	// Pooler: the connection goes through a transaction pooler such as PgBouncer, so
	// that nothing may be kept in a session. Such a database is migrated directly.
	Pooler bool
}

// Validate checks what can be checked without a connection.
func (c Config) Validate() error {
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("database port %d: must be from 1 to 65535", c.Port)
	}
	switch c.SSLMode {
	case "", "disable", "allow", "prefer", "require", "verify-ca", "verify-full":
	default:
		return fmt.Errorf("sslmode %q: must be disable, allow, prefer, require, verify-ca or verify-full", c.SSLMode)
	}
	if strings.Contains(c.URL, "://") {
		u, err := url.Parse(c.URL)
		if err != nil {
			// The error of url.Parse repeats the URL, and with it the password.
			return fmt.Errorf("database URL: not a URL of the form postgres://user@host:5432/name")
		}
		if u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return fmt.Errorf("database URL: the scheme must be postgres://, not %s://", u.Scheme)
		}
	}
	return nil
}
