package stream

import "time"

const (
	watchServer = 2 * time.Second // how often is looked whether the MCP server runs
	missing     = 3 * time.Second // how long it is gone before it is started again
	reviveEvery = time.Minute
)

// revive has the mod start the agent's MCP server again when that has died, and
// not ended: Claude Code does not in a session at which a person sits, and
// without it nothing comes from the mesh. It waits for the end of a turn.
func (s *Stream) revive(now time.Time) {
	switch server := s.agent.Server; {
	case server.PID == 0:
		return
	case server.Alive():
		s.revival = time.Time{}
	case s.revival.IsZero():
		s.revival = now.Add(missing)
	case !s.busy && !now.Before(s.revival):
		s.revival = now.Add(reviveEvery)
		s.say(Instruction{Do: "revive"})
	}
	s.wakeAt(now.Add(watchServer))
}
