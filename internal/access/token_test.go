package access

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewToken_RoundTrip(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		secret, line, err := NewToken("cron", Registrar, time.Time{})
		require.NoError(t, err)
		random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, "flower_"))
		require.NoError(t, err)
		require.Len(t, random, 32)
		require.True(t, wellFormed(secret))
		require.NotContains(t, line, secret)
		require.False(t, seen[secret])
		seen[secret] = true

		tokens, err := ParseTokens(line)
		require.NoError(t, err)
		require.Equal(t, []Token{{Name: "cron", Role: Registrar, Sum: sha256.Sum256([]byte(secret))}}, tokens)
	}
	until := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	_, line, err := NewToken("cron", Admin, until)
	require.NoError(t, err)
	tokens, err := ParseTokens(line)
	require.NoError(t, err)
	require.Equal(t, until, tokens[0].Expires)
	_, _, err = NewToken(strings.Repeat("a", 200), Reader, time.Time{})
	require.NoError(t, err)

	for _, name := range []string{"", "a b", "a#b", "a\nb", "a\x00", strings.Repeat("a", 201), "a\u2028b", "\xff"} {
		_, _, err := NewToken(name, Reader, time.Time{})
		require.Error(t, err, "%q", name)
	}
}

func TestParseTokens(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("ab", 32)
	tokens, err := ParseTokens("# who may do what\n\n cron\tregistrar " + sum + " # nightly\r\n" +
		"cron registrar " + strings.Repeat("CD", 32) + "\nÄnne admin " + sum + " 2027-01-31")
	require.NoError(t, err)
	require.Len(t, tokens, 3)
	require.Equal(t, "Änne", tokens[2].Name)
	require.Equal(t, time.Date(2027, 2, 1, 0, 0, 0, 0, time.UTC), tokens[2].Expires, "that day included")

	for text, problem := range map[string]string{
		"":                                   "no token in it",
		"# nothing\n\n":                      "no token in it",
		"\ncron registrar":                   "line 2: it has 2 words",
		"a b c d e":                          "line 1: it has 5 words",
		"cron root " + sum:                   "role: reader, registrar, operator, admin",
		"cron none " + sum:                   "role: reader",
		"cron reader flower_secret":          "not the token itself",
		"cron reader " + sum[1:]:             "64 hexadecimal digits",
		"cron reader " + sum + "ab":          "64 hexadecimal digits",
		"cron reader " + sum + " tomorrow":   "as in 2027-01-31",
		"cron reader " + sum + " 2027-02-30": "as in 2027-01-31",
		"cr\x07on reader " + sum:             "printable",
	} {
		_, err := ParseTokens(text)
		require.ErrorContains(t, err, problem, text)
		require.NotContains(t, err.Error(), "flower_secret", "what may be a token is not repeated")
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add("cron registrar " + strings.Repeat("ab", 32) + " 2027-01-31 # x")
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := ParseTokens(text)
		if err != nil {
			return
		}
		var lines strings.Builder
		for _, token := range tokens {
			lines.WriteString(token.String() + "\n")
		}
		again, err := ParseTokens(lines.String())
		require.NoError(t, err, lines.String())
		require.Len(t, again, len(tokens))
		for i := range again {
			require.Equal(t, tokens[i].Expires.Unix(), again[i].Expires.Unix())
			require.Equal(t, tokens[i].Sum, again[i].Sum)
		}
	})
}
