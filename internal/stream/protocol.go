package stream

// Instruction is what the mod is to do.
type Instruction struct {
	Do    string `json:"do"` // socket, submit, log, status, revive
	Path  string `json:"path,omitempty"`
	Batch string `json:"batch,omitempty"`
	Text  string `json:"text,omitempty"`
	Holds []hold `json:"holds,omitempty"` // what the batch is of: the mod keeps it for the next stream
}

// Event is what the mod tells, one after the other: what has happened, and how the agent stands.
type Event struct {
	Name    string    `json:"event"`   // hello, turn.start, step, turn.complete, tool, prompt, outcome, session.end
	Busy    bool      `json:"busy"`    // a turn of the main loop runs
	Steps   int64     `json:"steps"`   // requests of the main loop to the model so far
	Session string    `json:"session"` // hello: the agent's own id of its session
	Aborted bool      `json:"aborted"` // turn.complete: a person stopped it
	Reason  string    `json:"reason"`  // session.end
	Batches []Outcome `json:"batches"` // outcome: of one; hello: of what earlier streams gave
}

// Outcome is how a batch has fared at the mod.
type Outcome struct {
	Batch  string `json:"batch"`
	Via    via    `json:"via"`
	Holds  []hold `json:"holds"`
	Over   bool   `json:"over"`   // it has entered, or failed
	Failed string `json:"failed"` // why it has not
	Steps  int64  `json:"steps"`  // requests to the model when it entered: a later one has it
}

// Answer is what the mod gets back for an event.
type Answer struct {
	Context []string `json:"context,omitempty"` // to attach
	Append  string   `json:"append,omitempty"`  // to put into the session now
	Batch   string   `json:"batch,omitempty"`   // that these are of
	Holds   []hold   `json:"holds,omitempty"`
	Done    []string `json:"done,omitempty"` // batches to forget
}
