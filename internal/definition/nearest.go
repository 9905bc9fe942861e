package definition

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// columns are the names that the tables and the API have for what a file calls otherwise.
var columns = map[string]string{
	"taskseq": "seq", "taskexecseq": "seq", "taskpriority": "priority", "dependstaskseqs": "dependsOn", "depends": "dependsOn",
	"needs": "dependsOn", "name": "title", "id": "taskId", "retries": "maxAttempts", "when": "runIf", "if": "runIf",
}

// differs says where the other name means something else.
var differs = map[string]string{"retries": ", which counts the first attempt, too"}

// suggestion ends a message about a key that does not exist.
func suggestion[T any](key string, known map[string]T) string {
	if name, ok := columns[plain(key)]; ok {
		if _, ok := known[name]; ok {
			return ": it is called " + name + differs[plain(key)]
		}
	}
	if name := Nearest(key, maps.Keys(known)); name != "" {
		return ": did you mean " + name + "?"
	}
	return ": it can have " + strings.Join(slices.Sorted(maps.Keys(known)), ", ")
}

// Nearest returns the name that was meant by one that does not exist, if that can be told; else none.
func Nearest(word string, names iter.Seq[string]) string {
	best, least := "", 1+len([]rune(word))/3
	for _, name := range slices.Sorted(names) {
		if d := distance(plain(word), plain(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// plain takes away what people mix up first.
func plain(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }

// distance is how many characters must be typed, deleted or replaced, or changed for the
// next one, to make a word of another (Damerau and Levenshtein). Long ones are not worth it.
func distance(s, t string) int {
	a, b := []rune(s), []rune(t)
	if len(a) > 100 || len(b) > 100 {
		return len(a) + len(b)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range b {
		rows[0][j+1] = j + 1
	}
	for i := range a {
		for j := range b {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			d := min(rows[i][j+1]+1, rows[i+1][j]+1, rows[i][j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, rows[i-1][j-1]+1)
			}
			rows[i+1][j+1] = d
		}
	}
	return rows[len(a)][len(b)]
}
