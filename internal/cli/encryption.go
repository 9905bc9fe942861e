package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/d-tsuji/flower/internal/postgres"
)

// checkEncryption refuses to send a password and everything else to a server out there
// that need not prove who it is, unless somebody has said that this is meant: by any
// sslmode at all. Names and addresses of private networks need none, since "-dbhost db"
// is a promise; report warns of them.
func (f *Flags) checkEncryption(c *postgres.Config, inURL bool) error {
	if f.getenv("PQGO_DEBUG") != "" {
		return errors.New("environment variable PQGO_DEBUG: it has the driver print everything that goes to the database, " +
			"passwords and secrets included; unset it")
	}
	f.unproven = nil
	if inURL || f.byName["dbsslmode"].source != fromDefault {
		return nil
	}
	for _, host := range c.Hosts() {
		switch {
		case isLocal(host):
		case isPrivate(host):
			f.unproven = append(f.unproven, host)
		default:
			return fmt.Errorf("database host %q is not of a private network: say how it proves who it is, by -dbsslmode verify-full "+
				"(DB_SSLMODE; with -dbsslrootcert FILE unless its certificate is publicly trusted), or by another mode that you accept there, such as prefer", host)
		}
	}
	return nil
}

// reportEncryption warns of what checkEncryption has let through.
func (f *Flags) reportEncryption(log *slog.Logger) {
	if len(f.unproven) > 0 {
		log.Warn("the database does not prove who it is, and its network is trusted: "+
			"-dbsslmode verify-full has it prove it, and any other -dbsslmode accepts that", "host", strings.Join(f.unproven, ","))
	}
}

// isLocal reports whether a host is this machine, or a socket's directory on it.
func isLocal(host string) bool {
	if host == "" || host[0] == '/' || host[0] == '@' {
		return true
	}
	ip, err := netip.ParseAddr(host)
	host = normalHost(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.IsLoopback()
}

// privateZones are what nobody can register, and private networks use.
var privateZones = []string{".internal", ".local", ".localdomain", ".lan", ".home.arpa", ".svc", ".test"}

// isPrivate reports whether a host can be reached in a private network alone.
func isPrivate(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		return ip.IsPrivate() || ip.IsLinkLocalUnicast() || netip.MustParsePrefix("100.64.0.0/10").Contains(ip)
	}
	host = normalHost(host)
	return !strings.Contains(host, ".") ||
		slices.ContainsFunc(privateZones, func(zone string) bool { return strings.HasSuffix(host, zone) })
}

func normalHost(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }
