// Package access says who is calling register, and what that one may do.
//
// Control finds out: by a bearer token, by the cookie of the pages, or by what a trusted
// proxy says. Needed is the one table of what each route needs. The layer of register that
// uses both puts a Principal into the request's context; whoever serves a request asks Of,
// or Require. Each role may do what the ones before it may.
package access

import (
	"context"
	"fmt"
)

// Role is what a principal may do.
type Role int

// The roles. None is the zero value, which may do nothing.
const (
	None      Role = iota
	Reader         // read everything
	Registrar      // and register flows
	Operator       // and rerun, cancel, hold, resume, skip and finish
	Admin          // and change definitions and limits
)

// Roles are the names of those that somebody can have, the least one first.
func Roles() []string {
	return []string{Reader.String(), Registrar.String(), Operator.String(), Admin.String()}
}

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case Reader:
		return "reader"
	case Registrar:
		return "registrar"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	default:
		return "none"
	}
}

// ParseRole returns the role with this name, and false if there is none.
func ParseRole(name string) (Role, bool) {
	for r := Reader; r <= Admin; r++ {
		if r.String() == name {
			return r, true
		}
	}
	return None, false
}

// Principal is who is calling.
type Principal struct {
	Name string // as it stands in kr_event and kr_flow; never empty
	Role Role

	// Anonymous: there are no tokens, and nobody asked who it is. The name is then no
	// more than where the request came from.
	Anonymous bool

	// ReadOnly: this server changes nothing, whoever asks.
	ReadOnly bool
}

// Require returns nil if the principal may do what needs a role, or a *RefusedError. The
// pages ask it to show a button disabled, with the reason.
func (p Principal) Require(need Role) error {
	if p.Role < need || p.ReadOnly && need > Reader {
		return &RefusedError{Principal: p, Need: need}
	}
	return nil
}

// Key returns an idempotency key as it is kept. Keys belong to whoever used them: the same
// one of somebody else is another one. Where nobody is known, they are everybody's.
func (p Principal) Key(key string) string {
	if key == "" || p.Anonymous {
		return key
	}
	return p.Name + keySeparator + key
}

// keySeparator is in no name and in no key.
const keySeparator = "\x1f"

// Registers returns who is recorded as the one who registered a flow, if the request names
// somebody: whoever is known cannot be left out.
func (p Principal) Registers(forWhom string) string {
	switch {
	case forWhom == "" || forWhom == p.Name:
		return p.Name
	case p.Anonymous:
		return forWhom
	}
	return p.Name + " for " + forWhom
}

// RefusedError says why a principal may not do something.
type RefusedError struct {
	Principal Principal
	Need      Role
}

// ReadOnly reports whether nobody at all could do it here.
func (e *RefusedError) ReadOnly() bool { return e.Principal.ReadOnly && e.Need > Reader }

func (e *RefusedError) Error() string {
	if e.ReadOnly() {
		return "this register was started with -readonly: it changes nothing; use another one"
	}
	return fmt.Sprintf("this needs the role %s, and %q has the role %s; register token -name NAME -role %s makes a token for it",
		e.Need, e.Principal.Name, e.Principal.Role, e.Need)
}

type principalKey struct{}

// With returns a context that knows who is calling.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// Of returns who is calling. It panics where nobody has found out: a route that is
// reached without that would be open to everybody.
func Of(ctx context.Context) Principal {
	p, ok := ctx.Value(principalKey{}).(Principal)
	if !ok {
		panic("a handler was reached before anybody asked who is calling")
	}
	return p
}

// Require returns nil if whoever is calling may do what needs a role, or a *RefusedError.
func Require(ctx context.Context, need Role) error { return Of(ctx).Require(need) }
