package register

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/access"
)

// Config says where to listen and for whom. Zero durations and counts are defaults.
type Config struct {
	Host string // -webhost: a name or an address
	Port int    // -webport: 0 lets the system choose

	// Hosts are more names under which requests may come, such as that of a reverse
	// proxy or of the service in a compose file.
	Hosts []string

	// Access knows who may come in; nil knows nobody.
	Access *access.Control

	// Insecure serves everything to whoever can reach the port, also where that is not
	// this machine alone. With tokens it means nothing.
	Insecure bool

	// TLSCert and TLSKey are files; empty is no TLS. They may be replaced at any time.
	TLSCert, TLSKey string

	ReadOnly bool // refuse whatever changes something

	// BasePath is where browsers find the server behind a proxy, as in "/flower"; empty is
	// "/". The proxy may take it off a request's path or leave it there.
	BasePath string

	// LoginPage is where a browser is sent that has no token; empty without pages.
	// It is below BasePath, as in "/login".
	LoginPage string

	Meter Meter // nil: nobody counts

	ShutdownTimeout time.Duration // for requests in flight at the end; 10 s
}

// Meter counts requests. Its methods return at once.
type Meter interface {
	Request(method, path string, status int, took time.Duration)
	Panic()
}

type noMeter struct{}

func (noMeter) Request(string, string, int, time.Duration) {}
func (noMeter) Panic()                                     {}

const defaultShutdownTimeout = 10 * time.Second

// ownPaths are what our own paths begin with. After one of them as a base path nobody could tell
// whether a proxy has taken that off: POST /register would be that of nothing.
var ownPaths = []string{
	"api", "bulk", "callback", "docs", "events", "failures", "flows", "healthz", "help", "login", "logout", "openapi.json", "readyz", "register",
	"search", "settings", "static", "watchers", "workflows",
}

// Validate checks the settings; its error names the one that is wrong.
func (c Config) Validate() error {
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("-webport (FLOWER_WEBPORT) %d: must be from 0 to 65535", c.Port)
	}
	if _, err := netip.ParseAddr(c.Host); err != nil && strings.ContainsAny(c.Host, "/ :[]") {
		return fmt.Errorf("-webhost (FLOWER_WEBHOST) %q: must be a name or an address alone, as in localhost, 0.0.0.0 or ::1", c.Host)
	}
	if c.BasePath != "" && (path.Clean(c.BasePath) != c.BasePath || c.BasePath[0] != '/' || c.BasePath == "/" ||
		strings.ContainsAny(c.BasePath, "?#% ;,")) {
		return fmt.Errorf("-base-path (FLOWER_BASE_PATH) %q: must be a path as in /flower", c.BasePath)
	}
	if first, _, _ := strings.Cut(strings.TrimPrefix(c.BasePath, "/"), "/"); slices.Contains(ownPaths, first) {
		return fmt.Errorf("-base-path (FLOWER_BASE_PATH) %q: must not begin as a path of register's own", c.BasePath)
	}
	if err := c.validateTLS(); err != nil {
		return err
	}
	for _, h := range c.Hosts {
		if strings.ContainsAny(h, "/ *") || hostOnly(h) != strings.ToLower(h) {
			return fmt.Errorf("-hosts (FLOWER_HOSTS) %q: must be a name without scheme and port, as in flower.example.com", h)
		}
	}
	return nil
}

// address returns what to listen on.
func (c Config) address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// URL returns where this machine itself reaches the server.
func (c Config) URL() string { return c.scheme() + "://" + c.local() }

// local returns the address under which this machine itself reaches the server.
func (c Config) local() string {
	host := c.Host
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(c.Port))
}

// exposed reports whether others than this machine may reach the server, as far as the
// name tells. Serve asks the socket.
func (c Config) exposed() bool {
	ip, err := netip.ParseAddr(c.Host)
	return !(c.Host == "localhost" || err == nil && ip.IsLoopback())
}

// hostNames returns the names that a Host header may have, beside addresses.
func (c Config) hostNames() map[string]bool {
	names := map[string]bool{"localhost": true, hostOnly(c.Host): true}
	for _, h := range c.Hosts {
		names[hostOnly(h)] = true
	}
	return names
}

// hostOnly returns a Host header's name in lower case, without port, brackets and the
// dot that may end it.
func hostOnly(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.TrimSuffix(strings.ToLower(host), ".")
}
