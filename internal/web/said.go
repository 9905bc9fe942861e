package web

import (
	"fmt"
	"html/template"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// said is a text that a program or a person wrote, as HTML: never interpreted, but for the
// colours of a terminal, which become classes, and URLs, which become links. What
// controls the direction of text stays in a cage of its own, or it could make a line
// read as another one.
func said(text string) template.HTML {
	var b strings.Builder
	open := ""
	for text != "" {
		style, plain, rest := nextStyle(text)
		if plain != "" {
			if open != "" {
				b.WriteString(`<span class="` + open + `">`)
			}
			writePlain(&b, plain)
			if open != "" {
				b.WriteString("</span>")
			}
		}
		if style != nil {
			open = restyle(open, *style)
		}
		text = rest
	}
	return template.HTML(b.String())
}

// line is a text as said has it, without colours and links: for what is one line of a list,
// and in a link itself.
func line(text string) template.HTML {
	var b strings.Builder
	writeCaged(&b, sgr.ReplaceAllString(text, ""))
	return template.HTML(b.String())
}

// sgr is a terminal's command for colours, or another one, which means nothing here.
var sgr = regexp.MustCompile("\x1b\\[([0-9;:]{0,64})([A-Za-z])")

// nextStyle cuts a text at its first command for a terminal.
func nextStyle(text string) (style *string, plain, rest string) {
	at := sgr.FindStringSubmatchIndex(text)
	if at == nil {
		return nil, text, ""
	}
	if text[at[4]:at[5]] == "m" {
		parameters := text[at[2]:at[3]]
		style = &parameters
	}
	return style, text[:at[0]], text[at[1]:]
}

// restyle returns the classes after a command. Only the sixteen colours, bold and
// underlined mean something; a colour of 256 or of 16 million is left out.
func restyle(classes, parameters string) string {
	on := strings.Fields(classes)
	set := func(prefix, class string) {
		kept := on[:0]
		for _, c := range on {
			if !strings.HasPrefix(c, prefix) {
				kept = append(kept, c)
			}
		}
		if on = kept; class != "" {
			on = append(on, class)
		}
	}
	codes := strings.FieldsFunc(parameters, func(r rune) bool { return r == ';' || r == ':' })
	if len(codes) == 0 {
		return ""
	}
	for i := 0; i < len(codes); i++ {
		n, err := strconv.Atoi(codes[i])
		switch {
		case err != nil:
		case n == 0:
			on = nil
		case n == 1:
			set("bold", "bold")
		case n == 4:
			set("under", "under")
		case n == 22:
			set("bold", "")
		case n == 24:
			set("under", "")
		case n >= 30 && n <= 37:
			set("fg-", fmt.Sprintf("fg-%d", n-30))
		case n >= 90 && n <= 97:
			set("fg-", fmt.Sprintf("fg-%d", n-90))
		case n == 39:
			set("fg-", "")
		case n == 38 || n == 48:
			i = len(codes) // its colour is in the rest
		}
	}
	return strings.Join(on, " ")
}

var link = regexp.MustCompile(`https?://[^\s<>"'` + "`" + `\x00-\x1f\x7f]+`)

// writePlain writes text without commands.
func writePlain(b *strings.Builder, text string) {
	for text != "" {
		at := link.FindStringIndex(text)
		if at == nil {
			writeCaged(b, text)
			return
		}
		target := text[at[0]:at[1]]
		// What ends a sentence, or closes a bracket that was opened before, is not of it.
		trimmed := strings.TrimRight(target, ".,;:!?)]}…")
		if strings.Contains(trimmed, "(") && strings.HasPrefix(target[len(trimmed):], ")") {
			trimmed += ")"
		}
		writeCaged(b, text[:at[0]])
		if strings.ContainsFunc(trimmed, caged) || !utf8.ValidString(trimmed) {
			writeCaged(b, trimmed)
		} else {
			b.WriteString(`<a href="` + template.HTMLEscapeString(trimmed) + `" rel="noopener noreferrer">` +
				template.HTMLEscapeString(trimmed) + "</a>")
		}
		text = text[at[0]+len(trimmed):]
	}
}

// caged reports whether a character commands instead of being shown.
func caged(r rune) bool {
	switch {
	case r == '\n', r == '\t':
		return false
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return true
	}
	return false
}

// writeCaged writes text escaped, with what commands in a cage that shows its number.
func writeCaged(b *strings.Builder, text string) {
	for text != "" {
		i := strings.IndexFunc(text, caged)
		if i < 0 {
			i = len(text)
		}
		b.WriteString(template.HTMLEscapeString(text[:i]))
		if i == len(text) {
			return
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		inside := text[i : i+n]
		if r == '\r' || r == 0 { // HTML would make something else of them
			inside = ""
		}
		fmt.Fprintf(b, `<bdi class="caged" data-code="U+%04X">%s</bdi>`, r, inside)
		text = text[i+n:]
	}
}

// firstLine cuts a text after its first line that says something.
func firstLine(text string) (first, rest string) {
	text = strings.TrimLeft(text, "\n\r\t ")
	first, rest, _ = strings.Cut(text, "\n")
	return strings.TrimRight(first, "\r"), rest
}

// clip shortens a text to so many characters.
func clip(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
