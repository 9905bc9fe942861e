// Package definition has workflows as files: YAML or JSON, read with the place of every
// mistake, compared with what there is, and written so that reading it back changes
// nothing.
//
// # The format
//
// workflow.schema.json describes it, and a test holds the two together:
//
//	taskId: nightly
//	description: what it is for
//	maxRunningFlows: 1
//	tasks:
//	  - seq: 1                 # else one more than the task above it
//	    title: load orders     # the first line of the description
//	    program: Command
//	    parameters: {argv: [load, orders]}
//	    maxAttempts: 3
//	    retryDelay: 30s
//	  - seq: 2
//	    program: NoOp
//	    dependsOn: [1]         # else the task before it; [] is nothing
//
// A file has one workflow, or several: as documents separated by ---, or as a list. What is
// null counts as absent.
//
// # The way through it
//
// Parse reads a text into a tree of nodes that know their line and column (yaml.go, json.go),
// and that into a Source (decode.go). Check finds what a definition alone cannot show: tasks
// that depend on nothing, cycles, programs and parameters that do not exist. Both go on
// after a mistake, so that all of them are told at once. Diff compares two definitions, and
// Write writes them.
package definition
