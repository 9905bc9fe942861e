package cli

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/d-tsuji/flower/internal/postgres"
)

// Database adds the settings that say which database to use.
//
// Each of them is looked for in its own flag, then in the URL (flag or variable), then
// in its own variable, then there is its default. So DATABASE_URL may name the server
// and DB_PASS_FILE the password, and -dbname still picks another database there.
func (f *Flags) Database(c *postgres.Config) {
	f.Group("Database")
	f.Var(ConnectionURL(&c.URL), "database-url URL", "DATABASE_URL",
		"postgres://user@host:5432/name or \"host=… dbname=…\"; beats the variables below")
	f.Var(Text(&c.User, "flower"), "dbuser USER", "DB_USER", "who to connect as")
	f.Var(Secret(&c.Password), "dbpass PASSWORD", "DB_PASS", "its password; a flag can be read by others on this host")
	var passwordFile string
	f.Var(Text(&passwordFile, ""), "dbpass-file FILE", "DB_PASS_FILE", "file with the password")
	f.Var(Text(&c.Host, "localhost"), "dbhost HOST", "DB_HOST", "where PostgreSQL runs; or its socket's directory")
	f.Var(Int(&c.Port, 5432, 1, 65535), "dbport PORT", "DB_PORT", "its port")
	f.Var(Text(&c.Name, "flower"), "dbname NAME", "DB_NAME", "the database")
	f.Var(OneOf(&c.SSLMode, "prefer", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
		"dbsslmode MODE", "DB_SSLMODE", "disable, allow, prefer, require, verify-ca or verify-full")
	f.Var(Text(&c.SSLRootCert, ""), "dbsslrootcert FILE", "DB_SSLROOTCERT", "the authority that has signed its certificate; or system")
	f.Var(Bool(&c.Pooler), "db-pooler", "FLOWER_DB_POOLER", "the connection goes through a transaction pooler")
	f.Check(func() error { return f.resolveDatabase(c, passwordFile) })
}

func (f *Flags) resolveDatabase(c *postgres.Config, passwordFile string) error {
	inURL := map[string]bool{}
	if c.URL != "" {
		var err error
		if inURL, err = urlSettings(c.URL); err != nil {
			return fmt.Errorf("invalid value for %s: %w", f.byName["database-url"].origin(), err)
		}
	}
	// A field of the Config counts more than the URL: whatever did not come from a
	// flag gives way to it.
	yields := func(flag, key string) bool { return inURL[key] && f.byName[flag].source != fromFlag }
	if yields("dbuser", "user") {
		c.User = ""
	}
	if yields("dbhost", "host") {
		c.Host = ""
	}
	if yields("dbport", "port") {
		c.Port = 0
	}
	if yields("dbname", "dbname") {
		c.Name = ""
	}
	if yields("dbsslmode", "sslmode") {
		c.SSLMode = ""
	}
	if yields("dbsslrootcert", "sslrootcert") {
		c.SSLRootCert = ""
	}
	if err := f.resolvePassword(c, passwordFile, inURL["password"]); err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	for _, host := range c.Hosts() {
		if err := checkHost(host); err != nil {
			return err
		}
	}
	return f.checkEncryption(c, inURL["sslmode"])
}

// checkHost refuses what looks like a host, and would be looked up for ever.
func checkHost(host string) error {
	_, err := netip.ParseAddr(host)
	switch {
	case err == nil, strings.HasPrefix(host, "/"), strings.HasPrefix(host, "@"):
		return nil // an address, or a socket
	case strings.HasPrefix(host, "["):
		return fmt.Errorf("database host %q: must be an address without brackets", host)
	case strings.Contains(host, "/"):
		return fmt.Errorf("database host %q: must be a name or an address alone; a URL is for -database-url (DATABASE_URL)", host)
	case strings.Contains(host, ":"):
		return fmt.Errorf("database host %q: must be a name or an address alone; its port is -dbport (DB_PORT)", host)
	}
	return nil
}

// resolvePassword picks one of flag, flag for a file, URL, variable, variable for a file.
func (f *Flags) resolvePassword(c *postgres.Config, passwordFile string, inURL bool) error {
	direct, file := f.byName["dbpass"], f.byName["dbpass-file"]
	switch {
	case direct.source == file.source && direct.source != fromDefault && (direct.source == fromFlag || !inURL):
		return fmt.Errorf("%s and %s are both set: use one of them", direct.origin(), file.origin())
	case direct.source == fromFlag:
		return nil
	case file.source != fromFlag && inURL:
		c.Password = ""
		return nil
	case file.source == fromDefault:
		return nil
	}
	text, err := os.ReadFile(passwordFile)
	if err != nil {
		return fmt.Errorf("invalid value %q for %s: %w", passwordFile, file.origin(), err)
	}
	c.Password = strings.TrimRight(string(text), "\r\n")
	if c.Password == "" {
		return fmt.Errorf("invalid value %q for %s: the file is empty", passwordFile, file.origin())
	}
	return nil
}

// urlSettings returns which settings a connection string has, by their names in it. Its
// errors never repeat the string, which may hold a password.
func urlSettings(s string) (map[string]bool, error) {
	if !strings.Contains(s, "://") {
		return pairSettings(s)
	}
	u, err := url.Parse(s)
	if err != nil || torn(u) {
		return nil, errors.New("must be of the form postgres://user:password@host:5432/name, " +
			"with special characters of the password written as %40 and the like")
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, errors.New("must begin with postgres://")
	}
	has := make(map[string]bool)
	_, hasPassword := u.User.Password()
	maps.Copy(has, map[string]bool{
		"user":     u.User.Username() != "",
		"password": hasPassword,
		"host":     u.Hostname() != "",
		"port":     u.Port() != "",
		"dbname":   len(u.Path) > 1,
	})
	for key, values := range u.Query() {
		has[key] = has[key] || values[0] != ""
	}
	return has, nil
}

// torn reports whether a password with @ and one of / ? # has most likely ended the part of a
// URL that it belongs to: the host would then be a part of it, and be logged.
func torn(u *url.URL) bool {
	for key := range u.Query() {
		if strings.ContainsAny(key, "@/:") {
			return true
		}
	}
	return u.Fragment != "" || strings.Contains(u.EscapedPath(), "@")
}

// pairSettings reads "key=value key='a value'", as libpq does.
func pairSettings(s string) (map[string]bool, error) {
	has := make(map[string]bool)
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		key, rest, found := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		if !found || key == "" || strings.ContainsAny(key, " \t\n'") {
			return nil, errors.New(`must be postgres://user@host:5432/name, or pairs as in "host=db dbname=flower"`)
		}
		has[key] = true
		if s, found = skipValue(strings.TrimSpace(rest)); !found {
			return nil, errors.New("a quote is not closed")
		}
	}
	return has, nil
}

// skipValue returns what follows the value that s begins with, and false if the value
// has an opening quote alone.
func skipValue(s string) (string, bool) {
	quoted := strings.HasPrefix(s, "'")
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case quoted && c == '\'' && i > 0:
			return s[i+1:], true
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			return s[i:], true
		}
	}
	return "", !quoted
}
