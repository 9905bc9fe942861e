package migrations_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/migrations"
)

// The example of pg_hba.conf lets in whoever has a role of Flower, by TLS and with a
// password, to its database, and nobody else.
func TestRoles_SecH3_WhoMayCome(t *testing.T) {
	t.Parallel()
	try, admit := withLogins(t)
	example, err := os.ReadFile("roles/pg_hba.conf")
	require.NoError(t, err)
	here := strings.ReplaceAll(string(example), "10.0.0.0/8", "127.0.0.1/32")
	admit(here)
	refused := func(who string) {
		t.Helper()
		require.Eventually(t, func() bool { return try(who, "right", "flower", "require") != nil }, 10*time.Second, 10*time.Millisecond, who)
		require.ErrorContains(t, try(who, "right", "flower", "require"), "pg_hba.conf", who)
	}
	refused("nobody")
	for _, who := range []string{"register_1", "watcher_1", "alice", "rita", "mig"} {
		require.NoError(t, try(who, "right", "flower", "require"), who)
		require.ErrorContains(t, try(who, "wrong", "flower", "require"), "password authentication failed", who)
		require.ErrorContains(t, try(who, "right", "flower", "disable"), "pg_hba.conf", who)
		require.ErrorContains(t, try(who, "right", "postgres", "require"), "pg_hba.conf", who)
	}
	require.ErrorContains(t, try("flower", "right", "flower", "require"), "no pg_hba.conf entry", "a superuser")

	// The programs are readers, too, and come from where their own lines say alone.
	admit(regexp.MustCompile(`(?m)^(hostssl.*\+flower_(?:register|watcher) +)127\.0\.0\.1/32`).ReplaceAllString(here, "${1}10.0.0.0/8"))
	refused("register_1")
	refused("watcher_1")
	require.NoError(t, try("alice", "right", "flower", "require"))
}

// withLogins starts a server with somebody for each role. try connects to it; admit gives it
// a pg_hba.conf, which counts soon.
func withLogins(t *testing.T) (try func(who, password, database, mode string) error, admit func(text string)) {
	t.Helper()
	cert, key := certificate(t)
	server, err := pgdev.Start(t.Context(), pgdev.Options{Conf: []string{"ssl=on", "ssl_cert_file=" + cert, "ssl_key_file=" + key}})
	require.NoError(t, err)
	t.Cleanup(server.Stop)
	open := func(dsn string) *sql.DB {
		db, failed := sql.Open("postgres", server.DSN+" "+dsn)
		require.NoError(t, failed)
		return db
	}
	admin, flower := open(""), open("dbname=flower")
	t.Cleanup(func() { _, _ = admin.Close(), flower.Close() })
	admin.SetMaxOpenConns(1) // which stays, whatever the file says
	exec := func(statement string) {
		_, failed := admin.ExecContext(t.Context(), statement)
		require.NoError(t, failed, statement)
	}
	exec(`CREATE DATABASE flower`)
	require.NoError(t, migrations.Up(t.Context(), flower, silent))
	require.NoError(t, migrations.Roles(t.Context(), flower, silent))
	for name, role := range map[string]string{"register_1": "flower_register", "watcher_1": "flower_watcher", "alice": "flower_operator", "rita": "flower_reader", "mig": "flower_owner"} {
		exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'right' IN ROLE %s`, name, role))
	}
	exec(`CREATE ROLE nobody LOGIN PASSWORD 'right'`)

	var path string
	require.NoError(t, admin.QueryRowContext(t.Context(), `SHOW hba_file`).Scan(&path))
	admit = func(text string) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		exec(`SELECT pg_reload_conf()`)
		var wrong sql.NullString
		require.NoError(t, admin.QueryRowContext(t.Context(), `SELECT string_agg(error, '; ') FROM pg_hba_file_rules`).Scan(&wrong))
		require.Empty(t, wrong.String)
	}
	try = func(who, password, database, mode string) error {
		db := open(fmt.Sprintf("user=%s password=%s dbname=%s sslmode=%s", who, password, database, mode))
		defer func() { _ = db.Close() }()
		return db.PingContext(t.Context())
	}
	return try, admit
}

// certificate makes one with its key, in files that the server may read.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755)) // the server may run as somebody else
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	if os.Geteuid() == 0 { // then it does
		for _, name := range []string{"postgres", "nobody"} {
			if u, err := user.Lookup(name); err == nil {
				uid, _ := strconv.Atoi(u.Uid)
				gid, _ := strconv.Atoi(u.Gid)
				require.NoError(t, os.Chown(key, uid, gid))
				break
			}
		}
	}
	return cert, key
}
