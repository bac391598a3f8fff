package courier

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// The agent's events that say something, by its own names.
const (
	SessionStart     = "SessionStart"
	SessionEnd       = "SessionEnd"
	UserPromptSubmit = "UserPromptSubmit"
	PostToolBatch    = "PostToolBatch" // all tools of one answer of the model have run
	Stop             = "Stop"          // the turn ends
	StopFailure      = "StopFailure"   // the turn ended because the model could not be reached
	Notification     = "Notification"
)

// Events lists them.
var Events = []string{SessionStart, SessionEnd, UserPromptSubmit, PostToolBatch, Stop, StopFailure, Notification}

// The states of an agent.
const (
	Idle    = "idle"
	Working = "working"
)

const (
	maxEvent = 1 << 20 // bytes
	// stampEvery is how often a record says that hooks run, in ms: each time costs a write.
	stampEvery = 60_000
)

// Event is what the agent says of an event to a settings hook of its.
type Event struct {
	Name     string `json:"hook_event_name"`
	Session  string `json:"session_id"`
	Source   string `json:"source"`            // of SessionStart: startup, resume, clear, compact
	Again    bool   `json:"stop_hook_active"`  // this Stop follows one that a hook has not let end
	Subagent string `json:"agent_id"`          // it happened inside this one
	Kind     string `json:"notification_type"` // of Notification
	Prompt   string `json:"prompt"`            // of UserPromptSubmit
	Turn     string `json:"prompt_id"`         // its own id of the turn; a prompt that is typed into one has that of it
	// Transcript is the file of the conversation, a line of JSON for each thing in it.
	Transcript string `json:"transcript_path"`
	Attended   string `json:"-"` // 1: a person is there; 0: none; "": not known
	queued     bool   // a prompt that is typed while a turn runs: the person may yet take it back
}

// ReadEvent reads an event, at most 1 MiB of JSON.
func ReadEvent(r io.Reader) (e Event, err error) {
	data, err := io.ReadAll(io.LimitReader(r, maxEvent+1))
	if err != nil {
		return e, err
	}
	if len(data) > maxEvent {
		return e, errors.New("the event is larger than 1 MiB")
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, err
	}
	if e.Session == "" {
		return e, errors.New("the event names no session")
	}
	return e, nil
}

// note writes into the record what the event tells of the agent, and says
// whether that is news.
func (e *Event) note(a *mailbox.Agent, now int64) (changed bool) {
	if e.Name != SessionEnd && a.Session != e.Session {
		a.Session, changed = e.Session, true
	}
	if attended := e.Attended != "0"; e.Attended != "" && a.Attended != attended {
		a.Attended, changed = attended, true
	}
	if status := e.status(); status != "" && a.Status != status {
		a.Status, changed = status, true
	}
	if e.Turn != "" && a.Turn != e.Turn {
		a.Turn, changed = e.Turn, true
	}
	if e.Name == UserPromptSubmit && strings.HasPrefix(e.Prompt, taskNotice) {
		for i := range a.Shown { // the turn that a waiter began
			if s := &a.Shown[i]; s.Turn == "" && pathOf(s.Holder) == mailbox.ByRewake {
				s.Turn, s.Session, changed = cmp.Or(e.Turn, "unnamed"), e.Session, true
			}
		}
	}
	if now-a.Hooks > stampEvery || a.Hooks > now {
		a.Hooks, changed = now, true
	}
	return changed
}

// status is the agent's after the event; "" is as before. A turn that the
// person broke off ends without an event: the agent's reminder that it idles
// tells then.
func (e *Event) status() string {
	switch {
	case e.Name == UserPromptSubmit || e.Name == PostToolBatch:
		return Working
	case e.Name == Stop || e.Name == StopFailure, e.Name == Notification && e.Kind == "idle_prompt",
		e.Name == SessionStart && e.Source != "compact":
		return Idle
	}
	return ""
}

// verdict is what an event proves of what was put before the model.
type verdict int

const (
	unknown verdict = iota
	read
	lost
	carried // into the conversation that follows
)

// taskNotice begins the prompt of a turn that a waiter's end began.
const taskNotice = "<task-notification>"

// proves judges what was shown before the event: a request to the model lies
// between, or the conversation is gone. When the person breaks a turn off before
// the model has answered, no event tells, and the agent takes the prompt back
// with all that came with it: the next prompt finds out from the transcript.
// What a waiter has printed lies in the agent's queue until its turn begins,
// also when the conversation is cleared meanwhile, be it that its prompt was
// told of before.
func (e *Event) proves(s *mailbox.Shown, now int64) verdict {
	switch {
	case s.Turn == "" && pathOf(s.Holder) == mailbox.ByRewake:
		switch {
		case (e.Name == PostToolBatch || e.Name == Stop) && noticed(e.Transcript, s.At):
			return read
		case now > s.At+heldFor.Milliseconds(): // it was not heeded
			return lost
		}
		return unknown
	case e.Name == SessionEnd && pathOf(s.Holder) == mailbox.ByRewake && !noticed(e.Transcript, s.At):
		return carried
	case e.Name == SessionEnd, e.Name == SessionStart && e.Source == "clear", s.Session != "" && s.Session != e.Session:
		return lost
	case e.Name == PostToolBatch || e.Name == Stop:
		return read
	case e.Name != UserPromptSubmit:
		return unknown
	case e.queued:
		return unknown
	case !s.Opens || answered(e.Transcript, s.At):
		return read
	}
	return lost
}
