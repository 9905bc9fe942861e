package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pages are the texts for people who come by GitHub, README.md first: names below the
// checkout, with slashes.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md"}
	for _, dir := range []string{".github", "cmd", "internal", "migrations", "docker"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(top, dir), func(name string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && filepath.Ext(name) == ".md" {
				name, err = filepath.Rel(top, name)
				all = append(all, filepath.ToSlash(name))
			}
			return err
		}))
	}
	require.Greater(t, len(all), 8)
	return all
}

// Every link of a page leads to a file or folder that is there, and to a heading in it.
func TestReadmeLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	linked := map[string]bool{"README.md": true}
	for _, page := range pages(t) {
		for _, link := range links(prose(readTop(t, page))) {
			to, problem := follow(t, page, link)
			if linked[to] = true; problem != "" {
				t.Errorf("%s: the link to %s: %s", page, link, problem)
			}
		}
	}
	for _, page := range pages(t) {
		require.True(t, linked[page], "no page has a link to %s: nobody finds it", page)
	}
}

// follow returns the file that a link of a page leads to, and what is wrong with it.
// Addresses elsewhere are not looked at.
func follow(t *testing.T, page, link string) (to, problem string) {
	t.Helper()
	if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
		return "", ""
	}
	file, anchor, anchored := strings.Cut(link, "#")
	if to = page; file != "" {
		to = path.Join(path.Dir(page), file)
	}
	switch _, err := os.Stat(filepath.Join(top, to)); {
	case strings.HasPrefix(link, "/"), strings.HasPrefix(to, "../"):
		return to, "it leaves the checkout"
	case err != nil:
		return to, "there is no such file"
	case anchored && !slices.Contains(anchors(prose(readTop(t, to))), anchor):
		return to, fmt.Sprintf("%s has no heading #%s", to, anchor)
	}
	return to, ""
}

// prose is a page without its blocks of code, which have brackets and # of their own.
func prose(text string) string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(text, "")
}

// links are where the links and pictures of a page lead, in Markdown and in HTML.
func links(text string) (all []string) {
	text = regexp.MustCompile("`[^`\n]*`").ReplaceAllString(text, "code")
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)[^)]*\)|\b(?:href|src|srcset)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1]+m[2])
	}
	return all
}

// anchors are what GitHub makes of the headings of a page: in lower case, with hyphens for
// spaces, and without punctuation. One that is there already gets a number.
func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} +(.+)$`).FindAllStringSubmatch(text, -1) {
		heading := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		heading = regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
		anchor := strings.ReplaceAll(heading, " ", "-")
		for n, first := 1, anchor; slices.Contains(all, anchor); n++ {
			anchor = fmt.Sprintf("%s-%d", first, n)
		}
		all = append(all, anchor)
	}
	return all
}

func TestLinksAndAnchorsAreThoseOfGitHub(t *testing.T) {
	t.Parallel()
	text := prose("# What, `this` & [that](x.md)\n## A_b-c (2)\n## A\n```sh\n# comment [a](gone.md)\n```\n## A\n[x](y.md#z \"title\") ![p](p.png) `[no](no.md)` <img src=\"q.png\">\n")
	require.Equal(t, []string{"what-this--that", "a_b-c-2", "a", "a-1"}, anchors(text))
	require.Equal(t, []string{"x.md", "y.md#z", "p.png", "q.png"}, links(text))
	for link, problem := range map[string]string{
		"../../README.md#start": "", "../dev": "", "#x": "internal/dev/main.go has no heading #x", "none.md": "there is no such file",
		"../../../x": "it leaves the checkout", "/README.md": "it leaves the checkout", "https://example.com/#x": "",
	} {
		_, got := follow(t, "internal/dev/main.go", link)
		require.Equal(t, problem, got, link)
	}
}
