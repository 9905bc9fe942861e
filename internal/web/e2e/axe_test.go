package e2e

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// axe is axe-core 4.14.1, as npm has it (MPL-2.0, see testdata/axe-LICENSE.txt). It is
// used here alone and is in no program.
//
//go:embed testdata/axe-4.14.1.min.js
var axe string

const axeSum = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"

func TestAxeIsWhatItWas(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte(axe))
	require.Equal(t, axeSum, hex.EncodeToString(sum[:]))
}

// axeRun answers with a line for each element that breaks a rule.
const axeRun = `axe.run(document, {resultTypes: ["violations"], runOnly: %s})
	.then(r => r.violations.flatMap(v => v.nodes.map(n =>
		v.id + " " + n.target.join(" ") + ": " + (n.any.concat(n.all, n.none)[0]?.message ?? v.help))))`

const (
	allRules   = `["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]`
	colourRule = `["color-contrast"]` // all that another theme can break
)

// accessible returns what axe-core finds wrong with the page, or with its colours alone.
func (b *tab) accessible(coloursAlone bool) []string {
	b.Helper()
	if !eval[bool](b, `"axe" in window`) {
		eval[struct{}](b, axe+"; undefined")
	}
	rules := allRules
	if coloursAlone {
		rules = colourRule
	}
	// It looks at every pair of elements of a page of hundreds of tasks.
	found, err := evalWithin[[]string](b, 4*patience, fmt.Sprintf(axeRun, rules))
	require.NoError(b, err)
	return found
}
