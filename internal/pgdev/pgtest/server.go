package pgtest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/pgdev"
)

// EnvDSN is the environment variable that names a server for the tests, in key=value form
// or as a postgres:// URL. Its user must be allowed to create databases.
const EnvDSN = "FLOWER_TEST_DSN"

// StartServer starts a server for tests and nothing else: what it stores does not survive
// a crash, and many packages may use it at once.
func StartServer(ctx context.Context) (*pgdev.Server, error) {
	return pgdev.Start(ctx, pgdev.Options{TmpDir: pgdev.MemoryDir(), Conf: []string{
		"max_connections=300",
		// Plans and times must not depend on when a worker came by; with a database per
		// test, workers would come by all the time.
		"autovacuum=off",
		"jit=off", // costs more than it saves on small tables
		// Nobody replicates and nobody recovers, so write as little as possible.
		"wal_level=minimal", "max_wal_senders=0",
		"checkpoint_timeout=1h",
	}})
}

// server is what the tests of one package use; the first of them starts it.
type server struct {
	start    func() error // once
	stop     func()
	cfg      pq.Config
	admin    *sql.DB                // the database that is connected to when others are made
	template func() (string, error) // once
	strategy string                 // how to copy a database
}

var shared struct {
	sync.Mutex
	*server // while Run runs
}

// Main runs the tests of a package that needs databases and exits. Its place is TestMain:
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// The server is the one that FLOWER_TEST_DSN names; without it the package's first test
// that asks for a database starts one, which ends with the tests.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main without the exit, for a TestMain that has more to do, such as looking for
// leaked goroutines. It returns the exit code.
func Run(m interface{ Run() int }) int {
	s := &server{stop: func() {}}
	s.start = sync.OnceValue(s.open)
	s.template = sync.OnceValues(s.makeTemplate)
	shared.Lock()
	shared.server = s
	shared.Unlock()
	defer func() {
		shared.Lock()
		shared.server = nil
		shared.Unlock()
		if s.admin != nil {
			_ = s.admin.Close()
		}
		s.stop()
	}()
	return m.Run()
}

// running returns the package's server, started. No server is a failure, not a skip.
func running(t testing.TB) *server {
	t.Helper()
	shared.Lock()
	s := shared.server
	shared.Unlock()
	if s == nil {
		t.Fatal("pgtest: the package needs func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	if err := s.start(); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s
}

// open finds or starts the server.
func (s *server) open() error {
	dsn := os.Getenv(EnvDSN)
	if dsn == "" {
		pg, err := StartServer(context.Background())
		if err != nil {
			return err
		}
		s.stop, dsn = pg.Stop, pg.DSN
	}
	var err error
	if s.cfg, err = pq.NewConfig(dsn); err != nil {
		return fmt.Errorf("%s: %w", EnvDSN, err)
	}
	if s.admin, err = sql.Open("postgres", s.dsn(s.cfg.Database)+" application_name=pgtest timezone=UTC"); err != nil {
		return err
	}
	// Few, since every package that runs at the same time has its own.
	s.admin.SetMaxOpenConns(4)
	return s.chooseStrategy(context.Background())
}

// chooseStrategy prefers to copy files where that is known (since PostgreSQL 15) and the
// two checkpoints that come with it cost nothing. Measured with fsync off, 16 databases,
// two busy cores: 11 to 45 ms each and 8 to drop, against 17 to 100 and 14 with WAL_LOG.
func (s *server) chooseStrategy(ctx context.Context) error {
	var files bool
	err := s.admin.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int >= 150000
		AND current_setting('fsync') = 'off'`).Scan(&files)
	if err != nil {
		return fmt.Errorf("%s: %w", EnvDSN, err)
	}
	if files {
		s.strategy = " STRATEGY FILE_COPY"
	}
	return nil
}

// dsn returns the address of a database in key=value form.
func (s *server) dsn(dbname string) string {
	var b strings.Builder
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	for _, kv := range [][2]string{
		{"host", s.cfg.Host},
		{"port", strconv.Itoa(int(s.cfg.Port))},
		{"user", s.cfg.User},
		{"password", s.cfg.Password},
		{"dbname", dbname},
		{"sslmode", string(s.cfg.SSLMode)},
	} {
		if kv[1] == "" {
			continue
		}
		if strings.ContainsAny(kv[1], ` '\`) {
			kv[1] = "'" + quote.Replace(kv[1]) + "'"
		}
		b.WriteString(kv[0] + "=" + kv[1] + " ")
	}
	b.WriteString("connect_timeout=10")
	return b.String()
}

// url returns the address of a database as a postgres:// URL.
func (s *server) url(dbname string) string {
	u := url.URL{Scheme: "postgres", Path: "/" + dbname}
	if s.cfg.Password != "" {
		u.User = url.UserPassword(s.cfg.User, s.cfg.Password)
	} else if s.cfg.User != "" {
		u.User = url.User(s.cfg.User)
	}
	q := url.Values{}
	if s.cfg.SSLMode != "" {
		q.Set("sslmode", string(s.cfg.SSLMode))
	}
	if port := strconv.Itoa(int(s.cfg.Port)); strings.HasPrefix(s.cfg.Host, "/") {
		q.Set("host", s.cfg.Host) // a unix socket
		q.Set("port", port)
	} else {
		u.Host = net.JoinHostPort(s.cfg.Host, port)
	}
	u.RawQuery = q.Encode()
	return u.String()
}
