// Package web is what people look at: HTML pages, made here and complete without
// JavaScript.
//
// A page is one function, from a request to what its template shows, and one template in
// templates/pages. There is one representation of a page: a link, a reload, the back
// button and the refresh of an open page are the same GET, and all that is visible is in
// the URL. With JavaScript an open page asks for its own URL again, every second or few,
// and morphs the difference into <div id="live">; what a person has opened, typed, ticked
// or selected stays. Where nothing has changed the answer is 304: so a page must never
// contain the present moment. It has times, and static/js/time.js writes "4 min ago".
//
// Every change is a form's POST, answered with 303. What cannot be taken back is a page
// first that shows exactly what will happen; with JavaScript the same page is a dialog.
//
// Nothing is built: what is embedded is the source, but for the files in static/vendor.
// There is no inline script and no inline style, which the policy of security.go forbids.
//
// Files: site.go has the routes, shell.go what is round every page, render.go makes an
// answer of a template, fail.go one of an error. A page's file begins with its name.
package web
