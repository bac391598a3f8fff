// Package injection holds hostile texts, and checkers of what may become of them on
// the paths by which a peer's text comes before a model or onto a terminal. Tests
// send the texts along each of them:
//
//   - internal/render: Block, BlockWithin, Inline, Line, Visible, Rows, JSON;
//   - internal/courier: the texts of batches, the doorbell, the status line, what each
//     hook event prints, what a waiter wakes with;
//   - internal/stream: what the mod is told to submit, append, attach and log;
//   - internal/mcpserver: the text and the data of check_messages, send_message with
//     its answer, list_peers and message_status; errors with their candidates; the
//     content and meta of channel notifications;
//   - cmd/claudemesh: inbox, held, peers, members, send, status, doctor, audit and
//     errors, as text and as JSON; hooks and the waiter on a real mailbox.
//
// Names of members, meshes, labels, groups and roles stand unescaped where they are
// shown, for a name is refused where it is verified: a pattern of a few ASCII
// characters holds there.
package injection

// Payload is one hostile text.
type Payload struct {
	Class string
	Name  string // within the class
	Text  string // may be invalid UTF-8; at most 32 KiB, what a message holds
}

type texts []struct{ name, text string }

type group struct {
	class string
	texts texts
}

var groups = []group{closing, quotes, nested, meta, unseen, terminal, encodings, verdicts, notices, bulk}

// Payloads returns all texts, by class.
func Payloads() (all []Payload) {
	for _, g := range groups {
		for _, t := range g.texts {
			all = append(all, Payload{g.class, t.name, t.text})
		}
	}
	return all
}

// Some returns every nth of each class, the first included: for a path that costs more.
func Some(n int) (some []Payload) {
	for _, g := range groups {
		for i, t := range g.texts {
			if i%n == 0 {
				some = append(some, Payload{g.class, t.name, t.text})
			}
		}
	}
	return some
}
