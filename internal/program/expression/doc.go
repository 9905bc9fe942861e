// Package expression has the expressions of task definitions: ${{ … }} in parameters, and
// run_if. The language is that of expr-lang/expr, and this package its sandbox.
//
// # What an expression sees
//
// The fields of [Env], and nothing else: no environment variables, no files, no clock, no
// randomness, so that each attempt at a task computes the same. Outputs and secrets are
// named literally, as in outputs[2] and secrets.TOKEN: [Uses] then tells, before anything
// is computed, what has to be fetched, and what is wrong with it is found when a flow is
// registered.
//
// # Its limits
//
// Whoever writes definitions is trusted, but makes mistakes, and the data is anybody's.
// expr's own budget counts elements and not bytes, and asks only afterwards: with a
// handful of functions a line of text takes gigabytes, and one with loops in loops hours.
// So functions that are not needed are not there, each value that an expression makes is
// weighed as soon as it is made, each turn of a loop costs something, and all of that
// together is bounded, as are the length of an expression and the time it takes.
//
// # Data is not code
//
// What an expression comes to is never looked at for expressions again, whatever it
// contains. Nothing here can tell who wrote a text, so that whoever takes texts from
// outside must refuse those with an expression in them: see [In].
package expression
