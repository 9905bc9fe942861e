package cli

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Value is the type of a setting: how its text is read, checked and shown.
type Value struct {
	set    func(string) error // its error says what is allowed
	text   func() string      // for -help and -print-config; never a secret
	isBool bool
}

// Set, String and IsBoolFlag make a Value one of package flag.
func (v *Value) Set(s string) error { return v.set(s) }

func (v *Value) String() string {
	if v == nil || v.text == nil { // package flag calls it on a zero value
		return ""
	}
	return v.text()
}

// IsBoolFlag lets "-insecure" stand for "-insecure=true".
func (v *Value) IsBoolFlag() bool { return v.isBool }

// Text is any text.
func Text(p *string, def string) *Value {
	*p = def
	return &Value{
		set:  func(s string) error { *p = s; return nil },
		text: func() string { return *p },
	}
}

// Secret is any text that is never shown. It has no default, and no check that could
// repeat it in an error.
func Secret(p *string) *Value {
	return &Value{
		set: func(s string) error { *p = s; return nil },
		text: func() string {
			if *p == "" {
				return ""
			}
			return "(set, not shown)"
		},
	}
}

// ConnectionURL is a URL, or "key=value …" pairs, shown without the password in it.
func ConnectionURL(p *string) *Value {
	return &Value{
		set: func(s string) error { *p = s; return nil },
		text: func() string {
			u, err := url.Parse(*p)
			switch {
			case *p == "":
				return ""
			case err != nil || u.Host == "" || u.RawQuery != "": // a query may hold secrets too
				return "(set, not shown)"
			}
			return u.Redacted()
		},
	}
}

// Int is a whole number from least to most.
func Int(p *int, def, least, most int) *Value {
	*p = def
	return &Value{
		set: func(s string) error {
			n, err := strconv.Atoi(s)
			if err != nil || n < least || n > most {
				return fmt.Errorf("must be a whole number from %d to %d", least, most)
			}
			*p = n
			return nil
		},
		text: func() string { return strconv.Itoa(*p) },
	}
}

// Bytes is a size such as 512MiB or 2GB from least to most, or 0.
func Bytes(p *int64, def, least, most int64) *Value {
	*p = def
	return &Value{
		set: func(s string) error {
			n, ok := parseBytes(s)
			if !ok || n != 0 && (n < least || n > most) {
				return fmt.Errorf("must be a size such as 512MiB or 2GB from %s to %s, or 0", size(least), size(most))
			}
			*p = n
			return nil
		},
		text: func() string { return size(*p) },
	}
}

// units are those of sizes, the largest first.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
	{"", 1},
}

func parseBytes(s string) (int64, bool) {
	for _, u := range units {
		if number, found := strings.CutSuffix(s, u.name); found {
			n, err := strconv.ParseInt(number, 10, 64)
			return n * u.bytes, err == nil && n >= 0 && n <= math.MaxInt64/u.bytes
		}
	}
	return 0, false
}

// size writes 1048576 as 1MiB.
func size(n int64) string {
	for _, u := range units {
		if n > 0 && n%u.bytes == 0 && u.bytes > 1 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Bool is true or false.
func Bool(p *bool) *Value {
	return &Value{
		set: func(s string) error {
			b, err := strconv.ParseBool(s)
			if err != nil {
				return errors.New("must be true or false")
			}
			*p = b
			return nil
		},
		text: func() string {
			if !*p {
				return ""
			}
			return "true"
		},
		isBool: true,
	}
}

// Duration is a time such as 5s or 1m30s from least to most. A bare number is one of
// seconds, as in the original's POLLING_INTERVAL_SECOND=5.
func Duration(p *time.Duration, def, least, most time.Duration) *Value {
	*p = def
	return &Value{
		set: func(s string) error {
			d, ok := flow.ParseDuration(s)
			if !ok || d < least || d > most {
				return fmt.Errorf("must be a time such as 5s or 1m30s, or a number of seconds, from %s to %s",
					short(least), short(most))
			}
			*p = d
			return nil
		},
		text: func() string { return short(*p) },
	}
}

// short writes 1h0m0s as 1h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// OneOf is one of the words allowed.
func OneOf(p *string, def string, allowed ...string) *Value {
	*p = def
	return &Value{
		set: func(s string) error {
			if !slices.Contains(allowed, s) {
				return fmt.Errorf("must be one of %s", strings.Join(allowed, ", "))
			}
			*p = s
			return nil
		},
		text: func() string { return *p },
	}
}

// List is any number of texts, separated by commas.
func List(p *[]string) *Value {
	return &Value{
		set: func(s string) error {
			*p = nil
			for item := range strings.SplitSeq(s, ",") {
				if item = strings.TrimSpace(item); item != "" {
					*p = append(*p, item)
				}
			}
			return nil
		},
		text: func() string { return strings.Join(*p, ",") },
	}
}

// Repeated is a text for each time that the flag is given.
func Repeated(p *[]string) *Value {
	return &Value{
		set:  func(s string) error { *p = append(*p, s); return nil },
		text: func() string { return strings.Join(*p, " ") },
	}
}
