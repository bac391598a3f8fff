package claudecode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// record is what install added, so that uninstall takes away that and no more.
type record struct {
	MadeDir bool              `json:"madeDir"` // install made the configuration directory
	Claude  map[string]*added `json:"claude"`  // by Claude Code's directory
}

// added is what install added to one Claude Code.
type added struct {
	Plugin     bool     `json:"plugin"`
	Server     []string `json:"server,omitempty"`     // what --mcp-only registered
	StatusLine string   `json:"statusLine,omitempty"` // the command that was set
	Before     *before  `json:"before,omitempty"`
}

// before is what Claude Code's directory held of the things that its plugin
// commands make, and that they leave behind empty.
type before struct {
	Settings *string  `json:"settings"` // the text of settings.json; null: there was none
	Absent   []string `json:"absent"`
}

func (s Setup) recordPath() string { return filepath.Join(folder(s.Dir), "installed.json") }

// readRecord returns an empty record if there is none.
func (s Setup) readRecord() (*record, error) {
	r := &record{Claude: map[string]*added{}}
	data, err := os.ReadFile(s.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, r)
	}
	if err != nil {
		return nil, fmt.Errorf("read what was installed in %s: %w", s.recordPath(), err)
	}
	if r.Claude == nil {
		r.Claude = map[string]*added{}
	}
	return r, nil
}

// note changes the record, before what it records is done: what was begun and
// failed is then taken away too.
func (s Setup) note(change func(*added)) error {
	_, err := os.Stat(s.Dir)
	made := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(folder(s.Dir), 0o700); err != nil {
		return err
	}
	r, err := s.readRecord()
	if err != nil {
		return err
	}
	r.MadeDir = r.MadeDir || made
	a := r.Claude[s.Client.Home]
	if a == nil {
		a = &added{}
		r.Claude[s.Client.Home] = a
	}
	change(a)
	return s.saveRecord(r)
}

func (s Setup) saveRecord(r *record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(s.recordPath(), append(data, '\n'), 0o600)
}

// remember keeps what there was before the first change.
func (s Setup) remember(a *added) {
	if a.Before != nil {
		return
	}
	a.Before = &before{Absent: []string{}}
	if text, err := os.ReadFile(s.Client.settings()); err == nil {
		t := string(text)
		a.Before.Settings = &t
	}
	for _, name := range leftovers {
		if _, err := os.Lstat(filepath.Join(s.Client.Home, name)); errors.Is(err, fs.ErrNotExist) {
			a.Before.Absent = append(a.Before.Absent, name)
		}
	}
}
