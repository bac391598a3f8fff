package stream

import (
	"context"

	"github.com/claudemesh/claudemesh/internal/courier"
	"github.com/claudemesh/claudemesh/internal/mailbox"
)

// nudge starts the turn in which the model reads what was put into one that had
// ended.
const nudge = "[claudemesh: an urgent peer message came as the last turn ended. It stands above, in a note from the claudemesh plugin.]"

// tell shows the person a line on what only the model sees.
func (s *Stream) tell(b *courier.Batch, what string) {
	s.told = max(s.told, newest(b))
	s.say(Instruction{Do: "log", Text: b.Count() + " " + what + ": " + b.Senders()})
}

// newest is the number of the latest message of a batch.
func newest(b *courier.Batch) (number int64) {
	for i := range b.Messages {
		number = max(number, b.Messages[i].Number)
	}
	return number
}

// showStatus keeps the person's status line as it should be.
func (s *Stream) showStatus(ctx context.Context) error {
	text := ""
	if len(s.agent.Seats) > 0 && s.agent.Mode != mailbox.Off {
		msgs, more, err := s.box.List(ctx, mailbox.Query{Recipients: s.agent.Recipients(), Gate: mailbox.Shelf, Limit: 1})
		if err != nil {
			return err
		}
		text = courier.StatusLine(&s.agent, len(msgs)+more)
	}
	if text != s.status {
		s.status = text
		s.say(Instruction{Do: "status", Text: text})
	}
	return nil
}
