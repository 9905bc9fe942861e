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
	cert, key := certificate(t)
	server, err := pgdev.Start(t.Context(), pgdev.Options{Conf: []string{"ssl=on", "ssl_cert_file=" + cert, "ssl_key_file=" + key}})
	require.NoError(t, err)
	defer server.Stop()
	open := func(dsn string) *sql.DB {
		db, failed := sql.Open("postgres", server.DSN+" "+dsn)
		require.NoError(t, failed)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}
	admin := open("")
	admin.SetMaxOpenConns(1) // which stays, whatever the file says
	exec := func(db *sql.DB, statements ...string) {
		for _, statement := range statements {
			_, failed := db.ExecContext(t.Context(), statement)
			require.NoError(t, failed, statement)
		}
	}
	exec(admin, `CREATE DATABASE flower`)
	flower := open("dbname=flower")
	require.NoError(t, migrations.Up(t.Context(), flower, silent))
	require.NoError(t, migrations.Roles(t.Context(), flower, silent))
	for name, role := range map[string]string{"register_1": "flower_register", "watcher_1": "flower_watcher", "alice": "flower_operator", "rita": "flower_reader", "mig": "flower_owner"} {
		exec(admin, fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'right' IN ROLE %s`, name, role))
	}
	exec(admin, `CREATE ROLE nobody LOGIN PASSWORD 'right'`)

	var path string
	require.NoError(t, admin.QueryRowContext(t.Context(), `SHOW hba_file`).Scan(&path))
	example, err := os.ReadFile("roles/pg_hba.conf")
	require.NoError(t, err)
	here := strings.ReplaceAll(string(example), "10.0.0.0/8", "127.0.0.1/32")
	require.NoError(t, os.WriteFile(path, []byte(here), 0o600))
	exec(admin, `SELECT pg_reload_conf()`)
	var wrong sql.NullString
	require.NoError(t, admin.QueryRowContext(t.Context(), `SELECT string_agg(error, '; ') FROM pg_hba_file_rules`).Scan(&wrong))
	require.Empty(t, wrong.String)

	try := func(who, password, database, mode string) error {
		return open(fmt.Sprintf("user=%s password=%s dbname=%s sslmode=%s", who, password, database, mode)).PingContext(t.Context())
	}
	require.Eventually(t, func() bool { return try("nobody", "right", "flower", "require") != nil }, 10*time.Second, 10*time.Millisecond)
	for _, who := range []string{"register_1", "watcher_1", "alice", "rita", "mig"} {
		require.NoError(t, try(who, "right", "flower", "require"), who)
		require.ErrorContains(t, try(who, "wrong", "flower", "require"), "password authentication failed", who)
		require.ErrorContains(t, try(who, "right", "flower", "disable"), "no pg_hba.conf entry", who)
		require.ErrorContains(t, try(who, "right", "postgres", "require"), "no pg_hba.conf entry", who)
	}
	require.ErrorContains(t, try("nobody", "right", "flower", "require"), "no pg_hba.conf entry")
	require.ErrorContains(t, try("flower", "right", "flower", "require"), "no pg_hba.conf entry", "a superuser")
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
