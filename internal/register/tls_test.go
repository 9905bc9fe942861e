package register

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/cli"
)

// writeCert makes a certificate for localhost and example.com, and returns it.
func writeCert(t *testing.T, certFile, keyFile string, serial int64) []byte {
	t.Helper()
	return writeCertUntil(t, certFile, keyFile, serial, time.Now().Add(time.Hour))
}

func writeCertUntil(t *testing.T, certFile, keyFile string, serial int64, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "flower"},
		DNSNames: []string{"localhost", "example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: until.Add(-2 * time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	keyBytes, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyBytes}), 0o600))
	return certPEM
}

func TestServe_SecH1_TLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Host: "127.0.0.1", TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(writeCert(t, cfg.TLSCert, cfg.TLSKey, 1)))
	var log logBuffer
	address, stop := start(t, cfg, fakeStore{}, log.logger())

	serial := func(c *tls.Config) (int64, error) {
		conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			return 0, err
		}
		defer func() { _ = conn.Close() }()
		secure, _ := conn.(*tls.Conn)
		return secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		n, err := serial(&tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version})
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		_, err := serial(&tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version}) //nolint:gosec // what it must refuse
		require.ErrorContains(t, err, "protocol version", tls.VersionName(version))
	}
	for _, weak := range tls.InsecureCipherSuites() {
		_, err := serial(&tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{weak.ID}}) //nolint:gosec // likewise
		require.Error(t, err, weak.Name)
	}

	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	for host, want := range map[string]string{"example.com": hsts, "localhost": ""} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/api/v1/nothing", http.NoBody)
		require.NoError(t, err)
		r.Host = host
		answer, err := (&http.Client{Transport: transport}).Do(r)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		if host == "localhost" {
			require.Equal(t, http.StatusNotFound, answer.StatusCode)
		}
		require.Equal(t, want, answer.Header.Get("Strict-Transport-Security"), host)
	}

	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	at := cfg
	at.Port, err = strconv.Atoi(port)
	require.NoError(t, err)
	require.NoError(t, cli.Healthcheck(t.Context(), at.URL()))

	// Another certificate counts without a restart; a broken one does not.
	require.NoError(t, os.WriteFile(cfg.TLSKey, []byte("broken"), 0o600))
	require.Eventually(t, func() bool { // it looks at the files when somebody comes
		n, err := serial(&tls.Config{RootCAs: roots})
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		return strings.Contains(log.String(), "a new file cannot be used")
	}, 10*time.Second, 50*time.Millisecond)
	require.True(t, roots.AppendCertsFromPEM(writeCert(t, cfg.TLSCert, cfg.TLSKey, 2)))
	require.Eventually(t, func() bool {
		n, err := serial(&tls.Config{RootCAs: roots})
		return err == nil && n == 2
	}, 10*time.Second, 50*time.Millisecond)
	transport.CloseIdleConnections()
	require.NoError(t, stop())
}

// A renewal that went wrong: nobody can come any more, and without a word nobody would know why.
func TestServe_SecH1_ACertificateThatHasExpiredIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Host: "127.0.0.1", TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
	writeCert(t, cfg.TLSCert, cfg.TLSKey, 1)
	var log logBuffer
	s := New(cfg, fakeStore{}, log.logger())
	require.NoError(t, s.openTLS())
	require.NotContains(t, log.String(), "not valid now")
	writeCertUntil(t, cfg.TLSCert, cfg.TLSKey, 2, time.Now().Add(-time.Minute))
	s.Reload()
	require.Contains(t, log.String(), "the certificate is not valid now")
}

func TestServe_SecH1_NoTLSWithoutACertificate(t *testing.T) {
	t.Parallel()
	var log logBuffer
	err := New(Config{Host: "127.0.0.1", TLSCert: "/nowhere", TLSKey: "/nowhere"}, fakeStore{}, log.logger()).Run(context.Background(), prepared)
	require.ErrorContains(t, err, "-tls-cert (FLOWER_TLS_CERT)")
	require.NotContains(t, log.String(), "starting server")
	require.ErrorContains(t, Config{TLSCert: "/x"}.Validate(), "both or none")
	require.ErrorContains(t, Config{TLSKey: "/x"}.Validate(), "both or none")
}
