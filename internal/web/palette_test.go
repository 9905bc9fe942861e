package web

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// colour is linear sRGB.
type colour [3]float64

func parseColour(t *testing.T, hex string) colour {
	t.Helper()
	require.Len(t, hex, 7, hex)
	var c colour
	for i := range c {
		n, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		require.NoError(t, err)
		if v := float64(n) / 255; v <= 0.04045 {
			c[i] = v / 12.92
		} else {
			c[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return c
}

// palettes reads the tokens of the stylesheet: for light and for dark, colour by name.
func palettes(t *testing.T) [2]map[string]colour {
	t.Helper()
	css, err := os.ReadFile("static/css/base.css")
	require.NoError(t, err)
	all := [2]map[string]colour{{}, {}}
	for _, m := range regexp.MustCompile(`--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);`).FindAllStringSubmatch(string(css), -1) {
		all[0][m[1]], all[1][m[1]] = parseColour(t, m[2]), parseColour(t, m[3])
	}
	require.Greater(t, len(all[0]), 30)
	return all
}

func (c colour) luminance() float64 { return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2] }

// contrast is that of WCAG 2: from 1 to 21.
func contrast(a, b colour) float64 {
	la, lb := a.luminance(), b.luminance()
	return (math.Max(la, lb) + 0.05) / (math.Min(la, lb) + 0.05)
}

// states are the looks' classes that have colours of their own.
var states = []string{"waiting", "queued", "running", "failed", "held", "cancelled", "finished", "skipped"}

func TestContrast(t *testing.T) {
	t.Parallel()
	for theme, p := range palettes(t) {
		atLeast := func(least float64, text, ground string) {
			require.Contains(t, p, text)
			require.Contains(t, p, ground)
			require.GreaterOrEqual(t, contrast(p[text], p[ground]), least, "%s on %s, theme %d", text, ground, theme)
		}
		for _, s := range states {
			atLeast([]float64{5.7, 7.0}[theme], s+"-ink", s+"-tint")
			for _, ground := range []string{"page", "surface", "raised", "hover", "chosen"} {
				atLeast(4.5, s+"-ink", ground)
			}
			if s != "skipped" { // which is hatched and has a border
				atLeast(2.95, s+"-solid", "page")
			}
		}
		for _, ground := range []string{"page", "surface", "raised", "hover", "chosen"} {
			atLeast(7, "text", ground)
			atLeast(4.5, "muted", ground)
			atLeast(4.5, "accent", ground)
		}
		atLeast(4.5, "on-accent", "accent")
	}
}

// deficiencies are Machado's matrices at their full strength, for linear colours.
var deficiencies = map[string][3]colour{
	"normal": {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"protan": {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
	"deutan": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
	"tritan": {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
}

func (c colour) seen(m [3]colour) colour {
	var out colour
	for i, row := range m {
		out[i] = min(1, max(0, row[0]*c[0]+row[1]*c[1]+row[2]*c[2]))
	}
	return out
}

// lab is CIELAB under D65.
func (c colour) lab() [3]float64 {
	f := func(v float64) float64 {
		if v > 216.0/24389 {
			return math.Cbrt(v)
		}
		return (24389.0/27*v + 16) / 116
	}
	x := f((0.4124564*c[0] + 0.3575761*c[1] + 0.1804375*c[2]) / 0.95047)
	y := f(0.2126729*c[0] + 0.7151522*c[1] + 0.0721750*c[2])
	z := f((0.0193339*c[0] + 0.1191920*c[1] + 0.9503041*c[2]) / 1.08883)
	return [3]float64{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

// distance is CIEDE2000.
func distance(one, other [3]float64) float64 {
	const deg = math.Pi / 180
	c1, c2 := math.Hypot(one[1], one[2]), math.Hypot(other[1], other[2])
	pow7 := func(v float64) float64 { return math.Sqrt(math.Pow(v, 7) / (math.Pow(v, 7) + math.Pow(25, 7))) }
	g := 0.5 * (1 - pow7((c1+c2)/2))
	a1, a2 := one[1]*(1+g), other[1]*(1+g)
	c1, c2 = math.Hypot(a1, one[2]), math.Hypot(a2, other[2])
	hue := func(a, b float64) float64 {
		if a == 0 && b == 0 {
			return 0
		}
		return math.Mod(math.Atan2(b, a)/deg+360, 360)
	}
	h1, h2 := hue(a1, one[2]), hue(a2, other[2])
	dh, mean := h2-h1, (h1+h2)/2
	switch {
	case c1*c2 == 0:
		dh, mean = 0, h1+h2
	case dh > 180:
		dh -= 360
	case dh < -180:
		dh += 360
	}
	if c1*c2 != 0 && math.Abs(h1-h2) > 180 {
		mean += 180
		if h1+h2 >= 360 {
			mean -= 360
		}
	}
	dL, dC, dH := other[0]-one[0], c2-c1, 2*math.Sqrt(c1*c2)*math.Sin(dh/2*deg)
	l, c := (one[0]+other[0])/2, (c1+c2)/2
	w := 1 - 0.17*math.Cos((mean-30)*deg) + 0.24*math.Cos(2*mean*deg) + 0.32*math.Cos((3*mean+6)*deg) - 0.20*math.Cos((4*mean-63)*deg)
	sl := 1 + 0.015*math.Pow(l-50, 2)/math.Sqrt(20+math.Pow(l-50, 2))
	sc, sh := 1+0.045*c, 1+0.015*c*w
	rt := -math.Sin(60*math.Exp(-math.Pow((mean-275)/25, 2))*deg) * 2 * pow7(c)
	return math.Sqrt(math.Pow(dL/sl, 2) + math.Pow(dC/sc, 2) + math.Pow(dH/sh, 2) + rt*dC/sc*dH/sh)
}

// Pairs that were published with the formula.
func TestDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		one, other [3]float64
		want       float64
	}{
		{[3]float64{50, 2.6772, -79.7751}, [3]float64{50, 0, -82.7485}, 2.0425},
		{[3]float64{50, 2.5, 0}, [3]float64{73, 25, -18}, 27.1492},
		{[3]float64{50, 2.49, -0.001}, [3]float64{50, -2.49, 0.0011}, 7.2195},
		{[3]float64{2.0776, 0.0795, -1.135}, [3]float64{0.9033, -0.0636, -0.5514}, 0.9082},
	} {
		require.InDelta(t, c.want, distance(c.one, c.other), 0.0001)
	}
}

// States are told apart by colour too, whatever eyes one has. (They are never told by
// colour alone.)
func TestStatesAreFarApart(t *testing.T) {
	t.Parallel()
	least := [2]map[string]float64{
		{"normal": 18.4, "protan": 16.7, "deutan": 18.3, "tritan": 15.9},
		{"normal": 20.0, "protan": 14.6, "deutan": 14.5, "tritan": 14.4},
	}
	for theme, p := range palettes(t) {
		for kind, matrix := range deficiencies {
			smallest, pair := math.Inf(1), ""
			for i, a := range states {
				for _, b := range states[i+1:] {
					d := distance(p[a+"-solid"].seen(matrix).lab(), p[b+"-solid"].seen(matrix).lab())
					if d < smallest {
						smallest, pair = d, a+" and "+b
					}
				}
			}
			require.GreaterOrEqual(t, smallest, least[theme][kind]-0.05, "theme %d, %s: %s", theme, kind, pair)
		}
	}
}

// Everything that has a state has a class, an icon and a word of it.
func TestEveryLookIsDrawn(t *testing.T) {
	t.Parallel()
	css, err := os.ReadFile("static/css/base.css")
	require.NoError(t, err)
	icons, err := os.ReadFile("static/icons.svg")
	require.NoError(t, err)
	for _, m := range legend().States {
		require.Contains(t, string(css), ".s-"+m.Look.Class)
		require.Contains(t, string(icons), fmt.Sprintf(`<symbol id=%q`, m.Look.Icon))
		require.NotEmpty(t, m.Look.Label)
	}
	used := regexp.MustCompile(`\{\{icon "([a-z]+)"\}\}`)
	walk(templates, func(name string, text []byte) {
		for _, icon := range used.FindAllStringSubmatch(string(text), -1) {
			require.Contains(t, string(icons), fmt.Sprintf(`<symbol id=%q`, icon[1]), name)
		}
	})
}
