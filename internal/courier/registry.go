package courier

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// idleSince is since when (Unix ms) the agent says of itself that it idles; 0
// when it does not, or says nothing. Claude Code 2.1.330 keeps a file on each of
// its sessions beside the directories of transcripts. It documents neither, so
// that only the case is taken from there which no event tells: a turn that the
// person broke off.
func idleSince(transcript string, pid int) int64 {
	home := filepath.Dir(filepath.Dir(filepath.Dir(transcript))) // of projects/PROJECT/SESSION.jsonl
	f, err := os.Open(filepath.Join(home, "sessions", strconv.Itoa(pid)+".json"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var said struct {
		Status string `json:"status"`
		Since  int64  `json:"statusUpdatedAt"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxEvent)).Decode(&said); err != nil || said.Status != Idle {
		return 0
	}
	return said.Since
}
