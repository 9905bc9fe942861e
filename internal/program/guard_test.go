package program

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// refusedAlways are URLs of what no setting opens. The resolver of the tests says that
// each name leads to the metadata service.
var refusedAlways = []string{
	"http://169.254.169.254/latest/meta-data/",
	"https://169.254.169.254/",
	"http://169.254.169.254:8080/",
	"http://169.254.0.1/",
	"http://169.254.170.2/v2/credentials",
	"http://169.254.169.254./",
	"http://example.com@169.254.169.254/",
	"http://169.254.169.254#@example.com/",
	"http://169.254.169.254?@example.com/",
	"http://①⑥⑨.254.①⑥⑨.254/",
	"http://169。254。169。254/",
	"http://[::ffff:169.254.169.254]/",
	"http://[::ffff:a9fe:a9fe]/",
	"http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
	"http://[::ffff:0:169.254.169.254]/",
	"http://[64:ff9b::169.254.169.254]/",
	"http://[64:ff9b::6464:64c8]/",
	"http://[64:ff9b:1::a9fe:a9fe]/",
	"http://[2002:a9fe:a9fe::1]/",
	"http://[2001:0:a9fe:a9fe::1]/",
	"http://[fe80::1]/",
	"http://[fe80::a9fe:a9fe%25lo]/",
	"http://[fd00:ec2::254]/",
	"http://[fd00:ec2::23]/",
	"http://[fd20:ce::254]/",
	"http://[fd00:42::42]/",
	"http://100.100.100.200/",
	"http://168.63.129.16/",
	"http://192.0.0.192/",
	"http://0.0.0.0/",
	"http://0.1.2.3:8000/",
	"http://[::]/",
	"http://[::ffff:0.0.0.0]/",
	"http://224.0.0.1/",
	"http://239.255.255.250:1900/",
	"http://255.255.255.255/",
	"http://[ff02::1]/",
	"http://metadata.google.internal/",
	"http://169.254.169.254.nip.io/",
	// Go looks these up as names, or refuses to. A resolver of C may make addresses of
	// them, and they come to the guard as such.
	"http://2852039166/",
	"http://0xa9fea9fe/",
	"http://0xa9.0xfe.0xa9.0xfe/",
	"http://0251.0376.0251.0376/",
	"http://169.254.43518/",
	"http://025177524776/",
}

// refusedByList are URLs that an allow list of 10.0.0.0/8 and fd12::/16 does not open.
var refusedByList = []string{
	"http://127.0.0.1/",
	"http://127.1.2.3:5432/",
	"http://localhost/",
	"http://localhost./",
	"http://[::1]/",
	"http://[::ffff:127.0.0.1]/",
	"http://2130706433/",
	"http://0x7f.1/",
	"http://0177.0.0.1/",
	"http://192.168.0.1/",
	"http://172.16.0.1/",
	"http://100.64.0.1/",
	"http://11.0.0.1/",
	"http://9.255.255.255/",
	"http://[::ffff:11.0.0.1]/",
	"http://10.0.0.1@11.0.0.1/",
	"http://8.8.8.8/",
	"http://[2606:4700:4700::1111]/",
	"http://[fd13::1]/",
	"http://[64:ff9b::10.0.0.1]/",
}

func TestGuard_RefusesAtTheDialer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		allow string
		urls  []string
	}{
		{"", refusedAlways},
		{"0.0.0.0/0, ::/0", refusedAlways},
		{"169.0.0.0/8, 100.64.0.0/10, fc00::/7, 64:ff9b::/96", refusedAlways},
		{"10.0.0.0/8, fd12::/16", refusedAlways},
		{"10.0.0.0/8, fd12::/16", refusedByList},
		{"", []string{"http://192.0.2.1/", "http://240.0.0.1/", "http://198.18.0.1/", "http://[2001:db8::1]/", "http://[fec0::1]/"}},
	} {
		for _, url := range c.urls {
			dialer, connected := newTestDialer(t, c.allow, func(string) string { return "169.254.169.254" })
			_, err := Set{"P": newHTTPPost(dialer, 0)}.Run(t.Context(), Attempt{Task: newTask("P", mustJSON(t, map[string]any{"URL": url}))})
			require.Error(t, err, url)
			require.Zero(t, connected.Load(), "%s was dialled", url)
			var invalid *flow.InvalidError
			if !strings.Contains(err.Error(), "no such host") {
				require.ErrorAs(t, err, &invalid, url)
			}
		}
	}
}

func TestGuard_Texts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ allow, url, want string }{
		{
			"", "http://u:p@169.254.169.254/latest?q=1",
			`parameter "URL": http://169.254.169.254/latest leads to 169.254.169.254, a link-local address: requests never go there`,
		},
		{
			"", "http://name.test/",
			`parameter "URL": http://name.test/ leads to 100.100.100.200, a metadata service: requests never go there`,
		},
		{
			"10.0.0.0/8", "http://127.0.0.1:1/",
			`parameter "URL": http://127.0.0.1:1/ leads to 127.0.0.1, which the watcher's setting -http-allow does not contain`,
		},
		{
			"", "http://240.0.0.1/",
			`parameter "URL": http://240.0.0.1/ leads to 240.0.0.1, a reserved address: requests go there only if the watcher's setting -http-allow contains it`,
		},
	} {
		dialer, _ := newTestDialer(t, c.allow, func(string) string { return "100.100.100.200" })
		_, err := Set{"P": newHTTPPost(dialer, 0)}.Run(t.Context(), Attempt{Task: newTask("P", mustJSON(t, map[string]any{"URL": c.url}))})
		requireInvalid(t, err, c.want)
	}
}

func TestGuard_Allows(t *testing.T) {
	t.Parallel()
	for allow, addresses := range map[string][]string{
		"": {
			"127.0.0.1:80", "10.1.2.3:8080", "172.31.0.1:1", "192.168.1.1:65535", "100.64.0.1:80", "[::1]:80",
			"[fc00::1]:80", "[fd12::1]:80", "[fd12::1%lo]:80", "8.8.8.8:443", "[2606:4700:4700::1111]:443", "[::ffff:10.1.2.3]:80",
		},
		"10.0.0.0/8,fd12::/16": {"10.1.2.3:80", "[::ffff:10.1.2.3]:80", "[fd12::1]:80"},
		"192.0.2.7":            {"192.0.2.7:80"},
		"64:ff9b::/96":         {"[64:ff9b::8.8.8.8]:443"},
		"0.0.0.0/0,::/0":       {"8.8.8.8:80", "127.0.0.1:80", "[::1]:80", "[2001:db8::1]:80"},
	} {
		dialer, _ := newTestDialer(t, allow, nil)
		for _, address := range addresses {
			network := "tcp4"
			if strings.HasPrefix(address, "[") {
				network = "tcp6"
			}
			require.NoError(t, dialer.Control(network, address, nil), "%q: %s", allow, address)
			require.Error(t, dialer.Control("udp4", address, nil), address)
		}
	}
	dialer, _ := newTestDialer(t, "", nil)
	require.Error(t, dialer.Control("tcp4", "localhost:80", nil))
}

// A name may lead elsewhere at each look-up; what counts is the address that is dialled.
func TestGuard_Rebinding(t *testing.T) {
	t.Parallel()
	server := newServer(t, func(http.ResponseWriter, *http.Request) {})
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	var addr atomic.Value
	addr.Store("127.0.0.1")
	dialer, connected := newTestDialer(t, "", func(string) string { return addr.Load().(string) })
	set := Set{"P": newHTTPPost(dialer, 0)}
	task := newTask("P", mustJSON(t, map[string]any{"URL": "http://rebind.test:" + port}))

	_, err = set.Run(t.Context(), Attempt{Task: task})
	require.NoError(t, err)
	require.Equal(t, int32(1), connected.Load())

	addr.Store("169.254.169.254")
	_, err = set.Run(t.Context(), Attempt{Task: task})
	require.ErrorAs(t, err, new(*flow.InvalidError))
	require.Equal(t, int32(1), connected.Load())
}

func TestGuard_RedirectToMetadata(t *testing.T) {
	t.Parallel()
	server := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/", http.StatusTemporaryRedirect)
	})
	dialer, connected := newTestDialer(t, "", nil)
	_, err := Set{"P": newHTTPPost(dialer, 0)}.Run(t.Context(), Attempt{Task: newTask("P", mustJSON(t, map[string]any{"URL": server.URL}))})
	require.EqualError(t, err, "POST "+server.URL+": 307 Temporary Redirect (redirects are not followed)")
	require.Equal(t, int32(1), connected.Load())
}

func TestParseAllow(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"":                         nil,
		"  ":                       nil,
		"10.0.0.0/8":               {"10.0.0.0/8"},
		" 10.1.2.3/8 ,192.0.2.7":   {"10.0.0.0/8", "192.0.2.7/32"},
		"::1,fd00::1/8, 0.0.0.0/0": {"::1/128", "fd00::/8", "0.0.0.0/0"},
		"::ffff:10.1.2.3":          {"10.1.2.3/32"},
	} {
		got, err := ParseAllow(list)
		require.NoError(t, err, list)
		var texts []string
		for _, p := range got {
			texts = append(texts, p.String())
		}
		require.Equal(t, want, texts, list)
	}
	const wrong = `: not a network like 10.0.0.0/8 or an address like 10.1.2.3 (host names cannot be used)`
	for list, want := range map[string]string{
		"api.example.com":           `"api.example.com"` + wrong,
		"10.0.0.0/8,":               `""` + wrong,
		",":                         `""` + wrong,
		"10.0.0.0/33":               `"10.0.0.0/33"` + wrong,
		"10.0.0.1:80":               `"10.0.0.1:80"` + wrong,
		"::1%lo":                    `"::1%lo"` + wrong,
		"::ffff:10.0.0.0/104":       `"::ffff:10.0.0.0/104"` + wrong,
		"10.0.0.0/8 192.168.0.0/16": `"10.0.0.0/8 192.168.0.0/16"` + wrong,
		"10.0.0.1, 169.254.169.254": `"169.254.169.254": a link-local address, where requests never go`,
		"fe80::/64":                 `"fe80::/64": a link-local address, where requests never go`,
		"::ffff:100.100.100.200":    `"::ffff:100.100.100.200": a metadata service, where requests never go`,
	} {
		_, err := ParseAllow(list)
		require.EqualError(t, err, want)
	}
}
