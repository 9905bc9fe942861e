package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// awaitReady waits until register is ready.
func awaitReady(ctx context.Context, site string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if _, err := call(ctx, http.MethodGet, site+"/readyz", ""); err == nil {
			return nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("register did not become ready: its last lines say why (%w)", err)
		}
	}
}

// runSample registers the workflow sample as anybody would, waits until the flow has
// come to its end, and shows it.
func runSample(ctx context.Context, site string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var registered struct{ TaskFlowID string }
	answer, err := call(ctx, http.MethodPost, site+"/register", `{"taskId": "sample"}`)
	if err == nil {
		err = json.Unmarshal(answer, &registered)
	}
	if err != nil {
		return err
	}
	address := site + "/api/v1/flows/" + registered.TaskFlowID
	status, err := awaitEnd(ctx, address)
	if err != nil {
		return err
	}
	table, err := call(ctx, http.MethodGet, address+"?format=text", "")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%s", table)
	if status != "finished" {
		return fmt.Errorf("it is %s, and should have finished", status)
	}
	return nil
}

// awaitEnd waits until nothing of a flow runs or can, and returns the flow's status.
func awaitEnd(ctx context.Context, address string) (string, error) {
	for {
		var state struct{ Status string }
		answer, err := call(ctx, http.MethodGet, address, "")
		if err == nil {
			err = json.Unmarshal(answer, &state)
		}
		if err != nil {
			return "", err
		}
		if state.Status != "running" && state.Status != "queued" {
			return state.Status, nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return "", fmt.Errorf("it is still %s: %w", state.Status, err)
		}
	}
}

func whatToTry(site string, db *database) string {
	psql, ends := `psql "$DATABASE_URL"`, "Ctrl-C stops Flower."
	if db.server != nil {
		psql = fmt.Sprintf("psql '%s'", db.url)
		ends = "Ctrl-C stops everything; the next make run goes on with the same data, make clean removes it."
	}
	host, where := strings.TrimPrefix(site, "http://"), ""
	if host != "localhost:8000" { // which sample-etl takes for register unless it is told
		where = fmt.Sprintf(` -d '{"parameters": {"register": "%s"}}'`, host)
	}
	return strings.NewReplacer("{site}", host, "{where}", where, "{psql}", psql, "{ends}", ends).Replace(`
Flower runs on http://{site}. {ends}
Try in another terminal:

  curl -X POST -H 'Content-Type:application/json' {site}/register -d '{"taskId": "sample-diamond"}'

One of commands, SQL, HTTP, and a person who decides:

  curl -X POST {site}/register/sample-etl{where}

Approve it on the page of its flow, http://{site}/flows/ID (ID is the taskFlowId that curl shows), or with
curl -X POST {site}/api/v1/flows/ID/tasks/5/approve, or in SQL:

  make psql    # which is: {psql}
  SELECT task_exec_seq, title, status, why, error FROM v_task WHERE task_id = 'sample-etl';
  SELECT flower_approve(task_flow_id, task_exec_seq, 'looks good') FROM kr_task_stat
   WHERE task_id = 'sample-etl' AND reason = 'held';

A flow that fails, and its rerun from the failure, with the parameter corrected:

  curl -X POST {site}/register/sample-fails
  SELECT task_id, task_exec_seq, title, reason, error FROM v_failed;
  UPDATE kr_task_stat SET exec_status = 0, parameters = '{"SLEEP_TIME_SECOND": "0.5"}'
   WHERE task_id = 'sample-fails' AND exec_status = 2;
  SELECT task_exec_seq, title, status, attempt, took FROM v_task WHERE task_id = 'sample-fails';

`)
}

// call makes a request and returns its answer; any answer but a good one is an error.
func call(ctx context.Context, method, url, body string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return text, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
