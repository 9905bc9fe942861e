package program

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// ParseAllow reads the list of networks that requests may go to, separated by commas:
// "10.0.0.0/8, 192.0.2.7". An empty text is no list: nil. Names of hosts are refused,
// because where they lead is decided by whoever runs their DNS.
func ParseAllow(list string) ([]netip.Prefix, error) {
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	var allow []netip.Prefix
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		p, err := parseNetwork(entry)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", quote(entry), err)
		}
		if why := refusedNetwork(p); why != "" {
			return nil, fmt.Errorf("%s: %s, where requests never go", quote(entry), why)
		}
		allow = append(allow, p)
	}
	return allow, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	wrong := errors.New("not a network like 10.0.0.0/8 or an address like 10.1.2.3 (host names cannot be used)")
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, wrong
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, wrong
	}
	return p.Masked(), nil
}

// network is a range of addresses, with what one of them is.
type network struct {
	prefix netip.Prefix
	is     string
}

var (
	// neverAllowed is what no allow list opens. Nothing is there that a task would call,
	// but for machines in a cloud whatever answers there hands out their credentials.
	// The metadata services outside the link-local networks are those of Alibaba, Azure,
	// Oracle, AWS, Google and Scaleway. Teredo, 6to4 and translated addresses carry an
	// IPv4 address past the other lines.
	neverAllowed = []network{
		{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"},
		{netip.MustParsePrefix("::/128"), "an unspecified address"},
		{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
		{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
		{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
		{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
		{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
		{netip.MustParsePrefix("100.100.100.200/32"), "a metadata service"},
		{netip.MustParsePrefix("168.63.129.16/32"), "a metadata service"},
		{netip.MustParsePrefix("192.0.0.192/32"), "a metadata service"},
		{netip.MustParsePrefix("fd00:ec2::/112"), "a metadata service"},
		{netip.MustParsePrefix("fd20:ce::254/128"), "a metadata service"},
		{netip.MustParsePrefix("fd00:42::42/128"), "a metadata service"},
		{netip.MustParsePrefix("2001::/32"), "a Teredo address"},
		{netip.MustParsePrefix("2002::/16"), "a 6to4 address"},
		{netip.MustParsePrefix("::ffff:0:0:0/96"), "a translated IPv4 address"},
		{netip.MustParsePrefix("64:ff9b:1::/48"), "a translated IPv4 address"},
	}

	// nat64 holds an IPv4 address in its last four bytes.
	nat64 = netip.MustParsePrefix("64:ff9b::/96")

	// allowedByDefault: Flower's users call their own services (ssrf would refuse all
	// that is not public).
	allowedByDefault = []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("fc00::/7"),
	}

	everything = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
)

// refusedNetwork says what p lies in that is never allowed, if it does with all its
// addresses.
func refusedNetwork(p netip.Prefix) string {
	for _, never := range neverAllowed {
		if never.prefix.Bits() <= p.Bits() && never.prefix.Contains(p.Addr()) {
			return never.is
		}
	}
	return ""
}

// refusedError is the guard's answer. It is about one address, so that the same URL can
// get it today and not tomorrow, if its host's name leads elsewhere then.
type refusedError struct {
	addr netip.Addr
	why  string
}

func (e *refusedError) Error() string { return e.addr.String() + ", " + e.why }

// newDialer returns a dialer that connects only where requests may go. The decision is
// made about the address that is dialled, after every look-up: neither a name nor an
// unusual way to write an address gets past it.
func newDialer(allow []netip.Prefix) *net.Dialer {
	g := guard{listed: len(allow) > 0}
	options := []ssrf.Option{ssrf.WithAnyPort()}
	if g.listed {
		v4, v6 := families(everything)
		options = append(options, ssrf.WithDeniedV4Prefixes(v4...), ssrf.WithDeniedV6Prefixes(v6...))
	} else {
		allow = allowedByDefault
	}
	v4, v6 := families(allow)
	options = append(options, ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	g.guardian = ssrf.New(options...)
	return &net.Dialer{Timeout: connectTimeout, Control: g.control}
}

func families(all []netip.Prefix) (v4, v6 []netip.Prefix) {
	for _, p := range all {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return v4, v6
}

type guard struct {
	guardian *ssrf.Guardian
	listed   bool
}

// control is a net.Dialer's Control: called with the address of each connection before
// it is made.
func (g guard) control(network, address string, conn syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	// A prefix contains no address with a zone, nor an IPv4 address written as IPv6.
	addr := target.Addr().WithZone("").Unmap()
	if why := g.never(addr); why != "" {
		return &refusedError{addr, why + ": requests never go there"}
	}
	address = netip.AddrPortFrom(addr, target.Port()).String()
	if err := g.guardian.Safe(network, address, conn); err != nil {
		if g.listed {
			return &refusedError{addr, "which the watcher's setting -http-allow does not contain"}
		}
		return &refusedError{addr, "a reserved address: requests go there only if the watcher's setting -http-allow contains it"}
	}
	return nil
}

// never says what addr is if requests must not go there, whatever is allowed.
func (g guard) never(addr netip.Addr) string {
	if why := refusedNetwork(netip.PrefixFrom(addr, addr.BitLen())); why != "" {
		return why
	}
	if nat64.Contains(addr) {
		b := addr.As16()
		return g.never(netip.AddrFrom4([4]byte(b[12:])))
	}
	return ""
}
