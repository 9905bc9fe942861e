package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// The secrets of these tests. What they are made of could be changed by any encoding.
const (
	canary = `cAn4ry "k3y"/\&<+>=ü%`
	mine   = "c0alm1ne-of-a-file" // a host's name, too
)

// written is how a secret may come back. What is to be found nowhere is that, without the
// letters of base64 that depend on what is beside the secret, too.
func written(value string) (whole, nowhere []string) {
	inJSON := func(text string) string {
		encoded, _ := json.Marshal(text)
		return string(encoded[1 : len(encoded)-1])
	}
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(inJSON(value))
	whole = []string{
		value, plain, inJSON(value), inJSON(inJSON(value)), strconv.Quote(value), url.QueryEscape(value), url.PathEscape(value),
	}
	nowhere = slices.Clone(whole)
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + value + "xx"))
		whole, nowhere = append(whole, text), append(nowhere, text[4:len(text)-4])
	}
	return whole, nowhere
}

// A canary is sent to where it belongs, and comes back in every way that there is: in
// answers, in errors, in what a mistaken definition makes of it. Nothing that anybody can
// look at has it.
func TestSecretsAreNowhere(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		sent, err := url.QueryUnescape(r.URL.RawQuery)
		if err != nil || sent != canary && sent != mine {
			http.Error(rw, "not the secret", http.StatusTeapot)
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/later/"):
			rw.WriteHeader(http.StatusAccepted)
			return
		case r.URL.Path == "/fails":
			rw.WriteHeader(http.StatusForbidden)
		}
		all, _ := written(sent)
		answer := map[string]any{"all": all, sent: sent, "nested": []any{map[string]any{"x": "Bearer " + sent}}, "url": r.URL.String()}
		if r.URL.Path == "/text" || r.URL.Path == "/fails" {
			_, _ = rw.Write([]byte(strings.Join(all, " and ") + strings.Repeat(sent, 100)))
			return
		}
		_ = json.NewEncoder(rw).Encode(answer)
	})
	sending := func(path, name string) task {
		return task{program: "HTTPPostRequest", attempts: 2, depends: []int32{}, parameters: `{"URL": "` + p.URL + path + `?${{ urlEncode(secrets.` + name + `) }}",
			"BODY": {"key": "${{ secrets.` + name + ` }}", "header": "Basic ${{ toBase64('user:' + secrets.` + name + `) }}"}}`}
	}
	wrong := func(program, parameters string) task {
		return task{program: program, parameters: parameters, depends: []int32{}}
	}
	w.define("canary",
		sending("/json", "CANARY"), sending("/json", "MINE"), sending("/text", "CANARY"), sending("/fails", "CANARY"), sending("/fails", "MINE"),
		wrong("EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": "${{ secrets.CANARY }}"}`),
		wrong("EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": "`+strings.Repeat("x", 50)+`${{ secrets.CANARY }}"}`),
		wrong("EchoParamTimeSleep", `{"SLEEP_TIME_SECOND": "${{ float(secrets.MINE) }}"}`),
		wrong("HTTPPostRequest", `{"URL": "${{ secrets.CANARY }}"}`),
		wrong("HTTPPostRequest", `{"URL": "http://${{ secrets.MINE }}.invalid/${{ secrets.MINE }}"}`),
		wrong("HTTPPostRequest", `{"URL": "http://me:${{ urlEncode(secrets.CANARY) }}@127.0.0.1:1/"}`),
		wrong("HTTPPostRequest", `{"URL": "http://h/${{ secrets.MISSING }}"}`),
		wrong("HTTPPostRequest", `{"URL": "http://h/${{ secrets.TINY }}"}`),
		wrong("Command", `{"shell": true, "argv": ["echo \"out $KEY\"; printf %s \"$KEY\" | base64; printf %s \"$KEY\"; echo \"err $KEY\" >&2"], "env": {"KEY": "${{ secrets.CANARY }}"}}`),
		wrong("Command", `{"shell": true, "argv": ["for i in $(seq 500); do echo \"$1 $1\"; done; echo \"{\\\"key\\\": \\\"$1\\\"}\"", "${{ secrets.MINE }}"]}`),
		wrong("Command", `{"shell": true, "argv": ["cat; cat \"$0\"; exit 3"], "stdin": "${{ secrets.CANARY }}"}`),
		wrong("SQL", `{"statement": "SELECT $1::text AS key, ARRAY[$1] AS list", "args": ["${{ secrets.CANARY }}"]}`),
		wrong("SQL", `{"statement": "SELECT $1::text AS key, to_jsonb($1::text) AS json", "args": ["${{ secrets.CANARY }}"], "transactional": true}`),
		wrong("SQL", `{"statement": "SELECT $1::int", "args": ["${{ secrets.CANARY }}"]}`),
		wrong("SQL", `{"statement": "SELECT complain($1)", "args": ["${{ secrets.MINE }}"]}`),
		wrong("HTTPRequest", `{"url": "`+p.URL+`/later/${{ secrets.MINE }}?${{ urlEncode(secrets.CANARY) }}", "callback": true,
			"headers": {"X-Key": "${{ toBase64(secrets.CANARY) }}"}, "method": "POST", "body": {"key": "${{ secrets.CANARY }}"}, "callback_field": "notify"}`),
	)
	w.exec(`CREATE FUNCTION complain(text) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN RAISE NOTICE 'noticed %', $1; RAISE EXCEPTION 'no %', $1 USING HINT = 'not ' || $1; END $$`)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "MINE"), []byte(mine+"\n"), 0o600))
	s := w.register()
	watcher := run(t, "watcher", w.env("FLOWER_SECRET_CANARY="+canary, "FLOWER_SECRET_TINY=1234567", "FLOWER_SECRETS_DIR="+dir),
		"-log-level", "debug", "-allow-command", "-command-shell", "-sql-connections", "flower", "-callback-url", s.url)
	watcher.Await("a secret cannot be used", "err=secret TINY: it has less than 8 bytes (in its longest line), which is too short to be masked")
	flow := s.post("canary")
	w.await(flow, "3 3 3 2 2 2 2 2 2 2 2 2 2 3 3 2 3 3 2 2 0")
	w.pausedUntil(flow, 21)

	rows := w.rows(flow)
	require.Contains(t, rows[3].Error, "403 Forbidden: *** and ***")
	require.Equal(t, `parameter "SLEEP_TIME_SECOND": "***" is not a number of seconds from 0 to 86400; it was computed from ${{ secrets.CANARY }}`, rows[5].Error)
	require.Contains(t, rows[6].Error, strings.Repeat("x", 50)+`***…" is not a number`)
	require.Contains(t, rows[7].Error, `${{ float(secrets.MINE) }}: invalid operation: float(***)`)
	require.Contains(t, rows[11].Error, "secret MISSING: the watcher has none of that name")
	require.Contains(t, rows[12].Error, "secret TINY: it has less than 8 bytes")
	require.Contains(t, rows[15].Error, "exit code 3")
	require.Contains(t, rows[18].Error, `invalid input syntax for type integer: "***"`)
	require.Contains(t, rows[19].Error, "no ***")
	var why string
	require.NoError(t, w.Get(&why, `SELECT why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = 21`, flow))
	require.Equal(t, "waits for the callback of POST "+p.URL+"/later/***", why)
	pgtest.Eventually(t, soon, "what they printed is kept", func() bool {
		var kept int
		require.NoError(t, w.Get(&kept, `SELECT count(*) FROM kr_task_log WHERE text IN ('out ***', 'err ***', '*** ***') OR text LIKE '%noticed ***%'`))
		return kept >= 503
	})
	for i, reason := range map[int]string{3: "failed", 5: "invalid", 8: "invalid", 9: "failed", 11: "invalid", 12: "invalid"} {
		require.Equal(t, reason, rows[i].Reason, rows[i].Error)
	}
	used := 0
	for _, c := range p.seen() {
		var body struct{ Key, Header string }
		require.NoError(t, json.Unmarshal([]byte(c.body), &body))
		if (body.Key == mine || body.Key == canary) && body.Header == "Basic "+base64.StdEncoding.EncodeToString([]byte("user:"+body.Key)) {
			used++
		}
	}
	require.Equal(t, 7, used, "the secrets were sent, twice where that failed")

	look := func() map[string]string {
		places := w.everything()
		places["watcher's log"], places["register's log"] = watcher.Log.String(), s.Log.String()
		places["API"] = s.send(http.MethodGet, "/api/v1/flows/"+flow, "", "").text
		places["API, as text"] = s.send(http.MethodGet, "/api/v1/flows/"+flow+"?format=text", "", "").text
		return places
	}
	requireNowhere(t, look())

	// Another watcher, which hands none of them out, knows what not to show.
	require.NoError(t, watcher.Cmd.Process.Kill())
	<-watcher.Ended
	again := run(t, "watcher", w.env("FLOWER_SECRET_CANARY="+canary, "FLOWER_SECRET_MINE="+mine))
	again.Await("watching task...")
	w.define("copies", task{program: "HTTPPostRequest", parameters: `{"URL": "` + p.URL + `/json?` + url.QueryEscape(url.QueryEscape(mine)) + `"}`})
	copies := s.post("copies")
	w.await(copies, "3")
	places := w.everything("ms_task_definition", "ms_workflow_version", "kr_task_stat.parameters") // somebody wrote it there
	places["watcher's log"] = again.Log.String()
	requireNowhere(t, places)
}

func requireNowhere(t *testing.T, places map[string]string) {
	t.Helper()
	for place, text := range places {
		require.NotEmpty(t, text, place)
		for _, secret := range []string{canary, mine} {
			_, nowhere := written(secret)
			for _, form := range nowhere {
				require.NotContains(t, text, form, place)
			}
		}
		require.NotContains(t, text, canary[:len(canary)-4], "%s: one that was cut", place)
		require.NotContains(t, text, "1234567\"", place)
	}
}

// everything returns all rows of the tables of the database that have any, as text and as
// JSON, but for columns that are named.
func (w *world) everything(but ...string) map[string]string {
	w.Helper()
	var columns []struct {
		Table  string `db:"table_name"`
		Column string `db:"column_name"`
	}
	require.NoError(w, w.Select(&columns, `SELECT c.table_name, c.column_name FROM information_schema.columns c
		JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND t.table_type = 'BASE TABLE'`))
	places := make(map[string]string)
	seen := map[string]bool{}
	for _, c := range columns {
		place := c.Table + "." + c.Column
		skip := false
		for _, b := range but {
			skip = skip || b == place || b == c.Table
		}
		if skip {
			continue
		}
		seen[c.Table] = true
		var texts []string
		require.NoError(w, w.Select(&texts, `SELECT x::text || ' ' || to_jsonb(x)::text FROM (SELECT "`+c.Column+`" AS x FROM "`+c.Table+`") t WHERE x IS NOT NULL`))
		if len(texts) > 0 {
			places[place] = strings.Join(texts, "\n")
		}
	}
	for _, table := range []string{"kr_task_stat", "kr_task_attempt", "kr_flow", "kr_event", "kr_watcher"} {
		require.True(w, seen[table], table)
	}
	return places
}
