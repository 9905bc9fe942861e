package flow

import (
	"slices"
	"strings"
)

// SecretKey reports whether a key in JSON looks like a secret's, whose value is shown to
// nobody. It hides rather too much.
func SecretKey(key string) bool {
	key = strings.ToLower(key)
	return slices.ContainsFunc([]string{"pass", "secret", "token", "key", "auth", "credential"}, func(word string) bool {
		return strings.Contains(key, word)
	})
}
