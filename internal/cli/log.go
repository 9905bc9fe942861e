package cli

import (
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/lmittmann/tint"
)

// Longer texts are cut in logs: whoever can make an error long could otherwise fill a
// disk. A stack is useless when it is cut too early.
const (
	maxField = 2 << 10
	maxStack = 16 << 10
)

// LogConfig says how to log.
type LogConfig struct {
	Format string     // text, json, or auto: text on a terminal
	Level  slog.Level // the least important that is written
}

// Logging adds the settings of a logger.
func (f *Flags) Logging(c *LogConfig) {
	var level string
	f.Group("Logging")
	f.Var(OneOf(&c.Format, "auto", "auto", "text", "json"), "log-format FORMAT", "FLOWER_LOG_FORMAT",
		"text, json, or auto: text on a terminal")
	f.Var(OneOf(&level, "info", "debug", "info", "warn", "error"), "log-level LEVEL", "FLOWER_LOG_LEVEL",
		"what to write: debug, info, warn or error, and above")
	f.Check(func() error { return c.Level.UnmarshalText([]byte(level)) })
}

// Logger returns the program's logger. It writes to Stderr, and who logs goes on when
// nobody reads that any more: Go would end the process by SIGPIPE, in the middle of its
// work, because a collector of logs was started anew. It is not ignored, as what the
// process starts would inherit that. Nor does anybody wait for the reader of a file.
func (e *Env) Logger(c LogConfig) *slog.Logger {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	to := e.Stderr
	if file, ok := to.(*os.File); ok {
		e.logs = newLogBuffer(file, func(dropped int) {
			e.log.Warn("nobody has read the log for a time: what came then was dropped", "lines", dropped)
		})
		to = e.logs
	}
	terminal := IsTerminal(e.Stderr)
	var h slog.Handler
	if c.Format == "text" || c.Format != "json" && terminal {
		h = newTextHandler(to, c, terminal, terminal && e.Getenv("NO_COLOR") == "")
	} else {
		h = slog.NewJSONHandler(to, &slog.HandlerOptions{Level: c.Level, ReplaceAttr: forJSON})
	}
	e.log = slog.New(h)
	return e.log
}

// newTextHandler returns a handler for people. Who looks at a terminal knows the date.
func newTextHandler(w io.Writer, c LogConfig, terminal, colour bool) slog.Handler {
	format := "2006-01-02T15:04:05.000Z07:00"
	if terminal {
		format = "15:04:05.000"
	}
	return tint.NewTextHandler(w, &tint.Options{
		Level: c.Level, ReplaceAttr: forText, TimeFormat: format, NoColor: !colour,
	})
}

func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// forJSON cuts long texts and writes durations as people do (slog writes nanoseconds).
// The handler itself escapes control characters.
func forJSON(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	if s, ok := text(a); ok {
		return slog.String(a.Key, s)
	}
	return a
}

// forText cuts long texts and takes away what could command a terminal: most of what
// Flower logs was written by somebody else.
func forText(groups []string, a slog.Attr) slog.Attr {
	s, ok := text(a)
	if !ok {
		return a
	}
	inMessage := len(groups) == 0 && a.Key == slog.MessageKey // tint quotes all but that
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			if inMessage {
				return ' '
			}
			return r
		case r < ' ':
			return '\u2400' + r // a picture of it: ␛, ␍
		case unicode.IsGraphic(r) && r != unicode.ReplacementChar: // tint drops what follows that
			return r
		}
		return '?'
	}, s)
	// tint makes an escape character of these four, even when they were just text.
	s = strings.ReplaceAll(s, `\x1b`, `\x1B`)
	return slog.String(a.Key, s)
}

// text returns an attribute's value, cut, if it is a text or an error.
func text(a slog.Attr) (string, bool) {
	var s string
	switch a.Value.Kind() {
	case slog.KindString:
		s = a.Value.String()
	case slog.KindAny:
		err, ok := a.Value.Any().(error)
		if !ok {
			return "", false
		}
		s = err.Error()
	default:
		return "", false
	}
	limit := maxField
	if a.Key == "stack" {
		limit = maxStack
	}
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD"), true
}
