//go:build !race

package e2e

// raceFlag builds the programs as the tests are built.
const raceFlag = "-race=false"
