package web

import (
	"fmt"
	"html/template"
	"math"
	"net/url"
	"strconv"
	"time"
)

// funcs are what templates can call beside html/template's own.
func funcs(base string, f files) template.FuncMap {
	return template.FuncMap{
		// url makes a link of this site: a path in which each %s is an id, whatever it
		// holds. No template writes a path otherwise, or it would be wrong under a
		// base path.
		"url": func(path string, ids ...any) string {
			if len(ids) == 0 {
				return base + path // escaped already
			}
			escaped := make([]any, len(ids))
			for i, id := range ids {
				escaped[i] = url.PathEscape(fmt.Sprint(id))
			}
			return base + fmt.Sprintf(path, escaped...)
		},
		"static": func(name string) string { return f.url(base, name) },
		"icon": func(name string) template.HTML {
			return template.HTML(`<svg class="icon" aria-hidden="true"><use href="` + f.url(base, "icons.svg") + "#" +
				template.HTMLEscapeString(name) + `"></use></svg>`)
		},
		"favicon": func(state string) string {
			switch state {
			case "failed", "running", "finished":
				return "favicon-" + state + ".svg"
			}
			return "favicon.svg"
		},
		"retries": func(body any) bool {
			f, ok := body.(failed)
			return ok && f.Retry
		},

		// Times. Without JavaScript all of them are in UTC; static/js/time.js writes
		// them as the person wants them, and counts what runs on.
		"at":    func(t time.Time) template.HTML { return timeTag(t, "at") },    // 2026-11-23 03:12:01 UTC
		"ago":   func(t time.Time) template.HTML { return timeTag(t, "ago") },   // 4 min ago
		"clock": func(t time.Time) template.HTML { return timeTag(t, "clock") }, // 03:12:01.123
		"since": func(t time.Time) template.HTML { return timeTag(t, "since") }, // 1 m 12 s, and counting
		"until": func(t time.Time) template.HTML { return timeTag(t, "until") }, // in 40 s

		"said":  said,
		"line":  line,
		"clip":  clip,
		"stamp": func(t time.Time) string { return t.UTC().Format(stampLayout) }, // for data-time
		"pc":    func(x float64) string { return strconv.FormatFloat(math.Round(x*1000)/1000, 'f', -1, 64) },

		"took":   took,
		"short":  short,
		"plural": plural,
		"count":  number,
	}
}

// stampLayout is how a page says a moment to a script; the moment is in UTC.
const stampLayout = "2006-01-02T15:04:05.000Z"

// timeTag is a moment. The page never has the time that has passed since: no two
// renderings would be equal.
func timeTag(t time.Time, form string) template.HTML {
	if t.IsZero() {
		return ""
	}
	t = t.UTC()
	layout := "2006-01-02 15:04:05 UTC"
	switch form {
	case "clock":
		layout = "15:04:05.000"
	case "since":
		layout = "since 15:04:05 UTC"
	case "until":
		layout = "at 15:04:05 UTC"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-form="%s">%s</time>`,
		t.Format(stampLayout), form, t.Format(layout)))
}

// took writes a duration as 850 ms, 12.4 s, 3 m 07 s, 2 h 05 m, 3 d 04 h. It is never
// negative: two machines' clocks are never compared, but people set times by hand.
func took(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	d = d.Round(time.Second)
	switch m, h := int(d.Minutes()), int(d.Hours()); {
	case h >= 24:
		return fmt.Sprintf("%d d %02d h", h/24, h%24)
	case h > 0:
		return fmt.Sprintf("%d h %02d m", h, m%60)
	default:
		return fmt.Sprintf("%d m %02d s", m, int(d.Seconds())%60)
	}
}

// short is an id as people read it. Of a UUID that Flower made it is the first 13
// characters, which are the millisecond that it was made in: one can search by it, and
// two flows hardly ever share it.
func short(id any) string {
	s := []rune(fmt.Sprint(id))
	if len(s) == 36 && s[8] == '-' && s[13] == '-' {
		return string(s[:13])
	}
	if len(s) > 24 {
		return string(s[:23]) + "…"
	}
	return string(s)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
