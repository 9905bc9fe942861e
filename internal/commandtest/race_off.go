//go:build !race

package commandtest

// RaceFlag builds the programs as the tests are built.
const RaceFlag = "-race=false"
