package web

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestSaid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain":                                 "plain",
		"a\nb\tc":                               "a\nb\tc",
		`<script>alert("1")</script>`:           "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;",
		"\x1b[31mred\x1b[0m not":                `<span class="fg-1">red</span> not`,
		"\x1b[1;32mok\x1b[22m ok\x1b[m.":        `<span class="bold fg-2">ok</span><span class="fg-2"> ok</span>.`,
		"\x1b[38;5;200mpink":                    "pink",
		"\x1b[2Jcleared \x1b]0;title\a":         `cleared <bdi class="caged" data-code="U+001B">` + "\x1b" + `</bdi>]0;title<bdi class="caged" data-code="U+0007">` + "\a</bdi>",
		"user\u202eexe.cod":                     `user<bdi class="caged" data-code="U+202E">` + "\u202e" + `</bdi>exe.cod`,
		"see https://a.example/x?a=1&b=2.":      `see <a href="https://a.example/x?a=1&amp;b=2" rel="noopener noreferrer">https://a.example/x?a=1&amp;b=2</a>.`,
		`"http://a/"<b`:                         `&#34;<a href="http://a/" rel="noopener noreferrer">http://a/</a>&#34;&lt;b`,
		"(https://en.example/Go_(game))":        `(<a href="https://en.example/Go_(game)" rel="noopener noreferrer">https://en.example/Go_(game)</a>)`,
		"javascript:alert(1)":                   "javascript:alert(1)",
		"javascript:http://a/%0aalert(1)":       `javascript:<a href="http://a/%0aalert(1)" rel="noopener noreferrer">http://a/%0aalert(1)</a>`,
		"half\r\nwindows":                       `half<bdi class="caged" data-code="U+000D"></bdi>` + "\nwindows",
		"夜間バッチが失敗しました":                          "夜間バッチが失敗しました",
		"\x1b[31mhttp://a/\x1b[0m":              `<span class="fg-1"><a href="http://a/" rel="noopener noreferrer">http://a/</a></span>`,
		"\x1b[31m\x1b[91m\x1b[39m\x1b[4mx":      `<span class="under">x</span>`,
		"\x1b[" + strings.Repeat("1", 99) + "m": `<bdi class="caged" data-code="U+001B">` + "\x1b</bdi>[" + strings.Repeat("1", 99) + "m",
	} {
		require.EqualValues(t, want, said(text), text)
	}
}

// Whatever is said: only our own tags are in it, and the text is what was said.
func FuzzSaid(f *testing.F) {
	for _, s := range []string{"", "<b>", "\x1b[31mx", "http://x", "\u202e", "\x1b[;;;m", "https://\x1b[31m/<", "a\x00b", "\xff\xfe", `http://"onload=`} {
		f.Add(s)
	}
	ours := regexp.MustCompile(`</?(?:span|bdi|a)(?: (?:class="[a-z0-9 -]+"|data-code="U\+[0-9A-F]{4,6}"|href="https?://[^"<>\s]*"|rel="noopener noreferrer"))*>`)
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			t.Skip("the database has valid text alone")
		}
		got := ours.ReplaceAllString(string(said(text)), "")
		require.NotContains(t, got, "<")
		require.NotContains(t, got, ">")
		want := strings.NewReplacer("\r", "", "\x00", "").Replace(sgr.ReplaceAllString(text, ""))
		require.Equal(t, want, html.UnescapeString(got))
	})
}

func TestFirstLine(t *testing.T) {
	t.Parallel()
	first, rest := firstLine("\n\n  POST: 503\r\nRetry-After: 1\nx")
	require.Equal(t, "POST: 503", first)
	require.Equal(t, "Retry-After: 1\nx", rest)
	first, rest = firstLine("one")
	require.Equal(t, "one", first)
	require.Empty(t, rest)
}

func TestClip(t *testing.T) {
	t.Parallel()
	require.Equal(t, "夜間バ…", clip("夜間バッチ", 4))
	require.Equal(t, "夜間バッチ", clip("夜間バッチ", 5))
}
