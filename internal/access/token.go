package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Token is one that somebody may come with. What it is itself, only its owner knows.
type Token struct {
	Name    string // of its owner: the principal's
	Role    Role
	Sum     [sha256.Size]byte
	Expires time.Time // zero is never
}

const (
	maxName    = 200 // characters, as of kr_flow.registered_by
	maxSecret  = 256 // bytes of a token
	secretSize = 32  // random bytes in one of ours

	// secretPrefix lets people and scanners see what a token is for.
	secretPrefix = "flower_"
)

// NewToken makes a token. The secret is for its owner and kept nowhere; the line is for
// the tokens file.
func NewToken(name string, role Role, expires time.Time) (secret, line string, err error) {
	if err := checkName(name); err != nil {
		return "", "", err
	}
	random := make([]byte, secretSize)
	_, _ = rand.Read(random) // never fails
	secret = secretPrefix + base64.RawURLEncoding.EncodeToString(random)
	t := Token{Name: name, Role: role, Sum: sha256.Sum256([]byte(secret)), Expires: expires}
	return secret, t.String(), nil
}

// String returns the token's line in the file.
func (t Token) String() string {
	line := fmt.Sprintf("%s %s %s", t.Name, t.Role, hex.EncodeToString(t.Sum[:]))
	if !t.Expires.IsZero() {
		line += " " + t.Expires.UTC().Format(time.RFC3339)
	}
	return line
}

// ParseTokens reads a tokens file: on each line a name, a role, the SHA-256 of the token
// in hexadecimal digits, and if it ends some day, until when: 2027-01-31 (that day in UTC
// included) or 2027-01-31T12:00:00Z. Names may come more than once, so that a token can be
// replaced by another one while both are in use. # begins a comment.
//
// Errors name the line and never repeat what may be a token that was put there by mistake.
func ParseTokens(text string) ([]Token, error) {
	var tokens []Token
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		t, err := parseToken(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		tokens = append(tokens, t)
	}
	if len(tokens) == 0 {
		return nil, fmt.Errorf("there is no token in it, so that nobody could come in; register token -name NAME -role ROLE makes one")
	}
	return tokens, nil
}

func parseToken(fields []string) (Token, error) {
	none := Token{}
	if len(fields) < 3 || len(fields) > 4 {
		return none, fmt.Errorf("it has %d words and must have 3 or 4: name, role, SHA-256, until when", len(fields))
	}
	t := Token{Name: fields[0]}
	if err := checkName(t.Name); err != nil {
		return none, err
	}
	var known bool
	if t.Role, known = ParseRole(fields[1]); !known {
		return none, fmt.Errorf("the second word must be a role: %s", strings.Join(Roles(), ", "))
	}
	sum, err := hex.DecodeString(fields[2])
	if err != nil || copy(t.Sum[:], sum) != len(t.Sum) || len(sum) != len(t.Sum) {
		return none, fmt.Errorf("the third word must be a SHA-256 in 64 hexadecimal digits, not the token itself")
	}
	if len(fields) == 4 {
		t.Expires, err = ParseExpiry(fields[3])
	}
	return t, err
}

// ParseExpiry reads until when a token is good.
func ParseExpiry(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("until when must be a day, as in 2027-01-31, or a time, as in 2027-01-31T12:00:00Z")
	}
	return at, nil
}

// checkName keeps names to what can stand in the file, in a log and in a header.
func checkName(name string) error {
	odd := func(c rune) bool { return !unicode.IsPrint(c) || unicode.IsSpace(c) || c == '#' }
	if n := utf8.RuneCountInString(name); n == 0 || n > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, odd) {
		return fmt.Errorf("a name must have 1 to %d printable characters, without blanks and #", maxName)
	}
	return nil
}

// wellFormed reports whether a text could be a token: what a header and a cookie can both
// carry (RFC 6750).
func wellFormed(secret string) bool {
	odd := func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune("-._~+/=", c)
	}
	return secret != "" && len(secret) <= maxSecret && !strings.ContainsFunc(secret, odd)
}
