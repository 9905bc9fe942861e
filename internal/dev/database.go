package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jmoiron/sqlx"
	_ "github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/pgdev"
)

// Where things are kept, in the working directory: the checkout.
const (
	stateDir = ".flower"
	lockFile = stateDir + "/lock"
	urlFile  = stateDir + "/database-url" // while the database runs; `make psql` reads it

	secretsDir  = stateDir + "/secrets"  // a file each, for watcher
	commandsDir = stateDir + "/commands" // what tasks can run
)

// A database is the one that DATABASE_URL names, or a private one.
type database struct {
	url    string
	dir    string // of the private one; empty: somebody else's
	server *pgdev.Server
	lock   *os.File
}

// openDatabase opens it: of the private server the one of that name. One of a demo is
// made anew.
func openDatabase(ctx context.Context, demo bool, out io.Writer) (*database, error) {
	if url := os.Getenv("DATABASE_URL"); url != "" {
		if demo {
			return nil, errDemoElsewhere
		}
		fmt.Fprintln(out, "Using the database that DATABASE_URL names.")
		return &database{url: url}, nil
	}
	db := &database{}
	if err := db.open(ctx, demo, out); err != nil {
		db.stop()
		return nil, err
	}
	return db, nil
}

func (db *database) open(ctx context.Context, demo bool, out io.Writer) (err error) {
	if db.lock, err = lockCheckout(); err != nil {
		return err
	}
	if db.dir, err = dataDir(); err != nil {
		return err
	}
	fmt.Fprintf(out, "Starting a private PostgreSQL; its data is in %s.\n", db.dir)
	awaitServerGone(ctx, db.dir)
	db.server, err = pgdev.Start(ctx, pgdev.Options{DataDir: db.dir, Durable: true})
	if err != nil {
		return err
	}
	name := "flower"
	if demo {
		name = demoDatabase
	}
	db.url = db.server.URL(name)
	if err := createDatabase(ctx, db.server.URL("postgres"), name, demo); err != nil {
		return err
	}
	return os.WriteFile(urlFile, []byte(db.url+"\n"), 0o644)
}

func (db *database) stop() {
	if db.server != nil {
		_ = os.Remove(urlFile)
		db.server.Stop()
	}
	if db.lock != nil {
		_ = db.lock.Close()
	}
}

// environ is the environment for programs that use the database. Settings for some other
// one that our user may have are kept from them.
func (db *database) environ() []string {
	env := os.Environ()
	if db.server != nil {
		env = slices.DeleteFunc(env, func(s string) bool {
			return strings.HasPrefix(s, "DB_") || strings.HasPrefix(s, "PG")
		})
	}
	if os.Getenv("FLOWER_SECRETS_DIR") == "" {
		env = append(env, "FLOWER_SECRETS_DIR="+secretsDir)
	}
	return append(env, "DATABASE_URL="+db.url)
}

// createDatabase makes a database of that name, unless there is one; anew: in any case.
func createDatabase(ctx context.Context, url, name string, anew bool) error {
	pg, err := sqlx.ConnectContext(ctx, "postgres", url)
	if err != nil {
		return err
	}
	defer func() { _ = pg.Close() }()
	if anew {
		if _, err := pg.ExecContext(ctx, `DROP DATABASE IF EXISTS `+name); err != nil {
			return err
		}
	}
	var exists bool
	err = pg.GetContext(ctx, &exists, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name)
	if err != nil || exists {
		return err
	}
	_, err = pg.ExecContext(ctx, `CREATE DATABASE `+name)
	return err
}

// lockCheckout refuses a second run of the same checkout. The lock ends with us.
func lockCheckout() (*os.File, error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w: did another user run this checkout before? make clean, as that user, removes its data", err)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errors.New("this checkout runs already, perhaps in another terminal: stop that one first, or use a second checkout")
	}
	return f, nil
}

// dataDir is below the checkout, or below /var/lib where the server's user, who is not
// root, may not enter the checkout.
func dataDir() (string, error) {
	state, err := filepath.Abs(stateDir)
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 || openToAll(state) {
		return filepath.Join(state, "pg"), nil
	}
	checkout := filepath.Dir(state)
	sum := sha256.Sum256([]byte(checkout))
	return fmt.Sprintf("/var/lib/flower/%s-%x", filepath.Base(checkout), sum[:4]), nil
}

// openToAll reports whether everybody may enter a directory, and all above it.
func openToAll(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// awaitServerGone waits for the server of a run that was killed: it is stopping.
func awaitServerGone(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		var pid int
		text, _ := os.ReadFile(filepath.Join(dir, "postmaster.pid")) // its first line is the process
		_, _ = fmt.Sscan(string(text), &pid)
		if pid <= 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || pause(ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}

// forget removes the private database and everything else that runs have left.
func forget() error {
	if _, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := lockCheckout()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	dir, err := dataDir()
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(stateDir))
}
