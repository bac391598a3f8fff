package courier

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// saysOf is what the agent says of itself, idle, busy or waiting, and since when
// (Unix ms); nothing when it does not. Claude Code 2.1.330 keeps a file on each of
// its sessions beside the directories of transcripts. It documents neither, so
// that only the cases are taken from there which no event tells.
func saysOf(transcript string, pid int) (status string, since int64) {
	home := filepath.Dir(filepath.Dir(filepath.Dir(transcript))) // of projects/PROJECT/SESSION.jsonl
	f, err := os.Open(filepath.Join(home, "sessions", strconv.Itoa(pid)+".json"))
	if err != nil {
		return "", 0
	}
	defer f.Close()
	var said struct {
		Status string `json:"status"`
		Since  int64  `json:"statusUpdatedAt"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxEvent)).Decode(&said); err != nil {
		return "", 0
	}
	return said.Status, said.Since
}

// idleSince is since when the agent says that it idles; 0 when it does not. So
// a turn is known to be over that the person broke off.
func idleSince(transcript string, pid int) int64 {
	status, since := saysOf(transcript, pid)
	if status != Idle {
		return 0
	}
	return since
}
