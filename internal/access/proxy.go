package access

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxy says which proxies are believed, and what their users may do.
type Proxy struct {
	Trusted []netip.Prefix // -trusted-proxy

	// Role is that of users for whom the proxy names none.
	Role Role

	// RoleHeader is the header in which the proxy names a user's role; empty if it does
	// not. It must take away what a client sends under this name.
	RoleHeader string
}

// trusts reports whether a request comes from a trusted proxy.
func (p Proxy) trusts(r *http.Request) bool {
	ip, err := netip.ParseAddr(peer(r))
	return err == nil && p.contains(ip)
}

func (p Proxy) contains(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, prefix := range p.Trusted {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// client returns the address that a request comes from: with trusted proxies the last one
// in X-Forwarded-For that is none of them. What stands before that, anybody could write.
func (p Proxy) client(r *http.Request) string {
	if !p.trusts(r) {
		return peer(r)
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	client := peer(r)
	for _, text := range slices.Backward(hops) {
		ip, ok := hop(text)
		if !ok {
			break
		}
		client = ip.String()
		if !p.contains(ip) {
			break
		}
	}
	return client
}

// hop reads an address of X-Forwarded-For, which some proxies write with a port.
func hop(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	ip, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return ip.Unmap().WithZone(""), err == nil
}

// encrypted reports whether the client speaks TLS, to us or to a trusted proxy.
func (p Proxy) encrypted(r *http.Request) bool {
	return r.TLS != nil || p.trusts(r) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// user returns the user that a trusted proxy names; false if it names none.
func (p Proxy) user(r *http.Request) (Principal, bool, error) {
	names := r.Header.Values("X-Forwarded-User")
	if !p.trusts(r) || len(names) == 0 || len(names) == 1 && names[0] == "" {
		return Principal{}, false, nil
	}
	if len(names) > 1 || checkName(names[0]) != nil {
		return Principal{}, false, ErrWrongUser
	}
	user := Principal{Name: names[0], Role: p.Role}
	if p.RoleHeader == "" {
		return user, true, nil
	}
	if roles := r.Header.Values(p.RoleHeader); len(roles) > 0 {
		// One that we do not know may do nothing: the proxy meant something by it.
		user.Role, _ = ParseRole(strings.Join(roles, ","))
	}
	return user, true, nil
}

// peer returns the address at the other end of the connection.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
