package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// eventsOnPage is how many events a page has.
const eventsOnPage = 100

// eventsView is what /events shows: who did what.
type eventsView struct {
	Query    query
	Actor    string
	Flow     string
	Kinds    []listOption
	Rows     []eventRow
	Newest   string // links to the first page and to the next; empty where there is none
	Older    string
	Filtered bool
}

// eventRow is an event in the list.
type eventRow struct {
	eventView
	Did  string // "Rerun"
	Task string // "3 load_orders", or "task 3" where that is gone; empty is the whole flow
	Href string // of the flow or the task, without the base path
	By   string // in what way: "by this page", "by the API"
	Who  string // link to the events of the same actor
}

// showEvents is GET /events.
func (s *Site) showEvents(r *http.Request, sh *shell) (any, error) {
	q := query{r.URL.Query()}.without("did")
	f := flow.EventFilter{Actor: strings.TrimSpace(q.get("actor")), Flow: flow.ID(strings.TrimSpace(q.get("taskFlowId"))), Kind: q.get("kind"), Limit: eventsOnPage}
	if f.Kind != "" && !slices.Contains(flow.EventKinds, f.Kind) {
		return nil, badFilter("kind", f.Kind, "one of "+strings.Join(flow.EventKinds, ", "))
	}
	f.Before, _ = strconv.ParseInt(q.get("before"), 10, 64)
	page, err := s.store.Events(r.Context(), f)
	if err != nil {
		return nil, err
	}
	v := newEventsView(page, f, q)
	sh.Title, sh.Active, sh.Every = "Events", "Events", everyElse
	return v, nil
}

func newEventsView(page flow.EventPage, f flow.EventFilter, q query) eventsView {
	v := eventsView{Query: q, Actor: f.Actor, Flow: string(f.Flow), Filtered: f.Actor != "" || f.Flow != "" || f.Kind != ""}
	kinds := []listOption{{Value: "", Label: "anything"}}
	for _, kind := range flow.EventKinds {
		kinds = append(kinds, listOption{Value: kind, Label: eventWords[kind]})
	}
	v.Kinds = choose(kinds, f.Kind)
	for _, e := range page.Events {
		v.Rows = append(v.Rows, newEventRow(e, q))
	}
	if f.Before > 0 {
		v.Newest = q.without("before").String()
	}
	if page.More {
		v.Older = q.with("before", strconv.FormatInt(page.Next, 10)).String()
	}
	return v
}

// eventWords are flow.EventKinds as people read them.
var eventWords = map[string]string{
	"rerun": "Rerun", "cancel": "Cancelled", "hold": "Held", "resume": "Resumed", "approve": "Approved",
	"skip": "Skipped", "finish": "Marked finished", "suspend": "Suspended", "edit": "Edited",
	"insert": "Inserted", "delete": "Deleted",
}

func newEventRow(e flow.Event, q query) eventRow {
	r := eventRow{eventView: newEventView(e), Did: eventWords[e.Kind()], Href: flowPath(e.Flow), By: wayOf(e)}
	if r.Did == "" {
		r.Did = capital(e.Kind())
	}
	if e.Seq > 0 {
		r.Task, r.Href = "task "+strconv.Itoa(e.Seq), taskHref(flow.TaskKey{Flow: e.Flow, Seq: e.Seq})
		if e.Title != "" {
			r.Task = strconv.Itoa(e.Seq) + " " + e.Title
		}
	}
	r.Who = q.without("before").with("actor", e.Actor).String()
	return r
}

// wayOf says in what way somebody did it, and with which program if that is not one of ours.
func wayOf(e flow.Event) string {
	switch e.Way {
	case flow.WayUI:
		return "on a page"
	case flow.WayAPI:
		return "by the API"
	case flow.WayCLI:
		return "at a terminal"
	}
	if e.Application != "" {
		return "in SQL, with " + e.Application
	}
	return "in SQL"
}
