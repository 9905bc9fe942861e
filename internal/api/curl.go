package api

import "strings"

// curl is the command that posts to a path. It runs nothing else, whoever chose the ids in
// it: & and $ may stand in a path as they are, and a shell acts on them.
func (v view) curl(path string) string {
	word := v.site + path
	if strings.ContainsFunc(word, commands) {
		word = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return "curl -X POST " + word
}

// commands reports whether a shell may take a character for more than itself.
func commands(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/:.-_%@+,=", r))
}
