package register

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/d-tsuji/flower/internal/reload"
)

// hsts tells browsers to come by TLS alone, for a year.
const hsts = "max-age=31536000"

// openTLS reads the certificate, if there is to be one.
func (s *Server) openTLS() error {
	if s.cfg.TLSCert == "" || s.cert.Load() != nil {
		return nil
	}
	read := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(s.cfg.TLSCert, s.cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("-tls-cert (FLOWER_TLS_CERT) %q, -tls-key (FLOWER_TLS_KEY) %q: %w", s.cfg.TLSCert, s.cfg.TLSKey, err)
		}
		if now := time.Now(); now.Before(cert.Leaf.NotBefore) || now.After(cert.Leaf.NotAfter) {
			s.log.Warn("the certificate is not valid now, and clients will refuse it", "cert", s.cfg.TLSCert,
				"from", cert.Leaf.NotBefore, "until", cert.Leaf.NotAfter)
		}
		return &cert, nil
	}
	cert, err := reload.Open([]string{s.cfg.TLSCert, s.cfg.TLSKey}, read, s.log)
	if err != nil {
		return err
	}
	s.cert.Store(cert)
	return nil
}

// Reload reads the certificate again, at once. Without that it is read when it has changed.
func (s *Server) Reload() {
	if cert := s.cert.Load(); cert != nil {
		cert.Reload()
	}
}

// serve is srv.Serve, by TLS if there is a certificate.
func (s *Server) serve(srv *http.Server, l net.Listener) error {
	cert := s.cert.Load()
	if cert == nil {
		return srv.Serve(l)
	}
	srv.TLSConfig = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Get(), nil },
	}
	return srv.ServeTLS(l, "", "")
}

// strict adds what makes browsers come by TLS alone, where that is how they have come. Not
// for localhost: it would count for whatever else this machine serves.
func (s *Server) strict(h http.Header, r *http.Request) {
	if s.cfg.Access.Encrypted(r) && hostOnly(r.Host) != "localhost" {
		h.Set("Strict-Transport-Security", hsts)
	}
}

// scheme returns that of the server's addresses.
func (c Config) scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

func (c Config) validateTLS() error {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("-tls-cert (FLOWER_TLS_CERT) and -tls-key (FLOWER_TLS_KEY): both or none")
	}
	return nil
}
