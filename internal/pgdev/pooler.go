//go:build unix

package pgdev

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// FindPooler returns PgBouncer's program. Where only root needs it, it is not on the PATH
// of others.
func FindPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no PgBouncer is installed: install one (apt-get install -y pgbouncer)")
}

// StartPooler starts a PgBouncer in front of a server on 127.0.0.1, for all its databases,
// as a transaction pooler unless conf says otherwise: settings of PgBouncer, "name=value".
// What it returns has the pooler's port and is stopped as a server is. A port that is 0 is
// a free one.
func StartPooler(ctx context.Context, server, port int, conf ...string) (*Server, error) {
	s := &Server{}
	if err := s.startPooler(ctx, server, port, conf); err != nil {
		if text := s.logTail(); text != "" {
			err = fmt.Errorf("%w; the end of its log:\n%s", err, text)
		}
		s.Stop()
		return nil, fmt.Errorf("PgBouncer: %w", err)
	}
	return s, nil
}

func (s *Server) startPooler(ctx context.Context, server, port int, conf []string) (err error) {
	program, err := FindPooler()
	if err != nil {
		return err
	}
	if s.user, s.owner, err = serverUser(); err != nil {
		return err
	}
	if err = s.makeTmp(ctx, os.TempDir()); err != nil {
		return err
	}
	if s.Port = port; port == 0 {
		if s.Port, err = freePort(); err != nil {
			return err
		}
	}
	s.DSN = fmt.Sprintf("host=127.0.0.1 port=%d user=flower dbname=postgres sslmode=disable connect_timeout=5", s.Port)
	ini := filepath.Join(s.tmp, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
admin_users = flower
pool_mode = transaction
%s
`, server, s.Port, filepath.Join(s.tmp, "users"), strings.Join(conf, "\n"))
	if err = errors.Join(
		os.WriteFile(filepath.Join(s.tmp, "users"), []byte(`"flower" ""`+"\n"), 0o644), //nolint:gosec // its user must read it
		os.WriteFile(ini, []byte(text), 0o644),                                         //nolint:gosec // as above
	); err != nil {
		return err
	}
	if err = s.guarded(program, ini); err != nil {
		return err
	}
	return s.awaitPooler(ctx)
}

// awaitPooler waits until the pooler takes connections, whatever its server does.
func (s *Server) awaitPooler(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer within 30s"))
	defer cancel()
	db, err := sql.Open("postgres", s.DSN+" dbname=pgbouncer")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// The console speaks no more of the protocol than this.
		var version string
		err := db.QueryRowContext(ctx, "SHOW VERSION").Scan(&version)
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("wait for it: %w (%w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}
