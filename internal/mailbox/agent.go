package mailbox

import (
	"context"
	"errors"
	"slices"

	"github.com/claudemesh/claudemesh/internal/process"
	"github.com/claudemesh/claudemesh/internal/wire"
)

// ErrNoAgent says that no record of an agent has this process id.
var ErrNoAgent = errors.New("no agent of this process id is known")

// Couriers is how messages get into agents: each by one courier, which leases
// it, brings it in, and marks it read on evidence or puts it back. A lease ends
// by itself, and with its agent's record.
type Couriers interface {
	// Lease returns unread messages that match q and nobody else holds at q.Now,
	// as List orders them, and holds them for q.Holder until a time (Unix ms of
	// this machine, as q.Now). Its own are returned and renewed too.
	Lease(ctx context.Context, q Query, until int64) (msgs []Incoming, more int, err error)
	// Renew holds what holder holds until a later time.
	Renew(ctx context.Context, holder string, until int64) error
	// Release puts back what holder holds; numbers nil means all of it.
	Release(ctx context.Context, holder string, numbers []int64) error
	// MarkShown marks those read that holder has leased and nobody has read, and
	// returns their numbers. A lease that has run out counts until another has one.
	MarkShown(ctx context.Context, holder string, shown []Showing) (marked []int64, err error)

	// PutAgent makes or replaces the record of a process.
	PutAgent(ctx context.Context, a Agent) error
	// ChangeAgent lets change alter a record and stores it, in one transaction;
	// an error of change leaves it as it was. ErrNoAgent.
	ChangeAgent(ctx context.Context, pid int, change func(*Agent) error) (Agent, error)
	// Agent returns the record of a process. ErrNoAgent.
	Agent(ctx context.Context, pid int) (Agent, error)
	// Agents returns all records, by process id.
	Agents(ctx context.Context) ([]Agent, error)
	// ForgetAgents deletes records and ends the leases of their couriers.
	ForgetAgents(ctx context.Context, pids []int) error
}

// Showing says that a message was shown: to whom, and when by the clock of the
// mesh's broker (Unix ms).
type Showing struct {
	Number int64
	Reader wire.Key
	At     int64
}

// Mode is what may enter an agent unasked.
type Mode string

// The modes of an agent, from the most to the least.
const (
	Push      Mode = "push"   // messages wake it and enter whole
	Notice    Mode = "notice" // a line says that there are some; it is not woken
	InboxOnly Mode = "inbox"  // only our tools' results count them
	Off       Mode = "off"    // nothing, and nobody is told that it could be reached
)

// Modes lists the modes.
var Modes = []Mode{Push, Notice, InboxOnly, Off}

// Path is a way into an agent.
type Path string

// The paths, from the best to the least.
const (
	ByMod    Path = "mod"    // the plugin's module: at once, idle or busy
	ByRewake Path = "rewake" // a waiting hook: at once when idle
	ByHooks  Path = "hooks"  // at the next turn, or the next tool calls of a running one
	ByNone   Path = "none"
)

// Agent is a program in which a model runs, with what brings messages into it.
// Times are Unix ms of this machine. It is data of this machine, never sent.
type Agent struct {
	process.Process        // the agent's
	Session         string `json:"session,omitempty"` // its own name of its session; "" unknown
	Cwd             string `json:"cwd,omitempty"`
	Version         string `json:"version,omitempty"` // of the agent
	Mode            Mode   `json:"mode"`
	Turn            string `json:"turn,omitempty"`     // its own id of its turn, the last that a hook saw
	Attended        bool   `json:"attended,omitempty"` // a person sits before it
	Status          string `json:"status,omitempty"`   // idle or working, as couriers have seen it; "" unknown
	DND             bool   `json:"dnd,omitempty"`      // only messages of priority now may enter

	Server process.Process `json:"server"` // claudemesh mcp
	Mod    process.Process `json:"mod"`    // claudemesh session-stream, while the mod answers
	Waiter process.Process `json:"waiter"` // claudemesh hook rewake
	Hooks  int64           `json:"hooks,omitempty"`

	Seats  []AgentSeat    `json:"seats,omitempty"`
	Held   []wire.ID      `json:"held,omitempty"`   // what a call waits for: answers to a message, or all of a mesh
	Shown  []Shown        `json:"shown,omitempty"`  // what was put before the model and is not known to have been read
	Proven map[Path]int64 `json:"proven,omitempty"` // when a message last entered
}

// AgentSeat is the agent's session in one mesh.
type AgentSeat struct {
	Mesh   wire.ID  `json:"mesh"`
	Name   string   `json:"name"`   // the mesh's
	Key    wire.Key `json:"key"`    // the session's
	Member wire.Key `json:"member"` // whose it is
	Self   string   `json:"self"`   // the session's full name
	Offset int64    `json:"offset"` // the broker's clock less this machine's, in ms
	Online bool     `json:"online,omitempty"`
	Peers  int      `json:"peers,omitempty"` // online, besides this one
}

// Shown is what a courier has put before the model, of one mesh; an event that
// follows is the evidence that it was read.
type Shown struct {
	Holder  string  `json:"holder"`
	Mesh    wire.ID `json:"mesh"`
	Numbers []int64 `json:"numbers"`
	Session string  `json:"session"` // the agent's; "" was not known
	At      int64   `json:"at"`
	Turn    string  `json:"turn,omitempty"`  // the agent's id of the turn that it came with; "" has not begun, or was not known
	Opens   bool    `json:"opens,omitempty"` // it came with a prompt, which is taken back when it is broken off before an answer
}

// Recipients are the keys whose messages are for this agent: its sessions' and
// their members', for what is sent to a person goes to whoever takes it first.
func (a *Agent) Recipients() (keys []wire.Key) {
	for _, s := range a.Seats {
		keys = append(keys, s.Key)
	}
	for _, s := range a.Seats {
		if !slices.Contains(keys, s.Member) {
			keys = append(keys, s.Member)
		}
	}
	return keys
}

// Seat returns the agent's session in a mesh, nil if there is none.
func (a *Agent) Seat(mesh wire.ID) *AgentSeat {
	i := slices.IndexFunc(a.Seats, func(s AgentSeat) bool { return s.Mesh == mesh })
	if i < 0 {
		return nil
	}
	return &a.Seats[i]
}

// Prove notes that a message has entered by a path.
func (a *Agent) Prove(by Path, at int64) {
	if a.Proven == nil {
		a.Proven = map[Path]int64{}
	}
	a.Proven[by] = at
}

// Wake returns the best path by which a message can enter now.
func (a *Agent) Wake() Path {
	switch {
	case a.Mode == Off || a.Mode == InboxOnly || !a.Alive():
		return ByNone
	case a.Mode == Push && a.Mod.Alive():
		return ByMod
	case a.Mode == Push && a.Waiter.Alive():
		return ByRewake
	case a.Hooks > 0 || a.Mod.Alive():
		return ByHooks
	}
	return ByNone
}
