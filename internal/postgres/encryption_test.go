package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// selfSigned makes a certificate for a name, and a file with it for those who trust it.
func selfSigned(t *testing.T, name string) (cert tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// tlsServer answers as PostgreSQL does until somebody would log in, and counts who has
// come so far. Without a certificate it has no TLS.
func tlsServer(t *testing.T, cert *tls.Certificate) (port int, loggingIn <-chan struct{}) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	came := make(chan struct{}, 100)
	serve := func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		head := make([]byte, 8)
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		const sslRequest = 80877103
		if binary.BigEndian.Uint32(head[4:]) != sslRequest {
			came <- struct{}{} // in clear
			return
		}
		if cert == nil {
			_, _ = conn.Write([]byte("N"))
			_, _ = io.ReadFull(conn, head) // may go on in clear
			return
		}
		_, _ = conn.Write([]byte("S"))
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS12})
		if _, err := io.ReadFull(secure, head); err == nil {
			came <- struct{}{}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr.Port, came
}

// With verify-full nobody logs in at a server that does not prove who it is.
func TestOpen_SecH2_TheServerProvesWhoItIs(t *testing.T) {
	t.Parallel()
	right, rightCA := selfSigned(t, "localhost")
	other, otherCA := selfSigned(t, "other.example")
	for name, c := range map[string]struct {
		server *tls.Certificate
		mode   string
		ca     string
		in     bool
	}{
		"as it should be":              {&right, "verify-full", rightCA, true},
		"wrong authority":              {&right, "verify-full", otherCA, false},
		"wrong name":                   {&other, "verify-full", otherCA, false},
		"wrong name, authority enough": {&other, "verify-ca", otherCA, true},
		"plain server":                 {nil, "verify-full", rightCA, false},
		"plain server, require":        {nil, "require", "", false},
		"no authority named":           {&right, "verify-full", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port, loggingIn := tlsServer(t, c.server)
			db, err := Open(Config{Host: "localhost", Port: port, SSLMode: c.mode, SSLRootCert: c.ca}, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer func() { _ = db.Close() }()
			require.Error(t, db.Ready(t.Context()))
			require.Equal(t, c.in, len(loggingIn) > 0)
		})
	}
}

// A file that is not there does not come by waiting for the database.
func TestMigrate_AFileOfTheSettingsIsMissing(t *testing.T) {
	t.Parallel()
	right, _ := selfSigned(t, "localhost")
	port, _ := tlsServer(t, &right)
	db, err := Open(Config{Host: "localhost", Port: port, SSLMode: "verify-full", SSLRootCert: "/nowhere"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	err = db.Migrate(ctx)
	require.NoError(t, ctx.Err())
	require.ErrorContains(t, err, "-dbsslrootcert")
	require.ErrorContains(t, err, "/nowhere")
}
