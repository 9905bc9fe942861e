package api

import (
	"context"
	"math"
	"net/http"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// Event is a change that a person has made.
type Event struct {
	EventID     int64      `json:"eventId" doc:"Rises."`
	EventTs     *timestamp `json:"eventTs"`
	Kind        string     `json:"kind" enum:"rerun,cancel,hold,resume,approve,skip,finish,suspend,edit,insert,delete" doc:"suspend and edit: rows were changed by hand; insert and delete: of tasks."`
	TaskFlowID  string     `json:"taskFlowId"`
	TaskExecSeq *int       `json:"taskExecSeq" doc:"Null: the flow as a whole."`
	OldStatus   *string    `json:"oldStatus"`
	NewStatus   *string    `json:"newStatus"`
	Change      object     `json:"change" doc:"Of other columns: {column: [old, new]}."`
	Note        *string    `json:"note"`
	Actor       string     `json:"actor"`
	Way         string     `json:"way" doc:"api, ui, cli or sql."`
	Login       *string    `json:"login" doc:"Who was logged in to the database."`
	Application *string    `json:"application"`
	Client      *string    `json:"client"`
}

// EventList is a part of the events.
type EventList struct {
	Items []Event `json:"items" nullable:"false"`
	Next  int64   `json:"next" doc:"Where to go on: with after, or with before if there was no after."`
	More  bool    `json:"more" doc:"There may be more already."`
}

type listEventsInput struct {
	After       int64  `query:"after" minimum:"0" doc:"The id of an event, or 0: those that came later, in their order."`
	Before      int64  `query:"before" minimum:"1" doc:"The id of an event: those before it, the latest first."`
	TaskFlowID  string `query:"taskFlowId" maxLength:"256" doc:"The flow."`
	TaskExecSeq int    `query:"taskExecSeq" minimum:"1" maximum:"2000000000" doc:"One of the flow's tasks."`
	Actor       string `query:"actor" maxLength:"200" doc:"Who did it."`
	Kind        string `query:"kind" enum:"rerun,cancel,hold,resume,approve,skip,finish,suspend,edit,insert,delete" doc:"What was done."`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many."`
}

func (a *API) listEvents(ctx context.Context, in *listEventsInput) (EventList, error) {
	f := flow.EventFilter{
		Flow: flow.ID(in.TaskFlowID), Seq: in.TaskExecSeq, Actor: in.Actor, Kind: in.Kind, Before: in.Before, Limit: in.Limit,
	}
	if viewOf(ctx).asks("after") {
		if in.Before > 0 {
			return EventList{}, problem.InvalidFilter.Because("after and before do not go together")
		}
		f.After = &in.After
	}
	if f.Before == 0 {
		f.Before = math.MaxInt64
	}
	page, err := a.store.Events(ctx, f)
	if err != nil {
		return EventList{}, err
	}
	return EventList{newEvents(page.Events), page.Next, page.More}, nil
}

func newEvents(events []flow.Event) []Event {
	list := make([]Event, len(events))
	for i, e := range events {
		list[i] = Event{
			EventID: e.ID, EventTs: stamp(e.At), Kind: e.Kind(), TaskFlowID: string(e.Flow), TaskExecSeq: orNull(e.Seq),
			OldStatus: statusWord(e.From), NewStatus: statusWord(e.To), Change: masked(e.Change, "null"), Note: orNull(e.Note),
			Actor: e.Actor, Way: string(e.Way), Login: orNull(e.Login), Application: orNull(e.Application), Client: orNull(e.Client),
		}
	}
	return list
}

func statusWord(s *flow.Status) *string {
	if s == nil {
		return nil
	}
	word := s.String()
	return &word
}

func (l EventList) header(h http.Header, r *http.Request) {
	if l.More && r.URL.Query().Has("after") {
		next := itoa(l.Next)
		linkNext(h, r, "after", &next)
	}
}

func (l EventList) table() table {
	t := table{columns: []string{"id", "time", "actor", "way", "kind", "flow", "seq", "from", "to", "note"}, numbers: []int{0, 6}}
	for _, e := range l.Items {
		seq := ""
		if e.TaskExecSeq != nil {
			seq = itoa(int64(*e.TaskExecSeq))
		}
		t.add(e.EventID, at(e.EventTs), e.Actor, e.Way, e.Kind, e.TaskFlowID, seq, orZero(e.OldStatus), orZero(e.NewStatus), orZero(e.Note))
	}
	return t
}
