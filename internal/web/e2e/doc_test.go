// Package e2e looks at the pages as people do: in Chromium, served by the real register,
// with a real watcher and a real PostgreSQL. Each test leaves a picture of what it saw in
// FLOWER_SCREENSHOTS, by default bin/screenshots of the checkout.
//
// The number in a test's name is that of what the pages must do. 39, that the commands of the
// README work, is in internal/dev; how far colours are apart, of 35, in internal/web.
//
// There is one browser for all tests, and in it a profile of its own for each tab that is
// opened. A tab fails its test if a page writes an error to the console, breaks the
// security policy, opens a dialog of the browser, or asks another host for anything.
package e2e
