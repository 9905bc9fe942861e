package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// Config says which database to use and how. The zero value of a field is its default
// where one is named.
type Config struct {
	// URL is a postgres:// URL or a "key=value …" string, several hosts allowed. The
	// fields below, where set, count more.
	URL string

	User     string // flower
	Password string
	Host     string // localhost
	Port     int    // 5432
	Name     string // flower
	SSLMode  string // prefer; or disable, allow, require, verify-ca, verify-full

	// SSLRootCert is a file with the authority that has signed the server's certificate, or
	// "system". For sslmode verify-ca and verify-full.
	SSLRootCert string

	Application string // application_name: flower-register or flower-watcher

	// Pooler: the connection goes through a transaction pooler such as PgBouncer, so
	// that nothing may be kept in a session.
	Pooler bool

	// AwaitSchema: until Migrate or WaitReady has ended well, nothing else reaches the
	// database, and meets flow.ErrUnavailable: it would find no tables, or those of an older
	// version. For who serves others meanwhile.
	AwaitSchema bool

	limits limits // the usual ones, unless a test has no time for them
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
	if isURL(c.URL) {
		u, err := url.Parse(c.URL)
		if err != nil {
			// The error of url.Parse repeats the URL, and with it the password.
			return errors.New("database URL: must look like postgres://user@host:5432/name")
		}
		if u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return fmt.Errorf("database URL: must begin with postgres://, not %s://", u.Scheme)
		}
	}
	return nil
}

func isURL(s string) bool { return strings.Contains(s, "://") }

// dsn returns the connection string in key=value form. Of a key that is there twice the
// last value counts: defaults first, then the URL, then the single fields.
func (c Config) dsn(settings ...string) string {
	parts := []string{
		"user=flower host=localhost port=5432 dbname=flower sslmode=prefer connect_timeout=3",
		"timezone=UTC application_name=" + quote(c.Application),
	}
	parts = append(parts, settings...)
	if isURL(c.URL) {
		parts = append(parts, fromURL(c.URL))
	} else {
		parts = append(parts, c.URL)
	}
	for _, f := range []struct{ key, value string }{
		{"user", c.User},
		{"password", c.Password},
		{"host", c.Host},
		{"dbname", c.Name},
		{"sslmode", c.SSLMode},
		{"sslrootcert", c.SSLRootCert},
	} {
		if f.value != "" {
			parts = append(parts, f.key+"="+quote(f.value))
		}
	}
	if c.Port != 0 {
		parts = append(parts, "port="+strconv.Itoa(c.Port))
	}
	if c.Pooler {
		// One message per statement: two halves of one could reach two servers.
		parts = append(parts, "binary_parameters=yes")
	}
	dsn := strings.Join(parts, " ")
	// Of several servers the one that takes writes is meant, wherever the list begins.
	if parsed, err := pq.NewConfig(dsn); err == nil && len(parsed.Multi) > 0 && parsed.TargetSessionAttrs == "" {
		dsn += " target_session_attrs=read-write"
	}
	return dsn
}

// Hosts returns where the database may be; none if the settings make no sense, which Open
// reports.
func (c Config) Hosts() []string {
	parsed, err := pq.NewConfig(c.dsn())
	if err != nil {
		return nil
	}
	hosts := []string{parsed.Host}
	if parsed.Hostaddr.IsValid() {
		hosts[0] = parsed.Hostaddr.String()
	}
	for _, more := range parsed.Multi {
		hosts = append(hosts, more.Host)
	}
	return hosts
}

// hasPassword reports whether any of them, or the driver's own environment, has one.
func (c Config) hasPassword() bool {
	parsed, err := pq.NewConfig(c.dsn())
	return err != nil || parsed.Password != "" || parsed.Passfile != ""
}

// fromURL turns a URL into key=value form. (lib/pq takes one, too, but neither several
// hosts with their ports nor other settings beside it.) What Validate would refuse gives
// a string that cannot connect.
func fromURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "host=''"
	}
	var parts []string
	add := func(key, value string) {
		if value != "" {
			parts = append(parts, key+"="+quote(value))
		}
	}
	add("user", u.User.Username())
	password, _ := u.User.Password()
	add("password", password)
	var hosts, ports []string
	for address := range strings.SplitSeq(u.Host, ",") {
		host, port, err := net.SplitHostPort(address)
		if err != nil { // it has no port
			host, port = strings.Trim(address, "[]"), "5432"
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if u.Host != "" {
		add("host", strings.Join(hosts, ","))
		add("port", strings.Join(ports, ","))
	}
	add("dbname", strings.TrimPrefix(u.Path, "/"))
	for key, values := range u.Query() {
		add(key, values[0])
	}
	return strings.Join(parts, " ")
}

// quote makes a value of a key=value connection string.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// What connections are asked for is the same wherever the database is. Behind a pooler,
// which refuses settings that it does not know, ALTER ROLE … SET does it instead (see open).
var (
	// commonSettings are what everything relies on, whatever somebody has set for the role or
	// for the database: READ COMMITTED, and that connections which wait for work stay there.
	commonSettings = []string{"default_transaction_isolation='read committed'", "idle_session_timeout=0"}

	// sessionSettings are for every connection of ours: the server ends what hangs, so that
	// no call needs a context that, when cancelled, costs the connection.
	sessionSettings = []string{"statement_timeout=8000", "lock_timeout=2000", "idle_in_transaction_session_timeout=10000"}
	slowSettings    = []string{"statement_timeout=60000", "lock_timeout=2000", "idle_in_transaction_session_timeout=10000"}
	beatSettings    = []string{"statement_timeout=2000", "lock_timeout=1000", "idle_in_transaction_session_timeout=2000"}

	// migrationSettings let a migration take its time, but not while it waits for a table that
	// somebody reads, as a backup does for hours: whoever comes after it would wait as well, and
	// heartbeats among them. It gives up, lets the others go, and begins again (see Migrate).
	migrationSettings = []string{"statement_timeout=0", "lock_timeout=1000"}

	// writerSettings are for short statements that come again and again. One that reads the
	// definitions of a workflow is planned in 0.17 ms and run in 0.04: left to itself, the
	// server plans it each time, since it takes the arrays of a plan for all to be longer.
	writerSettings = slices.Concat(sessionSettings, []string{"plan_cache_mode=force_generic_plan"})

	// engineSettings are rails for the planner. The hot statement finds every row by its
	// key, in the order of an index. Whatever the statistics of a queue that was empty a
	// second ago say, sorting or hashing the backlog is never better: planned with empty
	// tables, the statement otherwise goes from all tasks to the queue, and sorts that (110 ms
	// instead of 2 with 150,000 rows).
	//
	// A batch that waits for a row that somebody has locked is given up soon: the others
	// of the batch are not to wait with it. And well before the server looks for deadlocks
	// (deadlock_timeout, 1 s), which ends whoever waits longest: that would be a person as
	// often as not, while the engine does the same again by itself.
	engineSettings = slices.Concat(sessionSettings, []string{
		"lock_timeout=500", "plan_cache_mode=force_generic_plan", "jit=off",
		"enable_seqscan=off", "enable_hashjoin=off", "enable_mergejoin=off", "enable_bitmapscan=off",
		"enable_sort=off", "enable_material=off",
	})

	// readSettings are rails for lists, which must go along an index whatever the statistics
	// say: they may be of a table that was empty. Compiling a statement takes longer than any
	// of them.
	readSettings = slices.Concat(sessionSettings, []string{"jit=off", "enable_seqscan=off", "enable_hashjoin=off", "enable_mergejoin=off"})

	// logSettings are for the logs of tasks. A commit does not wait for the disk: the result
	// of an attempt, which is recorded after its lines and does wait, takes them along. The
	// rails are those of the engine, for a table that was empty when it was last analyzed.
	logSettings = []string{
		"statement_timeout=4000", "lock_timeout=1000", "idle_in_transaction_session_timeout=4000", "synchronous_commit=off",
		"plan_cache_mode=force_generic_plan", "jit=off", "enable_seqscan=off", "enable_hashjoin=off", "enable_mergejoin=off",
	}
)

// redact takes the password out of an error's text.
func redact(err error, c Config) error {
	text := err.Error()
	if strings.Contains(text, "connection info string") {
		// It names a word that has no "=", which may be a part of the password.
		return errors.New(`the connection string must be pairs, as in "host=db dbname=flower"`)
	}
	for _, secret := range []string{c.Password, urlPassword(c.URL)} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// pairPassword finds the password in key=value pairs, quoted or not.
var pairPassword = regexp.MustCompile(`password\s*=\s*(?:'((?:[^'\\]|\\.)*)'?|(\S+))`)

func urlPassword(s string) string {
	if !isURL(s) {
		if m := pairPassword.FindStringSubmatch(s); m != nil {
			return m[1] + m[2]
		}
		return ""
	}
	if u, err := url.Parse(s); err == nil && u.User != nil {
		password, _ := u.User.Password()
		return password
	}
	return ""
}
