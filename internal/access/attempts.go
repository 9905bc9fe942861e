package access

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// Limits of guessing, for each address.
const (
	guessPause = time.Second // from one wrong token to the next, in the long run
	guessBurst = 10          // wrong ones that may come at once
	wrongPause = 100 * time.Millisecond

	maxAddresses = 10_000 // that are remembered
)

// attempts remembers who has come with wrong tokens. Its owner locks.
//
// While an address has had too many, no token from there is looked at, right or wrong, or
// else a guess would cost nothing. But those that came in from there before still do: an
// expired token of one client must not lock out its neighbours.
type attempts struct {
	byAddress map[netip.Addr]*attempt
}

type attempt struct {
	owed  time.Time // when all wrong tokens so far will be forgiven
	known map[[sha256.Size]byte]bool
}

// wait returns how long an address must wait before a token of its is looked at.
func (a *attempts) wait(from netip.Addr, sum [sha256.Size]byte, now time.Time) time.Duration {
	at := a.byAddress[from]
	if at == nil || at.known[sum] || at.owed.Before(now) {
		return 0
	}
	return max(0, at.owed.Sub(now)-(guessBurst-1)*guessPause)
}

// wrong notes that a token was.
func (a *attempts) wrong(from netip.Addr, sum [sha256.Size]byte, now time.Time) {
	at := a.of(from, now)
	delete(at.known, sum) // it was right once
	if at.owed.Before(now) {
		at.owed = now
	}
	// A token that was known is looked at whatever is owed, but is not owed for for ever.
	at.owed = at.owed.Add(guessPause)
	if most := now.Add(guessBurst * guessPause); at.owed.After(most) {
		at.owed = most
	}
}

// right notes that a token was.
func (a *attempts) right(from netip.Addr, sum [sha256.Size]byte, now time.Time) {
	if at := a.byAddress[from]; at != nil && at.known[sum] {
		return
	}
	at := a.of(from, now)
	if at.known == nil {
		at.known = make(map[[sha256.Size]byte]bool)
	}
	at.known[sum] = true
}

func (a *attempts) of(from netip.Addr, now time.Time) *attempt {
	if at := a.byAddress[from]; at != nil {
		return at
	}
	if a.byAddress == nil {
		a.byAddress = make(map[netip.Addr]*attempt)
	}
	if len(a.byAddress) >= maxAddresses {
		a.forget(now)
	}
	at := &attempt{}
	a.byAddress[from] = at
	return at
}

// forget makes room: first of those who owe nothing, then of whomever.
func (a *attempts) forget(now time.Time) {
	for from, at := range a.byAddress {
		if at.owed.Before(now) {
			delete(a.byAddress, from)
		}
		if len(a.byAddress) <= maxAddresses/2 {
			return
		}
	}
	for from := range a.byAddress {
		delete(a.byAddress, from)
		if len(a.byAddress) <= maxAddresses/2 {
			return
		}
	}
}

// neighbourhood is what counts as one address: of IPv6, everybody has 2^64.
func neighbourhood(client string) netip.Addr {
	ip, err := netip.ParseAddr(client)
	if err != nil {
		return netip.Addr{} // all who have none count as one
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		p, _ := ip.Prefix(64)
		return p.Addr()
	}
	return ip
}
