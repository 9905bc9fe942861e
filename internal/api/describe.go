package api

import (
	"encoding/json"

	"github.com/danielgtaylor/huma/v2"
)

// What the document says beside what follows from the types.

// tagTexts say what the parts of the document are for.
var tagTexts = []*huma.Tag{
	{Name: tagFlows, Description: "Register flows, find them, and look at one."},
	{Name: tagTasks, Description: "The tasks of a flow: their attempts, and what they print."},
	{Name: tagAct, Description: "What people do to flows and tasks. Each can be previewed (dryRun), and repeated safely (Idempotency-Key)."},
	{Name: tagWorkflows, Description: "Definitions, as rows and as files."},
	{Name: tagLook, Description: "What runs, what goes next, what failed, and who changed what."},
}

// describeAccess says how callers say who they are: where there are no tokens, not at all.
func describeAccess(doc *huma.OpenAPI) {
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "A token that \"register token\" has made, with a role: reader, registrar, operator or admin. Each may do what those before it may."},
	}
	doc.Security = []map[string][]string{{"token": {}}, {}}
}

// examples are bodies of requests, by the operation that takes them.
var examples = map[string]string{
	"register-flow":   `{"taskId": "sample", "parameters": {"day": "2026-11-24"}, "note": "by hand"}`,
	"rerun-flow":      `{"note": "the disk is larger now", "dryRun": true}`,
	"cancel-flow":     `{"note": "it was started twice"}`,
	"hold-flow":       `{"note": "until the new figures are in"}`,
	"resume-flow":     `{"note": "they are in"}`,
	"rerun-task":      `{"scope": "only", "parameters": {"SLEEP_TIME_SECOND": 0.5}}`,
	"cancel-task":     `{"note": "not on a Friday"}`,
	"hold-task":       `{"note": "I look at it first"}`,
	"resume-task":     `{}`,
	"approve-task":    `{"note": "the figures are right"}`,
	"skip-task":       `{"note": "nobody reads that report", "expect": 1}`,
	"finish-task":     `{"output": {"rows": 7}, "note": "I loaded them by hand"}`,
	"bulk-rerun":      `{"filter": {"taskId": "nightly", "fingerprint": "c5e7deced0b6", "failedSince": "24h"}, "expect": 214, "note": "the service is back"}`,
	"bulk-cancel":     `{"filter": {"taskId": "nightly", "status": ["queued"]}, "dryRun": true}`,
	"bulk-hold":       `{"filter": {"taskId": "nightly"}, "dryRun": true}`,
	"bulk-resume":     `{"filter": {"taskId": "nightly"}, "expect": 12}`,
	"bulk-skip":       `{"taskFlowIds": ["01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae"], "expect": 1}`,
	"bulk-finish":     `{"taskFlowIds": ["01a20f06-fa5e-7b09-b1f9-0c4bb1e6e7ae"], "expect": 1}`,
	"put-workflow":    `{"tasks": [{"title": "collect", "program": "NoOp"}, {"title": "report", "program": "NoOp", "timeout": "1m30s"}]}`,
	"apply-workflows": `{"taskId": "nightly", "tasks": [{"program": "NoOp"}]}`,

	"register":         `{"taskId": "sample"}`,
	"register-by-path": `{"parameters": {"day": "2026-11-24"}}`,
}

func addExamples(doc *huma.OpenAPI) {
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Post, item.Put} {
			if op == nil || examples[op.OperationID] == "" {
				continue
			}
			if body := op.RequestBody.Content["application/json"]; body != nil {
				body.Example = json.RawMessage(examples[op.OperationID])
			}
		}
	}
}
