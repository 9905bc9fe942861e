package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// printer starts a watcher whose tasks print.
func (w *world) printer() *process {
	w.Helper()
	p := run(w.T, "printer", []string{"DATABASE_URL=" + w.URL})
	p.Await("watching task...")
	return p
}

// print puts flows of one task of the program Print into the tables.
func (w *world) print(flow, parameters string) {
	w.Helper()
	w.exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, parameters) VALUES ($1, 1, 'print', 1, 'Print', $2)`, flow, parameters)
}

// logLine is a row of v_task_log.
type logLine struct {
	Attempt int    `db:"attempt"`
	No      int64  `db:"line_no"`
	Stream  string `db:"stream"`
	Text    string `db:"text"`
}

func (w *world) log(flow string) []logLine {
	w.Helper()
	var lines []logLine
	require.NoError(w, w.Select(&lines, `SELECT attempt, line_no, stream, text FROM v_task_log WHERE task_flow_id = $1 AND task_exec_seq = 1
		ORDER BY attempt, line_no`, flow))
	return lines
}

// whole requires a log without a gap but the one that a mark tells of, and returns the
// number of its last line and of what is missing.
func whole(t *testing.T, lines []logLine) (last int64, missing int64) {
	t.Helper()
	for _, l := range lines {
		require.Equal(t, last+1, l.No, "%d lines", len(lines))
		last = l.No
		if l.Stream == "flower" {
			require.Zero(t, missing)
			_, err := fmt.Sscanf(l.Text, "… %d lines are not kept …", &missing)
			require.NoError(t, err, l.Text)
			last += missing - 1
			continue
		}
		require.Equal(t, fmt.Sprintf("line %d", l.No), strings.TrimRight(l.Text, "."))
	}
	return last, missing
}

// What a program says can be read while it runs, and is there after its watcher was
// killed; the next attempt has a log of its own.
func TestLog_OfARealProgram(t *testing.T) {
	w := newWorld(t)
	w.define("naps", task{program: "EchoParamTimeSleep", parameters: `{"SLEEP_TIME_SECOND": 3600}`})
	s := w.register()
	first := w.watcher()
	flow := s.post("naps")
	pgtest.Eventually(t, soon, "its line is there", func() bool { return len(w.log(flow)) == 1 })
	require.Equal(t, "1", w.statuses(flow))
	require.Equal(t, logLine{1, 1, "log", "echo"}, w.log(flow)[0])
	require.Equal(t, "EchoParamTimeSleep", first.Await("echo")["program"], "the watcher's log has it, too")

	first.Signal(syscall.SIGKILL)
	first.Exit()
	w.watcher()
	pgtest.Eventually(t, soon, "the next attempt speaks", func() bool { return len(w.log(flow)) == 2 })
	require.Equal(t, logLine{2, 1, "log", "echo"}, w.log(flow)[1])
}

// A watcher is killed while its tasks print: lines up to about a second before are there,
// of one that prints little and of one that prints more than is kept.
func TestLog_KilledWhilePrinting(t *testing.T) {
	w := newWorld(t)
	p := w.printer()
	w.print("little", `{"Lines": 1000000, "PauseEvery": 1, "Pause": 10000000}`)
	w.print("much", `{"Lines": 100000000, "PauseEvery": 100, "Pause": 10000000}`)
	pgtest.Eventually(t, soon, "much is printed", func() bool {
		lines := w.log("much")
		return len(lines) > 0 && lines[len(lines)-1].No > 15_000
	})
	p.Signal(syscall.SIGKILL)
	killed := time.Now()
	p.Exit()
	for _, flow := range []string{"little", "much"} {
		lines := w.log(flow)
		last := lines[len(lines)-1].No
		var lag time.Duration
		for _, said := range p.Log.With("printed") {
			at, err := time.Parse(time.RFC3339Nano, said["time"].(string))
			require.NoError(t, err)
			if said["flow"] == flow && int64(said["lines"].(float64)) > last {
				lag = max(lag, killed.Sub(at))
			}
		}
		t.Logf("%s: %d lines are there, the last is %d; what was printed up to %s before the end is missing", flow, len(lines), last, lag)
		require.Less(t, lag, 5*time.Second) // some half a second, on a machine that has time
		require.LessOrEqual(t, len(lines), 10_001)
	}
	last, missing := whole(t, w.log("little"))
	require.Positive(t, last)
	require.Zero(t, missing)
}

// Whoever sees that a task has failed can read its last lines; on a machine that has no
// time, in a moment.
func TestLog_LastLinesOfAFailure(t *testing.T) {
	w := newWorld(t)
	w.printer()
	const n = 30
	for i := range n {
		w.print(fmt.Sprint("f", i), `{"Lines": 50, "Error": "it fails after its last line"}`)
	}
	whole50 := func(flow string) bool { return len(w.log(flow)) == 50 }
	atOnce := 0
	for i := range n {
		flow := fmt.Sprint("f", i)
		w.await(flow, "2")
		if whole50(flow) {
			atOnce++
		}
		pgtest.Eventually(t, soon, "all its lines are there", func() bool { return whole50(flow) })
		whole(t, w.log(flow))
	}
	t.Logf("of %d tasks, %d had all their lines when they were seen to have failed", n, atOnce)
}

// A task that prints a gigabyte takes the time that it takes to look at it, and little
// room; the others do not notice.
func TestLog_AGigabyte(t *testing.T) {
	w := newWorld(t)
	p := w.printer()
	size := 1 << 30
	if commandtest.RaceFlag == "-race" {
		size = 1 << 27
	}
	const width = 127
	w.print("gigabyte", fmt.Sprintf(`{"Lines": %d, "Width": %d}`, size/(width+1), width))
	pgtest.Eventually(t, soon, "it prints", func() bool { return len(w.log("gigabyte")) > 1000 })
	begin := time.Now()
	for i := range 10 {
		flow := fmt.Sprint("quick", i)
		w.print(flow, `{"Lines": 1}`)
		w.await(flow, "3")
		pgtest.Eventually(t, soon, "its line is there", func() bool { return len(w.log(flow)) == 1 })
	}
	require.Equal(t, "1", w.statuses("gigabyte"))
	t.Logf("ten others took %s meanwhile", time.Since(begin))
	w.awaitFor(5*time.Minute, "gigabyte", "3")
	pgtest.Eventually(t, soon, "its last line is there", func() bool {
		lines := w.log("gigabyte")
		return lines[len(lines)-1].No == int64(size/(width+1))
	})
	last, missing := whole(t, w.log("gigabyte"))
	require.Greater(t, missing, last-10_001)
	require.LessOrEqual(t, len(w.log("gigabyte")), 10_001)

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	require.NoError(t, err)
	_, text, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(text)[0])
	require.NoError(t, err)
	t.Logf("the watcher has taken %d MB at the most", kb>>10)
	if commandtest.RaceFlag != "-race" {
		require.Less(t, kb>>10, 100)
	}
	var took string
	require.NoError(t, w.Get(&took, `SELECT (finished_ts - started_ts)::text FROM kr_task_stat WHERE task_flow_id = 'gigabyte'`))
	t.Logf("it took %s", took)
}

// The database is away while tasks print: nothing waits for it, and of what was printed
// nothing is lost that memory has room for.
func TestLog_DatabaseAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	w := c.world()
	w.register() // makes the tables
	p := w.printer()
	w.print("talks", `{"Lines": 400, "PauseEvery": 1, "Pause": 10000000}`)
	w.print("shouts", `{"Lines": 40000, "PauseEvery": 100, "Pause": 10000000}`)
	pgtest.Eventually(t, soon, "they print", func() bool { return len(w.log("talks")) > 0 && len(w.log("shouts")) > 0 })
	c.stop()
	for _, lines := range []int{300, 30_000} {
		pgtest.Eventually(t, soon, "they go on", func() bool {
			for _, said := range p.Log.With("printed") {
				if n := int(said["lines"].(float64)); n > lines && n < lines*3/2 {
					return true
				}
			}
			return false
		})
	}
	c.start()
	w = c.world()
	w.await("talks", "3")
	w.await("shouts", "3")
	for flow, printed := range map[string]int64{"talks": 400, "shouts": 40_000} {
		pgtest.Eventually(t, soon, "its lines are there", func() bool { // their result may have been faster
			lines := w.log(flow)
			return len(lines) > 0 && lines[len(lines)-1].No == printed
		})
		last, missing := whole(t, w.log(flow))
		require.Equal(t, printed, last)
		require.Equal(t, max(0, printed-10_000), missing)
	}
	require.True(t, p.Running())
}
